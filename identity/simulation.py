"""What a tenant's policy would do to those who are signed in, counted before it is saved. Nothing here changes anything."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from django.db.models import Count, Q, QuerySet

from identity import clock, sessions
from identity.models import Session, TotpDevice
from tenants.models import Invitation, Membership, Tenant


@dataclass(frozen=True, slots=True)
class Forecast:
    """The figures behind a change of policy. Whoever is counted under two causes is one of `sessions`."""

    live: int
    sessions: int  # of the live ones would end,
    people: int  # of so many people:
    idle: int  # unused for too long,
    old: int  # open for too long,
    unproven: int  # opened without the second factor that is due
    asked: int  # people of whom a second factor is asked
    without: int  # of these have none,
    admins_without: int  # so many of them admins or owners,
    due: datetime | None  # who must set one up by then; None: nobody has to
    invitations: int  # that open nothing while sign-up is closed


def forecast(tenant: Tenant) -> Forecast:
    """What the policy of `tenant`, which need not be saved, would do now."""
    idle, old = sessions.idle_for_too_long(tenant), sessions.open_for_too_long(tenant)
    unproven = Q(pk__in=sessions.unproven(tenant).values("pk"))
    ending = idle | old | unproven
    figures = Session.objects.standing_at(tenant).aggregate(
        live=Count("pk"),
        sessions=Count("pk", filter=ending),
        people=Count("user", filter=ending, distinct=True),
        idle=Count("pk", filter=idle),
        old=Count("pk", filter=old),
        unproven=Count("pk", filter=unproven),
    )
    asked = people_asked(tenant)
    lacking = without_factor(asked)
    return Forecast(
        **figures,
        asked=asked.count(),
        without=lacking.count(),
        admins_without=lacking.exclude(role=Membership.Role.MEMBER).count(),
        due=due_day(tenant),
        invitations=open_invitations(tenant) if tenant.rules.sign_up == "closed" else 0,
    )


def people_asked(tenant: Tenant) -> "QuerySet[Membership]":
    """The members who must have a second factor here, now or when their grace is over."""
    rules = tenant.rules
    people = Membership.objects.filter(tenant=tenant, blocked_at=None, user__is_active=True)
    if rules.second_factor == "off":
        return people.none()
    return people.exclude(role=Membership.Role.MEMBER) if rules.second_factor == "admins" else people


def without_factor(people: "QuerySet[Membership]") -> "QuerySet[Membership]":
    return people.exclude(user__in=TotpDevice.objects.filter(confirmed=True).values("user"))


def due_day(tenant: Tenant) -> datetime | None:
    """When the grace ends of those who belong to it already; who joins later has as many days from then on."""
    return tenant.factor_since and tenant.factor_since + timedelta(days=tenant.rules.grace_days)


def open_invitations(tenant: Tenant) -> int:
    """Those that could still be accepted."""
    return Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None, expires_at__gt=clock.now()).count()


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody was shown before he saved: which change, and the figures that can grow meanwhile."""

    change: str
    sessions: int
    without: int

    @classmethod
    def of(cls, before: dict[str, object], after: dict[str, object], shown: Forecast) -> Self:
        text = json.dumps([before, after], sort_keys=True)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:16], shown.sessions, shown.without)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """As it comes back from the page; None if it is nothing of ours."""
        change, *figures = text.split(".")
        if len(figures) != 2 or not all(figure.isascii() and figure.isdigit() and len(figure) < 10 for figure in figures):
            return None
        return cls(change, int(figures[0]), int(figures[1]))

    def __str__(self) -> str:
        return f"{self.change}.{self.sessions}.{self.without}"

    def covers(self, now: Self) -> bool:
        """The same change, and no more than was shown; among many, a tenth more comes by itself while one reads."""
        return self.change == now.change and now.sessions <= _and_a_tenth(self.sessions) and now.without <= _and_a_tenth(self.without)


def _and_a_tenth(figure: int) -> int:
    return figure + figure // 10
