"""The ledger: every check of a secret is counted before it is made, and the counting cannot be turned against its owner."""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.test import RequestFactory
from django.utils import timezone

from identity import factors, flight, known, ledger, links, sessions
from identity.halfway import HalfWay
from identity.models import Bucket, Event, KnownDevice, Link, TotpDevice, User
from portal import console_forms
from portal import forms as our_forms
from tenants import policy
from tenants.models import Tenant
from tests.conftest import PASSWORD
from tests.test_isolation import routes
from tests.test_roles import undone
from tests.visitor import Cookie, Visitor, portal_url

Open = Callable[..., Visitor]
ROOT = Path(__file__).parent.parent

# The functions that compare a secret with what is stored, each the only one of its kind.
COMPARE = {
    ("identity/models.py", "check_password"),
    ("identity/factors.py", "accepts"),
    ("identity/factors.py", "_take_recovery_code"),
    ("identity/links.py", "_link_behind"),
    ("identity/invitations.py", "_invitation_behind"),
}


def guess(visitor: Open, name: str, n: int, **kwargs: Any) -> None:
    for _ in range(n):
        visitor(**kwargs).sign_in(name, "wrong")


def person(name: str) -> Bucket:
    return Bucket.objects.get(user__username=name, kind="person")


def later(**delta: int) -> None:
    """As if so much time had passed for every bucket."""
    shift = timedelta(**delta)
    for row in Bucket.objects.all():
        for name in ("touched_at", "started_at", "locked_at", "locked_until"):
            if moment := getattr(row, name):
                setattr(row, name, moment - shift)
        row.save()


# --- Every path -------------------------------------------------------------------------------------------------------


def calls(node: ast.AST) -> set[str]:
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Call):
            found.add(each.func.attr if isinstance(each.func, ast.Attribute) else getattr(each.func, "id", ""))
    return found


@pytest.mark.asvs("6.3.4", "11.2.4")
def test_what_compares_a_secret_demands_a_reservation_and_nothing_else_compares_one() -> None:
    demanding = set()
    for package in ("identity", "portal", "tenants"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            name = str(path.relative_to(ROOT))
            for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
                called = calls(function)
                if "demand" in called:
                    demanding.add((name, function.name))
                elif called & {"verify_token", "accepts", "_link_behind", "_invitation_behind", "_take_recovery_code"}:
                    text = ast.unparse(function)
                    assert ".flight()" in text or function.name == "verify_token", f"{name}: {function.name}"
                elif called & {"verify"} and "TOTP" in path.read_text():
                    pytest.fail(f"{name}: {function.name} verifies a code by itself")
    assert demanding == COMPARE
    for package in ("identity", "portal", "tenants"):
        for path in (ROOT / package).rglob("*.py"):
            name, text = str(path.relative_to(ROOT)), path.read_text()
            if "migrations" in name:
                continue
            for secret in ("RecoveryCode.objects", "Link.objects.filter(digest", "TOTP("):
                if secret in text:
                    assert name in {
                        "identity/factors.py",
                        "identity/links.py",
                        "portal/views/login.py",  # counts what is left
                        "portal/views/two_factor.py",
                        "identity/management/commands/user.py",
                        "identity/export.py",  # counts what is left
                    }, f"{name} looks at {secret}"


GUESSES = {"code": "000000", "new_password1": "three other words", "new_password2": "three other words"}


def every_field() -> dict[str, str]:
    """Every field of every form of ours, filled with a guess."""
    found: dict[str, str] = {}
    for form in [*vars(our_forms).values(), *vars(console_forms).values()]:
        if isinstance(form, type) and issubclass(form, forms.BaseForm) and hasattr(form, "base_fields"):
            for name in form.base_fields:
                found[name] = GUESSES.get(name, "a wrong guess 77" if "password" in name else "")
    return {name: value for name, value in found.items() if value}


@pytest.mark.asvs("6.3.1", "6.3.4")
def test_a_path_that_forgets_the_ledger_is_found_by_walking_every_route(
    cast: dict[str, User], acme: Tenant, visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route of the portal, with a guess in every field of every form, by everybody: what is compared was counted before."""
    TotpDevice.objects.filter(pk=factors.enrolment(cast["dave"]).pk).update(confirmed=True)
    seen: set[tuple[str, str]] = set()
    here = ["", ""]

    def watched() -> None:
        assert flight._in_flight.get(), f"{here} compares a secret that was not counted"
        assert Bucket.objects.filter(flying__gt=0).exists(), f"{here} compares before the count is stored"
        seen.add((here[0], here[1]))

    monkeypatch.setattr(flight, "demand", watched)
    monkeypatch.setattr(policy, "TRIES_ADDRESS", 30_000)
    monkeypatch.setattr(ledger, "tries", lambda user: 10_000)
    monkeypatch.setattr(policy, "TRIES_FACTOR", 30_000)
    fields = every_field()
    assert {"password", "code", "old_password"} <= set(fields)
    for who in ("nobody", "half-way", "dave", "bob"):
        here[:] = ["", who]
        came = visitor() if who in {"nobody", "half-way"} else visitor(who)
        for route, path in routes("portal.urls").items():
            if who in {"nobody", "half-way"} and route.startswith("console/"):
                continue  # shut: tests/test_isolation.py
            here[:] = [route, who]
            browser = replace(came, cookies=list(came.cookies))
            if who == "half-way":
                half_way = HalfWay.begin(cast["dave"], remember=False)
                browser.cookies.append(Cookie("half-way", half_way.text, "login.portal.localhost", host_only=True))
            proofs = {f"proof-{name}": value for name, value in fields.items()}
            with undone():
                for data in ({}, {"username": "dave", **fields}, {"username": "dave", **fields, **proofs, "code": "aaaa aaaa aaaa aaaa"}):
                    if path.startswith("/api/"):
                        browser.post_json(portal_url(path), json.dumps(data))
                    else:
                        browser.post(portal_url(path), data, follow=False)
                browser.get(portal_url(path), follow=False)
    reached = {route for route, _who in seen}
    expected = {"login/", "login/code/", "step-up/", "api/v1/login", "account/password/", "signup/<token>/", "password/reset/<token>/"}
    expected.add("invitation/<token>/")
    expected |= {"link/verify/<token>/", "link/take-back/<token>/"}
    assert expected <= reached
    assert "console/<slug>/sessions/" not in reached


def test_comparing_without_a_reservation_is_an_error(cast: dict[str, User]) -> None:
    device = factors.authenticators(cast["erin"])[0]
    for compare in (
        lambda: cast["dave"].check_password(PASSWORD),
        lambda: device.verify_token("000000"),
        lambda: factors._take_recovery_code(cast["erin"], "A" * 16),
        lambda: links._link_behind("x" * 43, Link.Purpose.PASSWORD),
    ):
        with pytest.raises(flight.Unreserved):
            compare()


@pytest.mark.asvs("6.1.1")
def test_the_readme_tells_the_limits_that_are_in_force() -> None:
    table = (ROOT / "README.md").read_text().partition("## Wrong answers")[2].partition("\n## ")[0]

    def minutes(span: timedelta) -> int:
        return int(span.total_seconds() // 60)

    locks = [f"{minutes(shortest)} min, doubling to {minutes(longest)} min" for shortest, longest in (policy.LOCK, policy.FACTOR_LOCK)]
    for text in (
        f"not known | {policy.TRIES_UNKNOWN} wrong | {locks[0]}",
        f"one known browser | {policy.TRIES_UNKNOWN * policy.KNOWN_TIMES} wrong",
        f"second factor | {policy.TRIES_FACTOR} wrong | {locks[1]}",
        f"{policy.TRIES_ADDRESS} wrong in {minutes(policy.ADDRESS_WINDOW)} min",
        f"{policy.ALARM_TENANT}, {policy.ALARM_PLATFORM} wrong in {minutes(policy.ALARM_WINDOW)} min",
        f"trusted for {policy.TRUSTED_BROWSER.days} days",
    ):
        assert text in table.replace("\n", " "), text


# --- Locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.1", "6.1.1")
def test_a_lock_lasts_a_minute_and_doubles_to_an_hour(cast: dict[str, User], visitor: Open) -> None:
    lasted = []
    for _ in range(8):
        guess(visitor, "dave", 5)
        row = person("dave")
        assert row.locked_at
        assert row.locked_until
        lasted.append(round((row.locked_until - row.locked_at).total_seconds() / 60))
        later(minutes=61)
    assert lasted == [1, 2, 4, 8, 16, 32, 60, 60]
    later(hours=25)
    guess(visitor, "dave", 5)
    row = person("dave")
    assert row.locked_at
    assert row.locked_until
    assert row.locked_until - row.locked_at == timedelta(minutes=1)  # a day of quiet is forgotten


def test_a_refused_attempt_counts_nowhere_and_extends_nothing(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    until = person("dave").locked_until
    address = Bucket.objects.get(kind="address").failed
    guess(visitor, "dave", 4)
    row = person("dave")
    assert (row.failed, row.flying, row.locked_until, row.refused) == (5, 0, until, 4)
    assert Bucket.objects.get(kind="address").failed == address == 5
    assert Event.objects.filter(kind="sign_in_failed").count() == 5
    assert Event.objects.filter(kind="locked_out", subject=cast["dave"]).count() == 1


def test_the_lock_ends_by_itself(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    assert not visitor("dave").is_in()
    later(seconds=61)
    assert visitor("dave").is_in()
    assert person("dave").failed == 0


def test_a_complete_sign_in_clears_its_own_bucket_only_and_the_doubling_stays(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    later(seconds=61)
    guess(visitor, "dave", 4)
    guess(visitor, "alice", 4)
    assert visitor("dave").is_in()
    assert (person("dave").failed, person("dave").locks, person("alice").failed) == (0, 1, 4)
    assert Bucket.objects.get(kind="address").failed == 13
    guess(visitor, "dave", 5)
    row = person("dave")
    assert row.locked_at
    assert row.locked_until
    assert row.locked_until - row.locked_at == timedelta(minutes=2)


@pytest.mark.asvs("6.3.1")
def test_the_success_of_another_account_gives_an_attacker_nothing(cast: dict[str, User], visitor: Open) -> None:
    attacker = visitor()
    for _ in range(4):
        attacker.sign_in("dave", "wrong")
    attacker.sign_in("mallory", PASSWORD)
    assert attacker.is_in()
    attacker.sign_in("dave", "wrong")
    assert person("dave").locked_at


@pytest.mark.asvs("6.3.1")
def test_a_right_password_without_its_second_factor_clears_nothing_and_makes_nothing_known(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "erin", 4)
    thief = visitor()
    thief.get(portal_url("/login/"))
    thief.post(portal_url("/login/"), {"username": "erin", "password": PASSWORD})
    assert thief.url.endswith("/login/code/")
    assert not thief.is_in()
    assert person("erin").failed == 4
    assert not KnownDevice.objects.exists()
    for _ in range(5):
        thief.post(portal_url("/login/code/"), {"code": "000000"})
    assert Bucket.objects.get(kind="factor").locked_at
    TotpDevice.objects.update(last_step=-1)
    thief.post(portal_url("/login/code/"), {"code": factors.code_now(factors.authenticators(cast["erin"])[0])})
    assert "Too many wrong codes" in thief.page.content.decode()
    assert not thief.is_in()
    later(seconds=61)
    thief.post(portal_url("/login/code/"), {"code": factors.code_now(factors.authenticators(cast["erin"])[0])})
    assert thief.is_in()


def test_delays_of_the_second_factor_are_capped_at_a_quarter_of_an_hour(cast: dict[str, User]) -> None:
    request = RequestFactory().get("/")
    lasted = []
    for _ in range(6):
        for _wrong in range(5):
            assert factors.prove(request, cast["erin"], "000000").method == ""
        row = Bucket.objects.get(kind="factor")
        assert row.locked_at
        assert row.locked_until
        lasted.append(round((row.locked_until - row.locked_at).total_seconds() / 60))
        later(minutes=16)
    assert lasted == [1, 2, 4, 8, 15, 15]


def test_a_flight_whose_worker_died_counts_as_wrong_after_a_minute_and_a_late_answer_settles_nothing(cast: dict[str, User]) -> None:
    request = RequestFactory().get("/")
    attempt = ledger.for_password(request, "dave")
    assert (person("dave").failed, person("dave").flying) == (0, 1)
    later(seconds=61)
    other = ledger.for_password(request, "dave")
    assert (person("dave").failed, person("dave").flying) == (1, 1)
    attempt.wrong()
    assert (person("dave").failed, person("dave").flying) == (1, 1)
    other.right()
    assert (person("dave").failed, person("dave").flying) == (1, 0)


# --- Not to be turned against its owner -------------------------------------------------------------------------------


@pytest.mark.asvs("6.1.1")
def test_a_stranger_cannot_shut_the_owner_out_of_a_known_browser(cast: dict[str, User], visitor: Open) -> None:
    own = visitor("dave")
    guess(visitor, "dave", 20)
    assert person("dave").locked_at
    own.post(portal_url("/logout/"))
    own.sign_in("dave", PASSWORD)
    assert own.is_in()
    assert person("dave").locked_at  # for strangers it stays shut


def test_a_known_browser_has_ten_tries_of_its_own(cast: dict[str, User], visitor: Open) -> None:
    own = visitor("dave")
    own.post(portal_url("/logout/"))
    for _ in range(10):
        own.sign_in("dave", "wrong")
    own.sign_in("dave", PASSWORD)
    assert not own.is_in()
    assert visitor("dave").is_in()
    assert not Bucket.objects.filter(kind="address", failed__gt=0).exists()


def test_a_known_browser_is_known_for_its_own_person_only(cast: dict[str, User], visitor: Open) -> None:
    shared = visitor("mallory")
    shared.post(portal_url("/logout/"))
    for _ in range(6):
        shared.sign_in("dave", "wrong")
    assert person("dave").locked_at
    assert not Bucket.objects.filter(kind="device", user=cast["dave"]).exists()
    shared.sign_in("dave", PASSWORD)
    assert not shared.is_in()


def test_a_made_up_device_cookie_makes_nothing_known(cast: dict[str, User], visitor: Open) -> None:
    for value in (f"{cast['dave'].pk}.{'x' * 43}", "~".join(["1.x"] * 9), "\x00", "9" * 400, f"{cast['dave'].pk}." + "é" * 43):
        liar = visitor()
        liar.cookies.append(Cookie("device", value, "login.portal.localhost", host_only=True))
        liar.sign_in("dave", "wrong")
    assert person("dave").failed == 5


@pytest.mark.asvs("6.1.1")
def test_a_full_office_address_stops_strangers_and_no_known_browser(cast: dict[str, User], visitor: Open) -> None:
    known_one = visitor("dave")
    known_one.post(portal_url("/logout/"))
    for n in range(50):
        visitor().sign_in(f"nobody{n}", "wrong")
    answer = visitor().sign_in("alice", PASSWORD)
    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= 600
    assert "Too many attempts" in answer.content.decode()
    api = visitor().post_json(portal_url("/api/v1/login"), json.dumps({"username": "alice", "password": PASSWORD}))
    assert (api.status_code, api.json()) == (429, {"error": "Too many attempts"})
    known_one.sign_in("dave", PASSWORD)
    assert known_one.is_in()
    elsewhere = visitor(address="203.0.113.9")
    elsewhere.sign_in("alice", PASSWORD)
    assert elsewhere.is_in()
    later(minutes=11)
    assert visitor("alice").is_in()


def test_a_full_address_says_the_same_of_everybody(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5, address="203.0.113.9")
    for n in range(50):
        visitor().sign_in(f"nobody{n}", "wrong")
    assert {visitor().sign_in(name, "wrong").status_code for name in ("dave", "alice", "nobody", "nobody1")} == {429}


def test_ipv6_is_counted_by_its_network(cast: dict[str, User], visitor: Open) -> None:
    for n in range(50):
        visitor(address=f"2001:db8:1:2::{n:x}").sign_in(f"nobody{n}", "wrong")
    assert visitor(address="2001:db8:1:2:ffff::1").sign_in("alice", PASSWORD).status_code == 429
    assert visitor(address="2001:db8:1:3::1").sign_in("alice", PASSWORD).status_code == 200
    assert [row.network for row in Bucket.objects.filter(kind="address", locked_at__isnull=False)] == ["2001:db8:1:2::/64"]
    guess(visitor, "bob", 1, address="::ffff:203.0.113.5")
    assert Bucket.objects.filter(network="203.0.113.5").exists()


def test_a_name_that_looks_like_an_address_fills_no_bucket_of_an_address(cast: dict[str, User], visitor: Open) -> None:
    for _ in range(6):
        visitor(address="203.0.113.7").sign_in("127.0.0.1", "wrong")
    assert not Bucket.objects.filter(kind="address", network="127.0.0.1").exists()


def test_the_strictest_tenant_sets_the_number_of_tries(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    acme.policy = {"tries": 3}
    acme.save()
    guess(visitor, "dave", 3)
    guess(visitor, "carol", 3)
    assert person("dave").locked_at
    assert not person("carol").locked_at


@pytest.mark.asvs("6.3.7")
def test_known_browsers_are_dead_when_the_password_changes(cast: dict[str, User], visitor: Open) -> None:
    dave, request = visitor("dave"), RequestFactory().get("/")
    request.COOKIES["device"] = next(cookie.value for cookie in dave.cookies if cookie.name == "device")
    assert known.device_of(request, cast["dave"])
    sessions.change_password(User.objects.get(username="dave"), "three little words", by=None, request=None)
    assert known.device_of(request, cast["dave"]) is None


def test_a_person_has_at_most_twenty_known_browsers_and_a_browser_five_people(cast: dict[str, User], visitor: Open) -> None:
    for _ in range(22):
        visitor("dave")
    assert KnownDevice.objects.filter(user=cast["dave"]).count() == 20
    shared = visitor()
    for name in ("alice", "bob", "carol", "dave", "olivia", "mallory"):
        shared.sign_in(name, PASSWORD)
    value = next(cookie.value for cookie in shared.cookies if cookie.name == "device")
    assert len(value.split("~")) == 5
    assert str(cast["alice"].pk) not in re.findall(r"(?:^|~)(\d+)\.", value)


@pytest.mark.asvs("3.3.1", "3.3.2", "3.3.3", "3.3.4")
def test_the_device_cookie_is_host_only_and_out_of_reach(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    answer = visitor().sign_in("dave", PASSWORD)
    assert answer.status_code == 200
    browser = visitor()
    browser.get(portal_url("/login/"))
    page = browser.post(portal_url("/login/"), {"username": "dave", "password": PASSWORD}, follow=False)
    line = page.cookies["__Host-device"].OutputString()
    assert re.fullmatch(
        r"__Host-device=\d+\.[A-Za-z0-9_-]{43}; expires=[^;]+; HttpOnly; Max-Age=34560000; Path=/; SameSite=Lax; Secure", line
    ), line


# --- Bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.7")
def test_what_says_nothing_any_more_is_pruned(cast: dict[str, User], visitor: Open) -> None:
    visitor("alice")
    guess(visitor, "dave", 2)
    guess(visitor, "nobody", 2)
    later(hours=25)
    guess(visitor, "bob", 5, address="203.0.113.9")
    assert ledger.prune(dry_run=True) == 3
    assert ledger.prune() == 3  # alice's empty one, the unknown name's, the old address's
    assert set(Bucket.objects.values_list("user__username", "kind", "failed")) == {
        ("dave", "person", 2),  # a person's count is kept until a complete sign-in
        ("bob", "person", 5),
        (None, "address", 5),
    }


def test_a_release_needs_a_reason_and_opens_what_it_names(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    guess(visitor, "alice", 5)
    done = ledger.release_person(cast["dave"], by=cast["erin"], reason="he called from his desk")
    assert [row.user for row in done] == [cast["dave"]]
    assert visitor("dave").is_in()
    assert not visitor("alice").is_in()
    event = Event.objects.get(kind="lockout_released")
    assert (event.actor, event.subject, event.data["reason"]) == (cast["erin"], cast["dave"], "he called from his desk")
    assert event.data["before"]["failed"] == 5


def test_explain_tells_the_state_of_this_moment(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    told = ledger.explain("DAVE@acme.example")
    assert [(each.bucket.kind, each.bucket.failed, each.limit, each.is_locked) for each in told] == [("person", 5, 5, True)]
    later(seconds=61)
    assert [each.is_locked for each in ledger.explain("dave")] == [False]
    assert ledger.explain("nobody at all") == []
    assert [each.bucket.network for each in ledger.explain("127.0.0.1")] == ["127.0.0.1"]


def test_an_exception_later_in_the_request_takes_nothing_back(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    browser = visitor()
    browser.get(portal_url("/login/"))
    monkeypatch.setattr("portal.views.login.render", broken)
    with pytest.raises(RuntimeError):
        browser.post(portal_url("/login/"), {"username": "dave", "password": "wrong"})
    assert person("dave").failed == 1


@pytest.mark.django_db(transaction=True)
def test_a_check_inside_a_transaction_that_could_be_rolled_back_is_refused(django_db_setup: None) -> None:
    from django.db import transaction

    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        ledger.for_password(RequestFactory().get("/"), "dave")


def test_links_are_counted_by_address(cast: dict[str, User], visitor: Open) -> None:
    address = links.make(Link.Purpose.PASSWORD, cast["dave"])
    for n in range(50):
        assert visitor().get(portal_url(f"/password/reset/{n:043d}/")).status_code == 404
    assert visitor().get(address).status_code == 429
    assert visitor(address="203.0.113.9").get(address).status_code == 200
    assert timezone.now() - Bucket.objects.get(kind="address", failed=50).touched_at < timedelta(minutes=1)
