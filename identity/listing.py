"""Which sessions: the criteria of the console's list, read from an address or from what a mass end keeps, and as a query.

One class for both, so that what is previewed, listed and ended is the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Self

from django.db.models import Exists, OuterRef, Q

from identity import clock, devices, networks
from identity.models import CODE, PASSWORD, RECOVERY, TRUSTED, Session, SessionQuerySet, User, fold
from tenants.models import Membership, Tenant

FACTORS = (PASSWORD, CODE, RECOVERY, TRUSTED)  # the first: that and nothing else
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def span(text: str) -> timedelta | None:
    """“30m”, “8h”, “7d” as a duration; None for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,2})([mhd])", text, re.ASCII)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a session must be to be listed. An empty text asks nothing; false if nothing is asked."""

    q: str = ""  # a part of the name or e-mail, or the beginning of an address
    person: str = ""  # a user name
    factor: str = ""  # how it was proven, one of FACTORS
    older: str = ""  # signed in longer ago than that span
    idle: str = ""  # not seen for longer than that span
    device: str = ""  # one of devices.KINDS
    role: str = ""  # of the person's membership
    ended: str = ""  # why it ended, one of Session.Reason; of no meaning while it lives

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Self:
        """Read and normalise; values that nobody knows are ignored."""
        given = {field.name: mapping.get(field.name, "") for field in fields(cls)}
        text = {name: " ".join(value.split()) if isinstance(value, str) else "" for name, value in given.items()}
        known: dict[str, Any] = {"factor": FACTORS, "device": devices.KINDS, "role": Membership.Role.values, "ended": Session.Reason.values}
        for name, values in known.items():
            text[name] = text[name] if text[name] in values else ""
        for name in ("older", "idle"):
            text[name] = text[name] if span(text[name]) else ""
        return cls(**{**text, "q": text["q"][:100], "person": text["person"][:150]})

    def as_query(self) -> dict[str, str]:
        """What is asked, for an address or a row of JSON; `of` reads it back."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}

    def __bool__(self) -> bool:
        return bool(self.as_query())

    def of_live(self, tenant: Tenant, at: datetime | None = None) -> SessionQuerySet:
        """The live sessions of a tenant that match; spans reach back from `at`, or from now."""
        return self.matching(Session.objects.standing_at(tenant), at)

    def of_ended(self, tenant: Tenant) -> SessionQuerySet:
        """The history of a tenant that matches."""
        rows = Session.objects.filter(tenant=tenant, ended_at__isnull=False).exclude(end_reason=Session.Reason.PROBE)
        return self.matching(rows.filter(end_reason=self.ended) if self.ended else rows)

    def matching(self, rows: SessionQuerySet, at: datetime | None = None) -> SessionQuerySet:
        rows = search(rows, self.q)
        if self.person:
            rows = rows.filter(user__name_key=fold(self.person))
        if self.factor:
            rows = rows.filter(factor=self.factor)
        if older := span(self.older):
            rows = rows.filter(created_at__lt=(at or clock.now()) - older)
        if idle := span(self.idle):
            rows = rows.filter(last_seen_at__lt=(at or clock.now()) - idle)
        if self.device:
            rows = rows.filter(device__in=["", self.device] if self.device == "other" else [self.device])
        if self.role:
            held = Membership.objects.filter(tenant=OuterRef("tenant"), user=OuterRef("user"), role=self.role)
            rows = rows.filter(Exists(held))
        return rows


def search(rows: SessionQuerySet, q: str) -> SessionQuerySet:
    """By a part of name or e-mail, or by the beginning of an address."""
    if not q:
        return rows
    named, addresses = Q(user__search_text__contains=fold(q)), networks.within(q)
    if addresses is None:
        return rows.filter(named)
    # Hardly anybody is called “203.0.113.”: then the index of addresses answers alone. An "or" over both could use neither index.
    is_name = User.objects.filter(search_text__contains=fold(q)).exists()
    return rows.filter(named | addresses) if is_name else rows.filter(addresses)
