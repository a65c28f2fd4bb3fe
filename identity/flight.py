"""Whether the secret that is about to be compared has been counted. Whatever compares one calls `demand`; the ledger opens `in_flight`."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_in_flight: ContextVar[bool] = ContextVar("in_flight", default=False)


class Unreserved(RuntimeError):
    """A secret was about to be verified without a reservation in the ledger: a path that forgets it is a bug."""


@contextlib.contextmanager
def in_flight() -> Iterator[None]:
    """While this lasts, secrets may be compared."""
    token = _in_flight.set(True)
    try:
        yield
    finally:
        _in_flight.reset(token)


def demand() -> None:
    if not _in_flight.get():
        raise Unreserved
