"""A bare Debian with a systemd of its own, booted by systemd-nspawn, without a network: packages come from its own cache."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
SUITE = os.environ.get("DEBIAN", "bookworm")  # or another of these
# What install.sh may ask for, and GnuPG for encrypted copies; downloaded into the root's cache and not installed.
PACKAGES = ("python3", "python3-venv", "nginx", "curl", "openssl", "postgresql", "git", "gnupg", "certbot", "pebble")


class Refused(Exception):
    """This machine cannot boot another, for a reason outside the project; the text has what was tried and what it said."""


def lacking() -> str:
    """What this machine has not, in words; nothing if it can boot another."""
    if os.getuid() != 0:
        return "booting a machine takes root"
    for command, package in (("debootstrap", "debootstrap"), ("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux")):
        if not shutil.which(command):
            return f"{command} is not here: apt install {package}"
    return ""


def cache() -> Path:
    """Where the root and the wheels are kept between runs."""
    given = os.environ.get("XDG_CACHE_HOME")
    place = Path(given) / "gatehouse-test-root" if given else Path("/var/cache/gatehouse-test-root")
    place.mkdir(parents=True, exist_ok=True)
    return place


def bare_root() -> Path:
    """A Debian with systemd and nothing else. Made once (a minute). Raises Refused."""
    root = cache() / f"{SUITE}-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:8]}"
    with (cache() / "lock").open("w") as lock:  # .ci/run makes it while other tests run
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(root)
    return root


def _make(root: Path) -> None:
    draft = root.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    fetch = f"apt-get -qq update && apt-get -qq install --download-only --no-install-recommends {' '.join(PACKAGES)}"
    include = "--include=systemd,systemd-sysv,dbus,ca-certificates,iproute2"
    _run("debootstrap", "--variant=minbase", include, SUITE, str(draft))
    shutil.copy("/etc/resolv.conf", draft / "etc/resolv.conf")
    _run("chroot", str(draft), "sh", "-c", fetch)
    (draft / "etc/resolv.conf").unlink()
    draft.rename(root)


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refused(f"$ {' '.join(command)}\n{''.join(done.stdout.splitlines(keepends=True)[-20:])}")


def wheels() -> Path:
    """The packages of requirements.txt, from where this machine's pip takes them."""
    locked = ROOT / "requirements.txt"
    place = cache() / f"wheels-{PYTHONS[SUITE]}-{hashlib.sha256(locked.read_bytes()).hexdigest()[:12]}"
    if not place.exists():
        draft = place.with_name(f"{place.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes"]
        only = ["--only-binary", ":all:", "--python-version", PYTHONS[SUITE]]
        subprocess.run([*command, *only, "-r", locked, "-d", draft], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        draft.rename(place)
    return place


class Machine:
    """Boots the bare root under a layer of memory, so that it stays as it is; what is in `shared` is at /shared there."""

    def __init__(self, folder: Path, shared: Path) -> None:
        command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
        where = ["--volatile=overlay", f"--directory={bare_root()}"]
        binds = [f"--bind-ro={shared}:/shared", f"--bind-ro={wheels()}:/wheels"]
        # One at a time: their systemds share this machine's control groups, and would kill each other's processes.
        self._turn = (cache() / "booted").open("w")
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        self.log = folder / "boot.log"
        self._output = self.log.open("w")
        self.command = [*command, *where, *binds]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._wait()

    def _leader(self) -> str:
        """The process that is number 1 in there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return children[0] if children else ""

    def _wait(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            if self._leader() and self.try_("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}:
                return
            time.sleep(0.3)
        self.stop()
        raise Refused(f"$ {' '.join(self.command)}\n{self.log.read_text()}")

    def inside(self, *command: str) -> list[str]:
        """What runs this in there, started from here."""
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        pip = ["PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels"]
        return ["nsenter", "--target", self._leader(), "--all", *clean, *pip, *command]

    @staticmethod
    def kill(started: subprocess.Popen[str]) -> None:
        """Kill -9 for what was started by `inside`: nsenter only waits for it."""
        for child in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something in there."""
        return subprocess.run(self.inside(*command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def run(self, *command: str) -> str:
        """Run something in there that must succeed; returns what it printed."""
        done = self.try_(*command)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}{self._journal()}"
        return done.stdout

    def _journal(self) -> str:
        return self.try_("journalctl", "--no-pager", "--lines=40", "--priority=warning").stdout

    def client(self, *arguments: str, module: str = "client") -> subprocess.Popen[str]:
        """tests.deploy.client (or another), with this machine's network and our own files."""
        enter = ["nsenter", "--target", self._leader(), "--net"]
        return subprocess.Popen(
            [*enter, sys.executable, "-m", f"tests.deploy.{module}", *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def visit(self, *arguments: str, module: str = "client") -> None:
        said, wrong = self.client(*arguments, module=module).communicate(timeout=120)
        assert not wrong, said + wrong

    def stop(self) -> None:
        if self.process.poll() is None:
            self.try_("systemctl", "poweroff", "--force", "--force")  # nobody needs what is in there
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self._output.close()
        self._turn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def try_to_boot() -> None:
    """Raises Refused."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-machine-") as name:
        folder = Path(name)
        (folder / "shared").mkdir()
        with Machine(folder, folder / "shared"):
            pass


if __name__ == "__main__":
    bare_root()
