"""The people, tenants and sessions that races are run on. Lives where Django is set up: in the suite, or in the command."""

import itertools
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connection, transaction

from identity import sessions, tickets
from identity.models import Session, User
from tenants.models import Membership, Tenant
from tests.races.acts import PASSWORD

HASH = MD5PasswordHasher().encode(PASSWORD, "saltsaltsaltsaltsaltsalt")


@dataclass(slots=True)
class Slot:
    """What one round has for itself: a person, another one, and two tenants to which both belong."""

    person: User
    rival: User
    a: Tenant
    b: Tenant


@dataclass(slots=True)
class Tree:
    """A portal session with its branches by slug, and every key that it ever had, by slug ("" is the portal)."""

    root: Session
    branches: dict[str, Session] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)


class Stage:
    """Slots for the rounds of one heat; a heat is prepared in one transaction, run, and judged."""

    def __init__(self, slots: int = 20) -> None:
        act = secrets.token_hex(3)  # racers remember hosts for two seconds: no name comes twice
        with transaction.atomic():
            self.slots = [_slot(f"{act}-{number}") for number in range(slots)]

    def heats(self, rounds: int, first: int = 0) -> Iterator[list[tuple[int, Slot]]]:
        """The numbers of the rounds in heats, each with its slot, fresh."""
        for start in range(first, first + rounds, len(self.slots)):
            self.refresh()
            yield list(zip(range(start, min(start + len(self.slots), first + rounds)), self.slots, strict=False))

    def refresh(self) -> None:
        """Everybody may come in again, with the old password."""
        people = User.objects.filter(pk__in=[user.pk for slot in self.slots for user in (slot.person, slot.rival)])
        people.update(password=HASH, is_active=True)
        places = Tenant.objects.filter(pk__in=[place.pk for slot in self.slots for place in (slot.a, slot.b)])
        places.update(status=Tenant.Status.ACTIVE)
        Membership.objects.filter(tenant__in=places).update(blocked_at=None)
        known_people, known_places = people.in_bulk(), places.in_bulk()
        for slot in self.slots:
            slot.person, slot.rival = known_people[slot.person.pk], known_people[slot.rival.pk]
            slot.a, slot.b = known_places[slot.a.pk], known_places[slot.b.pk]


def database_url(name: str) -> str:
    """The address of a database beside the one of this run."""
    database = settings.DATABASES["default"]
    if "sqlite" in database["ENGINE"]:
        return f"sqlite:///{name}"
    return f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{name}"


def chance_of(seed: int, number: int) -> random.Random:
    """The dice of one round: the same for the same seed and number, whatever came before."""
    return random.Random(f"{seed}:{number}")


def _slot(name: str) -> Slot:
    person, rival = (User(username=f"{role}-{name}", email=f"{role}-{name}@races.example", password=HASH) for role in ("racer", "rival"))
    a, b = (Tenant(slug=f"race-{letter}-{name}", name=f"{letter} {name}") for letter in "ab")
    for thing in (person, rival, a, b):
        thing.save()
    for user, place in itertools.product((person, rival), (a, b)):
        Membership.objects.create(tenant=place, user=user)
    return Slot(person, rival, a, b)


def tree(person: User, *places: Tenant) -> Tree:
    """Sign in and open these places; in the caller's transaction."""
    root, key = sessions.sign_in(person, request=None, methods=["pwd", "otp"], remember=False)
    grown = Tree(root, keys={"": [key]})
    for place in places:
        with transaction.atomic():
            grown.branches[place.slug], key = sessions.open_branch(root.pk, place, request=None)
        grown.keys[place.slug] = [key]
    return grown


def ticket(root: Session, place: Tenant) -> tuple[str, str, str]:
    """A ticket that waits to be redeemed: its text, its state, its browser."""
    browser = tickets.Browser.new()
    state = tickets.State.make(place, place.hostname, "/", browser)
    return tickets.issue(root, place, state), state.text, browser.value


def deadlocks() -> int:
    """How many deadlocks PostgreSQL has had to break in this database so far."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        row: Any = cursor.fetchone()
    return int(row[0])
