"""What Prometheus reads at /metrics: how many requests were answered, how fast, and the pulse of the platform. Never a name.

A server has several processes, and any of them may be asked. So each counts into a file of its own, and who is asked adds them up.
A file belongs to whoever holds its lock; the next process goes on where one that died has stopped, so no count ever goes back.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from identity import pulse

log = logging.getLogger("gatehouse.metrics")

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# By the beginning of the path: the first that fits.
ROUTES = {
    "/_portal/check": "gate",
    "/_portal/whoami": "gate",
    "/_portal/start": "hand_off",
    "/_portal/finish": "hand_off",
    "/_portal/static/": "static",
    "/_portal/brand/": "static",
    "/enter/": "hand_off",
    "/login/": "sign_in",
    "/step-up/": "sign_in",
    "/password/": "sign_in",
    "/signup/": "sign_in",
    "/logout/": "sign_out",
    "/_portal/logout": "sign_out",
    "/account/": "account",
    "/console/": "console",
    "/api/": "api",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "health",
}
GROUPS = (*dict.fromkeys(ROUTES.values()), "other")
_COLUMNS = len(CLASSES) + len(BOUNDS) + 2  # and what took longer, and the seconds together
_SIZE = len(GROUPS) * _COLUMNS * 8
# Another release may count other things: its files are others.
_LAYOUT = hashlib.sha256(repr((GROUPS, CLASSES, BOUNDS)).encode()).hexdigest()[:8]
_MOST = 1000  # processes


def group_of(path: str) -> str:
    return next((group for beginning, group in ROUTES.items() if path.startswith(beginning)), "other")


class Tally:
    """The counts of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._take_one()
        self._numbers = memoryview(mmap.mmap(self._file, _SIZE)).cast("d")
        self._one_at_a_time = threading.Lock()

    def _take_one(self) -> int:
        """The first file that nobody holds. The lock goes with the process."""
        for n in range(_MOST):
            file = os.open(self.folder / f"{_LAYOUT}-{n}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            os.posix_fallocate(file, 0, _SIZE)  # a full disk says so here, and not when the page is written
            return file
        raise OSError(f"all {_MOST} files in {self.folder} are taken")

    def add(self, path: str, status: int, seconds: float) -> None:
        row = GROUPS.index(group_of(path)) * _COLUMNS
        bucket = row + len(CLASSES) + bisect_left(BOUNDS, seconds)
        with self._one_at_a_time:
            self._numbers[row + min(max(status // 100, 1), len(CLASSES)) - 1] += 1
            self._numbers[bucket] += 1
            self._numbers[row + _COLUMNS - 1] += seconds


_tallies: dict[Path, Tally] = {}
_opening = threading.Lock()


def _mine(folder: Path) -> Tally:
    """Opened by the first request, so that no two processes share one by a fork."""
    if found := _tallies.get(folder):
        return found
    with _opening:
        if folder not in _tallies:
            _tallies[folder] = Tally(folder)
        return _tallies[folder]


def in_all(folder: Path) -> list[float]:
    """The numbers of all processes, those that are no more included."""
    total = [0.0] * (_SIZE // 8)
    for path in folder.glob(f"{_LAYOUT}-*"):
        raw = path.read_bytes()
        if len(raw) == _SIZE:
            total = [mine + theirs for mine, theirs in zip(total, memoryview(raw).cast("d"), strict=True)]
    return total


class MetricsMiddleware:
    """Counts each request, with all that the other middleware takes. Not there where nobody may read it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if not settings.METRICS_FROM:
            raise MiddlewareNotUsed
        self.get_response = get_response
        self.folder = settings.STATE / "metrics"
        self._is_broken = False

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        response = self.get_response(request)
        if not self._is_broken:
            try:
                _mine(self.folder).add(request.path, response.status_code, time.monotonic() - began)
            except OSError as error:  # no reason to refuse a visitor
                self._is_broken = True
                log.error("Requests are not counted: %s. Let the service write to %s, and restart it.", error, self.folder)
        return response


# --- The page -----------------------------------------------------------------------------------------------------

Samples = Iterable[tuple[Mapping[str, str], float]]


def page() -> str:
    """All of it, in the text format of Prometheus. A database that does not answer is a figure, too."""
    lines = [*_family("info", "gauge", "The release that runs.", [({"release": settings.RELEASE}, 1)]), *_requests()]
    try:
        now = pulse.take()
    except DatabaseError as error:
        log.error("metrics: the database does not answer: %s", error)
        lines += _family("database_up", "gauge", "Whether the database answers.", [({}, 0)])
    else:
        lines += _family("database_up", "gauge", "Whether the database answers.", [({}, 1)])
        lines += _pulse(now)
    return "\n".join(lines) + "\n"


def _requests() -> Iterator[str]:
    numbers = in_all(settings.STATE / "metrics")
    rows = {group: numbers[at * _COLUMNS : (at + 1) * _COLUMNS] for at, group in enumerate(GROUPS)}
    counted = [({"group": group, "status": name}, row[at]) for group, row in rows.items() for at, name in enumerate(CLASSES)]
    yield from _family("requests_total", "counter", "Requests answered, by kind of page and class of status.", counted)
    yield "# HELP gatehouse_request_seconds How long the answers took."
    yield "# TYPE gatehouse_request_seconds histogram"
    for group, row in rows.items():
        so_far = 0.0
        for at, bound in enumerate((*map(str, BOUNDS), "+Inf")):
            so_far += row[len(CLASSES) + at]
            yield _line("request_seconds_bucket", {"group": group, "le": bound}, so_far)
        yield _line("request_seconds_sum", {"group": group}, row[-1])
        yield _line("request_seconds_count", {"group": group}, so_far)


def _pulse(now: pulse.Pulse) -> Iterator[str]:
    def by(label: str, counted: Mapping[str, float]) -> Samples:
        return [({label: name}, n) for name, n in sorted(counted.items())]

    yield from _family("database_seconds", "gauge", "How long the database takes to answer nothing.", [({}, now.database_seconds)])
    yield from _family("sessions", "gauge", "Live sessions, at the portal and at tenants.", by("at", now.sessions))
    yield from _family("sign_ins_5m", "gauge", "Complete sign-ins of the last five minutes.", [({}, now.sign_ins)])
    yield from _family("failures_5m", "gauge", "Wrong answers of the last five minutes.", by("what", now.failures))
    yield from _family("lockouts_5m", "gauge", "Locks that closed in the last five minutes.", by("bucket", now.lockouts))
    yield from _family("ends_5m", "gauge", "Sessions that ended in the last five minutes.", by("reason", now.ends))
    yield from _family("mails_waiting", "gauge", "Mails in the queue.", [({}, now.mails_waiting)])
    yield from _family("mails_late_seconds", "gauge", "How long the oldest mail that is due has waited.", [({}, now.mails_late_seconds)])
    yield from _family("mails_given_up", "gauge", "Mails that did not leave and are tried no more.", [({}, now.mails_given_up)])
    yield from _family("events_unsealed", "gauge", "Events of the audit log that have no seal yet.", [({}, now.unsealed)])


def _family(name: str, kind: str, about: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP gatehouse_{name} {about}"
    yield f"# TYPE gatehouse_{name} {kind}"
    for labels, value in samples:
        yield _line(name, labels, value)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    """Label values are words of our own: nothing in them needs an escape."""
    within = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"gatehouse_{name}{{{within}}} {value:.15g}" if within else f"gatehouse_{name} {value:.15g}"
