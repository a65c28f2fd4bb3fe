"""Between password and code: the half-way state, the page that asks, and the same in JSON."""

import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import pytest

from identity import factors, sessions
from identity.models import Bucket, KnownDevice, Session, TotpDevice, User
from tenants.models import Membership, Tenant
from tests.conftest import PASSWORD
from tests.phone import PAGE, code_of, enrol, half_way, hidden, said, source
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.fixture
def dave(cast: dict[str, User], visitor: Open) -> Visitor:
    """Dave's own browser, in which he has just set his phone up."""
    browser = visitor("dave")
    enrol(browser, "dave")
    return browser


@pytest.mark.asvs("6.3.3")
def test_the_half_way_state_opens_nothing_but_the_code_page(dave: Visitor, visitor: Open) -> None:
    Session.objects.all().delete()
    browser = half_way(visitor())
    assert Session.objects.count() == 0
    for path in ("/", "/account/", "/account/sessions/", PAGE, f"{PAGE}add/", "/console/", "/step-up/", "/account/password/"):
        browser.get(portal_url(path))
        assert browser.url == portal_url(f"/login/?next={quote(path, safe='')}"), path
    assert not browser.is_in()
    browser.get(tenant_url("acme"))
    assert not browser.is_in("acme")
    assert Session.objects.count() == 0
    assert KnownDevice.objects.filter(user__username="dave", revoked_at=None).count() == 0
    browser.get(portal_url("/login/code/"))
    assert browser.url == portal_url("/login/code/")  # it is still there


@pytest.mark.asvs("3.3.1", "3.3.2", "3.3.4")
def test_the_cookie_between_password_and_code_by_its_whole_text(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(cast["dave"]).pk).update(confirmed=True, name="Phone")
    browser = visitor()
    browser.get(portal_url("/login/"))
    response = browser.post(portal_url("/login/"), {"username": "dave", "password": PASSWORD}, follow=False)
    line = response.cookies["__Host-half-way"].OutputString()
    assert re.fullmatch(r'__Host-half-way="?[\w:.=-]+"?; expires=[^;]+; HttpOnly; Max-Age=300; Path=/; SameSite=Lax; Secure', line), line
    assert "__Host-portal" not in response.cookies
    browser.get(portal_url("/login/code/"))
    done = browser.post(portal_url("/login/code/"), {"code": code_of("dave")}, follow=False)
    assert done.cookies["__Host-half-way"].OutputString() == (
        '__Host-half-way=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax; Secure'
    )


def test_the_half_way_state_lasts_five_minutes(dave: Visitor, visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, now = half_way(visitor(), target="/account/"), time.time()
    assert re.search(r"This step ends at \d\d:\d\d UTC , five minutes after your password\.", said(browser))
    monkeypatch.setattr("django.core.signing.time.time", lambda: now + 301)
    browser.type_code("dave")
    monkeypatch.undo()
    assert browser.url == portal_url("/login/?next=%2Faccount%2F&late=1")
    assert "The step for the code is over: it lasts five minutes. Start again with your password." in said(browser)
    assert not browser.is_in()
    assert not [cookie for cookie in browser.cookies if cookie.name == "half-way"]


@pytest.mark.parametrize("change", ["password", "everything ended", "deactivated", "factors"])
def test_what_happens_to_the_account_meanwhile_voids_the_password(dave: Visitor, visitor: Open, change: str) -> None:
    browser, person = half_way(visitor()), User.objects.get(username="dave")
    code = code_of("dave")
    if change == "password":
        sessions.change_password(person, "three little words", by=person, request=None)
    elif change == "everything ended":
        sessions.end_everywhere(person, by=None, reason=Session.Reason.BY_OPERATOR)
    elif change == "factors":
        factors.reset(person, by=None, reason="lost")
    else:
        User.objects.filter(pk=person.pk).update(is_active=False)
    browser.post(browser.url, {"code": code})
    assert browser.url == portal_url("/login/?late=1")
    assert not browser.is_in()


def test_the_half_way_state_of_another_browser_is_worth_nothing_without_its_code(dave: Visitor, visitor: Open) -> None:
    browser, thief = half_way(visitor()), visitor()
    (cookie,) = [each for each in browser.cookies if each.name == "half-way"]
    for value in (cookie.value[:-2] + "xx", "x" * 2000, "", "1:2:3"):
        thief.cookies = [Cookie("half-way", value, cookie.domain, host_only=True)]
        thief.get(portal_url("/login/code/"))
        assert thief.url.startswith(portal_url("/login/")), value
        assert "code" not in urlsplit(thief.url).path


def test_a_tab_that_began_for_somebody_else_is_told_so(dave: Visitor, visitor: Open, cast: dict[str, User]) -> None:
    browser = half_way(visitor())
    mark, code = hidden(browser, "mark"), code_of("dave")
    half_way(browser, "erin")
    browser.post(portal_url("/login/code/"), {"code": code, "mark": mark})
    assert "Another tab of this browser has begun to sign erin in." in said(browser)
    assert not browser.is_in()
    assert not Bucket.objects.filter(kind="factor", failed__gt=0).exists()
    browser.type_code("erin")
    assert browser.session().user == cast["erin"]


def test_the_wrong_person_can_start_again(dave: Visitor, visitor: Open) -> None:
    browser = half_way(visitor(), target="/account/")
    assert "Not dave? Start again" in said(browser)
    browser.post(browser.url, {"cancel": "1", "next": "/account/"})
    assert browser.url == portal_url("/login/?next=%2Faccount%2F")
    assert not [cookie for cookie in browser.cookies if cookie.name == "half-way"]
    browser.get(portal_url("/login/code/"))
    assert browser.url.startswith(portal_url("/login/?late=1"))


def test_who_lost_the_phone_finds_the_recovery_codes_and_then_people(dave: Visitor, visitor: Open, acme: Tenant) -> None:
    browser = half_way(visitor(), target="/enter/acme/")
    assert "Lost your phone?" in said(browser)
    browser.get(portal_url("/login/code/?lost=1&next=%2Fenter%2Facme%2F"))
    assert "Enter a recovery code" in said(browser)
    assert 'href="mailto:it@acme.example"' in source(browser)
    field = re.search(r'<input[^>]*name="code"[^>]*>', source(browser))
    assert field
    assert "numeric" not in field[0]
    assert "pattern" not in field[0]
    # Who is bound for nowhere: of the only place there is, or none.
    browser = half_way(visitor())
    browser.get(portal_url("/login/code/?lost=1"))
    assert "Turn to the people who run the places you belong to." in said(browser)
    Membership.objects.filter(user__username="dave", tenant__slug="globex").delete()
    browser.get(portal_url("/login/code/?lost=1"))
    assert "it@acme.example" in said(browser)
    half_way(browser, "erin")
    browser.get(portal_url("/login/code/?lost=1"))
    assert "Turn to another operator of this portal." in said(browser)


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_takes_the_code_with_the_password_or_in_the_next_request(dave: Visitor, visitor: Open) -> None:
    url, login = portal_url("/api/v1/login"), {"username": "dave", "password": PASSWORD}
    at_once = visitor()
    answer = at_once.post_json(url, json.dumps({**login, "code": code_of("dave")}))
    assert (answer.status_code, answer.json()) == (200, {"message": "Login successful"})
    assert at_once.is_in()
    assert at_once.session().methods == ["pwd", "otp"]
    in_two = visitor()
    answer = in_two.post_json(url, json.dumps(login))
    assert (answer.status_code, answer.json()) == (401, {"error": "Code required"})
    assert not in_two.is_in()
    answer = in_two.post_json(url, json.dumps({"code": "000000"}))
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid credentials"})
    answer = in_two.post_json(url, json.dumps({"code": code_of("dave")}))
    assert (answer.status_code, answer.json()) == (200, {"message": "Login successful"})
    assert in_two.is_in()
    stranger = visitor()
    answer = stranger.post_json(url, json.dumps({"code": code_of("dave")}))
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid credentials"})


def test_json_says_when_to_come_back_after_too_many_wrong_codes(dave: Visitor, visitor: Open) -> None:
    browser = visitor()
    browser.post_json(portal_url("/api/v1/login"), json.dumps({"username": "dave", "password": PASSWORD}))
    for _ in range(5):
        browser.post_json(portal_url("/api/v1/login"), json.dumps({"code": "000000"}))
    answer = browser.post_json(portal_url("/api/v1/login"), json.dumps({"code": code_of("dave")}))
    assert (answer.status_code, answer.json()) == (429, {"error": "Too many attempts"})
    assert 0 < int(answer["Retry-After"]) <= 60
