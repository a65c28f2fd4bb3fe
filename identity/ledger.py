"""The ledger: who is locked out, and why. Every check of a secret reserves here before it verifies.

A bucket counts wrong answers (`failed`) and answers that are being checked (`flying`). `reserve` adds a flight to every bucket
of the attempt where failed + flying is below the limit, in one short transaction that is committed before anything is hashed;
`Attempt.right` and `Attempt.wrong` settle it. So, between two complete sign-ins of the owner from that class of device, or two
expiries of a lock, there are at most `limit` verifications, in any interleaving, over all paths and processes; an exception,
a rollback or a killed process takes nothing back. A refused attempt counts nowhere and extends nothing. ASVS 6.1.1, 6.3.1.

What is counted, and where (the figures: `tenants.policy`):

- person, from browsers that are not known: by account, or by the typed name if there is none
- person, from one known browser: by account and browser, so that nobody else can use its tries up
- second factor: by account
- address (IPv6: the /64): everything that comes from no known browser; when it is full it says so (429), which tells nothing
  about anybody

Wired in as the handler of django-axes; codes and links, which axes knows nothing of, call `reserve` themselves.
"""

import contextlib
import ipaddress
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from axes.handlers.base import AxesHandler
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from identity import clock, events, known
from identity.flight import in_flight
from identity.models import Bucket, Event, KnownDevice, User, fold
from tenants import policy
from tenants.models import Membership, Tenant

Kind = Bucket.Kind
WAIT = 3.0  # seconds that an attempt waits for others in flight, counted from the last one that landed
_waiting = threading.BoundedSemaphore(64)


class Refusal(StrEnum):
    LOCKED = "locked"
    CROWDED = "crowded"  # so many attempts in flight that waiting did not help
    ADDRESS = "address"


class AddressFull(Exception):
    """Too many wrong answers from this address. Says nothing about any person; `portal.middleware` turns it into a 429."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} seconds")
        self.retry_after = retry_after


# --- Buckets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A bucket that an attempt needs, with its limits."""

    kind: Bucket.Kind
    of: str  # what it counts by
    limit: int
    lock: tuple[timedelta, timedelta] = policy.LOCK
    window: timedelta | None = None  # wrong answers older than that do not count
    user: User | None = None
    device: KnownDevice | None = None
    network: str = ""

    @cached_property
    def key(self) -> str:
        """Keyed, because people type passwords into name fields."""
        return salted_hmac("identity.ledger", f"{self.kind}:{self.of}", algorithm="sha256").hexdigest()


def _person(user: User | None, typed: str, device: KnownDevice | None, limit: int = 0) -> Wanted:
    """The bucket for a person's passwords; who does not look at its limit may pass one, which saves a question."""
    limit = limit or tries(user)
    if user and device:
        return Wanted(Kind.DEVICE, f"{user.pk}:{device.pk}", policy.KNOWN_TIMES * limit, user=user, device=device)
    return Wanted(Kind.PERSON, f"user:{user.pk}" if user else f"name:{fold(typed)}", limit, user=user)


def _factor(user: User) -> Wanted:
    return Wanted(Kind.FACTOR, f"{user.pk}", policy.TRIES_FACTOR, policy.FACTOR_LOCK, user=user)


def _address(request: HttpRequest) -> Wanted | None:
    network = network_of(request)
    return Wanted(Kind.ADDRESS, network, policy.TRIES_ADDRESS, window=policy.ADDRESS_WINDOW, network=network) if network else None


def network_of(request: HttpRequest) -> str:
    """What an address is counted by: itself, or its /64; "" where there is none."""
    if (address := events.address(request)) is None:
        return ""
    at = ipaddress.ip_address(address)
    at = getattr(at, "ipv4_mapped", None) or at
    return str(ipaddress.ip_network(f"{at}/64", strict=False)) if at.version == 6 else str(at)


def tries(user: User | None) -> int:
    """Wrong passwords until a lock: the strictest of the person's tenants. Asks the database for a stranger as well."""
    stored = Membership.objects.filter(user_id=user.pk if user else 0).values_list("tenant__policy", flat=True)
    return min((policy.Policy.of(rules).tries for rules in stored), default=policy.TRIES_UNKNOWN)


_ROW = "(%s, %s, %s, %s, %s, %s, 0, 0, 0, 0, 0)"
_SQL_HOLD = (
    "INSERT INTO identity_bucket (key, kind, user_id, device_id, network, touched_at, failed, flying, refused, round, locks) "
    "VALUES %s ON CONFLICT (key) DO UPDATE SET kind = excluded.kind RETURNING *"
)
_SQL_HOLD_AGAIN = "SELECT * FROM identity_bucket WHERE key IN (%s) ORDER BY key"
_FIXED = {"id", "key", "kind", "user", "device", "network"}
_CHANGING = [column for column in Bucket._meta.concrete_fields if column.name not in _FIXED]
_SQL_WRITE = f"UPDATE identity_bucket SET {', '.join(f'{each.column} = %s' for each in _CHANGING)} WHERE id = %s"  # noqa: S608


def _hold(wanted: Sequence[Wanted], now: datetime) -> list[tuple[Wanted, Bucket]]:
    """Lock these buckets in the order of their keys, making those that are missing, and let time do its part.

    One statement, whether they are there or not: its time does not tell which names have been here before.
    """
    if not wanted:  # a link, from a peer without an address
        return []
    ordered = sorted(wanted, key=lambda each: each.key)
    values = []
    for each in ordered:
        user, device = each.user and each.user.pk, each.device and each.device.pk
        values += [each.key, each.kind, user, device, each.network, _stored(now)]
    rows = Bucket.objects.raw(_SQL_HOLD % ", ".join([_ROW] * len(ordered)), values)
    return _ripened({row.key: row for row in rows}, ordered, now)


def _hold_again(wanted: Sequence[Wanted], now: datetime) -> list[tuple[Wanted, Bucket]]:
    """The same for buckets that were there a moment ago; one may have gone with its person or browser."""
    if not wanted:
        return []
    sql = _SQL_HOLD_AGAIN % ", ".join(["%s"] * len(wanted))
    lock = " FOR NO KEY UPDATE" if connection.vendor == "postgresql" else ""  # SQLite's writers are alone anyway
    rows = Bucket.objects.raw(sql + lock, [each.key for each in wanted])
    return _ripened({row.key: row for row in rows}, wanted, now)


def _write(rows: Sequence[Bucket]) -> None:
    """Store what may have changed in buckets that are held. By hand: `save` would cost a third of the whole ledger."""
    values = [[*(each.get_db_prep_save(getattr(row, each.attname), connection) for each in _CHANGING), row.pk] for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(_SQL_WRITE, values)


def _ripened(rows: dict[str, Bucket], wanted: Sequence[Wanted], now: datetime) -> list[tuple[Wanted, Bucket]]:
    held = [(each, rows[each.key]) for each in wanted if each.key in rows]
    for each, row in held:
        _ripen(row, now, each)
    return held


def _stored(moment: datetime) -> Any:
    return Bucket._meta.get_field("touched_at").get_db_prep_value(moment, connection)


def _ripen(row: Bucket, now: datetime, wanted: Wanted) -> None:
    """What time alone changes: a lock runs out, a window passes, a flight whose worker died counts as wrong."""
    if row.flying and now - row.touched_at >= policy.FLIGHT:
        row.failed, row.flying, row.round = row.failed + row.flying, 0, row.round + 1
        row.started_at = row.started_at or row.touched_at
        _lock_if_full(row, now, wanted)
    if row.locked_at and row.locked_until and row.locked_until <= now:
        row.failed, row.refused, row.started_at, row.locked_at = 0, 0, None, None
    if wanted.window and not row.locked_at and row.started_at and now - row.started_at >= wanted.window:
        row.failed, row.started_at = 0, None
    if not row.locked_at and row.locked_until and now - row.locked_until >= policy.FORGOTTEN:
        row.locks, row.locked_until = 0, None


def _lock_if_full(row: Bucket, now: datetime, wanted: Wanted) -> bool:
    if row.locked_at or row.failed < wanted.limit:
        return False
    shortest, longest = wanted.lock
    if wanted.window:  # an address is shut for the rest of its window, not longer each time
        lasts = max((row.started_at or now) + wanted.window - now, timedelta(seconds=1))
    else:
        lasts = min(shortest * 2 ** min(row.locks, 16), longest)
    row.locked_at, row.locked_until, row.locks = now, now + lasts, min(row.locks + 1, 1000)
    return True


# --- An attempt ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Attempt:
    """One answer to one question. Unless `refused`, exactly one of `right` and `wrong` is called after the verification.

    If neither is (an exception, a killed process), it counts as wrong after a minute.
    """

    what: str  # the path, as the event of a wrong answer says it: "sign_in", "step_up", "code", …
    request: HttpRequest
    subject: User | None
    wanted: tuple[Wanted, ...]
    rounds: dict[str, int] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)  # how the buckets stood that were full, when it was tried last
    refused: Refusal | None = None
    until: datetime | None = None  # of the lock that refused it
    device: KnownDevice | None = None
    settled: bool = False

    @property
    def retry_after(self) -> int:
        """Whole seconds until it is worth another try."""
        return max(1, round((self.until - clock.now()).total_seconds())) if self.until else 10

    def right(self) -> None:
        """The answer was right. That alone clears nothing: see `clear`."""
        self._settle(wrong=False)

    def wrong(self) -> None:
        self._settle(wrong=True)

    def count(self, event: str) -> None:
        """Nothing was compared, but it costs a try as a wrong answer does; the event says what was asked."""
        self._settle(wrong=True, event=event)

    @contextlib.contextmanager
    def flight(self) -> Iterator[None]:
        """While this lasts, secrets may be compared."""
        assert not self.refused
        with in_flight():
            yield

    def _settle(self, *, wrong: bool, event: str = "") -> None:
        assert not self.refused
        assert not self.settled
        self.settled = True
        with transaction.atomic(durable=True):
            now = clock.now()
            held = _hold_again(self.wanted, now)
            for wanted, row in held:
                if row.round == self.rounds[row.key]:
                    row.flying -= 1
                    row.failed += wrong
                if wrong:
                    row.started_at, row.ip = row.started_at or now, events.address(self.request)
                row.touched_at = now
                if _lock_if_full(row, now, wanted):
                    self._tell(row)
            _write([row for _wanted, row in held])
            if wrong:
                self._record(event or f"{self.what}_failed", keep=True)

    def _tell(self, row: Bucket) -> None:
        if row.kind == Kind.FACTOR:
            self.until = row.locked_until  # who is half in may know it at once
        subject = self.subject if row.user_id else None
        events.record(
            "locked_out",
            request=self.request,
            subject=subject,
            bucket=row.kind,
            until=row.locked_until,
            failed=row.failed,
            lock=row.locks,
        )

    def note_refused(self) -> None:
        """Count that the lock kept this one out: for who reads about it, and so that it costs what a wrong answer costs."""
        assert self.refused
        with transaction.atomic(durable=True):
            held = _hold_again(self.wanted, clock.now())
            for _wanted, row in held:
                row.refused += bool(row.locked_at)
            _write([row for _wanted, row in held])
            self._record(f"{self.what}_failed", keep=False)

    def _record(self, kind: str, *, keep: bool) -> None:
        """The event of a wrong answer. That of a refused one is taken back: it costs the same, and nobody can fill the log with it."""
        with transaction.atomic():
            events.record(kind, request=self.request, subject=self.subject)
            transaction.set_rollback(not keep)


def for_password(request: HttpRequest, typed: str, *, what: str = "sign_in") -> Attempt:
    """Reserve a check of the password of whoever this name belongs to, if anybody."""
    user = User.objects.named(typed)
    device = known.device_of(request, user)
    return _reserve(what, request, user, [_person(user, typed, device)], device)


def for_code(request: HttpRequest, user: User, *, what: str = "code") -> Attempt:
    """Reserve a check of a second factor: of an authenticator's code or a recovery code."""
    return _reserve(what, request, user, [_factor(user)], known.device_of(request, user))


def for_link(request: HttpRequest, *, what: str = "link") -> Attempt:
    """Reserve a look at a one-time link. Its token cannot be guessed; who tries is slowed by his address."""
    return _reserve(what, request, None, [], None)


def _reserve(what: str, request: HttpRequest, user: User | None, wanted: list[Wanted], device: KnownDevice | None) -> Attempt:
    """Take a place in every bucket, waiting for attempts in flight if only they fill one. Raises AddressFull."""
    if device is None and (address := _address(request)):
        wanted.append(address)
    attempt = Attempt(what, request, user, tuple(wanted), device=device)
    try:
        _take_off(attempt)
    except IntegrityError:  # the browser was forgotten in this very moment: it is one like any other
        if device is None:
            raise
        as_unknown = [each if each.kind != Kind.DEVICE else _person(user, "", None) for each in wanted]
        return _reserve(what, request, user, as_unknown, None)
    if attempt.refused is Refusal.CROWDED and _waiting.acquire(blocking=False):
        try:
            _wait(attempt)
        finally:
            _waiting.release()
    if attempt.refused is Refusal.ADDRESS:
        raise AddressFull(attempt.retry_after)
    return attempt


def _wait(attempt: Attempt) -> None:
    deadline = time.monotonic() + WAIT
    while attempt.refused is Refusal.CROWDED and time.monotonic() < deadline:
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311  (spreads the askers, decides nothing)
        full = [key for key, *_counts in attempt.seen]
        # A look without a lock, so that a long queue does not keep the writers from what it waits for.
        if list(Bucket.objects.filter(key__in=full).order_by("key").values_list("key", "failed", "flying", "touched_at")) != attempt.seen:
            _take_off(attempt)  # somebody landed meanwhile: the queue moves
            deadline = time.monotonic() + WAIT


def _take_off(attempt: Attempt) -> None:
    """One try to reserve everywhere, or nowhere. Sets `refused` and `until`."""
    with transaction.atomic(durable=True):
        now = clock.now()
        held = _hold(attempt.wanted, now)
        attempt.refused, attempt.until = _refusal(held)
        full = [row for wanted, row in held if row.failed + row.flying >= wanted.limit]
        attempt.seen = [(row.key, row.failed, row.flying, row.touched_at) for row in full]
        if attempt.refused is Refusal.ADDRESS:  # it leaves nothing: else a full address could go on storing names without end
            transaction.set_rollback(True)
            return
        for _wanted, row in held:
            if not attempt.refused:
                row.flying, row.touched_at = row.flying + 1, max(row.touched_at, now)
            attempt.rounds[row.key] = row.round
        _write([row for _wanted, row in held])


def _refusal(held: list[tuple[Wanted, Bucket]]) -> tuple[Refusal | None, datetime | None]:
    """Why this attempt may not be, and until when. The address comes first: its answer must not depend on the person."""
    shut = [(wanted, row) for wanted, row in held if row.locked_at]
    for wanted, row in shut:
        if wanted.kind == Kind.ADDRESS:
            return Refusal.ADDRESS, row.locked_until
    if shut:
        return Refusal.LOCKED, max(row.locked_until for _wanted, row in shut if row.locked_until)
    full = any(row.failed + row.flying >= wanted.limit for wanted, row in held)
    return (Refusal.CROWDED, None) if full else (None, None)


# --- What clears, and who asks -------------------------------------------------------------------------------------


_SQL_CLEAR = (
    "UPDATE identity_bucket SET failed = 0, refused = 0, started_at = NULL, locked_at = NULL "
    "WHERE key = %s AND (failed > 0 OR refused > 0 OR locked_at IS NOT NULL)"  # mostly there is nothing to write
)


def clear(user: User, device: KnownDevice | None) -> None:
    """A complete sign-in: the person's own bucket for this class of device and the factors' start at zero again.

    Nothing else is cleared, and how long the next lock lasts is not forgotten.
    """
    keys = sorted(each.key for each in (_person(user, "", device, limit=1), _factor(user)))  # locked in the order of `_hold`
    with connection.cursor() as cursor:
        cursor.executemany(_SQL_CLEAR, [[key] for key in keys])


@dataclass(frozen=True, slots=True)
class Lockout:
    """A bucket, for those who put it into words: `lockout list` and the consoles."""

    bucket: Bucket

    @property
    def limit(self) -> int:
        """Asks the database, for the person's tenants."""
        return _wanted_of(self.bucket).limit

    @property
    def is_locked(self) -> bool:
        return self.bucket.locked_at is not None


def locked(
    kinds: Sequence[str] = (), *, tenant_id: int | None = None, of_people: bool | None = None, limit: int | None = 500
) -> list[Lockout]:
    """Everything that is locked now, the latest first; with a tenant, the buckets of its members only.

    of_people: only what has an account behind it, or only what has none.
    """
    rows = Bucket.objects.filter(locked_at__isnull=False, locked_until__gt=clock.now()).select_related("user", "device")
    if kinds:
        rows = rows.filter(kind__in=kinds)
    if of_people is not None:
        rows = rows.filter(user__isnull=not of_people)
    if tenant_id is not None:
        rows = rows.filter(user__memberships__tenant_id=tenant_id)
    return [Lockout(row) for row in rows.order_by("-locked_at", "-pk")[:limit]]


def locked_members(tenants: Iterable[Tenant]) -> dict[int, int]:
    """How many members of each of these tenants are locked out now, by the tenant's id."""
    locks = {"user__buckets__locked_at__isnull": False, "user__buckets__locked_until__gt": clock.now()}
    kinds = (Kind.PERSON, Kind.DEVICE, Kind.FACTOR)
    held = Membership.objects.filter(tenant__in=tenants, user__buckets__kind__in=kinds, **locks).order_by()
    return dict(held.values_list("tenant").annotate(Count("user", distinct=True)))


def explain(name_or_address: str) -> list[Lockout]:
    """Every bucket that stands for this name (of a person or of nobody), address or network, as it is at this moment."""
    user = User.objects.named(name_or_address)
    if user:
        rows = list(Bucket.objects.filter(user=user).select_related("user", "device").order_by("kind", "pk"))
    else:
        rows = list(Bucket.objects.filter(key=_person(None, name_or_address, None).key)) + _within(name_or_address)
    now = clock.now()
    for row in rows:
        _ripen(row, now, _wanted_of(row))
    return [Lockout(row) for row in rows]


def _within(text: str) -> list[Bucket]:
    """The buckets of an address, or of everything in a network; nothing if the text is neither."""
    try:
        asked = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return []
    request = HttpRequest()
    request.META["REMOTE_ADDR"] = str(asked[0])
    own = _address(request)
    if own and (asked.num_addresses == 1 or own.network == str(asked)):
        return list(Bucket.objects.filter(key=own.key))
    rows = Bucket.objects.filter(kind=Kind.ADDRESS).order_by("pk").iterator()
    return [row for row in rows if ipaddress.ip_address(row.network.partition("/")[0]) in asked]


# The paths on which an answer is one person's, as their events say it.
WRONG_ANSWERS = [f"{what}_failed" for what in ("sign_in", "code", "step_up", "password_change", "enrolment")]


def failures_of(tenant: Tenant, since: datetime) -> QuerySet[Event]:
    """The events of wrong answers for the members of one tenant, for who counts them; where they came from is no tenant's to know."""
    # "Exists", because SQLite would look for the events of each member instead of the few of these kinds.
    a_member = Exists(Membership.objects.filter(tenant=tenant, user=OuterRef("subject")))
    return Event.objects.filter(a_member, tenant=None, kind__in=WRONG_ANSWERS, at__gte=since)


def failures(since: timedelta) -> QuerySet[Event]:
    """The events of wrong answers, so long ago at the most: what an alarm counts, and where they came from."""
    return Event.objects.filter(kind__endswith="_failed", at__gt=clock.now() - since)


def _wanted_of(row: Bucket) -> Wanted:
    if row.kind == Kind.ADDRESS:
        return Wanted(Kind.ADDRESS, row.network, policy.TRIES_ADDRESS, window=policy.ADDRESS_WINDOW)
    if row.kind == Kind.FACTOR and row.user:
        return _factor(row.user)
    return _person(row.user, "", row.device)


def release(which: Sequence[int], *, by: User | None, reason: str, request: HttpRequest | None = None, **data: Any) -> list[Bucket]:
    """Open these buckets (by id): no lock, no wrong answers. What is in flight stays counted. Returns those that were shut."""
    with transaction.atomic():
        held = Bucket.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=which).order_by("key")
        rows, now = list(held.select_related("user", "device")), clock.now()
        for row in rows:
            _ripen(row, now, _wanted_of(row))
        done = [row for row in rows if row.failed or row.locked_at]
        for row in done:
            was: dict[str, Any] = {"failed": row.failed, "locked_until": row.locked_until if row.locked_at else None}
            if row.network:
                was["network"] = row.network
            row.failed, row.refused, row.locks, row.started_at, row.locked_at, row.locked_until = 0, 0, 0, None, None, None
            row.save()
            events.record(
                "lockout_released", request=request, actor=by, subject=row.user, bucket=row.kind, reason=reason, before=was, **data
            )
    return done


def release_person(user: User, *, by: User | None, reason: str, request: HttpRequest | None = None, **data: Any) -> list[Bucket]:
    """Open everything that keeps one person out."""
    ids = list(Bucket.objects.filter(user=user).values_list("pk", flat=True))
    return release(ids, by=by, reason=reason, request=request, **data)


def prune(*, dry_run: bool = False) -> int:
    """Delete the buckets that say nothing any more: unknown names and addresses after a day, a person's once it is empty."""
    old = Bucket.objects.filter(touched_at__lt=clock.now() - policy.FORGOTTEN)
    spent = old.filter(user=None) | old.filter(failed=0, flying=0, locked_at=None)
    spent = spent.exclude(locked_until__gt=clock.now() - policy.FORGOTTEN)
    if dry_run:
        return spent.count()
    with transaction.atomic():
        # One DELETE would lock in any order, and attempts of this moment lock in theirs; what they hold is not old.
        ids = list(spent.select_for_update(of=("self",), skip_locked=True).values_list("pk", flat=True))
        return sum(Bucket.objects.filter(pk__in=ids[at : at + 5000]).delete()[0] for at in range(0, len(ids), 5000))


# --- django-axes --------------------------------------------------------------------------------------------------


class Handler(AxesHandler):  # type: ignore[misc]
    """What axes asks before every `authenticate()`: once, with the credentials. The backend settles what was reserved here."""

    def is_allowed(self, request: Any, credentials: dict[str, Any] | None = None) -> bool:
        typed = str((credentials or {}).get("username") or "")
        request.attempt = for_password(request, typed, what=getattr(request, "what", "sign_in"))
        return request.attempt.refused is None
