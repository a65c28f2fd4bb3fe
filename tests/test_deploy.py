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
