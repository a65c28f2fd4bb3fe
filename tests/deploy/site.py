"""A portal on a booted machine, as install.sh makes it of releases that are copies of the working tree."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.machine import ROOT, Machine


@dataclass
class Site:
    """The machine, the folder that it sees as /shared, and how it is installed."""

    machine: Machine
    shared: Path
    database: str

    @property
    def authority(self) -> str:
        return str(self.shared / "cert.pem")

    def install(self, *more: str) -> str:
        names = ("--portal-url", "https://login.example.com", "--admin-email", "erin@example.com")
        tls = ("--tls-cert", "/shared/cert.pem", "--tls-key", "/shared/key.pem")
        which = ("--database", self.database, "--smtp", "none")
        return self.machine.run("/shared/first/deploy/install.sh", "--yes", *names, *tls, *which, *more)

    def release(self) -> str:
        """Which release answers through nginx."""
        way = ("--insecure", "--resolve", "login.example.com:443:127.0.0.1")
        return str(json.loads(self.machine.run("curl", "-s", *way, "https://login.example.com/readyz"))["release"])

    def files(self) -> str:
        """Every file that install.sh writes, with the time of its last change."""
        places = ("/etc/gatehouse", "/etc/nginx", "/etc/systemd/system", "/opt/gatehouse", "/usr/local/sbin")
        return "\n".join(sorted(self.machine.run("find", *places, "-printf", "%p %T@ %m %u %l\n").splitlines()))

    @contextmanager
    def under_load(self) -> Iterator[dict[str, Any]]:
        """What people met meanwhile is in the dictionary afterwards."""
        client = self.machine.client("load", self.authority)
        assert client.stdout
        assert client.stdout.readline() == "ready\n", client.communicate()
        result: dict[str, Any] = {}
        try:
            yield result
            time.sleep(1)
        finally:
            said, wrong = client.communicate("")
        assert not wrong, wrong
        result |= json.loads(said)
        print(f"{self.database}: {sum(result['kinds'].values())} requests {result['kinds']}, slowest {result['slowest']} s")


def copy(to: Path, change: str, text: str) -> None:
    """The working tree as a release of its own: one file has one more line."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(".git", ".venv", "var", "__pycache__", "*.pyc", "*.mo"))
    with (to / change).open("a") as file:
        file.write(text)


def certificate(folder: Path) -> None:
    """key.pem and cert.pem, signed by itself, for the portal and every tenant."""
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"]
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:login.example.com,DNS:*.example.com"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
