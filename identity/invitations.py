"""Invitations: to any address; good for whoever opens the link, or has proven that the address is his. The verbs.

Events name an invitation by its number: its address is somebody's, and the log keeps ids only.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import translation

from identity import addresses, clock, crypto, events, flight, ledger, mails, members, sessions
from identity.members import Actor
from identity.models import Mail, User, fold
from tenants import policy
from tenants.models import Invitation, JoinRequest, Membership, Tenant
from tenants.text import is_plain

AT_ONCE = 100  # addresses in one list
PAUSE = timedelta(minutes=1)  # before an invitation is sent anew: a double click is one mail
MOST, WITHIN = 5, timedelta(hours=1)  # mails of one tenant to one address, whatever is taken back or changed in between
TELL = timedelta(minutes=10)  # between two mails that somebody waits, to one admin


# --- Inviting -----------------------------------------------------------------------------------------------------


class Result(StrEnum):
    """What became of one address of a list."""

    SENT = "sent"
    AGAIN = "again"  # it was invited before: a new link, and the one from before is worthless
    JUST_NOW = "just_now"  # it was invited a moment ago, or many times in the last hour: nothing was sent
    MEMBER = "member"
    MALFORMED = "malformed"
    ABOVE = "above"  # invited by an owner, as more than the asker may invite
    CLOSED = "closed"  # the tenant takes nobody in


@dataclass(frozen=True, slots=True)
class Line:
    address: str
    result: Result
    invitation: Invitation | None = None

    @property
    def is_good(self) -> bool:
        return self.result in {Result.SENT, Result.AGAIN, Result.JUST_NOW}


def addresses_in(text: str) -> list[str]:
    """The addresses in a list as people paste it: by lines, commas, semicolons or spaces, or as “Dave Vance <dave@x.example>”.

    Each once, in their order; what is no address stays in, for the line that says so.
    """
    found: dict[str, str] = {}
    for part in re.split(r"[\n\r,;]+", text):
        inside = re.findall(r"<([^<>]*)>", part)
        for word in inside or part.split():
            if address := word.strip():
                found.setdefault(fold(address), address)
    return list(found.values())


def is_address(text: str) -> bool:
    """Could an account have this address? Domains in any script are fine; what a mail header could stumble over is not."""
    if not is_plain(text) or any(char.isspace() for char in text) or len(text) > 254 or len(fold(text)) > 300:
        return False
    try:
        addresses.checked(text)
    except ValidationError:
        return False
    return True


def invite(tenant: Tenant, address: str, role: str, *, by: Actor = members.COMMAND_LINE) -> Line:
    """Invite an address, or send its open invitation anew with a new link. Raises members.NotAllowed for a role above the asker's."""
    if not by.may_touch(role):
        raise members.NotAllowed
    if not is_address(address):
        return Line(address, Result.MALFORMED)
    if tenant.rules.sign_up == "closed":
        return Line(address, Result.CLOSED)
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)  # two admins who invite one address make one invitation
        if Membership.objects.filter(tenant=tenant, user__email_key=fold(address)).exists():
            return Line(address, Result.MEMBER)
        found = _open(tenant).filter(email_key=fold(address)).first()
        if found and not by.may_touch(found.role):
            return Line(address, Result.ABOVE, found)
        if _too_soon(tenant, address, role, found):
            return Line(address, Result.JUST_NOW, found)
        invitation = found or Invitation(tenant=tenant, email=address, email_key=fold(address), created_at=clock.now())
        invitation.role = role
        _send(invitation, by, again=found is not None)
    return Line(address, Result.AGAIN if found else Result.SENT, invitation)


def _too_soon(tenant: Tenant, address: str, role: str, found: Invitation | None) -> bool:
    if found and found.role == role and clock.now() - found.sent_at < PAUSE:
        return True
    return Mail.objects.filter(coalesce=_key(tenant, address), created_at__gt=clock.now() - WITHIN).count() >= MOST


def _key(tenant: Tenant, address: str) -> str:
    return f"invited:{tenant.pk}:{crypto.digest(fold(address))[:40]}"


def resend(invitation: Invitation, *, by: Actor = members.COMMAND_LINE) -> Line | None:
    """Send an open invitation anew, for as long as at first. None if it was accepted or revoked meanwhile."""
    held = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None).first()
    if held is None:
        return None
    held.tenant = invitation.tenant
    return invite(held.tenant, held.email, held.role, by=by)


def _send(invitation: Invitation, by: Actor, *, again: bool) -> None:
    token = secrets.token_urlsafe(32)
    invitation.invited_by = by.user
    invitation.digest, invitation.expires_at = crypto.digest(token), clock.now() + policy.INVITATION
    invitation.save()
    mails.post(
        "invitation",
        to=invitation.email,
        user=User.objects.filter(email_key=invitation.email_key, is_active=True).first(),
        language=translation.get_language() or "",  # the inviter's, where nobody knows which the invited person speaks
        tenant=invitation.tenant,
        coalesce=_key(invitation.tenant, invitation.email),
        link=f"{settings.PORTAL_URL}/invitation/{token}/",
        by=by.user,
        role_name=Membership.Role(invitation.role).label,
        expires=invitation.expires_at,
    )
    _note("invited", invitation, by, again=again)


def revoke(invitation: Invitation, *, by: Actor = members.COMMAND_LINE) -> bool:
    """Make an open invitation worthless. False if it was accepted or revoked meanwhile. Raises members.NotAllowed."""
    with transaction.atomic():
        if not by.may_touch(invitation.role):
            raise members.NotAllowed
        done = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None).update(revoked_at=clock.now())
        if done:
            _note("invitation_revoked", invitation, by)
    return bool(done)


def void_all() -> int:
    """Make every open invitation worthless, whoever sent it; returns how many there were."""
    return Invitation.objects.filter(accepted_at=None, revoked_at=None).update(revoked_at=clock.now())


def _note(kind: str, invitation: Invitation, by: Actor, **data: bool) -> None:
    known: dict[str, Any] = {"invitation": invitation.pk, "role": invitation.role, **data, **by.source}
    events.record(kind, request=by.request, tenant=invitation.tenant, actor=by.user, **known)


def _open(tenant: Tenant) -> QuerySet[Invitation]:
    return Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None)


# --- Accepting ----------------------------------------------------------------------------------------------------


class State(StrEnum):
    """Whether an invitation lets somebody in, and if not, why."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNBACKED = "unbacked"  # whoever sent it could not send it today
    SUSPENDED = "suspended"
    CLOSED = "closed"


def state(invitation: Invitation) -> State:
    if invitation.accepted_at:
        return State.ACCEPTED
    if invitation.revoked_at:
        return State.REVOKED
    if not invitation.tenant.is_active:
        return State.SUSPENDED
    if invitation.expires_at <= clock.now():
        return State.EXPIRED
    if not backed([invitation]):
        return State.UNBACKED
    return State.CLOSED if invitation.tenant.rules.sign_up == "closed" else State.OPEN


def backed(rows: Sequence[Invitation]) -> set[int]:
    """The numbers of those that their inviters could send today: who was demoted, blocked or removed since lets nobody in.

    Asked when it is used, so that no way to lose a role has to think of it. The command line always can.
    """
    people = {row.invited_by_id for row in rows}
    found = Membership.objects.filter(user__in=people, tenant__in={row.tenant_id for row in rows}, blocked_at=None)
    roles = {(each.tenant_id, each.user_id): each.role for each in found}

    def could(row: Invitation) -> bool:
        by = row.invited_by
        if by is None or by.is_superuser:
            return by is None or by.is_active
        role = roles.get((row.tenant_id, by.pk))
        return by.is_active and role is not None and Actor(by, role).may_touch(row.role)

    return {row.pk for row in rows if could(row)}


def seen(request: HttpRequest, token: str) -> Invitation | None:
    """The invitation behind a link, open or not (`state` says which); None for a token that was never made, or was replaced.

    Raises ledger.AddressFull for an address that has guessed too often.
    """
    attempt = ledger.for_link(request, what="invitation")
    if attempt.refused:
        return None
    with attempt.flight():
        invitation = _invitation_behind(token)
    if invitation is None:
        attempt.wrong()
        return None
    attempt.right()
    return invitation


def _invitation_behind(token: str) -> Invitation | None:
    flight.demand()
    return Invitation.objects.filter(digest=crypto.digest(token)).select_related("tenant", "invited_by").first()


def open_for(user: User) -> list[Invitation]:
    """The open invitations to this person's proven address: without the link, only such a one may be accepted."""
    if not user.email_key or not user.email_verified_at:
        return []
    rows = Invitation.objects.filter(email_key=user.email_key, accepted_at=None, revoked_at=None, expires_at__gt=clock.now())
    rows = rows.exclude(tenant__memberships__user=user).select_related("tenant", "invited_by").order_by("tenant__name", "pk")
    return [each for each in rows if state(each) is State.OPEN]


def fits(invitation: Invitation, user: User) -> bool:
    """Has this person proven that the invited address is his?"""
    return bool(user.email_verified_at) and user.email_key == invitation.email_key


def accept(invitation: Invitation, user: User, *, request: HttpRequest, by_link: bool = False) -> Membership | None:
    """Make the person a member, once: of parallel takers one gets it. None if it is not open any more.

    The caller has seen the link (`by_link`), or found the invitation by `open_for`. The link came by mail to the address: where
    the account says that it has just this one and nobody has proven it, it is proven now.
    """
    with transaction.atomic():
        user = sessions.hold_person(user)
        now = clock.now()
        if state(invitation) is not State.OPEN or not user.is_active:
            return None
        taken = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None, expires_at__gt=now)
        if by_link:  # which may have been replaced since it was seen
            taken = taken.filter(digest=invitation.digest)
        if not taken.update(accepted_at=now, accepted_by=user):
            return None
        if by_link:
            _prove(user, invitation, request)
        membership, made = members.let_in(invitation.tenant, user, invitation.role)
        JoinRequest.objects.filter(tenant=invitation.tenant, user=user).delete()
        if made:
            _joined(membership, user, request, how="invitation", invitation=invitation.pk)
    return membership


def _prove(user: User, invitation: Invitation, request: HttpRequest) -> None:
    if user.email_verified_at or fold(user.email) != invitation.email_key:
        return
    user.email_verified_at = clock.now()
    try:
        with transaction.atomic():
            user.save(update_fields=["email_verified_at"])
    except IntegrityError:
        return  # somebody else has proven it before: it stays his
    events.record("email_proven", request=request, actor=user, subject=user)


def sign_up(invitation: Invitation, user: User, *, request: HttpRequest) -> bool:
    """A new account, unsaved, for whoever holds the link: its address is proven, and it belongs to the tenant. All or nothing.

    False if the invitation is not open any more. Raises IntegrityError if name or address is somebody's by now.
    """
    user.email, user.email_verified_at = invitation.email, clock.now()
    user.language = translation.get_language() or ""  # in which the form was read
    with transaction.atomic():
        user.save(force_insert=True)
        events.record("signed_up", request=request, actor=user, subject=user)
        done = accept(invitation, user, request=request, by_link=True) is not None
        if not done:
            transaction.set_rollback(True)
    return done


def _joined(membership: Membership, actor: User, request: HttpRequest, **data: Any) -> None:
    after = members.state(membership)
    events.record("joined", request=request, tenant=membership.tenant, actor=actor, subject=membership.user, after=after, **data)


# --- Joining without one --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of somebody who signed up at a tenant by himself."""

    membership: Membership | None = None
    waits: bool = False


def join(tenant: Tenant, user: User, *, request: HttpRequest) -> Joined:
    """Somebody with a proven address asks to belong to a tenant: in, or waiting for an admin, or neither, as the tenant says."""
    rules = tenant.rules
    with transaction.atomic():
        user = sessions.hold_person(user)
        if not user.email_verified_at or not tenant.is_active or not rules.lets_in(user.email):
            return Joined()
        if found := Membership.objects.filter(tenant=tenant, user=user).first():
            return Joined(found)
        if rules.approval:
            _request, made = JoinRequest.objects.get_or_create(tenant=tenant, user=user, defaults={"created_at": clock.now()})
            if made:
                events.record("join_asked", request=request, tenant=tenant, actor=user, subject=user)
                link = f"{settings.PORTAL_URL}/console/{tenant.slug}/people/?state=waiting"
                mails.to_admins(
                    "join_asked", tenant, who=user.get_full_name_with_username(), link=link, coalesce=f"join:{tenant.pk}", within=TELL
                )
            return Joined(waits=True)
        membership, made = members.let_in(tenant, user)
        if made:
            _joined(membership, user, request, how=rules.sign_up)
    return Joined(membership)


def approve(waiting: JoinRequest, *, by: Actor) -> bool:
    """Let somebody who waits in. False if that was decided meanwhile."""
    assert by.request is not None
    with transaction.atomic():
        user = sessions.hold_person(User.objects.get(pk=waiting.user_id))
        if not JoinRequest.objects.filter(pk=waiting.pk).delete()[0]:
            return False
        membership, made = members.let_in(waiting.tenant, user)
        if made:
            assert by.user is not None
            _joined(membership, by.user, by.request, how="approval")
            mails.tell("approved", user, tenant=waiting.tenant, link=waiting.tenant.home_url)
    return True


def decline(waiting: JoinRequest, *, by: Actor) -> bool:
    """Send somebody who waits away; he may ask again. False if that was decided meanwhile."""
    with transaction.atomic():
        done = bool(JoinRequest.objects.filter(pk=waiting.pk).delete()[0])
        if done:
            events.record("join_declined", request=by.request, tenant=waiting.tenant, actor=by.user, subject=waiting.user)
    return done
