"""The figures of a tenant, for its console: one query each. Exact, and as of now."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q

from identity.models import Session, TotpDevice
from tenants.models import Membership, Tenant

CAME_IN = "branch_opened"
HOURS, DAYS = 24, 30


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
    """One hour or day in somebody's time zone: who came in, and who was turned away by a wrong answer."""

    start: datetime
    came: int
    away: int


def live(tenant: Tenant) -> Live:
    found = Session.objects.alive_at(tenant).aggregate(n=Count("pk"), people=Count("user_id", distinct=True))
    return Live(found["n"], found["people"])


def factors(tenant: Tenant) -> Factors:
    members = Membership.objects.filter(tenant=tenant, blocked_at=None, user__is_active=True)
    enrolled = TotpDevice.objects.filter(confirmed=True).values("user")
    found = members.aggregate(n=Count("pk"), has=Count("pk", filter=Q(user__in=enrolled)))
    return Factors(found["n"], found["n"] - found["has"])
