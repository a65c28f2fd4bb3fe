"""What operators do to tenants and accounts: the verbs that the platform's console and the commands share.

Each writes an event with before and after. What takes long (the rows of a suspended or deleted tenant) goes in batches behind
a first transaction, which is in force at once. Lock order: as in `identity.sessions`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import models, transaction

from identity import addresses, clock, events, invitations, leaving, links, mails, mass, sessions, tenancy
from identity.members import COMMAND_LINE, Actor
from identity.models import Mail, MassEnd, Session, Ticket, User
from tenants import hosts, policy
from tenants.models import Invitation, JoinRequest, Membership, Tenant

Status = Tenant.Status
PAUSE = timedelta(minutes=1)  # between two links to one person: a double click is one mail


class NotSuspended(Exception):
    """Only a suspended tenant can be deleted: its people have noticed by then."""


class BeingDeleted(Exception):
    """The tenant is on its way out: nothing brings it back."""


class Oneself(Exception):
    """Nobody closes the account that he acts with."""


class Unreachable(Exception):
    """There is no proven address, or the account is closed: no link may be mailed."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of it; nothing if it was so already."""

    before: dict[str, Any]
    after: dict[str, Any]
    ended: int = 0

    @property
    def is_one(self) -> bool:
        return self.before != self.after


# --- Tenants ------------------------------------------------------------------------------------------------------


def add(tenant: Tenant, *, owner: str = "", by: Actor = COMMAND_LINE) -> invitations.Line | None:
    """A new tenant, unsaved; with the address of its owner, an invitation to it. Raises ValidationError, with its cure."""
    with transaction.atomic():
        tenant.full_clean()
        tenant.save(force_insert=True)
        _note("tenant_added", by, tenant, before=None, after=tenancy.described(tenant))
        return invitations.invite(tenant, owner, Membership.Role.OWNER.value, by=by) if owner else None


def suspend(tenant: Tenant, *, reason: str = "", by: Actor = COMMAND_LINE) -> Change:
    """Close a tenant: in force at once. Of very many sessions the worker marks the rows (`mass`). Raises BeingDeleted."""
    with transaction.atomic():
        held = _hold(tenant)
        expected = Session.objects.filter(tenant=held, ended_at=None).count()
        before = {"status": held.status}
        held.status = Status.SUSPENDED
        held.save(update_fields=["status"])
        sessions.stamp_tenant(held)
        rows = mass.follow_stamp(held, expected=expected, by=by.user, reason=sessions.Reason.SUSPENDED, note=reason, spare=None)
        change = Change(before, {"status": held.status})
        if change.is_one:
            _note("tenant_suspended", by, held, before=before, after=change.after, reason=reason)
    mass.end_few(rows)
    return Change(before, change.after, expected)


def resume(tenant: Tenant, *, by: Actor = COMMAND_LINE) -> Change:
    """Open a suspended tenant again; its people prove themselves anew. Raises BeingDeleted."""
    with transaction.atomic():
        held = _hold(tenant)
        before = {"status": held.status}
        held.status = Status.ACTIVE
        change = Change(before, {"status": held.status})
        if change.is_one:
            held.save(update_fields=["status"])
            _note("tenant_resumed", by, held, before=before, after=change.after)
    return change


def contents(tenant: Tenant) -> dict[str, int]:
    """How many rows of each kind go with a tenant."""
    rows = {
        "members": Membership.objects.filter(tenant=tenant),
        "sessions": Session.objects.filter(tenant=tenant),
        "invitations": Invitation.objects.filter(tenant=tenant),
        "groups": tenant.groups.all(),
        "apps": tenant.apps.all(),
        "hosts": tenant.hosts.all(),
    }
    return {name: each.count() for name, each in rows.items()}


def delete(tenant: Tenant, *, reason: str, by: Actor = COMMAND_LINE) -> bool:
    """Delete a suspended tenant with everything in it; accounts and events stay. Raises NotSuspended.

    After the first transaction nothing brings it back. Of a small one nothing is left (True); `carry_on` does the rest of a big one.
    """
    with transaction.atomic():
        held = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        if held.status == Status.ACTIVE:
            raise NotSuspended
        if held.status != Status.DELETED:
            before = {"slug": held.slug, "status": held.status, **contents(held)}
            held.status = Status.DELETED
            held.valid_from = clock.now() + timedelta(microseconds=1)
            held.save(update_fields=["status", "valid_from"])
            _note("tenant_deleted", by, held, before=before, after=None, reason=reason)
    return _sweep(held)


def carry_on() -> int:
    """The worker's part: one batch of each tenant that is being deleted. Returns how many are gone."""
    return sum(_sweep(tenant) for tenant in Tenant.objects.filter(status=Status.DELETED).order_by("pk"))


def _sweep(tenant: Tenant) -> bool:
    """Delete a batch of each kind of row, and the tenant when that was all. True: it is gone."""
    sessions.end_tenant(tenant, by=None, reason=sessions.Reason.SUSPENDED)  # where a suspension broke off
    batches: list[models.QuerySet[Any]] = [
        model.objects.filter(tenant=tenant) for model in (Ticket, Session, Mail, MassEnd, Invitation, JoinRequest, Membership)
    ]
    if any([_delete_some(rows) == sessions.BATCH for rows in batches]):  # noqa: C419  # a batch of each
        return False
    with transaction.atomic():
        list(Ticket.objects.filter(tenant=tenant).select_for_update().order_by("pk"))
        held = Tenant.objects.select_for_update().filter(pk=tenant.pk).first()
        if held is None:
            return True
        logo = held.logo
        held.delete()
        if logo:
            logo.delete()
    hosts.changed()
    return True


def _delete_some(rows: "models.QuerySet[Any]") -> int:
    with transaction.atomic():
        ids = list(rows.select_for_update().order_by("pk").values_list("pk", flat=True)[: sessions.BATCH])
        rows.model.objects.filter(pk__in=ids).delete()
    return len(ids)


def _hold(tenant: Tenant) -> Tenant:
    held = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    if held.status == Status.DELETED:
        raise BeingDeleted
    return held


# --- Accounts -----------------------------------------------------------------------------------------------------


def keep_an_operator(person: User) -> None:
    """Raise LastOperator if nobody else could act as one. Locks the operators, so that two cannot take the last two away."""
    acting = User.objects.select_for_update(no_key=True).filter(is_superuser=True, is_active=True, delete_at=None).order_by("pk")
    if [each.pk for each in acting] == [person.pk]:
        raise leaving.LastOperator


def deactivate(person: User, *, reason: str = "", by: Actor = COMMAND_LINE, force: bool = False) -> Change:
    """Close an account and end its sessions everywhere; its links are worthless. Raises Oneself, LastOperator.

    force: even the last operator.
    """
    if by.user and by.user.pk == person.pk:
        raise Oneself
    with transaction.atomic():
        if not force:
            keep_an_operator(person)
        held = sessions.hold_person(person)
        change = Change({"active": held.is_active}, {"active": False})
        if not change.is_one:
            return change
        held.is_active = False
        held.save(update_fields=["is_active"])
        ended = sessions.end_everywhere(held, by=by.user, reason=sessions.Reason.DEACTIVATED, note=reason, request=by.request)
        links.void(held)
        _note("user_deactivated", by, subject=held, before=change.before, after=change.after, reason=reason)
    return Change(change.before, change.after, len(ended))


def activate(person: User, *, reason: str = "", by: Actor = COMMAND_LINE) -> Change:
    """Open a closed account again: the person signs in anew."""
    with transaction.atomic():
        held = sessions.hold_person(person)
        change = Change({"active": held.is_active}, {"active": True})
        if change.is_one:
            held.is_active = True
            held.save(update_fields=["is_active"])
            _note("user_activated", by, subject=held, before=change.before, after=change.after, reason=reason)
    return change


def send_password_link(person: User, *, by: Actor) -> bool:
    """Mail the link with which a person sets a password; nobody else sees it. False if one went out a moment ago.

    Raises Unreachable.
    """
    with transaction.atomic():
        held = sessions.hold_person(person)
        if not can_be_sent_a_link(held):
            raise Unreachable
        key = f"reset:{held.pk}"
        if mails.was_queued(key, PAUSE):
            return False
        addresses.mail_reset(held, coalesce=key, by_operator=True)
        _note("password_link_sent", by, subject=held, expires_at=clock.now() + policy.LINK)
    return True


def can_be_sent_a_link(person: User) -> bool:
    """An address that nobody has proven may be a stranger's; a closed account opens nothing."""
    return bool(person.is_active and person.email and person.email_verified_at)


def _note(kind: str, by: Actor, tenant: Tenant | None = None, subject: User | None = None, **data: Any) -> None:
    said = {name: value for name, value in data.items() if name != "reason" or value}
    events.record(kind, request=by.request, tenant=tenant, actor=by.user, subject=subject, **said, **by.source)
