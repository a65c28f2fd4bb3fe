"""Attacks that worked once. Each has its promise here."""

import base64
import json
import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from identity import links, sessions
from identity.models import Bucket, Event, Link, Session, TotpDevice, User
from identity.sessions import Verdict, admission
from identity.store import SessionStore
from tenants import hosts
from tenants.models import App, Host, Membership, Tenant
from tests.conftest import password_is
from tests.test_console import crowd
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]


@pytest.mark.asvs("16.2.5")
def test_no_password_of_any_form_is_stored_by_the_limit(cast: dict[str, User], visitor: Open) -> None:
    from axes.models import AccessAttempt

    dave = visitor("dave")
    secret = {"old_password": "Old-Secret-77", "new_password1": "New-Secret-77", "new_password2": "New-Secret-77"}
    dave.post(portal_url("/account/password/"), secret)
    visitor().sign_in("dave", "Wrong-Secret-77")
    assert not AccessAttempt.objects.exists()
    stored = str([*Bucket.objects.values(), *Event.objects.values()])
    assert "'failed': 1" in stored
    assert "Secret-77" not in stored


def test_a_saved_profile_takes_nothing_else_back(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password change, a deactivation and an end that are committed while the form is under way."""
    from portal.forms import ProfileForm

    dave = visitor("dave")
    check = ProfileForm.is_valid

    def meanwhile(form: ProfileForm) -> bool:
        person = User.objects.get(username="dave")
        sessions.change_password(person, "three little words", by=None, request=None)
        User.objects.filter(pk=person.pk).update(is_active=False)
        return check(form)

    monkeypatch.setattr(ProfileForm, "is_valid", meanwhile)
    dave.post(portal_url("/account/"), {"first_name": "David"}, follow=False)
    person = User.objects.get(username="dave")
    assert not person.is_active
    assert password_is(person, "three little words")
    assert person.epoch != cast["dave"].epoch
    assert person.valid_from > cast["dave"].valid_from


def test_a_password_is_not_changed_from_a_session_that_ended_meanwhile(cast: dict[str, User], visitor: Open) -> None:
    row = visitor("dave").session()
    sessions.end(Session.objects.filter(pk=row.pk), by=None, reason=Session.Reason.BY_OPERATOR)
    with pytest.raises(sessions.StaleProof):
        sessions.change_password(User.objects.get(username="dave"), "a thief's password", by=None, request=None, spare=row)
    assert password_is(User.objects.get(username="dave"), "gatehouse-demo")


@pytest.mark.parametrize("charset", ["hex", "rot13", "base64", "idna", "undefined", "utf-16", "nonsense"])
def test_a_foreign_charset_is_no_500(cast: dict[str, User], charset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(os.environ)
    from portal.wsgi import application

    os.environ.update(kept)  # it takes the keys out of the environment, which other tests hand to their servers
    monkeypatch.setattr("django.core.signals.request_started.send", lambda *args, **kwargs: [])
    monkeypatch.setattr("django.core.signals.request_finished.send", lambda *args, **kwargs: [])  # the test's connection stays
    for path, kind in (("/login/", "text/plain"), ("/healthz", "text/plain"), ("/login/", "multipart/form-data; boundary=x")):
        body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\xff\r\n--x--\r\n'
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": "a=1", "SERVER_NAME": "x", "SERVER_PORT": "8000",
            "HTTP_HOST": "login.portal.localhost:8000", "CONTENT_TYPE": f"{kind}; charset={charset}", "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1", "wsgi.input": BytesIO(body), "wsgi.errors": BytesIO(), "wsgi.url_scheme": "http",
        }  # fmt: skip
        started: list[str] = []
        answer = application(environ, lambda status, headers, started=started: started.append(status))
        b"".join(answer)
        assert started[0][0] in "34", started


@pytest.mark.asvs("2.2.1")
def test_half_surrogates_and_control_characters_in_json_are_a_400(cast: dict[str, User], visitor: Open) -> None:
    for text in ('"\\ud800"', '"a\\u0001b"', '"\\u202e"'):
        for body in (f'{{"username": {text}, "password": "x"}}', f'{{"username": "x", "email": {text}, "password": "x"}}'):
            for name in ("login", "signup"):
                assert visitor().post_json(portal_url(f"/api/v1/{name}"), body).status_code == 400
    assert visitor().post_json(portal_url("/api/v1/login"), '{"username": "dave", "password": "\\ud800"}').status_code == 400


@pytest.mark.asvs("2.2.1", "2.2.2")
def test_control_characters_in_a_form_are_a_400(cast: dict[str, User], visitor: Open) -> None:
    for text in ("a\x00b", "a\x1b[31m", "a\u202eb"):
        assert visitor().post(portal_url("/login/"), {"username": text, "password": "x"}).status_code == 400
        assert visitor("dave").post(portal_url("/account/"), {"first_name": text}).status_code == 400


def test_somebody_signed_in_sees_the_page_of_an_app_host(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    assert dave.get("http://wiki.acme.portal.localhost:8000/").status_code == 200
    assert dave.is_in("acme")


@pytest.mark.parametrize("username", ["\ufdfa" * 20, "ﷺ" * 150])
def test_a_name_that_grows_when_folded_is_refused(cast: dict[str, User], visitor: Open, username: str) -> None:
    data = {"username": username, "email": "x@x.example", "password": "three little words"}
    assert visitor().post(portal_url("/signup/"), data).status_code in {200, 400}
    assert not User.objects.filter(email="x@x.example").exists()


def test_a_name_that_is_taken_in_this_very_moment_is_an_error_in_the_form(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(User, "clean", lambda user: user._fold())  # as if both had looked before either wrote
    data = {"username": "DAVE", "email": "x@x.example", "password": "three little words"}
    assert "already in use" in visitor().post(portal_url("/signup/"), data).content.decode()
    answer = visitor().post_json(portal_url("/api/v1/signup"), json.dumps(data))
    assert answer.status_code == 400


def test_the_key_from_before_a_step_up_opens_no_console(cast: dict[str, User], visitor: Open) -> None:
    for name in ("erin", "bob"):
        browser = visitor(name)
        old = list(browser.cookies)
        browser.step_up()
        browser.cookies = old
        browser.get(portal_url("/console/acme/sessions/"))
        assert browser.url.startswith(portal_url("/step-up/")), name


def test_a_change_of_password_with_the_key_from_before_a_step_up_voids_both_keys(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    old = list(dave.cookies)
    dave.post(portal_url("/step-up/"), {"password": "gatehouse-demo"}, follow=False)
    newer = dave.key("login.portal.localhost")
    dave.cookies = old
    words = "three little words"
    fields = {"old_password": "gatehouse-demo", "new_password1": words, "new_password2": words}
    dave.post(portal_url("/account/password/"), fields)
    assert "Prove that it is you" in dave.page.content.decode()  # the old key has none of the new rights
    dave.post(portal_url("/account/password/"), {**fields, "proof-password": "gatehouse-demo"})
    assert dave.is_in()
    assert sessions.live([newer], None) == []
    assert sessions.live([next(cookie.value for cookie in old if cookie.name == "portal")], None) == []


def test_signing_in_over_the_key_from_before_a_step_up_gives_the_new_person_a_cookie(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    old = list(browser.cookies)
    browser.post(portal_url("/step-up/"), {"password": "gatehouse-demo"}, follow=False)
    browser.cookies = old
    browser.post(portal_url("/login/"), {"username": "alice", "password": "gatehouse-demo"}, follow=False)
    assert browser.session().user == cast["alice"]


@pytest.mark.asvs("1.4.2")
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00+23:59", "\ud800", "a\x00"])
def test_a_cursor_at_the_end_of_time_is_no_500(cast: dict[str, User], visitor: Open, at: str) -> None:
    bob = visitor("bob")
    text = json.dumps([at, "00000000-0000-0000-0000-000000000000"])
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    for sort in ("seen", "person"):
        assert bob.get(portal_url(f"/console/acme/sessions/?sort={sort}&after={cursor}")).status_code in {200, 404}


@pytest.mark.asvs("16.2.5")
def test_a_one_time_token_reaches_no_event(cast: dict[str, User], visitor: Open) -> None:
    address = links.make(Link.Purpose.PASSWORD, cast["dave"])
    assert visitor().post(address, {"password": "x"}, csrf=False).status_code == 403
    assert Event.objects.filter(kind="csrf_refused").exists()
    assert address.split("/")[-2] not in str(list(Event.objects.values()))


def test_an_app_below_a_host_that_nobody_approved_is_not_served(acme: Tenant, visitor: Open) -> None:
    host = Host(tenant=acme, name="id.victim.test")
    host.save()
    app = App(tenant=acme, name="Evil", host="evil.id.victim.test")
    with pytest.raises(ValidationError):
        app.full_clean()
    app.save()
    assert hosts.tenant_at("evil.id.victim.test") is None
    assert "evil.id.victim.test" not in acme.all_hosts()


def test_an_operator_without_membership_needs_a_proof_in_the_console(cast: dict[str, User], visitor: Open) -> None:
    row = visitor("erin").session()
    assert admission(row, "acme", console=True).verdict is Verdict.OPEN
    row.in_grace = True
    assert admission(row, "acme", console=True).verdict is Verdict.PROVE
    row.in_grace, row.methods = False, ["pwd"]
    assert admission(row, "acme", console=True).verdict is Verdict.PROVE
    TotpDevice.objects.all().delete()
    assert admission(row, "acme", console=True).verdict is Verdict.ENROL


def test_the_tenant_with_thousands_of_people_ends_in_batches(acme: Tenant) -> None:
    crowd(acme, 1300)
    assert sessions.end_tenant(acme, by=None, reason=Session.Reason.SUSPENDED) == 1300
    assert Membership.objects.filter(tenant=acme, prove_after__gt=acme.created_at).count() == 1300


def test_an_odd_socket_peer_is_no_500(cast: dict[str, User], visitor: Open) -> None:
    for peer in ("unix:", "@", "localhost", "1.2.3"):
        browser = visitor("dave", address=peer)
        assert browser.session().ip is None


@pytest.mark.parametrize("given", ["127.0.0.1,nginx", "10.0.0.0/99"])
def test_a_trusted_proxy_that_is_no_address_is_refused_at_the_start(given: str) -> None:
    import subprocess
    import sys

    environment = {**os.environ, "TRUSTED_PROXIES": given}
    done = subprocess.run([sys.executable, "manage.py", "check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is no address or network" in done.stderr


def test_a_request_id_is_taken_from_a_trusted_proxy_only(cast: dict[str, User], visitor: Open, settings: Any) -> None:
    given = "0123456789abcdef" * 2
    assert visitor().get(portal_url("/login/"), HTTP_X_REQUEST_ID=given)["X-Request-ID"] != given
    settings.TRUSTED_PROXIES = ["127.0.0.1"]
    assert visitor().get(portal_url("/login/"), HTTP_X_REQUEST_ID=given)["X-Request-ID"] == given


def test_djangos_changepassword_ends_every_session(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.management import call_command

    dave = visitor("dave", at="acme")
    link = links.make(Link.Purpose.PASSWORD, cast["dave"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: "three little words")
    call_command("changepassword", "dave")
    assert not dave.is_in()
    assert not dave.is_in("acme")
    assert visitor().get(link).status_code == 404


def test_a_form_sent_after_the_session_ended_leads_back_to_its_page(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    sessions.end_everywhere(cast["bob"], by=None, reason=Session.Reason.BY_OPERATOR)
    page = portal_url("/console/acme/sessions/")
    answer = bob.post(f"{page}end", {"ids": ["x"]}, follow=False, HTTP_REFERER=page)
    assert answer["Location"] == "/login/?next=%2Fconsole%2Facme%2Fsessions%2F"


def test_touching_brings_no_lapsed_session_back(cast: dict[str, User], visitor: Open) -> None:
    from datetime import timedelta

    dave = visitor("dave", at="acme")
    key = dave.key("acme.portal.localhost")
    row = sessions.live([key], Tenant.objects.get(slug="acme"))[0]
    lapsed = timezone.now() - timedelta(seconds=1)
    Session.objects.update(idle_expires_at=lapsed, last_seen_at=lapsed - timedelta(hours=8))
    row.last_seen_at = lapsed - timedelta(hours=8)
    sessions.touch(row, row.tenant)
    assert not dave.is_in("acme")
    assert not dave.is_in()


def test_the_store_of_a_grace_key_sends_no_cookie(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    old = list(dave.cookies)
    dave.post(portal_url("/step-up/"), {"password": "gatehouse-demo"}, follow=False)
    dave.cookies = old
    page = dave.get(portal_url("/account/sessions/"))
    assert page.status_code == 200
    assert "portal" not in page.cookies
    assert SessionStore().is_empty() is False
