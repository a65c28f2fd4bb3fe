"""What goes into a portal's database beside the browser, in a process with that portal's environment.

python -m tests.browser.data install | crowd | long-names | furnish:SLUG | asks:SLUG | code:NAME | old-proofs …
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from identity import factors, sessions  # noqa: E402
from identity.devices import device  # noqa: E402
from identity.management.commands import demo  # noqa: E402
from identity.models import Session, TotpDevice, User  # noqa: E402
from tenants.models import Membership, Tenant  # noqa: E402
from tests.browser.agents import (  # noqa: E402
    CHROME_WINDOWS,
    EDGE_WINDOWS,
    FIREFOX_LINUX,
    FIREFOX_MAC,
    IPAD,
    IPHONE,
    PIXEL,
    SAFARI_MAC,
)
from tests.browser.site import PASSWORD  # noqa: E402
from tests.furnish import furnish  # noqa: E402

NEW_PEOPLE = [
    ("priya", "Priya", "Raman"),
    ("jonas", "Jonas", "Lindqvist"),
    ("mei", "Mei", "Tanaka"),
    ("tomas", "Tomás", "Ferreira"),
    ("samira", "Samira", "Haddad"),
]


@dataclass(frozen=True)
class Visit:
    """A browser that somebody signed in with: at which tenants, how many minutes ago, and when it was last seen."""

    name: str
    user_agent: str
    address: str
    signed_in: int
    seen: int
    at: str = "acme"
    by: str = "pwd"  # how it was proven
    remember: bool = False
    ended_by: str = ""
    note: str = ""


VISITS = [
    Visit("alice", FIREFOX_MAC, "203.0.113.24", 190, 2),
    Visit("alice", IPHONE, "198.51.100.71", 60 * 24 * 3, 41, remember=True),
    Visit("dave", IPHONE, "2001:db8:61:7::1d4", 60 * 24 * 6, 95, at="acme globex", remember=True),
    Visit("dave", CHROME_WINDOWS, "192.0.2.77", 60 * 5, 60 * 4, at="acme"),
    Visit("priya", CHROME_WINDOWS, "203.0.113.31", 324, 6, by="pwd otp"),
    Visit("jonas", FIREFOX_LINUX, "2001:db8:61:7::3c", 58, 11),
    Visit("mei", SAFARI_MAC, "203.0.113.58", 142, 19, by="pwd otp"),
    Visit("mei", IPAD, "198.51.100.14", 60 * 24 * 2, 230, remember=True, by="pwd trusted"),
    Visit("tomas", EDGE_WINDOWS, "192.0.2.140", 402, 27),
    Visit("samira", PIXEL, "198.51.100.203", 84, 33, by="pwd recovery"),
    Visit("olivia", SAFARI_MAC, "203.0.113.12", 265, 52, at="acme globex"),
    Visit("samira", FIREFOX_LINUX, "203.0.113.90", 400, 300, ended_by="bob", note="Shared computer at the desk"),
]


LONG_NAME = ("w.featherstonehaugh-cholmondeley", "Wilhelmina", "Featherstonehaugh-Cholmondeley")
LONG_VISIT = Visit(LONG_NAME[0], PIXEL, "2001:db8:6100:7777:8888:9999:aaaa:bbbb", 17, 16)


def crowd(people: list[tuple[str, str, str]], visits: list[Visit]) -> None:
    """A believable afternoon at Acme: people of several systems, networks and habits, and one session that bob has ended."""
    for username, first, last in people:
        user = User(username=username, first_name=first, last_name=last, email=f"{username}@acme.example", email_verified_at=timezone.now())
        user.set_unusable_password()
        user.full_clean()
        user.save()
        Membership.objects.create(tenant=Tenant.objects.get(slug="acme"), user=user)
    for visit in visits:
        _arrive(visit)


def _arrive(visit: Visit) -> None:
    user = User.objects.get(username=visit.name)
    portal, _key = sessions.sign_in(user, request=None, methods=visit.by.split(), remember=visit.remember)
    for slug in visit.at.split():
        with transaction.atomic():
            sessions.open_branch(portal.pk, Tenant.objects.get(slug=slug), request=None)
    for row in Session.objects.filter(pk=portal.pk) | Session.objects.filter(parent=portal):
        now = timezone.now()
        row.ip, row.user_agent, row.device = visit.address, visit.user_agent, device(visit.user_agent).kind
        row.created_at = row.authenticated_at = row.proved_at = now - timedelta(minutes=visit.signed_in)
        row.expires_at -= timedelta(minutes=visit.signed_in)
        row.last_seen_at = now - timedelta(minutes=visit.seen)
        row.idle_expires_at -= timedelta(minutes=visit.seen)
        row.save()
    if visit.ended_by:
        by = User.objects.get(username=visit.ended_by)
        branches = Session.objects.filter(parent=portal)
        sessions.end(branches, by=by, reason=Session.Reason.BY_ADMIN, note=visit.note)


def install() -> None:
    """What an operator does, and the demo's people (whom `manage.py demo` seeds on localhost only)."""
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    demo.seed(PASSWORD)


def asks(slug: str) -> None:
    """From now on this tenant asks everybody for a second factor."""
    tenant = Tenant.objects.get(slug=slug)
    tenant.policy, tenant.factor_since = {"second_factor": "everyone"}, timezone.now()
    tenant.save()


def code(name: str) -> None:
    """Print what the person's authenticator shows, as if the last code had been used long ago."""
    device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
    TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
    print(factors.code_now(device))


def old_proofs() -> None:
    """Everybody's proof is older than a step-up takes."""
    Session.objects.update(proved_at=timezone.now() - timedelta(minutes=11))


VERBS: dict[str, Callable[..., None]] = {
    "install": install,
    "crowd": lambda: crowd(NEW_PEOPLE, VISITS),
    "long-names": lambda: crowd([LONG_NAME], [LONG_VISIT]),
    "furnish": lambda slug: print(json.dumps(furnish(slug).ids)),
    "asks": asks,
    "code": code,
    "old-proofs": old_proofs,
}

if __name__ == "__main__":
    for verb in sys.argv[1:]:
        name, _, of = verb.partition(":")
        VERBS[name](*filter(None, [of]))
