"""A portal on a booted machine, as install.sh makes it of releases that are copies of the working tree."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.client import PASSWORD, PEOPLE
from tests.deploy.machine import ROOT, Machine

MANY = f"""
from identity.models import User
from tenants.models import Membership, Tenant

acme = Tenant.objects.get(slug="acme")
for name in {PEOPLE}:
    Membership.objects.create(tenant=acme, user=User.objects.create_user(name, name + "@acme.example", password="{PASSWORD}"))
"""


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

    def settle(self) -> None:
        """A tenant with its owner, who has signed in and whose browser is kept, and the people who come and go under load."""
        manage = "/usr/local/sbin/gatehouse"
        self.machine.run(manage, "tenant", "add", "acme", "Acme")
        self.machine.run(manage, "user", "add", "olivia", "olivia@acme.example", "--verified")
        self.machine.run(manage, "member", "add", "acme", "olivia", "--role", "owner")
        link = re.search(r"https://login\.example\.com/\S+", self.machine.run(manage, "user", "link", "olivia"))
        assert link
        self.machine.visit("set-password", self.authority, link[0])
        self.machine.run(manage, "shell", "-c", MANY)

    def slot(self) -> str:
        """Which slot serves."""
        [slot] = [slot for slot in ("blue", "green") if self.machine.try_("systemctl", "is-active", f"gatehouse@{slot}").returncode == 0]
        return slot

    def shows(self, unit: str, name: str) -> str:
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def workers(self) -> list[str]:
        main = self.shows(f"gatehouse@{self.slot()}", "MainPID")
        return self.machine.run("cat", f"/proc/{main}/task/{main}/children").split()

    def kill(self, signal: str, *numbers: str) -> None:
        self.machine.run("sh", "-c", f"kill -{signal} {' '.join(numbers)}")

    def other(self) -> str:
        """Which of the two releases does not serve."""
        same = self.machine.try_("cmp", "-s", "/opt/gatehouse/current/CHANGELOG.md", "/shared/first/CHANGELOG.md")
        return "first" if same.returncode else "next"

    def is_ready(self, seconds: int = 10) -> bool:
        """Does the portal answer through nginx, and its database to it?"""
        way = ("--insecure", "--max-time", str(seconds), "--resolve", "login.example.com:443:127.0.0.1")
        return '"ready"' in self.machine.try_("curl", "-s", *way, "https://login.example.com/readyz").stdout

    def release(self) -> str:
        """Which release answers through nginx."""
        way = ("--insecure", "--resolve", "login.example.com:443:127.0.0.1")
        return str(json.loads(self.machine.run("curl", "-s", *way, "https://login.example.com/readyz"))["release"])

    def files(self) -> str:
        """Every file that install.sh writes, with the time of its last change."""
        places = ("/etc/gatehouse", "/etc/nginx", "/etc/systemd/system", "/opt/gatehouse", "/usr/local/sbin")
        return "\n".join(sorted(self.machine.run("find", *places, "-printf", "%p %T@ %m %u %l\n").splitlines()))

    def wait_for_requests(self, count: int) -> None:
        """Under load: until so many have been answered."""
        while int((self.shared / "asked").read_text() or 0) < count:
            time.sleep(0.3)

    @contextmanager
    def under_load(self, *how: str) -> Iterator[dict[str, Any]]:
        """What people met meanwhile is in the dictionary afterwards. "away": a calm 503 is no failure."""
        (self.shared / "asked").write_text("0")
        client = self.machine.client("load", self.authority, *how)
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
        asked = f"{sum(result['kinds'].values())} requests {result['kinds']}, slowest {result['slowest']} s"
        print(f"\n{self.database}: {asked}, {result['away']} calm 503, {len(result['failed'])} failed, told {result['told']}")


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
