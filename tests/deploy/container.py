"""The image of deploy/Dockerfile, built by buildah and run by podman and runc, on a base that is made here of Debian's packages."""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.deploy.machine import SUITE, cache, wheels

BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv", "tzdata")
IMAGE = "localhost/gatehouse"
UID = 10001
# As deploy/compose.yml has it. A test that is root without all of root's rights may lower limits, and not raise them.
CONFINED = (
    "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
)  # fmt: skip


def lacking() -> str:
    """What this machine has not, in words; nothing if it can build and run images."""
    if os.getuid() != 0:
        return "building an image takes root"
    for command in ("debootstrap", "buildah", "podman", "runc"):
        if not shutil.which(command):
            return f"{command} is not here: apt install {command}"
    return ""


def base_root() -> Path:
    """An archive of a Debian with Python and nothing else. Made once (a minute)."""
    archive = cache() / f"base-{SUITE}-{hashlib.sha256(' '.join(BASE_PACKAGES).encode()).hexdigest()[:8]}.tar"
    if archive.exists():
        return archive
    draft, root = archive.with_suffix(".new"), archive.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", SUITE, root], check=True, stdout=subprocess.DEVNULL
    )
    leave = ("--exclude=./dev/*", "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./etc/resolv.conf")
    subprocess.run(["tar", "-C", root, *leave, "-cf", draft, "."], check=True)
    shutil.rmtree(root)
    draft.rename(archive)
    return archive


class Engine:
    """buildah and podman, with a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "storage.conf"
        settings.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/running"\n')
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(settings)}

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300
        )

    def run(self, *command: str) -> str:
        done = self.try_(*command)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def podman(self, *arguments: str) -> str:
        return self.run("podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *arguments)

    def try_podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.try_("podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *arguments)

    def build(self, context: Path) -> None:
        """The packages come from a folder here, by pip's own variables."""
        base = self.run("buildah", "from", "scratch").strip()
        self.run("buildah", "add", "--quiet", base, str(base_root()), "/")
        self.run("buildah", "commit", "--quiet", "--rm", base, f"{IMAGE}-base")
        pip = ("--build-arg=PIP_NO_INDEX=1", "--build-arg=PIP_FIND_LINKS=/wheels", f"--volume={wheels()}:/wheels:ro")
        where = (f"--build-arg=BASE={IMAGE}-base", f"--tag={IMAGE}", f"--file={context}/deploy/Dockerfile", str(context))
        # buildah's own notation would leave the health check out.
        self.run("buildah", "build", "--quiet", "--isolation=chroot", "--format=docker", *pip, *where)

    def close(self) -> None:
        self.try_podman("rm", "--all", "--force", "--volumes", "--time=0")
        self.try_("buildah", "rm", "--all")
        self.try_podman("rmi", "--all", "--force")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Container:
    """The portal in its container: confined, its secrets as files, its data in a volume."""

    def __init__(self, engine: Engine, name: str, port: int, secrets: dict[str, str]) -> None:
        self.engine, self.name, self.port, self.secrets = engine, name, port, secrets
        folder = engine.folder / f"secrets-{name}"
        folder.mkdir()
        for secret, value in secrets.items():
            (folder / secret).write_text(value + "\n")
            (folder / secret).chmod(0o400)
        for path in (folder, *folder.iterdir()):
            os.chown(path, UID, UID)
        variables = {
            "PORTAL_URL": "https://login.example.com",
            "TRUSTED_PROXIES": "127.0.0.1",
            "GRANIAN_HOST": "127.0.0.1",
            "GRANIAN_PORT": str(port),
            **{f"{secret}_FILE": f"/run/secrets/{secret}" for secret in secrets},
        }
        self.options = (
            *CONFINED,
            f"--volume={name}-state:/var/lib/gatehouse",
            f"--volume={name}-backups:/var/backups/gatehouse",
            f"--volume={folder}:/run/secrets:ro",
            *(f"--env={key}={value}" for key, value in variables.items()),
        )

    def once(self, *command: str) -> str:
        """A command in a container of its own, as the services that compose starts for one job."""
        return self.engine.podman("run", "--rm", "--no-healthcheck", *self.options, IMAGE, *command)

    def start(self) -> None:
        """As compose does it: migrated once, then started."""
        self.once("gatehouse", "migrate", "--verbosity=0")
        self.engine.podman("run", "--detach", f"--name={self.name}", *self.options, IMAGE)
        self.wait()

    def wait(self) -> None:
        """Until its own health check says so."""
        until = time.monotonic() + 60
        while self.engine.try_podman("healthcheck", "run", self.name).returncode:
            assert time.monotonic() < until, self.engine.try_podman("logs", self.name).stdout
            time.sleep(0.3)

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something in there."""
        return self.engine.try_podman("exec", self.name, *command)

    def run(self, *command: str) -> str:
        return self.engine.podman("exec", self.name, *command)

    def stop(self) -> int:
        """Stops and forgets it, its volumes stay. What its first process ended with: 137 if it had to be killed."""
        self.engine.podman("stop", "--time=20", self.name)
        ended = self.engine.podman("inspect", "--format={{.State.ExitCode}}", self.name)
        self.engine.podman("rm", self.name)
        return int(ended)


def release_id(checkout: Path) -> str:
    """What install.sh would call the release of these files."""
    script = 'cd "$1" && source deploy/releases.sh && mkdir "$work/release" && fetch . "" "$work/release" && release_id "$work/release"'
    return subprocess.run(["bash", "-c", script, "bash", checkout], check=True, capture_output=True, text=True).stdout.strip()
