"""Panic: what is done to a whole tenant at once during an incident, and taken back with one click.

Frozen: nobody new comes in, what is open goes on. Everything ended: what is open is over, and whoever proves himself comes back.
Proof demanded: the same, and until it is lifted everybody types a second factor to come back. What each means for one portal
session is for `sessions.admission` to say. Each verb is one transaction in which the tenant is held, so that a hand-off comes
before it or is refused, and writes an event with before and after. The console stays open: there it is lifted. ASVS 7.4.5.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from identity import clock, events, mass, sessions
from identity.members import Actor
from identity.models import Event, MassEnd, Session, User
from tenants.models import Tenant

FROZEN, DEMANDED = "tenant_frozen", "proof_demanded"


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds at a tenant until somebody lifts it."""

    kind: str  # FROZEN or DEMANDED
    since: datetime
    by: User | None  # nobody's account: the command line, or somebody who is gone
    note: str


def freeze(tenant: Tenant, *, by: Actor, note: str) -> bool:
    """Let nobody new in. False if it was so already; then the reason from before stays."""
    with transaction.atomic():
        if _hold(tenant).frozen_at:
            return False
        tenant.frozen_at = clock.now()
        Tenant.objects.filter(pk=tenant.pk).update(frozen_at=tenant.frozen_at)
        _note(FROZEN, tenant, by, {"frozen_at": None}, {"frozen_at": tenant.frozen_at}, note=note)
    return True


def lift_freeze(tenant: Tenant, *, by: Actor, note: str = "") -> bool:
    """Let people in again. False if it was not frozen."""
    with transaction.atomic():
        before = _hold(tenant).frozen_at
        if before is None:
            return False
        tenant.frozen_at = None
        Tenant.objects.filter(pk=tenant.pk).update(frozen_at=None)
        _note("tenant_unfrozen", tenant, by, {"frozen_at": before}, {"frozen_at": None}, **({"note": note} if note else {}))
    return True


def end_everything(tenant: Tenant, *, by: Actor, note: str, spare: Session | None = None) -> None:
    """End every session at the tenant: in force at once, whatever their number; the rows are marked behind it.

    spare: the portal session whose tree stays, proven a moment ago. Raises sessions.StaleProof if it ended meanwhile.
    """
    with transaction.atomic():
        before, rows = _stamp(tenant, by, note, spare)
        _note("everything_ended", tenant, by, _stamps(before), _stamps(tenant), note=note, spared=spare.pk if spare else None)
    mass.end_few(rows)


def demand_proof(tenant: Tenant, *, by: Actor, note: str, spare: Session | None = None) -> None:
    """End every session, and until it is lifted ask everybody for a second factor typed since then.

    spare: stays if a second factor was typed in it. Raises sessions.StaleProof if it ended meanwhile.
    """
    spare = spare if spare and spare.has_factor else None
    with transaction.atomic():
        before, rows = _stamp(tenant, by, note, spare)
        tenant.proof_demanded_at = tenant.valid_from
        Tenant.objects.filter(pk=tenant.pk).update(proof_demanded_at=tenant.proof_demanded_at)
        _note(DEMANDED, tenant, by, _stamps(before), _stamps(tenant), note=note, spared=spare.pk if spare else None)
    mass.end_few(rows)


def lift_demand(tenant: Tenant, *, by: Actor) -> bool:
    """Ask for what the policy asks for, no more. False if nothing was demanded. What has ended stays ended."""
    with transaction.atomic():
        before = _hold(tenant).proof_demanded_at
        if before is None:
            return False
        tenant.proof_demanded_at = None
        Tenant.objects.filter(pk=tenant.pk).update(proof_demanded_at=None)
        _note("demand_lifted", tenant, by, {"proof_demanded_at": before}, {"proof_demanded_at": None})
    return True


def in_force(tenant: Tenant) -> list[InForce]:
    """What holds at this tenant now, by whom and why. Asks nothing where nothing does."""
    found = []
    for kind, since in ((FROZEN, tenant.frozen_at), (DEMANDED, tenant.proof_demanded_at)):
        if since is not None:
            event = Event.objects.filter(tenant=tenant, kind=kind).select_related("actor").order_by("-at").first()
            found.append(InForce(kind, since, event.actor if event else None, str(event.data.get("note", "")) if event else ""))
    return found


def _hold(tenant: Tenant) -> Tenant:
    return Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)


def _stamps(tenant: Tenant) -> dict[str, Any]:
    return {"valid_from": tenant.valid_from, "proof_demanded_at": tenant.proof_demanded_at}


def _stamp(tenant: Tenant, by: Actor, note: str, spare: Session | None) -> tuple[Tenant, MassEnd]:
    """The tenant as it was, and the marking of the rows behind a stamp that is in force with this transaction."""
    reason = _reason(by)
    expected = Session.objects.standing_at(tenant).count()
    before = sessions.stamp_tenant(tenant, spare=spare, reason=reason, note=note)
    return before, mass.follow_stamp(tenant, expected=expected, by=by.user, reason=reason, note=note, spare=spare)


def _reason(by: Actor) -> Session.Reason:
    return Session.Reason.BY_ADMIN if by.user and not by.user.is_superuser else Session.Reason.BY_OPERATOR


def _note(kind: str, tenant: Tenant, by: Actor, before: dict[str, Any], after: dict[str, Any], **data: Any) -> None:
    events.record(kind, request=by.request, tenant=tenant, actor=by.user, before=before, after=after, **data, **by.source)
