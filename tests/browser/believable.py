"""People, browsers and a month at Acme and its neighbours, as they might be: for pictures, and for pages that have to hold more."""

import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from identity import events, factors, groups, invitations, members, panic, platform, sessions, tenancy
from identity.devices import device
from identity.members import Actor
from identity.models import Bucket, Event, Session, TotpDevice, User
from tenants.models import Membership, Tenant
from tests.bench.fill import FIRST, LAST
from tests.browser.agents import (
    CHROME_WINDOWS,
    EDGE_WINDOWS,
    FIREFOX_LINUX,
    FIREFOX_MAC,
    IPAD,
    IPHONE,
    PIXEL,
    SAFARI_MAC,
)

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
    for name in people:
        _join(*name, "acme")
    for visit in visits:
        _arrive(visit)


def _join(username: str, first: str, last: str, slug: str) -> User:
    email = f"{username}@{slug}.example"
    user = User(username=username, first_name=first, last_name=last, email=email, email_verified_at=timezone.now())
    user.set_unusable_password()
    user.full_clean()
    user.save()
    Membership.objects.create(tenant=Tenant.objects.get(slug=slug), user=user)
    return user


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


# --- A month ------------------------------------------------------------------------------------------------------

AGENTS = [FIREFOX_MAC, CHROME_WINDOWS, CHROME_WINDOWS, EDGE_WINDOWS, SAFARI_MAC, IPHONE, PIXEL, FIREFOX_LINUX]
NETWORKS = ["203.0.113", "203.0.113", "198.51.100", "192.0.2"]
NEIGHBOURS = [
    ("birchwood", "Birchwood Clinic", 9),
    ("delta-freight", "Delta Freight", 14),
    ("halden", "Halden University", 22),
    ("kestrel", "Kestrel Energy", 6),
    ("lumen", "Lumen Studio", 3),
    ("oakridge", "Oakridge Schools", 17),
]
DAY = 24 * 60  # minutes


def month() -> None:
    """What a month leaves behind: members, sign-ins and failures by day and hour, what admins have done, and other tenants."""
    chance = random.Random(11)  # the same month each time
    names = iter(chance.sample(list(product(FIRST, LAST)), 200))
    acme = Tenant.objects.get(slug="acme")
    crowd(NEW_PEOPLE, [])
    staff = [_member("acme", names) for _n in range(34)]
    for user in chance.sample(staff, 19):
        TotpDevice.objects.filter(pk=factors.enrolment(user).pk).update(confirmed=True)
    steps = [*_past(acme, staff, chance), *_acts(acme, staff)]
    steps += [(visit.signed_in, _now(visit)) for visit in [*VISITS, *(_visit(user, chance) for user in staff)]]
    for slug, name, people in NEIGHBOURS:
        Tenant.objects.create(slug=slug, name=name)
        for _n in range(people):
            visit = _visit(_member(slug, names), chance, at=slug)
            if chance.random() < 0.6:
                steps.append((visit.signed_in, _now(visit)))
    for minutes, act in sorted(steps, key=lambda step: -step[0]):
        _ago(minutes, act)
    for n, tenant in enumerate(Tenant.objects.order_by("slug")):
        Tenant.objects.filter(pk=tenant.pk).update(created_at=timezone.now() - timedelta(days=400 - 37 * n))
    _ago(3 * DAY, lambda: platform.suspend(Tenant.objects.get(slug="lumen"), reason="Contract ended"))
    _ago(50, lambda: panic.freeze(Tenant.objects.get(slug="delta-freight"), by=Actor(), note="Stolen laptop"))
    _lock(staff[5])


def _ago(minutes: int, act: Callable[[], object]) -> None:
    """Do it, and let its events tell that it was so long ago; before anybody can see or seal them."""
    with transaction.atomic():
        last = Event.objects.aggregate(Max("pk"))["pk__max"] or 0
        act()
        for event in Event.objects.filter(pk__gt=last):
            event.at -= timedelta(minutes=minutes)
            row = Session.objects.filter(pk=event.session).first() if event.session else None
            event.ip, event.user_agent = (row.ip, row.user_agent) if row else ("203.0.113.9", CHROME_WINDOWS)
            event.mac = events.mac_of(event)
            event.save()


def _member(slug: str, names: Iterator[tuple[str, str]]) -> User:
    first, last = next(names)
    plain = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode()
    return _join(plain.lower(), first, last, slug)


def _visit(user: User, chance: random.Random, *, at: str = "acme") -> Visit:
    signed_in = int(chance.triangular(4, 9 * 60, 200))
    seen = int(signed_in * chance.random() ** 2)
    address = f"{chance.choice(NETWORKS)}.{chance.randint(2, 250)}"
    by = "pwd otp" if user.authenticators.exists() else "pwd"
    return Visit(user.username, chance.choice(AGENTS), address, signed_in, seen, at=at, by=by)


def _now(visit: Visit) -> Callable[[], None]:
    return lambda: _arrive(visit)


def _past(acme: Tenant, staff: list[User], chance: random.Random) -> list[tuple[int, Callable[[], object]]]:
    """Who came in, and who mistyped, on each day of the month: in working hours, less at the week-end, and one bad evening."""
    steps: list[tuple[int, Callable[[], object]]] = []
    for day in range(30):
        is_weekend = (timezone.now() - timedelta(days=day)).weekday() > 4
        came = chance.randint(3, 7) if is_weekend else chance.randint(24, 38)
        failed = {0: 7, 9: 17}.get(day) or chance.randint(0, 4)
        steps += [(_minutes(day, chance), _came(acme, chance.choice(staff))) for _n in range(came)]
        steps += [(_minutes(day, chance), _failed(chance.choice(staff))) for _n in range(failed)]
    return steps


def _minutes(day: int, chance: random.Random) -> int:
    return day * DAY + max(12, int(chance.gauss(300, 140)))


def _came(acme: Tenant, who: User) -> Callable[[], object]:
    return lambda: events.record("branch_opened", tenant=acme, actor=who, subject=who)


def _failed(who: User) -> Callable[[], object]:
    return lambda: events.record("sign_in_failed", subject=who)


def _acts(acme: Tenant, staff: list[User]) -> list[tuple[int, Callable[[], object]]]:
    bob, olivia = (Actor(User.objects.get(username=name)) for name in ("bob", "olivia"))
    sales = groups.add(acme, "Sales", by=bob)
    return [
        (21 * DAY, lambda: tenancy.change(acme, {"policy": {"idle": 4 * 3600}}, by=olivia)),
        (160, lambda: groups.put(sales, staff[2], by=bob)),
        (95, lambda: invitations.invite(acme, "nora@acme.example", "member", by=bob)),
        (31, lambda: members.block(acme, staff[4], by=bob, note="Phone stolen in the train")),
        (9, lambda: members.change_role(acme, staff[7], "admin", by=olivia)),
    ]


def _lock(user: User) -> None:
    now = timezone.now()
    Bucket.objects.create(
        key="believable", kind=Bucket.Kind.PERSON, user=user, failed=5, locks=2, started_at=now, touched_at=now, locked_at=now,
        locked_until=now + timedelta(minutes=38), ip="198.51.100.9",
    )  # fmt: skip
