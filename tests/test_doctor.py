"""`manage.py doctor`, against the real server, against others in its place, and with what an operator gets wrong."""

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import signing
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from identity import checkup, clock
from identity.management.doctor import Asked, Finding, State, cookies, database, in_parallel, keys, mail, names, proxy, storage, timers
from identity.management.doctor.asking import Reply
from identity.management.named import Named
from identity.models import Mail, User
from tenants.models import Host, Tenant
from tests.browser.site import Authority, BehindNginx, find_nginx, new_database, secret_keys, seeded
from tests.conftest import missing
from tests.servers import Portal, free_port
from tests.sink import Sink
from tests.test_isolation_command import certificate, quiet, stub
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("doctor")
    with (
        quiet(),
        Portal(new_database(folder, of=seeded()), folder, is_seeded=True, workers=1, port=0, **secret_keys()) as running,
    ):  # the tests' own key is a sentence
        yield running


def states(findings: Any) -> list[State]:
    return [finding.state for finding in findings]


def said(findings: Any) -> str:
    return "\n".join(f"{finding.state}: {finding.text} {finding.cure}" for finding in findings)


def cured(findings: Any) -> list[Finding]:
    """What is not as it should be: each has its cure."""
    found = [each for each in findings if each.state in {State.WARNING, State.FAILURE}]
    assert all(each.cure for each in found)
    return found


def doctor(**options: Any) -> tuple[dict[str, Any], int]:
    out, code = StringIO(), 0
    try:
        call_command("doctor", "--json", stdout=out, **options)
    except CommandError as error:
        code = error.returncode
    return json.loads(out.getvalue()), code


# --- The whole ------------------------------------------------------------------------------------------------------


def test_the_doctor_looks_at_everything_on_a_running_portal(portal: Portal) -> None:
    """The running server, in its own environment; a throw-away PostgreSQL is not durable, and the doctor says so."""
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor", "--json"], env=portal.environment, capture_output=True, text=True, check=False
    )
    told = json.loads(done.stdout)
    groups = {finding["group"] for finding in told["findings"]}
    assert groups == {"settings", "database", "proxy", "hosts", "cookies", "mail", "timers", "storage"}
    failures = [finding["text"] for finding in told["findings"] if finding["state"] == "failure"]
    assert all("fsync" in text for text in failures), failures
    assert done.returncode == bool(failures)
    assert told["ok"] == (not failures)
    texts = [finding["text"] for finding in told["findings"]]
    assert "Your address as the portal sees it is 127.0.0.1, and that is yours." in texts
    assert "A forged X-Forwarded-For is not believed." in texts
    assert "3 hosts lead here." in texts


@pytest.mark.asvs("12.2.2", "12.3.2")
def test_behind_the_real_proxy_the_doctor_sees_what_visitors_see(tmp_path: Path) -> None:
    """nginx with deploy/nginx.conf, over https. The certificate of the test is good for two days."""
    if find_nginx() is None:
        missing("nginx is not installed: apt-get install nginx")
    authority = Authority(tmp_path)
    with quiet(), BehindNginx(authority) as site:
        command = [sys.executable, "manage.py", "doctor", "--json", "--url", f"https://127.0.0.1:{site.port}"]
        trusting = {**site.portal.environment, "SSL_CERT_FILE": str(authority.root)}
        told = json.loads(subprocess.run(command, env=trusting, capture_output=True, text=True, check=False).stdout)
        distrusting = json.loads(subprocess.run(command, env=site.portal.environment, capture_output=True, text=True, check=False).stdout)
    found = {finding["text"]: finding for finding in told["findings"]}
    assert found["Your address as the portal sees it is 127.0.0.1, and that is yours."]["state"] == "ok"
    assert found["A forged X-Forwarded-For is not believed."]["state"] == "ok"
    assert "Strict-Transport-Security does not reach the visitor." not in found
    ends = [text for text in found if "its certificate ends in 1 day" in text]
    assert "login.gate.test: its certificate ends in 1 day." in ends
    assert len(ends) >= 2
    assert all(found[text]["data"]["certificate_until"] for text in ends)
    assert "login.gate.test: its certificate is not trusted." in {finding["text"] for finding in distrusting["findings"]}


@pytest.mark.django_db
def test_a_failure_makes_the_exit_code_1_and_each_has_its_cure() -> None:
    told, code = doctor(url=f"http://127.0.0.1:{free_port()}", only="proxy")
    assert (told["ok"], code) == (False, 1)
    assert [finding["state"] for finding in told["findings"]] == ["failure"]
    assert "systemctl status 'gatehouse@*'" in told["findings"][0]["cure"]


@pytest.mark.django_db
def test_without_json_it_speaks_plainly(settings: Any, tmp_path: Path) -> None:
    settings.STATE = tmp_path
    out = StringIO()
    call_command("doctor", "--only", "storage", stdout=out)
    assert out.getvalue().startswith("Storage\n  note     This is the demo: no backups.\n")
    assert "No failure" in out.getvalue()


def test_a_database_that_does_not_answer_is_one_finding_with_its_reason_and_the_rest_has_its_turn(tmp_path: Path) -> None:
    said_of = {**os.environ, "DATABASE_URL": f"postgres://nobody@127.0.0.1:{free_port()}/nothing", "PORT": str(free_port())}
    done = subprocess.run([sys.executable, "manage.py", "doctor", "--json"], env=said_of, capture_output=True, text=True, check=False)
    found = [(each["group"], each["text"]) for each in json.loads(done.stdout)["findings"] if each["state"] == "failure"]
    told = dict(found)
    assert done.returncode == 1
    assert "Connection refused" in told["database"]
    assert [group for group, _text in found].count("database") == 1
    assert {group for group, _text in found} <= {"settings", "database", "proxy"}


# --- “Your address as I see it” -------------------------------------------------------------------------------------


@pytest.mark.asvs("13.4.5")
def test_strangers_find_no_doctor_at_any_host(cast: dict[str, User], visitor: Open) -> None:
    for url in (portal_url(checkup.PATH), tenant_url("acme", checkup.PATH)):
        for asked in (
            "",
            "guess",
            signing.dumps("a nonce", salt="another"),
            signing.dumps("a nonce", key="x" * 40, salt="gatehouse.doctor.question"),
        ):
            assert visitor().get(url, HTTP_X_GATEHOUSE_DOCTOR=asked).status_code == 404


def test_who_holds_the_key_is_told_what_the_portal_sees(cast: dict[str, User], visitor: Open) -> None:
    nonce, question = checkup.question()
    answer = visitor(address="203.0.113.9").get(tenant_url("acme", checkup.PATH), HTTP_X_GATEHOUSE_DOCTOR=question)
    seen = checkup.read(answer.content.decode(), nonce)
    assert seen is not None
    assert (seen.address, seen.scheme, seen.host) == ("203.0.113.9", "http", "acme.portal.localhost")
    assert checkup.read(answer.content.decode(), "another nonce") is None
    assert checkup.read("anything", nonce) is None


@pytest.mark.django_db
def test_another_server_in_the_portals_place_is_no_portal() -> None:
    for status, word in ((200, "not this installation"), (404, "not this installation"), (503, "does not")):
        with stub(lambda request, status=status: (status, b"hello")) as url:  # type: ignore[misc]
            found = list(proxy.examine(Asked(url=url)))
        assert states(found) == [State.FAILURE]
        assert word in found[0].text
        assert cured(found)


def seen_from(address: str, here: str = "10.1.1.1") -> Reply:
    return Reply(
        "login.example.com", here=here, seen=checkup.Seen("n", "login.example.com", address, "https", "0", clock.now().isoformat())
    )


@pytest.mark.parametrize(
    ("address", "state"),
    [("10.1.1.1", State.OK), ("", State.FAILURE), ("10.0.0.2", State.WARNING), ("8.8.8.8", State.NOTE)],
)
def test_an_address_that_is_the_proxys_is_noticed(db: None, address: str, state: State) -> None:
    finding = proxy._address(seen_from(address))
    assert finding.state is state
    if address == "10.0.0.2":
        assert "TRUSTED_PROXIES=10.0.0.2" in finding.cure


def test_a_portal_that_believes_a_forged_address_is_a_failure(tmp_path: Path, settings: Any, db: None) -> None:
    """Whoever stands in TRUSTED_PROXIES may say who asks: this visitor, too."""
    with quiet(), Portal(new_database(tmp_path), tmp_path, TRUSTED_PROXIES="127.0.0.1") as open_hearted:
        settings.PORTAL_URL, settings.PORTAL_PORT = open_hearted.url().rstrip("/"), open_hearted.port
        found = list(proxy.examine(Asked()))
    assert "A visitor can choose the address that the portal believes" in said(cured(found))


def test_the_whole_world_is_no_proxy(settings: Any, db: None) -> None:
    settings.TRUSTED_PROXIES = ["0.0.0.0/0", "10.0.0.0/8"]
    found = list(proxy._trust())
    assert states(found) == [State.FAILURE]
    assert "0.0.0.0/0" in found[0].text


# --- Hosts ----------------------------------------------------------------------------------------------------------


def test_a_host_that_leads_elsewhere_or_nowhere_is_named(cast: dict[str, User]) -> None:
    with stub(lambda request: (404, b"another site")) as url:
        found = list(names.examine(Asked(url=url)))
    assert states(found) == [State.FAILURE] * 3
    assert "acme.portal.localhost: something else answers there (404)" in said(cured(found))


@pytest.mark.asvs("12.3.2")
def test_a_certificate_that_is_not_trusted_or_for_another_name_is_told_apart(
    cast: dict[str, User], over_https: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PORTAL_URL, settings.PORTAL_HOST, settings.TENANT_DOMAIN = "https://login.gate.test", "login.gate.test", "gate.test"
    Host.objects.create(tenant=Tenant.objects.get(slug="acme"), name="id.acme.org", approved_at=clock.now())
    chain, key = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    with stub(lambda request: (404, b"another site"), tls) as url:
        assert said(cured(names.examine(Asked(url=url)))).count("its certificate is not trusted") == 4
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        found = said(cured(names.examine(Asked(url=url))))
    assert "id.acme.org: its certificate does not cover this name" in found
    assert found.count("its certificate") == 1
    assert "acme.gate.test: something else answers there" in found

    tls.sni_callback = lambda *_asked: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    with stub(lambda request: (404, b"another site"), tls) as url:
        assert said(cured(names.examine(Asked(url=url)))).count("its certificate is missing") == 4


@pytest.mark.parametrize(("days", "state"), [(60, None), (20, State.WARNING), (3, State.FAILURE)])
def test_a_certificate_that_ends_soon_is_told_in_time(db: None, days: int, state: State | None) -> None:
    until = datetime.now(UTC) + timedelta(days=days, hours=1)
    seen = seen_from("10.1.1.1").seen
    reply = Reply("acme.example.com", dns=("10.0.0.1",), seen=seen, certificate_until=until)
    finding = names._judged(Named("acme.example.com", "tenant", "acme"), reply, reply)
    assert (finding.state if finding else None) is state


def test_a_name_without_an_address_is_told_where_to_lead(db: None) -> None:
    portal_reply = Reply("login.example.com", dns=("198.51.100.4",))
    reply = Reply("acme.example.com", trouble="DNS knows no address of it")
    finding = names._judged(Named("acme.example.com", "tenant", "acme"), reply, portal_reply)
    assert finding is not None
    assert "198.51.100.4" in finding.cure


def test_an_old_address_among_those_of_a_name_is_found(tmp_path: Path, settings: Any, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS has two; at the second nobody answers, which a browser that takes the first does not notice."""
    resolve = socket.getaddrinfo

    def both(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        places = ["127.0.0.1", "127.0.0.2"] if host.endswith(".localhost") else [host]
        return [found for place in places for found in resolve(place, port, *args, **kwargs)]

    with quiet(), Portal(new_database(tmp_path), tmp_path) as running:
        settings.PORTAL_URL, settings.PORTAL_PORT, settings.ON_LOCALHOST = running.url().rstrip("/"), running.port, False
        monkeypatch.setattr(socket, "getaddrinfo", both)
        found = cured(names.examine(Asked()))
    assert states(found) == [State.FAILURE]
    assert "login.portal.localhost: no answer at 127.0.0.2, one of its addresses" in found[0].text


def test_a_host_that_leads_to_another_machine_with_the_same_keys_is_noticed(db: None) -> None:
    """The old machine after a move, for one."""
    there = replace(seen_from("10.1.1.1"), seen=checkup.Seen("n", "", "", "https", "0", clock.now().isoformat(), machine="another"))
    here = replace(there, seen=checkup.Seen("n", "", "", "https", "0", clock.now().isoformat(), machine=checkup.this_machine()))
    assert states(names._other_machines([here, there])) == [State.NOTE]
    assert states(names._other_machines([here])) == []


def test_why_a_host_has_no_certificate_is_told(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "WHY_NOT", tmp_path)
    (tmp_path / "id.acme.org").write_text("0 1\nthe authority says: no\x1b[2J\n")
    finding = names._judged(Named("id.acme.org", "host", "acme"), Reply("id.acme.org", dns=("10.0.0.1",), certificate="name"), None)
    assert finding is not None
    assert finding.cure.startswith("No new certificate: the authority says: no")
    assert "\x1b" not in finding.cure


def test_a_question_that_hangs_keeps_nobody_waiting() -> None:
    never = threading.Event()
    found = in_parallel(lambda n: never.wait(20) if n == 3 else n, range(5), 0.5)
    never.set()
    assert found == {0: 0, 1: 1, 2: 2, 4: 4}


# --- Cookies --------------------------------------------------------------------------------------------------------


def test_cookie_domains_are_held_against_the_public_suffixes_the_portal_and_each_other(cast: dict[str, User], over_https: None) -> None:
    asked = Asked(url="https://127.0.0.1")
    Tenant.objects.filter(slug="acme").update(cookie_domain="acme.example.com")
    Tenant.objects.filter(slug="globex").update(cookie_domain="globex.example.com")
    assert states(cookies.examine(asked)) == [State.OK]
    acme = Tenant.objects.get(slug="acme")
    Host.objects.create(tenant=acme, name="id.acme.co.uk", cookie_domain="co.uk", approved_at=clock.now())
    Tenant.objects.filter(slug="globex").update(cookie_domain="example.com")
    found = said(cured(cookies.examine(asked)))
    assert "strangers can register names below its cookie domain co.uk" in found
    assert "globex.example.com: its cookie domain example.com reaches the portal" in found
    assert "acme.example.com of acme lies inside example.com of globex" in found


# --- Database -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_database_is_looked_at_as_it_is() -> None:
    found = list(database.examine(Asked()))
    assert "its clock agrees" in said(found)
    assert "Every migration is applied." in said(found)
    if connection.vendor == "postgresql":  # the tests' own server forgets on purpose
        assert [each.text for each in cured(found)] == [
            "PostgreSQL may forget what it has answered, when the power fails: fsync is off.",
            "Gatehouse is gatehouse to PostgreSQL, who may do more there than own a database.",
        ]
    else:
        assert "in WAL" in said(found)


@pytest.mark.django_db
def test_migrations_that_wait_and_those_of_a_newer_release_are_named() -> None:
    recorder = MigrationRecorder(connection)
    recorder.record_applied("identity", "9999_of_tomorrow")
    assert "ahead of this release by identity.9999_of_tomorrow" in said(database._migrations())
    recorder.record_unapplied(*MigrationLoader(connection).graph.leaf_nodes("identity")[0])
    found = list(database._migrations())
    assert states(found) == [State.FAILURE]
    assert found[0].cure == "manage.py migrate"


@pytest.mark.django_db
def test_a_clock_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, state in ((5, State.WARNING), (90, State.FAILURE)):
        monkeypatch.setattr("django.utils.timezone.now", lambda seconds=seconds: datetime.now(UTC) + timedelta(seconds=seconds))
        monkeypatch.setattr("identity.clock.now", lambda: datetime.now(UTC))
        assert states(database._clock()) == [state]


# --- Mail -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sends(settings: Any) -> Iterator[Sink]:
    settings.KEEP_MAILS = settings.MAIL_OFF = False
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    with Sink() as server:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        yield server


def test_the_mail_server_is_asked_and_a_test_is_sent_to_whom_the_operator_says(db: None, sends: Sink) -> None:
    assert "takes us" in said(mail.examine(Asked()))
    assert not sends.mails
    assert "has taken a test to erin@example.org" in said(mail.examine(Asked(mail="erin@example.org")))
    assert [one["To"] for one in sends.mails] == ["erin@example.org"]


def test_a_mail_server_that_does_not_answer_is_a_failure(db: None, sends: Sink, settings: Any) -> None:
    settings.EMAIL_PORT = free_port()
    assert states(mail.examine(Asked())) == [State.FAILURE]
    settings.MAIL_OFF = True
    assert "EMAIL_URL is not set" in said(cured(mail.examine(Asked())))


def test_mails_that_nobody_sends_or_that_were_given_up_are_told(db: None, sends: Sink) -> None:
    now = clock.now()
    Mail.objects.create(kind="ended", to="a@example.org", created_at=now, due_at=now - timedelta(hours=1))
    Mail.objects.create(kind="ended", to="b@example.org", body="kept", created_at=now, failed_at=now)
    found = said(cured(mail.examine(Asked())))
    assert "1 mail is due, and nobody sends" in found
    assert "1 mail was given up" in found


# --- Timers, disks, backups -----------------------------------------------------------------------------------------

RUNNING = {"LoadState": "loaded", "ActiveState": "active", "LastTriggerUSec": ""}


@pytest.mark.parametrize(
    ("timer", "service", "state"),
    [
        ({}, {}, State.NOTE),
        ({"LoadState": "not-found"}, {}, State.FAILURE),
        ({"LoadState": "loaded", "ActiveState": "inactive"}, {}, State.FAILURE),
        (RUNNING, {"Result": "exit-code"}, State.FAILURE),
        (RUNNING, {"Result": "success"}, State.NOTE),
        (RUNNING, {"Result": "success", "ExecMainExitTimestamp": f"@{int(datetime.now(UTC).timestamp())}"}, State.OK),  # by hand
        ({**RUNNING, "LastTriggerUSec": "@1700000000"}, {"Result": "success"}, State.WARNING),
        ({**RUNNING, "LastTriggerUSec": f"@{int(datetime.now(UTC).timestamp()) - 3600}"}, {}, State.OK),
    ],
)
def test_a_timer_that_did_not_do_its_work_is_noticed(timer: dict[str, str], service: dict[str, str], state: State) -> None:
    finding = timers._timer("gatehouse-backup", timer, service)
    assert finding.state is state
    assert finding.cure or state in {State.OK, State.NOTE}


def test_the_last_verified_backup_is_told_by_its_age(tmp_path: Path, settings: Any) -> None:
    settings.DEMO = False
    path = tmp_path / "verified"
    assert storage._verified(path).state is State.WARNING
    for days, state in ((1, State.OK), (10, State.WARNING), (60, State.FAILURE)):
        at = datetime.now(UTC) - timedelta(days=days)
        path.write_text(f"{at:%Y-%m-%dT%H:%M:%SZ} gatehouse-20261121T024000Z.dump\n")
        assert storage._verified(path).state is state
    for broken in ("", "[]", "yesterday x", "2026-11-20T02:40:00Z"):
        path.write_text(broken)
        assert storage._verified(path).state is State.WARNING


def test_a_disk_says_how_much_room_it_has(tmp_path: Path) -> None:
    finding = storage._room(tmp_path)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert finding.data["free"] == pytest.approx(free, rel=0.2)


# --- Secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("11.2.3", "13.4.2")
def test_secrets_that_were_not_made_by_chance_and_debug_are_failures(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "x" * 60, ["django-insecure-0123456789abcdefghijklmnopqrstuvwxyzABCDEF"]
    settings.ENCRYPTION_KEYS = ["QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="]
    settings.DEBUG = True
    found = said(cured(keys.examine(Asked())))
    for name in ("SECRET_KEY can be guessed", "SECRET_KEY_FALLBACKS can be guessed", "ENCRYPTION_KEYS can be guessed", "DEBUG is on"):
        assert name in found
    assert "x" * 60 not in found


def test_a_file_of_secrets_that_others_may_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gatehouse.env"
    path.touch(mode=0o600)
    monkeypatch.setattr(keys, "ENVIRONMENT", path)
    assert list(keys._files()) == []
    path.chmod(0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert states(keys._files()) == [State.FAILURE]
