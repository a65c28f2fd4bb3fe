"""Who belongs to a tenant, and as what: the verbs that the console and `manage.py member` share.

Each locks the tenant first, so that two people cannot take away the last two owners, then the membership; writes an event with
before and after (no names in it: the subject says who); and is one transaction. Somebody who acts as an admin never touches an
owner, nor makes one. ASVS 8.2.1, 8.3.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from identity import clock, events, sessions
from identity.models import Session, User
from tenants.models import Membership, Tenant

Role = Membership.Role
RANKS = {Role.MEMBER.value: 0, Role.ADMIN.value: 1, Role.OWNER.value: 2}


class NoMember(Exception):
    """The person does not belong to the tenant."""


class LastOwner(Exception):
    """Nobody else could act as an owner."""


class NotAllowed(Exception):
    """It takes more than the role of whoever asks."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and with whose powers: an owner's by default, as operators and the command line have them."""

    user: User | None = None
    role: str = Role.OWNER.value
    request: HttpRequest | None = None

    def may_touch(self, role: str) -> bool:
        """May he change somebody, or invite somebody, with this role?"""
        return RANKS[self.role] >= max(RANKS[role], RANKS["admin"])

    @property
    def may_change_roles(self) -> bool:
        return self.role == Role.OWNER

    @property
    def may_change_settings(self) -> bool:
        return self.role == Role.OWNER

    @property
    def may_approve_hosts(self) -> bool:
        """Without proof of ownership: operators, as the command line is one's."""
        return self.user is None or self.user.is_superuser

    @property
    def source(self) -> dict[str, Any]:
        """For events: nobody's account stands behind the command line."""
        return {} if self.user else {"source": events.COMMAND_LINE}

    def note(self, kind: str, membership: Membership, **data: Any) -> None:
        events.record(kind, request=self.request, tenant=membership.tenant, actor=self.user, subject=membership.user, **data, **self.source)


COMMAND_LINE = Actor()


@dataclass(frozen=True, slots=True)
class Change:
    """What became of it; nothing if it was so already."""

    membership: Membership
    before: dict[str, str] | None
    after: dict[str, str] | None
    ended: list[Session] = field(default_factory=list)

    @property
    def is_one(self) -> bool:
        return self.before != self.after


def state(membership: Membership) -> dict[str, str]:
    """Role and state, as events and scripts have them."""
    blocked, active = membership.blocked_at is not None, membership.user.is_active
    return {"role": membership.role, "state": "blocked" if blocked else "active" if active else "deactivated"}


def let_in(tenant: Tenant, user: User, role: str = Role.MEMBER.value) -> tuple[Membership, bool]:
    """The membership of a person, made if there is none; and whether it was made. In the caller's transaction."""
    found = Membership.objects.filter(tenant=tenant, user=user).first()
    if found:
        return found, False
    defaults: dict[str, Any] = {"role": role}
    if Session.objects.filter(tenant=tenant, user=user).exists():
        defaults["prove_after"] = clock.now()  # was here before: what was ended then does not come back without a fresh proof
    return Membership.objects.get_or_create(tenant=tenant, user=user, defaults=defaults)


def add(tenant: Tenant, user: User, role: str, *, by: Actor = COMMAND_LINE) -> Change:
    """Let a person in. Who belongs to the tenant already stays what he is: the caller sees it in `before`."""
    with transaction.atomic():
        hold(tenant)
        membership, made = let_in(tenant, user, role)
        membership.tenant, membership.user = tenant, user
        after = state(membership)
        if made:
            by.note("member_added", membership, before=None, after=after)
    return Change(membership, None if made else after, after)


def change_role(tenant: Tenant, user: User, role: str, *, by: Actor = COMMAND_LINE) -> Change:
    """Owners only. What is open without a second factor that is asked of the new role ends."""
    if not by.may_change_roles:
        raise NotAllowed

    def write(membership: Membership) -> list[Session]:
        membership.role = role
        membership.save(update_fields=["role"])
        return []

    with transaction.atomic():
        done = _change(tenant, user, write, "member_role_changed", by, unless=lambda held: held.role == role, owners=role != Role.OWNER)
        ended = sessions.end_unproven(tenant) if done.is_one and role != Role.MEMBER else []
    return Change(done.membership, done.before, done.after, ended)


def block(tenant: Tenant, user: User, *, by: Actor = COMMAND_LINE, note: str = "") -> Change:
    """End the person's sessions here and keep him out until it is lifted. Account and other places are untouched."""

    def write(membership: Membership) -> list[Session]:
        membership.blocked_at = clock.now()
        membership.save(update_fields=["blocked_at"])
        return sessions.end_here(user, tenant, by=by.user, reason=sessions.Reason.BLOCKED, note=note, request=by.request)

    return _change(tenant, user, write, "member_blocked", by, unless=lambda held: held.blocked_at is not None, note=note)


def unblock(tenant: Tenant, user: User, *, by: Actor = COMMAND_LINE) -> Change:
    """Let a blocked person in again, with a fresh proof."""

    def write(membership: Membership) -> list[Session]:
        membership.blocked_at = None
        membership.save(update_fields=["blocked_at"])
        return []

    return _change(tenant, user, write, "member_unblocked", by, unless=lambda held: held.blocked_at is None, owners=False)


def remove(tenant: Tenant, user: User, *, by: Actor = COMMAND_LINE, note: str = "") -> Change:
    """End the person's sessions here, and the membership."""

    def write(membership: Membership) -> list[Session]:
        ended = sessions.end_here(user, tenant, by=by.user, reason=sessions.Reason.REMOVED, note=note, request=by.request)
        Membership.objects.filter(pk=membership.pk).delete()
        return ended

    return _change(tenant, user, write, "member_removed", by, gone=True, note=note)


def _change(
    tenant: Tenant,
    user: User,
    write: Callable[[Membership], list[Session]],
    kind: str,
    by: Actor,
    *,
    unless: Callable[[Membership], bool] = lambda held: False,
    owners: bool = True,
    gone: bool = False,
    note: str = "",
) -> Change:
    """One change under the tenant's lock. owners: it may take an owner away. Raises NoMember, NotAllowed, LastOwner."""
    with transaction.atomic():
        hold(tenant)
        membership = Membership.objects.select_for_update(no_key=True).filter(tenant=tenant, user=user).first()
        if membership is None:
            raise NoMember
        membership.tenant, membership.user = tenant, user
        before = state(membership)
        if not by.may_touch(membership.role):
            raise NotAllowed
        if unless(membership):
            return Change(membership, before, before)
        if owners and [owner.pk for owner in acting_owners(tenant)] == [user.pk]:
            raise LastOwner
        ended = write(membership)
        after = None if gone else state(membership)
        by.note(kind, membership, before=before, after=after, **({"note": note} if note else {}))
    return Change(membership, before, after, ended)


def hold(tenant: Tenant) -> None:
    """Nobody else changes who belongs to the tenant, its groups or its apps until the transaction ends."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)


def acting_owners(tenant: Tenant) -> list[User]:
    """The owners of a tenant who are neither blocked there nor deactivated, nor about to leave for good."""
    owning = Membership.objects.filter(tenant=tenant, role=Role.OWNER, blocked_at=None, user__is_active=True, user__delete_at=None)
    return [membership.user for membership in owning.select_related("user").order_by("pk")]
