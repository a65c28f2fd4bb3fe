"""Who asks for a second factor: tenants, of everyone or of admins, after days of grace; operators, always. And how it is carried on."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from identity import factors, sessions
from identity.models import User
from tenants.models import Membership, Tenant
from tests.conftest import PASSWORD
from tests.phone import PAGE, asks, codes_on, enrol, first_code, half_way, hidden, is_asked, said, source
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.fixture
def dave(cast: dict[str, User], visitor: Open) -> Visitor:
    """Dave's own browser, in which he has just set his phone up."""
    browser = visitor("dave")
    enrol(browser, "dave")
    return browser


@pytest.mark.asvs("6.3.3")
def test_a_tenant_that_asks_everyone_leads_through_the_enrolment_and_on(acme: Tenant, visitor: Open) -> None:
    asks(acme)
    alice = visitor()
    alice.get(tenant_url("acme", "/welcome/"))
    alice.get(tenant_url("acme"))
    alice.post(f"{portal_url('/login/')}?{urlsplit(alice.url).query}", {"username": "alice", "password": PASSWORD})
    assert alice.url.startswith(portal_url(f"{PAGE}?next=%2Fenter%2Facme%2F"))
    assert "Acme asks for a second factor." in said(alice)
    assert 'data-brand="acme"' in source(alice)
    assert not alice.is_in("acme")
    alice.post(alice.url, {"code": "000000", "next": hidden(alice, "next")})
    assert "That code is not right" in said(alice)
    alice.post(alice.url, {"code": first_code("alice"), "next": hidden(alice, "next")})
    assert len(codes_on(alice)) == 10
    onward = re.search(r'href="([^"]+)">Continue to Acme<', alice.page.content.decode())
    assert onward
    alice.get(html.unescape(onward[1]))
    assert alice.url == tenant_url("acme")
    assert alice.is_in("acme")
    assert alice.session("acme").methods == ["pwd", "otp"]


def test_every_door_of_a_tenant_that_asks_is_shut_until_then(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    asks(acme)
    bob.get(tenant_url("acme"))
    assert bob.url.startswith(portal_url(PAGE))
    bob.get(portal_url("/console/acme/sessions/"))
    assert bob.url == portal_url(f"{PAGE}?next=%2Fconsole%2Facme%2Fsessions%2F")
    assert "Acme asks for a second factor." in said(bob)
    enrolled = bob.post(bob.url, {"code": first_code("bob"), "next": hidden(bob, "next")})
    assert 'href="/console/acme/sessions/">Continue to the console<' in enrolled.content.decode()
    assert bob.get(portal_url("/console/acme/sessions/")).status_code == 200
    # A tab from before finds the way on as well.
    bob.get(portal_url(f"{PAGE}?next=%2Fconsole%2Facme%2Fsessions%2F"))
    assert "Continue to the console" in said(bob)


def test_a_tenant_may_ask_its_admins_only(acme: Tenant, visitor: Open) -> None:
    asks(acme, second_factor="admins")
    assert visitor("alice", at="acme").is_in("acme")
    for name in ("bob", "olivia"):
        browser = visitor(name, at="acme")
        assert browser.url.startswith(portal_url(PAGE)), name
        assert not browser.is_in("acme")


def test_days_of_grace_remind_once_a_session_and_then_end(acme: Tenant, visitor: Open) -> None:
    asks(acme, grace_days=9)
    Membership.objects.update(created_at=timezone.now())
    alice = visitor("alice", at="acme")
    due = timezone.now() + timedelta(days=9)
    assert f"Acme asks for a second factor from {due.day} {due:%B} on" in said(alice)
    later = re.search(r'href="([^"]+)">Later, go on to Acme<', alice.page.content.decode())
    assert later
    alice.get(html.unescape(later[1]))
    assert alice.is_in("acme")
    alice.get(portal_url("/account/two-factor/?next=%2Fenter%2Facme%2F"))
    assert f"Acme asks for a second factor from {due.day} {due:%B} on." in said(alice)
    Tenant.objects.update(factor_since=timezone.now() - timedelta(days=10))
    Membership.objects.update(created_at=timezone.now() - timedelta(days=10))
    assert visitor("alice", at="acme").url.startswith(portal_url(PAGE))


@pytest.mark.asvs("6.3.3")
def test_an_operator_without_a_factor_finds_every_console_shut(cast: dict[str, User], visitor: Open) -> None:
    factors.reset(cast["erin"], by=None, reason="phone lost")
    erin = visitor("erin")
    assert erin.is_in()
    erin.get(portal_url("/console/acme/sessions/"))
    assert erin.url.startswith(portal_url(PAGE))
    assert "Operators always have a second factor." in said(erin)
    enrol(erin, "erin")
    assert erin.get(portal_url("/console/acme/sessions/")).status_code == 200


@pytest.mark.asvs("7.6.1")
def test_a_hand_off_carries_how_the_session_was_proven(dave: Visitor, visitor: Open) -> None:
    codes = factors.make_recovery_codes(User.objects.get(username="dave"))
    by_app = half_way(visitor())
    by_app.type_code("dave", trust="on")
    by_code = half_way(visitor())
    by_code.post(by_code.url, {"code": codes[0]})
    trusted = visitor()
    trusted.cookies = [cookie for cookie in by_app.cookies if cookie.name == "device"]
    assert not is_asked(trusted)
    for browser, method in ((by_app, "otp"), (by_code, "recovery"), (trusted, "trusted")):
        browser.get(tenant_url("acme"))
        branch = browser.session("acme")
        assert branch.methods == browser.session().methods == ["pwd", method]
        assert branch.proved_at == browser.session().proved_at
        assert branch.expires_at <= browser.session().expires_at
    console = visitor("bob")
    console.get(portal_url("/console/acme/sessions/?q=dave"))
    for badge in ("Password + code", "Recovery code", "Trusted browser"):
        assert badge in said(console)


def test_setting_one_up_proves_the_branches_that_are_open(acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    enrol(dave, "dave")
    assert dave.session("acme").methods == ["pwd", "otp"]
    asks(acme)
    assert sessions.end_unproven(acme) == []
    assert dave.is_in("acme")
