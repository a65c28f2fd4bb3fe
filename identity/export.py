"""Everything that is kept about a person, for that person: no secrets, and nothing of anybody else's."""

from typing import Any

from django.conf import settings
from django.db.models import Q

from identity import clock, factors
from identity.events import COMMAND_LINE
from identity.models import Event, KnownDevice, Mail, RecoveryCode, Session, User
from tenants.models import Invitation, JoinRequest, Membership

# What an event about a person says of its circumstances. Anything else may be meant for those who run the place.
TOLD = {"methods", "remember", "reason", "note", "role", "name", "until", "fields", "left", "bucket", "how", "verdict"}


def gather(user: User) -> dict[str, Any]:
    """A tree of plain values; times are datetimes."""
    return {
        "made_at": clock.now(),
        "portal": settings.PORTAL_URL,
        "profile": _profile(user),
        "memberships": _memberships(user),
        "waiting_for_approval": [
            {"tenant": each.tenant.slug, "asked_at": each.created_at}
            for each in JoinRequest.objects.filter(user=user).select_related("tenant")
        ],
        "invitations": _invitations(user),
        "second_factors": _factors(user),
        "browsers": _browsers(user),
        "sessions": [_session(row) for row in Session.objects.filter(user=user).select_related("tenant").order_by("-created_at")],
        "mails": [dict(row) for row in Mail.objects.filter(user=user).order_by("-pk").values("kind", "to", "created_at", "sent_at")],
        "events": _events(user),
    }


def _profile(user: User) -> dict[str, Any]:
    return {
        "id": user.pk,
        "username": user.username,
        "former_usernames": list(user.former_names.values("username", "until")),
        "first_name": user.first_name,
        "last_name": user.last_name,
        "email": user.email,
        "email_verified_at": user.email_verified_at,
        "new_email": user.new_email,
        "about": user.bio,
        "birth_date": user.birth_date.isoformat() if user.birth_date else None,
        "language": user.language,
        "time_zone": user.time_zone,
        "mail_new_device": user.mail_new_device,
        "operator": user.is_superuser,
        "created_at": user.date_joined,
        "delete_at": user.delete_at,
    }


def _memberships(user: User) -> list[dict[str, Any]]:
    rows = Membership.objects.filter(user=user).select_related("tenant").order_by("tenant__slug")
    return [
        {"tenant": row.tenant.slug, "name": row.tenant.name, "role": row.role, "since": row.created_at, "blocked_at": row.blocked_at}
        for row in rows
    ]


def _invitations(user: User) -> list[dict[str, Any]]:
    """To the person: by the proven address, or accepted with this account. Whom the person has invited is theirs to know."""
    mine = Q(accepted_by=user) | (Q(email_key=user.email_key) if user.email_key else Q(pk=None))
    return [
        {
            "tenant": row.tenant.slug,
            "to": row.email,
            "role": row.role,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "accepted_at": row.accepted_at,
            "revoked_at": row.revoked_at,
        }
        for row in Invitation.objects.filter(mine).select_related("tenant").order_by("-pk")
    ]


def _factors(user: User) -> dict[str, Any]:
    apps = [{"name": each.name, "created_at": each.created_at, "last_used_at": each.last_used_at} for each in factors.authenticators(user)]
    return {"authenticators": apps, "recovery_codes_left": RecoveryCode.objects.filter(user=user, used_at=None).count()}


def _browsers(user: User) -> list[dict[str, Any]]:
    rows = KnownDevice.objects.filter(user=user, revoked_at=None).order_by("-last_seen_at")
    return [dict(row) for row in rows.values("user_agent", "ip", "created_at", "last_seen_at", "trusted_until")]


def _session(row: Session) -> dict[str, Any]:
    return {
        "id": row.pk,
        "place": row.tenant.slug if row.tenant else "portal",
        "signed_in_at": row.created_at,
        "last_seen_at": row.last_seen_at,
        "expires_at": min(row.expires_at, row.idle_expires_at),
        "methods": row.methods,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "ended_at": row.ended_at,
        "end_reason": row.end_reason,
        "end_note": row.end_note,
    }


def _events(user: User) -> list[dict[str, Any]]:
    """About the person, or by the person; of those about others only that they happened."""
    rows = Event.objects.filter(Q(subject=user.pk) | Q(actor=user.pk)).select_related("tenant").order_by("-pk")
    return [_event(row, user) for row in rows.iterator(1_000)]


def _event(row: Event, user: User) -> dict[str, Any]:
    about_me, own = row.subject_id in {user.pk, None}, row.actor_id in {user.pk, None}
    data = row.data if isinstance(row.data, dict) else {}
    told: dict[str, Any] = {"at": row.at, "kind": row.kind, "place": row.tenant.slug if row.tenant else "portal"}
    told["by"] = "you" if row.actor_id == user.pk else "the command line" if data.get("source") == COMMAND_LINE else "somebody else"
    if row.actor_id is None and "source" not in data:
        told["by"] = "unknown"
    if not about_me:
        return told | {"about": "somebody else"}
    if own:  # never an admin's browser
        told |= {"ip": row.ip, "user_agent": row.user_agent}
    return told | {"data": {name: value for name, value in data.items() if name in TOLD}}
