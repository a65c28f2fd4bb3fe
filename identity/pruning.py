"""What was kept long enough goes: the one job of the night that deletes."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q

from identity import clock, ledger, mails, seals, sessions
from identity.models import KnownDevice, Link, Session, Ticket, TotpDevice
from tenants import policy
from tenants.models import Invitation, Tenant


@dataclass(frozen=True, slots=True)
class Pruned:
    lapsed: int  # sessions that ran out and are history now
    sessions: int
    tickets: int
    links: int
    attempts: int
    browsers: int  # known ones, revoked or long unseen, and authenticators that nobody has confirmed
    events: int
    mails: int
    invitations: int  # accepted, taken back or run out


def prune(*, dry_run: bool = False) -> Pruned:
    """Mark what ran out as ended, delete what was kept long enough: ended sessions and invitations 90 days, events 400, mails 30.

    Idempotent. ASVS 14.2.7.
    """
    now = clock.now()
    lapsed = Session.objects.filter(ended_at=None).filter(Q(idle_expires_at__lte=now) | Q(expires_at__lte=now))
    old = Session.objects.filter(ended_at__lt=now - policy.KEEP_ENDED)
    tickets = Ticket.objects.filter(expires_at__lt=now - timedelta(hours=1))
    links = Link.objects.filter(expires_at__lt=now - timedelta(hours=1))
    browsers = KnownDevice.objects.filter(Q(revoked_at__lt=now - timedelta(days=1)) | Q(last_seen_at__lt=now - policy.KEEP_EVENTS))
    enrolments = TotpDevice.objects.filter(confirmed=False, created_at__lt=now - timedelta(days=1))
    invited = Invitation.objects.filter(expires_at__lt=now - policy.KEEP_ENDED)
    if dry_run:
        lapsing, older, late, used = (rows.count() for rows in (lapsed, old, tickets, links))
        forgotten = seals.prune(now - policy.KEEP_EVENTS, dry_run=True)
        unknown = browsers.count() + enrolments.count()
        return Pruned(lapsing, older, late, used, ledger.prune(dry_run=True), unknown, forgotten, mails.old().count(), invited.count())
    for tenant in Tenant.objects.filter(policy__has_any_keys=["idle", "absolute", "remembered"]):
        sessions.shorten(tenant)  # what was touched under the old limits while the new ones were saved
    count = sessions.end_lapsed()
    # Branches first: a portal row goes only when nothing hangs on it any more.
    kind = Session._meta.label
    gone = old.filter(tenant__isnull=False).delete()[1].get(kind, 0)
    gone += old.filter(tenant=None, branches=None).delete()[1].get(kind, 0)
    for tenant in Tenant.objects.filter(policy__has_key="second_factor"):
        sessions.end_unproven(tenant)
    late, used, unknown, dropped = (rows.delete()[1].get(rows.model._meta.label, 0) for rows in (tickets, links, browsers, enrolments))
    forgotten = seals.prune(now - policy.KEEP_EVENTS)
    return Pruned(count, gone, late, used, ledger.prune(), unknown + dropped, forgotten, mails.old().delete()[0], invited.delete()[0])
