"""Real servers for tests, started from the installed binaries as an ordinary user."""

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class Missing(Exception):
    """A component is not installed; the text names the package."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def wait_for(port: int, seconds: float = 30) -> None:
    """Until something listens on 127.0.0.1:port. TimeoutError otherwise."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def find_postgresql() -> Path:
    """Where initdb is. Raises Missing."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if not initdb:
        raise Missing("PostgreSQL's server is not installed: apt-get install postgresql")
    return Path(initdb)


class PostgreSQL:
    """A throw-away PostgreSQL on a port of its own, durable settings on, so that races are those of production."""

    def __init__(self) -> None:
        initdb = find_postgresql()
        self.bin = initdb.parent
        self.folder = Path(tempfile.mkdtemp(prefix="gatehouse-pg-"))
        self.user = ""
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            self.user = "postgres" if _exists("postgres") else "nobody"
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        data = self.folder / "data"
        self._run(str(initdb), "-D", str(data), "-U", "gatehouse", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c max_connections=200 -c fsync=off"
        self._run(str(self.bin / "pg_ctl"), "-D", str(data), "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def _run(self, *command: str) -> None:
        prefix = ["runuser", "-u", self.user, "--"] if self.user else []
        done = subprocess.run(
            [*prefix, *command], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")

    def url(self, database: str) -> str:
        return f"postgres://gatehouse@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self._run(str(self.bin / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class Portal:
    """The product itself: the production server in its own process, on a database of its own."""

    def __init__(self, database_url: str, folder: Path, *, workers: int = 1, port: int = 0, **environment: str) -> None:
        import sys

        self.port = port or free_port()
        self.base = f"portal.localhost:{self.port}"
        self.environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "STATIC_ROOT": str(folder / "static"),
            **environment,
        }
        self.log = folder / f"portal-{self.port}.log"
        self.prepare()
        self._output = self.log.open("w")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port),
                "--workers", str(workers), "--blocking-threads", "8", "--no-ws", "portal.wsgi:application",
            ],
            env=self.environment, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(self.port)
        except TimeoutError:
            raise RuntimeError(self.log.read_text()) from None

    def prepare(self) -> None:
        """The people of the demo, or nobody; and the static files."""
        self.manage("demo", "seed") if "PORTAL_URL" not in self.environment else self.manage("migrate", "--verbosity=0")
        self.manage("collectstatic", "--no-input", "--verbosity=0")

    def manage(self, *arguments: str) -> str:
        """Run `manage.py` with this portal's environment; returns what it printed."""
        import sys

        done = subprocess.run([sys.executable, "manage.py", *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def url(self, host: str = "login", path: str = "/") -> str:
        return f"http://{host}.{self.base}{path}"

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
