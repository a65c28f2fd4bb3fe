"""A refused sign-in says the same, and does the same, whoever it was for. Its times are measured by tests/bench/oracle.py."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity.backends import spend_a_check
from identity.hashers import Argon2id
from identity.models import Bucket, Event, User
from tests.bench.oracle import ks, plain
from tests.conftest import PASSWORD
from tests.visitor import Cookie, Visitor, portal_url

Open = Callable[..., Visitor]
WRONG = "no password of theirs"
WAYS = ("form", "json")


class Older(Argon2id):
    """What this portal might have stored some years ago."""

    time_cost, memory_cost = 1, 8 * 1024


@pytest.fixture
def refused(dear_hashes: None, cast: dict[str, User], visitor: Open) -> dict[str, str]:
    """Every kind of person whom a stranger cannot be told of → the name that is typed. The first one is a plain wrong password."""
    for name, encoded in (
        ("inactive", make_password(PASSWORD)),
        ("unusable", make_password(None)),
        ("older", Older().encode(PASSWORD, Older().salt())),
        ("unverified", make_password(PASSWORD)),
    ):
        User.objects.create(username=name, email=f"{name}@acme.example", password=encoded, is_active=name != "inactive")
    User.objects.exclude(username="unverified").update(email_verified_at=timezone.now())
    for name in ("bob", "nobody-2"):
        for _ in range(5):
            visitor(address="203.0.113.77").sign_in(name, WRONG)
    assert Bucket.objects.filter(kind="person", locked_at__isnull=False).count() == 2
    return {
        "wrong": "alice",
        "wrong, by address": "alice@acme.example",
        "unknown": "nobody-1",
        "unknown address": "nobody@acme.example",
        "unverified address": "unverified@acme.example",
        "inactive": "inactive",
        "unusable password": "unusable",
        "of another tenant": "carol",
        "operator": "erin",
        "old hash": "older",
        "locked": "bob",
        "locked, unknown": "nobody-2",
        "long": "y" * 300,
    }


def ask(browser: Visitor, way: str, name: str, password: str = WRONG) -> HttpResponse:
    """Sign in by the form, by way of acme's brand, or by JSON."""
    answer: HttpResponse
    if way == "json":
        answer = browser.post_json(portal_url("/api/v1/login"), json.dumps({"username": name, "password": password}))
    else:
        data = {"username": name, "password": password, "next": "/enter/acme/"}
        answer = browser.post(portal_url("/login/?next=/enter/acme/"), data, follow=False)
    return answer


def said(answer: HttpResponse, name: str) -> str:
    lines = [*answer.items(), *(("set-cookie", morsel.OutputString()) for morsel in answer.cookies.values())]
    return plain(answer.status_code, lines, answer.content, name)


@pytest.mark.asvs("6.3.8")
@pytest.mark.parametrize("way", WAYS)
def test_everybody_who_is_refused_gets_the_same_bytes_and_headers(refused: dict[str, str], visitor: Open, way: str) -> None:
    answers = {what: said(ask(visitor(), way, name), name) for what, name in refused.items()}
    assert answers["wrong"].startswith("200" if way == "form" else "401")
    assert "That name and password do not match." in answers["wrong"] or way == "json"
    for what, text in answers.items():
        assert text == answers["wrong"], what


@pytest.mark.asvs("6.3.8")
@pytest.mark.parametrize("way", WAYS)
def test_the_right_password_changes_nothing_for_who_may_not_come_in(refused: dict[str, str], visitor: Open, way: str) -> None:
    wrong = said(ask(visitor(), way, "alice"), "alice")
    for what in ("inactive", "unusable password", "locked", "unverified address"):
        assert said(ask(visitor(), way, refused[what], PASSWORD), refused[what]) == wrong, what


# --- The same work ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password hash that is computed."""
    spend_a_check(WRONG)  # the hash that nobody has is made once
    found: list[str] = []
    for name in ("encode", "verify"):
        original = getattr(Argon2id, name)

        def noted(self: Argon2id, *args: Any, name: str = name, original: Any = original) -> Any:
            found.append(name)
            return original(self, *args)

        monkeypatch.setattr(Argon2id, name, noted)
    return found


def statements(asked: CaptureQueriesContext) -> list[str]:
    """What the database was asked, in order, without the values."""
    found = []
    for query in asked.captured_queries:
        text = re.sub(r"\bs\d+_x\d+", "point", query["sql"])
        text = re.sub(r"'(?:[^']|'')*'(?:::\w+)?", "?", text)
        found.append(re.sub(r"\b(?:NULL|\d+)\b(?! times)", "?", text))
    return found


@pytest.mark.asvs("6.3.8")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", WAYS)
def test_everybody_who_is_refused_costs_the_same_statements_and_hashes(
    refused: dict[str, str], visitor: Open, way: str, hashes: list[str]
) -> None:
    work = {}
    ask(visitor(), way, "alice")  # what is remembered for a moment is remembered now
    for what, name in refused.items():
        browser = visitor()
        hashes.clear()
        with CaptureQueriesContext(connection) as asked:
            ask(browser, way, name)
        assert hashes == ["verify"], what
        work[what] = statements(asked)
    assert len([text for text in work["wrong"] if text == "COMMIT"]) >= 2  # one before the hash, one after it
    for what, done in work.items():
        if what.startswith("locked"):
            done.remove('ROLLBACK TO SAVEPOINT "point"')  # the event of a refused attempt is written and taken back
        # A name and an address are looked for in two columns, whether they are anybody's or not.
        assert done == work["wrong, by address" if "@" in refused[what] else "wrong"], what


@pytest.mark.asvs("6.3.8")
def test_a_made_up_device_cookie_does_not_tell_whose_number_it_names(cast: dict[str, User], visitor: Open) -> None:
    spend_a_check(WRONG)
    work = {}
    for name in ("alice", "carol", "nobody-1"):
        liar = visitor()
        liar.cookies.append(Cookie("device", f"{cast['alice'].pk}.{'x' * 43}", "login.portal.localhost", host_only=True))
        with CaptureQueriesContext(connection) as asked:
            ask(liar, "json", name)
        work[name] = statements(asked)
    assert work["alice"] == work["carol"] == work["nobody-1"]


def test_refused_attempts_leave_no_event(refused: dict[str, str], visitor: Open) -> None:
    before = Event.objects.count()
    for _ in range(3):
        ask(visitor(), "json", refused["locked"])
    assert Event.objects.count() == before
    assert Bucket.objects.get(user__username="bob").refused == 3


def test_an_address_that_is_full_leaves_no_row_for_the_names_it_tries(cast: dict[str, User], visitor: Open) -> None:
    for number in range(50):
        ask(visitor(), "json", f"nobody-{number}")
    rows = Bucket.objects.count()
    assert {ask(visitor(), "json", f"another-{number}").status_code for number in range(5)} == {429}
    assert Bucket.objects.count() == rows


def test_the_measure_of_the_bench_is_right() -> None:
    """Against the critical distances that every table has: c * sqrt(2 / n), with c = 1.36 for 5 % and 1.63 for 1 %."""
    one = list(range(1000))
    assert ks(one, one) == 1.0
    assert ks(one, [n + 61 for n in one]) == pytest.approx(0.05, abs=0.005)
    assert ks(one, [n + 73 for n in one]) == pytest.approx(0.01, abs=0.001)
    assert ks(one, [n + 500 for n in one]) < 1e-9
