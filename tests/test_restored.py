"""What a backup brings back to life stays dead: `manage.py restored`, as deploy/restore.sh runs it on the restored database."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import CommandError
from django.db import connection

from identity import clock, factors, known, restoring, sessions
from identity.audit import Audit
from identity.models import Event, Link, Mail, Session, TotpDevice, User
from tenants.models import Tenant
from tests.phone import code_of, enrol, half_way, is_asked, said, sign_out
from tests.post import delivered
from tests.test_commands import manage, told
from tests.test_hand_off import ticket_for
from tests.test_invitations import invite, role_of
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.mark.asvs("7.4.1")
def test_no_session_from_before_a_restore_is_alive(cast: dict[str, User], visitor: Open) -> None:
    dave, olivia, erin = visitor("dave", at="acme"), visitor("olivia", at="globex"), visitor("erin")
    rows = [dave.session(), dave.session("acme"), olivia.session("globex"), erin.session()]
    assert told("restored", "--copy", "gatehouse-1.dump")["sessions"] == 5  # and the one above olivia's
    assert not any([dave.is_in(), dave.is_in("acme"), olivia.is_in(), olivia.is_in("globex"), erin.is_in()])
    for row in rows:
        row.refresh_from_db()
        assert (row.end_reason, row.end_note, row.session_data) == ("by_operator", "Restored from a backup", "")
    dave.get(tenant_url("acme"))
    assert "An operator of this portal ended this session." in said(dave)
    assert visitor("dave", at="acme").is_in("acme")


def test_the_stamp_holds_before_any_row_is_marked(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    dave = visitor("dave", at="acme")
    monkeypatch.setattr(sessions, "end_all", lambda note: 0)
    restoring.void_everything(copy="")
    assert not dave.is_in()
    assert not dave.is_in("acme")
    assert Session.objects.filter(ended_at=None).count() == 2


def test_no_ticket_from_before_a_restore_opens_anything(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    assert told("restored")["tickets"] == 1
    assert dave.get(address, follow=False).status_code == 403
    assert not dave.is_in("acme")


def test_no_link_from_before_a_restore_is_good(cast: dict[str, User], visitor: Open) -> None:
    links = [told("user", "link", "dave")["link"], told("operator", "link")["link"]]
    before = [visitor().get(link).content for link in links]
    assert told("restored")["links"] == 2
    for link, then in zip(links, before, strict=True):
        assert visitor().get(link).content != then
        visitor().post(link, {"password": "three little words", "username": "eve", "email": "eve@x.example"})
    assert not User.objects.filter(username="eve").exists()
    assert visitor("dave").is_in()  # with the password that he had
    assert not Link.objects.filter(used_at=None).exists()


def test_an_invitation_from_before_a_restore_lets_nobody_in_until_it_is_sent_anew(acme: Tenant, visitor: Open) -> None:
    link = invite(acme, "carol@globex.example")
    assert told("restored")["invitations"] == 1
    carol = visitor("carol")
    carol.post(link, {"accept": "1"})
    assert role_of("carol") == ""
    carol.post(invite(acme, "carol@globex.example"), {"accept": "1"})
    assert role_of("carol") == "member"


def test_a_half_way_sign_in_from_before_a_restore_goes_no_further(cast: dict[str, User], visitor: Open) -> None:
    erin = half_way(visitor(), "erin")
    manage("restored")
    erin.post(erin.url, {"code": code_of("erin")})
    assert erin.url == portal_url("/login/?late=1")
    assert not erin.is_in()


@pytest.mark.asvs("6.5.1")
def test_no_code_that_an_authenticator_has_shown_is_good_after_a_restore(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, now = TotpDevice.objects.get(user=cast["erin"]), clock.now()

    def at(seconds: int) -> None:
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=seconds))

    shown = []
    for seconds in (-30, 0, 30):  # a phone may be a step ahead
        at(seconds)
        TotpDevice.objects.update(last_step=-1)
        shown.append(factors.code_now(device))
    TotpDevice.objects.update(last_step=-1)
    at(0)
    manage("restored")
    at(1)
    for code in shown:
        erin = half_way(visitor(), "erin")
        erin.post(erin.url, {"code": code})
        assert not erin.is_in()
    at(61)
    erin.post(erin.url, {"code": factors.code_now(device)})
    assert erin.is_in()


def test_recovery_codes_stay_good_and_the_operator_is_told_how_to_void_them(cast: dict[str, User], visitor: Open) -> None:
    codes = enrol(visitor("dave"), "dave")
    said_then = manage("restored")
    assert "Unused recovery codes are good, and so are those used since the copy was taken." in said_then
    assert "manage.py restored --void-recovery-codes" in said_then
    dave = half_way(visitor())
    dave.post(dave.url, {"code": codes[0]})
    assert dave.is_in()
    assert told("restored", "--void-recovery-codes")["recovery_codes"] == 9
    dave = half_way(visitor())
    dave.post(dave.url, {"code": codes[1]})
    assert not dave.is_in()
    dave.type_code("dave")
    assert dave.is_in()


def test_a_browser_that_was_trusted_is_asked_for_the_code_again(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    enrol(browser, "dave")
    sign_out(browser)
    half_way(browser).type_code("dave", trust="on")
    sign_out(browser)
    assert not is_asked(browser)
    assert told("restored")["trusted_browsers"] == 1
    assert is_asked(browser)
    assert not known.trusted(cast["dave"])


def test_a_key_that_was_being_set_up_is_dropped(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    browser.get(portal_url("/account/two-factor/"))
    assert "Scan" in said(browser)
    assert told("restored")["enrolments"] == 1
    assert not TotpDevice.objects.filter(user=cast["dave"]).exists()


def test_what_waited_to_be_mailed_is_not_mailed_and_cannot_be_retried(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    browser.get(portal_url("/password/forgot/"))
    browser.post(browser.url, {"username": "dave"})
    manage("invite", "acme", "frank@new.example")
    assert told("restored")["mails"] >= 1
    assert delivered() == []
    assert "0 mails" in manage("mail", "retry", "--all") or not Mail.objects.exclude(due_at=None).exists()
    assert not Mail.objects.exclude(body="").exists()


def test_the_log_says_which_copy_it_was_and_is_sound(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme")
    manage("restored", "--copy", "gatehouse-20261121T024000Z.dump")
    event = Event.objects.get(kind="restored")
    assert (event.data["copy"], event.data["sessions"], event.data["source"]) == ("gatehouse-20261121T024000Z.dump", 2, "command line")
    assert list(Audit(None, everything=True).findings()) == []


def test_a_database_of_a_newer_release_is_refused(cast: dict[str, User], visitor: Open) -> None:
    assert manage("restored", "--check") == "This release can work with the database.\n"
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('identity', '9000_later', '2026-11-21 00:00:00')")
    dave = visitor("dave")
    for options in ([], ["--check"]):
        with pytest.raises(CommandError, match=r"does not know identity\.9000_later\. Install that release"):
            manage("restored", *options)
    assert dave.is_in()
