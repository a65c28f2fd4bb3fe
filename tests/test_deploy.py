"""The scripts and units of deploy/, as far as no machine has to boot for it (tests/deploy boots one)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing

DEPLOY = Path(__file__).parent.parent / "deploy"
SCRIPTS = sorted(path for path in DEPLOY.glob("*.sh") if os.access(path, os.X_OK))  # the others are read by these
UNITS = sorted(DEPLOY.glob("*.service"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_says_what_it_does(script: Path) -> None:
    done = subprocess.run(["bash", script, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {script.name} ")


def test_no_python_of_root_runs_what_lies_in_the_folder_where_he_stands() -> None:
    """Nor what lies in the home of the service's user: `python3 -I`. A release's own Python has a folder of its own."""
    for script in DEPLOY.glob("*.sh"):
        for line in script.read_text().splitlines():
            assert not re.search(r"(?<![\w/.-])python3 -(?!I )", line.partition(" # ")[0]), f"{script.name}: {line}"


def test_root_takes_no_orders_from_a_home_that_is_not_his(tmp_path: Path) -> None:
    """As in gatehouse-certificates.service, where systemd gives root the service's."""
    if os.getuid() != 0:
        missing("Only root has root's home")
    (tmp_path / ".curlrc").write_text(f'output = "{tmp_path}/taken"\n')
    home = tmp_path / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    home.mkdir(parents=True)
    (home / "usercustomize.py").write_text(f"open('{tmp_path}/ran', 'w')\n")
    orders = f"curl --silent file:///etc/hostname; env HOME={tmp_path} python3 -c ''; echo $HOME"
    command = ["bash", "-c", f"source {DEPLOY}/lib.sh; {orders}"]
    done = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "/root"
    assert not {"taken", "ran"} & {path.name for path in tmp_path.iterdir()}


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    """As on a full disk, where somebody looks at what comes back, so that bash goes on after a failure."""
    (tmp_path / "file").write_text("as it was")
    (tmp_path / "file").chmod(0o644)
    commands = (
        f"source {DEPLOY}/releases.sh; trap '' XFSZ; ulimit -f 0; put 0600 $(id -un):$(id -gn) {tmp_path}/file < <(echo other) || exit 7"
    )
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert f"{tmp_path}/file cannot be written; it is as it was." in done.stderr
    assert (tmp_path / "file").read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_refuses_what_it_does_not_know(script: Path) -> None:
    done = subprocess.run(["bash", script, "--no-such-option"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{script.name} --help tells more" in done.stderr


@pytest.mark.asvs("15.2.5")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_every_unit_is_hardened(unit: Path) -> None:
    """systemd's own figure, from 0 (nothing can happen) to 10; 1.5 at most."""
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze is not here: apt install systemd")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager"]
    done = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.asvs("13.3.1", "13.3.2")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_every_unit_gets_its_secrets_from_systemd(unit: Path) -> None:
    text = unit.read_text()
    assert "LoadCredential=gatehouse:/etc/gatehouse/credentials" in text
    assert re.search(r"ExecStart=/opt/gatehouse/(%i|current)/deploy/with-credentials ", text)
    assert "\nLimitCORE=0\n" in text  # and leaves them in no file when it dies


def test_the_containers_get_their_secrets_as_files_which_settings_read() -> None:
    variables = re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "gatehouse.env.example").read_text(), re.M)
    named = dict(re.findall(r"^    ([A-Z_]+)_FILE: /run/secrets/([A-Z_]+)$", (DEPLOY / "compose.yml").read_text(), re.M))
    assert {"SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL", "EMAIL_URL"} == set(named)
    assert all(name == file and name in variables for name, file in named.items())


def test_a_secret_in_a_file_ends_where_its_line_ends(tmp_path: Path) -> None:
    former = tmp_path / "SECRET_KEY_FALLBACKS"
    former.write_text("one,two\n")
    command = [sys.executable, "-c", "from portal import settings; print(*settings.SECRET_KEY_FALLBACKS)"]
    environment = {**os.environ, "SECRET_KEY_FALLBACKS_FILE": str(former)}
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout == "one two\n"


@pytest.mark.parametrize(
    ("address", "other", "found"),
    [
        ("postgres:////run/postgresql/gatehouse\n", "before", "postgres:////run/postgresql/before"),
        ("postgres://g:p@db:5432/g?sslmode=verify-full&sslrootcert=/etc/ca.pem", "b", "postgres://g:p@db:5432/b?sslmode=verify-full&sslrootcert=/etc/ca.pem"),
        ("sqlite:////var/lib/gatehouse/g.sqlite3", "g.sqlite3.before-1", "sqlite:////var/lib/gatehouse/g.sqlite3.before-1"),
    ],
)  # fmt: skip
def test_a_command_may_ask_the_database_that_a_restore_put_aside(tmp_path: Path, address: str, other: str, found: str) -> None:
    (tmp_path / "gatehouse_DATABASE_URL").write_text(address)
    told = subprocess.run(
        [DEPLOY / "with-credentials", "sh", "-c", 'echo "$DATABASE_URL ${DATABASE_URL_FILE:-}"'],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path), "GATEHOUSE_DATABASE": other},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == f"{found} \n"
