"""Trusted browsers: what they stand in for, and when that ends."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone
from django_otp.decorators import otp_required

from identity import factors, known, sessions
from identity.models import KnownDevice, Session, TotpDevice, User
from identity.sessions import Verdict, admission
from tenants.models import Tenant
from tests.browser.agents import IPHONE
from tests.conftest import PASSWORD
from tests.phone import PAGE, asks, code_of, enrol, first_code, half_way, hidden, is_asked, said, sign_out
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.fixture
def dave(cast: dict[str, User], visitor: Open) -> Visitor:
    """Dave's own browser, in which he has just set his phone up."""
    browser = visitor("dave")
    enrol(browser, "dave")
    return browser


def trust(browser: Visitor, name: str = "dave") -> Visitor:
    """Sign in with the box ticked."""
    half_way(browser, name)
    browser.type_code(name, trust="on")
    assert browser.is_in()
    return browser


def test_a_trusted_browser_stands_in_for_the_code_of_its_own_person(dave: Visitor, visitor: Open, cast: dict[str, User]) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(cast["carol"]).pk).update(confirmed=True, name="Phone")
    browser = trust(visitor())
    sign_out(browser)
    assert is_asked(browser, "carol")
    sign_out(browser)
    assert not is_asked(browser)
    assert browser.session().methods == ["pwd", "trusted"]
    assert browser.session().proved_at is None  # nothing was typed: what is dangerous asks
    assert not sessions.is_fresh(browser.session())
    browser.get(portal_url("/account/sessions/"))
    assert "Trusted browser" in said(browser)
    assert is_asked(visitor())  # any other browser
    stolen = visitor()
    stolen.cookies = [
        Cookie(c.name, c.value.replace(f"{cast['dave'].pk}.", f"{cast['carol'].pk}."), c.domain, c.host_only)
        for c in browser.cookies
        if c.name == "device"
    ]
    assert is_asked(stolen, "carol")


@pytest.mark.asvs("6.5.6")
@pytest.mark.parametrize("change", ["password", "one more", "one less", "reset", "revoked", "thirty days"])
def test_the_trust_ends(dave: Visitor, visitor: Open, change: str, cast: dict[str, User]) -> None:
    browser, person = trust(visitor()), cast["dave"]
    dave.sign_in("dave", PASSWORD)
    if change == "password":
        dave.post(
            portal_url("/account/password/"),
            {"old_password": PASSWORD, "new_password1": "three little words", "new_password2": "three little words"},
        )
        person.refresh_from_db()
        person.set_password(PASSWORD)
        User.objects.filter(pk=person.pk).update(password=person.password)
    elif change == "one more":
        dave.get(portal_url(f"{PAGE}add/"))
        dave.post(dave.url, {"code": first_code("dave")})
    elif change == "one less":
        spare = factors.enrolment(person)
        TotpDevice.objects.filter(pk=spare.pk).update(confirmed=True, name="Spare")
        dave.post(portal_url(f"{PAGE}{spare.pk}/remove/"))
    elif change == "reset":
        factors.reset(person, by=None, reason="lost")
        TotpDevice.objects.filter(pk=factors.enrolment(person).pk).update(confirmed=True, name="Phone")
    elif change == "revoked":
        dave.get(portal_url(PAGE))
        dave.post(portal_url(f"{PAGE}browsers/revoke"), {"id": known.trusted(person)[0].pk})
        assert "no longer trusted" in said(dave)
    else:
        KnownDevice.objects.update(trusted_until=timezone.now() - timedelta(seconds=1))
    sign_out(browser)
    assert is_asked(browser)


def test_the_list_of_trusted_browsers_says_which_one_this_is_and_ends_one(dave: Visitor, visitor: Open, cast: dict[str, User]) -> None:
    dave.get(portal_url(PAGE))
    assert "None. Tick “Don’t ask for a code on this browser”" in said(dave)
    phone = trust(visitor(user_agent=IPHONE, address="198.51.100.7"))
    phone.get(portal_url(PAGE))
    assert "Safari 18 on iPhone This browser 198.51.100.7 trusted since just now until" in said(phone)
    dave.sign_in("dave", PASSWORD)
    dave.get(portal_url(PAGE))
    assert "Safari 18 on iPhone 198.51.100.7" in said(dave)
    (row,) = known.trusted(cast["dave"])
    carol = visitor("carol")
    carol.post(portal_url(f"{PAGE}browsers/revoke"), {"id": row.pk})  # somebody else's is not there
    assert known.trusted(cast["dave"]) == [row]
    for wrong in ("", "x", "9" * 30, "-1"):
        assert dave.post(portal_url(f"{PAGE}browsers/revoke"), {"id": wrong}).status_code == 404
    dave.post(portal_url(f"{PAGE}browsers/revoke"), {"id": row.pk})
    assert known.trusted(cast["dave"]) == []
    dave.post(portal_url(f"{PAGE}browsers/revoke"), {"id": row.pk})
    assert "That browser was not trusted any more." in said(dave)


@pytest.mark.asvs("6.3.3")
def test_an_operators_browser_is_never_trusted(cast: dict[str, User], visitor: Open) -> None:
    browser = half_way(visitor(), "erin")
    assert "Don’t ask for a code" not in said(browser)
    browser.type_code("erin", trust="on")
    assert known.trusted(cast["erin"]) == []
    KnownDevice.objects.update(trusted_until=timezone.now() + timedelta(days=1))
    sign_out(browser)
    assert is_asked(browser, "erin")


def test_a_tenant_that_forbids_trusted_browsers_asks_all_the_same(dave: Visitor, visitor: Open, acme: Tenant) -> None:
    asks(acme, trusted_browsers=False)
    browser = trust(visitor())
    sign_out(browser)
    assert not is_asked(browser)
    assert admission(browser.session(), "acme").verdict is Verdict.PROVE
    browser.get(tenant_url("acme"))
    assert browser.url.startswith(portal_url("/step-up/"))
    assert "Acme asks for a code in every browser, trusted ones too." in said(browser)
    browser.post(browser.url, {"password": PASSWORD, "code": code_of("dave"), "next": hidden(browser, "next")})
    assert browser.is_in("acme")
    browser.get(portal_url(PAGE))
    assert "Acme asks all the same." in said(browser)
    on_the_way = half_way(visitor(), target="/enter/acme/")
    assert "Don’t ask for a code" not in said(on_the_way)
    assert "Don’t ask for a code" in said(half_way(visitor(), target="/enter/globex/"))


def test_only_a_code_that_was_typed_verifies_a_person(dave: Visitor) -> None:
    """django-otp's decorator works in code that comes from elsewhere. A recovery code counts, a trusted browser does not."""

    @otp_required
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("verified")

    for method, verified in (("pwd", False), ("otp", True), ("recovery", True), ("trusted", False)):
        Session.objects.filter(pk=dave.session().pk).update(methods=["pwd", method])
        request = RequestFactory().get("/x/", headers={"Cookie": f"portal={dave.key('login.portal.localhost')}"})
        (row,) = sessions.live([dave.key("login.portal.localhost")], None)
        request.user = row.user
        request.user.methods = tuple(row.methods)  # as the middleware does
        assert request.user.is_verified() is verified
        assert (view(request).status_code == 200) is verified, method
