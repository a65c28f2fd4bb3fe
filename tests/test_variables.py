"""The variables: deploy/README.md, gatehouse.env.example and the code say the same, and no bad value passes in silence."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from identity import checks as of_keys
from tenants import checks as of_addresses
from tests.conftest import missing

ROOT = Path(__file__).parent.parent
SETTINGS = ROOT / "portal" / "settings.py"
READERS = {"_text", "_required", "_one_of", "_number", "_networks", "_directory"}
ELSEWHERE = {"DATABASE_DIRECT_URL", "BACKUP_KEY_FILE", "GRANIAN_WORKERS"}  # read by scripts of deploy/, and by the server
NOT_AN_OPERATORS = {"PORT", "DEMO_PASSWORD", "STATE_DIRECTORY"}  # the demo's, systemd's
KEY = "dGVzdHMgb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="
LEAST = {
    "PORTAL_URL": "https://login.example.com",
    "SECRET_KEY": "a key for the tests only, long enough to be one",
    "ENCRYPTION_KEYS": KEY,
    "DATABASE_URL": "sqlite:////nowhere/gatehouse.sqlite3",
}
# What settings.py makes of each that has a default.
MEANS = {"EMAIL_FROM": "DEFAULT_FROM_EMAIL", "BACKUP_DIRECTORY": "BACKUPS", "STATE_DIRECTORY": "STATE"}


def read_by_settings() -> set[str]:
    """Every name that settings.py asks the environment for."""
    found = set()
    for node in ast.walk(ast.parse(SETTINGS.read_text())):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        asks = node.func.id in READERS if isinstance(node.func, ast.Name) else ast.unparse(node.func) == "os.environ.get"
        if asks:
            found.add(str(node.args[0].value))
    return found


def documented() -> dict[str, tuple[str, str, str]]:
    """Of each row of the table in deploy/README.md: type, default, constraints."""
    part = (ROOT / "deploy" / "README.md").read_text().partition("\n## Variables\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", part, re.MULTILINE)
    return {name: (kind, default, constraints) for name, kind, default, constraints in rows}


def load(monkeypatch: pytest.MonkeyPatch, **given: str) -> dict[str, Any]:
    """settings.py, read in an environment that says this and nothing else."""
    for name in read_by_settings():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    for name, value in {**LEAST, **given}.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(SETTINGS))


def test_the_table_has_what_the_code_reads_and_nothing_else() -> None:
    assert set(documented()) == read_by_settings() | ELSEWHERE


def test_the_environment_is_asked_through_the_readers_alone() -> None:
    """So that each variable is found by the test above, and may be given as NAME_FILE."""
    text = SETTINGS.read_text()
    assert len(re.findall(r"os\.environ", text)) == len(re.findall(r'os\.environ\.get\((f?"\{name\}_FILE"|name|"[A-Z_]+")', text))


def test_the_example_has_every_variable_that_is_an_operators() -> None:
    text = (ROOT / "deploy" / "gatehouse.env.example").read_text()
    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) == set(documented()) - NOT_AN_OPERATORS
    for name in NOT_AN_OPERATORS:
        assert name in text


def test_the_defaults_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made = load(monkeypatch, DATABASE_URL="postgres:///gatehouse")
    made["DATABASE_POOL"] = made["DATABASES"]["default"]["OPTIONS"]["pool"]["max_size"]
    made["GRANIAN_WORKERS"] = re.findall(
        r"^Environment=GRANIAN_WORKERS=(\d+)$", (ROOT / "deploy" / "gatehouse@.service").read_text(), re.M
    )[0]
    compared = 0
    for name, (_kind, default, _constraints) in documented().items():
        value = made.get(MEANS.get(name, name))
        if default == "required":
            assert name in LEAST
        elif default == "none":
            assert not value, name
        else:
            stands = re.match(r"`([^`]+)`", default)
            assert stands, default
            shown = str(value).lower() if isinstance(value, bool) else str(value).removeprefix(f"{ROOT}/")
            assert shown == stands[1], name
            compared += 1
    assert compared >= 10


@pytest.mark.parametrize("name", sorted(LEAST.keys() - {"PORTAL_URL"}))  # without it this is the demo
def test_what_is_required_is_missed_with_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{name} is not set. "):
        load(monkeypatch, **{name: ""})


REFUSED = [
    ("PORTAL_URL", "login.example.com", "must look like https://login.example.com"),
    ("PORTAL_URL", "https://login.example.com/portal", "nothing behind it"),
    ("PORTAL_URL", "https://login.example.com?a=b", "nothing behind it"),
    ("PORTAL_URL", "https://me:geheim@login.example.com", "nothing behind it"),
    ("PORTAL_URL", "https://login.example.com:99999", "must look like"),
    ("PORTAL_URL", "https://[login", "must look like"),
    ("PORTAL_URL", "ftp://login.example.com", "must look like"),
    ("DATABASE_URL", "mysql://user@db/gatehouse", "must look like sqlite:////var/lib"),
    ("DATABASE_URL", "gatehouse.sqlite3", "must look like sqlite:////var/lib"),
    ("DATABASE_URL", "postgres://user:geheim@db:port/gatehouse", "percent-encoded"),
    ("DATABASE_URL", "postgres://user:geheim@db:5432", "names no database"),
    ("DATABASE_POOL", "many", "a number from 2 to 1000"),
    ("DATABASE_POOL", "1", "a number from 2 to 1000"),
    ("STATIC_ROOT", "static", "Set it to an absolute path"),
    ("BACKUP_DIRECTORY", "backups", "Set it to an absolute path"),
    ("TRUSTED_PROXIES", "proxy.example.com", "no address or network. Example: 10.0.0.5"),
    ("METRICS_FROM", "10.0.0.0/33", "no address or network. Example: 10.0.0.5"),
    ("SIGNUP", "yes", "Set it to closed or open"),
    ("LOG_FORMAT", "xml", "Set it to json or plain"),
    ("DEBUG", "ture", "Set it to true or false"),
    ("EMAIL_URL", "mail.example.com", "must look like smtp"),
    ("EMAIL_URL", "imap://mail.example.com", "must look like smtp"),
    ("EMAIL_URL", "smtp+tls://user:geheim@mail.example.com:99999", "must look like smtp"),
    ("EMAIL_FROM", "no-reply", "must look like Gatehouse <no-reply@example.com>"),
    ("EMAIL_FROM", "Gatehouse <no-reply@example.com>\nBcc: all@example.com", "on one line"),
    ("PORT", "80000", "a number from 1 to 65535"),
]


@pytest.mark.asvs("13.4.2", "2.2.1")
@pytest.mark.parametrize(("name", "value", "cure"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str, value: str, cure: str) -> None:
    given = {"DATABASE_URL": "postgres:///gatehouse"} if name == "DATABASE_POOL" else {}
    with pytest.raises(ImproperlyConfigured, match=cure) as refused:
        load(monkeypatch, **{**given, name: value})
    assert str(refused.value).startswith(name)
    assert "geheim" not in str(refused.value)  # it goes into the journal


def test_a_command_says_it_in_one_line() -> None:
    environment = {"PATH": os.environ["PATH"], **LEAST, "DEBUG": "ture"}
    done = subprocess.run(
        [sys.executable, "manage.py", "tenant", "list"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "DEBUG is “ture”. Set it to true or false.\n")


def test_alone_it_lists_our_own_commands() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py"], cwd=ROOT, env={"PATH": os.environ["PATH"], **LEAST}, capture_output=True, text=True, check=True
    )
    assert "  session    List live or ended sessions" in done.stdout
    assert "flush" not in done.stdout


# What only a check refuses: a server that serves goes on, and the next command says it.
CHECKED = [
    ("PORTAL_URL", {"SECURE": False, "ON_LOCALHOST": False}, "Use https"),
    ("TENANT_DOMAIN", {"TENANT_DOMAIN": "under_score"}, "such as example.com"),
    ("TENANT_DOMAIN", {"TENANT_DOMAIN": "co.uk", "ON_LOCALHOST": False}, "a domain that is yours alone"),
    ("SECRET_KEY", {"SECRET_KEY": "short"}, "Make one with"),
    ("ENCRYPTION_KEYS", {"ENCRYPTION_KEYS": ["short"]}, "Make one with"),
]


@pytest.mark.parametrize(("name", "values", "cure"), CHECKED)
def test_a_check_refuses_what_would_leak_and_says_what_to_do(name: str, values: dict[str, Any], cure: str) -> None:
    with override_settings(**values):
        said = [f"{each.msg} {each.hint}" for each in [*of_addresses.addresses(None), *of_keys.keys(None)]]
    assert any(name in text and cure in text for text in said), said


BY_BACKUP = [
    ("DATABASE_DIRECT_URL", "mysql://db/gatehouse", "must begin with sqlite:/// or postgres://"),
    ("BACKUP_KEY_FILE", "/nowhere/backup.key", "cannot be read"),
    ("BACKUP_KEY_FILE", str(ROOT / "deploy" / "with-credentials"), "is too short. Make one: openssl rand -base64 32"),
]


@pytest.mark.parametrize(("name", "value", "cure"), BY_BACKUP)
def test_a_backup_refuses_what_does_not_fit(tmp_path: Path, name: str, value: str, cure: str) -> None:
    if not shutil.which("gpg"):
        missing("gpg is not here: apt install gnupg")
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3", name: value}
    command = ["bash", str(ROOT / "deploy" / "backup.sh"), "--dry-run", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert cure in done.stderr


def test_every_constraint_of_the_table_has_a_value_that_is_refused() -> None:
    refused = {name for name, *_rest in [*REFUSED, *CHECKED, *BY_BACKUP]}
    constrained = {name for name, (_kind, _default, constraints) in documented().items() if constraints.strip() != "–"}
    assert constrained == refused


def test_every_variable_may_stand_in_a_file_whose_last_line_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `echo` and an editor leave it: a key with a line end behind it would be another key."""
    said = {
        "SECRET_KEY_FALLBACKS": "the key from before,and one more\n",
        "ENCRYPTION_KEYS": f"{KEY}\n",
        "SIGNUP": "open\n",
        "DATABASE_POOL": "7\n",
    }
    for name, value in said.items():
        (tmp_path / name).write_text(value)
    files = {f"{name}_FILE": str(tmp_path / name) for name in said}
    made = load(monkeypatch, DATABASE_URL="postgres:///gatehouse", **files)
    assert made["SECRET_KEY_FALLBACKS"] == ["the key from before", "and one more"]
    assert made["ENCRYPTION_KEYS"] == [KEY]
    assert made["SIGNUP"] == "open"
    assert made["DATABASES"]["default"]["OPTIONS"]["pool"]["max_size"] == 7


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY_FILE names /nowhere/key, which cannot be read"):
        load(monkeypatch, SECRET_KEY_FILE="/nowhere/key")


def test_an_empty_backup_directory_leaves_the_backups_to_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, BACKUP_DIRECTORY="")["BACKUPS"] is None
