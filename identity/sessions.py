"""Sessions: open, live, admission, rotate, end. The table is the truth; no cache decides that a session is alive.

Who calls whom: the middleware asks `live` and `touch` for every request; the portal's sign-in view calls `sign_in`; a hand-off
calls `lock_portal` and `open_branch` around its ticket, in one transaction; a step-up calls `prove_again`; everything that
ends a session, anywhere, calls `end` (or `end_here`, `end_everywhere`, `end_others`, `end_tenant`, `end_all`, which call it; so
does `identity.mass`, for many). Lock order, everywhere: user, portal rows by id, tickets, tenants by id, memberships, branches by id.
The ledger's buckets are held alone.
"""

import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.db.models import DurationField, F, Q, Value
from django.db.models.functions import Greatest, Least, Now
from django.http import HttpRequest

from identity import clock, crypto, events, known, links, mails
from identity.devices import device
from identity.models import PASSWORD, TRUSTED, TYPED_FACTORS, Link, Session, SessionQuerySet, TotpDevice, User
from tenants import policy
from tenants.models import BEGINNING, Membership, Tenant

Reason = Session.Reason
# An end for one of these reasons closes the door silently; after any other, coming back takes a fresh proof.
_OWN_DOING = {Reason.SIGNED_OUT, Reason.IDLE, Reason.EXPIRED, Reason.HOST, Reason.PROBE}
_BY_OTHERS = {Reason.BY_ADMIN, Reason.BY_OPERATOR, Reason.BLOCKED, Reason.REMOVED}
BATCH = 5_000


def new_key() -> str:
    """A fresh cookie value: 256 random bits as 43 characters. ASVS 7.2.3."""
    return secrets.token_urlsafe(32)


# --- live ---------------------------------------------------------------------------------------------------------


def live(keys: Sequence[str], tenant: Tenant | None) -> list[Session]:
    """The live sessions behind these cookie values at this tenant (None: at the portal), each with its user: one query.

    More than one only if somebody planted a cookie; the caller decides. The caller passes at most four keys.
    """
    if not keys:
        return []
    digests = [crypto.digest(key) for key in keys]
    sql, marked = _question(connection.vendor, at_tenant=tenant is not None)
    values: dict[Any, Any] = {_TENANT: tenant.pk if tenant else None}
    # Fewer than four keys: the first stands for the missing ones.
    values.update(zip(_DIGESTS, digests + digests[:1] * (len(_DIGESTS) - len(digests)), strict=True))
    rows = list(Session.objects.raw(sql, [values.get(value, value) for value in marked]))
    for row in rows:
        row.user = User.from_db(connection.alias, ["id", *_PERSON], [row.user_id, *(getattr(row, f"person_{name}") for name in _PERSON)])
    return rows


_TENANT = -1
_DIGESTS = tuple(f"digest {n}" for n in range(4))
_SHOWN = {"username", "first_name", "last_name", "email", "is_active", "is_superuser", "is_staff"}
_SHOWN |= {"language", "time_zone", "delete_at"}
_PERSON = [field.attname for field in User._meta.concrete_fields if field.attname in _SHOWN]  # `from_db` takes them in this order


@cache
def _question(vendor: str, *, at_tenant: bool) -> tuple[str, tuple[Any, ...]]:
    """The SQL that `live` asks, compiled once from the one definition of what is alive, with marks in place of values.

    Compiling it anew for each request would cost three times as much as asking. Of the person it reads what a page shows;
    Django fetches the rest when it is looked at.
    """
    alive = Session.objects.alive_at(_TENANT) if at_tenant else Session.objects.alive_at_portal()
    asked = alive.filter(Q(key_digest__in=_DIGESTS) | Q(previous_digest__in=_DIGESTS, previous_until__gt=Now()))
    sql, marked = asked.annotate(**{f"person_{name}": F(f"user__{name}") for name in _PERSON}).query.sql_with_params()
    return sql, tuple(marked)


def ended(keys: Sequence[str], tenant: Tenant | None) -> Session | None:
    """The latest ended session behind these cookie values, so that a late cookie gets the page that says why."""
    rows = Session.objects.filter(key_digest__in=[crypto.digest(key) for key in keys], tenant=tenant, ended_at__isnull=False)
    return rows.select_related("user", "ended_by", "tenant").order_by("-ended_at").first()


def touch(session: Session, tenant: Tenant | None) -> bool:
    """Note activity, at most once in min(60 s, a tenth of the idle limit). True if it was written.

    Activity in a branch is activity of its portal session: the parent's row first, then the branch's.
    """
    idle = tenant.rules.idle_limit(persistent=session.persistent) if tenant else _portal_idle(session)
    now = clock.now()
    if now - session.last_seen_at < min(timedelta(seconds=60), idle / 10):
        return False
    if session.parent_id:
        parent = Session.objects.filter(pk=session.parent_id, ended_at=None).first()
        if parent is None:
            return False
        _touch(parent, now, _portal_idle(parent))
    _touch(session, now, idle)
    return True


def _portal_idle(session: Session) -> timedelta:
    return policy.REMEMBERED_IDLE if session.persistent else policy.PORTAL_IDLE


def _touch(session: Session, now: datetime, idle: timedelta) -> None:
    pause = max(int((now - session.last_seen_at).total_seconds()), 0)
    session.last_seen_at, session.idle_expires_at = now, now + idle
    session.longest_pause = max(session.longest_pause, pause)
    Session.objects.filter(pk=session.pk, ended_at=None, idle_expires_at__gt=now, expires_at__gt=now).update(
        last_seen_at=now,
        idle_expires_at=session.idle_expires_at,
        longest_pause=Greatest(F("longest_pause"), Value(pause)),
    )


# --- admission ----------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    OPEN = "open"
    PROVE = "prove"  # a step-up opens it
    ENROL = "enrol"  # a second factor is asked for, and the person has none yet
    STRANGER = "stranger"  # no membership, or no such tenant: the caller shows the same for both
    BLOCKED = "blocked"
    SUSPENDED = "suspended"
    FROZEN = "frozen"  # nobody new comes in for now; the console stays open


@dataclass(frozen=True, slots=True)
class Admission:
    verdict: Verdict
    tenant: Tenant | None = None
    membership: Membership | None = None


def admission(portal: Session, slug: str, *, console: bool = False, lock: bool = False) -> Admission:
    """May this live portal session enter that tenant? The one predicate, asked by enter, finish and every console request.

    console: operators are asked for neither membership nor tenant status there (design, section 1).
    lock: hold tenant and membership until the transaction ends, so that an end of either comes before or after, never between.
    """
    memberships = Membership.objects.select_related("tenant").filter(tenant__slug=slug, user_id=portal.user_id)
    if lock:
        _hold_tenant(slug)
        memberships = memberships.select_for_update(of=("self",), no_key=True)
    membership = memberships.first()
    operator = console and portal.user.is_superuser
    tenant = membership.tenant if membership else (Tenant.objects.filter(slug=slug).first() if operator else None)
    if tenant is None or (membership is None and not operator):
        return Admission(Verdict.STRANGER)
    if not operator:
        if membership and membership.blocked_at:
            return Admission(Verdict.BLOCKED, tenant, membership)
        if not tenant.is_active:
            return Admission(Verdict.SUSPENDED, tenant, membership)
    if tenant.frozen_at and not console:
        administers = membership is not None and membership.may_administer
        if not (administers and portal.has_factor):  # an admin who has a second factor may still type it
            return Admission(Verdict.PROVE if administers and _is_enrolled(portal) else Verdict.FROZEN, tenant, membership)
    if not _proof_suffices(portal, tenant, membership):
        return Admission(Verdict.PROVE, tenant, membership)
    if not _factor_suffices(portal, tenant, membership):
        return Admission(Verdict.PROVE if _is_enrolled(portal) else Verdict.ENROL, tenant, membership)
    return Admission(Verdict.OPEN, tenant, membership)


def _is_enrolled(portal: Session) -> bool:
    return TotpDevice.objects.filter(user_id=portal.user_id, confirmed=True).exists()


def _hold_tenant(slug: str) -> None:
    """Hold the tenant against an end of all its sessions, but not against other hand-offs (SQLite holds everything anyway)."""
    if connection.vendor == "postgresql":
        list(Tenant.objects.raw("SELECT id FROM tenants_tenant WHERE slug = %s FOR SHARE", [slug]))


def _hold_places(person: User) -> dict[int, Tenant]:
    """Hold every tenant of a person in the same way, by id."""
    sql = "SELECT * FROM tenants_tenant WHERE id IN (SELECT tenant_id FROM tenants_membership WHERE user_id = %s) ORDER BY id"
    sql += " FOR SHARE" if connection.vendor == "postgresql" else ""
    return {place.pk: place for place in Tenant.objects.raw(sql, [person.pk])}


def _proof_suffices(portal: Session, tenant: Tenant, membership: Membership | None) -> bool:
    rules = tenant.rules
    now = clock.now()
    return (
        portal.authenticated_at >= tenant.valid_from
        and portal.authenticated_at >= portal.user.valid_from
        and not portal.in_grace
        # A trusted browser has typed no factor: good where nothing was ended since the membership began.
        and (membership is None or (portal.proved_at or BEGINNING) >= membership.prove_after)
        and now - portal.authenticated_at < rules.absolute_limit(persistent=portal.persistent)
        # Ever since the proof, no pause of the tree was longer than the tenant's idle limit. Looking at last_seen_at would
        # not do: a look at another page of the portal first would make an idle tree look busy.
        and timedelta(seconds=portal.longest_pause) < rules.idle_limit(persistent=portal.persistent)
    )


def _factor_suffices(portal: Session, tenant: Tenant, membership: Membership | None) -> bool:
    """Operators always need a second factor, typed in this session; members where the tenant asks, once their grace is over."""
    if portal.user.is_superuser and tenant.proof_demanded_at is None:
        return portal.has_factor
    due = tenant.factor_due(membership)
    return due is None or due > clock.now() or proves_factor(portal, tenant)


def proves_factor(session: Session, tenant: Tenant) -> bool:
    """Was this session proven with a second factor, as this tenant counts it? Where everybody is to prove it anew: since then."""
    if since := tenant.proof_demanded_at:
        return session.has_factor and (session.proved_at or BEGINNING) >= since
    return session.has_factor or (TRUSTED in session.methods and tenant.rules.trusted_browsers)


def is_fresh(portal: Session) -> bool:
    """Is the last proof with every due factor typed so young that no step-up is due? ASVS 7.5.1, 7.5.3."""
    return portal.proved_at is not None and not portal.in_grace and clock.now() - portal.proved_at < policy.STEP_UP


# --- open ---------------------------------------------------------------------------------------------------------


class StaleProof(Exception):
    """The account changed (password, deactivation) while its proof was under way."""


def sign_in(
    user: User,
    *,
    request: HttpRequest | None,
    methods: list[str],
    remember: bool,
    session_data: str = "",
    pk: uuid.UUID | None = None,
    since: datetime | None = None,
) -> tuple[Session, str]:
    """Insert a portal session after a full proof; returns it and the key for its cookie.

    user: as it was when the secret was checked. Raises StaleProof if its password changed or it was deactivated since: the
    row is inserted under a lock on the user, so that a password change ends it or comes before it, never misses it.
    methods: how it was proven. since: when the proof began; an end of everything since then voids it.
    """
    key = new_key()
    with transaction.atomic():
        fresh = User.objects.select_for_update(no_key=True).filter(pk=user.pk, epoch=user.epoch, is_active=True).first()
        if fresh is None or (since and fresh.valid_from >= since):
            raise StaleProof
        if methods == [PASSWORD] and TotpDevice.objects.filter(user=user, confirmed=True).exists():
            raise StaleProof  # a second factor came while the password was checked
        now = clock.now()
        session = Session(
            id=pk or uuid.uuid4(),
            user=user,
            authenticated_at=now,
            proved_at=None if TRUSTED in methods else now,
            idle_expires_at=now + (policy.REMEMBERED_IDLE if remember else policy.PORTAL_IDLE),
            expires_at=now + (policy.REMEMBERED_ABSOLUTE if remember else policy.PORTAL_ABSOLUTE),
            persistent=remember,
            methods=methods,
            session_data=session_data,
        )
        _insert(session, key, now, request)
        events.record("sign_in", request=request, actor=user, subject=user, session=session.id, methods=methods, remember=remember)
    return session, key


class NotAdmitted(Exception):
    """The portal session is gone or may not enter; `verdict` says which (None: gone)."""

    def __init__(self, verdict: Verdict | None) -> None:
        super().__init__(verdict or "the portal session is over")
        self.verdict = verdict


def lock_portal(pk: uuid.UUID) -> Session:
    """Hold a live portal row until the transaction ends. Raises NotAdmitted if it is over."""
    assert connection.in_atomic_block
    rows = Session.objects.alive_at_portal().select_for_update(of=("self",), no_key=True).select_related("user")
    portal = rows.filter(pk=pk).first()
    if portal is None:
        raise NotAdmitted(None)
    return portal


def open_branch(
    portal_id: uuid.UUID, tenant: Tenant, *, request: HttpRequest | None, host: str = "", browser: str = "", probe: bool = False
) -> tuple[Session, str]:
    """Insert a branch below a portal session; returns it and the key for its cookie. Must be called inside a transaction.

    The portal row is locked first and admission is asked under that lock, so that an end of the tree either waits for the
    branch and ends it too, or came first and is seen here (any weaker order leaves live orphans).
    host: where its cookie will be; browser: the digest of this browser's start cookie. Raises NotAdmitted.
    """
    portal = lock_portal(portal_id)
    decided = admission(portal, tenant.slug, lock=True)
    if decided.verdict is not Verdict.OPEN or decided.tenant != tenant:
        raise NotAdmitted(decided.verdict)
    assert decided.tenant is not None
    rules = decided.tenant.rules
    now = clock.now()
    key = new_key()
    branch = Session(
        tenant=decided.tenant,
        parent=portal,
        user=portal.user,
        authenticated_at=portal.authenticated_at,
        proved_at=portal.proved_at,
        persistent=portal.persistent and rules.remembered,
        idle_expires_at=now + rules.idle_limit(persistent=portal.persistent),
        expires_at=min(portal.expires_at, portal.authenticated_at + rules.absolute_limit(persistent=portal.persistent)),
        methods=portal.methods,
        host=host,
        browsers=[browser] if browser else [],
    )
    _insert(branch, key, now, request)
    if not probe:
        events.record("branch_opened", request=request, tenant=tenant, actor=portal.user, subject=portal.user, session=branch.id)
    return branch, key


def bind(branch: Session, browser: str) -> None:
    """Note that a branch lives in this browser's cookies at one more host (several hosts may share a cookie domain)."""
    if browser not in branch.browsers:
        branch.browsers = [*branch.browsers, browser][-5:]
        Session.objects.filter(pk=branch.pk, ended_at=None).update(browsers=branch.browsers)


def _insert(session: Session, key: str, now: datetime, request: HttpRequest | None) -> None:
    session.key_digest = crypto.digest(key)
    session.created_at = session.last_seen_at = now
    if request is not None:
        session.ip, session.user_agent = events.address(request), events.user_agent(request)
    session.device = device(session.user_agent).kind
    session.save(force_insert=True)


# --- rotate and prove again ---------------------------------------------------------------------------------------


def rotate(session: Session, old_key: str, *, grace: bool) -> str | None:
    """Give a live session a new key; returns it, or None if another request was first or the session has ended.

    A conditional UPDATE of the same row, never delete and insert: nothing that ended can come back. With grace, the old
    key still opens the session for ten seconds (without the new proof), so that requests in flight are not signed out;
    without, every other key is worthless at once.
    """
    new = new_key()
    rows = Session.objects.filter(pk=session.pk, ended_at=None)
    if grace:
        until = clock.now() + policy.GRACE
        changed = rows.filter(key_digest=crypto.digest(old_key)).update(
            key_digest=crypto.digest(new), previous_digest=crypto.digest(old_key), previous_until=until
        )
    else:  # the key from before a step-up may be the one that a change of password comes with
        held = Q(key_digest=crypto.digest(old_key)) | Q(previous_digest=crypto.digest(old_key))
        changed = rows.filter(held).update(key_digest=crypto.digest(new), previous_digest=None, previous_until=None)
    return new if changed else None


def prove_again(portal: Session, *, request: HttpRequest, methods: list[str], kind: str = "step_up", at: datetime | None = None) -> bool:
    """Note a fresh full proof, every due factor typed, on a live portal session. False if it ended meanwhile.

    Absolute limits stay as they were.
    """
    now = at or clock.now()
    with transaction.atomic():
        rows = Session.objects.filter(pk=portal.pk, ended_at=None)
        if not rows.filter(authenticated_at__lt=now).update(authenticated_at=now, proved_at=now, longest_pause=0, methods=methods):
            return rows.exists()  # a later proof stands already, or the session ended
        portal.authenticated_at = portal.proved_at = now
        portal.longest_pause, portal.methods = 0, methods
        events.record(kind, request=request, actor=portal.user, subject=portal.user, session=portal.id, methods=methods)
    return True


def add_method(portal: Session, method: str) -> None:
    """One more factor was typed in this tree: an authenticator was set up in it. In the caller's transaction, which holds the rows."""
    _proven_by(portal, [*[each for each in portal.methods if each != TRUSTED and each != method], method])


def lose_factor(portal: Session, *, request: HttpRequest) -> None:
    """The last authenticator is gone: from now on a password proves this tree, and its branches end where that does not suffice.

    In the caller's transaction, after `end_others`, which holds the rows. ASVS 6.5.6.
    """
    _proven_by(portal, [PASSWORD])
    now = clock.now()
    members = {each.tenant_id: each for each in Membership.objects.filter(user_id=portal.user_id)}
    ids = []
    for row in Session.objects.filter(parent=portal, ended_at=None).select_related("tenant"):
        assert row.tenant is not None
        due = row.tenant.factor_due(members.get(row.tenant.pk))
        if due is not None and due <= now:
            ids.append(row.pk)
    stricter = [pk for pk, each in members.items() if (portal.proved_at or BEGINNING) < each.prove_after]
    if end(Session.objects.filter(pk__in=ids), by=portal.user, reason=Reason.FACTORS, request=request):
        # What ended them was proven a moment ago: coming back takes a new factor, not the password once more.
        _prove_from_now(portal, Q(pk=portal.pk), stricter)


def _proven_by(portal: Session, methods: list[str]) -> None:
    portal.methods = methods
    Session.objects.filter(Q(pk=portal.pk) | Q(parent=portal), ended_at=None).update(methods=methods)


# --- end ----------------------------------------------------------------------------------------------------------


def end(
    which: SessionQuerySet,
    *,
    by: User | None,
    reason: Session.Reason,
    note: str = "",
    request: HttpRequest | None = None,
    tell: bool = True,
    since: datetime | None = None,
) -> list[Session]:
    """End these sessions and the branches below them, exactly once each; returns those that this call ended.

    The only code that ends a session (`end_here`, `end_everywhere` and `end_tenant` lock more, then call it). Runs in the
    caller's transaction if there is one, so that cause and end are one. Portal rows are locked and written first, branches
    in a second statement, both in id order; a hand-off that holds the portal row is waited for, and its branch is seen by
    the second statement. Ended rows lose their data at once.

    After an end that was not the tree's own sign-out or a limit, the person proves himself anew before he enters that tenant
    again, from any browser.

    tell: mail the people whose sessions an administrator ends. since: the stamp that ended them already; a proof that is no
    older suffices to come back.
    """
    with transaction.atomic():
        targets = list(which.filter(ended_at=None).order_by().values_list("pk", "tenant_id", "user_id"))
        if not targets:
            return []
        named: list[tuple[uuid.UUID, int | None, int]] = targets  # type: ignore[assignment]
        portals = [pk for pk, tenant, _user in named if tenant is None]
        done = _mark(Session.objects.filter(pk__in=portals, tenant=None), by, reason, note)
        below = Session.objects.filter(parent__in=[row.pk for row in done], ended_at=None).order_by()
        pairs = {(tenant, user) for _pk, tenant, user in named if tenant is not None}
        pairs |= set(below.values_list("tenant_id", "user_id"))
        if reason not in _OWN_DOING:
            demand_proof(pairs, since)
        branches = [pk for pk, tenant, _user in named if tenant is not None]
        done += _mark(Session.objects.filter(Q(pk__in=branches) | Q(parent__in=portals), tenant__isnull=False), by, reason, note)
        _log(done, by, reason, note, request)
        if tell and reason in _BY_OTHERS:
            mails.ended(done, by=by, note=note)
    return done


def _mark(rows: SessionQuerySet, by: User | None, reason: Session.Reason, note: str) -> list[Session]:
    """Lock in id order, then write; what somebody else ended meanwhile is left to him."""
    locked = list(rows.filter(ended_at=None).select_for_update(of=("self",), no_key=True).order_by("pk"))
    if not locked:
        return []
    now = clock.now()
    Session.objects.filter(pk__in=[row.pk for row in locked], ended_at=None).update(
        ended_at=now, ended_by=by, end_reason=reason, end_note=note, session_data="", previous_digest=None, previous_until=None
    )
    for row in locked:
        row.ended_at, row.ended_by, row.end_reason, row.end_note, row.session_data = now, by, reason, note, ""
    return locked


def demand_proof(pairs: Iterable[tuple[int | None, int]], since: datetime | None = None) -> None:
    """Set `prove_after` of these (tenant, user) memberships, locked by tenant, then by id, to `since`, or to this moment."""
    people: dict[int, list[int]] = {}
    for tenant, user in pairs:
        assert tenant is not None
        people.setdefault(tenant, []).append(user)
    ids: list[int] = []
    for tenant, users in sorted(people.items()):
        wanted = Membership.objects.filter(tenant_id=tenant, user_id__in=users)
        ids += wanted.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True)
    # Asked of the clock when the locks are held, and never set back. One microsecond later than now: a proof from this very
    # moment is a proof from before.
    after = since or clock.now() + timedelta(microseconds=1)
    Membership.objects.filter(pk__in=ids, prove_after__lt=after).update(prove_after=after)


def _log(done: list[Session], by: User | None, reason: Session.Reason, note: str, request: HttpRequest | None) -> None:
    if reason is Reason.PROBE:
        return
    kept = []
    for row in done:
        event = events.make("session_ended", request=request, actor=by, session=row.id, at=row.ended_at, reason=reason, note=note)
        event.tenant_id, event.subject_id = row.tenant_id, row.user_id
        kept.append(event)
    events.write(kept)


def end_here(
    user: User, tenant: Tenant, *, by: User | None, reason: Session.Reason, note: str = "", request: HttpRequest | None = None
) -> list[Session]:
    """End a person's branches at one tenant. The membership is locked first: a hand-off in flight comes before or is refused."""
    with transaction.atomic():
        demand_proof([(tenant.pk, user.pk)])
        return end(Session.objects.filter(user=user, tenant=tenant), by=by, reason=reason, note=note, request=request)


def end_everywhere(
    user: User, *, by: User | None, reason: Session.Reason, note: str = "", request: HttpRequest | None = None
) -> list[Session]:
    """End every session of a person: a stamp under a lock that sign-ins wait for, then the rows."""
    with transaction.atomic():
        locked = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        locked.valid_from = user.valid_from = clock.now() + timedelta(microseconds=1)
        locked.save(update_fields=["valid_from"])
        return end(Session.objects.filter(user=user), by=by, reason=reason, note=note, request=request)


def end_tenant(
    tenant: Tenant,
    *,
    by: User | None,
    reason: Session.Reason,
    note: str = "",
    request: HttpRequest | None = None,
    spare: Session | None = None,
) -> int:
    """End every branch of a tenant: one stamp that is in force at any size, then the rows in batches. Returns their number.

    For commands, which may take their time; a page asks `mass.end_tenant`. spare: a portal session whose tree stays. Raises
    StaleProof if it ended meanwhile.
    """
    with transaction.atomic():
        stamp_tenant(tenant, spare=spare, reason=reason, note=note)
    total = 0
    while ids := list(stamped(tenant, tenant.valid_from).order_by("pk").values_list("pk", flat=True)[:BATCH]):
        which = Session.objects.filter(pk__in=ids)
        total += len(end(which, by=by, reason=reason, note=note, request=request, tell=False, since=tenant.valid_from))
    return total


def stamp_tenant(tenant: Tenant, *, spare: Session | None = None, reason: Session.Reason = Reason.BY_ADMIN, note: str = "") -> Tenant:
    """From this moment, the new `valid_from`, no older proof opens anything at this tenant. Returns the tenant as it was.

    In the caller's transaction, which holds the tenant from now on; its rows (`stamped`) are marked behind it.

    spare: a portal session that carries this moment as its proof, with its branches here. The person's other branches here are
    marked at once, for this reason, since an end demands a still later proof of him. Raises StaleProof if it ended, or would
    have to be proven anew, meanwhile: who came first wins.
    """
    assert connection.in_atomic_block
    places = Tenant.objects.filter(pk=tenant.pk)
    if spare:
        try:
            portal = lock_portal(spare.pk)
        except NotAdmitted:
            raise StaleProof from None
        places = Tenant.objects.filter(Q(pk=tenant.pk) | Q(pk__in=Membership.objects.filter(user_id=portal.user_id).values("tenant")))
    held = {place.pk: place for place in places.select_for_update(no_key=True).order_by("pk")}
    # Never set back, should the database's clock step back.
    stamp = max(clock.now(), held[tenant.pk].valid_from) + timedelta(microseconds=1)
    if spare:
        _spare(portal, held, tenant, reason, note)
        spare.authenticated_at, spare.proved_at = portal.authenticated_at, portal.proved_at
    Tenant.objects.filter(pk=tenant.pk).update(valid_from=stamp)
    tenant.valid_from = stamp
    return held[tenant.pk]


def stamp_everything() -> None:
    """From this moment no older proof of anybody opens anything anywhere. `end_all` marks the rows behind it."""
    stamp = clock.now() + timedelta(microseconds=1)
    User.objects.filter(valid_from__lt=stamp).update(valid_from=stamp)  # never set back
    Tenant.objects.filter(valid_from__lt=stamp).update(valid_from=stamp)


def end_all(*, note: str) -> int:
    """End every session of everybody, in batches; returns their number. For a database that nobody else uses, after its stamp."""
    total = 0
    rows = Session.objects.filter(ended_at=None).order_by("pk").values_list("pk", flat=True)
    while ids := list(rows[:BATCH]):
        total += len(end(Session.objects.filter(pk__in=ids), by=None, reason=Reason.BY_OPERATOR, note=note, tell=False))
    return total


def _spare(portal: Session, places: dict[int, Tenant], tenant: Tenant, reason: Session.Reason, note: str) -> None:
    """Give a tree, which is held with all the places of its person, a proof from now on, for the sake of one place."""
    stricter = _stricter(portal, places)
    if tenant.pk in stricter:
        raise StaleProof
    here = Session.objects.filter(tenant=tenant, ended_at=None)
    end(here.filter(user_id=portal.user_id).exclude(parent=portal), by=portal.user, reason=reason, note=note, tell=False)
    _prove_from_now(portal, Q(parent=portal, tenant=tenant), stricter)


def _stricter(portal: Session, places: dict[int, Tenant]) -> set[int]:
    """The places that have ended or demanded something since the true proof of this tree: here that came first, elsewhere it goes on.

    Holds the person's memberships; the caller holds the portal row and the places.
    """
    members = Membership.objects.filter(user_id=portal.user_id).select_for_update(no_key=True).order_by("tenant_id", "pk")
    proven, typed = portal.authenticated_at, portal.proved_at or BEGINNING
    stricter = {each.tenant_id for each in members if typed < each.prove_after}
    return stricter | {pk for pk, place in places.items() if proven < place.valid_from or typed < (place.proof_demanded_at or BEGINNING)}


def _prove_from_now(portal: Session, branches: Q, stricter: Iterable[int]) -> None:
    """Let this moment be the proof of a tree and of these branches, though nobody has typed anything: not at the stricter places."""
    # Later than the proof that an end a moment ago has demanded.
    portal.authenticated_at = portal.proved_at = proof = clock.now() + timedelta(microseconds=2)
    Session.objects.filter(Q(pk=portal.pk) | branches, ended_at=None).update(authenticated_at=proof, proved_at=proof)
    Membership.objects.filter(user_id=portal.user_id, tenant__in=stricter).update(prove_after=proof + timedelta(microseconds=1))


def stamped(tenant: Tenant | int, stamp: datetime) -> SessionQuerySet:
    """The rows that a tenant's stamp has made worthless and nobody has marked yet. Whoever proves himself anew is not meant."""
    return Session.objects.filter(tenant=tenant, ended_at=None, authenticated_at__lt=stamp)


def end_unproven(tenant: Tenant) -> list[Session]:
    """End the branches of those who must have a second factor here by now and signed in without: they come back through it."""
    ids = list(unproven(tenant).order_by("pk").values_list("pk", flat=True))
    done = []
    for first in range(0, len(ids), BATCH):
        done += end(Session.objects.filter(pk__in=ids[first : first + BATCH]), by=None, reason=Reason.POLICY)
    return done


def unproven(tenant: Tenant) -> SessionQuerySet:
    """The branches that `end_unproven` ends, by the policy of `tenant`, be it stored or only thought of (see Tenant.factor_due)."""
    rules = tenant.rules
    latest = clock.now() - timedelta(days=rules.grace_days)
    if rules.second_factor == "off" or (tenant.factor_since or BEGINNING) > latest:
        return Session.objects.none()
    due = Membership.objects.filter(tenant=tenant)
    if rules.second_factor == "admins":
        due = due.exclude(role=Membership.Role.MEMBER)
    if rules.grace_days:
        due = due.filter(created_at__lte=latest)
    good = {*TYPED_FACTORS, TRUSTED} if rules.trusted_browsers else TYPED_FACTORS
    return Session.objects.filter(tenant=tenant, ended_at=None, user__in=due.values("user")).exclude(factor__in=good)


def idle_for_too_long(tenant: Tenant) -> Q:
    """Which branches have lain unused for longer than the policy of `tenant` allows, be it stored or only thought of."""
    now = clock.now()
    return _either(lambda persistent: Q(last_seen_at__lte=now - tenant.rules.idle_limit(persistent=persistent)))


def open_for_too_long(tenant: Tenant) -> Q:
    """Which branches have an older proof than the policy of `tenant` allows, be it stored or only thought of."""
    now = clock.now()
    return _either(lambda persistent: Q(authenticated_at__lte=now - tenant.rules.absolute_limit(persistent=persistent)))


def _either(limit: Callable[[bool], Q]) -> Q:
    return (Q(persistent=False) & limit(False)) | (Q(persistent=True) & limit(True))


def shorten(tenant: Tenant) -> int:
    """Make the tenant's limits hold for the branches that are open, so that those beyond them are over. Never lengthens.

    Returns how many rows were changed. In batches, each a transaction of its own, because every request of a locked row waits;
    what a crash leaves over, `prune` does.
    """
    changed = 0
    for persistent in (False, True):
        idle = F("last_seen_at") + Value(tenant.rules.idle_limit(persistent=persistent), DurationField())
        whole = F("authenticated_at") + Value(tenant.rules.absolute_limit(persistent=persistent), DurationField())
        rows = Session.objects.filter(tenant=tenant, ended_at=None, persistent=persistent)
        rows = rows.filter(Q(idle_expires_at__gt=idle) | Q(expires_at__gt=whole))
        ids = list(rows.order_by("pk").values_list("pk", flat=True))
        for first in range(0, len(ids), BATCH):
            batch = rows.filter(pk__range=(ids[first], ids[first : first + BATCH][-1]))
            with transaction.atomic():
                list(batch.select_for_update(no_key=True).order_by("pk").values_list("pk"))  # in the order of every other end
                changed += batch.update(idle_expires_at=Least(F("idle_expires_at"), idle), expires_at=Least(F("expires_at"), whole))
    return changed


def end_lapsed(tenant: Tenant | None = None, *, at_most: int | None = None) -> int:
    """Mark what ran out as ended, of one tenant or of all; returns how many. Nothing of it was alive any more."""
    total = 0
    now = clock.now()
    rows = Session.objects.filter(ended_at=None, **({"tenant": tenant} if tenant else {}))
    for reason, which in ((Reason.EXPIRED, Q(expires_at__lte=now)), (Reason.IDLE, Q(idle_expires_at__lte=now))):
        while ids := list(rows.filter(which).order_by("pk").values_list("pk", flat=True)[:BATCH]):
            total += len(end(Session.objects.filter(pk__in=ids), by=None, reason=reason))
            if at_most and total >= at_most:
                return total
    return total


def hold_person(user: User) -> User:
    """Lock a person until the transaction ends, before everything else: sign-ins and other changes of secrets wait."""
    assert connection.in_atomic_block
    return User.objects.select_for_update(no_key=True).get(pk=user.pk)


def end_others(user: User, *, spare: Session | None, by: User | None, reason: Session.Reason, request: HttpRequest | None) -> None:
    """End a person's sessions but for one tree, which carries this moment as its proof. The caller's transaction holds the person.

    spare: a portal session; raises StaleProof if it ended meanwhile: who came first wins. Where a place has ended or demanded
    something since its true proof, it still takes a new one to come back. ASVS 7.4.3.
    """
    assert connection.in_atomic_block
    rows = Session.objects.filter(user=user, tenant=None, ended_at=None).select_for_update(no_key=True).order_by("pk")
    portals = {row.pk: row for row in rows}  # all of them at once and in id order, the spared one too
    if spare and spare.pk not in portals:
        raise StaleProof
    # And all that is written below, in the order of every other end, the spared branches among the ended ones.
    stricter = _stricter(portals[spare.pk], _hold_places(user)) if spare else set()
    list(Membership.objects.filter(user=user).select_for_update(no_key=True).order_by("tenant_id", "pk").values_list("pk"))
    branches = Session.objects.filter(user=user, tenant__isnull=False, ended_at=None)
    list(branches.select_for_update(no_key=True).order_by("pk").values_list("pk"))
    user.valid_from = clock.now()
    user.save(update_fields=["valid_from"])
    others = Session.objects.filter(user=user)
    if spare:
        others = others.exclude(pk=spare.pk).exclude(parent=spare)
    end(others, by=by, reason=reason, request=request)
    if spare:
        # A branch that its tenant's stamp has ended already, before its row is marked, is not revived.
        kept = Session.objects.filter(parent=spare, ended_at=None, authenticated_at__gte=F("tenant__valid_from"))
        _prove_from_now(spare, Q(pk__in=list(kept.values_list("pk", flat=True))), stricter)
        Session.objects.filter(pk=spare.pk, ended_at=None).update(longest_pause=0)
        spare.longest_pause = 0


def change_password(
    user: User, raw: str, *, by: User | None, request: HttpRequest | None, spare: Session | None = None, link: Link | None = None
) -> None:
    """Set a new password and end the person's sessions, all in one transaction; `spare` (a portal session) and its tree stay.

    user: as it was when the change was proven; link: what proved it, used up here. Raises StaleProof if its password changed
    since, if it was deactivated, or if `spare` or `link` is over: who came first wins. No browser is known or trusted any more.
    """
    proven_with = user.epoch
    user.set_password(raw)  # hashed before the transaction: SQLite's other writers need not wait for it
    with transaction.atomic():
        if not User.objects.select_for_update(no_key=True).filter(pk=user.pk, epoch=proven_with, is_active=True):
            raise StaleProof
        if link and not links.take(link):
            raise StaleProof
        user.epoch = secrets.token_hex(8)
        user.save(update_fields=["password", "epoch"])
        known.forget_all(user)
        TotpDevice.objects.filter(user=user, confirmed=False).delete()  # a key that somebody has seen with the old password
        end_others(user, spare=spare, by=by, reason=Reason.PASSWORD, request=request)
        events.record("password_changed", request=request, actor=by, subject=user)
        mails.password_changed(user, request=request)


def withdraw_password(user: User) -> None:
    """Make the password worthless, with every link and half-way sign-in behind it; sessions stay. The caller holds the person."""
    assert connection.in_atomic_block
    user.set_unusable_password()
    user.epoch = secrets.token_hex(8)
    user.save(update_fields=["password", "epoch"])
