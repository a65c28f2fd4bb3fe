"""The figures of the whole platform, for whoever watches over it: as of now, never a name. A handful of indexed queries."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models import Count, Q
from django.db.models.fields.json import KT

from identity import clock, ledger, mails
from identity.models import Bucket, Event, Session
from tenants.models import Tenant

LATELY = timedelta(minutes=5)  # the log of events is pruned, so what happened is told of the last minutes
MOST = 100_000  # events without a seal are counted up to here


@dataclass(frozen=True, slots=True)
class Pulse:
    """sign_ins to ends: of the last five minutes."""

    database_seconds: float
    sessions: dict[str, int]  # at the portal, and at tenants
    sign_ins: int
    failures: Counter[str]  # by what was answered wrongly: sign_in, code, …
    lockouts: dict[str, int]  # by kind of bucket
    ends: dict[str, int]  # by reason
    mails_waiting: int
    mails_late_seconds: float  # how long the oldest that is due has waited
    mails_given_up: int
    unsealed: int


def take() -> Pulse:
    """Raises DatabaseError."""
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    seconds = time.monotonic() - began
    failures = Counter({kind.removesuffix("_failed"): 0 for kind in ledger.WRONG_ANSWERS})
    ends = dict.fromkeys(Session.Reason.values, 0)
    lockouts = dict.fromkeys(Bucket.Kind.values, 0)
    sign_ins = 0
    for kind, reason, bucket, n in _lately():
        if kind == "sign_in":
            sign_ins += n
        elif kind == "session_ended" and reason in ends:
            ends[reason] += n
        elif kind == "locked_out" and bucket in lockouts:
            lockouts[bucket] += n
        elif kind.endswith("_failed"):
            failures[kind.removesuffix("_failed")] += n
    oldest = mails.due().order_by("due_at").values_list("due_at", flat=True).first()
    return Pulse(
        database_seconds=seconds,
        sessions={
            "portal": Session.objects.standing_at_portal().count(),
            "tenant": Session.objects.standing_in(Tenant.objects.all()).count(),
        },
        sign_ins=sign_ins,
        failures=failures,
        lockouts=lockouts,
        ends=ends,
        mails_waiting=mails.waiting().count(),
        mails_late_seconds=max((clock.now() - oldest).total_seconds(), 0) if oldest else 0,
        mails_given_up=mails.failed().count(),
        unsealed=Event.objects.filter(seal=None).order_by()[:MOST].count(),
    )


def _lately() -> list[tuple[str, str | None, str | None, int]]:
    told = Q(kind__in=["sign_in", "session_ended", "locked_out"]) | Q(kind__endswith="_failed")
    rows = Event.objects.filter(told, at__gt=clock.now() - LATELY).exclude(kind="mail_failed").order_by()
    rows = rows.annotate(why=KT("data__reason"), which=KT("data__bucket"))
    return list(rows.values_list("kind", "why", "which").annotate(n=Count("pk")))
