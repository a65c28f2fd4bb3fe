"""The audit log: what was written stays as it was written, or it shows."""

import csv
import io
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from identity import crypto, events, pruning, seals, upkeep
from identity.audit import Audit, Finding, Problem
from identity.models import Event, Seal, User
from tenants.models import Tenant
from tests.test_commands import manage, told

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
NEW_KEY = "dGVzdHMgb25seTogYW5vdGhlciBmYWtlIGtleSEhISE="
LONG_AGO = datetime(2024, 2, 29, 12, tzinfo=UTC)


def write(n: int, place: Tenant | None = None, **data: Any) -> list[Event]:
    return [events.record("branch_opened", tenant=place, line=line, **data) for line in range(n)]


def findings(heads: list[str] | None = None, **which: Any) -> list[Finding]:
    return list(Audit(heads=heads or [], **which).findings())


def problems() -> list[tuple[str, str, int | None, int | None]]:
    return [(each.problem, each.place, each.event, each.seal) for each in findings()]


@pytest.fixture
def log(cast: dict[str, User], acme: Tenant, globex: Tenant) -> dict[str, list[Event]]:
    """Two seals each at acme, globex and the platform, three events a seal."""
    kept: dict[str, list[Event]] = {"acme": [], "globex": [], "portal": []}
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7", HTTP_USER_AGENT=AGENT)
    for _seal in range(2):
        for slug, place in (("acme", acme), ("globex", globex), ("portal", None)):
            for _n in range(3):
                kept[slug].append(
                    events.record(
                        "session_ended",
                        request=request,
                        tenant=place,
                        actor=cast["bob"],
                        subject=cast["dave"],
                        session=uuid.uuid4(),
                        reason="by_admin",
                        note="lost",
                    )
                )
        assert seals.seal() == 9
    return kept


@pytest.fixture
def printed(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the sealer has printed so far."""
    caplog.set_level(logging.INFO, logger="gatehouse.seals")

    def lines() -> list[str]:
        records = [*caplog.get_records("setup"), *caplog.get_records("call")]
        return [each.getMessage() for each in records if each.name == "gatehouse.seals"]

    return lines


# --- Each event ---------------------------------------------------------------------------------------------------


ODD: dict[str, dict[str, Any]] = {
    "unicode": {"name": "Zoë 漢字 🙂", "combining": "e\u0301 é", "key ü": "مرحبا"},
    "what no database takes": {"nul": "a\x00b", "half": "\ud800", "key\x00": {"deep": ["\udfff", "\x00"]}},
    "numbers": {"big": 10**40, "small": -1, "float": 0.1 + 0.2, "whole": 1e16, "tiny": 1e-7, "zero": -0.0},
    "no numbers": {"nan": float("nan"), "infinite": float("-inf")},
    "shapes": {"none": None, "yes": True, "list": [1, [2, {"3": []}]], "": "", "1": 1, "text": "1"},
    "not JSON yet": {"when": datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC), "id": uuid.UUID(int=7), "after": timedelta(seconds=1.5)},
    "lines": {"crlf": "a\r\nb", "escape": "\x1b[31m", "separator": "\u2028", "quote": "\"'\\", "slash u": "\\u0000"},
    "long": {"text": "ü" * 20_000},
}  # fmt: skip


@pytest.mark.asvs("16.2.1")
@pytest.mark.parametrize("what", ODD)
def test_an_event_is_genuine_as_the_database_gives_it_back(db: None, what: str) -> None:
    """Whatever is in it: PostgreSQL's jsonb and SQLite's text give it back in the same form."""
    event = events.record("odd", **ODD[what])
    again = Event.objects.get(pk=event.pk)
    assert events.is_genuine(again)
    assert again.data == event.data
    json.dumps(again.data, allow_nan=False).encode()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:DB8:0:0::1", "::ffff:192.0.2.1", "::", "fe80::1", "0.0.0.0"])  # noqa: S104
def test_an_event_is_genuine_whatever_form_its_address_takes(db: None, address: str) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR=address, HTTP_USER_AGENT="Kürzel \x1b[0m\u202e" + "x" * 400)
    assert events.is_genuine(Event.objects.get(pk=events.record("sign_in", request=request).pk))


@pytest.mark.asvs("16.2.2")
@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 11, 21, tzinfo=UTC),
        datetime(2026, 11, 21, 9, 30, 0, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_an_event_is_genuine_whatever_its_time(db: None, at: datetime) -> None:
    again = Event.objects.get(pk=events.record("sign_in", at=at).pk)
    assert again.at == at
    assert events.is_genuine(again)


# --- Any change to a sealed event shows ---------------------------------------------------------------------------


def test_what_nobody_changed_is_as_it_was_written(log: dict[str, list[Event]]) -> None:
    audit = Audit()
    assert list(audit.findings()) == []
    assert (audit.events, audit.seals) == (18, 6)
    assert {(each.place, each.first, each.last) for each in audit.chains.values()} == {("acme", 1, 2), ("globex", 1, 2), ("portal", 1, 2)}


@pytest.mark.asvs("16.4.2")
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", LONG_AGO),
        ("kind", "sign_in"),
        ("actor", None),
        ("subject", None),
        ("session", None),
        ("ip", "192.0.2.8"),
        ("user_agent", ""),
        ("request_id", "another"),
        ("data", {"reason": "by_admin", "note": "found"}),
    ],
)
def test_a_changed_event_shows(log: dict[str, list[Event]], column: str, value: Any) -> None:
    event = log["acme"][1]
    Event.objects.filter(pk=event.pk).update(**{column: value})
    assert problems() == [("changed", "acme", event.pk, None)]


@pytest.mark.asvs("16.4.2")
def test_an_event_that_was_moved_to_another_tenant_shows(log: dict[str, list[Event]], globex: Tenant) -> None:
    event = log["acme"][1]
    Event.objects.filter(pk=event.pk).update(tenant=globex)
    assert problems() == [("changed", "globex", event.pk, None), ("changed", "acme", event.pk, 1)]


@pytest.mark.asvs("16.4.2")
def test_events_that_tenants_have_exchanged_show(log: dict[str, list[Event]]) -> None:
    """Each stays genuine, and each tenant's seal has as many as before."""
    one, other = (Event.objects.get(pk=log[slug][0].pk) for slug in ("acme", "globex"))
    Event.objects.filter(pk=one.pk).update(seal=other.seal)
    Event.objects.filter(pk=other.pk).update(seal=one.seal)
    assert {(each.problem, each.place, each.event, each.seal) for each in findings()} == {
        ("changed", "globex", one.pk, 1),
        ("changed", "acme", other.pk, 1),
        ("changed", "acme", None, 1),
        ("changed", "globex", None, 1),
    }


@pytest.mark.asvs("16.4.2")
def test_a_deleted_event_shows(log: dict[str, list[Event]]) -> None:
    Event.objects.filter(pk=log["globex"][4].pk).delete()
    assert problems() == [("missing", "globex", None, 2)]
    assert "1 of them are missing" in findings()[0].text


@pytest.mark.asvs("16.4.2")
def test_an_event_that_was_put_in_shows(log: dict[str, list[Event]]) -> None:
    sealed = Event.objects.get(pk=log["acme"][0].pk)
    forged = Event.objects.create(at=sealed.at, kind="sign_in", mac=sealed.mac.replace("a", "b"), seal=sealed.seal)
    assert ("changed", "portal", forged.pk, None) in problems()
    assert ("added", "acme", None, 1) in problems()


@pytest.mark.asvs("16.4.2")
def test_an_event_that_was_put_in_before_the_seal_shows(log: dict[str, list[Event]]) -> None:
    """The sealer seals it; but nobody without a key can make its MAC, and a copy of another event is one too many."""
    forged = Event.objects.create(at=LONG_AGO, kind="sign_in")
    copy = Event.objects.get(pk=log["acme"][0].pk)
    copy.pk, copy.seal = None, None
    copy.save(force_insert=True)
    assert problems() == [("changed", "portal", forged.pk, None), ("added", "acme", copy.pk, None)]


@pytest.mark.asvs("16.4.2")
def test_events_in_another_order_show(log: dict[str, list[Event]]) -> None:
    first, second = log["acme"][0].pk, log["acme"][1].pk
    for old, new in ((first, 999_999), (second, first), (999_999, second)):
        Event.objects.filter(pk=old).update(id=new)
    assert problems() == [("changed", "acme", None, 1)]


@pytest.mark.asvs("16.4.2")
def test_an_event_that_is_taken_out_of_its_seal_shows(log: dict[str, list[Event]]) -> None:
    """The next round seals it anew; its old seal misses it."""
    Event.objects.filter(pk=log["acme"][0].pk).update(seal=None)
    assert problems() == [("missing", "acme", None, 1)]


@pytest.mark.asvs("16.4.2")
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"head": "0" * 8 + "." + "0" * 64}, {("key gone", "acme", None, 1), ("changed", "acme", None, 2)}),
        ({"count": 2}, {("added", "acme", None, 1)}),
        ({"at": LONG_AGO}, {("changed", "acme", None, 1)}),
        ({"n": 7}, {("missing", "acme", None, 7), ("missing", "acme", None, 2)}),
        ({"tenant_ref": 4711}, {("missing", "acme", None, 2), ("changed", "#4711", None, 1)}),
    ],
)
def test_a_changed_seal_shows(log: dict[str, list[Event]], acme: Tenant, change: dict[str, Any], shown: set[Any]) -> None:
    Seal.objects.filter(tenant_ref=acme.pk, n=1).update(**change)
    assert shown <= set(problems())


@pytest.mark.asvs("16.4.2")
def test_a_deleted_seal_shows_with_and_without_its_events(log: dict[str, list[Event]], acme: Tenant) -> None:
    gone = Seal.objects.get(tenant_ref=acme.pk, n=1)
    gone.delete()
    lost = [("missing", "acme", each.pk, None) for each in log["acme"][:3]]
    assert problems() == [("missing", "acme", None, 2), *lost]
    Event.objects.filter(pk__in=[each.pk for each in log["acme"][:3]]).delete()
    assert problems() == [("missing", "acme", None, 2)]
    assert findings()[0].text == "seal 1 is missing before seal 2"


def test_one_tenant_can_be_verified_alone(log: dict[str, list[Event]], acme: Tenant, globex: Tenant) -> None:
    Event.objects.filter(pk=log["acme"][0].pk).update(kind="sign_in")
    assert len(findings(tenant=acme, everything=False)) == 1
    assert findings(tenant=globex, everything=False) == []
    assert findings(tenant=None, everything=False) == []  # the platform's own


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's columns take nothing else")
@pytest.mark.parametrize(
    "sabotage",
    [
        "UPDATE identity_event SET at = 'one day' WHERE id = %s",
        "UPDATE identity_event SET session = 'no uuid' WHERE id = %s",
        "UPDATE identity_event SET ip = 'nowhere' WHERE id = %s",
        "UPDATE identity_event SET mac = x'00ff' WHERE id = %s",
        "UPDATE identity_event SET data = '[]' WHERE id = %s",
        "UPDATE identity_seal SET at = 'one day' WHERE id = (SELECT seal_id FROM identity_event WHERE id = %s)",
        "UPDATE identity_seal SET count = 'many' WHERE id = (SELECT seal_id FROM identity_event WHERE id = %s)",
        "UPDATE identity_seal SET n = 'last' WHERE id = (SELECT seal_id FROM identity_event WHERE id = %s)",
        "UPDATE identity_seal SET head = x'00' WHERE id = (SELECT seal_id FROM identity_event WHERE id = %s)",
    ],
)
def test_what_no_column_can_hold_shows_and_stops_nothing(log: dict[str, list[Event]], sabotage: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sabotage, [log["acme"][0].pk])
    Event.objects.filter(pk=log["globex"][5].pk).update(kind="sign_in")
    shown = problems()
    assert any(problem == "changed" and place == "acme" for problem, place, _event, _seal in shown)
    assert ("changed", "globex", log["globex"][5].pk, None) in shown


# --- What was printed ---------------------------------------------------------------------------------------------


def test_each_head_is_printed_on_a_line_of_its_own(db: None, printed: Callable[[], list[str]], acme: Tenant) -> None:
    write(2, acme)
    write(1)
    seals.seal()
    heads = {one.tenant_ref: one.head for one in Seal.objects.all()}
    assert printed() == [f"seal acme n=1 count=2 head={heads[acme.pk]}", f"seal portal n=1 count=1 head={heads[None]}"]
    assert re.fullmatch(rf"{crypto.current_key_id()}\.[0-9a-f]{{64}}", heads[None])


@pytest.mark.asvs("16.4.2")
def test_an_end_that_was_cut_off_shows_beside_the_printed_heads(
    printed: Callable[[], list[str]], log: dict[str, list[Event]], acme: Tenant
) -> None:
    lines = [f"Nov 21 09:30:01 gate gatehouse[7]: 09:30:01 info {line} (gatehouse.seals, -)" for line in printed()]
    assert findings(["a line of something else", *lines]) == []
    Event.objects.filter(pk__in=[event.pk for event in log["acme"][3:]]).delete()
    Seal.objects.filter(tenant_ref=acme.pk, n=2).delete()
    assert findings() == []
    assert [(each.problem, each.place, each.seal, each.text) for each in findings(lines)] == [
        ("missing", "acme", 2, "the log has heads up to seal 2, and the chain ends with seal 1: its end is missing")
    ]


@pytest.mark.asvs("16.4.2")
def test_a_log_that_was_written_anew_shows_beside_the_printed_heads(
    printed: Callable[[], list[str]], log: dict[str, list[Event]], acme: Tenant
) -> None:
    """Even by somebody who has the keys."""
    lines = printed()
    Seal.objects.filter(tenant_ref=acme.pk).delete()
    Event.objects.filter(pk=log["acme"][0].pk).delete()
    Event.objects.filter(tenant=acme).update(seal=None)
    seals.seal()
    write(3, acme)
    seals.seal()
    assert findings() == []
    assert [(each.problem, each.place, each.seal) for each in findings(lines)] == [("changed", "acme", 1), ("changed", "acme", 2)]


# --- Keys ---------------------------------------------------------------------------------------------------------


def test_a_new_key_takes_the_chain_on_and_the_old_one_still_verifies(log: dict[str, list[Event]], settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [NEW_KEY, *settings.ENCRYPTION_KEYS]
    write(2, log["acme"][0].tenant)
    assert findings() == []
    assert len({seals.key_of(one.head) for one in Seal.objects.all()}) == 2


def test_what_a_lost_key_has_signed_is_not_called_changed(log: dict[str, list[Event]], settings: Any) -> None:
    old = crypto.current_key_id()
    settings.ENCRYPTION_KEYS = [NEW_KEY]
    write(2, log["acme"][0].tenant)
    assert {each.problem for each in findings()} == {Problem.KEY_GONE}
    first, last = log["acme"][0].pk, log["acme"][-1].pk
    assert f"6 events, from event {first} to event {last}, cannot be verified: key {old} is gone" in {each.text for each in findings()}
    with pytest.raises(CommandError, match="nothing is changed that can be verified"):
        manage("event", "verify")


@pytest.mark.asvs("16.4.2")
def test_a_change_cannot_hide_behind_a_key_that_never_was(log: dict[str, list[Event]]) -> None:
    event = log["acme"][0]
    Event.objects.filter(pk=event.pk).update(kind="sign_in", mac=f"deadbeef.{'0' * 64}")
    assert ("changed", "acme", None, 1) in problems()


# --- Prune --------------------------------------------------------------------------------------------------------


def middle(place: Tenant | None) -> datetime:
    """A moment between the first seal of a place and the second."""
    return Seal.objects.get(tenant_ref=place.pk if place else None, n=2).at


@pytest.mark.asvs("14.2.7")
def test_prune_takes_whole_seals_and_the_log_stays_as_it_was_written(
    log: dict[str, list[Event]], acme: Tenant, printed: Callable[[], list[str]]
) -> None:
    limit = middle(acme)
    assert seals.prune(limit, dry_run=True) == 9
    assert seals.prune(limit) == 9
    assert sorted(Seal.objects.filter(tenant_ref=acme.pk).values_list("n", flat=True)) == [2, 3]  # the third says so
    said = Event.objects.get(kind="log_pruned", tenant=acme)
    assert said.data["n"] == 1
    assert findings(printed()) == []
    assert seals.prune(limit) == 0
    assert not Event.objects.filter(pk__in=[each.pk for each in log["acme"][:3]]).exists()


@pytest.mark.asvs("16.4.2")
def test_a_beginning_that_is_missing_shows_unless_the_chain_itself_says_that_it_was_pruned(
    log: dict[str, list[Event]], acme: Tenant, globex: Tenant
) -> None:
    seals.prune(middle(acme))
    assert findings() == []
    said = Event.objects.get(kind="log_pruned", tenant=globex)
    Event.objects.filter(pk=said.pk).update(tenant=acme)  # what one chain says is worth nothing in another
    assert ("missing", "globex", None, 2) in problems()
    Event.objects.filter(pk=said.pk).update(tenant=globex, data={"n": 2, "head": Seal.objects.get(tenant_ref=globex.pk, n=2).head})
    Event.objects.filter(seal__tenant_ref=globex.pk, seal__n=2).delete()
    Seal.objects.filter(tenant_ref=globex.pk, n=2).delete()
    assert ("missing", "globex", None, 3) in problems()


def test_the_event_that_tells_of_a_prune_is_pruned_itself_one_day(log: dict[str, list[Event]], acme: Tenant) -> None:
    """Also of a tenant in which nothing else happens any more: the chain goes on, its numbers never begin anew."""
    for _year in range(3):
        newest = Seal.objects.order_by("at").last()
        assert newest is not None
        seals.prune(newest.at + timedelta(microseconds=1))
        assert findings() == []
    assert list(Event.objects.filter(tenant=acme).values_list("kind", "data__n")) == [("log_pruned", 4)]
    assert list(Seal.objects.filter(tenant_ref=acme.pk).values_list("n", flat=True)) == [5]


def test_a_prune_that_is_cut_off_leaves_a_log_that_can_be_verified(
    cast: dict[str, User], acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _seal in range(60):
        write(1, acme)
        seals.seal()
    limit = Seal.objects.get(tenant_ref=acme.pk, n=60).at
    deleted = Event.objects.filter(seal__in=Seal.objects.filter(n__lte=9))

    def lights_out(last: Seal) -> int:
        ids = list(Seal.objects.filter(tenant_ref=acme.pk, n__lte=last.n).order_by("-n").values_list("pk", flat=True)[:50])
        Event.objects.filter(seal__in=ids).delete()
        Seal.objects.filter(pk__in=ids).delete()
        raise ConnectionError

    monkeypatch.setattr(seals, "_delete", lights_out)
    with pytest.raises(ConnectionError):
        seals.prune(limit)
    monkeypatch.undo()
    assert deleted.count() == 9
    assert findings() == []
    assert seals.prune(limit) == 9
    assert findings() == []


@pytest.mark.asvs("16.4.2")
def test_nobody_makes_prune_clear_his_traces_away_by_dating_them_back(log: dict[str, list[Event]], acme: Tenant) -> None:
    limit = middle(acme) - timedelta(days=400)
    Event.objects.filter(tenant=acme).update(at=LONG_AGO)
    Seal.objects.filter(tenant_ref=acme.pk).update(at=LONG_AGO)
    assert seals.prune(limit) == 0
    assert Event.objects.filter(tenant=acme).count() == 6
    Seal.objects.filter(tenant_ref=acme.pk).update(head=f"deadbeef.{'0' * 64}")  # nor by a key that never was
    assert seals.prune(limit) == 0


def test_what_a_lost_key_has_signed_is_pruned_in_its_time(log: dict[str, list[Event]], acme: Tenant, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [NEW_KEY]
    write(1, acme)
    seals.seal()
    assert seals.prune(Seal.objects.get(tenant_ref=acme.pk, n=3).at) == 6
    assert not [each for each in findings() if each.place == "acme"]


def test_prune_seals_first(cast: dict[str, User], acme: Tenant) -> None:
    write(2, acme)
    pruning.prune()
    assert not Event.objects.filter(seal=None).exists()


# --- At the same time ---------------------------------------------------------------------------------------------


def in_threads(*acts: Callable[[], object]) -> list[Any]:
    def run(act: Callable[[], object]) -> object:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@pytest.mark.django_db(transaction=True)
def test_eight_writers_and_two_sealers_leave_a_whole_log(acme: Tenant, globex: Tenant) -> None:
    writing = threading.Semaphore(0)
    done = threading.Event()
    places = [acme, globex, None]

    def writer(number: int) -> None:
        for n in range(40):
            with transaction.atomic():
                for _each in range(n % 3 + 1):
                    events.record("sign_in", tenant=places[(number + n) % 3], writer=number, n=n)
        writing.release()

    def sealer() -> int:
        total = 0
        while not done.is_set():
            total += seals.seal()
        return total

    def until_all_have_written() -> None:
        for _writer in range(8):
            assert writing.acquire(timeout=120)
        done.set()

    results = in_threads(*[lambda number=number: writer(number) for number in range(8)], sealer, sealer, until_all_have_written)
    assert sum(results[8:10]) > 0
    assert findings() == []
    assert Event.objects.count() == 8 * sum(n % 3 + 1 for n in range(40))
    assert not Event.objects.filter(seal=None).exists()
    for place in places:
        numbers = list(Seal.objects.filter(tenant_ref=place.pk if place else None).order_by("n").values_list("n", flat=True))
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.django_db(transaction=True)
def test_of_two_sealers_at_once_one_seals_and_the_other_need_not_wait(acme: Tenant) -> None:
    write(3, acme)
    sealing, go_on = threading.Event(), threading.Event()

    def one() -> None:
        with transaction.atomic():
            assert seals._is_mine(wait=False)
            sealing.set()
            assert go_on.wait(60)

    def other() -> int:
        assert sealing.wait(60)
        if connection.vendor == "sqlite":  # there the second one waits its turn
            go_on.set()
            return 0
        began = time.monotonic()
        sealed = seals.seal()
        assert time.monotonic() - began < 10
        go_on.set()
        return sealed

    assert in_threads(one, other)[1] == 0
    assert seals.seal(wait=True) == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite's transactions come one after another")
def test_an_event_that_is_committed_late_gets_its_seal_with_the_next(acme: Tenant) -> None:
    """Its id is smaller than that of events which are sealed already."""
    written, sealed = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():
            write(1, acme)
            written.set()
            assert sealed.wait(60)

    def quick() -> None:
        assert written.wait(60)
        write(2, acme)
        assert seals.seal() == 2
        sealed.set()

    in_threads(slow, quick)
    assert seals.seal() == 1
    assert findings() == []


@pytest.mark.django_db(transaction=True)
def test_an_audit_sees_one_moment_and_keeps_no_writer_waiting(acme: Tenant) -> None:
    write(3, acme)
    audit = Audit()
    found = audit.findings()
    Event.objects.create(at=LONG_AGO, kind="forged")
    assert next(found).problem == "changed"  # the audit is under way

    def others() -> int:
        write(2, acme)
        Event.objects.filter(kind="branch_opened", seal__n=1).delete()
        return seals.seal()

    assert in_threads(others) == [2]
    assert list(found) == []
    assert problems()[1:] == [("missing", "acme", None, 1)]


# --- Upkeep -------------------------------------------------------------------------------------------------------


def test_a_sealer_with_nothing_to_do_asks_one_question(db: None) -> None:
    write(1)
    seals.seal()
    with CaptureQueriesContext(connection) as asked:
        assert seals.seal() == 0
    assert len(asked) == 1
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{asked[0]['sql']}")
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert connection.vendor != "sqlite" or "events_unsealed" in plan


@pytest.mark.asvs("16.5.4")
@pytest.mark.django_db(transaction=True)
def test_the_upkeep_seals_and_no_failure_ends_it(acme: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fails_at_first() -> None:
        calls.append(connection.connection)
        if len(calls) < 3:
            raise OSError("the disk is full") if len(calls) == 1 else OperationalError("the server is away\nand more of it")
        seals.seal()

    write(3, acme)
    thread = upkeep.Upkeep(upkeep.Chore("seal", timedelta(milliseconds=10), fails_at_first))
    thread.start()
    until = time.monotonic() + 60
    while Event.objects.filter(seal=None).exists() and time.monotonic() < until:
        time.sleep(0.01)
    thread.stop()
    assert not Event.objects.filter(seal=None).exists()
    failures = [record for record in caplog.records if record.name == "gatehouse.upkeep"]
    assert [record.getMessage() for record in failures] == [
        "The chore “seal” failed; it is tried again: the disk is full",
        "The chore “seal” failed; it is tried again: the server is away",
    ]
    assert [bool(record.exc_info) for record in failures] == [True, False], "a database that is away says so in one line"


def test_upkeep_begins_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_running", [])
    chore = upkeep.Chore("nothing", timedelta(hours=1), lambda: None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _n: upkeep.start([chore]), range(50)))
    assert len(upkeep._running) == 1
    upkeep._running[0].stop()


# --- The command --------------------------------------------------------------------------------------------------


@pytest.mark.asvs("16.4.1")
def test_event_list_shows_the_newest_first_and_no_name_can_steer_the_terminal(cast: dict[str, User], acme: Tenant) -> None:
    assert "No event matches" in manage("event", "list", "--kind", "nothing")
    events.record("sign_in", tenant=acme, actor=cast["dave"], subject=cast["dave"], note="\x1b[2J one\r\ntwo")
    events.record("sign_in_failed", subject=cast["alice"])
    lines = manage("event", "list").splitlines()
    assert re.match(r"EVENT +WHEN \(UTC\) +WHAT +BY +WHOM +ADDRESS +DETAILS", lines[0])
    assert "sign_in_failed" in lines[1]
    assert re.match(r"acme-\d+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +sign_in +dave +dave +note=\[2J onetwo$", lines[2])
    assert len(manage("event", "list", "--limit", "1").splitlines()) == 3


def test_event_list_finds_by_tenant_person_kind_and_time(log: dict[str, list[Event]], cast: dict[str, User]) -> None:
    events.record("sign_in_failed", subject=cast["alice"])

    def kinds(*filters: str) -> list[str]:
        return [each["kind"] for each in told("event", "list", "--limit", "0", *filters)["events"]]

    assert len(kinds()) == 19
    assert kinds("--tenant", "acme") == ["session_ended"] * 6
    assert kinds("--tenant", "portal", "--person", "alice") == ["sign_in_failed"]
    assert kinds("--person", "bob", "--kind", "sign_in_failed") == []
    assert kinds("--kind", "sign_in_failed", "--kind", "sign_in") == ["sign_in_failed"]
    assert kinds("--since", "1h", "--until", "2999-01-01") == kinds()
    assert kinds("--until", "2020-01-01T00:00Z") == kinds("--since", "2999-01-01") == []
    with pytest.raises(CommandError, match="is no time"):
        manage("event", "list", "--since", "yesterday")
    with pytest.raises(CommandError, match=r"manage\.py tenant list"):
        manage("event", "list", "--tenant", "nowhere")


@pytest.mark.asvs("16.2.1", "16.2.2", "16.2.4")
def test_event_list_says_when_where_who_and_what(log: dict[str, list[Event]], cast: dict[str, User]) -> None:
    event = told("event", "list", "--tenant", "acme", "--limit", "1")["events"][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["at"])
    wanted = {
        "kind": "session_ended", "tenant": "acme", "actor": "bob", "subject": "dave", "ip": "192.0.2.7", "user_agent": AGENT,
        "data": {"reason": "by_admin", "note": "lost"}, "seal": 2, "session": str(log["acme"][-1].session),
    }  # fmt: skip
    assert wanted.items() <= event.items()


@pytest.mark.asvs("16.4.2")
def test_event_verify_names_what_is_wrong_and_fails(
    log: dict[str, list[Event]], capsys: pytest.CaptureFixture[str], tmp_path: Path, printed: Callable[[], list[str]]
) -> None:
    assert manage("event", "verify") == "18 events and 6 seals in 3 chains: all as they were written.\n"
    assert told("event", "verify")["ok"] is True
    Event.objects.filter(pk=log["acme"][0].pk).update(kind="sign_in")
    out = io.StringIO()
    with pytest.raises(CommandError, match="The audit log is not as it was written") as error:
        call_command("event", "verify", "--json", stdout=out)
    assert error.value.returncode == 1
    data = json.loads(out.getvalue())
    assert (data["ok"], data["more"]) == (False, 0)
    assert data["findings"] == [
        {
            "problem": "changed",
            "place": "acme",
            "text": f"event {log['acme'][0].pk} is not as it was written",
            "event": log["acme"][0].pk,
            "seal": None,
        }
    ]
    with pytest.raises(CommandError):
        manage("event", "verify", "--tenant", "acme")
    manage("event", "verify", "--tenant", "globex")


def test_event_verify_takes_the_heads_from_the_programs_log(log: dict[str, list[Event]], tmp_path: Path, acme: Tenant) -> None:
    from portal.logs import JsonFormatter, PlainFormatter

    for formatter in (JsonFormatter(), PlainFormatter()):
        path = tmp_path / formatter.__class__.__name__
        records = [
            logging.LogRecord("gatehouse.seals", logging.INFO, "", 1, f"seal acme n={one.n} count=3 head={one.head}", (), None)
            for one in Seal.objects.filter(tenant_ref=acme.pk)
        ]
        path.write_text(
            "\n".join([formatter.format(record) for record in records] + ["\udcff".encode("utf-8", "surrogateescape").decode("latin-1")])
        )
        assert "as the log has them (2 heads)" in manage("event", "verify", "--heads", str(path))
    (tmp_path / "empty").write_text("nothing\n")
    with pytest.raises(CommandError, match="There are no heads in"):
        manage("event", "verify", "--heads", str(tmp_path / "empty"))
    with pytest.raises(CommandError, match="cannot be read"):
        manage("event", "verify", "--heads", str(tmp_path / "none"))


def test_event_export_writes_every_event_once_the_oldest_first(log: dict[str, list[Event]], cast: dict[str, User], acme: Tenant) -> None:
    events.record("sign_in_failed", subject=cast["alice"], tenant=acme, typed='=HYPERLINK("https://evil.test")')
    lines = [json.loads(line) for line in exported("--tenant", "acme")]
    assert [line["id"] for line in lines] == sorted(Event.objects.filter(tenant=acme).values_list("pk", flat=True))
    assert [line["seal"] for line in lines] == [1, 1, 1, 2, 2, 2, 3]
    assert all(line["at"].endswith("Z") and line["mac"] for line in lines)
    assert len(exported()) == 19


def test_no_cell_of_an_export_is_a_formula(db: None) -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "=\ncmd"):
        request = RequestFactory().get("/", HTTP_USER_AGENT=text)
        events.record("sign_in_failed", request=request, typed=text)
    rows = list(csv.DictReader(io.StringIO("\n".join(exported("--format", "csv")))))
    assert len(rows) == 5
    assert {cell[0] for row in rows for cell in row.values() if cell} & set("=+-@\t\r") == set()
    assert rows[0]["user_agent"] == "'=1+1"


def exported(*filters: str) -> list[str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("event", "export", *filters, stdout=out, stderr=err, no_color=True)
    assert re.fullmatch(r"\d+ events? exported\.\n", err.getvalue())
    return out.getvalue().splitlines()


def test_event_seal_seals_now(cast: dict[str, User]) -> None:
    write(2)
    assert told("event", "seal", "--dry-run")["sealed"] == 2
    assert told("event", "seal")["sealed"] == 2
    assert manage("event", "seal") == "All events have their seals.\n"
