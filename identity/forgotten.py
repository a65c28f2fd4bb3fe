"""Forgotten passwords: one answer for everybody, at the same cost; who is meant is found out after the answer. ASVS 6.3.8, 6.4.3."""

from datetime import timedelta
from typing import Any

from django.http import HttpRequest

from identity import addresses, asked, clock, events, ledger, sessions
from identity.models import Mail, User
from tenants.models import Membership, Tenant
from tenants.text import clean

ASKED = "asked"  # the kind of a row that holds what was typed, and is no mail yet
PAUSE = timedelta(minutes=5)  # between two such mails to one person
MOST, WITHIN = 3, timedelta(hours=1)  # the newest one's link is good for as long, so nobody is left without


def ask(request: HttpRequest, typed: str, *, tenant: Tenant | None = None) -> None:
    """Note that somebody asks for a new password: one row, whoever it is. Counted by address; raises ledger.AddressFull."""
    attempt = ledger.for_link(request)
    if attempt.refused:
        return
    attempt.count("reset_asked")
    asked.note(ASKED, tenant=tenant, typed=clean(typed, 320), ip=events.address(request), agent=events.user_agent(request))


def answer_asked(limit: int = 50) -> int:
    """The worker's part: mail a link to whoever was meant, if anybody may have one. Returns how many mails were queued."""
    return asked.answer(ASKED, _answer, limit)


def _answer(row: Mail, said: dict[str, Any]) -> bool:
    user = User.objects.named(said["typed"])
    if user is None:
        return False
    user = sessions.hold_person(user)
    if not user.is_active or not user.email_verified_at or _lately(user):
        return False
    # Only a place of his own lends its name to the mail: else a stranger could have any tenant write to anybody.
    own = row.tenant if row.tenant and Membership.objects.filter(user=user, tenant=row.tenant).exists() else None
    addresses.mail_reset(user, tenant=own, coalesce=f"reset:{user.pk}", address=said["ip"], agent=said["agent"], at=row.created_at)
    return True


def _lately(user: User) -> bool:
    mailed = Mail.objects.filter(coalesce=f"reset:{user.pk}", created_at__gt=clock.now() - WITHIN)
    return mailed.count() >= MOST or mailed.filter(created_at__gt=clock.now() - PAUSE).exists()
