"""Ends of many sessions that one person asks for. The request ends up to `DIRECTLY` itself; more are ended behind it.

What is in force when: everything of a tenant by one stamp, at once, at any size; what matches a filter batch by batch. A batch
is one transaction with its progress in it, so a worker that dies loses nothing and nothing is done twice. Workers pass over
each other's (SKIP LOCKED; on SQLite they queue), and of one tenant's only the oldest is worked on. Lock order: the row of the
mass end, then as in `identity.sessions`.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef
from django.http import HttpRequest

from identity import clock, events, sessions
from identity.listing import Criteria
from identity.models import Event, MassEnd, Session, SessionQuerySet, User
from tenants import policy
from tenants.models import Tenant

DIRECTLY = BATCH = 1_000
EVERY = timedelta(seconds=1)
_BREATH = 0.05  # seconds between batches on SQLite, where everybody else waits to write


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of it: the sessions that are over, and what is still under way."""

    done: list[Session]
    at: datetime  # of the stamp, or of the first end
    event: Event
    mass: MassEnd | None = None


def meant(tenant: Tenant, criteria: Criteria, *, spare: Session | None) -> SessionQuerySet:
    """The live sessions that an end would end; without criteria all of the tenant. spare: a portal session whose tree stays."""
    rows = criteria.of_live(tenant)
    return rows.exclude(parent=spare) if spare else rows


def end_matching(
    tenant: Tenant,
    criteria: Criteria,
    *,
    expected: int,
    by: User | None,
    reason: Session.Reason,
    note: str,
    spare: Session | None = None,
    request: HttpRequest | None = None,
) -> Asked:
    """End what matches: up to `DIRECTLY` in one transaction, more batch by batch. expected: how many the caller has counted."""
    assert criteria, "everything of a tenant ends by its stamp: end_tenant"
    with transaction.atomic():
        now = clock.now()
        event = _note(tenant, criteria, expected, by, note, request)
        if expected > DIRECTLY:
            mass = _begin(tenant, criteria, expected, by, reason, note, spare, before=now)
            return Asked([], now, event, mass)
        ids = list(meant(tenant, criteria, spare=spare).order_by().values_list("pk", flat=True)[:DIRECTLY])
        done = sessions.end(Session.objects.filter(pk__in=ids), by=by, reason=reason, note=note, request=request)
    return Asked(done, (done[0].ended_at if done else None) or now, event)


def end_tenant(
    tenant: Tenant,
    *,
    expected: int,
    by: User | None,
    reason: Session.Reason,
    note: str,
    spare: Session | None = None,
    request: HttpRequest | None = None,
) -> Asked:
    """End everything of a tenant: the stamp is in force when this returns; up to `DIRECTLY` rows are marked by then, too.

    spare: a portal session whose tree stays. Raises sessions.StaleProof if it ended meanwhile.
    """
    with transaction.atomic():
        before = sessions.stamp_tenant(tenant, spare=spare, reason=reason, note=note)
        mass = follow_stamp(tenant, expected=expected, by=by, reason=reason, note=note, spare=spare)
        change = {"before": {"valid_from": before.valid_from}, "after": {"valid_from": tenant.valid_from}}
        event = _note(tenant, Criteria(), expected, by, note, request, **change)
    return Asked([], tenant.valid_from, event, end_few(mass))


def follow_stamp(tenant: Tenant, *, expected: int, by: User | None, reason: Session.Reason, note: str, spare: Session | None) -> MassEnd:
    """Have the rows marked that a tenant's new stamp has made worthless. In the transaction of the stamp."""
    return _begin(tenant, Criteria(), expected, by, reason, note, spare, before=tenant.valid_from)


def end_few(mass: MassEnd) -> MassEnd:
    """What is so little that nobody need wait for it is done at once; the worker does the rest. Returns how far it is."""
    while mass.expected <= DIRECTLY and end_batch(mass) is not None:
        pass
    mass.refresh_from_db()
    return mass


def _begin(
    tenant: Tenant,
    criteria: Criteria,
    expected: int,
    by: User | None,
    reason: Session.Reason,
    note: str,
    spare: Session | None,
    *,
    before: datetime,
) -> MassEnd:
    return MassEnd.objects.create(
        tenant=tenant,
        criteria=criteria.as_query(),
        before=before,
        by=by,
        spared=spare.pk if spare else None,
        reason=reason,
        note=note,
        expected=expected,
        started_at=before,
    )


def _note(tenant: Tenant, criteria: Criteria, count: int, by: User | None, note: str, request: HttpRequest | None, **change: Any) -> Event:
    """The event names no person: whom a search meant is told by the events of the sessions."""
    asked: dict[str, object] = dict(criteria.as_query())
    if any([asked.pop("q", ""), asked.pop("person", "")]):
        asked["search"] = True
    data: dict[str, Any] = {"criteria": asked, "count": count, "note": note, **change}
    return events.record("mass_end_asked", request=request, tenant=tenant, actor=by, **data)


# --- Behind the request -------------------------------------------------------------------------------------------


def carry_on() -> int:
    """The worker's part: end what mass ends have left, of every tenant. Returns how many sessions this call ended."""
    total = 0
    while (done := end_batch()) is not None:
        total += done
        if connection.vendor == "sqlite":
            time.sleep(_BREATH)
    return total


def end_batch(only: MassEnd | None = None) -> int | None:
    """One batch, in one transaction; returns how many sessions it ended, None if there is nothing that nobody else works on."""
    with transaction.atomic():
        mass = _claim(only)
        if mass is None:
            return None
        ids = list(_left(mass).order_by().values_list("pk", flat=True)[:BATCH])
        done = sessions.end(
            Session.objects.filter(pk__in=ids),
            by=mass.by,
            reason=Session.Reason(mass.reason),
            note=mass.note,
            tell=False,
            since=None if mass.criteria else mass.before,
        )
        finished = clock.now() if len(ids) < BATCH else None
        MassEnd.objects.filter(pk=mass.pk).update(done=F("done") + len(done), finished_at=finished)
    return len(done)


def _claim(only: MassEnd | None) -> MassEnd | None:
    """Hold one that is not finished until the transaction ends: of each tenant the oldest, of these the first that nobody holds."""
    older = MassEnd.objects.filter(tenant=OuterRef("tenant"), pk__lt=OuterRef("pk"), finished_at=None)
    rows = MassEnd.objects.filter(~Exists(older), finished_at=None).order_by("pk")
    if only:
        rows = rows.filter(pk=only.pk)
    mass = rows.select_for_update(of=("self",), no_key=True, skip_locked=True).first()
    # Read again under the lock: what was found may have been finished before it was held.
    return MassEnd.objects.filter(pk=mass.pk, finished_at=None).select_related("by", "tenant").first() if mass else None


def _left(mass: MassEnd) -> SessionQuerySet:
    if mass.criteria:
        rows = Criteria.of(mass.criteria).of_live(mass.tenant, mass.before).filter(created_at__lte=mass.before)
    else:
        rows = sessions.stamped(mass.tenant, mass.before)
    return rows.exclude(parent=mass.spared) if mass.spared else rows


def of_tenant(tenant: Tenant) -> list[MassEnd]:
    """What is under way there behind a request, and what finished in the last ten minutes."""
    now = clock.now()
    rows = MassEnd.objects.filter(tenant=tenant, expected__gt=DIRECTLY, started_at__gt=now - timedelta(days=1)).order_by("-pk")[:10]
    return [each for each in rows if each.finished_at is None or each.finished_at > now - timedelta(minutes=10)]


def forget_old() -> int:
    """Delete what was finished long enough ago: as long as ended sessions are kept."""
    return MassEnd.objects.filter(finished_at__lt=clock.now() - policy.KEEP_ENDED).delete()[0]
