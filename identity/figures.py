"""The figures of a tenant, for its console: exact, as of now, a query or two for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby

from django.db.models import Count, Exists, OuterRef, QuerySet
from django.db.models.functions import TruncHour

from identity import clock, ledger
from identity.ledger import Kind
from identity.models import Bucket, Event, Session, TotpDevice, User
from tenants.models import Membership, Tenant

CAME_IN = "branch_opened"
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Live:
    sessions: int
    people: int


@dataclass(frozen=True, slots=True)
class Factors:
    """Of the members who may come in: how many there are, and how many have no second factor."""

    members: int
    without: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour or day in somebody's time zone: how many came in, and how many wrong answers turned somebody away."""

    start: datetime
    came: int
    away: int


def live(tenant: Tenant) -> Live:
    found = Session.objects.standing_at(tenant).aggregate(sessions=Count("*"), people=Count("user", distinct=True))
    return Live(found["sessions"], found["people"])


def factors(tenant: Tenant) -> Factors:
    deactivated = User.objects.filter(pk=OuterRef("user"), is_active=False)  # those are few, and a join would read everybody else
    members = Membership.objects.filter(~Exists(deactivated), tenant=tenant, blocked_at=None)
    enrolled = TotpDevice.objects.filter(user=OuterRef("user"), confirmed=True)
    return Factors(members.count(), members.filter(~Exists(enrolled)).count())


def locked_out(tenant: Tenant) -> int:
    """How many members wait for a lock of theirs to end."""
    shut = Bucket.objects.filter(locked_at__isnull=False, locked_until__gt=clock.now()).exclude(kind=Kind.ADDRESS)
    found: int = shut.filter(user__memberships__tenant=tenant).aggregate(n=Count("user", distinct=True))["n"]
    return found


def by_hour(tenant: Tenant, zone: tzinfo, days: int) -> list[Bar]:
    """Every hour of the last so many days, today included, the oldest first."""
    present = clock.now().astimezone(zone).replace(minute=0, second=0, microsecond=0)
    first = present.replace(hour=0) - timedelta(days=days - 1)
    hours = int((present.astimezone(UTC) - first.astimezone(UTC)) / HOUR)  # by UTC: some days have 23 of them, some 25
    starts = [present.astimezone(UTC) - n * HOUR for n in reversed(range(hours + 1))]
    came = _counted(Event.objects.filter(tenant=tenant, kind=CAME_IN, at__gte=starts[0]), zone)
    away = _counted(ledger.failures_of(tenant, starts[0]), zone)
    return [Bar(each.astimezone(zone), came.get(each, 0), away.get(each, 0)) for each in starts]


def _counted(rows: QuerySet[Event], zone: tzinfo) -> dict[datetime, int]:
    hours = rows.order_by().annotate(hour=TruncHour("at", tzinfo=zone)).values_list("hour").annotate(n=Count("*"))
    return {at.astimezone(UTC): n for at, n in hours}


def by_day(hours: Sequence[Bar]) -> list[Bar]:
    """The days of these hours, in their time zone."""
    days = [list(day) for _date, day in groupby(hours, key=lambda bar: bar.start.date())]
    return [Bar(day[0].start, sum(bar.came for bar in day), sum(bar.away for bar in day)) for day in days]
