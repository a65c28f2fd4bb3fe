"""Ends of many sessions: in force when they say so, nobody twice, nobody forgotten, whatever becomes of the worker."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from identity import events, mass, sessions
from identity.listing import Criteria
from identity.models import Event, MassEnd, Session, User
from tenants.models import Membership, Tenant
from tests.browser.site import secret_keys
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
Reason = Session.Reason
at_once = pytest.mark.django_db(transaction=True)
SEARCH = Criteria(q="crowd")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test needs no thousands of rows."""
    monkeypatch.setattr(mass, "DIRECTLY", 10)
    monkeypatch.setattr(mass, "BATCH", 10)
    monkeypatch.setattr(mass, "_BREATH", 0)


def crowd(tenant: Tenant, count: int, **fields: Any) -> list[uuid.UUID]:
    """So many people with a session at a tenant each; their branches' ids."""
    now = timezone.now()
    names = [f"crowd-{uuid.uuid4().hex[:10]}" for _ in range(count)]
    people = User.objects.bulk_create(User(username=name, name_key=name, search_text=name) for name in names)
    Membership.objects.bulk_create(Membership(tenant=tenant, user=user) for user in people)
    common = dict.fromkeys(("created_at", "authenticated_at", "proved_at", "last_seen_at"), now)
    common |= {"idle_expires_at": now + timedelta(hours=8), "expires_at": now + timedelta(hours=9), **fields}
    roots = Session.objects.bulk_create(Session(key_digest=uuid.uuid4().hex, user=user, **common) for user in people)
    branches = [Session(key_digest=uuid.uuid4().hex, user=root.user, tenant=tenant, parent=root, **common) for root in roots]
    return [row.pk for row in Session.objects.bulk_create(branches)]


def how(by: User | None, expected: int, spare: Session | None = None) -> dict[str, Any]:
    return {"by": by, "expected": expected, "reason": Reason.BY_ADMIN, "note": "incident", "spare": spare}


def ended_once(ids: list[uuid.UUID]) -> bool:
    """Is each of them over, with one event?"""
    told = list(Event.objects.filter(kind="session_ended", session__in=ids).values_list("session", flat=True))
    return Session.objects.filter(pk__in=ids, ended_at=None).count() == 0 and Counter(told) == Counter(ids)


# --- What is in force when ----------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.5", "8.3.2")
def test_the_stamp_is_in_force_before_a_row_is_marked(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, ids = visitor("dave", at="acme"), crowd(acme, 30)
    outcome = mass.end_tenant(acme, **how(cast["olivia"], 31))
    assert outcome.mass
    assert Session.objects.filter(tenant=acme, ended_at=None).count() == 31
    assert not Session.objects.alive_at(acme).exists()
    assert not dave.is_in("acme")
    assert mass.carry_on() == 31
    assert ended_once([*ids, dave.session("acme").pk])
    outcome.mass.refresh_from_db()
    assert (outcome.mass.done, outcome.mass.expected) == (31, 31)
    assert outcome.mass.finished_at
    assert mass.carry_on() == 0


def test_of_a_filter_each_batch_is_in_force_when_it_is_written(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    alice, ids = visitor("alice", at="acme"), crowd(acme, 25)
    mass.end_matching(acme, SEARCH, **how(cast["olivia"], 25))
    alive = [Session.objects.alive_at(acme).filter(pk__in=ids).count()]
    while mass.end_batch() is not None:
        alive.append(Session.objects.alive_at(acme).filter(pk__in=ids).count())
    assert alive == [25, 15, 5, 0]
    assert ended_once(ids)
    assert alice.is_in("acme")


def test_a_few_end_in_the_request_that_asks(cast: dict[str, User], acme: Tenant) -> None:
    ids = crowd(acme, 8)
    outcome = mass.end_matching(acme, SEARCH, **how(cast["olivia"], 8))
    assert {row.pk for row in outcome.done} == set(ids)
    assert ended_once(ids)
    assert not MassEnd.objects.exists()


def test_the_request_itself_marks_a_small_tenant(cast: dict[str, User], acme: Tenant) -> None:
    ids = crowd(acme, 10)
    outcome = mass.end_tenant(acme, **how(cast["olivia"], 10))
    assert ended_once(ids)
    assert outcome.mass
    assert outcome.mass.finished_at


def test_who_signs_in_while_it_goes_on_stays_in(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 25)
    mass.end_tenant(acme, **how(cast["olivia"], 25))
    mass.end_batch()
    dave = visitor("dave", at="acme")
    mass.carry_on()
    assert dave.is_in("acme")
    dave.get(tenant_url("acme"))
    assert dave.page.status_code == 200


def test_who_was_ended_and_came_back_meanwhile_is_not_asked_twice(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    before = visitor("dave", at="acme")
    crowd(acme, 25)
    mass.end_tenant(acme, **how(cast["olivia"], 26))
    after = visitor("dave", at="acme")
    mass.carry_on()
    assert not before.is_in("acme")
    assert after.is_in("acme")
    assert sessions.admission(after.session(), "acme").verdict is sessions.Verdict.OPEN
    assert sessions.admission(before.session(), "acme").verdict is sessions.Verdict.PROVE


def test_a_filter_does_not_mean_sessions_that_begin_later(cast: dict[str, User], acme: Tenant) -> None:
    early = crowd(acme, 15)
    mass.end_matching(acme, SEARCH, **how(cast["olivia"], 15))
    late = crowd(acme, 3)
    mass.carry_on()
    assert ended_once(early)
    assert Session.objects.alive_at(acme).filter(pk__in=late).count() == 3


def test_the_own_tree_is_kept_and_the_own_other_browser_is_not(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    olivia, elsewhere, ids = visitor("olivia", at="acme"), visitor("olivia", at="acme"), crowd(acme, 25)
    mass.end_tenant(acme, **how(cast["olivia"], 26, olivia.session()))
    assert olivia.is_in("acme")
    assert not elsewhere.is_in("acme")
    mass.carry_on()
    assert olivia.is_in("acme")
    assert ended_once(ids)
    assert olivia.get(portal_url("/console/acme/sessions/")).status_code == 200
    assert olivia.url == portal_url("/console/acme/sessions/")


def test_an_end_that_came_first_is_not_undone_by_sparing_a_tree(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    spare = olivia.session()
    sessions.end_here(cast["olivia"], acme, by=cast["erin"], reason=Reason.BY_OPERATOR)
    before = Tenant.objects.get(pk=acme.pk).valid_from
    with pytest.raises(sessions.StaleProof):
        mass.end_tenant(acme, **how(cast["olivia"], 1, spare))
    assert Tenant.objects.get(pk=acme.pk).valid_from == before
    assert not MassEnd.objects.exists()


@pytest.mark.asvs("8.4.1")
def test_other_tenants_are_untouched(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    carol, theirs = visitor("carol", at="globex"), crowd(globex, 5)
    crowd(acme, 15)
    mass.end_tenant(acme, **how(cast["olivia"], 15))
    mass.end_matching(acme, SEARCH, **how(cast["olivia"], 15))
    mass.carry_on()
    assert carol.is_in("globex")
    assert Session.objects.alive_at(globex).filter(pk__in=theirs).count() == 5


def test_two_ends_of_one_tenant_go_on_one_after_the_other(cast: dict[str, User], acme: Tenant) -> None:
    first = crowd(acme, 25)
    mass.end_tenant(acme, **how(cast["olivia"], 25))
    second = crowd(acme, 15)
    mass.end_tenant(acme, **how(cast["bob"], 15))
    mass.carry_on()
    assert ended_once([*first, *second])
    assert [(each.done, each.finished_at is not None) for each in MassEnd.objects.order_by("pk")] == [(25, True), (15, True)]
    by = dict(Session.objects.filter(tenant=acme).values_list("pk", "ended_by__username"))
    assert {by[pk] for pk in first} == {"olivia"}
    assert {by[pk] for pk in second} == {"bob"}


def test_one_event_says_what_was_asked_and_names_nobody(cast: dict[str, User], acme: Tenant) -> None:
    crowd(acme, 12)
    mass.end_matching(acme, Criteria(q="crowd", person="", factor="pwd"), **how(cast["olivia"], 12))
    mass.end_tenant(acme, **how(cast["olivia"], 12))
    matching, everything = Event.objects.filter(kind="mass_end_asked", tenant=acme, actor=cast["olivia"]).order_by("pk")
    assert matching.data == {"criteria": {"factor": "pwd", "search": True}, "count": 12, "note": "incident"}
    assert everything.data["criteria"] == {}
    assert everything.data["before"]["valid_from"] < everything.data["after"]["valid_from"]
    assert events.is_genuine(everything)


def test_prune_goes_on_with_what_was_left(cast: dict[str, User], acme: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    ids = crowd(acme, 25)
    mass.end_tenant(acme, **how(cast["olivia"], 25))
    call_command("prune")
    assert ended_once(ids)
    MassEnd.objects.update(finished_at=timezone.now() - timedelta(days=91))
    call_command("prune")
    assert not MassEnd.objects.exists()


# --- When a worker dies, and when there are two -------------------------------------------------------------------


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.asvs("2.3.3")
def test_a_batch_that_is_cut_off_counts_for_nothing(cast: dict[str, User], acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = crowd(acme, 25)
    mass.end_matching(acme, SEARCH, **how(cast["olivia"], 25))
    mass.end_batch()
    write = events.write

    def die(rows: Any) -> None:
        write(rows)
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(events, "write", die)
        with pytest.raises(Killed):
            mass.end_batch()
    assert Session.objects.filter(pk__in=ids, ended_at=None).count() == 15
    assert MassEnd.objects.get().done == 10
    mass.carry_on()
    assert ended_once(ids)
    assert MassEnd.objects.get().done == 25


WORKER = """
import os, time, django
os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"
django.setup()
from identity import events, mass
mass.BATCH = 10
write = events.write
def stall(rows):
    write(rows)
    print("in the middle", flush=True)
    time.sleep(60)
events.write = stall
mass.carry_on()
"""


@pytest.mark.asvs("2.3.3")
@at_once
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(cast: dict[str, User], acme: Tenant) -> None:
    ids = crowd(acme, 25)
    mass.end_matching(acme, SEARCH, **how(cast["olivia"], 25))
    environment = {**os.environ, **secret_keys(), "DATABASE_URL": address_of_database()}
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment, stdout=subprocess.PIPE)
    assert worker.stdout
    assert worker.stdout.readline() == b"in the middle\n"
    if connection.vendor == "postgresql":  # on SQLite everybody else waits
        assert mass.end_batch() is None
    worker.kill()
    worker.communicate()
    assert Session.objects.filter(pk__in=ids, ended_at=None).count() == 25
    until = time.monotonic() + 30  # the database notices that the worker is gone, and lets go of its rows
    while MassEnd.objects.filter(finished_at=None).exists() and time.monotonic() < until:
        mass.carry_on()
    assert ended_once(ids)
    assert MassEnd.objects.get().done == 25


def address_of_database() -> str:
    """Of the tests' own, for another process."""
    own = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{own['NAME']}"
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{own['NAME']}"


def side_by_side(*acts: Callable[[], Any]) -> list[Any]:
    """Do these at once, each in a thread with a connection of its own; what they return."""
    ready = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        try:
            ready.wait(10)
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@pytest.mark.asvs("15.4.2")
@at_once
@pytest.mark.parametrize("whole", [True, False], ids=["everything", "a filter"])
def test_two_workers_never_end_a_session_twice(cast: dict[str, User], acme: Tenant, globex: Tenant, whole: bool) -> None:
    for _round in range(10):
        ids = {tenant: crowd(tenant, 45) for tenant in (acme, globex)}
        for tenant in ids:
            if whole:
                mass.end_tenant(tenant, **how(cast["olivia"], 45))
            else:
                mass.end_matching(tenant, SEARCH, **how(cast["olivia"], 45))
        totals = [*side_by_side(mass.carry_on, mass.carry_on), mass.carry_on()]  # the last one finds what both have passed over
        assert sum(totals) == 90
        for tenant in ids:
            assert ended_once(ids[tenant])
        assert set(MassEnd.objects.values_list("done", flat=True)) == {45}
        assert not MassEnd.objects.filter(finished_at=None).exists()


@at_once
def test_an_end_of_one_session_beside_a_mass_end_is_done_once(cast: dict[str, User], acme: Tenant) -> None:
    for _round in range(10):
        ids = crowd(acme, 30)
        mass.end_matching(acme, SEARCH, **how(cast["olivia"], 30))

        def one_by_one(chosen: list[uuid.UUID]) -> None:
            for pk in chosen:
                sessions.end(Session.objects.filter(pk=pk), by=cast["bob"], reason=Reason.BY_ADMIN, tell=False)

        side_by_side(partial(one_by_one, ids[::3]), mass.carry_on)
        assert ended_once(ids)


@pytest.mark.asvs("15.4.2")
@at_once
def test_a_hand_off_at_the_moment_of_the_stamp_comes_before_it_or_is_refused(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    for _round in range(10):
        dave = visitor("dave")
        side_by_side(partial(dave.get, tenant_url("acme")), lambda: mass.end_tenant(acme, **how(cast["olivia"], 1)))
        mass.carry_on()
        stamp = Tenant.objects.get(pk=acme.pk).valid_from
        assert not Session.objects.filter(tenant=acme, ended_at=None, authenticated_at__lt=stamp).exists()
        assert not dave.is_in("acme")
