"""Attacks on mails and on the life of an account that worked once. Each has its promise here."""

from collections.abc import Callable
from io import StringIO

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone

from identity import leaving, members
from identity.models import Event, User
from tenants.models import Invitation, Tenant
from tests.post import delivered, link_in
from tests.test_addresses import moved, to
from tests.test_invitations import a_moment_later, invite, role_of
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
    people = portal_url("/console/acme/people/")
    assert ">Ended<" in olivia.get(f"{people}?state=invited").content.decode()
    a_moment_later(acme)
    olivia.post(f"{people}act", {"resend": str(Invitation.objects.get().pk)})
    assert ">Ended<" not in olivia.get(f"{people}?state=invited").content.decode()
    assert visitor().get(link_in(delivered()[-1], "invitation")).status_code == 200
    assert visitor().get(link).status_code == 404
