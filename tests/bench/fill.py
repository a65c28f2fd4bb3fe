"""Fills a database with live sessions: `DATABASE_URL=… python -m tests.bench.fill 100000`, after `manage.py demo seed` or an install.

Two hundred tenants, one of which has a tenth of all sessions ("bench-000"). A person has one or two browsers, each with one
portal session and a branch at each of his tenants; a few have lapsed without having been marked yet, and there is a history.
As many events as branches, without a valid MAC: this is for measuring lists, not the log. Run it again, and it adds to what is there.
"""

import json
import os
import random
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
if __name__ == "__main__":
    django.setup()

from django.core.management.color import no_style
from django.db import connection, models, transaction
from django.db.models import Max
from django.utils import timezone

from identity.models import Event, Session, TotpDevice, User, fold
from tenants.models import BEGINNING, Membership, Tenant
from tests.browser import agents

TENANTS = 200
BIG = "bench-000"
MEDIUM = "bench-001"
PART = 20_000  # branches in one transaction
AGENTS = [value for name, value in vars(agents).items() if name.isupper()]
NAMES = """
Alice Amara Anton Björn Carla Chidi Chiara Daan Dalia Diego Elif Emil Farah Finn Greta Hana Hugo Ines Ivan Jana Jonas Kaito Karim Lars Leila
Lucía Maja Marek Mei Milan Nadia Nils Noor Olga Omar Paula Pedro Priya Quentin Rania Ravi Rosa Samira Sanne Sofia Sven Tariq Tomás Uma
Viktor Wanda Xenia Yara Yusuf Zoë Øyvind Álvaro Łucja

Abe Adeyemi Almeida Andersson Bauer Becker Bianchi Brandt Castro Costa Dubois Eriksen Farkas Ferreira Fischer Fontaine García Gruber Haddad
Hansen Hoffmann Horvat Ito Ivanova Jansen Kaya Keller Kim Kovács Kowalska Kumar Lange Larsen Lindqvist López Martin Mensah Meyer Moreau
Nakamura Nguyen Novák Okafor Okoye Olsen Papadopoulos Petrov Popescu Raman Ricci Rossi Sato Schmidt Silva Singh Smit Sørensen Tanaka Torres
Vance Virtanen Wagner Weber Yılmaz Zhang Zieliński
"""
FIRST, LAST = (part.split() for part in NAMES.split("\n\n"))
REASONS = [Session.Reason.SIGNED_OUT, Session.Reason.IDLE, Session.Reason.EXPIRED, Session.Reason.BY_ADMIN, Session.Reason.BY_PERSON]
NETWORKS = [f"{random.Random(n).randint(11, 199)}.{n % 250}" for n in range(400)]

SESSION = """id key_digest tenant_id user_id parent_id session_data created_at authenticated_at proved_at last_seen_at longest_pause
    idle_expires_at expires_at persistent ip user_agent browsers methods ended_at end_reason end_note"""
USER = """id password is_superuser username first_name last_name email is_staff is_active date_joined bio email_verified_at new_email
    language time_zone mail_new_device epoch valid_from name_key email_key search_text"""
MEMBERSHIP = "tenant_id user_id role prove_after created_at"
AUTHENTICATOR = "id user_id name confirmed secret created_at"
SEED = "x" * 89  # as long as an encrypted one
EVENT = "at kind tenant_id actor_id subject_id session ip user_agent request_id data mac"
Row = Sequence[Any]


def fill(count: int) -> None:
    """Add `count` live branches with everything around them."""
    places = tenants()
    chance = random.Random(Session.objects.count())
    with connection.schema_editor() as editor:  # indexes are made in a fraction of the time when the rows are there
        for index in Session._meta.indexes:
            editor.remove_index(Session, index)
    while count > 0:
        with transaction.atomic():
            count -= _part(min(count, PART), places, chance)
    with connection.schema_editor() as editor:
        for index in Session._meta.indexes:
            editor.add_index(Session, index)
    _settle()


def tenants() -> list[int]:
    """The ids of the tenants, the big one first; made if they are not there."""
    found = Tenant.objects.filter(slug__startswith="bench-").order_by("slug")
    if not found.exists():
        for n in range(TENANTS):
            Tenant.objects.create(slug=f"bench-{n:03}", name=f"Bench {n:03}")
    return list(found.values_list("pk", flat=True))


def _part(count: int, places: list[int], chance: random.Random) -> int:
    now = timezone.now()
    first = (User.objects.aggregate(Max("pk"))["pk__max"] or 0) + 1
    people: list[Row] = []
    members: list[Row] = []
    sessions: list[Row] = []
    events: list[Row] = []
    branches = 0
    while branches < count:
        user = first + len(people)
        people.append(_person(user, now, chance))
        theirs = {_place(places, chance) for _ in range(chance.choices((1, 2, 3), (82, 14, 4))[0])}
        members += [(place, user, chance.choices(("member", "admin", "owner"), (96, 3, 1))[0], BEGINNING, now) for place in theirs]
        for _browser in range(chance.choices((1, 2), (70, 30))[0]):
            tree = list(_tree(user, theirs, now, chance))
            sessions += tree
            branches += len(tree) - 1
            events += [_event(row) for row in tree[1:]]
        if chance.random() < 0.2:
            sessions += [_ended(row, now, chance) for row in _tree(user, theirs, now, chance)]
        if chance.random() < 0.02:
            sessions += [_lapsed(row, now) for row in _tree(user, theirs, now, chance)]
    _insert(User, USER, people)
    _insert(Membership, MEMBERSHIP, members)
    _insert(TotpDevice, AUTHENTICATOR, [(uuid.uuid4(), row[0], "", True, SEED, now) for row in people if chance.random() < 0.3])
    _insert(Session, SESSION, sessions)
    _insert(Event, EVENT, events)
    return branches


def _place(places: list[int], chance: random.Random) -> int:
    return places[0] if chance.random() < 0.1 else places[1 + int((len(places) - 1) * chance.random())]


def _person(pk: int, now: datetime, chance: random.Random) -> Row:
    first, last = chance.choice(FIRST), chance.choice(LAST)
    username = f"{fold(first)}.{fold(last)}{pk}"
    email = f"{username}@people.example"
    return (
        pk, "!bench", False, username, first, last, email, False, True, now, "", now, "", "", "", True, "bench", BEGINNING,
        fold(username), fold(email), fold(f"{username} {first} {last} {email}"),
    )  # fmt: skip


def _tree(user: int, places: Iterable[int], now: datetime, chance: random.Random) -> Iterator[Row]:
    """A portal session, and a branch of it at each place, with the columns of SESSION."""
    remembered = chance.random() < 0.25
    began = now - timedelta(minutes=chance.randint(1, 60 * 24 * 9 if remembered else 60 * 20), microseconds=chance.randint(0, 10**6))
    lately = min((now - began).total_seconds(), 7 * 24 * 3600 if remembered else 6 * 3600)
    ends = began + (timedelta(days=30) if remembered else timedelta(hours=24))
    if chance.random() < 0.2:
        ip = f"2001:db8:{chance.randint(0, 4000):x}:{chance.randint(0, 9):x}::{chance.randint(1, 60000):x}"
    else:
        ip = f"{chance.choice(NETWORKS)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
    agent = chance.choice(AGENTS)
    methods = json.dumps(chance.choices((["pwd"], ["pwd", "otp"], ["pwd", "trusted"], ["pwd", "recovery"]), (60, 28, 11, 1))[0])
    root = uuid.uuid4()
    for place in [None, *places]:
        seen = now - timedelta(seconds=lately * chance.random() ** 2)
        idle = seen + (timedelta(days=14) if remembered else timedelta(hours=8))
        yield (
            root if place is None else uuid.uuid4(), uuid.uuid4().hex * 2, place, user, None if place is None else root, "", began, began,
            began, seen, int(chance.random() * 3600), idle, ends, remembered, ip, agent, "[]", methods, None, "", "",
        )  # fmt: skip


def _ended(row: Row, now: datetime, chance: random.Random) -> Row:
    return (*row[:-3], now - timedelta(hours=90 * 24 * chance.random()), chance.choice(REASONS).value, "")


def _lapsed(row: Row, now: datetime) -> Row:
    """Ran out a while ago; the hourly chores have not marked it yet."""
    idle = SESSION.split().index("idle_expires_at")
    return (*row[:idle], now - timedelta(minutes=20), *row[idle + 1 :])


def _event(row: Row) -> Row:
    told = dict(zip(SESSION.split(), row, strict=True))
    user, place = told["user_id"], told["tenant_id"]
    at, ip, agent = told["created_at"], told["ip"], told["user_agent"]
    return at, "branch_opened", place, user, user, told["id"], ip, agent, uuid.uuid4().hex, "{}", "bench"


# --- Into the database ----------------------------------------------------------------------------------------------


def _insert(model: type[models.Model], columns: str, rows: list[Row]) -> None:
    """With each column that is not named at its default."""
    others = [
        field
        for field in model._meta.concrete_fields
        if not (field.null or field.primary_key or field.generated) and field.column not in columns.split()
    ]
    rest = [field.get_db_prep_save(field.get_default(), connection) for field in others]
    table, names = model._meta.db_table, [*columns.split(), *(field.column for field in others)]
    listed = ", ".join(f'"{name}"' for name in names)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({listed}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row([*row, *rest])
            return
        marks = ", ".join(["%s"] * len(names))
        cursor.executemany(
            f"INSERT INTO {table} ({listed}) VALUES ({marks})", [[_for_sqlite(value) for value in [*row, *rest]] for row in rows]
        )


def _for_sqlite(value: Any) -> Any:
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value.hex if isinstance(value, uuid.UUID) else value


def _settle() -> None:
    """Numbers go on behind the new rows, and the planner knows what there is."""
    with connection.cursor() as cursor:
        for sql in connection.ops.sequence_reset_sql(no_style(), [User, Membership, Event]):
            cursor.execute(sql)
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


if __name__ == "__main__":
    fill(int(sys.argv[1]))
