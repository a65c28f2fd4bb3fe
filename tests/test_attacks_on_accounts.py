"""Attacks on mails and on the life of an account that worked once. Each has its promise here."""

import json
import logging
import re
import secrets
import uuid
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from django.core import mail
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import transaction
from django.test import RequestFactory
from django.urls import URLPattern, reverse
from django.utils import timezone

from identity import addresses, invitations, leaving, links, mails, members
from identity.members import Actor
from identity.models import Bucket, Event, Link, Mail, User
from portal.logs import JsonFormatter, PlainFormatter
from portal.urls import urlpatterns
from tenants.models import Invitation, Tenant
from tests.conftest import people
from tests.post import delivered, link_in
from tests.test_addresses import at_once, moved, to
from tests.test_invitations import a_moment_later, invite, role_of
from tests.test_mails import later, note
from tests.test_signup import words
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
PHONE = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
THIEF = "thief@evil.example"


def dave() -> User:
    return User.objects.get(username="dave")


# --- Whoever knows the password, against the owner of the mailbox -------------------------------------------------------


@pytest.mark.asvs("6.3.7", "6.4.1")
def test_a_warning_that_went_to_the_thiefs_address_does_not_bring_it_back(cast: dict[str, User], visitor: Open) -> None:
    way_back = link_in(moved(visitor("dave"), THIEF), "link/take-back")
    visitor("dave", user_agent=PHONE)
    warning = link_in(to(THIEF, delivered()), "link/not-me")
    visitor().post(way_back)
    assert dave().email == "dave@acme.example"
    assert visitor().post(warning).status_code == 404
    assert dave().email == "dave@acme.example"
    assert [each.to for each in delivered() if "password" in each.subject] == [["dave@acme.example"]]


def test_every_warning_to_the_owners_own_address_stays_good(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave")
    first, second = visitor("dave", user_agent=PHONE), visitor("dave", address="203.0.113.9")
    warnings = [link_in(sent, "link/not-me") for sent in delivered()]
    assert len(warnings) == 2
    for link in warnings:
        visitor().post(link)
    assert not first.is_in()
    assert not second.is_in()


@pytest.mark.asvs("6.3.7")
@pytest.mark.parametrize("path", ["link/take-back", "link/not-me"])
def test_a_thief_who_asks_to_delete_the_account_does_not_keep_its_owner_out(cast: dict[str, User], visitor: Open, path: str) -> None:
    visitor("dave")
    thief = visitor("dave", user_agent=PHONE)
    if path == "link/not-me":
        link = link_in(delivered()[0], path)
    else:
        link = link_in(moved(thief, THIEF), path)
    thief.post(portal_url("/account/delete/"), {"confirm": "dave"})
    assert dave().delete_at
    assert visitor().post(link).status_code == 200
    assert (dave().delete_at, dave().email) == (None, "dave@acme.example")
    assert Event.objects.filter(kind="deletion_undone", subject=dave()).exists()


@pytest.mark.asvs("6.3.7")
def test_the_address_that_has_to_go_is_told_and_learns_nothing_of_who_did_it(cast: dict[str, User], visitor: Open) -> None:
    """The owner has moved away from a mailbox that somebody else reads: he must hear of what happens by it."""
    way_back = link_in(moved(visitor("dave"), "dave@new.example"), "link/take-back")
    visitor(address="203.0.113.9").post(way_back)
    told = to("dave@new.example", delivered())
    assert told.subject == "This address is not your account’s any more"
    assert "203.0.113.9" not in str(told.message())
    assert "/link/" not in str(told.message())
    assert mail.outbox[-1].to == ["dave@acme.example"]


# --- Invitations --------------------------------------------------------------------------------------------------------


def demote(person: User, tenant: Tenant) -> None:
    members.change_role(tenant, person, "member")


def operate_no_more(person: User, tenant: Tenant) -> None:
    """Neither by a membership nor as an operator."""
    User.objects.filter(pk=person.pk).update(is_superuser=False)


@pytest.mark.asvs("8.3.2")
@pytest.mark.parametrize(
    ("who", "lose"),
    [
        ("bob", demote),
        ("bob", lambda person, tenant: members.block(tenant, person)),
        ("bob", lambda person, tenant: members.remove(tenant, person)),
        ("bob", lambda person, tenant: call_command("user", "deactivate", person.username, stdout=StringIO())),
        ("bob", lambda person, tenant: leaving.carry_out(person, now=True)),
        ("erin", operate_no_more),
    ],
)
def test_who_may_not_invite_any_more_has_nobody_let_in(
    cast: dict[str, User], acme: Tenant, visitor: Open, who: str, lose: Callable[[User, Tenant], object]
) -> None:
    link = invite(acme, "mallory@nowhere.example", "admin", by=cast[who])
    own = invite(acme, "frank@new.example", "admin", by=cast["olivia"])
    User.objects.filter(username="mallory").update(email_verified_at=timezone.now(), email_key="mallory@nowhere.example")
    lose(cast[who], acme)
    mallory = visitor("mallory")
    assert mallory.post(link, {"accept": ""}).status_code == 410
    assert mallory.get(portal_url("/?places=1")).content.count(b"Accept") == 0
    assert mallory.post(portal_url("/invitation/accept"), {"id": str(Invitation.objects.earliest("pk").pk)}).status_code == 404
    assert (role_of("mallory"), Invitation.objects.filter(accepted_at__isnull=False).count()) == ("", 0)
    assert visitor().get(own).status_code == 200


def test_an_owner_who_became_an_admin_has_no_owner_let_in_but_members(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    members.change_role(acme, cast["bob"], "owner")
    high = invite(acme, "one@new.example", "owner", by=cast["bob"])
    low = invite(acme, "two@new.example", "member", by=cast["bob"])
    members.change_role(acme, cast["bob"], "admin")
    page = visitor().get(high)
    assert page.status_code == 410
    assert "Ask somebody else there for a new one" in page.content.decode()
    assert visitor().get(low).status_code == 200


def test_the_list_says_which_invitations_do_not_count_and_another_admin_sends_them_anew(
    cast: dict[str, User], acme: Tenant, visitor: Open
) -> None:
    link = invite(acme, "frank@new.example", by=cast["bob"])
    members.remove(acme, cast["bob"])
    olivia = visitor("olivia")
    here = portal_url("/console/acme/people/")
    assert ">Ended<" in olivia.get(f"{here}?state=invited").content.decode()
    listed = StringIO()
    call_command("invite", "list", "acme", "--json", stdout=listed)
    assert [each["open"] for each in json.loads(listed.getvalue())["invitations"]] == [False]
    a_moment_later(acme)
    olivia.post(f"{here}act", {"resend": str(Invitation.objects.get().pk)})
    assert ">Ended<" not in olivia.get(f"{here}?state=invited").content.decode()
    assert visitor().get(link_in(delivered()[-1], "invitation")).status_code == 200
    assert visitor().get(link).status_code == 404


@pytest.mark.asvs("15.4.2")
@pytest.mark.django_db(transaction=True)
def test_an_address_that_is_proven_while_somebody_signs_up_with_it_is_one_accounts_and_no_name_is_blamed() -> None:
    people()
    acme = Tenant.objects.get(slug="acme")
    for n in range(8):
        address = f"shared{n}@x.example"
        rival = User.objects.create_user(f"one{n}", address)
        invited, proof = invite(acme, address), links.make(Link.Purpose.VERIFY, rival, email=address, next="")
        pages: list[str] = []
        form = {"username": f"two{n}", "password": "three little words"}

        def sign_up(invited: str = invited, form: dict[str, str] = form, pages: list[str] = pages) -> None:
            pages.append(words(Visitor().post(invited, form, follow=False)))

        at_once(sign_up, partial(Visitor().post, proof))
        assert User.objects.filter(email_key=address).count() == 1
        assert len(pages) == 1
        assert "That name is already in use" not in pages[0]


@pytest.mark.asvs("6.3.8")
def test_a_scanner_that_opens_old_mails_guesses_nothing(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    for purpose in (Link.Purpose.UNLOCK, Link.Purpose.NOT_ME, Link.Purpose.PASSWORD):
        link = links.make(purpose, cast["dave"], session=str(uuid.uuid4()), device=1, email="dave@acme.example")
        Link.objects.update(used_at=timezone.now())
        assert browser.get(link).status_code == 404
        browser.head(link)
    assert not Bucket.objects.exclude(failed=0).exists()
    browser.get(portal_url(f"/link/unlock/{'x' * 43}/"))
    assert Bucket.objects.get(kind=Bucket.Kind.ADDRESS).failed == 1


# --- Floods -------------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("2.4.1")
def test_no_tenant_floods_an_address_with_invitations(cast: dict[str, User], acme: Tenant) -> None:
    """Neither by changing the role to and fro nor by taking back what was sent."""
    for n in range(12):
        line = invitations.invite(acme, "Victim@x.example", ["member", "admin"][n % 2], by=Actor(cast["bob"]))
        assert line.is_good
        if n % 3 == 2:
            Invitation.objects.filter(accepted_at=None).update(revoked_at=timezone.now())
    assert [each.to for each in delivered()] == [["Victim@x.example"]] * invitations.MOST
    assert invitations.invite(acme, "other@x.example", "member").result is invitations.Result.SENT


@pytest.mark.asvs("2.4.1")
def test_plus_signs_make_no_flood_of_one_mailbox(cast: dict[str, User]) -> None:
    request = RequestFactory().post("/signup/")
    for n in range(25):
        person = User.objects.create_user(f"flood{n}", f"victim+{n}@x.example")
        with transaction.atomic():
            addresses.ask_to_prove(person, person.email, request=request)
    assert len(delivered()) == addresses.MOST_OF_MAILBOX < 25


@pytest.mark.parametrize("address", ['"a\\ b"@x.example', '"<x>,y"@x.example', '"victim@a.example"@evil.example', '"\x01"@x.example'])
def test_an_address_in_quotes_is_none(cast: dict[str, User], acme: Tenant, address: str) -> None:
    """It could read like another one in a list, and holds what a header stumbles over; nobody has such a one."""
    with pytest.raises(ValidationError):
        addresses.checked(address)
    assert invitations.invite(acme, address, "member").result is invitations.Result.MALFORMED


@pytest.mark.parametrize("address", ["root@[127.0.0.1]", "root@[::1]"])
def test_nobody_is_invited_at_a_bare_machine(cast: dict[str, User], acme: Tenant, address: str) -> None:
    assert invitations.invite(acme, address, "member").result is invitations.Result.MALFORMED


# --- The queue ----------------------------------------------------------------------------------------------------------


def test_a_mail_that_kills_its_worker_each_time_is_given_up(cast: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    note(cast["alice"])
    with monkeypatch.context() as broken:
        broken.setattr(mails, "_send", lambda mail: (_ for _ in ()).throw(KeyboardInterrupt))
        for _try in range(len(mails.AGAIN) + 1):
            with pytest.raises(KeyboardInterrupt):
                mails.deliver()
            later(seconds=mails.TAKEN.total_seconds() + 1)
        assert mails.deliver() == 0
    row = Mail.objects.get()
    assert (row.failed_at is not None, row.due_at, row.tries) == (True, None, len(mails.AGAIN) + 2)
    assert Event.objects.filter(kind="mail_failed", subject=cast["alice"]).exists()
    assert mails.retry(mails.failed()) == 1
    assert mails.deliver() == 1


@pytest.mark.asvs("16.2.5")
@pytest.mark.parametrize("kind", ["json", "plain"])
def test_no_log_line_has_a_token_from_an_address_in_it(kind: str) -> None:
    """Django logs the path of a request that fails, and the link in it is good still."""
    token = secrets.token_urlsafe(32)
    record = logging.makeLogRecord({"msg": "Internal Server Error: %s", "args": (f"/password/reset/{token}/",), "levelno": logging.ERROR})
    line = (JsonFormatter() if kind == "json" else PlainFormatter()).format(record)
    assert "Internal Server Error: /password/reset/…/" in line
    assert token not in line


@pytest.mark.asvs("16.2.5", "14.2.1")
def test_nginx_logs_no_token_of_any_route() -> None:
    token, conf = secrets.token_urlsafe(32), (Path(__file__).parent.parent / "deploy" / "nginx.conf").read_text()
    found = re.search(r'"~(\^\(\?<gatehouse_link>.+)" "\$\{gatehouse_link\}\.\.\.";', conf)
    assert found
    hides = re.compile(found[1].replace("?<", "?P<"))
    routes = [route for route in urlpatterns if isinstance(route, URLPattern) and "token" in str(route.pattern) and route.name]
    assert len(routes) > 5
    for route in routes:
        path = reverse(f"{route.name}", args=[token], urlconf="portal.urls")
        shown = hides.match(path)
        assert shown, f"{path} stands in nginx's log as it is"
        assert token not in shown["gatehouse_link"]


# --- After the end ------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.4")
def test_mails_from_before_the_account_go_with_it_too(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, "Frank@new.example")
    visitor().post(link, {"username": "frank", "password": "three little words"})
    leaving.carry_out(User.objects.get(username="frank"), now=True)
    assert list(Mail.objects.values_list("kind", "to")) == [("account_deleted", "Frank@new.example")]


def test_who_says_that_an_address_is_his_takes_no_mail_of_its_owner_along(cast: dict[str, User], acme: Tenant) -> None:
    squatter = User.objects.create_user("squatter", "victim@x.example")
    invitations.invite(acme, "victim@x.example", "member")
    leaving.carry_out(squatter, now=True)
    assert [each.to for each in delivered()] == [["victim@x.example"]]
