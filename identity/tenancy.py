"""What a tenant is like: its look and its policy. The verbs that the console and `manage.py tenant` share.

Each locks the tenant and writes an event with before and after in one transaction. What a shorter limit ends, ends right after it.
"""

import copy
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from identity import clock, events, sessions, simulation
from identity.members import COMMAND_LINE, Actor, NotAllowed
from identity.simulation import Forecast, Seen
from tenants.models import Logo, Tenant
from tenants.policy import SECOND_FACTOR, Policy
from tenants.saving import save_checked

LOOK = ("name", "colour", "support_contact", "sign_in_note", "home_is_public", "cookie_domain")


class Outdated(Exception):
    """Since the forecast was shown something has changed: it is shown anew, nothing is saved."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of it: the fields that differ, and what it did to those who were signed in (None: the policy stayed)."""

    tenant: Tenant
    before: dict[str, Any]
    after: dict[str, Any]
    did: Forecast | None = None

    @property
    def is_one(self) -> bool:
        return self.before != self.after


def change(tenant: Tenant, wanted: dict[str, Any], *, by: Actor = COMMAND_LINE, seen: Seen | None = None) -> Change:
    """Set what is in `wanted`: fields of LOOK, `policy` as it is stored or `rules`, some of its fields, `logo` as PNG (None: none).

    seen: the forecast that was shown. Raises ValidationError, NotAllowed, and Outdated where more would happen than was shown.
    """
    if not by.may_change_settings:
        raise NotAllowed
    with transaction.atomic():
        held = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        was, old_logo = described(held), held.logo
        for name in LOOK:
            setattr(held, name, wanted.get(name, getattr(held, name)))
        if "policy" in wanted:
            take_policy(held, wanted["policy"])
        if "rules" in wanted:
            take_policy(held, replace(held.rules, **wanted["rules"]).stored)
        if "logo" in wanted:
            held.logo = Logo.objects.create(png=wanted["logo"]) if wanted["logo"] else None
        save_checked(held)
        if old_logo and old_logo != held.logo:
            old_logo.delete()
        now = described(held)
        did = _enforce(held, was["policy"], now["policy"], seen, by) if was["policy"] != now["policy"] else None
        names = [name for name in now if was[name] != now[name]]
        done = Change(held, {name: was[name] for name in names}, {name: now[name] for name in names}, did)
        if done.is_one:
            events.record(
                "tenant_changed", request=by.request, tenant=held, actor=by.user, before=done.before, after=done.after, **by.source
            )
    if did:
        sessions.shorten(held)
        sessions.end_lapsed(held, at_most=sessions.BATCH)  # over already; this is for the history, and prune does the rest
    return done


def _enforce(tenant: Tenant, was: dict[str, Any], now: dict[str, Any], seen: Seen | None, by: Actor) -> Forecast:
    """Let a changed second factor hold for the sessions that are open. Raises Outdated."""
    foreseen = simulation.forecast(tenant)
    if seen and not seen.covers(Seen.of(was, now, foreseen)):
        raise Outdated
    sessions.end_unproven(tenant)
    return foreseen


def imagine(tenant: Tenant, policy: dict[str, Any]) -> Tenant:
    """The tenant as it would be with this stored policy; not saved. Raises ValidationError."""
    imagined = copy.copy(tenant)
    take_policy(imagined, policy)
    return imagined


def take_policy(tenant: Tenant, policy: dict[str, Any]) -> None:
    """Days of grace count from the moment when the second factor is asked for, or asked of more people. Raises ValidationError."""
    before = _strictness(tenant.rules)
    try:
        after = _strictness(Policy.of(policy))
    except ValueError as wrong:
        raise ValidationError(str(wrong)) from None
    tenant.policy = policy
    if after == 0:
        tenant.factor_since = None
    elif after > before:
        tenant.factor_since = clock.now()


def _strictness(rules: Policy) -> int:
    return SECOND_FACTOR.index(rules.second_factor)


def described(tenant: Tenant) -> dict[str, Any]:
    """What can be set, and what cannot: for scripts, and for events as before and after."""
    return {
        "slug": tenant.slug,
        "name": tenant.name,
        "status": tenant.status,
        "url": tenant.home_url,
        "cookie_domain": tenant.cookie_domain,
        "colour": tenant.colour,
        "logo": tenant.logo_id.hex if tenant.logo_id else None,
        "support_contact": tenant.support_contact,
        "sign_in_note": tenant.sign_in_note,
        "home_is_public": tenant.home_is_public,
        "policy": policy_values(tenant.rules),
        "factor_since": tenant.factor_since,
    }


def policy_values(rules: Policy) -> dict[str, Any]:
    """Every value of a policy, durations in whole seconds."""
    values = ((field.name, getattr(rules, field.name)) for field in fields(rules))
    return {name: int(value.total_seconds()) if isinstance(value, timedelta) else value for name, value in values}
