"""Is the audit log as it was written? `Audit` looks at every event and every seal and says what is wrong. ASVS 16.4.2."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hmac import compare_digest
from itertools import islice
from typing import TypeVar

from django.db.models import Count, Exists, OuterRef, QuerySet

from identity import crypto, events, seals
from identity.models import Event, Seal
from identity.seals import Head, key_of
from identity.snapshot import UNFIT, pages, snapshot
from tenants.models import Tenant

PAGE = 500
VERIFIED = "log_verified"


class Problem(StrEnum):
    CHANGED = "changed"
    MISSING = "missing"
    ADDED = "added"
    KEY_GONE = "key gone"  # it cannot be verified; that is not to say that it was changed


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. place: a tenant's slug, or “portal”; event: its id; seal: its number in the chain of that place."""

    problem: Problem
    place: str
    text: str
    event: int | None = None
    seal: int | None = None


@dataclass(slots=True)
class Span:
    """So many of which the same is to be said."""

    first: int
    last: int
    count: int = 1


@dataclass(slots=True)
class Chain:
    """How far a chain has been looked at."""

    ref: int | None
    place: str
    first: int = 0
    last: int = 0
    head: str = ""
    pruned: dict[int, seals.Pruned] | None = None


@dataclass
class Audit:
    """Everything, or one tenant's events, or the platform's own (tenant None, everything False), as they are at one moment.

    heads: lines of the log, as the sealer has printed them. `findings` seals first, then yields what is wrong as it finds it, in
    bounded memory; afterwards the counters say how much was looked at. Must not be called inside a transaction.
    """

    tenant: Tenant | None = None
    everything: bool = True
    heads: Iterable[str] = ()
    events: int = 0
    seals: int = 0
    printed: int = 0  # heads of the log that were compared
    chains: dict[int | None, Chain] = field(default_factory=dict)
    _slugs: dict[int, str] = field(default_factory=dict)

    def findings(self) -> Iterator[Finding]:
        seals.seal(wait=True)
        with snapshot():
            self._slugs = dict(Tenant.objects.values_list("pk", "slug"))
            yield from self._each_event()
            yield from self._copies()
            yield from self._each_seal()
            yield from self._lost()
            yield from self._printed_heads()

    def note(self) -> None:
        """Say in each chain how far it was looked at and found as it was written, for those who read their part of the log."""
        known = {ref: chain.last for ref, chain in self.chains.items() if ref is None or ref in self._slugs}
        noted = [events.make(VERIFIED, seal=last, source=events.COMMAND_LINE) for last in known.values()]
        for event, ref in zip(noted, known, strict=True):
            event.tenant_id = ref
        events.write(noted)

    def _events(self) -> QuerySet[Event]:
        return Event.objects.all() if self.everything else Event.objects.filter(tenant=self.tenant)

    def _seals(self) -> QuerySet[Seal]:
        return Seal.objects.all() if self.everything else Seal.objects.filter(tenant_ref=self.tenant.pk if self.tenant else None)

    def _place(self, ref: int | None) -> str:
        return seals.place(ref, self._slugs)

    # Each event for itself ---------------------------------------------------------------------------------------

    def _each_event(self) -> Iterator[Finding]:
        gone: dict[tuple[str, str], Span] = {}
        for page, unfit in pages(self._events()):
            self.events += len(page) + len(unfit)
            for pk in unfit:
                ref = Event.objects.filter(pk=pk).values_list("tenant_id", flat=True).get()
                yield Finding(Problem.CHANGED, self._place(ref), f"event {pk} holds what no event can hold", pk)
            for event in page:
                place = self._place(event.tenant_id)
                try:
                    if not events.is_genuine(event):
                        yield Finding(Problem.CHANGED, place, f"event {event.pk} is not as it was written", event.pk)
                except crypto.Undecipherable:
                    _count(gone, (place, key_of(event.mac)), event.pk)
                except UNFIT:  # such as a word in place of an address
                    yield Finding(Problem.CHANGED, place, f"event {event.pk} holds what no event can hold", event.pk)
        for (place, key), span in gone.items():
            yield Finding(Problem.KEY_GONE, place, _unverified("event", span, key), event=span.first)

    def _copies(self) -> Iterator[Finding]:
        """A genuine event that was put in once more is genuine, too; but no two are the same to the microsecond."""
        twice = self._events().exclude(mac="").values("mac").annotate(n=Count("pk")).filter(n__gt=1).order_by("mac")
        for mac in twice.values_list("mac", flat=True).iterator():
            first, *others = Event.objects.filter(mac=mac).order_by("pk").values_list("pk", "tenant_id")[:PAGE]
            for pk, ref in others:
                yield Finding(Problem.ADDED, self._place(ref), f"event {pk} is a copy of event {first[0]}", pk)

    def _lost(self) -> Iterator[Finding]:
        """Events of a seal that is not there."""
        there = Seal.objects.filter(pk=OuterRef("seal_id"))
        lost = self._events().filter(~Exists(there), seal__isnull=False).order_by("pk")
        for pk, ref in lost.values_list("pk", "tenant_id").iterator():
            yield Finding(Problem.MISSING, self._place(ref), f"the seal of event {pk} is missing", pk)

    # The chains --------------------------------------------------------------------------------------------------

    def _each_seal(self) -> Iterator[Finding]:
        """In the order in which they were made, whatever chain they are of; each builds on the one before in its chain."""
        gone: dict[tuple[str, str], Span] = {}
        for page, unfit in pages(self._seals(), PAGE):
            self.seals += len(page) + len(unfit)
            heads: dict[int, Head] = {}
            for one in page:
                if (type(one.n), type(one.count), type(one.head), type(one.at)) != (int, int, str, datetime):
                    unfit.append(one.pk)
                    continue
                chain = self._chain(one.tenant_ref)
                previous, finding = self._before(chain, one)
                if finding:
                    yield finding
                chain.first, chain.last, chain.head = chain.first or one.n, one.n, one.head
                if previous is None:
                    continue
                try:
                    heads[one.pk] = Head(one, previous, key_of(one.head))
                except crypto.Undecipherable:
                    _count(gone, (chain.place, key_of(one.head)), one.n)
            for pk in unfit:
                yield Finding(Problem.CHANGED, self._place_of_seal(pk), f"the seal with the id {pk} holds what no seal can hold")
            yield from self._events_of([one for one in page if one.pk not in unfit], heads)
        for (place, key), span in gone.items():
            yield Finding(Problem.KEY_GONE, place, _unverified("seal", span, key), seal=span.first)

    def _place_of_seal(self, pk: int) -> str:
        return self._place(Seal.objects.values_list("tenant_ref", flat=True).get(pk=pk))

    def _chain(self, ref: int | None) -> Chain:
        if ref not in self.chains:
            self.chains[ref] = Chain(ref, self._place(ref))
        return self.chains[ref]

    def _before(self, chain: Chain, one: Seal) -> tuple[str | None, Finding | None]:
        """The head that a seal builds on: of the seal before it, or, if that was pruned, as a genuine event of its chain says."""
        if one.n == chain.last + 1:
            return chain.head, None
        if chain.pruned is None:
            chain.pruned = seals.pruned(chain.ref)
        if (said := chain.pruned.get(one.n - 1)) is None:
            several = f"seals {chain.last + 1} to {one.n - 1} are" if one.n - 1 > chain.last + 1 else f"seal {one.n - 1} is"
            return None, Finding(Problem.MISSING, chain.place, f"{several} missing before seal {one.n}", seal=one.n)
        if said.key_gone:
            text = f"the seals before seal {one.n} may have been pruned; event {said.event}, which says so, cannot be verified"
            return said.head, Finding(Problem.KEY_GONE, chain.place, f"{text}: its key is gone", said.event, one.n)
        return said.head, None

    def _events_of(self, page: list[Seal], heads: dict[int, Head]) -> Iterator[Finding]:
        """Do these seals fit the events that are in them?"""
        by_id = {one.pk: one for one in page}
        counted: dict[int, int] = defaultdict(int)
        held = Event.objects.filter(seal__in=by_id).order_by("pk").values_list("pk", "seal_id", "tenant_id", "mac")
        for pk, of, ref, mac in held.iterator():
            assert of is not None
            counted[of] += 1
            if of in heads:
                heads[of].add(pk, mac)
            if ref != by_id[of].tenant_ref:
                text = f"event {pk} is in seal {by_id[of].n} of another place"
                yield Finding(Problem.CHANGED, self._place(by_id[of].tenant_ref), text, pk, by_id[of].n)
        for one in page:
            if problem := self._problem_of(one, heads.get(one.pk), counted[one.pk]):
                yield Finding(problem[0], self._place(one.tenant_ref), problem[1], seal=one.n)

    @staticmethod
    def _problem_of(one: Seal, head: Head | None, counted: int) -> tuple[Problem, str] | None:
        if counted < one.count:
            return Problem.MISSING, f"seal {one.n} has {one.count} events, and {one.count - counted} of them are missing"
        if counted > one.count:
            return Problem.ADDED, f"seal {one.n} has {one.count} events, and {counted - one.count} were added"
        if head and not compare_digest(head.text, one.head):
            return Problem.CHANGED, f"seal {one.n} does not fit its events or the seal before it"
        return None

    # What was printed --------------------------------------------------------------------------------------------

    def _printed_heads(self) -> Iterator[Finding]:
        furthest: dict[str, int] = {}
        lines = (match for line in self.heads if (match := _LINE.search(line)))
        while some := list(islice(lines, PAGE)):
            by_place: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
            for match in some:
                if self._is_meant(match["place"]):
                    by_place[match["place"]][int(match["n"])].add(match["head"])
                    self.printed += 1
            for place, printed in by_place.items():
                furthest[place] = max(furthest.get(place, 0), *printed)
                stored = Seal.objects.filter(tenant_ref=self._ref(place), n__in=printed).order_by("n")
                for n, head in stored.values_list("n", "head"):
                    if printed[n] != {head}:
                        yield Finding(Problem.CHANGED, place, f"seal {n} has another head than the log", seal=n)
        for place, n in furthest.items():
            chain = self.chains.get(self._ref(place))
            last = chain.last if chain else 0
            if n > last:
                text = f"the log has heads up to seal {n}, and the chain ends with seal {last}: its end is missing"
                yield Finding(Problem.MISSING, place, text, seal=last + 1)

    def _ref(self, place: str) -> int | None:
        """The chain that a line of the log names: the other way round than `seals.place`."""
        if place == seals.PORTAL:
            return None
        if place.startswith("#"):
            return int(place[1:])
        return next((pk for pk, slug in self._slugs.items() if slug == place), _NOBODY)

    def _is_meant(self, place: str) -> bool:
        return self.everything or self._ref(place) == (self.tenant.pk if self.tenant else None)


_NOBODY = -1  # the id of no tenant
_LINE = re.compile(r"\bseal (?P<place>[a-z0-9-]+|#\d{1,18}) n=(?P<n>\d{1,18}) count=\d+ head=(?P<head>[0-9a-f]{8}\.[0-9a-f]{64})\b")

Key = TypeVar("Key")


def _count(spans: dict[Key, Span], of: Key, number: int) -> None:
    if of in spans:
        spans[of].last, spans[of].count = number, spans[of].count + 1
    else:
        spans[of] = Span(number, number)


def _unverified(what: str, span: Span, key: str) -> str:
    which = f"{what} {span.first}" if span.count == 1 else f"{span.count} {what}s, from {what} {span.first} to {what} {span.last},"
    return f"{which} cannot be verified: key {key} is gone"
