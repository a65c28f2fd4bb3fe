"""What a cookie is judged by and what lists and counts ask is the same set of sessions, whatever has happened."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from identity import factors, leaving, mass, members, panic, platform, pruning, sessions
from identity.models import Session, SessionQuerySet, TotpDevice, User
from tenants.models import Membership, Tenant
from tests.furnish import Furnished, furnish

Reason = Session.Reason
BY_ADMIN = Reason.BY_ADMIN


def rows(**which: object) -> SessionQuerySet:
    return Session.objects.filter(**which)


def stamp(it: Furnished) -> None:
    """The first transaction of an end of the whole tenant; the process died before it had marked a row."""
    Tenant.objects.filter(pk=it.tenant.pk).update(valid_from=timezone.now() + timedelta(microseconds=1))


def suspended_by_a_stamp(it: Furnished) -> None:
    Tenant.objects.filter(pk=it.tenant.pk).update(status=Tenant.Status.SUSPENDED)


def set_back(it: Furnished, **columns: timedelta) -> None:
    Session.objects.filter(user=it.member).update(**{name: timezone.now() - ago for name, ago in columns.items()})


def change_password(it: Furnished) -> None:
    sessions.change_password(it.member, "a new and longer secret", by=it.member, request=None, spare=it.portal)


def change_password_after_a_stamp(it: Furnished) -> None:
    stamp(it)
    change_password(it)


def enter(it: Furnished) -> Session:
    portal, _key = sessions.sign_in(it.member, request=None, methods=["pwd"], remember=True)
    with transaction.atomic():
        sessions.open_branch(portal.pk, it.tenant, request=None)
    return portal


def enter_after_a_stamp(it: Furnished) -> None:
    stamp(it)
    enter(it)


def demand_factors(it: Furnished) -> None:
    it.tenant.policy, it.tenant.factor_since = {"second_factor": "everyone"}, timezone.now()
    it.tenant.save()
    sessions.end_unproven(it.tenant)


def reset_factors(it: Furnished) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(it.member).pk).update(confirmed=True)
    factors.reset(it.member, by=None, reason="lost")


def spare_one(it: Furnished) -> None:
    mass.end_tenant(it.tenant, expected=3, by=None, reason=BY_ADMIN, note="", spare=enter(it))


def suspend_and_resume(it: Furnished) -> None:
    platform.suspend(it.tenant)
    platform.resume(it.tenant)


def block_and_unblock(it: Furnished) -> None:
    members.block(it.tenant, it.member)
    members.unblock(it.tenant, it.member)


def ask_to_leave(it: Furnished) -> None:
    leaving.ask(it.member, by=it.member)


def leave(it: Furnished) -> None:
    leaving.ask(it.member, by=it.member)
    leaving.carry_out(it.member, now=True)


def lie_idle_until_pruned(it: Furnished) -> None:
    set_back(it, idle_expires_at=timedelta())
    pruning.prune()


VERBS: dict[str, Callable[[Furnished], object]] = {
    "nothing": lambda it: None,
    "end a branch": lambda it: sessions.end(rows(pk=it.branch.pk), by=None, reason=BY_ADMIN),
    "end a tree": lambda it: sessions.end(rows(pk=it.portal.pk), by=None, reason=Reason.SIGNED_OUT),
    "end here": lambda it: sessions.end_here(it.member, it.tenant, by=None, reason=BY_ADMIN),
    "end everywhere": lambda it: sessions.end_everywhere(it.member, by=None, reason=Reason.BY_OPERATOR),
    "end the tenant": lambda it: sessions.end_tenant(it.tenant, by=None, reason=BY_ADMIN),
    "end the tenant but one tree": spare_one,
    "demand a fresh proof": lambda it: panic.demand_proof(it.tenant, by=members.COMMAND_LINE, note="x", spare=it.portal),
    "freeze": lambda it: panic.freeze(it.tenant, by=members.COMMAND_LINE, note="x"),
    "the tenant's stamp alone": stamp,
    "the tenant's status alone": suspended_by_a_stamp,
    "enter after a stamp": enter_after_a_stamp,
    "block": lambda it: members.block(it.tenant, it.member),
    "block and unblock": block_and_unblock,
    "remove": lambda it: members.remove(it.tenant, it.member),
    "another role": lambda it: members.change_role(it.tenant, it.member, Membership.Role.ADMIN.value),
    "suspend": lambda it: platform.suspend(it.tenant),
    "suspend and resume": suspend_and_resume,
    "deactivate": lambda it: platform.deactivate(it.member),
    "a new password": change_password,
    "a new password after a stamp": change_password_after_a_stamp,
    "factors asked for": demand_factors,
    "factors reset": reset_factors,
    "ask to be deleted": ask_to_leave,
    "be deleted": leave,
    "idle": lambda it: set_back(it, idle_expires_at=timedelta()),
    "too old": lambda it: set_back(it, expires_at=timedelta(minutes=1)),
    "idle and pruned": lie_idle_until_pruned,
}


@pytest.mark.parametrize("verb", VERBS)
def test_lists_and_cookies_agree_on_who_is_signed_in(cast: dict[str, User], verb: str) -> None:
    here, there = furnish("acme"), furnish("globex")
    VERBS[verb](here)
    for each in (here, there):
        alive, standing = (
            set(found.values_list("pk", flat=True))
            for found in (Session.objects.alive_at(each.tenant), Session.objects.standing_at(each.tenant))
        )
        assert alive == standing
    assert there.branch.pk in standing, "nothing that happened here ends a session there"
