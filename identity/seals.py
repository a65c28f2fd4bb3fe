"""Seals: they make the audit log tamper-evident without a lock in anybody's way. ASVS 16.4.2.

Events are plain INSERTs, each with a MAC of its own (`identity.events`). `seal` takes those that have no seal yet and chains
them, one chain for each tenant and one for the platform: a Seal has a number without gaps and counts its events, and its head is
a MAC over the head before, over itself, and over the id and MAC of each event. Heads are printed to the log, so that they are
known outside of the database, too.

What that proves: any change to a sealed event shows (`identity.audit`). A deletion in the last second, before the seal, may not;
and that the newest seals were cut off shows only beside the heads in the log. Whoever has ENCRYPTION_KEYS can forge everything
but what was printed.
"""

import hashlib
import hmac
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet

from identity import clock, crypto, events
from identity.models import Event, Seal
from identity.snapshot import UNFIT, pages
from tenants.models import Tenant

logger = logging.getLogger("gatehouse.seals")
PORTAL = "portal"  # what the platform's own chain is called; no tenant may have this slug
PRUNED = "log_pruned"
BATCH = 2_000  # events in one transaction, for which SQLite's other writers wait
_LOCK = 7_325_001  # the sealer's, among PostgreSQL's advisory locks


# --- Seal ---------------------------------------------------------------------------------------------------------


def seal(*, wait: bool = False) -> int:
    """Seal what has no seal yet; returns how many events. Cheap where there is nothing to do: one look into an index.

    One sealer at a time. If another one is at it: wait for it, or leave it to him. Never inside a transaction, because a head
    that was printed must stay true.
    """
    total = 0
    while _unsealed().exists():
        done = _seal_batch(wait=wait)
        _print(done)
        batch = sum(one.count for one in done)
        total += batch
        if batch < BATCH:
            break
    return total


def _unsealed() -> QuerySet[Event]:
    return Event.objects.filter(seal=None)


def _seal_batch(*, wait: bool) -> list[Seal]:
    with transaction.atomic(durable=True):
        if not _is_mine(wait=wait):
            return []
        chains: dict[int | None, list[tuple[int, str]]] = defaultdict(list)
        for pk, tenant, mac in _unsealed().order_by("pk").values_list("pk", "tenant_id", "mac")[:BATCH]:
            chains[tenant].append((pk, mac))
        now = clock.now()
        done = Seal.objects.bulk_create([_next(tenant, macs, now) for tenant, macs in chains.items()])
        for one, macs in zip(done, chains.values(), strict=True):
            # By id: what was committed meanwhile, perhaps with a smaller id, waits for its own seal.
            Event.objects.filter(pk__in=[pk for pk, _mac in macs]).update(seal=one)
    return done


def _is_mine(*, wait: bool) -> bool:
    """Be the only sealer until the transaction ends. On SQLite the transaction itself is the lock."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        if wait:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            return True
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        row = cursor.fetchone()
    return bool(row and row[0])


def _next(tenant: int | None, macs: list[tuple[int, str]], now: datetime) -> Seal:
    before = Seal.objects.filter(tenant_ref=tenant).order_by("-n").first()
    made = Seal(tenant_ref=tenant, n=before.n + 1 if before else 1, count=len(macs), at=now)
    head = Head(made, before.head if before else "", crypto.current_key_id())
    for pk, mac in macs:
        head.add(pk, mac)
    made.head = head.text
    return made


class Head:
    """The head of a seal, to which its events are added in the order of their ids. Raises crypto.Undecipherable if the key is gone."""

    def __init__(self, one: Seal, previous: str, key_id: str) -> None:
        facts = [previous, one.tenant_ref, one.n, one.count, one.at.astimezone(UTC).isoformat(timespec="microseconds")]
        self.key_id = key_id
        self._mac = hmac.new(crypto.mac_key(key_id, "seals"), _line(facts), hashlib.sha256)

    def add(self, pk: int, mac: str) -> None:
        self._mac.update(_line([pk, mac]))

    @property
    def text(self) -> str:
        return f"{self.key_id}.{self._mac.hexdigest()}"


def _line(values: Sequence[object]) -> bytes:
    return f"{json.dumps(values, default=repr)}\n".encode()


def key_of(mac: str) -> str:
    return mac.partition(".")[0]


def _print(done: list[Seal]) -> None:
    slugs = dict(Tenant.objects.filter(pk__in=[one.tenant_ref for one in done if one.tenant_ref]).values_list("pk", "slug"))
    for one in done:
        logger.info("seal %s n=%d count=%d head=%s", place(one.tenant_ref, slugs), one.n, one.count, one.head)


def place(tenant: int | None, slugs: dict[int, str]) -> str:
    """What a chain is called: by its tenant's slug, or by the id of a tenant that is no more."""
    return slugs.get(tenant, f"#{tenant}") if tenant is not None else PORTAL


def chains() -> Iterator[int | None]:
    """The tenants that have seals (None: the platform). Asks the index once for each, however many seals there are."""
    if Seal.objects.filter(tenant_ref=None).exists():
        yield None
    found = Seal.objects.aggregate(ref=Min("tenant_ref"))["ref"]
    while found is not None:
        yield found
        found = Seal.objects.filter(tenant_ref__gt=found).aggregate(ref=Min("tenant_ref"))["ref"]


# --- Prune --------------------------------------------------------------------------------------------------------


def prune(limit: datetime, *, dry_run: bool = False) -> int:
    """Delete the seals from before `limit` with their events; returns how many events.

    What goes is the beginning of a chain, and the chain says so first: an event with the last number that goes and its head,
    from which the audit goes on. One day that event is old itself; by then a later one has taken its place, since it goes only
    with the seals before it. Safe to be cut off at any moment, and to run twice at once.
    """
    if not dry_run:
        seal(wait=True)
    old = {ref: last for ref in chains() if (last := _last_old(ref, limit))}
    if dry_run:
        return sum(Event.objects.filter(seal__in=_up_to(last)).count() for last in old.values())
    if not old:
        return 0
    said = []
    for ref, last in old.items():
        event = events.make(PRUNED, n=last.n, head=last.head)
        event.tenant_id = ref
        said.append(event)
    events.write(said)
    seal(wait=True)
    return sum(_delete(last) for last in old.values())


def _up_to(last: Seal) -> QuerySet[Seal]:
    return Seal.objects.filter(tenant_ref=last.tenant_ref, n__lte=last.n)


def _last_old(ref: int | None, limit: datetime) -> Seal | None:
    """The last seal of those at the chain's beginning that are from before the limit: nothing in it can be younger than itself.

    Its time must be genuine, else our own prune would clear away what somebody has dated back. Where that shows, an older one is
    taken: what comes before it in the chain is older than it, genuine or not.
    """
    mine = Seal.objects.filter(tenant_ref=ref)
    young = mine.filter(at__gte=limit).order_by("n").first()
    old = mine.filter(n__lt=young.n) if young else mine
    tried = list(old.order_by("-n")[:100])
    for one in tried:
        if _has_witness(one):
            return one
    if tried:
        logger.error("Seals of %s are not genuine, so the old ones are not pruned. See manage.py event verify", ref or PORTAL)
    return None


def _has_witness(one: Seal) -> bool:
    """Is a seal as it was made? Under a key that is gone it cannot say so itself; the first one behind it that can vouches for it."""
    readable = Q()
    for key_id in crypto.key_ids():
        readable |= Q(head__startswith=f"{key_id}.")
    witness = Seal.objects.filter(readable, tenant_ref=one.tenant_ref, n__gte=one.n).order_by("n").first()
    return witness is not None and _fits(witness)


def _fits(one: Seal) -> bool:
    before = Seal.objects.filter(tenant_ref=one.tenant_ref, n=one.n - 1).first()
    said = pruned(one.tenant_ref).get(one.n - 1)
    if before is None and said is None and one.n > 1:
        return False
    head = Head(one, before.head if before else said.head if said else "", key_of(one.head))
    for pk, mac in one.events.order_by("pk").values_list("pk", "mac").iterator():
        head.add(pk, mac)
    return hmac.compare_digest(head.text, one.head)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a genuine event says: the chain was pruned up to a number, whose head was this. key_gone: it may be genuine or not."""

    head: str
    event: int
    key_gone: bool


def pruned(ref: int | None) -> dict[int, Pruned]:
    """By their numbers, the seals up to which a chain says that it was pruned."""
    found: dict[int, Pruned] = {}
    for page, _unfit in pages(Event.objects.filter(tenant=ref, kind=PRUNED)):
        for event in page:
            key_gone = False
            try:
                if not events.is_genuine(event):
                    continue
            except crypto.Undecipherable:
                key_gone = True
            except UNFIT:
                continue
            match event.data:
                case {"n": int(n), "head": str(head)} if n not in found or found[n].key_gone:
                    found[n] = Pruned(head, event.pk, key_gone)
    return found


def _delete(last: Seal) -> int:
    """From the newest of them to the oldest, so that whatever is left when this is cut off still hangs together."""
    gone = 0
    while ids := list(_up_to(last).order_by("-n").values_list("pk", flat=True)[:50]):
        with transaction.atomic():
            gone += Event.objects.filter(seal__in=ids).delete()[0]
            Seal.objects.filter(pk__in=ids).delete()
    return gone
