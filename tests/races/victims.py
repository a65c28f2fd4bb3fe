"""Processes that die in the middle of a comparison, by kill -9.

They are forked from a process that has Django but has never asked the database, so that a death costs milliseconds.
Nothing of Django is imported at the top, as in `crew`.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0  # seconds until a victim must be inside


class Victims:
    """Brings forth processes that begin to compare a secret and are killed in it."""

    def __init__(self, database_url: str, **environment: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        wanted = {**environment, "DATABASE_URL": database_url, "RACES_LIMITS": "real"}
        self._process = context.Process(target=_parent, args=(there, wanted))
        self._process.start()
        there.close()
        self._expect("ready")

    def kill(self, items: Sequence[Any]) -> None:
        """Bring these `answers.Item`s, each in a process of its own; when all are inside the comparison, kill them."""
        self._pipe.send(list(items))
        self._expect("dead")

    def _expect(self, word: str) -> None:
        if not self._pipe.poll(PATIENCE * 2):
            raise RuntimeError("The parent of the victims does not answer.")
        if (said := self._pipe.recv()) != word:
            raise RuntimeError(f"A victim did not die as it should:\n{said}")

    def stop(self) -> None:
        with suppress(OSError):
            self._pipe.send(None)
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


# --- In the parent of the victims -----------------------------------------------------------------------------------


def _parent(pipe: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    try:
        from tests.races import acts, answers

        acts.set_up()
        answers.arm()()
        pipe.send("ready")
        while (items := pipe.recv()) is not None:
            pipe.send(_kill(items))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # the one who asks is gone
    except BaseException:  # noqa: BLE001  (told to the one who asks, who raises it)
        pipe.send(traceback.format_exc())


def _kill(items: list[Any]) -> str:
    victims = [_victim(item) for item in items]
    said = [_hear(end) for _pid, end in victims]
    for pid, end in victims:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(end)
    return next((text for text in said if text != "inside"), "dead")


def _victim(item: Any) -> tuple[int, int]:
    """A process that brings this item and never comes out of the comparison; its id, and where it says that it is inside."""
    from tests.races import answers

    here, there = os.pipe()
    pid = os.fork()
    if pid:
        os.close(there)
        return pid, here

    def stay() -> None:
        os.write(there, b"inside")
        time.sleep(PATIENCE * 2)

    try:
        answers.inside.append(stay)
        answers.answer([item])()
        os.write(there, b"it was never compared")
    except BaseException:  # noqa: BLE001  (told to the one who asks)
        os.write(there, traceback.format_exc()[-3000:].encode())
    finally:
        time.sleep(PATIENCE * 2)  # until it is killed
        os._exit(1)


def _hear(end: int) -> str:
    return os.read(end, 4000).decode()
