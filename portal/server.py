"""The web server: granian and its workers, watched. gatehouse@.service runs it: `python -m portal.server SOCKET`. Without a socket
it listens at GRANIAN_HOST and GRANIAN_PORT, as in a container.

systemd hears READY=1 when a worker has answered, and WATCHDOG=1 for as long as one lives. A worker that hangs is killed here and
replaced; the socket stays open meanwhile, and what comes in waits in it.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.log import logger
from granian.server.mp import MPServer

THREADS = 8
AT_ONCE = 2 * THREADS  # requests of a worker; what more comes in waits for whichever is free first. Measured
IN_LINE = 4096
EVERY = 1.0  # seconds between two signs of life
HANGS = 30.0  # seconds: nginx waits no longer for an answer
SILENT = 15  # signs that a worker may miss before it is replaced
STARTING = 45  # and a new one

_SIGN = struct.Struct("i")  # a process's number


def notify(text: str) -> None:
    """Tell systemd, if it listens: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(text.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


Place = Path | tuple[str, int]  # a unix socket, or host and port


def is_answered(place: Place) -> bool:
    """Does a worker answer there?"""
    kind, address = (socket.AF_UNIX, str(place)) if isinstance(place, Path) else (socket.AF_INET, ("127.0.0.1", place[1]))
    with contextlib.suppress(OSError), socket.socket(kind) as line:
        line.settimeout(5)
        line.connect(address)
        line.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return line.recv(100).split(b" ")[1:2] == [b"200"]
    return False


def in_one_piece(answer: Any) -> Iterable[bytes]:
    """Head and body leave together, or a worker that dies between them has begun what nginx cannot ask another for."""
    if getattr(answer, "streaming", True):
        return answer  # type: ignore[no-any-return]
    try:
        return [b"".join(answer)]
    finally:
        answer.close()


class Worker:
    """The application as a worker runs it: gives a sign of life each second, unless every thread hangs in a request."""

    def __init__(self, application: Callable[..., Iterable[bytes]], signs: int) -> None:
        self.application = application
        self.signs = signs
        self.began: dict[int, float] = {}  # by thread
        threading.Thread(target=self._live, name="signs of life", daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        thread = threading.get_ident()
        self.began[thread] = time.monotonic()
        try:
            return in_one_piece(self.application(environ, start_response))
        finally:
            del self.began[thread]

    def hangs(self) -> bool:
        now = time.monotonic()
        return sum(now - began > HANGS for began in list(self.began.values())) >= THREADS

    def _live(self) -> None:
        while True:
            if not self.hangs():
                with contextlib.suppress(OSError):  # full: it is not read, and who should read it is watched by systemd
                    os.write(self.signs, _SIGN.pack(os.getpid()))
            time.sleep(EVERY)


class Server(MPServer):
    """granian, as it is told of each worker's life."""

    def __init__(self, place: Place, workers: int) -> None:
        where: dict[str, Any] = (
            {"uds": place, "uds_permissions": 0o660} if isinstance(place, Path) else {"address": place[0], "port": place[1]}
        )
        super().__init__(
            "portal.wsgi:application",
            **where,
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            websockets=False,
            workers=workers,
            backlog=IN_LINE,
            backpressure=AT_ONCE,
            # Threads wait for the database most of the time; granian warns that they are many, and they are meant to be.
            blocking_threads=THREADS,
            blocking_threads_idle_timeout=600,
            respawn_failed_workers=True,
            workers_kill_timeout=20,
        )
        self.place = place
        self.is_ready = False
        self.missed: dict[int, int] = {}  # signs of life, by worker
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def run(self) -> None:
        """Serve until SIGTERM; what is being answered then is answered."""
        threading.Thread(target=self._watch_for_ever, name="watch", daemon=True).start()
        self.serve(target_loader=self._load, wrap_loader=False)

    def shutdown(self, exit_code: int = 0) -> None:
        notify("STOPPING=1")
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]

    def _load(self) -> Worker:
        """In the worker's own process."""
        from portal.wsgi import application  # which is loaded already

        return Worker(application, self._write)

    def _respawn_workers(self, *args: Any, **kwargs: Any) -> None:
        super()._respawn_workers(*args, **kwargs)
        if self.is_ready:  # granian would give up, and close the socket, where one died twice within six seconds
            self.respawned_wrks.clear()

    def _heard(self) -> set[int]:
        """Whoever gave a sign since the last look."""
        with contextlib.suppress(BlockingIOError):
            return {number for (number,) in _SIGN.iter_unpack(os.read(self._read, 16384))}
        return set()

    def _watch_for_ever(self) -> None:
        while True:
            time.sleep(EVERY)
            heard = self._heard()
            if not self.is_ready and heard and is_answered(self.place):
                self.is_ready = True
                notify("READY=1")
            if heard:
                notify("WATCHDOG=1")
            if not self.interrupt_signal:  # who is stopping has 20 s to end its requests
                self._count(heard)

    def _count(self, heard: set[int]) -> None:
        """Counts looks, not seconds: while the machine stands still nobody misses one."""
        before, self.missed = self.missed, {}
        for worker in list(self.wrks):
            number = worker.inner.pid
            self.missed[number] = 0 if number in heard else before.get(number, SILENT - STARTING) + 1
            if self.missed[number] > SILENT:
                self._replace(worker)
                self.missed[number] = SILENT - STARTING

    def _replace(self, worker: Any) -> None:
        logger.error("Worker %d hangs: it is killed, another takes its place.", worker.inner.pid)
        if worker.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has just ended: without this the watch would end, and all the server by it
                os.kill(worker.inner.pid, signal.SIGKILL)
        else:  # granian has missed its end
            self.interrupt_children.append(worker.idx)
            self.main_loop_interrupt.set()


def main() -> None:
    multiprocessing.set_start_method("fork")  # a worker has everything from here, and answers at once
    importlib.import_module("portal.wsgi")
    place = Path(sys.argv[1]) if sys.argv[1:] else (os.environ["GRANIAN_HOST"], int(os.environ["GRANIAN_PORT"]))
    Server(place, int(os.environ.get("GRANIAN_WORKERS", "2"))).run()


if __name__ == "__main__":
    main()
