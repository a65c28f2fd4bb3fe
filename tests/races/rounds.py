"""The races. Each is run in rounds of its own chance, and judged by what the database holds afterwards."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from identity import sessions
from identity.models import Event, Session
from tenants.models import Tenant
from tests.races.acts import Try
from tests.races.crew import Crew, Outcome, Task
from tests.races.report import Report
from tests.races.stage import Slot, Stage, Tree, chance_of, deadlocks, ticket, tree


@contextmanager
def race(name: str, rounds: int, seed: int) -> Iterator[Report]:
    report = Report(name, rounds, seed, connection.vendor)
    before, started = deadlocks(), time.monotonic()
    yield report
    report.seconds = time.monotonic() - started
    if connection.vendor == "postgresql" and (rounds >= 100 or name.startswith("everything")):  # else the racers tell
        time.sleep(1.2)  # a backend reports its figures once a second
        if broken := deadlocks() - before:
            report.violations.append(f"{name}, seed {seed}: PostgreSQL had to break {broken} deadlocks")


def _portal_host() -> str:
    return str(settings.PORTAL_HOST)


def _live(keys: Iterable[str], tenant: Tenant | None) -> set[str]:
    """The ids of the sessions that any of these keys opens; `live` takes four at a time."""
    known = sorted(set(keys) - {""})
    return {str(row.pk) for at in range(0, len(known), 4) for row in sessions.live(known[at : at + 4], tenant)}


def _ms(chance: Random, most: float) -> float:
    return chance.uniform(0, most) / 1000


# --- 1. A ticket is redeemed while its portal session is ended --------------------------------------------------------


def ticket_against_end(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Whoever comes first, no branch outlives its portal session."""
    with race("ticket against end", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            with transaction.atomic():
                trees = [tree(slot.person) for _number, slot in heat]
                waiting = [ticket(grown.root, slot.a) for grown, (_number, slot) in zip(trees, heat, strict=True)]
            tasks = []
            for (number, slot), grown, one in zip(heat, trees, waiting, strict=True):
                chance = chance_of(seed, number)
                end = Task("end", {"ids": [str(grown.root.pk)]}, _ms(chance, chance.choice([5, 10, 30])))
                tasks.append((end, Task("finish", {"host": slot.a.hostname, "tickets": [one]}, _ms(chance, 4))))
            for (number, slot), grown, outcomes in zip(heat, trees, crew.run_in_pairs(tasks), strict=True):
                if report.broke(number, outcomes):
                    continue
                redeemed: Try = outcomes[1].result[0]
                report.figures["opened, then ended" if redeemed.passed else "ended, then refused"] += 1
                if left := Session.objects.filter(Q(pk=grown.root.pk) | Q(parent=grown.root.pk), ended_at=None).count():
                    report.against(number, f"{left} sessions of an ended tree are not ended")
                if _live([redeemed.key], slot.a):
                    report.against(number, "an orphan branch is live")
                if redeemed.passed and redeemed.started > outcomes[0].finished:
                    report.against(number, "a ticket was good after the end had returned")
        report.must_have_happened("opened, then ended", "ended, then refused")
    return report


# --- 2. An end against read, write, rotate and finish -----------------------------------------------------------------

ENDS = ("tree", "branch", "here", "everywhere", "tenant", "suspend", "password", "password spares", "block")
ATTACKS = ("read", "write", "rotate", "step_up", "finish", "walk")


@dataclass(slots=True)
class Scene:
    """One round: an end, and somebody who goes on as if nothing were."""

    number: int
    slot: Slot
    variant: str
    attack: str
    where: str  # slug of the place attacked, "" for the portal
    tree: Tree  # the attacked one
    other: Tree | None  # another browser of the same person
    doomed: Q  # what the end is for
    ending: Task
    attacking: Task

    @property
    def title(self) -> str:
        return f"end of {self.variant} against {self.attack} at {self.where or 'the portal'}"

    @property
    def target_is_doomed(self) -> bool:
        """Whether the attack can no longer pass once the end has returned."""
        if self.variant in {"tree", "everywhere", "password"}:
            return True
        if self.variant == "password spares":
            return False
        return self.where == self.slot.a.slug  # the proof is demanded there, so nothing new opens either


def _plan(number: int, slot: Slot, seed: int) -> Scene:
    """Every pair of end and attack comes round; places and moments are chance."""
    chance = chance_of(seed, number)
    variant, attack = ENDS[number % len(ENDS)], ATTACKS[number // len(ENDS) % len(ATTACKS)]
    grown = tree(slot.person, slot.a, slot.b)
    other = tree(slot.person, slot.a, slot.b) if variant.startswith("password") else None
    places = [slot.a, slot.b]
    where = "" if attack == "step_up" else chance.choice(["", *places] if attack in {"read", "write", "rotate"} else places)
    place = where if isinstance(where, Tenant) else None
    host, key = (place.hostname, grown.keys[place.slug][0]) if place else (_portal_host(), grown.keys[""][0])
    args: dict[str, Any] = {"host": host, "key": key}
    if attack == "step_up":
        args = {"key": key}
    elif attack == "finish":
        assert place
        args = {"host": host, "tickets": [ticket(grown.root, place) for _n in range(3)]}
    elif attack == "walk":
        assert place
        args = {"slug": place.slug, "key": grown.keys[""][0]}
    act, ending, doomed = _end_of(variant, slot, grown, other)
    return Scene(
        number=number,
        slot=slot,
        variant=variant,
        attack=attack,
        where=place.slug if place else "",
        tree=grown,
        other=other,
        doomed=doomed,
        ending=Task(act, ending, _ms(chance, chance.choice([4, 8, 16]))),
        attacking=Task(attack, args, _ms(chance, 1)),
    )


def _end_of(variant: str, slot: Slot, grown: Tree, other: Tree | None) -> tuple[str, dict[str, Any], Q]:
    """The act of an end, its arguments, and what must be over after it."""
    of_tree = Q(pk=grown.root.pk) | Q(parent=grown.root.pk)
    here = Q(user=slot.person, tenant=slot.a)
    if variant == "tree":
        return "end", {"ids": [str(grown.root.pk)]}, of_tree
    if variant == "branch":
        branch = grown.branches[slot.a.slug]
        return "end", {"ids": [str(branch.pk)]}, Q(pk=branch.pk)
    if variant in {"here", "block"}:
        act = "end_here" if variant == "here" else "block"
        return act, {"user": slot.person.pk, "tenant": slot.a.pk}, here
    if variant in {"tenant", "suspend"}:
        return "end_tenant", {"tenant": slot.a.pk, "suspend": variant == "suspend"}, here
    if variant == "everywhere":
        return "end_everywhere", {"user": slot.person.pk}, Q(user=slot.person)
    assert other is not None
    spare = grown if variant == "password spares" else other
    spared = Q(pk=spare.root.pk) | Q(parent=spare.root.pk)
    return "change_password", {"user": slot.person.pk, "spare": str(spare.root.pk)}, Q(user=slot.person) & ~spared


def end_against_everything(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """After an end nothing that it was for is ever live again, and what it was not for lives on."""
    with race("end against read, write, rotate, finish", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            with transaction.atomic():
                scenes = [_plan(number, slot, seed) for number, slot in heat]
            for scene, outcomes in zip(scenes, crew.run_in_pairs([(s.ending, s.attacking) for s in scenes]), strict=True):
                if not report.broke(scene.number, outcomes):
                    _judge(report, scene, *outcomes)
        report.must_have_happened("at the same time", "refused after")
    return report


def _judge(report: Report, scene: Scene, end: Outcome, attack: Outcome) -> None:
    tries: list[Try] = attack.result
    report.figures["passed before"] += any(one.passed and one.finished < end.started for one in tries)
    report.figures["at the same time"] += any(one.started < end.finished and one.finished > end.started for one in tries)
    report.figures["refused after"] += any(not one.passed and one.started > end.finished for one in tries)
    late = [one for one in tries if one.passed and one.started > end.finished]
    if late and scene.target_is_doomed:
        report.against(scene.number, f"{scene.title}: {len(late)} requests passed that began after the end had returned")

    doomed = {str(pk) for pk in Session.objects.filter(scene.doomed).values_list("pk", flat=True)}
    unended = Session.objects.filter(scene.doomed, ended_at=None).count()
    if unended or not doomed:
        report.against(scene.number, f"{scene.title}: {unended} of {len(doomed)} sessions are not ended")
    if Session.objects.filter(scene.doomed, ended_at__isnull=False).exclude(session_data="").exists():
        report.against(scene.number, f"{scene.title}: an ended session holds data")
    if zombies := _opened(scene, [one.key for one in tries if one.key]) & doomed:
        report.against(scene.number, f"{scene.title}: {len(zombies)} ended sessions are live")
    if dead := _spared(scene) - _alive(scene.slot):
        report.against(scene.number, f"{scene.title}: {len(dead)} sessions died that the end was not for")


def _opened(scene: Scene, given: list[str]) -> set[str]:
    """The ids of what all keys that ever existed in this round open now."""
    keys: dict[str, list[str]] = {"": [], scene.slot.a.slug: [], scene.slot.b.slug: []}
    for grown in filter(None, (scene.tree, scene.other)):
        for slug, known in grown.keys.items():
            keys[slug] = keys[slug] + known
    keys[scene.where] = keys[scene.where] + given
    return _live(keys[""], None) | _live(keys[scene.slot.a.slug], scene.slot.a) | _live(keys[scene.slot.b.slug], scene.slot.b)


def _spared(scene: Scene) -> set[str]:
    """The ids of what the end was not for: rows of both trees, and branches that were opened meanwhile."""
    roots = [grown.root.pk for grown in (scene.tree, scene.other) if grown]
    known = Session.objects.filter(Q(pk__in=roots) | Q(parent__in=roots)).exclude(scene.doomed)
    return {str(pk) for pk in known.values_list("pk", flat=True)}


def _alive(slot: Slot) -> set[str]:
    """The ids of all live sessions of the round's person."""
    alive = [Session.objects.alive_at_portal(), Session.objects.alive_at(slot.a), Session.objects.alive_at(slot.b)]
    return {str(pk) for rows in alive for pk in rows.filter(user=slot.person).values_list("pk", flat=True)}


# --- 3. Sixteen redemptions of one ticket -----------------------------------------------------------------------------


def one_ticket_many_times(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    with race(f"one ticket, {crew.size} redemptions", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            with transaction.atomic():
                trees = [tree(slot.person) for _number, slot in heat]
                waiting = [ticket(grown.root, slot.a) for grown, (_number, slot) in zip(trees, heat, strict=True)]
            tasks = []
            for (number, slot), one in zip(heat, waiting, strict=True):
                chance = chance_of(seed, number)
                args = {"host": slot.a.hostname, "tickets": [one]}
                tasks.append([Task("finish", args, _ms(chance, 1)) for _racer in range(crew.size)])
            winners: set[int] = set()
            for (number, slot), grown, outcomes in zip(heat, trees, crew.run(tasks), strict=True):
                if report.broke(number, outcomes):
                    continue
                keys = [outcome.result[0].key for outcome in outcomes if outcome.result[0].passed]
                winners |= {place for place, outcome in enumerate(outcomes) if outcome.result[0].passed}
                rows = Session.objects.filter(parent=grown.root.pk).count()
                if len(keys) != 1 or rows != 1 or len(_live(keys, slot.a)) != 1:
                    report.against(number, f"{len(keys)} of {crew.size} were let in, {rows} branches opened")
            report.figures["different winners"] += len(winners) > 1
        report.must_have_happened("different winners")
    return report


# --- 4. Two tabs rotate at once -----------------------------------------------------------------------------------------


def two_tabs_rotate(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """A step-up in two tabs: one new key, nobody is signed out; the old key dies with the grace, or at once without one."""
    with race("two tabs rotate at once", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            with transaction.atomic():
                trees = [tree(slot.person) for _number, slot in heat]
            tasks = []
            for (number, _slot), grown in zip(heat, trees, strict=True):
                chance = chance_of(seed, number)
                act, args = ("step_up", {"most": 1}) if number % 2 else ("rotate", {"host": _portal_host(), "most": 1})
                one, other = (Task(act, {**args, "key": grown.keys[""][0]}, _ms(chance, 2)) for _tab in range(2))
                tasks.append((one, other))
            for (number, _slot), grown, outcomes in zip(heat, trees, crew.run_in_pairs(tasks), strict=True):
                if not report.broke(number, outcomes):
                    _judge_tabs(report, number, grown, [outcome.result[0] for outcome in outcomes], grace=bool(number % 2))
        report.must_have_happened("at the same time", "the first tab won", "the second tab won")
    return report


def _judge_tabs(report: Report, number: int, grown: Tree, tabs: list[Try], *, grace: bool) -> None:
    old, me = grown.keys[""][0], {str(grown.root.pk)}
    new = [tab.key for tab in tabs if tab.key]
    report.figures["at the same time"] += tabs[0].started < tabs[1].finished and tabs[1].started < tabs[0].finished
    report.figures["the first tab won" if tabs[0].key else "the second tab won"] += 1
    winners = [key for key in new if _live([key], None) == me]
    if len(winners) != 1 or (grace and len(new) != 1):
        report.against(number, f"{len(new)} tabs got a new key, {len(winners)} of them are good")
    if grace and not all(tab.passed for tab in tabs):
        report.against(number, "a tab was signed out by the other's step-up")
    if grace:
        if _live([old], None) != me:
            report.against(number, "the old key had no grace")
        Session.objects.filter(pk=grown.root.pk).update(previous_until=timezone.now() - timedelta(milliseconds=1))
    if _live([old], None):
        report.against(number, f"the old key lives on {'after' if grace else 'without'} a grace")
    if _live(winners, None) != me:
        report.against(number, "the new key died with the old one")


# --- 5. An end ends exactly once ------------------------------------------------------------------------------------------


def ends_exactly_once(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Parallel ends of the same sessions, named by root, by branch or both: each is in one answer and in one event."""
    parties = min(crew.size, 8)
    with race(f"{parties} ends of the same sessions", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            with transaction.atomic():
                groves = [[tree(who, slot.a, slot.b) for who in (slot.person, slot.person, slot.rival)] for _number, slot in heat]
            tasks = []
            for (number, _slot), grove in zip(heat, groves, strict=True):
                chance = chance_of(seed, number)
                roots = [str(grown.root.pk) for grown in grove]
                rows = roots + [str(branch.pk) for grown in grove for branch in grown.branches.values()]
                named = [rows, *(chance.sample(rows, chance.randint(1, len(rows))) for _racer in range(parties - 1))]
                tasks.append([Task("end", {"ids": ids}, _ms(chance, 2)) for ids in chance.sample(named, len(named))])
            for (number, _slot), grove, outcomes in zip(heat, groves, crew.run(tasks), strict=True):
                if report.broke(number, outcomes):
                    continue
                ids = [grown.root.pk for grown in grove] + [branch.pk for grown in grove for branch in grown.branches.values()]
                told = Counter(pk for outcome in outcomes for pk in outcome.result)
                report.figures["somebody else was first"] += sum(bool(outcome.result) for outcome in outcomes) < parties
                report.figures["shared among several"] += sum(bool(outcome.result) for outcome in outcomes) > 1
                if told != Counter(str(pk) for pk in ids):
                    report.against(number, f"not each was ended by exactly one: {sorted(told.values())} of {len(ids)}")
                logged = Counter(Event.objects.filter(session__in=ids, kind="session_ended").values_list("session", flat=True))
                if logged != Counter(ids):
                    report.against(number, f"not each end was logged exactly once: {sorted(logged.values())} of {len(ids)}")
        report.must_have_happened("somebody else was first", "shared among several")
    return report


# --- 6. A sign-in against a change of password ------------------------------------------------------------------------------


def sign_in_against_password(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """No session that was proven with the old password, or before a deactivation, is live after it."""
    with race("sign-in against password, deactivation", rounds, seed) as report:
        for heat in stage.heats(rounds, first):
            tasks = []
            for number, slot in heat:
                chance = chance_of(seed, number)
                act = "deactivate" if number % 2 else "change_password"
                change = Task(act, {"user": slot.person.pk}, _ms(chance, chance.choice([5, 15, 60])))
                tasks.append((change, Task("sign_in", {"username": slot.person.username, "most": 2}, _ms(chance, 4))))
            for (number, slot), outcomes in zip(heat, crew.run_in_pairs(tasks), strict=True):
                if report.broke(number, outcomes):
                    continue
                change_done, tries = outcomes[0].finished, outcomes[1].result
                keys = [one.key for one in tries if one.passed]
                report.figures["signed in before"] += bool(keys)
                report.figures["refused after"] += len(keys) < len(tries)
                report.figures["at the same time"] += any(one.started < change_done and one.finished > outcomes[0].started for one in tries)
                if any(one.passed and one.started > change_done for one in tries):
                    report.against(number, "the old password was good after the change had returned")
                if _live(keys, None):
                    report.against(number, "a session of the old password is live")
                if left := Session.objects.filter(user=slot.person, ended_at=None).count():
                    report.against(number, f"{left} sessions of the old password are not ended")
        report.must_have_happened("signed in before", "refused after", "at the same time")
    return report


# --- 7. Everything at once ----------------------------------------------------------------------------------------------------


def medley(crew: Crew, stage: Stage, *, rounds: int, seed: int, first: int = 0) -> Report:
    """All of it at once by few people at few tenants, for as many seconds as there are rounds: no deadlock, no lock, no 500."""
    with race("everything at once (rounds: seconds)", rounds, seed) as report:
        stage.refresh()
        few = stage.slots[:1]
        users = [(user.pk, user.username) for slot in few for user in (slot.person, slot.rival)]
        tenants = [(place.pk, place.slug) for slot in few for place in (slot.a, slot.b)]
        slices = [min(10, rounds - done) for done in range(0, rounds, 10)]
        for number, seconds in enumerate(slices, first):
            chance = chance_of(seed, number)
            args = {"seconds": seconds, "users": users, "tenants": tenants}
            outcomes = crew.run([[Task("medley", {**args, "seed": chance.getrandbits(32)}) for _racer in range(crew.size)]])[0]
            report.broke(number, outcomes)
            for outcome in outcomes:
                report.figures.update(outcome.result or {})
            if orphans := Session.objects.filter(ended_at=None, parent__ended_at__isnull=False).count():
                report.against(number, f"{orphans} branches of ended portal sessions are not ended")
        ended_twice = Event.objects.filter(kind="session_ended").values("session").annotate(n=Count("pk")).filter(n__gt=1).count()
        if ended_twice:
            report.against(first, f"{ended_twice} sessions were ended more than once")
        shaky = Session.objects.filter(ended_at=None, tenant__isnull=False, authenticated_at__lt=F("tenant__valid_from")).count()
        if shaky:
            report.against(first, f"{shaky} branches lie under their tenant's stamp and were never ended")
    return report


RACES: dict[str, Callable[..., Report]] = {
    race.__name__: race
    for race in (
        ticket_against_end, end_against_everything, one_ticket_many_times, two_tabs_rotate, ends_exactly_once,
        sign_in_against_password, medley,
    )
}  # fmt: skip
