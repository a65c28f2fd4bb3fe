"""Leaving for good: the end of an account, with seven days to come back. ASVS 14.2.7.

Between asking and the end the account is closed but for its owner's way back: every session is over, no place opens, and who
signs in sees one page, which offers to keep it. At the end everything that names the person goes; events keep the id.
"""

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from identity import clock, events, links, mails, sessions
from identity.models import Mail, Session, User
from tenants import policy
from tenants.models import Invitation, Membership, Tenant

Reason = Session.Reason


class LastOwner(Exception):
    """These tenants would be left without an owner who can act."""

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        self.tenants = list(tenants)
        super().__init__(", ".join(tenant.slug for tenant in self.tenants))


class LastOperator(Exception):
    """The platform would be left without an operator."""


# --- Ask and undo -------------------------------------------------------------------------------------------------


def ask(user: User, *, by: User | None, request: HttpRequest | None = None, **more: Any) -> User:
    """Close the account now and delete it in seven days. Raises LastOwner or LastOperator; asked again, the first day holds."""
    with transaction.atomic():
        person = _hold(user)
        if person.delete_at:
            return person
        refuse_the_last(person)
        person.delete_at = clock.now() + policy.DELETION
        person.save(update_fields=["delete_at"])
        links.void_all_but_ways_back(person)  # a thief who leaves in the owner's name must not void his ways back
        sessions.end_everywhere(person, by=by, reason=Reason.DELETED, request=request)
        events.record("deletion_asked", request=request, actor=by, subject=person, delete_at=person.delete_at, **more)
        mails.tell("deletion_asked", person, until=person.delete_at, **mails.circumstances(request))
    return person


def undo(user: User, *, by: User | None, request: HttpRequest | None = None, **more: Any) -> bool:
    """Keep the account after all. False if nobody has asked to delete it, or if it is gone."""
    with transaction.atomic():
        if not User.objects.select_for_update(no_key=True).filter(pk=user.pk, delete_at__isnull=False):
            return False
        User.objects.filter(pk=user.pk).update(delete_at=None)
        events.record("deletion_undone", request=request, actor=by, subject=user, **more)
    return True


def _hold(user: User) -> User:
    """Lock a person; of operators all, in id order, so that the last two cannot leave at once, and do not wait for each other."""
    if user.is_superuser:
        list(User.objects.select_for_update(no_key=True).filter(is_superuser=True).order_by("pk").values_list("pk"))
    return sessions.hold_person(user)


def is_last_operator(person: User) -> bool:
    others = User.objects.filter(is_superuser=True, is_active=True, delete_at=None).exclude(pk=person.pk)
    return person.is_superuser and not others.exists()


def refuse_the_last(person: User) -> None:
    """Raise LastOwner or LastOperator if nobody else could act in this person's place. Holds the tenants, in the order of every lock."""
    if is_last_operator(person):
        raise LastOperator
    list(Session.objects.filter(user=person, tenant=None, ended_at=None).select_for_update(no_key=True).order_by("pk").values_list("pk"))
    if alone := owned_alone(person, lock=True):
        raise LastOwner(alone)


def owned_alone(person: User, *, lock: bool = False) -> list[Tenant]:
    """The tenants that have no other owner who can act: not blocked there, not deactivated, not leaving."""
    mine = Membership.objects.filter(user=person, role=Membership.Role.OWNER).values("tenant")
    rows = Tenant.objects.filter(pk__in=mine).order_by("pk")
    tenants = list(rows.select_for_update(no_key=True) if lock else rows)  # before the owners are looked at
    acting = Membership.objects.filter(role=Membership.Role.OWNER, blocked_at=None, user__is_active=True, user__delete_at=None)
    others = set(acting.exclude(user=person).filter(tenant__in=mine).values_list("tenant_id", flat=True))
    return [tenant for tenant in tenants if tenant.pk not in others]


# --- The end ------------------------------------------------------------------------------------------------------


def carry_out(user: User, *, by: User | None = None, now: bool = False, **more: Any) -> bool:
    """Delete the account, with everything that names the person; the log keeps ids. False if it is not due, or is gone.

    now: whether it was asked for or not. Raises LastOwner or LastOperator then; seven days ago that was looked at.
    """
    with transaction.atomic():
        try:
            person = _hold(user)
        except User.DoesNotExist:
            return False
        if not now and (person.delete_at is None or person.delete_at > clock.now()):
            return False
        if now and not person.delete_at:
            refuse_the_last(person)
        sessions.end_everywhere(person, by=by, reason=Reason.DELETED)
        for membership in Membership.objects.filter(user=person).select_related("tenant").order_by("tenant_id"):
            before = {"role": membership.role}
            events.record("member_left", tenant=membership.tenant, actor=by, subject=person, before=before, after=None, **more)
        Invitation.objects.filter(accepted_by=person).delete()
        for each in Invitation.objects.filter(invited_by=person, accepted_at=None, revoked_at=None).select_related("tenant").order_by("pk"):
            # With nobody behind it, it would look like one of the command line's, which always counts.
            Invitation.objects.filter(pk=each.pk).update(revoked_at=clock.now())
            events.record("invitation_revoked", tenant=each.tenant, actor=by, invitation=each.pk, role=each.role, **more)
        if person.email_key:
            Invitation.objects.filter(email_key=person.email_key).delete()
        events.record("account_deleted", actor=by, subject=person, **more)
        Mail.objects.filter(user=person).delete()
        if person.email_verified_at:  # such as the invitation that the account began with
            Mail.objects.filter(user=None, to__iexact=person.email).delete()
        mails.tell("account_deleted", person, **mails.circumstances(None))
        Mail.objects.filter(user=person).update(user=None)  # the farewell stays when the account goes
        person.delete()
    return True


def carry_out_due(limit: int = 100) -> int:
    """The worker's part: whose seven days are over. Returns how many accounts are gone."""
    due = User.objects.filter(delete_at__lte=clock.now()).order_by("delete_at")[:limit]
    return sum(carry_out(user) for user in due)
