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

from identity import clock, events, ledger, mails
from identity.models import Event
from tenants import policy
from tenants.models import Tenant

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
    _tell(noise.tenant, data)
    return event


def _tell(tenant: Tenant | None, data: dict[str, Any]) -> None:
    """A tenant's people without addresses: whose they are is the platform's to know."""
    shown = {name: data[name] for name in ("failed", "minutes", "people")}
    if tenant:
        mails.to_admins(KIND, tenant, place=tenant.name, lockouts_url=f"{settings.PORTAL_URL}/console/{tenant.slug}/lockouts/", **shown)
        return
    most = ", ".join(f"{each['address']} ({each['failed']})" for each in data["addresses"])
    mails.to_admins(KIND, None, most=most, lockouts_url=f"{settings.PORTAL_URL}/console/platform/lockouts/", **shown)
