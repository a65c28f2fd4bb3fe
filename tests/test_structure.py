"""The shape of the code and the truth of the README."""

import ast
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tenants import policy

ROOT = Path(__file__).parent.parent
ALLOWED = {"tenants": {"tenants"}, "identity": {"identity", "tenants"}, "portal": {"portal", "identity", "tenants"}}


def imports(path: Path) -> set[str]:
    """The top-level packages that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["tenants", "identity", "portal"])
def test_imports_run_one_way(package: str) -> None:
    for path in modules(package):
        ours = imports(path) & {"portal", "identity", "tenants", "tests"}
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours}"


@pytest.mark.asvs("1.3.2", "1.5.2", "1.2.5")
def test_nothing_is_evaluated_unpickled_or_given_to_a_shell() -> None:
    for package in ALLOWED:
        for path in modules(package):
            assert not imports(path) & {"pickle", "marshal", "shelve", "yaml"}, path
            text = path.read_text()
            assert "shell=True" not in text
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in {"eval", "exec"}, path


def test_only_one_function_ends_a_session() -> None:
    """`ended_at` is written in identity/sessions.py alone."""
    for package in ALLOWED:
        for path in modules(package):
            if "migrations" in path.parts or path == ROOT / "identity" / "sessions.py":
                continue
            assert not re.search(r"update\([^)]*ended_at|\.ended_at\s*=[^=]", path.read_text(), re.DOTALL), path


@pytest.mark.asvs("6.3.4")
def test_every_check_of_a_password_passes_through_prove() -> None:
    for package in ALLOWED:
        for path in modules(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in {"authenticate", "check_password", "aauthenticate", "acheck_password"}:
                    assert path.name in {"backends.py", "models.py"}, f"{path}:{node.lineno} calls {name}"


def test_the_environment_is_read_in_one_place() -> None:
    for package in ALLOWED:
        for path in modules(package):
            if path.name not in {"settings.py", "wsgi.py", "server.py"}:
                assert "os.environ" not in path.read_text(), path
                assert "getenv" not in path.read_text(), path


@pytest.mark.asvs("1.2.3", "3.2.2")
def test_no_template_carries_script_style_or_handlers() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        if path.parent.name == "mails":  # no page of ours: a mail program takes no style sheet from elsewhere
            assert not re.search(r"<script|\son[a-z]+=|js:|<img|url\(|https?://", text), path
            continue
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|hx-on|js:", text), path
        assert "|safe" not in text, path
    for path in (ROOT / "portal" / "static").rglob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|eval\(|document\.write|localStorage|sessionStorage(?!\.removeItem)", path.read_text()), (
            path
        )


@pytest.mark.asvs("1.3.6", "13.2.4")
def test_no_request_leads_out_but_to_the_dns_and_the_mail_server() -> None:
    """Commands may ask this machine (`isolation`, `demo`); what serves pages fetches nothing, wherever an address comes from."""
    asks = {"socket", "smtplib", "requests", "httpx", "aiohttp", "urllib3", "ftplib", "telnetlib", "dns"}
    may: dict[str, set[str]] = {"ownership.py": {"dns"}, "mails.py": {"smtplib"}, "server.py": {"socket"}}
    for package in ALLOWED:
        for path in modules(package):
            if "management" not in path.parts:
                assert imports(path) & asks <= may.get(path.name, set()), path
                assert not re.search(r"urllib\.request|http\.client", path.read_text()), path


def readme() -> str:
    return (ROOT / "README.md").read_text()


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = readme()[:1500]
    assert "make run" in opening
    assert "make test" in opening


def test_the_readmes_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in set(re.findall(r"`?make ([a-z-]+)", readme())):
        assert target in targets, f"make {target}"
    known = subprocess.run(
        [sys.executable, "manage.py", "help", "--commands"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for command in set(re.findall(r"manage\.py ([a-z]+)", readme() + (ROOT / "deploy" / "README.md").read_text())):
        assert command in known, f"manage.py {command}"


def test_the_readmes_table_is_true() -> None:
    """“Where is it?”: every file exists and has the function that stands beside it."""
    rows = re.findall(r"^\|[^|\n]+\|(.+)\|$", readme().partition("## Where is it?")[2].partition("\n## ")[0], re.MULTILINE)
    places = [row for row in rows if "`" in row]
    assert len(places) >= 7
    for row in places:
        files = list(re.findall(r"`([a-z_/]+\.(?:py|sh))`", row))
        assert files, row
        text = "".join((ROOT / name).read_text() for name in files)
        for function in re.findall(r"`([a-z_]+)`", row):
            assert re.search(rf"def {function}\b|^{function}\(\)", text, re.MULTILINE), f"{function} is not in {files}"


@pytest.mark.asvs("7.1.1")
def test_the_readmes_limits_of_sessions_are_what_holds() -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    assert "| portal session | 8 h without activity, 24 h in all; with “keep me signed in” 14 days and 30 days |" in readme()
    assert (8 * hour, 24 * hour) == (policy.PORTAL_IDLE, policy.PORTAL_ABSOLUTE)
    assert (14 * day, 30 * day) == (policy.REMEMBERED_IDLE, policy.REMEMBERED_ABSOLUTE)
    assert "kept 90 days as history, without their data; events 400 days" in readme()
    assert (90 * day, 400 * day) == (policy.KEEP_ENDED, policy.KEEP_EVENTS)


def test_every_guarantee_names_a_test_that_exists() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    guarantees = readme().partition("## Guarantees")[2].partition("\n## ")[0]
    named = re.findall(r"`(test_[a-z0-9_]+)`", guarantees)
    assert len(named) >= 10
    for name in named:
        assert f"def {name}(" in tests, name


def test_the_readmes_pictures_exist() -> None:
    pictures = re.findall(r"\]\((tests/browser/shots/[^)]+)\)|src=\"(tests/browser/shots/[^\"]+)\"", readme())
    assert pictures
    for picture in pictures:
        assert (ROOT / (picture[0] or picture[1])).exists()


def test_the_top_level_is_what_was_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    top = {name.partition("/")[0] for name in listed if not name.startswith(".")}
    expected = {"manage.py", "portal", "tenants", "identity", "templates", "deploy", "tests"}
    expected |= {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml", "requirements.txt", "requirements-dev.txt"}
    assert top == expected
