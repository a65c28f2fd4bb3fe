"""What a release is made of: packages that are known by their hashes, no secret, nothing of the tests."""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from identity.management.doctor import State, bits, keys

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", (ROOT / name).read_text(), re.MULTILINE))


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return [ROOT / name for name in names]


@pytest.mark.asvs("15.1.2")
def test_the_list_of_components_is_the_lock_file_and_what_is_installed() -> None:
    done = subprocess.run([sys.executable, ROOT / "deploy" / "sbom.py"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert {each["name"]: each["version"] for each in told["components"]} == locked("requirements.txt")
    for each in told["components"]:
        assert each["purl"] == each["bom-ref"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert each["hashes"], each["name"]
        assert all(re.fullmatch(r"[0-9a-f]{64}", hashed["content"]) for hashed in each["hashes"])
        assert distribution(each["name"]).version == each["version"], "what runs here is what is listed"


@pytest.mark.asvs("15.2.4")
def test_every_package_comes_with_its_hash_from_no_other_index() -> None:
    """A package of the same name on another index, or a changed one on ours, is refused by pip."""
    for name in LOCKS:
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|trusted-host|^-e|^git\+|^https?:| @ ", text, re.MULTILINE)
        packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
        assert len(packages) == len(locked(name)) > 20
        assert all("--hash=sha256:" in package for package in packages)
    for script in (ROOT / "Makefile", *(ROOT / "deploy").glob("*.sh")):
        for line in re.findall(r"-m pip install.*", script.read_text()):
            assert "--require-hashes" in line, script
            assert "--only-binary :all:" in line, "a package that is built runs code of its own before its hash is worth anything"


@pytest.mark.asvs("15.2.3")
def test_a_release_has_no_tests_and_none_of_the_packages_for_them(tmp_path: Path) -> None:
    """What `install.sh` and `upgrade.sh` take of a checkout."""
    (tmp_path / "release").mkdir()
    take = 'source deploy/lib.sh; source deploy/releases.sh; fetch "$PWD" "" "$1"'
    done = subprocess.run(["bash", "-c", take, "bash", tmp_path / "release"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = {path.name for path in (tmp_path / "release").iterdir()}
    assert {"manage.py", "portal", "identity", "tenants", "templates", "deploy", "requirements.txt"} <= there
    assert not {"tests", "requirements-dev.txt", ".git", ".ci", ".venv", "var"} & there
    extra = set(locked("requirements-dev.txt")) - set(locked("requirements.txt"))
    assert {"pytest", "playwright", "ruff"} <= extra
    for package in ("portal", "identity", "tenants"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"^\s*(?:from|import) (?:tests|pytest|playwright|aiosmtpd)\b", path.read_text(), re.MULTILINE), path


SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"),
    "a token of a service": re.compile(r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|glpat-[\w-]{20}|sk_live_\w{20,})"),
    "a value for a secret": re.compile(r"^#?\s*(?:SECRET_KEY|ENCRYPTION_KEYS|SECRET_KEY_FALLBACKS)=(\S{16,})", re.MULTILINE),
}


@pytest.mark.asvs("13.3.1")
def test_no_secret_is_in_the_project() -> None:
    """Of the demo's, which are made at its first start, and of an example's neither."""
    assert all(SECRETS["a value for a secret"].search(f"{name}=c2VjcmV0c2VjcmV0c2VjcmV0") for name in ("SECRET_KEY", "#ENCRYPTION_KEYS"))
    for path in tracked():
        if path.suffix in {".png", ".po"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for what, pattern in SECRETS.items():
            found = pattern.search(text)
            assert not found or bits(found[0].rpartition("=")[2]) < 64, f"{what} in {path}"  # what a release is built with is all A


@pytest.mark.asvs("13.3.2")
def test_a_secret_that_others_may_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(keys, "ENVIRONMENT", tmp_path / "gatehouse.env")
    monkeypatch.setattr(keys, "CREDENTIALS", folder)
    for path in (keys.ENVIRONMENT, folder / "SECRET_KEY", folder / "EMAIL_URL"):
        path.touch(mode=0o600)
    assert not list(keys._files())
    (folder / "EMAIL_URL").chmod(0o640)
    (found,) = keys._files()
    assert found.state is State.FAILURE
    assert str(folder / "EMAIL_URL") in found.text
    assert found.cure == f"chmod 600 {folder / 'EMAIL_URL'}"
    (folder / "EMAIL_URL").chmod(0o600)
    keys.ENVIRONMENT.chmod(0o644)
    assert [each.cure for each in keys._files()] == [f"chmod 600 {keys.ENVIRONMENT}"]
