"""The synthetic person of the isolation check: a member of every active tenant for some seconds, and then of nothing.

Whatever happens to the process, nothing of it stays: what a killed run leaves behind is found by `leftovers` and removed by
the next run and by `prune`. Until then its sessions are worth nothing, since their keys died with the process.
"""

import contextlib
import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import transaction

from identity import clock, sessions
from identity.models import Session, User
from tenants.models import Membership, Tenant

PREFIX = "isolation-probe-"
LIFETIME = timedelta(minutes=15)  # of its sessions, and of a run


@dataclass(frozen=True, slots=True)
class Cookie:
    """A session of the probe: `place` is its tenant's slug, or “portal”."""

    place: str
    key: str


def new_name() -> str:
    return f"{PREFIX}{secrets.token_hex(6)}"


def open_everywhere(name: str) -> list[Cookie]:
    """Make the person, a portal session and a branch in every active tenant that lets it in, in one transaction."""
    with transaction.atomic():
        person = User(username=name, bio=f"Process {os.getpid()} on {socket.gethostname()}. Gone when the check is over.")
        person.set_unusable_password()
        person.save(force_insert=True)
        tenants = list(Tenant.objects.filter(status=Tenant.Status.ACTIVE).order_by("slug"))
        Membership.objects.bulk_create(Membership(tenant=tenant, user=person) for tenant in tenants)
        portal, key = sessions.sign_in(person, request=None, methods=["probe"], remember=False)
        cookies = []
        for tenant in tenants:
            with contextlib.suppress(sessions.NotAdmitted):  # frozen, or a second factor is asked for: others' cookies are tried there
                _branch, branch_key = sessions.open_branch(portal.pk, tenant, request=None, probe=True)
                cookies.append(Cookie(tenant.slug, branch_key))
        short = clock.now() + LIFETIME
        Session.objects.filter(user=person).update(idle_expires_at=short, expires_at=short)
    return [*cookies, Cookie("portal", key)]


def remove(person: User) -> None:
    """End its sessions, and take away the person, the memberships and the rows."""
    with transaction.atomic():
        sessions.end_everywhere(person, by=None, reason=sessions.Reason.PROBE)
        person.delete()


def named(name: str) -> User | None:
    return User.objects.filter(username=name).first()


def leftovers() -> list[User]:
    """Probes whose run is over. Nobody can look like one: a person has an address or a password."""
    probes = User.objects.filter(username__startswith=PREFIX, email="", password__startswith=UNUSABLE_PASSWORD_PREFIX)
    return [person for person in probes if _is_over(person)]


def sweep(*, dry_run: bool = False) -> int:
    """Remove what killed runs left behind; returns how many there were."""
    found = leftovers()
    if not dry_run:
        for person in found:
            remove(person)
    return len(found)


def _is_over(person: User) -> bool:
    """Its process is gone, or it is older than a run can be (on another machine that is all there is to ask)."""
    if person.date_joined < clock.now() - LIFETIME:
        return True
    made_by = re.match(r"Process (\d+) on (\S+)\. ", person.bio)
    return bool(made_by and made_by[2] == socket.gethostname() and not _runs(int(made_by[1])))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
