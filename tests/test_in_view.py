"""Who proved what, what failed, and what nobody expected: each leaves its trace, and nothing stands open for it."""

import json
import logging
import multiprocessing
import os
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core import signing
from django.db import DatabaseError
from django.test import Client

from identity import checkup, crypto, hashers, sessions
from identity.management.doctor import Asked, State, proxy
from identity.management.wire import Wire
from identity.models import Event, User
from portal.logs import JsonFormatter, RequestFilter
from tests.conftest import PASSWORD
from tests.phone import code_of, enrol
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


# --- The log of proofs ------------------------------------------------------------------------------------------------


@contextmanager
def told(*expected: tuple[str, list[str] | None]) -> Iterator[None]:
    """What is done meanwhile leaves these events, with the factors that they name."""
    before = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    yield
    found = Event.objects.filter(pk__gt=before).order_by("pk")
    proofs = [(event.kind, event.data.get("methods")) for event in found if event.kind != "browser_trusted"]
    assert proofs == list(expected)
    assert all(event.ip and event.request_id for event in found)


@pytest.mark.asvs("16.3.1")
def test_every_proof_and_every_wrong_answer_is_an_event_with_its_factors(cast: dict[str, User], visitor: Open) -> None:
    own = visitor("dave")
    codes = enrol(own, "dave")
    here, right = visitor(), {"username": "dave", "password": PASSWORD}
    with told(("sign_in_failed", None), ("sign_in_failed", None), ("sign_in_failed", None)):
        here.post(portal_url("/login/"), {**right, "password": "wrong"})
        here.post(portal_url("/login/"), {**right, "username": "nobody"})
        here.post_json(portal_url("/api/v1/login"), json.dumps({**right, "password": "wrong"}))
    with told(("code_failed", None)):
        here.post(portal_url("/login/"), right)
        here.post(here.url, {"code": codes[0].replace(codes[0][0], "a" if codes[0][0] != "a" else "b")})
    with told(("sign_in", ["pwd", "otp"])):
        here.post(here.url, {"code": code_of("dave"), "trust": "on"})
    with told(("sign_in", ["pwd", "trusted"])):
        here.post(portal_url("/logout/"))
        Event.objects.filter(kind="session_ended").delete()
        here.post(portal_url("/login/"), right)
    with told(("recovery_code_used", None), ("sign_in", ["pwd", "recovery"])):
        other = visitor()
        other.post(portal_url("/login/"), right)
        other.post(other.url, {"code": codes[0]})
    with told(("step_up_failed", None), ("step_up", ["pwd", "otp"])):
        other.post(portal_url("/step-up/"), {"password": "wrong", "code": code_of("dave")})
        other.step_up()


# --- What nobody expected ---------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the log says, in production's form."""
    found: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    handler = Kept()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(RequestFilter())
    logging.root.addHandler(handler)
    yield found
    logging.root.removeHandler(handler)


@pytest.mark.asvs("16.3.4", "16.5.4")
@pytest.mark.parametrize("where", ["portal.views.health.MigrationExecutor", "tenants.hosts.tenant_at"])
def test_what_nobody_expected_is_a_calm_page_and_a_traceback_with_the_same_id(
    cast: dict[str, User], monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]], where: str
) -> None:
    """In a view and in a middleware. The next request is answered as ever."""
    url = portal_url("/readyz") if "health" in where else tenant_url("acme", "/welcome/")
    browser = Visitor(client=Client(raise_request_exception=False))
    with monkeypatch.context() as broken:

        def fails(*args: object) -> None:
            raise RuntimeError("the inside of it")

        broken.setattr(where, fails)
        page = browser.get(url)
    assert page.status_code == 500
    assert "the inside of it" not in page.content.decode()
    (line,) = [each for each in lines if each["level"] == "error"]
    assert "RuntimeError: the inside of it" in line["error"]
    assert line["request_id"] in page.content.decode()
    assert browser.get(url).status_code == 200


@pytest.mark.asvs("16.5.2")
def test_a_database_that_fails_lets_nobody_in(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a session that cannot be looked up nor by a password that cannot be counted."""
    dave = visitor("dave", at="acme")
    dave.client = Client(raise_request_exception=False)

    def gone(*args: object, **more: object) -> None:
        raise DatabaseError("the server closed the connection")

    with monkeypatch.context() as broken:
        broken.setattr("identity.sessions.live", gone)
        assert dave.get(tenant_url("acme", "/_portal/whoami")).status_code >= 500
        assert dave.get(portal_url("/account/")).status_code >= 500
    with monkeypatch.context() as broken:
        broken.setattr("identity.ledger._reserve", gone)
        stranger = Visitor(client=Client(raise_request_exception=False))
        stranger.post(portal_url("/login/"), {"username": "dave", "password": PASSWORD})
        assert not stranger.is_in()
    assert dave.is_in("acme")


# --- Going out --------------------------------------------------------------------------------------------------------


@contextmanager
def server(location: str = "") -> Iterator[tuple[str, list[str]]]:
    """Sends everybody on to another place, or notes who came."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.path)
            self.send_response(302 if location else 200)
            self.send_header("Location", f"{location}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", came
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.django_db
@pytest.mark.asvs("15.3.2")
def test_nothing_that_asks_goes_where_an_answer_sends_it() -> None:
    with server() as (elsewhere, came), server(elsewhere) as (url, asked):
        assert State.FAILURE in [finding.state for finding in proxy.examine(Asked(url=url))]
        wire = Wire(url)
        assert wire.ask("login.portal.localhost", "/healthz", "")[0] == 302
        wire._close()
        assert asked
        assert not came


# --- What costs much --------------------------------------------------------------------------------------------------


@pytest.mark.asvs("15.2.2")
def test_hashes_have_as_many_places_as_processors_and_sessions_need_none(cast: dict[str, User], visitor: Open) -> None:
    """However many passwords wait for their turn, who is signed in is answered."""
    dave, places, done = visitor("dave", at="acme"), os.cpu_count() or 1, []
    hashing = threading.Thread(target=lambda: done.append(hashers.Argon2id().encode("a password", "0123456789abcdef")))
    for _n in range(places):
        assert hashers._slots.acquire(timeout=5)
    try:
        hashing.start()
        assert dave.is_in("acme")
        assert dave.is_in()
        assert not done
    finally:
        hashers._slots.release(places)
    hashing.join()
    assert done[0].startswith("argon2$argon2id$")


# --- Chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("11.3.4")
def test_no_nonce_comes_twice_and_one_text_is_never_encrypted_to_the_same() -> None:
    texts = [crypto.encrypt("the same", "the same place") for _n in range(20_000)]
    assert len({urlsafe_b64decode(text.partition(".")[2])[:12] for text in texts}) == len(texts)


def keys_of(n: int) -> list[str]:
    return [sessions.new_key() for _n in range(n)]


@pytest.mark.asvs("11.5.2")
def test_processes_that_were_forked_from_one_make_no_key_twice() -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        made = [key for keys in pool.map(keys_of, [2_000] * 16) for key in keys]
    assert len(set(made)) == len(made) == 32_000


# --- Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("9.1.2", "9.1.3")
def test_a_token_chooses_neither_its_algorithm_nor_its_key(cast: dict[str, User], visitor: Open) -> None:
    """What we sign is good under SHA-256 and a key of the settings; a weaker sum, or a key that it brings along, is not."""
    salt = "gatehouse.doctor.question"

    def status(token: str) -> int:
        return int(visitor().get(tenant_url("acme", checkup.PATH), HTTP_X_GATEHOUSE_DOCTOR=token).status_code)

    assert status(signing.TimestampSigner(salt=salt).sign_object("a nonce")) == 200
    for algorithm in ("sha1", "md5", "sha512"):
        assert status(signing.TimestampSigner(salt=salt, algorithm=algorithm).sign_object("a nonce")) == 404, algorithm
    assert status(signing.TimestampSigner(key="a key of mallory's, long enough", salt=salt).sign_object("a nonce")) == 404
    claims = signing.b64_encode(b'"a nonce"').decode()
    for header in (b'{"alg":"none"}', b'{"alg":"HS256","kid":"/dev/null"}', b'{"alg":"RS256","jku":"https://evil.test/keys"}'):
        assert status(f"{signing.b64_encode(header).decode()}.{claims}.") == 404


# --- Cookies ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("3.3.5")
def test_no_cookie_is_longer_than_browsers_take(cast: dict[str, User], visitor: Open) -> None:
    """Five people in one browser, each by way of a long address at a tenant, and the half-way state."""
    browser = visitor()
    seen: dict[str, Cookie] = {}
    for name, at in (("alice", "acme"), ("bob", "acme"), ("carol", "globex"), ("olivia", "globex"), ("dave", "acme")):
        browser.get(tenant_url(at, f"/_portal/start?next=/{'a' * 7000}"))
        browser.sign_in(name, PASSWORD, at=at, remember=True)
        seen |= {cookie.name: cookie for cookie in browser.cookies}
        browser.cookies = [cookie for cookie in browser.cookies if cookie.name == "device"]
    browser.post(portal_url("/login/"), {"username": "erin", "password": PASSWORD})
    seen |= {cookie.name: cookie for cookie in browser.cookies}
    assert {"portal", "session", "device", "half-way", "csrf", "start"} <= set(seen)
    for cookie in seen.values():
        assert len(cookie.name) + len(cookie.value) <= 4096, cookie.name
