"""Attacks on second factors, step-up and known browsers that once worked, or nearly did."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from identity import clock, factors, known, sessions
from identity.models import Bucket, Event, KnownDevice, RecoveryCode, Session, TotpDevice, User
from tenants.models import Tenant
from tests import phone
from tests.conftest import PASSWORD
from tests.test_interleavings import at_once  # noqa: F401  (a fixture)
from tests.visitor import Visitor, portal_url

pytestmark = pytest.mark.django_db(transaction=True)
Open = Callable[..., Visitor]
PAGE = "/account/two-factor/"


def enrol(browser: Visitor, name: str) -> None:
    browser.get(portal_url(PAGE))
    browser.post(portal_url(PAGE), {"code": phone.first_code(name)})


@pytest.mark.asvs("6.5.3")
def test_who_has_found_out_the_password_does_not_see_the_key_that_the_owner_will_turn_on(cast: dict[str, User], visitor: Open) -> None:
    thief, owner = visitor("mallory"), visitor("mallory")
    keys = []
    for browser in (thief, owner):
        browser.get(portal_url(PAGE))
        keys.append(phone.key_on(browser))
    assert keys[0] != keys[1]
    sessions.change_password(User.objects.get(username="mallory"), "a wholly new pass phrase", by=None, request=None)
    assert not TotpDevice.objects.filter(user=cast["mallory"]).exists()


def test_a_password_that_was_being_checked_while_a_factor_came_opens_nothing(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = visitor("mallory")
    owner.get(portal_url(PAGE))
    code = phone.first_code("mallory")
    asked = factors.has_factor

    def before_it_came(user: User) -> bool:
        monkeypatch.setattr(factors, "has_factor", asked)
        owner.post(portal_url(PAGE), {"code": code}, follow=False)
        assert asked(user)
        return False

    thief = visitor()
    thief.get(portal_url("/login/"))
    monkeypatch.setattr("portal.views.login.factors.has_factor", before_it_came)
    thief.post(portal_url("/login/"), {"username": "mallory", "password": PASSWORD}, follow=False)
    assert not thief.is_in()
    assert owner.is_in()


def test_recovery_codes_asked_for_by_a_session_that_ends_are_not_made(
    cast: dict[str, User],
    visitor: Open,
    at_once: Any,  # noqa: F811
) -> None:
    mallory = visitor("mallory")
    enrol(mallory, "mallory")
    mallory.get(portal_url(f"{PAGE}codes/"))
    newest = str(factors.newest_recovery_code(cast["mallory"]))
    with at_once.holding(User.objects.filter(pk=cast["mallory"].pk)):
        reset = at_once.start(lambda: factors.reset(User.objects.get(pk=cast["mallory"].pk), by=None, reason="lost"))
        asked = at_once.start(lambda: mallory.post(portal_url(f"{PAGE}codes/"), {"newest": newest}, follow=False))
    reset.result(20)
    asked.result(20)
    assert not RecoveryCode.objects.filter(user=cast["mallory"]).exists()


def test_codes_from_before_a_first_authenticator_are_worthless(cast: dict[str, User], visitor: Open) -> None:
    planted = factors.make_recovery_codes(cast["mallory"])
    owner = visitor("mallory")
    enrol(owner, "mallory")
    shown = phone.codes_on(owner)
    assert len(shown) == 10
    assert not set(shown) & set(planted)
    assert RecoveryCode.objects.filter(user=cast["mallory"]).count() == 10


@pytest.mark.asvs("7.5.3")
def test_nothing_is_done_for_a_session_that_ends_while_it_proves_itself(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(visitor("mallory"), "mallory")
    erin = visitor("erin")
    Session.objects.filter(user=cast["erin"]).update(proved_at=clock.now() - timedelta(hours=1))
    prove_again = sessions.prove_again

    def ended_meanwhile(portal: Session, **more: Any) -> bool:
        sessions.end_everywhere(User.objects.get(username="erin"), by=None, reason=Session.Reason.BY_OPERATOR)
        return prove_again(portal, **more)

    monkeypatch.setattr(sessions, "prove_again", ended_meanwhile)
    TotpDevice.objects.filter(user=cast["erin"]).update(last_step=-1)
    fields = {"username": "mallory", "reason": "x", "sure": "1", "proof-password": PASSWORD, "proof-code": phone.code_of("erin")}
    erin.post(portal_url("/console/platform/factors/"), fields, follow=False)
    assert TotpDevice.objects.filter(user=cast["mallory"], confirmed=True).exists()


@pytest.mark.asvs("8.4.2")
def test_an_operator_without_a_second_factor_sees_no_tenant(cast: dict[str, User], visitor: Open) -> None:
    TotpDevice.objects.filter(user=cast["erin"]).delete()
    erin = visitor("erin")
    erin.get(portal_url("/console/"))
    assert erin.url.startswith(portal_url(PAGE))
    assert "Globex" not in erin.page.content.decode()


@pytest.mark.asvs("2.4.1")
def test_what_anybody_can_cause_fills_no_log(cast: dict[str, User], visitor: Open) -> None:
    stranger = visitor(address="203.0.113.9")
    for _ in range(120):
        stranger.post_json(portal_url("/api/v1/login"), "{}", HTTP_ORIGIN="https://evil.example")
    assert Event.objects.filter(kind="csrf_refused").count() == 50
    visitor(address="203.0.113.10").post_json(portal_url("/api/v1/login"), "{}", HTTP_ORIGIN="https://evil.example")
    assert Event.objects.filter(kind="csrf_refused").count() == 51


def test_trust_that_the_page_does_not_offer_is_not_given(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    acme.policy = {"second_factor": "everyone", "trusted_browsers": False}
    acme.save()
    enrol(visitor("alice"), "alice")
    browser = visitor()
    browser.get(portal_url("/login/"))
    browser.post(portal_url("/login/"), {"username": "alice", "password": PASSWORD})
    assert b'name="trust"' not in browser.page.content
    browser.type_code("alice", trust="on")
    assert browser.is_in()
    assert not known.trusted(cast["alice"])


def test_a_browser_that_is_forgotten_in_this_very_moment_is_no_500(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = visitor("alice")
    found = known.device_of

    def gone(request: Any, user: User | None) -> KnownDevice | None:
        device = found(request, user)
        KnownDevice.objects.filter(pk=device.pk if device else 0).delete()
        return device

    monkeypatch.setattr(known, "device_of", gone)
    Bucket.objects.all().delete()
    answer = alice.post_json(portal_url("/api/v1/login"), json.dumps({"username": "alice", "password": PASSWORD}))
    assert answer.status_code == 200


def test_sign_ins_without_a_cookie_push_no_trusted_browser_out(cast: dict[str, User], visitor: Open) -> None:
    enrol(visitor("mallory"), "mallory")
    own = visitor()
    own.get(portal_url("/login/"))
    own.post(portal_url("/login/"), {"username": "mallory", "password": PASSWORD})
    own.type_code("mallory", trust="on")
    for _ in range(22):
        visitor("mallory")
    assert len(known.trusted(cast["mallory"])) == 1
    assert settings.DEVICE_COOKIE_NAME in {cookie.name for cookie in own.cookies}
