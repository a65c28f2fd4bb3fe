"""The alarm: so many wrong answers at once that somebody should look. It locks nothing and nobody; it tells.

`watch` is called every few seconds by each server process (`identity.upkeep`), and by `manage.py prune`; never by a request, so
that no answer takes longer because of what others typed. Alarms of one tenant, or of the platform, are an hour apart, however
many processes watch. The figures: `tenants.policy`. ASVS 16.3.3.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, QuerySet
from django.utils.translation import gettext as _

from identity import clock, events, ledger, mails
from identity.models import Event, User
from tenants import policy
from tenants.models import Membership, Tenant

KIND = "alarm"
EVERY = timedelta(seconds=10)  # how often a server process looks
PAUSE = timedelta(hours=1)  # between two alarms of one place
LISTED = 10  # addresses, at most, that an alarm names
LOUD = 5  # wrong answers from one address that a tenant's alarm names; with fewer it may be where a member lives
_LOCK = 7_325_002  # among PostgreSQL's advisory locks


@dataclass(frozen=True, slots=True)
class Noise:
    """The wrong answers of the last minutes for the members of one tenant, or for everybody."""

    tenant: Tenant | None
    failures: QuerySet[Event]
    count: int

    @property
    def rang_lately(self) -> bool:
        return Event.objects.filter(kind=KIND, tenant=self.tenant, at__gt=clock.now() - PAUSE).exists()


def watch() -> list[Event]:
    """Raise the alarms that are due; returns their events. Cheap where nothing happens: one count over a few minutes."""
    noisy = [each for each in _noises() if not each.rang_lately]
    if not noisy:
        return []
    with transaction.atomic(durable=True):
        if not _is_mine():
            return []
        return [_ring(each) for each in noisy if not each.rang_lately]


def _noises() -> list[Noise]:
    """The places with too many wrong answers."""
    failed = ledger.failures(policy.ALARM_WINDOW).order_by()
    total = failed.count()
    found = [Noise(None, failed, total)] if total >= policy.ALARM_PLATFORM else []
    if total >= policy.ALARM_TENANT:
        counted = failed.values_list("subject__memberships__tenant").annotate(n=Count("pk")).filter(n__gte=policy.ALARM_TENANT)
        loud = {tenant: n for tenant, n in counted if tenant is not None}
        tenants = Tenant.objects.filter(pk__in=loud)
        found += [Noise(each, failed.filter(subject__memberships__tenant=each), loud[each.pk]) for each in tenants]
    return found


def _is_mine() -> bool:
    """Be the only one who decides until the transaction ends, or leave it to who does. On SQLite the transaction is the lock."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        row = cursor.fetchone()
    return bool(row and row[0])


def _ring(noise: Noise) -> Event:
    counted = noise.failures.filter(ip__isnull=False).values_list("ip").annotate(n=Count("pk")).order_by("-n", "ip")
    if noise.tenant:
        counted = counted.filter(n__gte=LOUD)
    data: dict[str, Any] = {
        "failed": noise.count,
        "minutes": policy.ALARM_WINDOW // timedelta(minutes=1),
        "people": noise.failures.filter(subject__isnull=False).values("subject").distinct().count(),
        "addresses": [{"address": address, "failed": n} for address, n in counted[:LISTED]],
    }
    event = events.record(KIND, tenant=noise.tenant, **data)
    if noise.tenant:
        _tell_tenant(noise.tenant, data)
    else:
        _tell_operators(data)
    return event


def _tell_tenant(tenant: Tenant, data: dict[str, Any]) -> None:
    """Without addresses: whose they are is the platform's to know."""
    subject = _("Many wrong passwords at %(tenant)s") % {"tenant": tenant.name}
    text = _(
        "In the last %(minutes)d minutes %(failed)d wrong passwords or codes were typed for %(people)d people of %(tenant)s.\n\n"
        "None of them opened anything, and accounts lock by themselves for a while. See who is locked out:\n%(url)s\n\n"
        "If somebody says that a right password was refused, wait until the lock is over. "
        "If it does not stop, tell the people who run the portal. This mail comes once an hour at the most."
    ) % {**data, "tenant": tenant.name, "url": f"{settings.PORTAL_URL}/console/{tenant.slug}/lockouts/"}
    roles = [Membership.Role.OWNER, Membership.Role.ADMIN]
    running = Membership.objects.filter(tenant=tenant, role__in=roles, blocked_at=None, user__is_active=True)
    for membership in running.select_related("user").order_by("pk"):
        mails.to_person(membership.user, subject, text)


def _tell_operators(data: dict[str, Any]) -> None:
    most = ", ".join(f"{each['address']} ({each['failed']})" for each in data["addresses"]) or _("no address that is known")
    subject = _("Many wrong passwords on the platform")
    text = _(
        "In the last %(minutes)d minutes %(failed)d wrong passwords, codes or links were tried, for %(people)d people and perhaps "
        "for names that nobody has. Most came from: %(most)s.\n\n"
        "None of them opened anything; accounts and addresses lock by themselves for a while. What is locked:\n%(url)s\n"
        "or, on the command line: manage.py lockout list\n\n"
        "If it does not stop, keep these addresses out before they reach the portal. This mail comes once an hour at the most."
    ) % {**data, "most": most, "url": f"{settings.PORTAL_URL}/console/platform/lockouts/"}
    for operator in User.objects.filter(is_superuser=True, is_active=True).order_by("pk"):
        mails.to_person(operator, subject, text)
