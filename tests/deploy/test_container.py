"""The container: built of this checkout, and run as deploy/compose.yml runs it. `make deploy-test`, in this order."""

import base64
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from tests.conftest import missing
from tests.deploy.container import IMAGE, UID, Container, Engine, lacking, release_id
from tests.deploy.site import copy
from tests.servers import PostgreSQL, free_port

pytestmark = pytest.mark.deploy
THROUGH_A_PROXY = {"Host": "login.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
SQLITE = "sqlite:////var/lib/gatehouse/gatehouse.sqlite3"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a developer has it: the demo's keys, and a history, are beside the code."""
    place = tmp_path_factory.mktemp("checkout") / "gatehouse"
    copy(place, "CHANGELOG.md", "\n")
    for folder, file in ((".git", "config"), ("var", "secret-key"), (".venv", "bin"), ("portal/__pycache__", "left.pyc")):
        (place / folder).mkdir()
        (place / folder / file).write_text("not-for-an-image")
    return place


@pytest.fixture(scope="module")
def engine(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The image is built, and this machine runs it."""
    if lack := lacking():
        missing(lack)
    with Engine(tmp_path_factory.mktemp("engine")) as engine:
        engine.build(checkout)
        tried = engine.try_podman("run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", IMAGE, "true")
        if tried.returncode:
            pytest.fail(f"the image was built, and this machine does not run it: {tried.stderr}")
        yield engine


@pytest.fixture(scope="module")
def portal(engine: Engine) -> Container:
    portal = Container(engine, "portal", free_port(), keys(SQLITE))
    portal.start()
    return portal


def keys(database: str) -> dict[str, str]:
    encryption = base64.urlsafe_b64encode(os.urandom(32)).decode()
    return {"SECRET_KEY": secrets.token_urlsafe(50), "ENCRYPTION_KEYS": encryption, "DATABASE_URL": database}


def get(portal: Container, path: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{portal.port}{path}", headers=THROUGH_A_PROXY, timeout=30)


def test_it_is_the_release_that_install_sh_makes_of_the_same_files(portal: Container, checkout: Path) -> None:
    release = release_id(checkout)
    assert portal.run("cat", "release").strip() == release
    assert get(portal, "/readyz").json() == {"status": "ready"}  # which release it is, it tells nobody outside


def test_it_serves_the_sign_in_page_with_its_style_to_a_proxy(portal: Container) -> None:
    page = get(portal, "/login/")
    assert page.status_code == 200
    assert 'name="password"' in page.text
    style = re.search(r'href="(/_portal/static/[^"]+\.css)"', page.text)
    assert style
    assert get(portal, style[1]).headers["Content-Type"].startswith("text/css")


def test_who_is_no_proxy_of_ours_is_not_believed(portal: Container) -> None:
    with closing(HTTPConnection("127.0.0.1", portal.port, source_address=("127.0.0.2", 0))) as stranger:
        stranger.request("GET", "/login/", headers=THROUGH_A_PROXY)
        assert stranger.getresponse().read() == b"This address speaks https only.\n"


def test_it_has_no_rights(portal: Container) -> None:
    status = portal.run("cat", "/proc/1/status")
    assert re.search(rf"^Uid:\t{UID}\t{UID}\t{UID}\t{UID}$", status, re.M)
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)


def test_it_writes_into_its_volumes_and_into_memory_and_nowhere_else(portal: Container) -> None:
    found = portal.try_("find", "/", "-path", "/proc", "-prune", "-o", "-writable", "(", "-type", "d", "-o", "-type", "f", ")", "-print")
    own = ("/var/lib/gatehouse", "/var/backups/gatehouse")
    assert {path for path in found.stdout.split() if not path.startswith(own)} == {"/dev/mqueue", "/dev/shm", "/tmp"}  # noqa: S108
    portal.run("touch", *(f"{path}/x" for path in own))
    assert "Read-only file system" in portal.try_("touch", "/usr/bin/x").stderr


def test_there_is_nothing_in_it_to_install_or_to_build_with(portal: Container) -> None:
    assert portal.try_("python", "-c", "import pip").returncode == 1
    for command in ("pip", "pip3", "gcc", "cc", "make", "git"):
        assert portal.try_("sh", "-c", f"command -v {command}").returncode != 0
    ours = "LICENSE deploy identity manage.py portal pyproject.toml release requirements.txt templates tenants var"
    assert portal.run("ls").split() == ours.split()


def test_what_lies_beside_the_code_is_not_in_it(portal: Container) -> None:
    assert portal.try_("grep", "-rl", "not-for-an-image", "/opt", "/var/lib").stdout == ""
    assert portal.run("ls", "var").split() == ["static"]


def test_its_secrets_are_in_files_alone(engine: Engine, portal: Container) -> None:
    environments = portal.run("sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert "SECRET_KEY_FILE=/run/secrets/SECRET_KEY" in environments
    told = [engine.podman("inspect", "portal"), engine.podman("logs", "portal"), engine.podman("history", "--no-trunc", IMAGE)]
    assert not any(secret in text for secret in portal.secrets.values() for text in (environments, *told))


def test_its_health_check_notices_that_nobody_answers(portal: Container) -> None:
    assert "ConnectionRefusedError" in portal.try_("env", f"GRANIAN_PORT={free_port()}", "python", "deploy/healthy.py").stderr


def test_the_first_operator_gets_a_link(portal: Container) -> None:
    link = re.search(r"https://login\.example\.com(/signup/\S+)", portal.run("gatehouse", "operator", "link"))
    assert link
    assert get(portal, link[1]).status_code == 200


def test_the_doctor_finds_nothing_wrong_with_its_settings_its_database_and_its_disks(portal: Container) -> None:
    for group in ("settings", "database", "storage"):
        assert "No failure" in portal.run("gatehouse", "doctor", "--only", group)


def test_the_jobs_of_the_night_run(portal: Container) -> None:
    portal.run("gatehouse", "prune")
    portal.run("gatehouse", "event", "verify")
    assert "checked" in portal.run("deploy/backup.sh", "/var/backups/gatehouse")
    portal.run("deploy/verify-backup.sh", "/var/backups/gatehouse")


def test_it_stops_by_itself_and_keeps_its_data(portal: Container) -> None:
    portal.run("gatehouse", "user", "add", "olivia", "olivia@acme.example", "--verified")
    assert portal.stop() == 0
    portal.start()
    assert "olivia" in portal.run("gatehouse", "user", "list")


def test_a_copy_comes_back(portal: Container) -> None:
    """The one that test_the_jobs_of_the_night_run made."""
    portal.stop()
    portal.once("sh", "-c", "deploy/restore.sh --yes /var/backups/gatehouse/*.sqlite3")
    portal.start()
    assert "olivia" not in portal.run("gatehouse", "user", "list")
    assert portal.stop() == 0


def test_it_works_with_postgresql(engine: Engine) -> None:
    server = PostgreSQL()
    try:
        portal = Container(engine, "with-postgresql", free_port(), keys(server.url("postgres")))
        portal.start()
        assert get(portal, "/readyz").json()["status"] == "ready"
        assert get(portal, "/login/").status_code == 200
        assert portal.stop() == 0
    finally:
        server.stop()
