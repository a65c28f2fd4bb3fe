"""What a server process does beside its requests: chores, each at its own pace, those of one line in one thread."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import InterfaceError, OperationalError, close_old_connections

logger = logging.getLogger("gatehouse.upkeep")
LONGEST_PAUSE = 60.0  # seconds between tries of a chore that fails and fails


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that is done every so often. It may fail; it is tried again."""

    name: str
    every: timedelta
    work: Callable[[], object]


class Upkeep(threading.Thread):
    """Does chores until the process ends, or until it is told to stop. No exception of a chore ends it."""

    def __init__(self, *chores: Chore) -> None:
        super().__init__(name="upkeep", daemon=True)
        self._due = {chore: time.monotonic() + _about(chore.every.total_seconds()) for chore in chores}
        self._failed = dict.fromkeys(chores, 0)  # times in a row
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            chore = min(self._due, key=self._due.__getitem__)
            if self._end.wait(max(self._due[chore] - time.monotonic(), 0)):
                return
            self._do(chore)
            pause = chore.every.total_seconds()
            if self._failed[chore]:
                pause = max(pause, min(pause * 2 ** self._failed[chore], LONGEST_PAUSE))
            self._due[chore] = time.monotonic() + _about(pause)

    def stop(self) -> None:
        self._end.set()
        self.join()

    def _do(self, chore: Chore) -> None:
        close_old_connections()
        try:
            chore.work()
        except Exception as error:
            self._failed[chore] = min(self._failed[chore] + 1, 10)
            # A database that is away says so in one line: whoever reads the journal then looks for something else.
            is_away = isinstance(error, OperationalError | InterfaceError)
            why = str(error).strip().partition("\n")[0]
            logger.error("The chore “%s” failed; it is tried again: %s", chore.name, why, exc_info=not is_away)
        else:
            self._failed[chore] = 0
        finally:
            # As after a request: SQLite's stays open for the next time, PostgreSQL's goes back into the pool.
            close_old_connections()


def _about(seconds: float) -> float:
    """A tenth more or less, so that the processes of a machine do not all come at once."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311


_running: list[Upkeep] = []
_starting = threading.Lock()


def start(*lines: Sequence[Chore]) -> None:
    """Begin, in this process, unless it has begun: the server's workers call it with every request.

    Each line of chores has a thread of its own: a chore waits for those of its line only.
    """
    if _running:
        return
    with _starting:
        if not _running:
            _running.extend(Upkeep(*chores) for chores in lines if chores)
            for upkeep in _running:
                upkeep.start()
