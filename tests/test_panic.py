"""Panic: a tenant is frozen, everything there is ended, a fresh proof is demanded of everybody; and each is lifted again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import RequestFactory
from django.utils import timezone

from identity import mass, panic, sessions, tickets
from identity.management import probe
from identity.members import COMMAND_LINE, Actor
from identity.models import Event, Session, User
from tenants.models import Membership, Tenant
from tests.phone import code_of, enrol, hidden, proof_is_old, said
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PAGE = "/console/acme/panic/"
WHY = "Somebody is guessing"
HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}


def act(browser: Visitor, what: str, **more: Any) -> str:
    """Press a switch of the page, with a reason."""
    browser.post(portal_url(PAGE), {"do": what, "reason": WHY, **more})
    return said(browser)


def kinds(tenant: Tenant) -> list[str]:
    return list(Event.objects.filter(tenant=tenant, kind__regex="frozen|everything|demand").order_by("pk").values_list("kind", flat=True))


# --- Frozen -----------------------------------------------------------------------------------------------------------


def test_a_frozen_place_lets_nobody_new_in_and_who_is_in_goes_on(acme: Tenant, visitor: Open) -> None:
    Tenant.objects.update(support_contact="help@acme.example")
    alice, dave = visitor("alice", at="acme"), visitor("dave")
    assert panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    assert alice.is_in("acme")
    page = dave.get(tenant_url("acme"))
    assert page.status_code == 403
    assert "Nobody new can enter Acme right now" in said(dave)
    assert "help@acme.example" in said(dave)
    assert WHY not in said(dave)
    assert not dave.is_in("acme")
    assert dave.get(tenant_url("globex")).status_code == 200
    assert panic.lift_freeze(acme, by=COMMAND_LINE)
    dave.get(tenant_url("acme"))
    assert dave.is_in("acme")


def test_a_stranger_learns_nothing_of_a_freeze(acme: Tenant, visitor: Open) -> None:
    carol = visitor("carol")
    before = carol.get(tenant_url("acme")).content
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    after = carol.get(tenant_url("acme"))
    assert after.status_code == 403
    assert "frozen" not in after.content.decode().lower()
    assert "right now" not in said(carol)
    assert len(before) == len(after.content)


def test_a_ticket_from_before_the_freeze_opens_nothing_after_it(acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave")
    browser = tickets.Browser.new()
    state = tickets.State.make(acme, acme.hostname, "/", browser)
    ticket = tickets.issue(dave.session(), acme, state)
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    with pytest.raises(tickets.Refused) as refused:
        tickets.redeem(ticket, state, browser, acme, acme.hostname, held={}, request=RequestFactory().get("/"))
    assert refused.value.verdict is sessions.Verdict.FROZEN


def test_admins_come_in_with_a_second_factor_that_they_type(acme: Tenant, visitor: Open) -> None:
    weak, bob = visitor("olivia"), visitor("bob")
    enrol(bob, "bob")
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    bob.get(tenant_url("acme"))
    assert bob.is_in("acme")
    weak.get(tenant_url("acme"))
    assert not weak.is_in("acme")
    assert "Nobody new can enter Acme right now" in said(weak)
    # A trusted browser does not do, and the page says how to go on.
    Session.objects.filter(pk=bob.session().pk).update(methods=["pwd", "trusted"], proved_at=None)
    Session.objects.filter(parent=bob.session().pk).update(ended_at=timezone.now(), end_reason="signed_out")
    bob.get(tenant_url("acme"))
    bob.get(tenant_url("acme", "/_portal/start?again=1"))
    assert bob.url.startswith(portal_url("/step-up/")), bob.url
    bob.post(bob.url, {"password": "gatehouse-demo", "code": code_of("bob")})
    assert bob.is_in("acme")


def test_a_member_with_a_second_factor_waits_like_everybody(acme: Tenant, visitor: Open) -> None:
    alice = visitor("alice")
    enrol(alice, "alice")
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    assert alice.get(tenant_url("acme")).status_code == 403


def test_a_newcomer_may_become_a_member_of_a_frozen_place_and_nothing_opens(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    Membership.objects.create(tenant=acme, user=cast["mallory"])
    mallory = visitor("mallory", at="acme")
    assert not mallory.is_in("acme")
    assert "Nobody new can enter Acme right now" in said(mallory)


def test_the_console_stays_open_and_says_who_froze_the_place(acme: Tenant, visitor: Open) -> None:
    bob, olivia, erin = visitor("bob"), visitor("olivia"), visitor("erin")
    assert "Sign-ins are frozen" in act(bob, "freeze")
    for browser in (bob, olivia, erin):
        for path in ("", "sessions/", "people/", "lockouts/"):
            browser.get(portal_url(f"/console/acme/{path}"))
            assert "Sign-ins are frozen" in said(browser), path
            assert "Bob Marsh" in said(browser)
            assert WHY in said(browser)
            assert "Lift the freeze" in said(browser)
    assert olivia.post(portal_url(PAGE), {"lift": "freeze"}, HTTP_REFERER=portal_url("/console/acme/people/")).status_code == 200
    assert olivia.url == portal_url("/console/acme/people/")
    assert "Sign-ins are frozen" not in said(olivia)
    assert kinds(acme) == ["tenant_frozen", "tenant_unfrozen"]


def test_a_place_in_peace_shows_no_banner_and_asks_nothing(acme: Tenant, visitor: Open, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert panic.in_force(acme) == []


# --- Everything ended -------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.5")
def test_an_end_of_everything_spares_the_tree_of_who_does_it(acme: Tenant, visitor: Open) -> None:
    alice, dave, bob, phone = visitor("alice", at="acme"), visitor("dave", at="acme"), visitor("bob", at="acme"), visitor("bob", at="acme")
    dave.get(tenant_url("globex"))
    assert "3 sessions are over" in act(bob, "end")
    assert not alice.is_in("acme")
    assert not dave.is_in("acme")
    assert not phone.is_in("acme")
    assert dave.is_in("globex")
    assert bob.is_in("acme")
    assert bob.get(portal_url("/console/acme/sessions/")).status_code == 200
    assert bob.url == portal_url("/console/acme/sessions/")
    bob.get(tenant_url("acme"))
    assert bob.is_in("acme")
    alice.get(tenant_url("acme"))
    assert WHY in said(alice)


def test_the_own_tree_ends_too_if_that_was_ticked(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob", at="acme")
    act(bob, "end", own="1")
    assert not bob.is_in("acme")
    bob.get(portal_url("/console/acme/"))
    assert bob.url.startswith(portal_url("/step-up/"))


def test_what_was_opened_after_the_end_is_not_marked(acme: Tenant, visitor: Open) -> None:
    panic.end_everything(acme, by=COMMAND_LINE, note=WHY)
    dave = visitor("dave", at="acme")
    assert not sessions.stamped(acme, acme.valid_from).exists()
    assert mass.carry_on() == 0
    assert dave.is_in("acme")


def test_a_spared_tree_does_not_pass_over_what_another_place_has_ended(acme: Tenant, globex: Tenant, visitor: Open) -> None:
    """The end at acme gives olivia's tree a later proof; globex has ended everything since her true one."""
    olivia = visitor("olivia", at="acme")
    olivia.get(tenant_url("globex"))
    panic.end_everything(globex, by=COMMAND_LINE, note=WHY)
    assert "over" in act(olivia, "end")
    assert olivia.is_in("acme")
    assert not olivia.is_in("globex")
    olivia.get(tenant_url("globex", "/_portal/start?again=1"))
    assert olivia.url.startswith(portal_url("/step-up/"))
    olivia.get(portal_url("/console/globex/"))
    assert olivia.url.startswith(portal_url("/step-up/"))


def test_of_two_admins_who_end_everything_the_first_one_wins(acme: Tenant, visitor: Open) -> None:
    bob, olivia = visitor("bob", at="acme"), visitor("olivia", at="acme")
    late = olivia.session()
    late = Session.objects.select_related("user").get(pk=late.pk)
    panic.end_everything(acme, by=Actor(bob.session().user), note=WHY, spare=bob.session())
    with pytest.raises(sessions.StaleProof):
        panic.end_everything(acme, by=Actor(late.user), note=WHY, spare=late)
    assert bob.is_in("acme")
    assert not olivia.is_in("acme")


# --- A fresh proof ----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.5", "6.3.3")
def test_a_demand_leads_everybody_through_a_typed_second_factor(acme: Tenant, visitor: Open) -> None:
    bob, alice, dave = visitor("bob"), visitor("alice", at="acme"), visitor("dave", at="acme")
    enrol(bob, "bob")
    enrol(alice, "alice")
    bob.get(tenant_url("acme"))
    assert "Everybody proves a second factor anew" in act(bob, "demand")
    assert bob.is_in("acme")  # typed a moment ago
    assert not alice.is_in("acme")
    assert not dave.is_in("acme")
    # Who has one types it.
    alice.get(tenant_url("acme", "/_portal/start?again=1"))
    assert alice.url.startswith(portal_url("/step-up/"))
    alice.post(alice.url, {"password": "gatehouse-demo", "code": code_of("alice")})
    assert alice.is_in("acme")
    # Who has none sets one up.
    dave.get(tenant_url("acme", "/_portal/start?again=1"))
    dave.post(dave.url, {"password": "gatehouse-demo"})
    assert dave.url.startswith(portal_url("/account/two-factor/")), dave.url
    assert "Acme asks everybody for a second factor" in said(dave)
    # A new sign-in does not do without, either.
    other = visitor("olivia", at="acme")
    assert other.url.startswith(portal_url("/account/two-factor/"))
    bob.post(portal_url(PAGE), {"lift": "demand"})
    other.get(tenant_url("acme"))
    assert other.is_in("acme")
    assert kinds(acme) == ["proof_demanded", "demand_lifted"]


def test_a_trusted_browser_does_not_do_while_a_proof_is_demanded(acme: Tenant, visitor: Open) -> None:
    alice = visitor("alice")
    enrol(alice, "alice")
    panic.demand_proof(acme, by=COMMAND_LINE, note=WHY)
    now = timezone.now() + timedelta(seconds=1)
    Session.objects.filter(pk=alice.session().pk).update(methods=["pwd", "trusted"], authenticated_at=now, proved_at=None)
    alice.get(tenant_url("acme"))
    assert alice.url.startswith(portal_url("/step-up/"))
    assert not alice.is_in("acme")


def test_an_admin_without_a_second_factor_is_told_before_and_led_to_set_one_up(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob", at="acme")
    bob.post(portal_url(PAGE), {"do": "demand"})
    assert "You have no second factor" in said(bob)
    act(bob, "demand")
    assert not bob.is_in("acme")
    bob.get(portal_url("/console/acme/"))
    bob.post(bob.url, {"password": "gatehouse-demo", "next": hidden(bob, "next")})
    assert bob.url.startswith(portal_url("/account/two-factor/"))
    enrol(bob, "bob")
    assert bob.get(portal_url("/console/acme/")).status_code == 200
    assert bob.url == portal_url("/console/acme/")
    bob.get(tenant_url("acme", "/_portal/start?again=1"))
    assert bob.is_in("acme")


def test_an_operator_proves_it_anew_as_well(acme: Tenant, visitor: Open) -> None:
    erin = visitor("erin")
    panic.demand_proof(acme, by=COMMAND_LINE, note=WHY)
    erin.get(portal_url("/console/acme/"))
    assert erin.url.startswith(portal_url("/step-up/"))
    erin.post(erin.url, {"password": "gatehouse-demo", "code": code_of("erin")})
    assert erin.url == portal_url("/console/acme/")


def test_the_own_page_of_factors_says_who_demands_one(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    panic.demand_proof(acme, by=COMMAND_LINE, note=WHY)
    dave = visitor("dave")
    enrol(dave, "dave")
    dave.get(portal_url("/account/two-factor/"))
    assert "Acme asks everybody for a second factor" in said(dave)
    membership = Membership.objects.get(tenant=acme, user=cast["dave"])
    assert acme.factor_due(membership) == acme.proof_demanded_at
    assert acme.factor_due_by_policy(membership) is None  # so that no password may be shorter for it


# --- Who, and how it asks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["freeze", "end", "demand"])
@pytest.mark.asvs("7.5.3", "16.2.1")
def test_every_switch_asks_for_a_fresh_proof_and_a_reason_first(acme: Tenant, visitor: Open, what: str) -> None:
    bob = visitor("bob")
    bob.post(portal_url(PAGE), {"do": what})
    assert 'name="reason"' in bob.page.content.decode()
    bob.post(portal_url(PAGE), {"do": what, "reason": " "})
    assert "Say why" in said(bob)
    partial = bob.post(portal_url(PAGE), {"do": what}, **HTMX).content.decode()
    assert "<html" not in partial
    assert 'name="reason"' in partial
    proof_is_old("bob")
    bob.post(portal_url(PAGE), {"do": what, "reason": WHY})
    assert "Prove that it is you" in said(bob)
    assert kinds(acme) == []
    answer = bob.post(portal_url(PAGE), {"do": what, "reason": WHY, "proof-password": "gatehouse-demo"}, follow=False)
    assert answer.status_code == 303
    assert len(kinds(acme)) == 1
    event = Event.objects.get(tenant=acme, kind=kinds(acme)[0])
    assert event.data["note"] == WHY
    assert event.data["before"] != event.data["after"]


def test_lifting_asks_for_nothing_but_a_post(acme: Tenant, visitor: Open) -> None:
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    bob = visitor("bob")
    proof_is_old("bob")
    bob.get(portal_url(f"{PAGE}?lift=freeze"))
    assert kinds(acme) == ["tenant_frozen"]
    bob.post(portal_url(PAGE), {"lift": "freeze"})
    assert kinds(acme) == ["tenant_frozen", "tenant_unfrozen"]
    bob.post(portal_url(PAGE), {"lift": "freeze"})
    assert "was lifted already" in said(bob)


@pytest.mark.asvs("8.2.1", "8.3.1")
@pytest.mark.parametrize(
    ("person", "status"), [("alice", 404), ("dave", 404), ("carol", 404), ("bob", 200), ("olivia", 200), ("erin", 200)]
)
def test_admins_owners_and_operators_have_the_switches_and_nobody_else(
    cast: dict[str, User], acme: Tenant, visitor: Open, person: str, status: int
) -> None:
    browser = visitor(person)
    assert browser.get(portal_url(PAGE)).status_code == status
    browser.post(portal_url(PAGE), {"do": "freeze", "reason": WHY})
    assert Tenant.objects.get(pk=acme.pk).frozen_at is not None or status == 404
    assert browser.get(portal_url("/console/globex/panic/")).status_code == (200 if person in {"olivia", "erin"} else 404)
    if status == 404:
        assert Tenant.objects.filter(frozen_at__isnull=False).count() == 0


def test_a_word_that_is_no_switch_changes_nothing(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    for data in ({"do": "nonsense", "reason": WHY}, {"lift": "everything"}, {}):
        assert bob.post(portal_url(PAGE), data, follow=False).status_code == 404
    assert kinds(acme) == []


# --- From the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_freezes_and_lifts(acme: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("tenant", "freeze", "acme", "--reason", WHY, "--dry-run")
    assert kinds(acme) == []
    call_command("tenant", "freeze", "acme", "--reason", WHY)
    assert "Acme is frozen" in capsys.readouterr().out
    call_command("tenant", "freeze", "acme", "--reason", "again")
    assert "frozen already" in capsys.readouterr().out
    call_command("tenant", "show", "acme")
    assert WHY in capsys.readouterr().out
    call_command("tenant", "show", "acme", "--json")
    assert '"frozen_at": "' in capsys.readouterr().out
    call_command("tenant", "unfreeze", "acme")
    assert "Acme is open again" in capsys.readouterr().out
    assert kinds(acme) == ["tenant_frozen", "tenant_unfrozen"]
    assert Event.objects.get(kind="tenant_frozen").data["source"] == "command line"


def test_the_isolation_check_goes_on_around_a_frozen_place(acme: Tenant) -> None:
    panic.freeze(acme, by=COMMAND_LINE, note=WHY)
    name = probe.new_name()
    assert [cookie.place for cookie in probe.open_everywhere(name)] == ["globex", "portal"]
    assert Session.objects.filter(tenant=acme).count() == 0


# --- Races --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.asvs("15.4.2")
@pytest.mark.django_db(transaction=True)
def test_no_branch_is_opened_after_a_freeze_has_answered(acme: Tenant) -> None:
    """Rounds of hand-offs in eight threads, and a freeze amid them."""
    people = list(User.objects.filter(username__in=["alice", "dave"]))
    came_first = 0
    for _round in range(25):
        panic.lift_freeze(acme, by=COMMAND_LINE)
        roots = [sessions.sign_in(person, request=None, methods=["pwd", "otp"], remember=False)[0] for person in people * 4]
        together = threading.Barrier(len(roots) + 1)

        def open_one(root: Session, together: threading.Barrier = together) -> None:
            try:
                together.wait(20)
                for _try in range(3):
                    with suppress(sessions.NotAdmitted), transaction.atomic():
                        sessions.open_branch(root.pk, acme, request=None)
            finally:
                connection.close()

        def freeze(together: threading.Barrier = together) -> tuple[Any, int]:
            try:
                together.wait(20)
                panic.freeze(Tenant.objects.get(pk=acme.pk), by=COMMAND_LINE, note=WHY)
                return acme.pk, Session.objects.filter(tenant=acme, ended_at=None).count()
            finally:
                connection.close()

        with ThreadPoolExecutor(len(roots) + 1) as pool:
            opening = [pool.submit(open_one, root) for root in roots]
            answered = pool.submit(freeze).result(60)
            for each in opening:
                each.result(60)
        at_the_end = Session.objects.filter(tenant=acme, ended_at=None).count()
        assert at_the_end == answered[1]
        came_first += at_the_end > 0
        sessions.end(Session.objects.filter(ended_at=None), by=None, reason=Session.Reason.PROBE)
    assert came_first, "no hand-off ever came before a freeze: nothing was raced"
