"""Invitations: the mail, its link, and who may accept. What a link opens, it opens once, for whom it was meant."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, connection
from django.test import RequestFactory
from django.utils import timezone
from django.utils.formats import date_format
from pytest_django.plugin import DjangoDbBlocker

from identity import invitations, mails, members, pruning
from identity.invitations import Result
from identity.members import Actor
from identity.models import Event, Mail, Session, User
from tenants.models import Invitation, JoinRequest, Membership, Tenant
from tests.races.crew import Crew, Task
from tests.races.stage import Stage, database_url
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PASSWORD = "three little words"
NEW = "frank@new.example"


def link_in(text: Any) -> str:
    return str(re.findall(r"http://login\.portal\.localhost:8000/invitation/[A-Za-z0-9_-]{43}/", str(text))[0])


def html_of(message: mail.EmailMessage) -> str:
    assert isinstance(message, mail.EmailMultiAlternatives)
    return str(message.alternatives[0][0])


def invite(tenant: Tenant, address: str = NEW, role: str = "member", by: User | None = None) -> str:
    """Invite, let the worker send, and follow the mail: the link in it."""
    mails.deliver()  # whatever waited before
    mail.outbox.clear()
    assert invitations.invite(tenant, address, role, by=Actor(by)).is_good
    assert mails.deliver() == 1
    assert mail.outbox[0].to == [address]
    return link_in(mail.outbox[0].body)


def role_of(name: str, slug: str = "acme") -> str:
    found = Membership.objects.filter(user__username=name, tenant__slug=slug).first()
    return found.role if found else ""


def a_moment_later(tenant: Tenant) -> None:
    """As if the last invitation was sent two minutes ago."""
    for row in Invitation.objects.filter(tenant=tenant):
        Invitation.objects.filter(pk=row.pk).update(expires_at=row.expires_at - timedelta(minutes=2))


# --- The mail -----------------------------------------------------------------------------------------------------


def test_the_mail_of_an_invitation_is_in_the_tenants_name_and_says_what_to_do(cast: dict[str, User], acme: Tenant) -> None:
    link = invite(acme, role="admin", by=cast["bob"])
    sent = mail.outbox[0]
    until = date_format(Invitation.objects.get().expires_at, "DATE_FORMAT")
    assert sent.subject == "Acme invites you"
    assert sent.body == (
        "Bob Marsh invites you to Acme. Your role there: Admin.\n"
        "\n"
        "Accept the invitation:\n"
        f"{link}\n"
        "\n"
        f"The link works once, until {until}. With it you make an account, or sign in to the one you have.\n"
        "\n"
        "If you did not expect this, there is nothing to do: without the link nobody uses your address, "
        "and the invitation ends by itself.\n"
        "\n"
        "-- \n"
        "Sent by Acme through Gatehouse at http://login.portal.localhost:8000. Something wrong? Turn to: it@acme.example\n"
    )
    html = html_of(sent)
    assert "#0d5f7a" in html
    assert html.count(link) >= 1


def test_the_link_stands_nowhere_but_in_the_mail(cast: dict[str, User], acme: Tenant) -> None:
    token = invite(acme, by=cast["bob"]).rstrip("/").rpartition("/")[2]
    assert not Invitation.objects.filter(digest=token).exists()
    assert not [row for row in Event.objects.all() if token in str(row.data)]
    assert not [row for row in Event.objects.all() if NEW in str(row.data)]


def test_names_cannot_put_a_header_or_markup_into_the_mail(cast: dict[str, User], acme: Tenant) -> None:
    Tenant.objects.filter(pk=acme.pk).update(name="Acme\r\nBcc: victim@x.example")
    User.objects.filter(username="bob").update(first_name="<b>Bob", last_name="100% {{ x }}" * 10)
    acme.refresh_from_db()
    invite(acme, by=User.objects.get(username="bob"))
    message = mail.outbox[0].message()
    assert message["Bcc"] is None
    assert "\n" not in mail.outbox[0].subject
    assert "<b>Bob" not in html_of(mail.outbox[0])


# --- Signing up by the link ---------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.4")
def test_who_signs_up_by_the_link_has_a_proven_address_and_lands_in_the_tenant(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, by=cast["bob"])
    browser = visitor()
    page = browser.get(link).content.decode()
    assert "Acme invites you" in page
    assert 'data-brand="acme"' in page
    browser.post(link, {"username": "frank", "password": PASSWORD})
    assert browser.url == tenant_url("acme")
    assert browser.is_in("acme")
    frank = User.objects.get(username="frank")
    assert (frank.email, frank.email_key, frank.email_verified_at is not None, role_of("frank")) == (NEW, NEW, True, "member")
    joined = Event.objects.get(kind="joined")
    assert (joined.actor, joined.subject, joined.tenant) == (frank, frank, acme)
    assert joined.data == {"how": "invitation", "invitation": Invitation.objects.get().pk, "after": {"role": "member", "state": "active"}}


def test_an_invitation_opens_a_sign_up_that_the_platform_has_closed(
    cast: dict[str, User], acme: Tenant, visitor: Open, settings: pytest.FixtureRequest
) -> None:
    settings.SIGNUP = "closed"  # type: ignore[attr-defined]
    browser = visitor()
    browser.post(invite(acme), {"username": "frank", "password": PASSWORD})
    assert browser.is_in("acme")


def test_what_is_wrong_with_a_new_account_is_said_and_the_invitation_stays_open(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link, browser = invite(acme), visitor()
    for data, said in [
        ({"username": "dave", "password": PASSWORD}, "That name is already in use."),
        ({"username": "fr ank", "password": PASSWORD}, "A user name has letters"),
        ({"username": "frank", "password": "short"}, "is too short"),
        ({"username": "frank", "password": "frank@new.example"}, "too similar"),
        ({"username": "f" * 10_000, "password": PASSWORD}, "at most 150"),
    ]:
        page = browser.post(link, data).content.decode()
        assert said in page or "too" in page, page
        assert 'class="error"' in page
    assert not User.objects.filter(email=NEW).exists()
    assert not browser.is_in()
    browser.post(link, {"username": "frank", "password": PASSWORD})
    assert role_of("frank") == "member"


def test_a_second_factor_that_the_tenant_asks_for_is_set_up_on_the_way_in(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"second_factor": "everyone"})
    browser = visitor()
    browser.post(invite(acme), {"username": "frank", "password": PASSWORD})
    assert "/account/two-factor/" in browser.url
    assert not browser.is_in("acme")


def test_a_name_taken_in_that_very_moment_leaves_neither_account_nor_membership(cast: dict[str, User], acme: Tenant) -> None:
    invite(acme)
    twin = User(username="Dave", password="!")
    with pytest.raises(IntegrityError):
        invitations.sign_up(Invitation.objects.get(), twin, request=RequestFactory().get("/"))
    assert Invitation.objects.get().accepted_at is None
    assert not User.objects.filter(email=NEW).exists()


# --- Signing in by the link ---------------------------------------------------------------------------------------


def test_who_has_an_account_signs_in_and_comes_back_to_accept(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, "carol@globex.example")
    browser = visitor()
    page = browser.get(link).content.decode()
    assert "There is an account with this address." in page
    assert 'name="password"' not in page
    login = re.findall(r'href="(/login/\?next=[^"]+)"', page)[0]
    browser.post(login, {"username": "carol", "password": "gatehouse-demo"})
    assert browser.url == link
    assert "Accept the invitation" in browser.page.content.decode()
    assert role_of("carol") == ""
    browser.post(link, {"accept": "1"})
    assert browser.url == tenant_url("acme")
    assert (role_of("carol"), browser.is_in("acme")) == ("member", True)


def test_chromium_may_follow_the_redirects_that_accepting_ends_in(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, "carol@globex.example")
    for browser in (visitor(), visitor("carol")):
        assert "form-action 'self' http://acme.portal.localhost:8000" in browser.get(link)["Content-Security-Policy"]
    places = visitor("carol").get(portal_url("/?places=1"))
    assert "form-action 'self' http://acme.portal.localhost:8000" in places["Content-Security-Policy"]


def test_opening_the_link_changes_nothing(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    """A mail scanner opens every link, signed out; a browser may do so ahead, signed in."""
    link = invite(acme, "carol@globex.example")
    before = Event.objects.count()
    carol = visitor("carol")
    signed_in = Event.objects.count() - before
    for browser in (visitor(), carol):
        for _ in range(3):
            assert browser.get(link).status_code == 200
            assert browser.head(link).status_code == 200
    assert Event.objects.count() == before + signed_in
    assert (Invitation.objects.get().accepted_at, role_of("carol")) == (None, "")


def test_somebody_else_is_told_so_and_may_choose(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme)
    carol = visitor("carol")
    page = carol.get(link).content.decode()
    assert f"It was sent to <b>{NEW}</b>, and you are signed in as <b>carol</b>" in page
    assert page.index('name="switch"') < page.index('name="accept"')
    carol.post(link, {"switch": "1"})
    assert carol.url == link
    assert not carol.is_in()
    assert "Make the account and accept" in carol.page.content.decode()
    assert role_of("carol") == ""
    again = visitor("carol")
    again.post(link, {"accept": "1"})
    assert (role_of("carol"), Invitation.objects.get().accepted_by) == ("member", cast["carol"])
    assert User.objects.get(username="carol").email == "carol@globex.example"


def test_accepting_by_the_link_proves_the_address_that_the_account_says_it_has(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.create_user("frank", NEW, password="gatehouse-demo")
    browser = visitor("frank")
    browser.post(invite(acme), {"accept": "1"})
    frank = User.objects.get(username="frank")
    assert (frank.email_verified_at is not None, frank.email_key) == (True, NEW)


def test_an_address_that_somebody_else_has_proven_stays_his(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.create_user("frank", "carol@globex.example", password="gatehouse-demo")
    visitor("frank").post(invite(acme, "carol@globex.example"), {"accept": "1"})
    assert role_of("frank") == "member"
    assert User.objects.get(username="frank").email_verified_at is None


# --- What opens nothing -------------------------------------------------------------------------------------------


def closed(browser: Visitor, link: str) -> str:
    """The page of a link that lets nobody in: the same by GET and by POST, and no membership."""
    page = browser.get(link)
    text = str(page.content.decode())
    assert page.status_code in {403, 404, 410}, page.status_code
    rows = Membership.objects.count()
    browser.post(link, {"accept": "1"})
    browser.post(link, {"username": "frank", "password": PASSWORD})
    assert Membership.objects.count() == rows
    assert not User.objects.filter(username="frank").exists()
    return text


@pytest.mark.parametrize("who", ["", "carol"])
def test_each_invitation_that_lets_nobody_in_has_a_page_that_says_what_to_do(
    cast: dict[str, User], acme: Tenant, visitor: Open, who: str
) -> None:
    def browser() -> Visitor:
        return visitor(who) if who else visitor()

    link = invite(acme, by=cast["bob"])
    Invitation.objects.update(expires_at=timezone.now())
    day = f"{timezone.now():%B} {timezone.now().day}"
    text = closed(browser(), link)
    assert "This invitation ended on " in text
    assert day[:3] in text
    assert "Ask Bob Marsh for a new one; nothing was lost." in text
    assert "it@acme.example" in text
    Invitation.objects.update(expires_at=timezone.now() + timedelta(days=1), revoked_at=timezone.now())
    assert "This invitation was taken back" in closed(browser(), link)
    Invitation.objects.update(revoked_at=None, accepted_at=timezone.now())
    assert "This invitation was used already" in closed(browser(), link)
    Invitation.objects.update(accepted_at=None)
    Tenant.objects.filter(pk=acme.pk).update(status="suspended")
    assert "Acme is suspended" in closed(browser(), link)
    Tenant.objects.filter(pk=acme.pk).update(status="active", policy={"sign_up": "closed"})
    assert "Acme takes nobody in at present" in closed(browser(), link)
    unknown = closed(browser(), portal_url(f"/invitation/{'x' * 43}/"))
    assert "This invitation opens nothing" in unknown
    Tenant.objects.filter(pk=acme.pk).update(policy={})
    assert browser().get(link).status_code == 200


def test_a_member_is_told_that_there_is_nothing_to_accept(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, role="owner", by=cast["olivia"])
    alice = visitor("alice")
    page = alice.get(link)
    assert (page.status_code, "You belong to Acme already" in page.content.decode()) == (200, True)
    alice.post(link, {"accept": "1"})
    assert role_of("alice") == "member"
    assert Invitation.objects.get().accepted_at is None


def test_a_blocked_member_does_not_come_back_by_an_invitation(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    members.block(acme, cast["alice"])
    link = invite(acme)
    alice = visitor("alice")
    page = alice.get(link)
    assert page.status_code == 403
    assert "Your way into Acme is blocked" in page.content.decode()
    alice.post(link, {"accept": "1"})
    assert not alice.is_in("acme")
    assert Membership.objects.get(user=cast["alice"]).blocked_at


def test_who_was_removed_and_comes_back_proves_himself_anew(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    members.remove(acme, cast["alice"])
    alice.post(invite(acme, "alice@acme.example"), {"accept": "1"})
    assert "/step-up/" in alice.url
    assert not alice.is_in("acme")


@pytest.mark.asvs("2.3.4")
def test_a_link_works_once_whoever_clicks_twice(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme, "carol@globex.example")
    carol, mallory = visitor("carol"), visitor("mallory")
    for _ in range(2):
        carol.post(link, {"accept": "1"})
    assert mallory.post(link, {"accept": "1"}).status_code == 410
    assert (role_of("carol"), role_of("mallory")) == ("member", "")
    assert Event.objects.filter(kind="joined").count() == 1


def test_two_tabs_that_sign_up_make_one_account(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    link = invite(acme)
    first, second = visitor(), visitor()
    second.get(link)
    first.post(link, {"username": "frank", "password": PASSWORD})
    page = second.post(link, {"username": "frankie", "password": PASSWORD})
    assert "This invitation was used already" in page.content.decode()
    assert User.objects.filter(email=NEW).count() == 1


def test_sending_again_makes_the_link_from_before_worthless(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    old = invite(acme)
    a_moment_later(acme)
    new = invite(acme)
    assert old != new
    assert "only the newest mail opens the door" in closed(visitor(), old)
    assert visitor().get(new).status_code == 200
    assert Invitation.objects.count() == 1


def test_an_invitation_replaced_while_somebody_looks_at_it_is_not_accepted(cast: dict[str, User], acme: Tenant) -> None:
    invite(acme, "carol@globex.example")
    seen = Invitation.objects.select_related("tenant").get()
    a_moment_later(acme)
    invite(acme, "carol@globex.example")
    request = RequestFactory().get("/")
    assert invitations.accept(seen, cast["carol"], request=request, by_link=True) is None
    assert invitations.accept(seen, cast["carol"], request=request) is not None


def test_guessing_links_is_slowed_by_address(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.policy.TRIES_ADDRESS", 3)
    browser = visitor(address="203.0.113.9")
    answers = [browser.get(portal_url(f"/invitation/{str(n) * 43}/")).status_code for n in range(5)]
    assert answers == [404, 404, 404, 429, 429]


def test_a_forged_host_changes_no_link(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    form = {"addresses": NEW, "role": "member"}
    bob.post(portal_url("/console/acme/people/invite/"), form, HTTP_X_FORWARDED_HOST="evil.example", HTTP_X_FORWARDED_PROTO="https")
    mail.outbox.clear()
    mails.deliver()
    assert "evil.example" not in mail.outbox[0].body
    assert link_in(mail.outbox[0].body)


# --- Without the link -----------------------------------------------------------------------------------------------


def test_an_invitation_to_ones_proven_address_waits_on_my_places(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    invite(acme, "CAROL@globex.example", by=cast["bob"])
    carol = visitor("carol")
    page = carol.get(portal_url("/")).content.decode()
    assert "Acme invites you" in page
    assert "from Bob Marsh" in page
    pk = re.findall(r'name="id" value="(\d+)"', page)[0]
    carol.post(portal_url("/invitation/accept"), {"id": pk})
    assert carol.url == tenant_url("acme")
    carol.post(portal_url("/invitation/accept"), {"id": pk})  # a double click
    assert carol.url == tenant_url("acme")
    assert role_of("carol") == "member"
    assert Event.objects.filter(kind="joined").count() == 1


@pytest.mark.asvs("8.2.2")
def test_nobody_accepts_what_went_to_somebody_else_or_to_an_unproven_address(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    invite(acme)
    pk = str(Invitation.objects.get().pk)
    User.objects.create_user("frank", NEW, password="gatehouse-demo")  # says that it is his, and has proven nothing
    for name in ("carol", "frank"):
        browser = visitor(name)
        assert "Acme invites you" not in browser.get(portal_url("/?places=1")).content.decode()
        for number in (pk, "0", "9" * 30, "x", ""):
            assert browser.post(portal_url("/invitation/accept"), {"id": number}).status_code == 404
    assert (role_of("carol"), role_of("frank")) == ("", "")


@pytest.mark.parametrize("twin", ["carol+x@globex.example", "cаrol@globex.example", "carol@globex.example.evil.example"])
def test_a_look_alike_address_is_another_address(cast: dict[str, User], acme: Tenant, twin: str) -> None:
    line = invitations.invite(acme, twin, "member")
    assert line.result in {Result.SENT, Result.MALFORMED}
    assert invitations.open_for(cast["carol"]) == []


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"expires_at": timezone.now() - timedelta(days=1)}, False),
        ({"revoked_at": timezone.now()}, False),
        ({"accepted_at": timezone.now()}, False),
        ({}, True),
    ],
)
def test_my_places_show_open_invitations_only(cast: dict[str, User], acme: Tenant, change: dict[str, Any], shown: bool) -> None:
    invite(acme, "carol@globex.example")
    if change:
        Invitation.objects.update(**change)
    assert bool(invitations.open_for(cast["carol"])) is shown


# --- Inviting -----------------------------------------------------------------------------------------------------


def test_an_idn_domain_is_invited_and_mailed_in_its_own_way(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    mail.outbox.clear()
    assert invitations.invite(acme, "frank@bücher.example", "member").result is Result.SENT
    mails.deliver()
    browser = visitor()
    browser.post(link_in(mail.outbox[0].body), {"username": "frank", "password": PASSWORD})
    assert User.objects.get(username="frank").email == "frank@bücher.example"
    assert mail.outbox[0].message()["To"] == "frank@xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text",
    ["", "x", "x@", "@x.example", "a b@x.example", "a@b@x.example", "x@y\nBcc: z@x.example", "x@y\r\n.example", f"{'x' * 10_000}@y.example",
     "x\x00@y.example", "x@y.example\u202e", "javascript:alert(1)", "x@localhost-"],
)  # fmt: skip
def test_what_is_no_address_is_never_mailed(cast: dict[str, User], acme: Tenant, text: str) -> None:
    assert invitations.invite(acme, text, "member").result is Result.MALFORMED
    assert not Invitation.objects.exists()
    assert not Mail.objects.exists()


def test_a_pasted_list_is_read_as_people_paste_it() -> None:
    text = 'Dave Vance <dave@x.example>; a@x.example,b@x.example\r\n\n c@x.example\td@x.example\n"Eve F" <ef@x.example> A@X.example\nnobody'
    found = ["dave@x.example", "a@x.example", "b@x.example", "c@x.example", "d@x.example", "ef@x.example", "nobody"]
    assert invitations.addresses_in(text) == found  # each once, whatever its case


def test_a_double_click_on_send_is_one_mail(cast: dict[str, User], acme: Tenant) -> None:
    assert invitations.invite(acme, NEW, "member").result is Result.SENT
    digest = Invitation.objects.get().digest
    assert invitations.invite(acme, NEW.upper(), "member").result is Result.JUST_NOW
    assert (Mail.objects.count(), Invitation.objects.get().digest) == (1, digest)
    assert invitations.invite(acme, NEW, "admin").result is Result.AGAIN  # as something else: that is another wish
    assert Invitation.objects.get().role == "admin"


def test_who_belongs_to_it_is_not_invited(cast: dict[str, User], acme: Tenant) -> None:
    assert invitations.invite(acme, "Alice@acme.example", "owner").result is Result.MEMBER
    assert not Mail.objects.exists()


def test_one_tenants_invitation_is_nothing_at_another(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    link = invite(acme)
    browser = visitor()
    browser.post(link, {"username": "frank", "password": PASSWORD})
    assert role_of("frank", "globex") == ""
    assert invitations.invite(globex, NEW, "member").result is Result.SENT
    assert not browser.is_in("globex")


def test_the_last_states_of_signing_up_at_a_tenant(cast: dict[str, User], acme: Tenant) -> None:
    """In, waiting, or neither; asked twice is asked once, and the admins hear of it."""
    request = RequestFactory().get("/")

    def join(name: str, **policy: Any) -> tuple[bool, bool]:
        Tenant.objects.filter(pk=acme.pk).update(policy=policy)
        joined = invitations.join(Tenant.objects.get(pk=acme.pk), cast[name], request=request)
        return joined.membership is not None, joined.waits

    assert join("carol", sign_up="closed") == (False, False)
    assert join("carol", sign_up="invited") == (False, False)
    assert join("carol", sign_up="domain", sign_up_domains="acme.example") == (False, False)
    assert join("mallory", sign_up="open") == (False, False)  # her address is not proven
    assert join("carol", sign_up="domain", sign_up_domains="acme.example, GLOBEX.example", approval=True) == (False, True)
    assert join("carol", sign_up="open", approval=True) == (False, True)
    assert JoinRequest.objects.count() == 1
    assert sorted(Mail.objects.filter(kind="join_asked").values_list("user__username", flat=True)) == ["bob", "olivia"]
    assert join("carol", sign_up="open") == (True, False)
    assert role_of("carol") == "member"


@pytest.mark.asvs("14.2.7")
def test_invitations_that_are_over_go_after_ninety_days(cast: dict[str, User], acme: Tenant) -> None:
    for number, days in enumerate((89, 91)):
        invitations.invite(acme, f"p{number}@x.example", "member")
        Invitation.objects.filter(email=f"p{number}@x.example").update(expires_at=timezone.now() - timedelta(days=days))
    assert pruning.prune(dry_run=True).invitations == 1
    assert pruning.prune().invitations == 1
    assert Invitation.objects.get().email == "p0@x.example"


# --- At once --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crew(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Crew]:
    """Four processes with two threads each, on the test database."""
    with Crew(database_url(str(connection.settings_dict["NAME"])), processes=4, threads=2) as racers:
        yield racers


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.asvs("2.3.4", "15.4.2")
def test_of_eight_who_accept_one_invitation_at_once_one_becomes_a_member(crew: Crew) -> None:
    stage = Stage(12)
    people = [User.objects.create_user(f"racer{n}", f"racer{n}@x.example", password=None) for n in range(8)]
    for slot in stage.slots:
        assert invitations.invite(slot.a, "racer0@x.example", "admin").result is Result.SENT
    found = {row.tenant_id: row.pk for row in Invitation.objects.all()}
    rounds = [[Task("accept", {"invitation": found[slot.a.pk], "user": each.pk}) for each in people] for slot in stage.slots]
    for slot, outcomes in zip(stage.slots, crew.run(rounds), strict=True):
        assert not [each.error for each in outcomes if each.error]
        assert [each.result for each in outcomes].count(True) == 1
        assert Membership.objects.filter(tenant=slot.a, user__in=people).count() == 1
        assert Event.objects.filter(kind="joined", tenant=slot.a).count() == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_one_person_who_accepts_eight_times_at_once_belongs_once(crew: Crew) -> None:
    stage = Stage(12)
    person = User.objects.create_user("racer", "racer@x.example", password=None)
    for slot in stage.slots:
        invitations.invite(slot.a, "racer@x.example", "member")
    found = {row.tenant_id: row.pk for row in Invitation.objects.all()}
    rounds = [[Task("accept", {"invitation": found[slot.a.pk], "user": person.pk})] * 8 for slot in stage.slots]
    for slot, outcomes in zip(stage.slots, crew.run(rounds), strict=True):
        assert not [each.error for each in outcomes if each.error]
        assert [each.result for each in outcomes].count(True) == 1
        assert Membership.objects.filter(tenant=slot.a, user=person).count() == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_admins_who_invite_one_address_at_once_make_one_invitation(crew: Crew) -> None:
    stage = Stage(12)
    rounds = [
        [Task("invite", {"tenant": slot.a.pk, "address": NEW, "role": role}) for role in ("member", "admin") * 4] for slot in stage.slots
    ]
    for slot, outcomes in zip(stage.slots, crew.run(rounds), strict=True):
        assert not [each.error for each in outcomes if each.error]
        assert Invitation.objects.filter(tenant=slot.a).count() == 1


def test_sessions_are_none_of_the_links_business(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    """Who has not signed in gets no row by looking."""
    link = invite(acme)
    visitor().get(link)
    assert Session.objects.count() == 0
