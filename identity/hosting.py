"""The further hosts of a tenant: added, proven or approved, given another cookie domain, removed.

The verbs that the console and `manage.py tenant host` share. Each is one transaction with an event and with all that it ends.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils.translation import gettext as _

from identity import clock, events, ownership, sessions
from identity.members import COMMAND_LINE, Actor, NotAllowed
from identity.models import Event, Session, SessionQuerySet
from identity.ownership import Finding
from tenants import hosts
from tenants.models import Host, Tenant
from tenants.saving import save_checked

_LOCK = 7_325_003  # of those who approve hosts, among PostgreSQL's advisory locks
LOOKS, LOOKS_WINDOW = 10, timedelta(minutes=10)  # at DNS that found nothing, of one tenant


class Gone(Exception):
    """The host was removed or changed meanwhile."""


class Unproven(Exception):
    """The cookie domain would reach further than what has been proven."""


class TooOften(Exception):
    """The DNS was asked in vain too often lately."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of it: the facts as they were (None: there was no such host) and are (None: there is none any more)."""

    host: Host
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    ended: int = 0

    @property
    def is_one(self) -> bool:
        return self.before != self.after


def facts(host: Host) -> dict[str, Any]:
    return {"host": host.name, "cookie_domain": host.cookie_domain, "approved_at": host.approved_at}


def settle(tenant: Tenant, name: str, domain: str = "", *, approved: bool = False, by: Actor = COMMAND_LINE, challenge: str = "") -> Change:
    """Give a tenant a host, or a host of its another cookie domain ("": as it is, or the usual one).

    approved: somebody may say so, or has proven it; without, a host under the tenant's own name is good at once, any other waits.
    challenge: the host has to be the one with this challenge. Raises ValidationError, NotAllowed, Unproven and Gone.
    """
    if not by.may_change_settings:
        raise NotAllowed
    with transaction.atomic():
        _one_after_the_other()
        held = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        host = Host.objects.filter(tenant=held, name=name).first()
        if challenge and (host is None or host.challenge != challenge):
            raise Gone
        host = host or Host(name=name)
        host.tenant = held
        before = facts(host) if host.pk else None
        stranded = list(_stranded(host).values_list("pk", flat=True)) if host.pk and domain and domain != host.cookie_domain else []
        reached, host.cookie_domain = host.cookie_domain, domain or host.cookie_domain
        if approved or host.is_own:
            host.approved_at = host.approved_at or clock.now()
        elif host.approved_at and not hosts.is_within(host.cookie_domain, reached):
            raise Unproven
        if before == facts(host):
            return Change(host, before, before)
        save_checked(host)
        still_fits(held)
        ended = _end(stranded, by)
        after = facts(host)
        kind = "host_added" if before is None else "host_changed" if before["approved_at"] else "host_approved"
        events.record(kind, request=by.request, tenant=held, actor=by.user, before=before, after=after, **by.source)
    return Change(host, before, after, ended)


def prove(host: Host, domain: str = "", *, by: Actor) -> Finding:
    """Look whether the DNS says that the host is its tenant's, for its cookie domain or another one; if so, let it be approved.

    Not in a transaction: servers elsewhere are asked. Raises what `settle` raises, and TooOften.
    """
    if not by.may_change_settings:
        raise NotAllowed
    lately = Event.objects.filter(tenant=host.tenant, kind="host_not_proven", at__gt=clock.now() - LOOKS_WINDOW)
    if lately[:LOOKS].count() >= LOOKS:
        raise TooOften
    domain = domain or host.cookie_domain
    finding = ownership.look(Host(tenant=host.tenant, name=host.name, cookie_domain=domain, challenge=host.challenge))
    if finding is Finding.PROVEN:
        settle(host.tenant, host.name, domain, approved=True, by=by, challenge=host.challenge)
    else:
        events.record(
            "host_not_proven", request=by.request, tenant=host.tenant, actor=by.user, host=host.name, cookie_domain=domain, finding=finding
        )
    return finding


def remove(host: Host, *, by: Actor = COMMAND_LINE) -> Change:
    """The tenant no longer answers there; who was signed in there only is signed out. Raises ValidationError, NotAllowed, Gone."""
    if not by.may_change_settings:
        raise NotAllowed
    with transaction.atomic():
        held = Tenant.objects.select_for_update(no_key=True).get(pk=host.tenant_id)
        found = Host.objects.filter(pk=host.pk, tenant=held).first()
        if found is None:
            raise Gone
        found.tenant = held
        before, stranded = facts(found), list(_stranded(found).values_list("pk", flat=True))
        found.delete()
        still_fits(held)
        ended = _end(stranded, by)
        events.record("host_removed", request=by.request, tenant=held, actor=by.user, before=before, after=None, **by.source)
    return Change(found, before, None, ended)


def signed_in_at(host: Host) -> tuple[int, int]:
    """How many live sessions end, of how many people, when a host is removed or gets another cookie domain."""
    rows = Session.objects.alive_at(host.tenant).filter(pk__in=_stranded(host).values("pk")).order_by()
    return rows.count(), rows.values("user").distinct().count()


def _stranded(host: Host) -> SessionQuerySet:
    """The sessions whose cookie is good nowhere else: opened at this host, and no other host has its cookie domain.

    With another domain each browser would come with two cookies, the old one and the new one: so they end.
    """
    others = Host.objects.filter(tenant=host.tenant, cookie_domain=host.cookie_domain, approved_at__isnull=False).exclude(pk=host.pk)
    if host.approved_at is None or host.cookie_domain == host.tenant.cookie_domain or others.exists():
        return Session.objects.none()
    apps = [app.host for app in host.tenant.apps.all() if hosts.is_within(app.host, host.cookie_domain)]
    return Session.objects.filter(tenant=host.tenant, host__in=[host.name, *apps], ended_at=None)


def _end(stranded: list[Any], by: Actor) -> int:
    rows = Session.objects.filter(pk__in=stranded)
    return len(sessions.end(rows, by=by.user, reason=sessions.Reason.HOST, request=by.request))


def _one_after_the_other() -> None:
    """Two tenants that are given overlapping domains at the same moment must see each other (SQLite has one writer anyway)."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def still_fits(tenant: Tenant) -> None:
    """Refuse a change of cookie domain or hosts that an app or host of the tenant does not survive. Raises ValidationError."""
    for thing in (*tenant.hosts.exclude(approved_at=None), *tenant.apps.all()):
        try:
            thing.full_clean()
        except ValidationError as wrong:
            text = _("%(thing)s would not fit any more: %(why)s Remove it first, or choose otherwise.")
            raise ValidationError(text % {"thing": thing, "why": " ".join(wrong.messages)}) from None
