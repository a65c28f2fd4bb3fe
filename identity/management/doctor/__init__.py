"""What `manage.py doctor` looks at: a module for each group, with one function `examine` that yields findings."""

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 3.0  # seconds, for one answer of one machine
AT_ONCE = 16


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # good to know; nothing to do
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. What is not as it should be says what to do about it."""

    state: State
    text: str
    cure: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator wants. url: connect here for every host; mail: send a test to this address.

    has_database: it answers, so that it can be asked.
    """

    url: str | None = None
    mail: str = ""
    has_database: bool = True


def ok(text: str, **data: Any) -> Finding:
    return Finding(State.OK, text, data=data)


def note(text: str, cure: str = "", **data: Any) -> Finding:
    return Finding(State.NOTE, text, cure, data)


def warning(text: str, cure: str, **data: Any) -> Finding:
    return Finding(State.WARNING, text, cure, data)


def failure(text: str, cure: str, **data: Any) -> Finding:
    return Finding(State.FAILURE, text, cure, data)


def is_here(host: str) -> bool:
    """Does this name this machine (a path is the folder of a unix socket)? Then no network carries what is said to it."""
    return not host or host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}


def bits(text: str) -> float:
    """How much chance is in a text, by how often each of its characters comes: an upper bound, which finds what is no secret."""
    n = len(text)
    return -sum(count * math.log2(count / n) for count in Counter(text).values()) if n else 0.0


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], seconds: float) -> dict[Item, Result]:
    """Do the same for many at once. What is not there in time is missing: a resolver that hangs cannot be interrupted, only left."""
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    done: dict[Item, Result] = {}

    def take() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            done[item] = work(item)

    threads: Sequence[threading.Thread] = [threading.Thread(target=take, daemon=True) for _n in range(min(AT_ONCE, waiting.qsize()))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    return dict(done)
