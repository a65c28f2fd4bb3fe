"""The people of a tenant: who sees them, who may do what about whom, and that nothing of it reaches another tenant."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import RequestFactory
from django.utils import timezone

from identity import factors, groups, invitations, mails, members
from identity.invitations import Result
from identity.members import Actor
from identity.models import Event, Mail, Session, TotpDevice, User
from tenants.models import Invitation, JoinRequest, Membership, Tenant
from tests.test_commands import manage, told
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PEOPLE, INVITE, ACT = "/console/acme/people/", "/console/acme/people/invite/", "/console/acme/people/act"
HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}


def text(page: Any) -> str:
    """What stands on a page, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<head>.*?</head>", "", page.content.decode(), flags=re.DOTALL)).split())


def listed(page: Any) -> list[str]:
    return re.findall(r'data-person="([^"]+)"', page.content.decode())


def role_of(name: str, slug: str = "acme") -> str:
    found = Membership.objects.filter(user__username=name, tenant__slug=slug).first()
    return found.role if found else ""


def do(browser: Visitor, verb: str, who: object, **fields: Any) -> Any:
    return browser.post(portal_url(ACT), {verb: str(who), **fields})


def waits(name: str, tenant: Tenant) -> JoinRequest:
    return JoinRequest.objects.create(tenant=tenant, user=User.objects.get(username=name), created_at=timezone.now())


def old_proof(browser: Visitor) -> None:
    """As if this browser had proven itself an hour ago."""
    row = browser.session()
    Session.objects.filter(pk=row.pk).update(proved_at=timezone.now() - timedelta(hours=1))


def memberships() -> list[tuple[Any, ...]]:
    return list(Membership.objects.order_by("pk").values_list("tenant__slug", "user__username", "role", "blocked_at"))


# --- The list -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.2.2")
def test_the_list_shows_this_tenants_people_and_nobody_elses(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    invitations.invite(globex, "secret@globex.example", "member")
    waits("mallory", globex)
    visitor("dave", at="acme")
    bob = visitor("bob")
    page = bob.get(portal_url(PEOPLE))
    assert listed(page) == ["alice", "bob", "dave", "olivia"]
    assert "4 members" in text(page)
    for state in ("invited", "waiting"):
        page = bob.get(portal_url(f"{PEOPLE}?state={state}"))
        assert listed(page) == []
        assert "secret@globex.example" not in page.content.decode()
        assert "mallory" not in page.content.decode()


def test_each_row_says_role_factor_last_seen_and_state(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(cast["alice"]).pk).update(confirmed=True)
    visitor("dave", at="acme")
    members.block(acme, cast["alice"])
    rows = visitor("bob").get(portal_url(PEOPLE)).content.decode().split("data-person=")
    alice, bob, dave, olivia = (re.sub(r"<[^>]*>", " ", row) for row in rows[1:])
    assert re.search(r"Alice Keller.*alice@acme.example.*Member.*Authenticator.*Never seen here.*Blocked", alice, re.DOTALL)
    assert re.search(r"Bob Marsh.*Admin.*You.*Password only.*Never seen here.*Not signed in", bob, re.DOTALL)
    assert re.search(r"Dave Vance.*Member.*Password only.*just now.*Signed in", dave, re.DOTALL)
    assert re.search(r"Olivia Grant.*Owner.*Managed by owners", olivia, re.DOTALL)


def test_an_unproven_address_is_not_shown_as_somebodys(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.filter(username="alice").update(email_verified_at=None)
    assert "alice@acme.example" not in visitor("bob").get(portal_url(PEOPLE)).content.decode()


def test_everybody_is_listed_once_over_all_pages_and_back(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    for number in range(120):
        person = User.objects.create_user(f"person{number:03}", "", password=None)
        Membership.objects.create(tenant=acme, user=person)
        invitations.invite(acme, f"person{number:03}@x.example", "member")
    for state, total in (("members", 124), ("invited", 120)):
        bob, seen = visitor("bob"), []
        page = bob.get(portal_url(f"{PEOPLE}?state={state}"))
        assert f"{total} " in text(page)
        first = listed(page)
        while True:
            seen.append(listed(page))
            further = re.findall(r'href="([^"]*after=[^"]*)"', page.content.decode())
            if not further:
                break
            page = bob.get(portal_url(further[0].replace("&amp;", "&")))
        assert [len(each) for each in seen] == [50, 50, total - 100]
        assert len({name for each in seen for name in each}) == total
        back = re.findall(r'href="([^"]*before=[^"]*)"', page.content.decode())
        for _ in range(2):
            page = bob.get(portal_url(back[0].replace("&amp;", "&")))
            back = re.findall(r'href="([^"]*before=[^"]*)"', page.content.decode()) or back
        assert listed(page) == first


def test_the_admins_are_paged_in_the_order_of_their_names(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    for number in reversed(range(60)):
        person = User.objects.create_user(f"person{number:02}", "", password=None)
        Membership.objects.create(tenant=acme, user=person, role="admin")
    bob, everybody = visitor("bob"), ["bob", *(f"person{number:02}" for number in range(60))]
    page = bob.get(portal_url(f"{PEOPLE}?role=admin"))
    assert listed(page) == everybody[:50]
    assert "61 of 64 match" in text(page)
    page = bob.get(portal_url(re.findall(r'href="([^"]*after=[^"]*)"', page.content.decode())[0].replace("&amp;", "&")))
    assert listed(page) == everybody[50:]
    page = bob.get(portal_url(re.findall(r'href="([^"]*before=[^"]*)"', page.content.decode())[0].replace("&amp;", "&")))
    assert listed(page) == everybody[:50]


@pytest.mark.parametrize(
    ("query", "found"),
    [("q=VANCE", ["dave"]), ("q=acme.example", ["alice", "bob", "dave", "olivia"]), ("q=carol", []), ("q=%25", []), ("q=_", [])],
)
def test_the_search_finds_names_and_addresses_of_members(cast: dict[str, User], visitor: Open, query: str, found: list[str]) -> None:
    page = visitor("bob").get(portal_url(f"{PEOPLE}?{query}"))
    assert listed(page) == found
    assert f"{len(found)} of 4 match" in text(page)


@pytest.mark.parametrize(
    "query", ["state=x", "after=x", "before=WyJ4Il0", "state=invited&after=%00", "q=" + "x" * 9000, "state=waiting&q=x"]
)
def test_a_state_in_the_url_that_does_not_fit_is_no_500(cast: dict[str, User], visitor: Open, query: str) -> None:
    assert visitor("bob").get(portal_url(f"{PEOPLE}?{query}")).status_code in {200, 400, 404}


def test_htmx_gets_the_list_alone_and_the_address_is_the_same(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    part = bob.get(portal_url(PEOPLE), HTTP_HX_TARGET="people", **HTMX).content.decode()
    assert part.lstrip().startswith('<div class="stack is-wide" id="people"')
    assert listed(bob.get(portal_url(PEOPLE))) == re.findall(r'data-person="([^"]+)"', part)


def test_hostile_names_are_shown_as_text(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.filter(username="alice").update(first_name='"><script>alert(1)</script>', last_name="{{ x }}")
    bob = visitor("bob")
    for page in (bob.get(portal_url(PEOPLE)), do(bob, "manage", "alice"), do(bob, "block", "alice"), do(bob, "remove", "alice")):
        assert "<script>alert" not in page.content.decode()
        assert "alert(1)" in page.content.decode()


@pytest.mark.parametrize("state", ["", "invited", "waiting"])
def test_a_search_without_a_match_leads_back_to_the_list_that_was_searched(
    cast: dict[str, User], acme: Tenant, visitor: Open, state: str
) -> None:
    page = visitor("bob").get(portal_url(f"{PEOPLE}?q=nobody&state={state}")).content.decode()
    back = f"{PEOPLE}?state={state}" if state else PEOPLE
    assert f'<a class="button is-small" href="{back}">Show all</a>' in page


# --- Inviting -----------------------------------------------------------------------------------------------------


def test_a_pasted_list_has_a_result_for_each_line_and_bad_ones_can_be_corrected(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    pasted = "one@x.example\r\nTwo Fish <two@x.example>; no address\r\nthree@x, alice@acme.example\r\nONE@x.example"
    page = bob.post(portal_url(INVITE), {"addresses": pasted, "role": "admin"})
    lines = re.findall(r"<b>([^<]*)</b><small>([^<]*)</small>", page.content.decode().partition('id="results"')[2])
    assert [(address, said.partition(".")[0]) for address, said in lines] == [
        ("one@x.example", "The invitation is on its way"),
        ("two@x.example", "The invitation is on its way"),
        ("no", "This is no complete address"),
        ("address", "This is no complete address"),
        ("three@x", "This is no complete address"),
        ("alice@acme.example", "Belongs to this place already"),
    ]
    assert "2 invitations sent" in text(page)
    assert re.search(r"<textarea[^>]*>\s*no\naddress\nthree@x</textarea>", page.content.decode())
    assert sorted(Invitation.objects.values_list("email", "role", "invited_by__username")) == [
        ("one@x.example", "admin", "bob"), ("two@x.example", "admin", "bob")]  # fmt: skip
    assert Mail.objects.filter(kind="invitation").count() == 2
    again = bob.post(portal_url(INVITE), {"addresses": pasted, "role": "admin"})
    assert "No invitation was sent" in text(again)
    assert Mail.objects.filter(kind="invitation").count() == 2


@pytest.mark.parametrize("pasted", ["", " ,; ", "x@x.example\n" * 5000, " ".join(f"p{n}@x.example" for n in range(101))])
def test_nothing_and_too_much_are_refused_next_to_the_field(cast: dict[str, User], visitor: Open, pasted: str) -> None:
    page = visitor("bob").post(portal_url(INVITE), {"addresses": pasted, "role": "member"})
    assert 'id="addresses_error"' in page.content.decode()
    assert not Invitation.objects.exists()


@pytest.mark.asvs("8.2.1", "8.3.1")
def test_nobody_invites_above_his_own_role(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    assert 'value="owner"' not in bob.get(portal_url(INVITE)).content.decode()
    page = bob.post(portal_url(INVITE), {"addresses": "x@x.example", "role": "owner"})
    assert 'id="role_error"' in page.content.decode()
    assert not Invitation.objects.exists()
    with pytest.raises(members.NotAllowed):
        invitations.invite(acme, "x@x.example", "owner", by=Actor(cast["bob"], "admin"))
    visitor("olivia").post(portal_url(INVITE), {"addresses": "x@x.example", "role": "owner"})
    found = Invitation.objects.get()
    assert found.role == "owner"
    for verb in ("resend", "revoke"):
        assert do(bob, verb, found.pk).status_code == 403
    assert invitations.invite(acme, "x@x.example", "member", by=Actor(cast["bob"], "admin")).result is Result.ABOVE
    found.refresh_from_db()
    assert (found.role, found.revoked_at) == ("owner", None)


def test_a_closed_tenant_invites_nobody_and_says_how_it_is_opened(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"sign_up": "closed"})
    bob = visitor("bob")
    page = bob.get(portal_url(INVITE))
    assert "manage.py tenant set acme --policy sign_up=invited" in text(page)
    assert "E-mail addresses" not in text(page)  # a form that can only be refused is not offered
    page = bob.post(portal_url(INVITE), {"addresses": "x@x.example", "role": "member"})
    assert "takes nobody in at present" in text(page)
    assert not Invitation.objects.exists()


def test_an_invitation_is_sent_again_and_taken_back_from_the_list(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.post(portal_url(INVITE), {"addresses": "x@x.example", "role": "member"})
    found = Invitation.objects.get()
    assert "nothing more was sent" in text(do(bob, "resend", found.pk, state="invited"))
    Invitation.objects.update(expires_at=timezone.now() - timedelta(days=1))
    page = bob.get(portal_url(f"{PEOPLE}?state=invited"))
    assert listed(page) == [str(found.pk)]
    assert "Ended" in text(page)
    do(bob, "resend", found.pk, state="invited")
    assert bob.url == portal_url(f"{PEOPLE}?state=invited")
    assert "the newest mail counts" in text(bob.page)
    assert Invitation.objects.get().expires_at > timezone.now() + timedelta(days=6)
    assert "is taken back" in text(do(bob, "revoke", found.pk, state="invited"))
    assert "accepted or taken back meanwhile" in text(do(bob, "revoke", found.pk, state="invited"))
    assert "accepted or taken back meanwhile" in text(do(bob, "resend", found.pk, state="invited"))
    assert Event.objects.filter(kind="invitation_revoked").count() == 1


# --- Who waits ----------------------------------------------------------------------------------------------------


def test_who_waits_is_let_in_once_and_told_by_mail(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    waits("carol", acme)
    carol, bob = visitor("carol"), visitor("bob")
    assert "to be let in. An admin decides, and a mail tells you." in text(carol.get(portal_url("/?places=1")))
    assert carol.get(tenant_url("acme")).status_code == 403
    page = bob.get(portal_url(f"{PEOPLE}?state=waiting"))
    assert listed(page) == ["carol"]
    assert "Carol Wren belongs to Acme now" in text(do(bob, "approve", "carol", state="waiting"))
    assert "That was decided already." in text(do(bob, "approve", "carol", state="waiting"))
    assert "That was decided already." in text(do(bob, "decline", "carol", state="waiting"))
    assert role_of("carol") == "member"
    event = Event.objects.get(kind="joined")
    assert (event.actor, event.subject) == (cast["bob"], cast["carol"])
    assert event.data == {"how": "approval", "after": {"role": "member", "state": "active"}}
    mail.outbox.clear()
    mails.deliver()
    sent = next(each for each in mail.outbox if each.to == ["carol@globex.example"])
    assert sent.subject == "You belong to Acme now"
    assert sent.body == (
        "Hello Carol Wren,\n"
        "\n"
        "You asked to belong to Acme, and its people have let you in.\n"
        "\n"
        "Open Acme:\n"
        "http://acme.portal.localhost:8000/\n"
        "\n"
        "If you did not ask for this, tell the people named below, and look at what happened to your account:\n"
        "http://login.portal.localhost:8000/account/activity/\n"
        "\n"
        "-- \n"
        "Sent by Acme through Gatehouse at http://login.portal.localhost:8000. Something wrong? Turn to: it@acme.example\n"
    )


def test_who_is_declined_may_ask_again(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    waits("carol", acme)
    assert "was not let in, and may ask again" in text(do(visitor("bob"), "decline", "carol", state="waiting"))
    assert (role_of("carol"), JoinRequest.objects.count()) == ("", 0)
    Tenant.objects.filter(pk=acme.pk).update(policy={"sign_up": "open", "approval": True})
    assert invitations.join(Tenant.objects.get(pk=acme.pk), cast["carol"], request=RequestFactory().get("/")).waits


def test_the_admins_are_told_who_waits(cast: dict[str, User], acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"sign_up": "open", "approval": True})
    acme.refresh_from_db()
    mail.outbox.clear()
    for name in ("carol", "erin"):  # the second one does not make a flood
        invitations.join(acme, cast[name], request=RequestFactory().get("/"))
    mails.deliver()
    sent = sorted(mail.outbox, key=lambda each: each.to)
    assert [each.to for each in sent] == [["bob@acme.example"], ["olivia@acme.example"]]
    assert sent[0].subject == "Somebody waits to be let into Acme"
    assert sent[0].body == (
        "Hello Bob Marsh,\n"
        "\n"
        "Carol Wren (carol) signed up at Acme and waits for an admin. Nothing is open to this account before one of you decides.\n"
        "\n"
        "Look at who waits:\n"
        "http://login.portal.localhost:8000/console/acme/people/?state=waiting\n"
        "\n"
        "If you do not know this person, decline; nobody is told why. You get this mail because you run this place.\n"
        "\n"
        "-- \n"
        "Sent by Acme through Gatehouse at http://login.portal.localhost:8000. Something wrong? Turn to: it@acme.example\n"
    )


# --- Block, unblock, remove, role -----------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.5", "16.2.1")
def test_a_block_ends_what_is_open_here_and_holds_until_it_is_lifted(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    dave.get(tenant_url("globex"))
    asked = do(bob, "block", "dave")
    assert "stays out until you lift it" in text(asked)
    assert dave.is_in("acme")
    assert "Say why" in text(do(bob, "block", "dave", reason=""))
    page = do(bob, "block", "dave", reason="Laptop reported lost")
    assert "Dave Vance is blocked here until you lift it. 1 session is over." in text(page)
    assert (dave.is_in("acme"), dave.is_in("globex"), dave.is_in()) == (False, True, True)
    assert Session.objects.get(tenant=acme, user=cast["dave"]).end_note == "Laptop reported lost"
    again = visitor("dave")
    assert "Your way into Acme is blocked" in text(again.get(tenant_url("acme")))
    assert "blocked here already" in text(do(bob, "block", "dave", reason="again"))
    event = Event.objects.get(kind="member_blocked")
    assert (event.actor, event.subject, event.ip) == (cast["bob"], cast["dave"], "127.0.0.1")
    assert event.data == {
        "before": {"role": "member", "state": "active"},
        "after": {"role": "member", "state": "blocked"},
        "note": "Laptop reported lost",
    }
    assert "may come in again" in text(do(bob, "unblock", "dave"))
    back = visitor("dave", at="acme")
    assert back.is_in("acme")


@pytest.mark.asvs("7.4.5")
def test_an_end_can_block_in_the_same_step(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    first, second, bob = visitor("dave", at="acme"), visitor("dave", at="acme"), visitor("bob")
    end = portal_url("/console/acme/sessions/end")
    one = str(first.session("acme").pk)
    asked = bob.post(end, {"ids": one})
    assert 'name="block"' in asked.content.decode()
    page = bob.post(end, {"ids": one, "reason": "lost", "block": "1"})
    assert "2 sessions of Dave Vance are over." in text(page)
    assert "Dave Vance is blocked here until you lift it, under People." in text(page)
    assert not first.is_in("acme")
    assert not second.is_in("acme")
    assert Membership.objects.get(tenant=acme, user=cast["dave"]).blocked_at
    event = Event.objects.get(kind="member_blocked")
    assert event.data["note"] == "lost"


@pytest.mark.asvs("8.2.1")
@pytest.mark.parametrize("who", ["olivia", "bob"])
def test_an_end_offers_no_block_of_an_owner_or_of_oneself(cast: dict[str, User], visitor: Open, who: str) -> None:
    theirs = visitor(who, at="acme")
    bob = visitor("bob")
    end, pk = portal_url("/console/acme/sessions/end"), str(theirs.session("acme").pk)
    assert 'name="block"' not in bob.post(end, {"ids": pk}).content.decode()
    bob.post(end, {"ids": pk, "reason": "x", "block": "1"})  # forged
    assert not Membership.objects.exclude(blocked_at=None).exists()
    assert not theirs.is_in("acme")


def test_a_removed_member_is_out_at_once_and_told_why(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    assert "Remove Dave Vance from Acme?" in text(do(bob, "remove", "dave"))
    assert role_of("dave") == "member"
    page = do(bob, "remove", "dave", reason="Left the company")
    assert "Dave Vance does not belong to Acme any more. 1 session is over." in text(page)
    assert role_of("dave") == ""
    assert role_of("dave", "globex") == "member"
    assert "Left the company" in text(dave.get(tenant_url("acme")))
    assert Event.objects.get(kind="member_removed").data["before"] == {"role": "member", "state": "active"}
    assert do(bob, "remove", "dave", reason="again").status_code == 404


@pytest.mark.asvs("8.2.1", "8.3.1", "7.5.3")
def test_roles_are_an_owners_business_and_take_a_fresh_proof(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob, olivia = visitor("bob"), visitor("olivia")
    assert 'name="to"' not in do(bob, "manage", "dave").content.decode()
    assert do(bob, "role", "dave", to="admin").status_code == 403
    assert role_of("dave") == "member"
    assert 'name="to"' in do(olivia, "manage", "dave").content.decode()
    old_proof(olivia)
    asked = do(olivia, "role", "dave", to="admin")
    assert "You are about to change the role of Dave Vance." in text(asked)
    assert role_of("dave") == "member"
    page = do(olivia, "role", "dave", to="admin", **{"proof-password": "gatehouse-demo"})
    assert "The role of Dave Vance is now: Admin." in text(page)
    assert role_of("dave") == "admin"
    event = Event.objects.get(kind="member_role_changed")
    assert event.data == {"before": {"role": "member", "state": "active"}, "after": {"role": "admin", "state": "active"}}
    assert "has that role already" in text(do(olivia, "role", "dave", to="admin"))
    assert Event.objects.filter(kind="member_role_changed").count() == 1
    assert do(olivia, "role", "dave", to="emperor").status_code == 404


def test_the_last_owner_stays(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    before = memberships()
    for verb, more in (("role", {"to": "member"}), ("remove", {"reason": "x"})):
        assert "This is the last owner. Make somebody else an owner first." in text(do(olivia, verb, "olivia", **more))
    with pytest.raises(members.LastOwner):
        members.block(acme, cast["olivia"])
    assert memberships() == before
    do(olivia, "role", "alice", to="owner")
    do(olivia, "role", "olivia", to="member")
    assert (role_of("olivia"), role_of("alice")) == ("member", "owner")
    assert olivia.get(portal_url(PEOPLE)).status_code == 404


def test_who_removes_himself_leaves_the_console(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob", at="acme")
    assert "the console closes for you" in text(do(bob, "remove", "bob"))
    do(bob, "remove", "bob", reason="Moving on")
    assert bob.url == portal_url("/?places=1")
    assert "No places yet" in text(bob.page)
    assert not bob.is_in("acme")


# --- Who may not ----------------------------------------------------------------------------------------------------

EVERY_VERB: list[tuple[str, dict[str, str]]] = [
    ("manage", {}), ("role", {"to": "member"}), ("block", {"reason": "x"}), ("unblock", {}), ("remove", {"reason": "x"}),
]  # fmt: skip


@pytest.mark.asvs("8.2.1", "8.3.1")
def test_an_admin_never_touches_an_owner(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    visitor("olivia", at="acme")
    Membership.objects.create(tenant=acme, user=cast["carol"], role="owner")  # so that nobody is the last one
    before, bob = memberships(), visitor("bob")
    for verb, more in EVERY_VERB:
        assert do(bob, verb, "olivia", **more).status_code == 403, verb
    assert memberships() == before
    assert Session.objects.filter(tenant=acme, user=cast["olivia"], ended_at=None).exists()
    for change in (members.block, members.unblock, members.remove):
        with pytest.raises(members.NotAllowed):
            change(acme, cast["olivia"], by=Actor(cast["bob"], "admin"))


@pytest.mark.asvs("8.2.1", "8.3.1")
@pytest.mark.parametrize("person", ["", "alice", "carol", "mallory"])
def test_members_and_strangers_find_no_such_pages(cast: dict[str, User], acme: Tenant, visitor: Open, person: str) -> None:
    waits("carol", acme)
    invitations.invite(acme, "x@x.example", "member")
    browser = visitor(person) if person else visitor()
    before = memberships()
    mails_before = Mail.objects.count()
    for path in (PEOPLE, INVITE):
        answer = browser.get(portal_url(path), follow=False)
        assert answer.status_code == (404 if person else 302)
    browser.post(portal_url(INVITE), {"addresses": "y@x.example", "role": "member"})
    pk = Invitation.objects.get().pk
    for verb, more in [*EVERY_VERB, ("approve", {}), ("decline", {})]:
        do(browser, verb, "dave" if verb not in {"approve", "decline"} else "carol", **more)
    for verb in ("resend", "revoke"):
        do(browser, verb, pk)
    assert memberships() == before
    assert (JoinRequest.objects.count(), Invitation.objects.filter(revoked_at=None).count()) == (1, 1)
    assert Mail.objects.count() == mails_before


@pytest.mark.asvs("8.2.2", "8.4.1", "16.3.3")
def test_a_foreign_person_or_invitation_is_a_404_and_nothing_changes(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open
) -> None:
    theirs = invitations.invite(globex, "x@x.example", "member").invitation
    assert theirs is not None
    waits("mallory", globex)
    before, bob = memberships(), visitor("bob")
    for name in ("carol", "mallory", "nobody", "", "dave@acme.example", "x" * 5000):
        for verb, more in [*EVERY_VERB, ("approve", {}), ("decline", {})]:
            expected = {403, 404} if verb == "role" else {404}
            assert do(bob, verb, name, **more).status_code in expected, (verb, name)
    for number in (theirs.pk, 0, "9" * 40, "x", "-1"):
        for verb in ("resend", "revoke"):
            assert do(bob, verb, number).status_code == 404
    assert bob.post(portal_url(ACT), {"explode": "dave"}).status_code == 404
    assert bob.get(portal_url(ACT)).status_code == 405
    assert memberships() == before
    theirs.refresh_from_db()
    assert (theirs.revoked_at, JoinRequest.objects.count()) == (None, 1)
    noted = Event.objects.filter(kind="foreign_person", tenant=acme, actor=cast["bob"])
    assert noted.exists()
    assert not [row for row in noted if "carol" in str(row.data)]


def test_an_operator_without_membership_acts_with_an_owners_powers(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    erin = visitor("erin")
    assert listed(erin.get(portal_url(PEOPLE))) == ["alice", "bob", "dave", "olivia"]
    do(erin, "role", "dave", to="owner")
    assert role_of("dave") == "owner"
    assert "is blocked here" in text(do(erin, "block", "olivia", reason="x"))


def test_a_siblings_page_cannot_change_anything(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    answer = bob.post(portal_url(ACT), {"remove": "dave", "reason": "x"}, HTTP_ORIGIN="http://acme.portal.localhost:8000")
    assert answer.status_code == 403
    assert role_of("dave") == "member"


# --- HTMX ---------------------------------------------------------------------------------------------------------


def test_with_htmx_the_dialog_asks_and_the_list_follows(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    chosen = bob.post(portal_url(ACT), {"manage": "dave", "q": "vance"}, **HTMX).content.decode()
    assert 'id="dialog-title">Dave Vance' in chosen
    assert "<html" not in chosen
    assert '<input type="hidden" name="q" value="vance">' in chosen
    asked = bob.post(portal_url(ACT), {"block": "dave", "q": "vance"}, **HTMX).content.decode()
    assert 'name="reason"' in asked
    done = bob.post(portal_url(ACT), {"block": "dave", "reason": "lost", "q": "vance"}, **HTMX)
    answer = done.content.decode()
    assert 'hx-swap-oob="outerHTML"' in answer
    assert re.findall(r'data-person="([^"]+)"', answer) == ["dave"]
    assert "Dave Vance is blocked here until you lift it." in answer
    removed = bob.post(portal_url(ACT), {"remove": "dave", "reason": "gone"}, **HTMX).content.decode()
    assert '<span hx-swap-oob="innerHTML:#people-count">3</span>' in removed


def test_with_htmx_a_proof_is_asked_in_the_dialog(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia")
    old_proof(olivia)
    asked = olivia.post(portal_url(ACT), {"role": "dave", "to": "admin"}, HTTP_HX_TARGET="dialog", **HTMX).content.decode()
    assert 'id="dialog-title">Prove that it is you' in asked
    assert 'name="role" value="dave"' in asked
    assert role_of("dave") == "member"


# --- My places ------------------------------------------------------------------------------------------------------


def test_a_place_without_apps_says_what_comes(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    acme.apps.all().delete()
    assert "What the people who run this place add appears here." in text(visitor("dave").get(portal_url("/?places=1")))
    assert "What you add to this place appears here" in text(visitor("bob").get(portal_url("/?places=1")))


def test_somebody_with_no_place_is_told_how_to_come_by_one(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.create_user("frank", "frank@x.example", password="gatehouse-demo", email_verified_at=timezone.now())
    frank = visitor("frank")
    assert "No places yet" in text(frank.get(portal_url("/")))
    waits("frank", acme)
    page = text(frank.get(portal_url("/")))
    assert "No places yet" not in page
    assert "An admin decides, and a mail tells you." in page
    assert "it@acme.example" in page


def test_somebody_with_an_unproven_address_reads_it_first(cast: dict[str, User], visitor: Open) -> None:
    User.objects.create_user("frank", "frank@x.example", password="gatehouse-demo")
    page = visitor("frank").get(portal_url("/"))
    assert "Your address frank@x.example is not proven yet" in text(page)
    assert 'href="/account/email/"' in page.content.decode()
    User.objects.filter(username="frank").update(email_verified_at=timezone.now())
    assert "not proven" not in text(visitor("frank").get(portal_url("/")))


def test_who_belongs_to_one_place_and_is_invited_to_another_sees_the_invitation(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    carol = visitor("carol")
    carol.get(portal_url("/"))
    assert carol.url == tenant_url("globex")
    invitations.invite(acme, "carol@globex.example", "member")
    assert "Acme invites you" in text(carol.get(portal_url("/")))


# --- The command line -----------------------------------------------------------------------------------------------


def test_the_command_line_invites_lists_and_revokes(cast: dict[str, User], acme: Tenant) -> None:
    said = manage("invite", "acme", "one@x.example", "two@x.example", "alice@acme.example", "--role", "admin")
    assert said == "one@x.example: invited\ntwo@x.example: invited\nalice@acme.example: belongs to it already\n"
    listing = told("invite", "list", "acme")["invitations"]
    assert {(each["address"], each["role"], each["open"]) for each in listing} == {
        ("one@x.example", "admin", True), ("two@x.example", "admin", True)}  # fmt: skip
    assert "one@x.example" in manage("invite", "list", "acme")
    assert manage("invite", "revoke", "acme", "one@x.example") == "one@x.example: taken back; its link opens nothing\n"
    assert len(told("invite", "list", "acme")["invitations"]) == 1
    assert "No invitation to Globex is open: manage.py invite globex ADDRESS" in manage("invite", "list", "globex")


def test_the_policy_of_sign_up_is_set_and_shown(cast: dict[str, User], acme: Tenant) -> None:
    shown = manage("tenant", "show", "acme")
    assert "who is invited becomes a member" in shown
    manage("tenant", "set", "acme", "--policy", "sign_up=domain", "sign_up_domains=acme.example,acme.org", "approval=yes")
    shown = manage("tenant", "show", "acme")
    assert "who is invited, or has an address of acme.example, acme.org, becomes a member" in shown
    assert "who comes without an invitation waits for an admin" in shown
    warned = told("tenant", "set", "acme", "--policy", "sign_up=open", "approval=no")["warnings"]
    assert warned == ["Everybody who proves an address becomes a member, without asking you. To be asked: --policy approval=yes"]
    invitations.invite(Tenant.objects.get(pk=acme.pk), "x@x.example", "member")
    assert told("tenant", "set", "acme", "--policy", "sign_up=closed")["warnings"] == ["1 invitation opens nothing while it is closed."]


# --- Filters, and one person's page -------------------------------------------------------------------------------


def test_role_factor_group_and_block_filter_and_stand_in_the_url(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(cast["alice"]).pk).update(confirmed=True)
    members.block(acme, cast["dave"])
    finance = groups.add(acme, "Finance")
    for name in ("alice", "dave"):
        groups.put(finance, cast[name])
    bob = visitor("bob")
    for query, found in {
        "role=member": ["alice", "dave"], "role=owner": ["olivia"], "role=x": ["alice", "bob", "dave", "olivia"],
        "factor=none": ["bob", "dave", "olivia"], "factor=some": ["alice"],
        "state=blocked": ["dave"], "state=blocked&role=owner": [],
        f"group={finance.pk}": ["alice", "dave"], f"group={finance.pk}&factor=none": ["dave"], "group=99999": [],
        f"group={finance.pk}&role=member&factor=some&q=keller": ["alice"],
    }.items():  # fmt: skip
        assert listed(bob.get(portal_url(f"{PEOPLE}?{query}"))) == found, query
    page = bob.get(portal_url(f"{PEOPLE}?role=member&factor=none"))
    assert "1 of 4 match" in text(page)
    assert re.findall(r'class="token" href="[^?]+\?([^"]+)"', page.content.decode()) == ["factor=none", "role=member"]
    assert "Finance" in text(bob.get(portal_url(PEOPLE)))


def test_a_group_of_elsewhere_filters_nothing_out_of_there(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    secret = groups.add(globex, "Secret")
    groups.put(secret, cast["dave"])
    page = visitor("bob").get(portal_url(f"{PEOPLE}?group={secret.pk}"))
    assert listed(page) == []
    assert "Secret" not in page.content.decode()
    assert "In a group that is no more" in text(page)


def test_an_act_keeps_the_filters_of_the_list(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    page = bob.get(portal_url(f"{PEOPLE}?role=member&factor=none")).content.decode()
    assert 'name="only_role" value="member"' in page
    do(bob, "block", "dave", reason="lost", only_role="member", factor="none")
    assert bob.url == portal_url(f"{PEOPLE}?role=member&factor=none")
    part = bob.post(portal_url(ACT), {"unblock": "dave", "only_role": "member"}, **HTMX)
    assert listed(part) == ["alice", "dave"]


def test_ending_all_of_a_person_here_leaves_other_places_alone(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    first, second = visitor("dave", at="acme"), visitor("dave", at="acme")
    first.get(tenant_url("globex"))
    bob = visitor("bob")
    asked = text(do(bob, "end", "dave"))
    assert "End every session of Dave Vance here?" in asked
    assert "End 2 sessions" in asked
    assert first.is_in("acme")
    assert "Dave Vance: 2 sessions are over." in text(do(bob, "end", "dave", reason="Laptop lost"))
    assert not first.is_in("acme")
    assert not second.is_in("acme")
    assert first.is_in("globex")
    assert first.is_in()
    ended = Event.objects.filter(kind="session_ended", tenant=acme)
    assert {(each.actor, each.data["note"]) for each in ended} == {(cast["bob"], "Laptop lost")}
    assert do(bob, "end", "carol", reason="x").status_code == 404


def test_a_persons_page_shows_what_is_here_and_nothing_of_elsewhere(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open
) -> None:
    dave = visitor("dave", at="acme", address="203.0.113.40")
    dave.address = "198.51.100.7"
    dave.get(tenant_url("globex"))
    groups.put(groups.add(acme, "Finance"), cast["dave"])
    groups.put(groups.add(globex, "Secret"), cast["dave"])
    bob = visitor("bob")
    page = bob.get(portal_url(f"{PEOPLE}dave/"))
    for here in ("Dave Vance", "Member", "Finance", "1 live session", "203.0.113.40", "Session opened", "Put into a group"):
        assert here in text(page)
    for elsewhere in ("Globex", "Secret", "198.51.100.7"):
        assert elsewhere not in page.content.decode()
    assert "?person=dave" in page.content.decode()
    for name in ("carol", "mallory", "nobody-at-all"):
        assert bob.get(portal_url(f"{PEOPLE}{name}/")).status_code == 404
    assert Event.objects.filter(kind="foreign_person", tenant=acme).count() == 3


def test_what_is_done_on_a_persons_page_leads_back_to_it(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    do(bob, "block", "dave", reason="lost", on_page="1")
    assert bob.url == portal_url(f"{PEOPLE}dave/")
    assert "Dave Vance is blocked here until you lift it." in text(bob.page)
    assert "Blocked" in text(bob.page)
    done = bob.post(portal_url(ACT), {"unblock": "dave", "on_page": "1"}, **HTMX)
    assert done["HX-Redirect"] == f"{PEOPLE}dave/"
    do(bob, "remove", "dave", reason="left", on_page="1")
    assert bob.url == portal_url(PEOPLE)
