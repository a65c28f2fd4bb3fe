"""Leaving for good: closed at once, seven days to come back, then gone, and no name stays in the log."""

import json
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone

from identity import factors, invitations, leaving, links, mails, members, names, sessions
from identity.members import Actor
from identity.models import Event, KnownDevice, Link, Mail, Session, User
from tenants.models import Invitation, Membership, Tenant
from tests.conftest import PASSWORD
from tests.test_profile import banner, error_of, proof_is_old, text_of
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
DELETE = "/account/delete/"


def ask(browser: Visitor, name: str = "dave") -> Any:
    return browser.post(portal_url(DELETE), {"confirm": name})


def make_due(name: str = "dave") -> None:
    """Let seven days pass."""
    User.objects.filter(username=name).update(delete_at=timezone.now() - timedelta(seconds=1))


# --- Asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.2")
def test_asking_ends_every_session_at_once(cast: dict[str, User], visitor: Open) -> None:
    dave, phone = visitor("dave", at="acme"), visitor("dave", at="globex")
    page = ask(dave)
    assert "Your account is closed" in text_of(page)
    assert "data-alive" not in page.content.decode()  # the page stays, and is not sent to the sign-in
    assert not any([dave.is_in(), dave.is_in("acme"), phone.is_in(), phone.is_in("globex")])
    assert set(Session.objects.filter(user=cast["dave"]).values_list("end_reason", flat=True)) == {"deleted"}
    person = User.objects.get(username="dave")
    assert person.delete_at
    assert timedelta(days=6, hours=23) < person.delete_at - timezone.now() <= timedelta(days=7)


@pytest.mark.asvs("7.5.1")
def test_asking_takes_a_fresh_proof_and_the_typed_name(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert error_of(ask(dave, "Dave"), "confirm") == "That is not your user name. Type “dave” to go on."
    assert error_of(ask(dave, ""), "confirm")
    proof_is_old(cast["dave"])
    assert "Prove that it is you" in text_of(ask(dave))
    assert User.objects.get(username="dave").delete_at is None
    dave.get(portal_url(DELETE), follow=False)
    assert User.objects.get(username="dave").delete_at is None
    assert dave.is_in()


def test_a_double_click_asks_once(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    twin = visitor(cookies=list(dave.cookies))
    ask(dave)
    at = User.objects.get(username="dave").delete_at
    assert "/login/" in twin.post(portal_url(DELETE), {"confirm": "dave"}).request["PATH_INFO"]
    leaving.ask(cast["dave"], by=cast["dave"])
    assert User.objects.get(username="dave").delete_at == at
    assert Event.objects.filter(kind="deletion_asked").count() == 1


def test_the_person_is_told_by_mail_with_the_way_back(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(time_zone="Asia/Tokyo")
    ask(visitor("dave", address="203.0.113.7"))
    mails.deliver()
    (told,) = [each for each in mail.outbox if each.subject == "Your account will be deleted"]
    assert told.to == ["dave@acme.example"]
    assert "203.0.113.7" in told.body
    assert re.search(r"On .+ at \d\d:\d\d JST it is deleted for good", str(told.body))
    assert "choose “Keep my account”:\nhttp://login.portal.localhost:8000/login/" in told.body
    assert "http://login.portal.localhost:8000/password/forgot/" in told.body


def test_links_from_before_are_worthless(cast: dict[str, User], visitor: Open) -> None:
    link = links.make(Link.Purpose.PASSWORD, cast["dave"])
    ask(visitor("dave"))
    assert visitor().get(link).status_code == 404


# --- Seven days ------------------------------------------------------------------------------------------------------


def test_who_comes_back_sees_one_page_and_may_keep_the_account(cast: dict[str, User], visitor: Open) -> None:
    ask(visitor("dave"))
    dave = visitor("dave")
    assert "This account is about to go" in text_of(dave.page)
    for path in ("/", "/account/", "/account/sessions/", "/account/delete/", "/console/", "/step-up/", "/account/export/"):
        assert dave.get(portal_url(path), follow=False).headers["Location"] == "/account/keep/", path
    assert "This account is about to go" in text_of(dave.get(tenant_url("acme")))
    assert not dave.is_in("acme")
    assert User.objects.get(username="dave").delete_at  # looking changes nothing
    assert banner(dave.post(portal_url("/account/keep/"))) == "Your account stays, with everything in it."
    assert User.objects.get(username="dave").delete_at is None
    dave.get(tenant_url("acme"))
    assert dave.is_in("acme")
    assert dave.get(portal_url("/account/keep/"), follow=False).headers["Location"] == "/"


def test_the_hour_of_the_end_is_told_by_the_persons_clock(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(time_zone="Asia/Tokyo")
    told = re.search(r"at (\d\d:\d\d) the account is deleted", text_of(ask(visitor("dave"))))
    again = re.search(r"at (\d\d:\d\d) it is gone", text_of(visitor("dave").page))
    at = User.objects.get(username="dave").delete_at
    assert told
    assert again
    assert at
    assert told[1] == again[1] == f"{at.astimezone(ZoneInfo('Asia/Tokyo')):%H:%M}"


def test_who_belongs_to_one_place_is_stopped_before_it(cast: dict[str, User], visitor: Open) -> None:
    ask(visitor("alice"), "alice")
    assert "This account is about to go" in text_of(visitor("alice", at="acme").page)
    assert "This account is about to go" in text_of(visitor("alice").page)


def test_an_account_that_was_kept_is_not_deleted(cast: dict[str, User]) -> None:
    leaving.ask(cast["dave"], by=cast["dave"])
    make_due()
    assert leaving.undo(cast["dave"], by=cast["dave"])
    assert not leaving.undo(cast["dave"], by=cast["dave"])
    assert leaving.carry_out_due() == 0
    assert User.objects.filter(username="dave").exists()


# --- Who cannot leave --------------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.3.1")
def test_the_last_owner_cannot_leave_and_reads_what_to_do(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    olivia = visitor("olivia")
    said = text_of(olivia.get(portal_url(DELETE)))
    assert "You are the last owner of Acme, and a place needs one. Make somebody else an owner there first" in said
    assert "You are the last owner of Globex" in said
    ask(olivia, "olivia")
    assert olivia.is_in()
    assert User.objects.get(username="olivia").delete_at is None
    Membership.objects.filter(user=cast["bob"]).update(role="owner")
    Membership.objects.filter(user=cast["carol"]).update(role="owner")
    ask(olivia, "olivia")
    assert not olivia.is_in()


def test_an_owner_who_is_leaving_counts_for_no_one(cast: dict[str, User], acme: Tenant) -> None:
    Membership.objects.filter(user=cast["bob"]).update(role="owner")
    Membership.objects.filter(user=cast["olivia"]).exclude(tenant=acme).delete()
    leaving.ask(cast["olivia"], by=None)
    with pytest.raises(leaving.LastOwner):
        leaving.ask(cast["bob"], by=None)
    with pytest.raises(members.LastOwner):
        members.remove(acme, cast["bob"])
    assert leaving.undo(cast["olivia"], by=None)
    leaving.ask(cast["bob"], by=None)


def test_the_last_operator_cannot_leave(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    assert "You are the last operator of this portal" in text_of(erin.get(portal_url(DELETE)))
    ask(erin, "erin")
    assert User.objects.get(username="erin").delete_at is None
    User.objects.filter(username="dave").update(is_superuser=True)
    leaving.ask(User.objects.get(username="dave"), by=None)
    with pytest.raises(leaving.LastOperator):
        leaving.ask(cast["erin"], by=None)
    with pytest.raises(CommandError, match="last operator"):
        call_command("operator", "revoke", "erin")


@pytest.mark.django_db(transaction=True)
def test_the_last_two_owners_cannot_leave_at_once(cast: dict[str, User]) -> None:
    acme = Tenant.objects.get(slug="acme")
    Membership.objects.filter(user=cast["olivia"]).exclude(tenant=acme).delete()
    Membership.objects.filter(user=cast["bob"]).update(role="owner")
    for _round in range(10):
        User.objects.update(delete_at=None)
        refused: list[str] = []
        start = threading.Barrier(2)

        def leave(name: str, refused: list[str] = refused, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                leaving.ask(cast[name], by=None)
            except leaving.LastOwner:
                refused.append(name)
            finally:
                connection.close()

        threads = [threading.Thread(target=leave, args=(name,)) for name in ("bob", "olivia")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert User.objects.filter(delete_at__isnull=False).count() == 1


# --- The end -----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.7")
def test_after_seven_days_the_account_is_gone_and_not_before(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme")
    pk = cast["dave"].pk
    leaving.ask(cast["dave"], by=cast["dave"])
    assert leaving.carry_out_due() == 0
    make_due()
    assert leaving.carry_out_due() == 1
    assert leaving.carry_out_due() == 0
    assert not User.objects.filter(pk=pk).exists()
    for model in (Session, Membership, KnownDevice, Link):
        assert not model.objects.filter(user_id=pk).exists()
    assert {event.kind for event in Event.objects.filter(subject=pk)} >= {"sign_in", "deletion_asked", "member_left", "account_deleted"}
    assert not visitor("dave").is_in()
    User.objects.create_user("dave", "dave@acme.example", password=PASSWORD)
    assert visitor("dave").is_in()


def test_prune_carries_it_out_too(cast: dict[str, User]) -> None:
    leaving.ask(cast["dave"], by=None)
    make_due()
    call_command("prune", "--dry-run", stdout=StringIO())
    assert User.objects.filter(username="dave").exists()
    call_command("prune", stdout=StringIO())
    assert not User.objects.filter(username="dave").exists()


def test_the_last_mail_says_that_it_is_done_and_the_others_go(cast: dict[str, User]) -> None:
    leaving.ask(cast["dave"], by=None)
    make_due()
    leaving.carry_out_due()
    assert [(each.kind, each.user) for each in Mail.objects.all()] == [("account_deleted", None)]
    mails.deliver()
    (last,) = mail.outbox
    assert (last.subject, last.to) == ("Your account is deleted", ["dave@acme.example"])
    assert "What the log keeps has no name in it. This is the last mail." in last.body


@pytest.mark.asvs("14.2.4")
def test_no_name_and_no_address_of_the_person_stays_anywhere(visitor: Open, acme: Tenant, cast: dict[str, User]) -> None:
    """A whole life, by every verb, then the end: what is left of it is ids."""
    call_command(
        "user", "add", "zebulon", "zebulon@quux.example", "--first", "Zebulonia", "--last", "Quuxworth", "--verified", stdout=StringIO()
    )
    person, request = User.objects.get(username="zebulon"), RequestFactory().get("/")
    person.set_password(PASSWORD)
    person.save()
    call_command("member", "add", "acme", "zebulon", stdout=StringIO())
    for verb in ("block", "unblock", "remove"):
        call_command("member", verb, "acme", "zebulon", stdout=StringIO())
    invitations.invite(acme, "zebulon@quux.example", "member", by=Actor(cast["bob"]))
    invitations.accept(invitations.open_for(person)[0], person, request=request)
    browser = visitor("zebulon", at="acme")
    visitor().sign_in("zebulon", "wrong")
    visitor().sign_in("zebulon@quux.example", "wrong")
    browser.post(portal_url("/account/"), {"part": "about", "first_name": "Zebulonius", "last_name": "Quuxworth", "bio": "Zebulon is me"})
    browser.post(portal_url("/account/name/"), {"username": "zebulon2"})
    browser.post(portal_url("/account/export/"))
    names.change(person, "zebulon3", request=request)
    call_command("user", "deactivate", "zebulon3", stdout=StringIO())
    call_command("user", "activate", "zebulon3", stdout=StringIO())
    person.refresh_from_db()
    sessions.change_password(person, "three little words", by=None, request=None)
    leaving.ask(person, by=person)
    make_due("zebulon3")
    assert leaving.carry_out_due() == 1
    mails.deliver()
    left = everything()
    assert "account_deleted" in left
    assert not re.findall(r".{30}(?:zebulon|quux).{30}", left.replace(farewell_address(), ""), re.IGNORECASE)


def farewell_address() -> str:
    """The one row that still says where the last mail went, until it is pruned."""
    return f"'{Mail.objects.get(kind='account_deleted').to}'"


def everything() -> str:
    """Every value of every row of every table."""
    texts = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')
            texts += [f"{table} {row!r}" for row in cursor.fetchall()]
    return "\n".join(texts)


def test_the_audit_log_is_whole_after_a_deletion(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme")
    leaving.carry_out(cast["dave"], now=True)
    Event.objects.get(kind="account_deleted", subject=cast["dave"].pk)
    assert "member_left" in set(Event.objects.filter(tenant__slug="acme").values_list("kind", flat=True))
    bob = visitor("bob")
    assert bob.get(portal_url("/console/acme/sessions/")).status_code == 200
    assert bob.get(portal_url("/account/activity/")).status_code == 200


def test_invitations_to_the_person_go_and_those_of_the_person_stay(cast: dict[str, User], acme: Tenant) -> None:
    Membership.objects.filter(user=cast["dave"]).delete()
    invitations.invite(acme, "dave@acme.example", "member", by=Actor(cast["bob"]))
    invitations.invite(acme, "new@acme.example", "member", by=Actor(cast["dave"]))
    leaving.carry_out(cast["dave"], now=True)
    assert [(each.email, each.invited_by) for each in Invitation.objects.all()] == [("new@acme.example", None)]


# --- By command ----------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("user", *arguments, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def test_an_operator_closes_takes_back_and_deletes_at_once(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert run("delete", "dave", "--dry-run")["changed"]
    assert dave.is_in()
    assert run("delete", "dave")["after"]["delete_at"]
    assert not run("delete", "dave")["changed"]
    assert not dave.is_in()
    assert run("delete", "dave", "--undo")["changed"]
    assert not run("delete", "dave", "--undo")["changed"]
    assert visitor("dave").is_in()
    pk = cast["dave"].pk
    assert run("delete", "dave", "--now")["id"] == pk
    assert not User.objects.filter(pk=pk).exists()
    assert [event.data["source"] for event in Event.objects.filter(kind__startswith="deletion_").order_by("pk")] == ["command line"] * 2
    for how in ([], ["--now"]):
        with pytest.raises(CommandError, match=r"manage\.py member role acme USERNAME owner"):
            call_command("user", "delete", "olivia", *how)
        with pytest.raises(CommandError, match="operator grant"):
            call_command("user", "delete", "erin", *how)


def test_a_deletion_takes_the_second_factor_with_it(cast: dict[str, User]) -> None:
    dave = cast["dave"]
    factors.enrolment(dave)
    leaving.carry_out(dave, now=True)
    assert not factors.has_factor(dave)
