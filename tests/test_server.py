"""The process that gatehouse@.service starts: what it tells systemd, and that a worker that dies is replaced."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.http import HttpResponse, StreamingHttpResponse

from portal.server import HANGS, THREADS, Server, Worker, in_one_piece, is_answered

ROOT = Path(__file__).parent.parent


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    path: Path
    notes: socket.socket  # what systemd would hear

    def hears(self, text: bytes) -> None:
        self.notes.settimeout(30)
        while self.notes.recv(100) != text:
            pass

    def workers(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(params=["a path", "an abstract name"])
def server(request: pytest.FixtureRequest) -> Iterator[Started]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-server-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        place = Path(folder)
        name = f"{place}/notify" if request.param == "a path" else f"@{place.name}"
        notes.bind(name.replace("@", "\0", 1))
        # A database with nothing in it: a process that answers is all that this is about.
        environment = {**os.environ, "NOTIFY_SOCKET": name, "GRANIAN_WORKERS": "2", "DATABASE_URL": f"sqlite:///{place}/empty.sqlite3"}
        with (place / "log").open("w") as log:
            command = [sys.executable, "-m", "portal.server", f"{place}/socket"]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                yield Started(process, place / "socket", notes)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def test_systemd_hears_when_it_is_ready_that_it_lives_and_that_it_stops(server: Started) -> None:
    server.hears(b"READY=1")
    assert is_answered(server.path)
    assert server.path.stat().st_mode & 0o777 == 0o660
    server.hears(b"WATCHDOG=1")
    server.process.terminate()
    server.hears(b"STOPPING=1")
    assert server.process.wait(30) == 0


def test_a_worker_that_is_killed_as_soon_as_it_is_there_does_not_end_the_server(server: Started) -> None:
    server.hears(b"READY=1")
    for _ in range(3):
        before = server.workers()
        os.kill(before[-1], signal.SIGKILL)  # the youngest: granian alone would give up
        until(lambda: len(server.workers()) == 2 and server.workers() != before)  # noqa: B023
    assert is_answered(server.path)


def test_a_worker_with_a_thread_to_spare_lives_and_one_without_hangs() -> None:
    read, write = os.pipe()
    worker = Worker(lambda environ, start_response: [b"done"], write)  # no answer of Django's: as it is
    assert worker({}, None) == [b"done"]
    assert worker.began == {}
    assert int.from_bytes(os.read(read, 4), sys.byteorder) == os.getpid()
    long_ago = time.monotonic() - HANGS - 1
    worker.began = dict.fromkeys(range(THREADS - 1), long_ago)
    assert not worker.hangs()
    worker.began[THREADS] = time.monotonic()
    assert not worker.hangs()
    worker.began[THREADS] = long_ago
    assert worker.hangs()


def test_a_worker_that_ends_while_it_is_to_be_killed_does_not_end_the_watch() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    worker = SimpleNamespace(inner=ended, is_alive=lambda: True)  # as it was a moment ago
    Server._replace(Server.__new__(Server), worker)


@pytest.mark.django_db  # Django closes old connections behind an answer
def test_an_answer_leaves_in_one_piece_and_is_closed() -> None:
    closed = []
    answer = HttpResponse(["one ", "two"])
    answer._resource_closers.append(lambda: closed.append(True))  # type: ignore[attr-defined]
    assert (in_one_piece(answer), closed) == ([b"one two"], [True])
    stream = StreamingHttpResponse([b"one ", b"two"])
    assert in_one_piece(stream) is stream
