"""Signing up, in and out, the profile, the password, one's own sessions, and the one-time links."""

import json
import re
from collections.abc import Callable

import pytest
from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone
from django.views import View

from identity import links
from identity.models import Bucket, Event, Link, Session, User
from tenants.models import Tenant
from tests.conftest import password_is
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PASSWORD = "three little words"
NEW = {"username": "frank", "email": "frank@acme.example", "password": PASSWORD}


# --- Sign-up ------------------------------------------------------------------------------------------------------


def test_sign_up_makes_a_user_and_no_session(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    page = browser.post(portal_url("/signup/"), NEW)
    assert page.status_code == 201
    frank = User.objects.get(username="frank")
    assert password_is(frank, PASSWORD)
    assert frank.email_verified_at is None
    assert not browser.is_in()
    assert Session.objects.count() == 0


def test_sign_up_is_closed_unless_the_platform_opens_it(cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest) -> None:
    settings.SIGNUP = "closed"  # type: ignore[attr-defined]
    assert visitor().post(portal_url("/signup/"), NEW).status_code == 403
    answer = visitor().post_json(portal_url("/api/v1/signup"), json.dumps(NEW))
    assert answer.status_code == 403
    assert not User.objects.filter(username="frank").exists()


@pytest.mark.asvs("2.2.2")
@pytest.mark.parametrize(
    "changes",
    [
        {"username": "DAVE"},
        {"username": "da ve"},
        {"username": "dave@x"},
        {"username": ""},
        {"email": "no address"},
        {"password": "short"},
        {"password": "password123"},
        {"password": "1357924680"},
        {"password": "frank@acme.example"},
        {"username": "fr\x00ank"},
        {"username": "x" * 151},
        {"email": "a" * 300 + "@x.example"},
        {"password": "x" * 4097},
    ],
)
def test_a_sign_up_that_does_not_fit_makes_nothing_and_says_why(cast: dict[str, User], visitor: Open, changes: dict[str, str]) -> None:
    before = User.objects.count()
    page = visitor().post(portal_url("/signup/"), {**NEW, **changes})
    assert page.status_code in {200, 400}
    assert User.objects.count() == before
    if page.status_code == 200:
        assert re.search(r'class="(error|banner is-bad)', page.content.decode())


@pytest.mark.asvs("15.3.3", "8.2.3")
def test_fields_that_are_not_asked_for_are_not_taken(cast: dict[str, User], visitor: Open) -> None:
    extra = {"is_superuser": "on", "is_staff": "1", "email_verified_at": "2020-01-01", "epoch": "x", "id": "1", "valid_from": "2000-01-01"}
    visitor().post(portal_url("/signup/"), {**NEW, **extra})
    frank = User.objects.get(username="frank")
    assert (frank.is_superuser, frank.is_staff, frank.email_verified_at) == (False, False, None)
    dave = visitor("dave")
    dave.post(portal_url("/account/"), {"first_name": "David", "username": "root", "email": "x@y.example", **extra})
    person = User.objects.get(pk=cast["dave"].pk)
    assert (person.first_name, person.username, person.email, person.is_superuser) == ("David", "dave", "dave@acme.example", False)


# --- Users --------------------------------------------------------------------------------------------------------


def test_names_and_addresses_are_unique_without_case(cast: dict[str, User]) -> None:
    from django.db import transaction

    proven = {"email": "DAVE@acme.example", "email_verified_at": timezone.now()}
    for kwargs in ({"username": "Dave"}, {"username": "new", **proven}, {"username": "ＤＡＶＥ"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            User.objects.create_user(password=None, **kwargs)
    User.objects.create_user("noaddress")
    User.objects.create_user("noaddress2")


def test_the_full_name_with_the_user_name() -> None:
    assert User(username="dave", first_name="Dave", last_name="Vance").get_full_name_with_username() == "Dave Vance (dave)"
    assert User(username="dave").get_full_name_with_username() == "dave"


@pytest.mark.parametrize("typed", ["dave", "DAVE", " dave ", "dave@acme.example", "Dave@Acme.Example"])
def test_sign_in_by_name_or_verified_address_in_any_case(cast: dict[str, User], visitor: Open, typed: str) -> None:
    assert visitor(typed).is_in()


def test_an_unverified_address_signs_nobody_in(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(email_verified_at=None)
    assert not visitor("dave@acme.example").is_in()
    assert visitor("dave").is_in()


@pytest.mark.asvs("6.2.8")
def test_a_password_is_taken_as_it_is_typed(cast: dict[str, User], visitor: Open) -> None:
    dave = cast["dave"]
    dave.set_password(" Pässwörd with spaces ")
    dave.save()
    browser = visitor()
    for wrong in ("Pässwörd with spaces", " pässwörd with spaces ", " Pässwörd with spaces"):
        browser.sign_in("dave", wrong)
        assert not browser.is_in()
    browser.sign_in("dave", " Pässwörd with spaces ")
    assert browser.is_in()


# --- Sign-in ------------------------------------------------------------------------------------------------------


def neutral(page: HttpResponse) -> str:
    """A page without what differs on every answer: nonces and CSRF tokens."""
    return re.sub(r'nonce="[^"]+"|name="(csrfmiddlewaretoken|next)" value="[^"]*"', "", page.content.decode())


@pytest.mark.asvs("6.3.8")
def test_every_refusal_of_a_sign_in_looks_the_same(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="carol").update(is_active=False)
    unusable = cast["mallory"]
    unusable.set_unusable_password()
    unusable.save()
    pages = []
    for name, password in (
        ("alice", "wrong"), ("nobody", "wrong"), ("carol", "gatehouse-demo"), ("mallory", "x"), ("alice@acme.example", "wrong"),
    ):  # fmt: skip
        browser = visitor()
        browser.sign_in(name, password)
        pages.append((browser.page.status_code, neutral(browser.page).replace(f'value="{name}"', "")))
        assert not browser.is_in()
    for _ in range(6):
        visitor().sign_in("bob", "wrong")
    locked = visitor()
    locked.sign_in("bob", "gatehouse-demo")
    assert not locked.is_in()
    pages.append((locked.page.status_code, neutral(locked.page).replace('value="bob"', "")))
    assert len(set(pages)) == 1
    assert "That name and password do not match." in pages[0][1]


@pytest.mark.asvs("6.3.1")
def test_after_five_wrong_passwords_the_right_one_stays_out_in_every_spelling_and_on_every_path(
    cast: dict[str, User], visitor: Open
) -> None:
    inside = visitor("dave")
    for spelling in ("dave", "Dave", "DAVE", "dave@acme.example", " dave"):
        visitor().sign_in(spelling, "wrong")
    assert not visitor("dave").is_in()
    assert not visitor("Dave@acme.example").is_in()
    answer = visitor().post_json(portal_url("/api/v1/login"), json.dumps({"username": "dave", "password": "gatehouse-demo"}))
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid credentials"})
    assert visitor("alice").is_in()
    # A stranger shuts the owner out of no browser that he has signed in with before.
    inside.post(portal_url("/step-up/"), {"password": "gatehouse-demo"})
    assert "That password is not right." not in inside.page.content.decode()
    inside.sign_in("dave", "gatehouse-demo")
    assert inside.is_in()


def test_a_wrong_password_on_the_step_up_and_in_the_form_for_a_new_one_counts_too(cast: dict[str, User], visitor: Open) -> None:
    inside = visitor("dave")
    for _ in range(6):
        inside.post(portal_url("/step-up/"), {"password": "wrong"})
    for _ in range(4):
        inside.post(portal_url("/account/password/"), {"old_password": "x", "new_password1": PASSWORD, "new_password2": PASSWORD})
    inside.post(portal_url("/step-up/"), {"password": "gatehouse-demo"})
    assert "That password is not right." in inside.page.content.decode()
    assert inside.is_in()
    assert visitor("dave").is_in()  # another browser has tries of its own


@pytest.mark.asvs("16.2.5")
def test_the_ledger_stores_no_secret_and_no_typed_name(cast: dict[str, User], visitor: Open) -> None:
    from axes.models import AccessAttempt

    visitor().sign_in("my password in the name field", "my password")
    assert Bucket.objects.filter(kind="person", user=None, failed=1).exists()
    assert "my password" not in str([*Bucket.objects.values(), *Event.objects.values()])
    assert not AccessAttempt.objects.exists()


def test_remember_me_changes_lifetime_and_cookie(cast: dict[str, User], visitor: Open) -> None:
    short, long = visitor("dave"), visitor()
    long.sign_in("dave", "gatehouse-demo", remember=True)
    assert (short.session().expires_at - short.session().created_at).days == 1
    assert (long.session().expires_at - long.session().created_at).days == 30
    assert (long.session().idle_expires_at - long.session().created_at).days == 14


def test_somebody_with_one_place_goes_straight_there(cast: dict[str, User], visitor: Open) -> None:
    alice = visitor("alice")
    assert alice.page["Refresh"] == f"0;url={tenant_url('acme')}"
    alice.get(portal_url("/"))
    assert alice.url == tenant_url("acme")
    dave = visitor("dave")
    assert dave.url == portal_url("/")


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t//evil.example", "javascript:alert(1)", "http://x@evil.example/"],
)
@pytest.mark.asvs("3.7.2", "1.2.2", "3.7.3")
def test_a_hostile_next_leads_nowhere(cast: dict[str, User], visitor: Open, target: str) -> None:
    browser = visitor()
    browser.get(portal_url("/login/"))
    browser.post(portal_url("/login/"), {"username": "dave", "password": "gatehouse-demo", "next": target}, follow=False)
    assert browser.page.status_code in {302, 400}
    assert browser.page.get("Location", "/") == "/"


# --- Account ------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("1.1.2", "1.3.7")
def test_the_profile_is_saved_and_shown(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.post(portal_url("/account/"), {"first_name": "<b>Dave", "last_name": "{{7*7}}", "bio": "line\nline", "birth_date": "1990-05-04"})
    text = dave.page.content.decode()
    assert "&lt;b&gt;Dave" in text
    assert "{{7*7}}" in text
    assert '"1990-05-04"' in text
    event = Event.objects.get(kind="profile_changed")
    assert event.data == {"fields": ["first_name", "last_name", "bio", "birth_date"]}


@pytest.mark.asvs("8.2.3")
def test_the_birth_date_is_on_no_other_page(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme").post(portal_url("/account/"), {"birth_date": "1990-05-04", "bio": "Secret bio"})
    bob = visitor("bob")
    for url in ("/console/acme/sessions/?q=dave", "/console/"):
        text = bob.get(portal_url(url)).content.decode()
        assert "1990" not in text
        assert "Secret bio" not in text


def test_a_wrong_current_password_changes_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.post(portal_url("/account/password/"), {"old_password": "wrong", "new_password1": PASSWORD, "new_password2": PASSWORD})
    assert "That is not your current password." in dave.page.content.decode()
    dave.post(portal_url("/account/password/"), {"old_password": "gatehouse-demo", "new_password1": PASSWORD, "new_password2": "else"})
    assert "differ" in dave.page.content.decode()
    assert visitor("dave").is_in()


@pytest.mark.asvs("7.5.2")
def test_ones_own_sessions_can_be_ended_one_by_one_and_all_others(cast: dict[str, User], visitor: Open) -> None:
    here, phone, old = visitor("dave", at="acme"), visitor("dave", at="acme"), visitor("dave")
    page = here.get(portal_url("/account/sessions/")).content.decode()
    assert len(re.findall(r'<li class="knot[" ]', page)) == 3
    assert "This browser" in page
    assert f'data-session="{here.session("acme").pk}"' in page
    branch = phone.session("acme")
    confirm = here.post(portal_url("/account/sessions/end"), {"ids": [str(branch.pk)]})
    assert "End this session?" in confirm.content.decode()
    assert phone.is_in("acme")
    here.post(portal_url("/account/sessions/end"), {"ids": [str(branch.pk)], "sure": "1"})
    assert not phone.is_in("acme")
    assert phone.is_in()
    here.post(portal_url("/account/sessions/end"), {"all_others": "1", "sure": "1"})
    assert here.is_in()
    assert here.is_in("acme")
    assert not phone.is_in()
    assert not old.is_in()
    assert "ended by you" in here.get(portal_url("/account/sessions/")).content.decode()


@pytest.mark.asvs("7.4.4")
def test_sign_out_is_on_every_page_of_somebody_signed_in(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    for path in ("/", "/account/", "/account/sessions/", "/account/password/", "/console/", "/console/acme/sessions/"):
        assert 'href="/logout/"' in olivia.get(portal_url(path)).content.decode(), path
    for path in ("/", "/welcome/"):
        assert 'href="/_portal/logout"' in olivia.get(tenant_url("acme", path)).content.decode(), path


@pytest.mark.asvs("3.5.3")
def test_a_get_of_sign_out_shows_a_button_and_ends_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    for url in (portal_url("/logout/"), tenant_url("acme", "/_portal/logout")):
        page = dave.get(url).content.decode()
        assert "Acme" in page
        assert '<form class="' in page or "<form" in page
        assert dave.is_in("acme")


def test_the_welcome_page_greets_a_guest_or_the_person(cast: dict[str, User], visitor: Open) -> None:
    assert "Welcome, Guest" in visitor().get(tenant_url("acme", "/welcome/")).content.decode()
    assert "Welcome, Dave" in visitor("dave", at="acme").get(tenant_url("acme", "/welcome/")).content.decode()


def test_the_tenants_shortcuts_lead_to_the_portal(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    assert dave.get(tenant_url("acme", "/_portal/account"), follow=False)["Location"] == portal_url("/account/")
    assert dave.get(tenant_url("acme", "/_portal/console"), follow=False)["Location"] == portal_url("/console/acme/")


@pytest.mark.parametrize("urlconf", ["portal.urls", "portal.tenant_urls"])
def test_djangos_own_guards_work_on_both_kinds_of_host(urlconf: str, settings: pytest.FixtureRequest) -> None:
    from django.contrib.auth.models import AnonymousUser
    from django.urls import set_urlconf

    class Guarded(LoginRequiredMixin, View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("in")

    request = RequestFactory().get("/page/")
    request.user = AnonymousUser()
    set_urlconf(urlconf)
    try:
        start = {"portal.urls": "/login/", "portal.tenant_urls": "/_portal/start"}[urlconf]
        for view in (login_required(Guarded.as_view()), Guarded.as_view(), permission_required("x.y")(Guarded.as_view())):
            assert view(request)["Location"] == f"{start}?next=/page/"
    finally:
        set_urlconf(None)


# --- One-time links -----------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.4.1", "6.4.3")
def test_a_password_link_works_once_signs_nobody_in_and_ends_every_session(cast: dict[str, User], visitor: Open) -> None:
    dave, browser = visitor("dave"), visitor()
    address = links.make(Link.Purpose.PASSWORD, cast["dave"])
    assert browser.get(address).status_code == 200
    assert browser.get(address).status_code == 200  # a scanner that opens it does not use it up
    browser.post(address, {"password": PASSWORD})
    assert browser.url == portal_url("/password/reset/done/")
    assert not browser.is_in()
    assert not dave.is_in()
    assert browser.get(address).status_code == 404
    browser.sign_in("dave", PASSWORD)
    assert browser.is_in()


def test_a_newer_password_voids_the_link(cast: dict[str, User], visitor: Open) -> None:
    first, second = links.make(Link.Purpose.PASSWORD, cast["dave"]), links.make(Link.Purpose.PASSWORD, cast["dave"])
    visitor().post(first, {"password": PASSWORD})
    assert visitor().get(second).status_code == 404


@pytest.mark.asvs("9.2.2")
def test_links_are_for_their_purpose_only(cast: dict[str, User], visitor: Open) -> None:
    reset = links.make(Link.Purpose.PASSWORD, cast["dave"]).split("/")[-2]
    operator = links.make(Link.Purpose.OPERATOR).split("/")[-2]
    pages = [visitor().get(portal_url(path)) for path in (f"/signup/{reset}/", f"/password/reset/{operator}/", f"/signup/{'x' * 43}/")]
    assert {page.status_code for page in pages} == {404}
    assert len({neutral(page) for page in pages}) == 1


@pytest.mark.asvs("6.3.2")
def test_the_operator_link_makes_one_operator(cast: dict[str, User], visitor: Open) -> None:
    address = links.make(Link.Purpose.OPERATOR)
    page = visitor().post(address, {"username": "grace", "email": "grace@x.example", "password": PASSWORD})
    assert page.status_code == 201
    assert User.objects.get(username="grace").is_superuser
    again = visitor().post(address, {"username": "heidi", "email": "heidi@x.example", "password": PASSWORD})
    assert again.status_code == 404
    assert not User.objects.filter(username="heidi").exists()
    assert address.split("/")[-2] not in str(list(Link.objects.values()))


def test_a_successful_sign_in_clears_ones_own_count_only(cast: dict[str, User], visitor: Open) -> None:
    for _ in range(2):
        for name in ("dave", "alice"):
            for _ in range(2):
                visitor().sign_in(name, "wrong")
        assert visitor("dave").is_in()
    visitor().sign_in("alice", "wrong")
    assert not visitor("alice").is_in()
    assert visitor("dave").is_in()


def test_a_link_from_before_a_deactivation_stays_dead(cast: dict[str, User], visitor: Open) -> None:
    from django.core.management import call_command

    address = links.make(Link.Purpose.PASSWORD, cast["dave"])
    call_command("user", "deactivate", "dave", verbosity=0)
    call_command("user", "activate", "dave", verbosity=0)
    assert visitor().get(address).status_code == 404


def test_a_one_time_link_releases_whoever_is_locked_out(cast: dict[str, User], visitor: Open) -> None:
    for _ in range(6):
        visitor().sign_in("alice", "wrong")
    address = links.make(Link.Purpose.PASSWORD, cast["alice"])
    visitor().post(address, {"password": PASSWORD})
    browser = visitor()
    browser.sign_in("alice", PASSWORD)
    assert browser.is_in()


def test_somebody_with_one_place_still_has_a_list_of_places(cast: dict[str, User], visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    page = alice.get(tenant_url("acme")).content.decode()
    assert f'href="{portal_url("/?places=1")}"' in page
    alice.get(portal_url("/?places=1"))
    assert alice.url == portal_url("/?places=1")
    assert "Open Acme" in alice.page.content.decode()


def test_a_suspended_place_is_called_so(cast: dict[str, User], globex: Tenant, visitor: Open) -> None:
    carol = visitor("carol")
    Tenant.objects.filter(pk=globex.pk).update(status="suspended")
    page = carol.get(portal_url("/")).content.decode()
    assert "suspended by an operator" in page
    assert "No places yet" not in page


def test_the_same_password_again_is_refused(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    again = {"old_password": "gatehouse-demo", "new_password1": "gatehouse-demo", "new_password2": "gatehouse-demo"}
    assert "That is the password you have." in dave.post(portal_url("/account/password/"), again).content.decode()
    dave.get(portal_url("/account/password/done/"))
    assert dave.url == portal_url("/account/password/")


def test_a_sign_in_form_of_an_older_tab_leads_on(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor()
    dave.get(portal_url("/login/?next=/account/"))
    stale = "x" * 32
    dave.post(portal_url("/login/"), {"username": "dave", "password": "gatehouse-demo", "next": "/account/"})
    answer = dave.post(
        portal_url("/login/"), {"username": "dave", "password": "x", "next": "/account/", "csrfmiddlewaretoken": stale}, csrf=False
    )
    assert answer.status_code == 200
    assert dave.url == portal_url("/account/")
    assert dave.is_in()


def test_signing_up_on_the_way_to_a_tenant_keeps_the_way(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    acme.policy = {"sign_up": "open"}
    acme.save()
    browser = visitor()
    browser.get(tenant_url("acme"))
    link = re.search(r'href="(/signup/\?next=[^"]+)"', browser.page.content.decode())
    assert link
    page = browser.get(portal_url(link[1])).content.decode()
    assert 'data-brand="acme"' in page
    target = re.search(r'name="next" value="([^"]+)"', page)
    assert target
    done = browser.post(portal_url("/signup/"), {**NEW, "next": target[1].replace("&amp;", "&")}).content.decode()
    assert re.search(r'href="/login/\?next=%2Fenter%2Facme', done)


@pytest.mark.parametrize("path", ["/account/sessions/end", "/console/acme/sessions/end"])
def test_a_confirmation_that_is_loaded_again_leads_back_to_the_list(cast: dict[str, User], visitor: Open, path: str) -> None:
    bob = visitor("bob")
    bob.get(portal_url(path))
    assert bob.url == portal_url(path.removesuffix("end"))


def test_a_used_hand_off_in_a_browser_that_is_in_leads_on(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    used = next(url for url in dave.trail if "/_portal/finish" in url)
    dave.get(used)
    assert dave.url == tenant_url("acme")
    assert Event.objects.filter(kind="hand_off_refused").count() == 1


@pytest.mark.asvs("11.4.4")
@pytest.mark.parametrize(("name", "value", "word"), [("ENCRYPTION_KEYS", "abc", "32 bytes"), ("SECRET_KEY", "abc", "32 characters")])
def test_keys_that_are_none_are_refused_at_the_start(name: str, value: str, word: str) -> None:
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "manage.py", "check"], env={**os.environ, name: value}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert word in done.stderr
