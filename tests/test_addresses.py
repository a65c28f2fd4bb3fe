"""E-mail addresses in the account: changed by a proof, told to the one before, taken back by it."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.db import connections
from django.test import RequestFactory

from identity import addresses, invitations, links, sessions
from identity.models import Event, Link, Mail, Session, User, fold
from tenants.models import Tenant
from tenants.policy import Policy
from tests.conftest import people
from tests.post import delivered, link_in
from tests.test_signup import said, words
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
PAGE = "/account/email/"
NEW = "dave@new.example"


def change(browser: Visitor, to: str = NEW) -> Any:
    return browser.post(portal_url(PAGE), {"email": to})


def to(address: str, sent: list[EmailMessage]) -> EmailMessage:
    (found,) = (each for each in sent if each.to == [address])
    return found


def moved(browser: Visitor, address: str = NEW) -> EmailMessage:
    """Change the address of whoever is signed in, all the way; returns the mail to the one before."""
    change(browser, address)
    visitor = Visitor()
    visitor.post(link_in(to(address, delivered()), "link/verify"))
    return delivered()[0]


def dave() -> User:
    return User.objects.get(username="dave")


# --- Changing -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.7", "7.5.1")
def test_a_change_is_told_to_the_present_address_and_is_none_before_the_proof(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    page = change(browser)
    assert browser.url == portal_url(PAGE)
    assert "A mail is on its way to dave@new.example" in words(page)
    assert (dave().email, dave().new_email) == ("dave@acme.example", NEW)
    sent = delivered()
    warning, proof = to("dave@acme.example", sent), to(NEW, sent)
    assert warning.subject == "Your account is to have another address"
    assert "/link/" not in str(warning.body)
    assert re.sub(r"When: .*\n", "When: …\n", str(warning.body)) == (
        "Hello Dave Vance,\n\n"
        "Somebody signed in to your account asked for the address dave@new.example in place of this one. Nothing has changed yet: the "
        "new address has to be proven first.\n\n"
        "When: …\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        "If that was you, there is nothing to do here.\n\n"
        "If it was not you, somebody knows your password. Set a new one at once: that ends every session and makes the link to the new "
        "address worthless.\nhttp://login.portal.localhost:8000/password/forgot/\n\n"
        "-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )
    assert User.objects.named(NEW) is None
    visitor().get(link_in(proof, "link/verify"))
    assert dave().email == "dave@acme.example"
    page = visitor().post(link_in(proof, "link/verify"))
    assert "dave@new.example belongs to the account dave" in words(page)
    assert (dave().email, dave().new_email) == (NEW, "")
    assert User.objects.named("dave@acme.example") is None
    assert User.objects.named(NEW) == dave()
    assert browser.is_in()
    kinds = Event.objects.filter(subject=cast["dave"], kind__startswith="email").order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["email_change_asked", "email_changed"]


def test_the_mail_to_the_address_from_before_is_this(cast: dict[str, User], visitor: Open) -> None:
    sent = moved(visitor("dave"))
    assert (sent.subject, sent.to) == ("Your account has another address now", ["dave@acme.example"])
    link = link_in(sent, "link/take-back")
    assert re.sub(r"When: .*\n", "When: …\n", str(sent.body)) == (
        "dave@new.example was proven and took the place of this address. From now on it signs in, and new passwords and warnings go "
        "there.\n\n"
        "When: …\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        "If that was you, there is nothing to do.\n\n"
        "If it was not you: the link below makes this address the account’s again, ends every session and makes the password "
        "worthless. You then get a mail with which you set a new one. It works once, for seven days, and nothing happens before you "
        "confirm.\n\n"
        f"Take the address back:\n{link}\n\n"
        "-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


@pytest.mark.asvs("7.5.1")
def test_the_page_asks_for_a_fresh_proof_first(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    Session.objects.update(proved_at="2020-01-01T00:00Z")
    browser.get(portal_url(PAGE))
    assert browser.url.startswith(portal_url("/step-up/"))
    page = change(browser)
    assert "Prove that it is you" in words(page)
    assert dave().new_email == ""
    browser.post(portal_url(PAGE), {"email": NEW, "proof-password": "gatehouse-demo"})
    assert dave().new_email == NEW


def test_the_page_shows_what_waits_sends_it_again_and_drops_it(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = visitor("dave")
    assert "Drop the change" not in words(browser.get(portal_url(PAGE)))
    change(browser)
    first = link_in(to(NEW, delivered()), "link/verify")
    page = browser.post(portal_url(PAGE), {"again": "1"})
    assert "A mail left a moment ago" in words(page)
    assert not delivered()
    monkeypatch.setattr(addresses, "PAUSE", timedelta(0))
    browser.post(portal_url(PAGE), {"again": "1"})
    second = link_in(to(NEW, delivered()), "link/verify")
    assert "only the link in the newest works" in words(visitor().get(first))
    assert "Waits for its proof dave@new.example" in words(browser.get(portal_url(PAGE)))
    page = browser.post(portal_url(PAGE), {"cancel": "1"})
    assert "The change is dropped" in words(page)
    browser.post(portal_url(PAGE), {"cancel": "1"})  # a double click
    assert visitor().post(second).status_code == 404
    assert (dave().email, dave().new_email) == ("dave@acme.example", "")
    assert Event.objects.filter(kind="email_change_dropped").count() == 1


def test_the_latest_of_two_changes_counts(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    change(browser, "one@new.example")
    first = link_in(to("one@new.example", delivered()), "link/verify")
    change(browser, "two@new.example")
    second = link_in(to("two@new.example", delivered()), "link/verify")
    assert visitor().post(first).status_code == 404
    assert visitor().post(second).status_code == 200
    assert dave().email == "two@new.example"


def test_two_changes_in_one_second_mail_the_latest_only(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    change(browser, "one@new.example")
    change(browser, "two@new.example")
    assert sorted(sent.to[0] for sent in delivered()) == ["dave@acme.example", "two@new.example"]


@pytest.mark.asvs("6.3.8")
def test_somebody_elses_address_gets_the_same_answer_and_its_owner_a_mail(cast: dict[str, User], visitor: Open) -> None:
    pages = []
    for name, address in (("dave", "bob@acme.example"), ("alice", "bib@acme.example")):
        page = change(visitor(name), address)
        pages.append(words(page).replace(address, "…").replace(f"{name}@acme.example", "…"))
    assert pages[0] == pages[1]
    sent = delivered()
    assert to("bob@acme.example", sent).subject == "You have an account already"
    assert to("bib@acme.example", sent).subject == "Prove that this address is yours"
    assert "/link/" not in str(to("bob@acme.example", sent).body)


@pytest.mark.parametrize(
    "address", ["", "no address", "dave@acme.example", "DAVE@ACME.example", "d\u0430ve@x.example", "x" * 10_000 + "@x.example"]
)
def test_what_is_no_other_address_is_an_error_beside_the_field(cast: dict[str, User], visitor: Open, address: str) -> None:
    page = change(visitor("dave"), address)
    assert page.status_code == 200
    assert said(page, "email")
    assert dave().new_email == ""
    assert not delivered()


def test_one_account_does_not_write_to_a_list_of_strangers(cast: dict[str, User], visitor: Open) -> None:
    browser, arrived = visitor("dave"), []
    for n in range(14):
        page = change(browser, f"victim{n}@x.example")
        arrived += [sent.to[0] for sent in delivered() if sent.to[0] != "dave@acme.example"]
    assert len(arrived) == addresses.MOST_OF_ONE
    assert "many did in the last hour" in words(page)


def test_an_address_that_was_never_proven_can_be_corrected(cast: dict[str, User], visitor: Open) -> None:
    User.objects.create_user("frank", "frnak@x.example", password="three little words")
    browser = visitor()
    browser.sign_in("frank", "three little words")
    page = browser.get(portal_url(PAGE))
    assert "frnak@x.example Not proven" in words(page)
    change(browser, "frank@x.example")
    (sent,) = delivered()  # nobody has proven the other one: it is not told
    visitor().post(link_in(sent, "link/verify"))
    assert User.objects.get(username="frank").email == "frank@x.example"
    assert not delivered()


@pytest.mark.asvs("6.3.7")
def test_a_new_password_makes_the_link_to_a_thiefs_address_worthless(cast: dict[str, User], visitor: Open) -> None:
    change(visitor("dave"), "thief@x.example")
    link = link_in(to("thief@x.example", delivered()), "link/verify")
    sessions.change_password(dave(), "three little words", by=None, request=None)
    page = visitor().post(link)
    assert page.status_code == 404
    assert "another password by now" in words(page)
    assert dave().email == "dave@acme.example"


# --- Taking back ----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.7")
def test_the_old_address_takes_itself_back_and_the_thief_is_out(cast: dict[str, User], visitor: Open) -> None:
    thief = visitor("dave", at="acme")
    link = link_in(moved(thief), "link/take-back")
    owner = visitor()
    page = owner.get(link)
    assert "The account dave was given another address in place of dave@acme.example" in words(page)
    owner.head(link)
    assert dave().email == NEW  # looking changes nothing
    page = owner.post(link)
    assert "The address is the account’s again" in words(page)
    assert dave().email == "dave@acme.example"
    assert not thief.is_in()
    assert not thief.is_in("acme")
    assert not visitor("dave").is_in()  # the thief knows that password
    _told, sent = delivered()
    assert sent.to == ["dave@acme.example"]
    owner.post(link_in(sent, "password/reset"), {"password": "three little words"})
    owner.sign_in("dave@acme.example", "three little words")
    assert owner.is_in()
    assert "The address is the account’s again" in words(visitor().post(link))  # the second click


def test_in_a_browser_that_was_signed_in_the_page_stays_to_be_read(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    page = browser.post(link_in(moved(browser), "link/take-back"))
    assert "Look into your mail" in words(page)
    assert "data-alive" not in page.content.decode()  # with it, the script would lead on to the sign-in at once
    assert not browser.is_in()


def test_a_thief_who_changes_the_address_twice_keeps_nothing(cast: dict[str, User], visitor: Open) -> None:
    thief = visitor("dave")
    to_owner = link_in(moved(thief, "thief1@x.example"), "link/take-back")
    to_thief = link_in(moved(thief, "thief2@x.example"), "link/take-back")
    visitor().post(to_owner)
    assert dave().email == "dave@acme.example"
    answer = visitor().post(to_thief)
    assert answer.status_code == 404
    assert "turn to the people who run your place" in words(answer)
    assert dave().email == "dave@acme.example"


def test_the_thief_taking_back_first_does_not_stop_the_owner(cast: dict[str, User], visitor: Open) -> None:
    thief = visitor("dave")
    to_owner = link_in(moved(thief, "thief1@x.example"), "link/take-back")
    to_thief = link_in(moved(thief, "thief2@x.example"), "link/take-back")
    visitor().post(to_thief)
    assert dave().email == "thief1@x.example"
    visitor().post(to_owner)
    assert dave().email == "dave@acme.example"


def test_a_new_password_does_not_stop_the_owner_and_seven_days_do(cast: dict[str, User], visitor: Open) -> None:
    thief = visitor("dave")
    link = link_in(moved(thief), "link/take-back")
    sessions.change_password(dave(), "a thief's password", by=None, request=None)
    assert visitor().get(link).status_code == 200
    made = Link.objects.get(purpose=Link.Purpose.TAKE_BACK)
    assert made.expires_at - made.made_at == timedelta(days=7)
    Link.objects.update(expires_at=made.made_at)
    for answer in (visitor().get(link), visitor().post(link)):
        assert answer.status_code == 404
        assert "for seven days" in words(answer)
    assert dave().email == NEW


def test_an_address_that_is_somebody_elses_by_now_is_not_taken_back(cast: dict[str, User], visitor: Open) -> None:
    link = link_in(moved(visitor("dave")), "link/take-back")
    heir = User.objects.get(username="mallory")
    heir.email, heir.email_verified_at = "dave@acme.example", heir.date_joined
    heir.save()
    answer = visitor().post(link)
    assert answer.status_code == 409
    assert "done by hand" in words(answer)
    assert dave().email == NEW
    assert Link.objects.get(purpose=Link.Purpose.TAKE_BACK).used_at is None


# --- At once --------------------------------------------------------------------------------------------------------


def at_once(*acts: Callable[[], object]) -> None:
    """Every act in a thread and on a connection of its own, from one start."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        try:
            start.wait(20)
            act()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.mark.asvs("2.3.4", "15.4.2")
@pytest.mark.django_db(transaction=True)
def test_of_two_accounts_that_prove_one_address_at_once_one_has_it() -> None:
    people()
    for n in range(10):
        address = f"shared{n}@x.example"
        pair = [User.objects.create_user(f"one{n}", address), User.objects.create_user(f"two{n}", address)]
        made = [links.make(Link.Purpose.VERIFY, user, email=address, next="") for user in pair]
        statuses: list[int] = []
        at_once(*(lambda link=link, statuses=statuses: statuses.append(Visitor().post(link).status_code) for link in made))
        assert sorted(statuses) == [200, 409], f"round {n}: {statuses}"
        assert User.objects.filter(email_key=address).count() == 1
        assert User.objects.filter(username__in=[f"one{n}", f"two{n}"], email_verified_at=None, email_key=None).count() == 1


@pytest.mark.asvs("15.4.2")
@pytest.mark.django_db(transaction=True)
def test_of_parallel_clicks_one_proves_and_all_are_told_so() -> None:
    people()
    for n in range(10):
        user = User.objects.create_user(f"frank{n}", f"frank{n}@x.example")
        link = links.make(Link.Purpose.VERIFY, user, email=user.email, next="")
        told: list[str] = []
        at_once(*[lambda link=link, told=told: told.append(words(Visitor().post(link))) for _ in range(4)])
        assert len(told) == 4
        assert all("Your address is proven" in text for text in told), told
        assert Event.objects.filter(kind="email_proven", subject=user).count() == 1


@pytest.mark.asvs("15.4.2", "15.4.3")
@pytest.mark.django_db(transaction=True)
def test_a_take_back_against_another_change_ends_with_the_owners_address() -> None:
    """Whichever is first: the address is the owner's, no session and no link of the thief's is good."""
    cast = people()
    for n in range(10):
        user = User.objects.create_user(f"owner{n}", f"thief{n}@x.example", password=None, email_verified_at=cast["dave"].date_joined)
        back = links.make(Link.Purpose.TAKE_BACK, user, email=f"owner{n}@x.example")
        user.new_email = f"thief{n}b@x.example"
        user.save()
        onward = links.make(Link.Purpose.VERIFY, user, email=user.new_email, next="")
        at_once(partial(Visitor().post, back), partial(Visitor().post, onward))
        user.refresh_from_db()
        assert (user.email, user.new_email) == (f"owner{n}@x.example", ""), f"round {n}"
        good = Link.objects.filter(user=user, used_at=None).exclude(purpose=Link.Purpose.PASSWORD)
        assert not good.exists(), list(good.values("purpose", "data"))


# --- Forms of an address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        (" Dave@ACME.example ", None),
        ("Dave@ACME.example", "Dave@acme.example"),
        ("dave@BÜCHER.example", "dave@xn--bcher-kva.example"),
        ("dave@ａcme.example", "dave@acme.example"),
        ("dave+tag@acme.example", "dave+tag@acme.example"),
    ],
)
def test_an_address_is_stored_as_the_mail_goes(typed: str, stored: str | None) -> None:
    if stored is None:
        with pytest.raises(ValidationError):
            addresses.checked(typed)
    else:
        assert addresses.checked(typed) == stored
        assert fold(addresses.checked(typed)) == fold(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "a@b@c.example",
        "da\u212ae@x.example",
        "x@" + "y" * 64 + ".example",
        "xxxx@" + ".".join(["y" * 60] * 4) + ".example",
        "x@-.example",
        "x@ü..example",
    ],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ValidationError):
        addresses.checked(typed)


def test_nobody_is_invited_at_an_address_that_only_looks_like_anothers(cast: dict[str, User], acme: Tenant) -> None:
    assert invitations.invite(acme, "da\u212ae@acme.example", "member").result is invitations.Result.MALFORMED
    assert not Mail.objects.exists()


def test_a_domain_of_sign_up_is_compared_as_dns_knows_it() -> None:
    rules = Policy(sign_up="domain", sign_up_domains="Bücher.example, acme.example")
    assert [rules.lets_in(f"x@{domain}") for domain in ("xn--bcher-kva.example", "BÜCHER.example", "acme.example", "b.example", "")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="host name"):
        Policy(sign_up="domain", sign_up_domains="@acme.example")


def test_an_upgrade_frees_the_addresses_that_nobody_has_proven(cast: dict[str, User]) -> None:
    """As the release before left them: an unproven address was a key, and kept everybody else from it."""
    User.objects.filter(username="alice").update(email_verified_at=None, email_key="alice@acme.example")
    User.objects.filter(username="bob").update(email="bob@bücher.example", email_key="bob@bücher.example")
    import_module("identity.migrations.0005_life").unproven_is_no_key(apps, None)
    keys = dict(User.objects.filter(username__in=["alice", "bob", "dave"]).values_list("username", "email_key"))
    assert keys == {"alice": None, "bob": "bob@xn--bcher-kva.example", "dave": "dave@acme.example"}


def test_a_row_for_somebody_who_has_gone_on_mails_nobody(cast: dict[str, User]) -> None:
    request = RequestFactory().get("/")
    addresses.ask_to_change(dave(), NEW, request=request)
    addresses.forget_change(dave(), request=request)
    sent = delivered()
    assert [each.to for each in sent] == [["dave@acme.example"]]
    assert not Mail.objects.filter(kind=addresses.ASKED).exists()
    User.objects.filter(username="bob").update(is_active=False)
    addresses.ask_to_change(cast["bob"], "bob@new.example", request=request)
    assert "bob@new.example" not in [each.to[0] for each in delivered()]
