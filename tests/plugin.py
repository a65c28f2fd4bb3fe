"""Starts what the tests run on, before Django reads its settings (loaded by `-p tests.plugin` in pyproject.toml).

TEST_DATABASE=postgres starts a throw-away PostgreSQL from the installed binaries; without it the tests use SQLite in a
file, in WAL mode, as the product does. Workers of pytest-xdist inherit the server of the process that started them.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def in_memory(room: int = 2**30) -> str | None:
    """Where SQLite waits for no disk at each commit, on a machine that has room there; else the usual folder."""
    shared = Path("/dev/shm")  # noqa: S108
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > room else None


for name in (
    "PORTAL_URL",
    "TENANT_DOMAIN",
    "SECRET_KEY",
    "ENCRYPTION_KEYS",
    "TRUSTED_PROXIES",
    "SIGNUP",
    "DEBUG",
    "LOG_FORMAT",
    "EMAIL_URL",
    "EMAIL_FROM",
    "METRICS_FROM",
    "STATE_DIRECTORY",
):
    os.environ.pop(name, None)
os.environ["SECRET_KEY"] = "a key for the tests only, long enough to be one"
os.environ["ENCRYPTION_KEYS"] = "dGVzdHMgb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="
os.environ["PORT"] = "8000"

if "PYTEST_XDIST_WORKER" not in os.environ:
    folder = tempfile.TemporaryDirectory(prefix="gatehouse-tests-", dir=in_memory())
    atexit.register(folder.cleanup)
    os.chmod(folder.name, 0o711)  # noqa: S103 # root's tests start servers in there as other users
    os.environ["STATIC_ROOT"] = f"{folder.name}/static"
    if os.environ.get("TEST_DATABASE", "sqlite") == "postgres":
        from tests.servers import PostgreSQL

        server = PostgreSQL()
        atexit.register(server.stop)
        os.environ["DATABASE_URL"] = server.url("postgres")
    else:
        tempfile.tempdir = os.environ["TMPDIR"] = folder.name  # of this process, of the workers and of the servers
        os.environ["DATABASE_URL"] = f"sqlite:///{folder.name}/gatehouse.sqlite3"
    subprocess.run([sys.executable, "-m", "portal.catalogs"], check=True)
    subprocess.run([sys.executable, "manage.py", "collectstatic", "--no-input", "--verbosity=0"], check=True)
