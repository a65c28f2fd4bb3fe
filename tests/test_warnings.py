"""Warnings: a new browser, a lock, and the links in them. Opening one changes nothing; a button does what it says, once."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail as django_mail
from django.db import connection
from django.utils import timezone

from identity import links, mails, sessions, warnings
from identity.models import Bucket, Event, KnownDevice, Link, Mail, Session, User
from tenants.models import Membership
from tests.conftest import PASSWORD, password_is, people
from tests.test_ledger import guess
from tests.test_mails import facts_of, later, outbox
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PHONE = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"


def sent(subject: str) -> Any:
    """The last mail about this, after everything that is due has left."""
    outbox()
    return next(each for each in reversed(django_mail.outbox) if subject in each.subject)


def link_in(mail: Any, path: str) -> str:
    found = re.search(rf"http://\S+/{path}/\S+", mail.body)
    assert found, mail.body
    return found[0]


@pytest.fixture
def thief(cast: dict[str, User], visitor: Open) -> Visitor:
    """Somebody who knows dave's password, and is signed in at acme and globex from another browser than dave's own."""
    visitor("dave")
    browser = visitor("dave", at="acme", user_agent=PHONE, address="203.0.113.9")
    browser.get("http://globex.portal.localhost:8000/")
    return browser


@pytest.fixture
def not_me(thief: Visitor) -> str:
    return link_in(sent("new browser"), "link/not-me")


# --- A new browser ----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.5")
def test_a_sign_in_from_a_new_browser_is_told(thief: Visitor) -> None:
    mail = sent("new browser")
    assert (mail.to, mail.subject) == (["dave@acme.example"], "A sign-in from a new browser")
    assert mail.body == (
        "Hello Dave Vance,\n\n"
        "Somebody signed in to your account in a browser that was not known before.\n\n"
        f"When: {facts_of(mail)}\nBrowser: Chrome 142 on Android\nAddress: 203.0.113.9\n\n"
        "If that was you, there is nothing to do.\n\n"
        "If it was not you: the link below ends that session and makes your password worthless. You then get a mail with which you set "
        "a new one. It works once, for seven days, and nothing happens before you confirm.\n\n"
        f"This was not me:\n{link_in(mail, 'link/not-me')}\n\n"
        "You can turn these mails off in your profile:\nhttp://login.portal.localhost:8000/account/\n\n-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


def test_the_first_browser_and_one_that_comes_back_are_no_news(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.post(portal_url("/logout/"))
    dave.sign_in("dave", PASSWORD)
    assert outbox() == []


def test_who_does_not_want_these_mails_or_has_no_proven_address_gets_none(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(mail_new_device=False)
    User.objects.filter(username="alice").update(email_verified_at=None, email_key=None)
    for name in ("dave", "alice"):
        visitor(name)
        visitor(name, user_agent=PHONE)
    assert outbox() == []
    assert not Link.objects.exists()


def test_the_same_again_is_told_once_and_a_different_one_is_not_hidden_by_it(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave")
    for _n in range(3):
        visitor("dave", user_agent=PHONE)
    assert len(outbox()) == 1
    visitor("dave", user_agent=PHONE, address="203.0.113.9")
    assert len(outbox()) == 2
    for n in range(8):
        visitor("dave", address=f"203.0.113.{n}")
    assert len(outbox()) == warnings.MOST_NEW


def test_the_page_is_the_same_with_and_without_a_warning(cast: dict[str, User], visitor: Open) -> None:
    first, second = visitor("dave"), visitor("dave", user_agent=PHONE)
    assert (first.page.status_code, first.trail) == (second.page.status_code, second.trail)
    assert Mail.objects.filter(kind="new_device").count() == 1


# --- This was not me --------------------------------------------------------------------------------------------------


def state() -> tuple[Any, ...]:
    return (
        list(Session.objects.order_by("pk").values_list("pk", "ended_at")),
        list(KnownDevice.objects.order_by("pk").values_list("pk", "revoked_at")),
        list(User.objects.order_by("pk").values_list("password", "epoch", "email")),
        list(Link.objects.order_by("pk").values_list("pk", "used_at")),
        Mail.objects.count(),
        Event.objects.count(),
    )


@pytest.mark.asvs("6.4.1")
def test_a_mail_scanner_that_opens_the_link_changes_nothing(not_me: str, visitor: Open) -> None:
    before = state()
    for _n in range(3):
        page = visitor(address="198.51.100.4").get(not_me)
        assert page.status_code == 200
    visitor(address="198.51.100.4").head(not_me)
    assert state() == before
    text = page.content.decode()
    assert "Chrome 142 on Android" in text
    assert "203.0.113.9" in text


@pytest.mark.asvs("6.3.5", "7.4.1")
def test_it_ends_that_tree_forgets_the_browser_voids_the_password_mails_a_reset_and_tells_the_admins(
    cast: dict[str, User], thief: Visitor, not_me: str, visitor: Open
) -> None:
    own = visitor()
    own.cookies = list(visitor("dave").cookies)
    django_mail.outbox.clear()
    browser = visitor()
    browser.get(not_me)
    assert "That session is over" in browser.post(not_me).content.decode()
    assert not any(thief.is_in(slug) for slug in ("", "acme", "globex"))
    assert own.is_in()
    assert "A link that was mailed to the owner of the account ended this session" in thief.get(tenant_url("acme")).content.decode()
    thief.sign_in("dave", PASSWORD)
    assert not thief.is_in()
    assert KnownDevice.objects.filter(user=cast["dave"], user_agent=PHONE, revoked_at=None).count() == 0
    told = outbox()
    assert [each for each in told if "somebody else’s" in each[1]] == [
        ("bob@acme.example", "A sign-in at Acme was somebody else’s"),
        ("olivia@acme.example", "A sign-in at Acme was somebody else’s"),
        ("olivia@acme.example", "A sign-in at Globex was somebody else’s"),
    ]
    admin = sent("at Acme")
    assert "Dave Vance (dave), who belongs to Acme, has told us" in admin.body
    assert "http://login.portal.localhost:8000/console/acme/sessions/" in admin.body
    assert "203.0.113.9" not in admin.body
    reset = Link.objects.get(purpose=Link.Purpose.PASSWORD, used_at=None)
    assert (reset.user, reset.epoch) == (cast["dave"], User.objects.get(username="dave").epoch)
    assert Mail.objects.filter(kind="reset", to="dave@acme.example").count() == 1
    assert Event.objects.filter(kind="not_me", subject=cast["dave"], tenant=None).count() == 1
    assert sorted(Event.objects.filter(kind="not_me_told").values_list("tenant__slug", flat=True)) == ["acme", "globex"]


def test_the_mailed_reset_lets_the_owner_in_again(cast: dict[str, User], not_me: str, visitor: Open) -> None:
    visitor().post(not_me)
    row = Mail.objects.get(kind="reset")
    found = re.search(r"http://\S+/password/reset/\S+", mails.text_of(row)["text"])
    assert found
    visitor().post(found[0], {"password": "four little words now"})
    assert visitor().sign_in("dave", "four little words now").status_code == 200
    assert password_is(User.objects.get(username="dave"), "four little words now")


def test_the_browser_that_says_so_of_itself_is_signed_out(thief: Visitor, not_me: str) -> None:
    page = thief.post(not_me)
    assert page.status_code == 200
    assert not thief.is_in()


@pytest.mark.asvs("6.4.1")
def test_it_works_once_and_the_second_click_gets_a_page_that_fits(cast: dict[str, User], not_me: str, visitor: Open) -> None:
    browser = visitor()
    browser.post(not_me)
    before = state()
    again = browser.post(not_me)
    assert again.status_code == 404
    assert "If you pressed the button a moment ago, it is done" in again.content.decode()
    assert state()[:5] == before[:5]


@pytest.mark.asvs("6.4.1")
def test_used_late_unknown_and_of_another_purpose_are_one_page(cast: dict[str, User], not_me: str, visitor: Open) -> None:
    def answers() -> set[str]:
        return {hide_token(visitor().get(url).content.decode()) for url in urls} | {
            hide_token(visitor().post(url).content.decode()) for url in urls
        }

    unlock = links.make(Link.Purpose.UNLOCK, cast["dave"]).replace("/unlock/", "/not-me/")
    urls = [portal_url(f"/link/not-me/{'x' * 43}/"), unlock]
    visitor().post(not_me)
    urls.append(not_me)
    late = links.make(Link.Purpose.NOT_ME, cast["dave"], session="", device=0, email="dave@acme.example")
    Link.objects.filter(used_at=None, purpose=Link.Purpose.NOT_ME).update(expires_at=timezone.now())
    urls.append(late)
    assert len(answers()) == 1


def hide_token(text: str) -> str:
    text = re.sub(r'csrfmiddlewaretoken" value="[^"]*"', "", text)
    return re.sub(r'nonce="[^"]*"|/link/[a-z-]+/[\w-]{43}/', "", text)


@pytest.mark.asvs("6.3.5", "6.4.1")
def test_a_thief_who_changed_the_address_does_not_get_the_reset(cast: dict[str, User], thief: Visitor, not_me: str, visitor: Open) -> None:
    """The link goes by the address that it was mailed to; the thief's own way back, from a second change, is worthless."""
    dave = cast["dave"]
    for n, address in enumerate(("thief@evil.example", "thief2@evil.example")):
        old = User.objects.get(pk=dave.pk).email
        if n:
            links.make(Link.Purpose.TAKE_BACK, dave, email=old)
        User.objects.filter(pk=dave.pk).update(email=address, email_key=address)
    visitor().post(not_me)
    person = User.objects.get(pk=dave.pk)
    assert (person.email, person.email_key, person.email_verified_at is not None) == ("dave@acme.example", "dave@acme.example", True)
    assert [row.to for row in Mail.objects.filter(kind="reset")] == ["dave@acme.example"]
    assert not Link.objects.filter(purpose=Link.Purpose.TAKE_BACK, used_at=None).exists()
    assert Event.objects.filter(kind="email_taken_back", subject=dave).exists()


def test_where_the_address_is_somebody_elses_by_now_nothing_changes_and_a_person_helps(
    cast: dict[str, User], thief: Visitor, not_me: str, visitor: Open
) -> None:
    User.objects.filter(username="dave").update(email="thief@evil.example", email_key="thief@evil.example")
    User.objects.filter(username="mallory").update(
        email="dave@acme.example", email_key="dave@acme.example", email_verified_at=timezone.now()
    )
    before = state()
    page = visitor().post(not_me)
    assert page.status_code == 409
    assert "Nothing has changed" in page.content.decode()
    assert state()[:5] == before[:5]
    assert thief.is_in()


def test_a_password_that_the_thief_changed_does_not_void_the_link(
    cast: dict[str, User], thief: Visitor, not_me: str, visitor: Open
) -> None:
    new = "five words of a thief"
    thief.post(portal_url("/account/password/"), {"old_password": PASSWORD, "new_password1": new, "new_password2": new})
    assert thief.url == portal_url("/account/password/done/")
    assert "That session is over" in visitor().post(not_me).content.decode()
    thief.sign_in("dave", new)
    assert not thief.is_in()


@pytest.mark.django_db(transaction=True)
def test_of_parallel_clicks_one_does_it(visitor: Open) -> None:
    cast = people()
    for _round in range(10):
        session, _key = sessions.sign_in(User.objects.get(username="dave"), request=None, methods=["pwd"], remember=False)
        link = links.make(Link.Purpose.NOT_ME, cast["dave"], session=str(session.pk), device=0, email="dave@acme.example")
        ready = threading.Barrier(4)
        codes: list[int] = []

        def click(ready: threading.Barrier = ready, link: str = link, codes: list[int] = codes) -> None:
            try:
                browser = Visitor()
                ready.wait()
                codes.append(browser.post(link).status_code)
            finally:
                connection.close()

        clicks = [threading.Thread(target=click) for _n in range(4)]
        for each in clicks:
            each.start()
        for each in clicks:
            each.join()
        assert sorted(codes) == [200, 404, 404, 404]
    assert Event.objects.filter(kind="not_me").count() == 10
    assert Mail.objects.filter(kind="reset").count() == 10


# --- Locked out -------------------------------------------------------------------------------------------------------


def unlock_link() -> str:
    assert warnings.tell_locked() == 1
    return link_in(sent("locked for a while"), "link/unlock")


@pytest.mark.asvs("6.3.5")
def test_who_is_locked_out_is_told_with_a_link_that_opens(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5, address="203.0.113.9")
    assert outbox() == []  # not by the request that locked
    link = unlock_link()
    mail = sent("locked")
    until = Bucket.objects.get(user=cast["dave"], kind="person").locked_until
    assert until
    assert mail.body == (
        "Hello Dave Vance,\n\n"
        f"5 wrong passwords were typed for your account. Nobody got in by them. Until {until:%H:%M} UTC signing in from browsers that are "
        "not known is locked.\n\n"
        f"When: {facts_of(mail)}\nAddress: 203.0.113.9\n\n"
        "If that was you: the link below opens the account at once. It works once, for an hour. Or wait; the lock ends by itself.\n\n"
        f"Open the account:\n{link}\n\n"
        "If it was not you, there is nothing to do: without the right password nobody gets in. If it goes on, a new and longer password "
        "helps: http://login.portal.localhost:8000/password/forgot/\n\n-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


def test_opening_takes_a_click_and_signs_nobody_in(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    browser = visitor(address="198.51.100.4")
    browser.get(link := unlock_link())
    browser.head(link)
    assert not visitor("dave").is_in()
    assert "Your account is open" in browser.post(link).content.decode()
    assert not browser.is_in()
    assert visitor("dave").is_in()
    assert browser.post(link).status_code == 404
    assert Event.objects.get(kind="lockout_released").data["reason"] == "mailed link"


def test_a_lock_is_told_once_an_hour_whatever_is_shut(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 5)
    assert [warnings.tell_locked() for _n in range(3)] == [1, 0, 0]
    later(minutes=61)
    assert warnings.tell_locked() == 1


def test_those_who_were_told_do_not_stand_in_the_way_of_those_who_were_not(cast: dict[str, User], visitor: Open) -> None:
    for name in ("dave", "alice", "carol"):
        guess(visitor, name, 5, address="203.0.113.9")
    assert [warnings.tell_locked(limit=1) for _n in range(4)] == [1, 1, 1, 0]


def test_nobody_unproven_closed_or_unknown_is_told_of_a_lock(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="alice").update(email_verified_at=None)
    User.objects.filter(username="carol").update(is_active=False)
    for name in ("alice", "carol", "nobody"):
        guess(visitor, name, 5, address="203.0.113.9")
    assert warnings.tell_locked() == 0
    assert not Mail.objects.exists()


def test_wrong_codes_after_the_right_password_are_told_as_what_they_are(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor(address="203.0.113.9")
    erin.get(portal_url("/login/"))
    erin.post(portal_url("/login/"), {"username": "erin", "password": PASSWORD})
    for _n in range(5):
        erin.post(erin.url, {"code": "000000"})
    assert warnings.tell_locked() == 1
    mail = sent("wrong codes")
    assert "Somebody typed your password, then 5 wrong codes." in mail.body
    assert "somebody knows your password" in mail.body


@pytest.mark.django_db(transaction=True)
def test_workers_that_look_at_once_tell_once(visitor: Open) -> None:
    people()
    guess(visitor, "dave", 5)
    for round_ in range(10):
        ready = threading.Barrier(4)
        told: list[int] = []

        def look(ready: threading.Barrier = ready, told: list[int] = told) -> None:
            try:
                ready.wait()
                told.append(warnings.tell_locked())
            finally:
                connection.close()

        workers = [threading.Thread(target=look) for _n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sum(told) == 1
        assert Mail.objects.filter(kind="locked").count() == round_ + 1
        later(minutes=61)


def test_a_new_password_voids_the_unlock_link(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    guess(visitor, "dave", 5, address="203.0.113.9")
    link = unlock_link()
    new = "four little words now"
    dave.post(portal_url("/account/password/"), {"old_password": PASSWORD, "new_password1": new, "new_password2": new})
    assert visitor().post(link).status_code == 404


@pytest.mark.asvs("6.3.4")
def test_a_guess_at_a_link_counts_by_address(cast: dict[str, User], visitor: Open) -> None:
    for path in ("not-me", "unlock"):
        visitor(address="203.0.113.77").get(portal_url(f"/link/{path}/{'z' * 43}/"))
    assert Bucket.objects.get(kind="address", network="203.0.113.77").failed == 2


def test_blocked_admins_hear_nothing_of_a_not_me(cast: dict[str, User], not_me: str, visitor: Open) -> None:
    Membership.objects.filter(user=cast["bob"]).update(blocked_at=timezone.now())
    django_mail.outbox.clear()
    visitor().post(not_me)
    assert "bob@acme.example" not in {to for to, _subject in outbox()}


@pytest.mark.asvs("4.1.3")
def test_a_forged_host_is_in_no_link(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave")
    thief = visitor(user_agent=PHONE)
    forged: dict[str, Any] = {
        "HTTP_X_FORWARDED_HOST": "evil.example",
        "HTTP_FORWARDED": "host=evil.example",
        "HTTP_X_FORWARDED_PROTO": "https",
    }
    thief.post(portal_url("/login/"), {"username": "dave", "password": PASSWORD}, **forged)
    mail = sent("new browser")
    assert "evil" not in mail.body + str(mail.alternatives[0][0])
    assert set(re.findall(r"http\S*?//[^/\s]+", mail.body)) <= {"http://login.portal.localhost:8000", "http://login.portal.localhost:8000."}
