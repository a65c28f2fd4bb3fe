"""The platform's console: tenants, accounts and sessions in the hands of operators."""

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import CommandError
from django.utils import timezone

from identity import factors, leaving, mails, platform, seals, sessions
from identity.members import Actor
from identity.models import Event, Link, Mail, MassEnd, Session, Ticket, TotpDevice, User
from tenants import policy
from tenants.models import App, Group, Host, Invitation, JoinRequest, Logo, Membership, Tenant
from tests.test_commands import everything, manage, refusal, told
from tests.test_console import HTMX, crowd, words
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
TENANTS, ACCOUNTS, SESSIONS = "/console/platform/tenants/", "/console/platform/accounts/", "/console/platform/sessions/"
END = f"{SESSIONS}end"
ACME = f"{TENANTS}acme/"


def text_of(browser: Visitor, path: str, **headers: Any) -> str:
    return words(browser.get(portal_url(path), **headers).content.decode())


def act(browser: Visitor, path: str, **data: Any) -> str:
    return words(browser.post(portal_url(f"{path}act"), data).content.decode())


def of(person: User) -> str:
    return f"{ACCOUNTS}{person.pk}/"


def no_fresh_proof(browser: Visitor) -> None:
    Session.objects.filter(pk=browser.session().pk).update(proved_at=timezone.now() - policy.STEP_UP)


# --- Who may ------------------------------------------------------------------------------------------------------


PAGES = ("/console/platform/", TENANTS, f"{TENANTS}add", ACME, ACCOUNTS, f"{ACCOUNTS}1/", SESSIONS)
ACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (f"{TENANTS}add", {"name": "New", "slug": "new", "owner": "new@new.example"}),
    (f"{ACME}act", {"verb": "suspend", "reason": "x"}),
    (f"{ACME}act", {"verb": "delete", "confirm": "acme", "reason": "x"}),
    (f"{ACCOUNTS}%d/act", {"verb": "deactivate", "reason": "x"}),
    (f"{ACCOUNTS}%d/act", {"verb": "end_all", "reason": "x"}),
    (f"{ACCOUNTS}%d/act", {"verb": "link"}),
    (END, {"reason": "x"}),
)


@pytest.mark.asvs("8.2.1", "8.3.1", "8.4.2")
@pytest.mark.parametrize("person", ["alice", "bob", "olivia", "mallory", ""])
def test_nobody_but_operators_finds_a_page_or_a_verb_of_the_platform(cast: dict[str, User], visitor: Open, person: str) -> None:
    dave = visitor("dave")
    browser = visitor(person) if person else visitor()
    before = everything()
    for path in PAGES:
        answer = browser.get(portal_url(path), follow=False)
        assert answer.status_code == (404 if person else 302)
        assert b"dave" not in answer.content
    for path, data in ACTS:
        path = path.replace("%d", str(cast["dave"].pk))
        answer = browser.post(portal_url(path), {**data, "ids": [str(dave.session().pk)]}, follow=False)
        assert answer.status_code == (404 if person else 302), path
    assert everything() == before


@pytest.mark.asvs("8.4.2")
@pytest.mark.parametrize("path", PAGES)
def test_an_operator_without_a_second_factor_comes_to_set_one_up_first(cast: dict[str, User], visitor: Open, path: str) -> None:
    erin = visitor("erin")
    Session.objects.filter(pk=erin.session().pk).update(methods=["pwd"])
    assert erin.get(portal_url(path), follow=False)["Location"].startswith("/step-up/?next=%2Fconsole%2Fplatform")
    TotpDevice.objects.all().delete()
    assert erin.get(portal_url(path), follow=False)["Location"].startswith("/account/two-factor/?next=%2Fconsole%2Fplatform")


# --- Tenants ------------------------------------------------------------------------------------------------------


def test_the_list_of_tenants_counts_people_sessions_and_lockouts(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme").get(tenant_url("globex"))
    for _ in range(5):
        visitor().sign_in("alice", "wrong")
    erin = visitor("erin")
    page = text_of(erin, TENANTS)
    assert "2 in all" in page
    assert re.search(r"Acmeacme\.portal\.localhost Active Members 4 Live sessions 1 Locked out 1 Active just now", page)
    assert re.search(r"Globexglobex\.portal\.localhost Active Members 3 Live sessions 1 Locked out 0 ", page)
    assert '<div class="stack' in erin.get(portal_url(TENANTS), HTTP_HX_TARGET="tenants", **HTMX).content.decode()[:100]


def test_tenants_are_found_by_name_slug_and_host_and_by_state(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    Host.objects.create(tenant=globex, name="id.example.org", approved_at=timezone.now())
    erin = visitor("erin")

    def found(query: str) -> list[str]:
        return re.findall(r'data-tenant="(\w+)"', erin.get(portal_url(f"{TENANTS}?{query}")).content.decode())

    assert found("q=aCM") == found("q=acme.portal.localhost") == ["acme"]
    assert found("q=example.org") == found("q=glob") == ["globex"]
    assert found("q=nothing") == []
    assert found("state=frozen") == found("state=suspended") == []
    Tenant.objects.filter(pk=acme.pk).update(status="suspended")
    Tenant.objects.filter(pk=globex.pk).update(frozen_at=timezone.now())
    assert (found("state=suspended"), found("state=frozen"), found("state=active")) == (["acme"], ["globex"], [])
    assert found("sort=name") == ["acme", "globex"]
    assert set(found("sort=active")) == set(found("sort=new")) == {"acme", "globex"}


def test_every_tenant_is_listed_once_over_all_pages_in_every_order(cast: dict[str, User], visitor: Open) -> None:
    Tenant.objects.bulk_create(
        Tenant(slug=f"t{n:02}", name=f"Tenant {n % 7}", cookie_domain=f"t{n:02}.portal.localhost") for n in range(60)
    )
    erin = visitor("erin")
    for sort in ("name", "new", "active"):
        path, seen = f"{TENANTS}?sort={sort}", []
        while path:
            page = erin.get(portal_url(path)).content.decode()
            seen += re.findall(r'data-tenant="(\w+)"', page)
            further = re.search(r'href="([^"]*after=[^"]*)"', page)
            path = further[1].replace("&amp;", "&") if further else ""
        assert sorted(seen) == sorted(Tenant.objects.values_list("slug", flat=True))


@pytest.mark.parametrize("query", ["after=rubbish", "sort=new&after=WyJ4IiwgIjEiXQ", "sort=active&before=WyJ4IiwgIjEiXQ"])
def test_a_cursor_that_is_none_of_ours_is_a_404(cast: dict[str, User], visitor: Open, query: str) -> None:
    assert visitor("erin").get(portal_url(f"{TENANTS}?{query}")).status_code == 404


def test_a_new_tenant_invites_its_owner_and_says_what_comes_next(
    cast: dict[str, User], visitor: Open, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    erin = visitor("erin")
    data = {"name": "Initech", "slug": "Initech", "owner": "bill@initech.example"}
    page = words(erin.post(portal_url(f"{TENANTS}add"), data).content.decode())
    assert erin.url == portal_url(f"{TENANTS}initech/")
    assert "Initech is there, and bill@initech.example is invited to run it." in page
    assert "bill@initech.example opens the link in the mail, makes an account or signs in, and is the owner." in page
    assert "The name initech.portal.localhost has to lead to this portal (DNS)" in page
    invitation = Invitation.objects.get(tenant__slug="initech")
    assert (invitation.role, invitation.invited_by) == ("owner", cast["erin"])
    added = Event.objects.get(kind="tenant_added", tenant__slug="initech")
    assert (added.actor, added.data["before"], added.data["after"]["slug"]) == (cast["erin"], None, "initech")
    mails.deliver()
    assert [mail.to for mail in mailoutbox] == [["bill@initech.example"]]
    token = re.search(r"/invitation/[\w-]+/", mailoutbox[0].body)
    assert token
    bill = visitor()
    bill.get(portal_url(token[0]))
    bill.post(bill.url, {"username": "bill", "password": "a long one for bill"})
    assert Membership.objects.get(tenant__slug="initech", user__username="bill").role == "owner"
    assert "What comes next" not in text_of(erin, f"{TENANTS}initech/")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"slug": "ACME"}, "There is a tenant with that slug already. Choose another."),
        ({"slug": "platform"}, "“platform” is reserved"),
        ({"slug": "a.b"}, "one label of a host"),
        ({"slug": "xn--a"}, "one label of a host"),
        ({"owner": "bill"}, "Write the address as name@example.com."),
        ({"name": ""}, "required"),
        ({"name": "a\x00b"}, "Null characters"),
    ],
)
def test_a_tenant_that_cannot_be_is_refused_next_to_the_cause(
    cast: dict[str, User], visitor: Open, given: dict[str, str], says: str
) -> None:
    erin = visitor("erin")
    data = {"name": "Initech", "slug": "initech", "owner": "bill@initech.example", **given}
    answer = erin.post(portal_url(f"{TENANTS}add"), data)
    assert says in words(answer.content.decode()) or answer.status_code == 400
    assert not Tenant.objects.exclude(slug__in=["acme", "globex"]).exists()
    assert not Mail.objects.filter(kind="invitation").exists()


@pytest.mark.asvs("7.4.1", "7.5.3")
def test_suspending_asks_for_a_proof_and_a_reason_and_is_in_force_at_once(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, erin = visitor("dave", at="acme"), visitor("erin")
    dave.get(tenant_url("globex"))
    no_fresh_proof(erin)
    assert "You are about to close Acme for everybody." in act(erin, ACME, verb="suspend", reason="Unpaid")
    assert dave.is_in("acme")
    erin.step_up()
    assert "1 session ends" in act(erin, ACME, verb="suspend")
    assert "Say why" in act(erin, ACME, verb="suspend", reason=" ")
    assert "Acme is suspended; 1 session ended." in act(erin, ACME, verb="suspend", reason="Unpaid")
    assert (dave.is_in("acme"), dave.is_in("globex"), dave.is_in()) == (False, True, True)
    event = Event.objects.get(kind="tenant_suspended")
    assert (event.actor, event.tenant, event.data) == (
        cast["erin"], acme, {"before": {"status": "active"}, "after": {"status": "suspended"}, "reason": "Unpaid"},
    )  # fmt: skip
    row = Session.objects.get(tenant=acme, user=cast["dave"])
    assert (row.end_reason, row.ended_by, row.end_note) == ("suspended", cast["erin"], "Unpaid")
    assert "Acme is open again" in act(erin, ACME, verb="resume")
    assert Event.objects.get(kind="tenant_resumed").data == {"before": {"status": "suspended"}, "after": {"status": "active"}}
    assert not dave.is_in("acme")


def test_the_verbs_of_a_tenant_work_by_htmx_and_without_a_script_alike(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    asked = erin.post(portal_url(f"{ACME}act"), {"verb": "suspend"}, **HTMX).content.decode()
    assert asked.lstrip().startswith("<form")
    assert 'hx-target="#dialog"' in asked
    done = erin.post(portal_url(f"{ACME}act"), {"verb": "suspend", "reason": "x"}, **HTMX)
    assert done["HX-Redirect"] == ACME
    assert "Acme is suspended" in text_of(erin, ACME)
    assert erin.get(portal_url(f"{ACME}act"), follow=False)["Location"] == ACME
    assert erin.post(portal_url(f"{ACME}act"), {"verb": "rubbish"}).status_code == 404
    assert erin.post(portal_url(f"{TENANTS}nowhere/act"), {"verb": "suspend", "reason": "x"}).status_code == 404


def fill(tenant: Tenant, person: User) -> None:
    """Everything that can belong to a tenant."""
    now = timezone.now()
    Host.objects.create(tenant=tenant, name="id.acme.org", approved_at=now)
    app = App.objects.create(tenant=tenant, name="Wiki", host=f"books.{tenant.hostname}")
    group = Group.objects.create(tenant=tenant, name="Team")
    group.members.set(Membership.objects.filter(tenant=tenant))
    app.groups.add(group)
    tenant.logo = Logo.objects.create(png=b"x")
    tenant.save()
    JoinRequest.objects.create(tenant=tenant, user=person, created_at=now)
    MassEnd.objects.create(tenant=tenant, before=now, started_at=now, finished_at=now, reason="by_admin")
    portal = Session.objects.filter(tenant=None)[0]
    Ticket.objects.create(digest="d", tenant=tenant, host="h", portal=portal, state_digest="s", expires_at=now)
    mails.post("approved", to="x@x.example", user=person, tenant=tenant, link="https://x.example/")


def rows_of(tenant: Tenant) -> dict[str, int]:
    """How many rows of every model point at a tenant, the log aside, which has no names."""
    relations = [each for each in Tenant._meta.related_objects if each.related_model is not Event]
    return {
        each.related_model._meta.label: each.related_model._default_manager.filter(**{each.field.name: tenant.pk}).count()
        for each in relations
    }


def test_deleting_a_tenant_leaves_no_orphan_and_touches_no_other(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open
) -> None:
    dave, erin = visitor("dave", at="acme"), visitor("erin")
    dave.get(tenant_url("globex"))
    manage("invite", "acme", "new@acme.example")
    fill(acme, cast["mallory"])
    others, people, events = rows_of(globex), User.objects.count(), Event.objects.filter(tenant=acme).count()
    assert set(rows_of(acme).values()) != {0}
    assert 0 not in rows_of(acme).values(), rows_of(acme)
    assert "only a suspended tenant can be deleted." in act(erin, ACME, verb="delete", confirm="acme", reason="x")
    act(erin, ACME, verb="suspend", reason="Left us")
    events = Event.objects.filter(tenant=acme).count()
    page = act(erin, ACME, verb="delete")
    assert "4 memberships go" in page
    assert "1 session goes, ended ones too" in page
    assert "acme.portal.localhost is free again" in page
    assert "id.acme.org is free again" in page
    assert f"{events} events stay in the log" in page
    assert "That is not its slug. Type “acme” to go on." in act(erin, ACME, verb="delete", confirm="globex", reason="Left us")
    assert "Acme is deleted." in act(erin, ACME, verb="delete", confirm="acme", reason="Left us")
    assert not Tenant.objects.filter(pk=acme.pk).exists()
    assert set(rows_of(acme).values()) == {0}
    assert not Logo.objects.exists()
    assert not Group.members.through.objects.exists()
    assert rows_of(globex) == others
    assert User.objects.count() == people
    assert Event.objects.filter(tenant=acme.pk).count() == events + 1
    event = Event.objects.select_related("tenant").get(kind="tenant_deleted")
    assert (event.actor, event.data["before"]["slug"], event.data["before"]["members"], event.data["after"]) == (
        cast["erin"], "acme", 4, None,
    )  # fmt: skip
    assert event.reference == f"#{acme.pk}-{event.pk}"
    assert dave.is_in("globex")
    assert dave.get(tenant_url("acme")).status_code == 404
    assert dave.get(portal_url("/account/activity/")).status_code == 200
    assert erin.get(portal_url(ACME)).status_code == 404
    seals.seal(wait=True)
    assert told("event", "verify")["findings"] == []


def test_a_big_tenant_goes_in_batches_and_nothing_brings_it_back_meanwhile(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(acme, 25)
    monkeypatch.setattr(sessions, "BATCH", 10)
    by = Actor(cast["erin"])
    platform.suspend(acme, reason="Left us", by=by)
    assert platform.delete(acme, reason="Left us", by=by) is False
    assert Session.objects.filter(tenant=acme).count() == 15
    assert platform.delete(acme, reason="Left us", by=by) is False
    assert Event.objects.filter(kind="tenant_deleted").count() == 1
    for verb in (platform.resume, platform.suspend):
        with pytest.raises(platform.BeingDeleted):
            verb(acme, by=by)
    erin = visitor("erin")
    assert "Acme is being deleted, and nothing brings it back." in act(erin, ACME, verb="resume")
    assert "Being deleted" in text_of(erin, f"{TENANTS}?state=suspended")
    assert "is being deleted" in refusal("tenant", "resume", "acme")
    assert [platform.carry_on(), platform.carry_on(), platform.carry_on()].count(1) == 1
    assert list(Tenant.objects.all()) == [globex]
    assert platform.carry_on() == 0


def test_the_command_line_deletes_a_tenant_by_the_same_verb(cast: dict[str, User], acme: Tenant) -> None:
    assert "First: manage.py tenant suspend acme" in refusal("tenant", "delete", "acme")
    manage("tenant", "suspend", "acme")
    assert told("tenant", "delete", "acme", "--dry-run")["dry_run"] is True
    assert Tenant.objects.filter(slug="acme").exists()
    assert told("tenant", "delete", "acme", "--reason", "Left us")["before"]["members"] == 4
    assert Event.objects.get(kind="tenant_deleted").data["source"] == "command line"
    with pytest.raises(CommandError, match="There is no tenant"):
        manage("tenant", "show", "acme")


# --- Accounts -----------------------------------------------------------------------------------------------------


def test_accounts_are_found_by_name_and_e_mail_and_by_what_is_out_of_the_ordinary(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")

    def found(query: str) -> set[str]:
        page = erin.get(portal_url(f"{ACCOUNTS}?{query}")).content.decode()
        return set(User.objects.filter(pk__in=re.findall(r'data-account="(\d+)"', page)).values_list("username", flat=True))

    assert found("q=VANCE") == found("q=dave@acme") == {"dave"}
    assert found("which=operators") == {"erin"}
    assert found("which=deactivated") == found("which=leaving") == set()
    with_factor = set(TotpDevice.objects.filter(confirmed=True).values_list("user__username", flat=True))
    assert found("which=password") == set(cast) - with_factor
    User.objects.filter(username="dave").update(is_active=False)
    User.objects.filter(username="alice").update(delete_at=timezone.now() + timedelta(days=3))
    assert (found("which=deactivated"), found("which=leaving")) == ({"dave"}, {"alice"})
    assert found("which=deactivated&q=alice") == set()
    assert f"1 of {len(cast)}" in text_of(erin, f"{ACCOUNTS}?which=deactivated")


def test_every_account_is_listed_once_over_all_pages(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 120)
    erin = visitor("erin")
    for sort in ("name", "new"):
        path, seen = f"{ACCOUNTS}?sort={sort}", []
        while path:
            page = erin.get(portal_url(path)).content.decode()
            seen += re.findall(r'data-account="(\d+)"', page)
            further = re.search(r'href="([^"]*after=[^"]*)"', page)
            path = further[1].replace("&amp;", "&") if further else ""
        assert sorted(map(int, seen)) == sorted(User.objects.values_list("pk", flat=True))


@pytest.mark.asvs("8.2.3")
def test_an_account_shows_counts_of_its_factors_and_never_a_secret(cast: dict[str, User], visitor: Open) -> None:
    dave, erin = visitor("dave", at="acme"), visitor("erin")
    device = factors.enrolment(cast["dave"])
    TotpDevice.objects.filter(pk=device.pk).update(confirmed=True, name="Phone")
    codes = factors.make_recovery_codes(cast["dave"])
    for _ in range(5):
        visitor().sign_in("dave", "wrong")
    raw = erin.get(portal_url(of(cast["dave"]))).content.decode()
    page = words(raw)
    assert "Authenticators1 Recovery codes left10 Trusted browsers0" in page
    assert "Acme Member" in page
    assert "Password, on browsers that are not known (5 wrong passwords)" in page
    assert re.findall(r'data-session="([^"]+)"', raw) == [str(dave.session().pk), str(dave.session("acme").pk)]
    for secret in (factors.text_key(device), device.secret, cast["dave"].password, *codes):
        assert str(secret) not in raw
    assert "/console/platform/factors/?username=dave" in raw
    assert 'value="dave"' in erin.get(portal_url("/console/platform/factors/?username=dave")).content.decode()


@pytest.mark.asvs("7.4.2", "7.5.3")
def test_deactivating_ends_everything_and_activating_asks_for_a_new_proof(cast: dict[str, User], visitor: Open) -> None:
    dave, erin = visitor("dave", at="acme"), visitor("erin")
    no_fresh_proof(erin)
    assert "You are about to close the account of Dave Vance." in act(erin, of(cast["dave"]), verb="deactivate", reason="Left")
    erin.step_up()
    assert "2 sessions end" in act(erin, of(cast["dave"]), verb="deactivate")
    assert dave.is_in("acme")
    assert "Dave Vance is deactivated; 2 sessions ended." in act(erin, of(cast["dave"]), verb="deactivate", reason="Left")
    assert not dave.is_in("acme")
    assert not visitor("dave").is_in()
    assert "Activate Dave Vance again?" in act(erin, of(cast["dave"]), verb="activate")
    assert "Dave Vance is active again" in act(erin, of(cast["dave"]), verb="activate", reason="Back")
    assert not dave.is_in()
    assert visitor("dave").is_in()
    told = Event.objects.filter(kind__in=["user_deactivated", "user_activated"], subject=cast["dave"]).order_by("pk")
    assert [(event.actor, event.data) for event in told] == [
        (cast["erin"], {"before": {"active": True}, "after": {"active": False}, "reason": "Left"}),
        (cast["erin"], {"before": {"active": False}, "after": {"active": True}, "reason": "Back"}),
    ]


def test_the_page_warns_before_a_place_loses_its_last_owner(cast: dict[str, User], visitor: Open) -> None:
    assert "Acme has no other owner who can act" in act(visitor("erin"), of(cast["olivia"]), verb="deactivate")


def test_operators_close_neither_their_own_account_nor_the_last_operators(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    assert "This is your own account" in act(erin, of(cast["erin"]), verb="deactivate", reason="x")
    User.objects.filter(username="bob").update(is_superuser=True)
    cast["bob"].refresh_from_db()
    assert "Bob Marsh is deactivated" in act(erin, of(cast["bob"]), verb="deactivate", reason="x")
    with pytest.raises(leaving.LastOperator):
        platform.deactivate(cast["erin"], by=Actor(cast["bob"]))
    with pytest.raises(platform.Oneself):
        platform.deactivate(cast["erin"], by=Actor(cast["erin"]))
    assert "last operator" in refusal("user", "deactivate", "erin")
    assert User.objects.get(username="erin").is_active


@pytest.mark.asvs("6.4.6")
def test_a_link_to_set_a_password_goes_to_the_person_and_is_shown_to_nobody_else(
    cast: dict[str, User], visitor: Open, mailoutbox: list[Any]
) -> None:
    erin = visitor("erin")
    page = erin.post(portal_url(f"{of(cast['dave'])}act"), {"verb": "link"}).content.decode()
    assert "The link is on its way to dave@acme.example." in words(page)
    assert "a moment ago; nothing more was sent" in act(erin, of(cast["dave"]), verb="link")
    mails.deliver()
    assert [mail.to for mail in mailoutbox] == [["dave@acme.example"]]
    assert "The people who run the portal send you this link to set a password" in mailoutbox[0].body
    link = re.search(r"/password/reset/[\w-]{43}/", mailoutbox[0].body)
    assert link
    assert link[0] not in page
    event = Event.objects.get(kind="password_link_sent")
    assert (event.actor, event.subject, list(event.data)) == (cast["erin"], cast["dave"], ["expires_at"])
    dave = visitor()
    dave.get(portal_url(link[0]))
    dave.post(dave.url, {"password": "a new one for dave", "password1": "a new one for dave", "password2": "a new one for dave"})
    assert not visitor("dave").is_in()


@pytest.mark.parametrize("fields", [{"email_verified_at": None}, {"is_active": False}])
def test_no_link_goes_to_an_address_that_nobody_has_proven_nor_to_a_closed_account(
    cast: dict[str, User], visitor: Open, fields: dict[str, Any]
) -> None:
    User.objects.filter(username="dave").update(**fields)
    erin = visitor("erin")
    assert "Mail a link" not in text_of(erin, of(cast["dave"]))
    assert "No link was sent" in act(erin, of(cast["dave"]), verb="link")
    assert not Link.objects.exists()


@pytest.mark.asvs("7.4.5")
def test_an_operator_ends_one_tree_one_branch_or_all_of_a_person(cast: dict[str, User], visitor: Open) -> None:
    one, two, erin = visitor("dave", at="acme"), visitor("dave", at="acme"), visitor("erin")
    three = visitor("dave")
    path = of(cast["dave"])
    assert "End this session of Dave Vance?" in act(erin, path, end=str(one.session().pk))
    assert "2 sessions of Dave Vance are over." in act(erin, path, end=str(one.session().pk), reason="Lost laptop")
    assert (one.is_in(), two.is_in("acme"), three.is_in()) == (False, True, True)
    assert "1 session of Dave Vance is over." in act(erin, path, end=str(two.session("acme").pk), reason="Lost laptop")
    assert (two.is_in("acme"), two.is_in()) == (False, True)
    assert "Dave Vance is signed out at once" in act(erin, path, verb="end_all")
    assert "2 sessions of Dave Vance are over." in act(erin, path, verb="end_all", reason="Lost laptop")
    assert (two.is_in(), three.is_in(), erin.is_in()) == (False, False, True)
    rows = Session.objects.filter(user=cast["dave"])
    assert {(row.end_reason, row.ended_by, row.end_note) for row in rows} == {("by_operator", cast["erin"], "Lost laptop")}


def test_a_session_of_somebody_else_is_a_404_on_this_persons_page(cast: dict[str, User], visitor: Open) -> None:
    dave, erin = visitor("dave"), visitor("erin")
    for pk in (dave.session().pk, uuid.uuid4(), "rubbish"):
        answer = erin.post(portal_url(f"{of(cast['alice'])}act"), {"end": str(pk), "reason": "x"})
        assert answer.status_code == 404
    assert dave.is_in()
    for number in (0, 10**6, 10**30):
        assert erin.get(portal_url(f"{ACCOUNTS}{number}/")).status_code == 404


# --- Sessions -----------------------------------------------------------------------------------------------------


def test_every_live_portal_session_is_listed_once_over_all_pages_and_found(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 120)
    erin = visitor("erin")
    for sort in ("seen", "signed_in", "person"):
        path, seen = f"{SESSIONS}?sort={sort}", []
        while path:
            page = erin.get(portal_url(path)).content.decode()
            assert "121 in all" in words(page)
            seen += re.findall(r'data-session="([^"]+)"', page)
            further = re.search(r'href="([^"]*after=[^"]*)"', page)
            path = further[1].replace("&amp;", "&") if further else ""
        assert sorted(seen) == sorted(str(pk) for pk in Session.objects.filter(tenant=None).values_list("pk", flat=True))
    assert "1 of 121" in text_of(erin, f"{SESSIONS}?q=p007")
    assert "1 of 121" in text_of(erin, f"{SESSIONS}?q=203.0.113.42")
    assert "120 of 121" in text_of(erin, f"{SESSIONS}?q=203.0.113.")
    assert "No session matches" in text_of(erin, f"{SESSIONS}?q=nobody")


def test_ending_on_the_platform_ends_the_whole_tree_and_leaves_a_proof(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, erin = visitor("dave", at="acme"), visitor("alice"), visitor("erin")
    pk = str(dave.session().pk)
    asked = erin.post(portal_url(END), {"only": pk}, **HTMX).content.decode()
    assert "End this session of Dave Vance?" in asked
    assert f'name="ids" value="{pk}"' in asked
    done = erin.post(portal_url(END), {"ids": pk, "reason": "Stolen"}, **HTMX).content.decode()
    assert f'data-session="{pk}"' in done
    assert "1 session is over, with everything it had open." in words(done)
    assert (dave.is_in(), dave.is_in("acme"), alice.is_in()) == (False, False, True)
    row = Session.objects.get(pk=pk)
    assert (row.end_reason, row.ended_by, row.end_note) == ("by_operator", cast["erin"], "Stolen")
    assert "These sessions were over already." in words(erin.post(portal_url(END), {"ids": pk, "reason": "x"}).content.decode())
    assert "Tick the sessions to end first." in words(erin.post(portal_url(END), {"reason": "x"}).content.decode())
    assert erin.get(portal_url(END), follow=False)["Location"] == SESSIONS


def test_ending_sessions_of_several_people_asks_for_a_fresh_proof(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, erin = visitor("dave"), visitor("alice"), visitor("erin")
    ids = [str(dave.session().pk), str(alice.session().pk)]
    no_fresh_proof(erin)
    data = {"ids": ids, "reason": "Incident"}
    assert "You are about to end sessions of 2 people." in words(erin.post(portal_url(END), data).content.decode())
    assert dave.is_in()
    erin.step_up()
    assert "2 sessions are over" in words(erin.post(portal_url(END), data).content.decode())
    assert not dave.is_in()
    assert not alice.is_in()


@pytest.mark.asvs("8.2.2")
def test_an_id_that_is_no_portal_session_is_a_404_and_changes_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave, erin = visitor("dave", at="acme"), visitor("erin")
    tree, branch = str(dave.session().pk), str(dave.session("acme").pk)
    for ids in ([branch], [tree, branch], [tree, str(uuid.uuid4())], [tree, "rubbish"]):
        assert erin.post(portal_url(END), {"ids": ids, "reason": "x"}).status_code == 404
    assert dave.is_in("acme")


HOSTILE = ["<script>alert(1)</script>", "{{ 7|add:7 }}", "=1+1", "\u202etxt", "x" * 10_000, "😀", "%", "' OR 1=1 --", "\x00"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_searched_for_is_shown_as_text_or_refused(cast: dict[str, User], visitor: Open, text: str) -> None:
    erin = visitor("erin")
    for path in (TENANTS, ACCOUNTS, SESSIONS):
        answer = erin.get(portal_url(f"{path}?{urlencode({'q': text})}"))
        assert answer.status_code in {200, 400}
        assert b"<script>alert" not in answer.content
        assert b">14<" not in answer.content
