"""A tenant's part of the audit log, as the tenant's admins may read it: which events, and what of each.

Never shown is what tells of other places: people who never belonged here, the portal session behind a branch, and from where
somebody did what ended a branch here without being at this tenant. A filter finds nothing by what is not shown. ASVS 8.2.2, 8.2.3.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from identity.models import Event, Seal, Session, User, fold
from identity.networks import within
from identity.snapshot import UNFIT, pages, snapshot
from tenants.models import Membership, Tenant

Reason = Session.Reason
# What an event says of its circumstances, beside before and after; anything else may be meant for those who run the platform.
TOLD = frozenset(
    "again app bucket count ended expected failed fields format group how invitation kinds mail methods minutes n note "  # noqa: SIM905
    "path people persons reason role seal seconds sessions since source tries until verdict".split()
)
FOREIGN = "foreign_"  # an admin named what is not of this tenant: whether it exists is not told
OF_A_BRANCH = frozenset({"branch_opened", "session_ended"})
BELONGED = frozenset({"member_added", "member_removed", "member_left", "joined", "join_asked", "join_declined"})
# Ends that somebody made in this tenant's console. All others were caused elsewhere.
ENDED_HERE = frozenset({Reason.BY_ADMIN.value, Reason.BLOCKED.value, Reason.REMOVED.value})
FOUND = 500  # people that a search may mean
# What some spreadsheet takes for a formula: at the beginning, behind what it drops there, and, where the semicolon parts the cells of
# a file (as in half of Europe), behind one. Full-width signs and the true minus count, too.
_FORMULA = re.compile(r"""((?:^|;)[\s"'\u200b\ufeff]*?)(?=[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20\u2212])""")


# --- Which --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is looked for. people: by or about these; None: whoever."""

    kinds: tuple[str, ...] = ()
    people: tuple[int, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    address: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """For events: values and ids, without what is not asked."""
        found = {"kinds": self.kinds, "persons": self.people, "since": self.since, "until": self.until, "network": self.address}
        return {name: value for name, value in found.items() if value}


def matching(tenant: Tenant, wanted: Criteria) -> QuerySet[Event]:
    """The events of one tenant that match, in no order."""
    rows = _matching(tenant, wanted)
    return rows if wanted.people is None else rows.filter(Q(actor__in=wanted.people) | _about(wanted.people))


def halves(tenant: Tenant, wanted: Criteria) -> tuple[QuerySet[Event], QuerySet[Event] | None]:
    """The same for one page of many: with people, what they did, and what else was done to them, each by an index of its own."""
    rows = _matching(tenant, wanted)
    if wanted.people is None:
        return rows, None
    return rows.filter(actor__in=wanted.people), rows.filter(_about(wanted.people)).exclude(actor__in=wanted.people)


def _matching(tenant: Tenant, wanted: Criteria) -> QuerySet[Event]:
    rows = Event.objects.filter(tenant=tenant)
    if wanted.kinds:
        rows = rows.filter(kind__in=wanted.kinds)
    if wanted.since:
        rows = rows.filter(at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(at__lt=wanted.until)
    if wanted.address:
        rows = rows.filter(within(wanted.address) or Q(pk=None)).exclude(_elsewhere())
    return rows


def _about(people: Sequence[int]) -> Q:
    return Q(subject__in=people) & ~Q(kind__startswith=FOREIGN)


def _elsewhere() -> Q:
    """As `_is_from_here` says it, for the database."""
    return Q(kind="not_me_told") | (Q(kind="session_ended") & ~Q(data__reason__in=sorted(ENDED_HERE)))


def people(tenant: Tenant, typed: str) -> tuple[int, ...]:
    """Whom of this tenant somebody means: the one with exactly this name, also from before; or the members who match."""
    exact = User.objects.filter(name_key=fold(typed)).first()
    if exact and (_belongs(tenant, {exact.pk}) or Event.objects.filter(tenant=tenant, actor=exact).exists()):
        return (exact.pk,)
    members = Membership.objects.filter(tenant=tenant, user__search_text__contains=fold(typed))
    return tuple(members.order_by("user_id").values_list("user_id", flat=True)[:FOUND])


def _belongs(tenant: Tenant, ids: set[int]) -> set[int]:
    """Who of them belongs to the tenant, or did, or asked to."""
    now = set(Membership.objects.filter(tenant=tenant, user__in=ids).values_list("user_id", flat=True))
    rest = ids - now
    if not rest:
        return now
    once = Event.objects.filter(tenant=tenant, kind__in=BELONGED, subject__in=rest).order_by().values_list("subject_id", flat=True)
    return now | set(once.distinct())


# --- What of each -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """Who did something, or to whom. username "": the account is no more, or (id 0) the person never belonged here."""

    id: int
    username: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as a tenant's admins may read it. `seal` is its number in the tenant's chain."""

    id: int
    reference: str
    at: datetime
    kind: str
    by: Person | None
    whom: Person | None
    session: UUID | None
    address: str
    user_agent: str
    request_id: str
    before: Any
    after: Any
    data: dict[str, Any] = field(default_factory=dict)
    seal: int | None = None
    is_from_here: bool = True


def entries(tenant: Tenant, rows: Sequence[Event]) -> list[Entry]:
    """What may be told of these events, with the names that their ids have today."""
    subjects = {row.subject_id for row in rows if row.subject_id}
    actors = {row.actor_id for row in rows if row.actor_id}
    known = _belongs(tenant, subjects - actors) | actors  # whoever acted at this tenant is no stranger to it
    named = {each.pk: each for each in User.objects.filter(pk__in=known).only("username", "first_name", "last_name")}
    seals = dict(Seal.objects.filter(pk__in={row.seal_id for row in rows if row.seal_id}).values_list("pk", "n"))

    def person(pk: int | None) -> Person | None:
        if not pk:
            return None
        if pk not in known:
            return Person(0)
        found = named.get(pk)
        return Person(pk, found.username, found.display_name) if found else Person(pk)

    return [_entry(tenant, row, person(row.actor_id), person(row.subject_id), seals.get(row.seal_id or 0)) for row in rows]


def _entry(tenant: Tenant, row: Event, by: Person | None, whom: Person | None, seal: int | None) -> Entry:
    foreign, here = row.kind.startswith(FOREIGN), _is_from_here(row)
    data = row.data if isinstance(row.data, dict) and not foreign else {}
    return Entry(
        id=row.pk,
        reference=f"{tenant.slug}-{row.pk}",
        at=row.at,
        kind=row.kind,
        by=by,
        whom=None if foreign else whom,
        session=row.session if row.kind in OF_A_BRANCH else None,
        address=(row.ip or "") if here else "",
        user_agent=row.user_agent if here else "",
        request_id=row.request_id if here else "",
        before=data.get("before"),
        after=data.get("after"),
        data={name: value for name, value in data.items() if name in TOLD},
        seal=seal,
        is_from_here=here,
    )


def _is_from_here(row: Event) -> bool:
    if row.kind == "session_ended":
        return isinstance(row.data, dict) and row.data.get("reason") in ENDED_HERE
    return row.kind != "not_me_told"


# --- A copy for elsewhere -----------------------------------------------------------------------------------------

COLUMNS = "id at kind by whom session address user_agent request_id before after data seal".split()  # noqa: SIM905


def lines(tenant: Tenant, rows: QuerySet[Event], form: str) -> Iterator[str]:
    """The oldest first, as CSV or JSON lines ("csv", "jsonl"), some thousand to a piece, as they are at one moment.

    In bounded memory, however many there are. An event that cannot be read (`event verify` says which) is a line with its id only.
    """
    write = csv.writer(_Through())
    if form == "csv":
        yield write.writerow(COLUMNS)
    with snapshot():
        for page, unfit in pages(rows):
            told = [_plain(each) for each in entries(tenant, page)] + [_unreadable(pk) for pk in unfit]
            if form == "csv":
                yield "".join(write.writerow(_cells(each)) for each in told)
            else:
                yield "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told)


class _Through:
    """What csv writes, it gets back."""

    def write(self, text: str) -> str:
        return text


def _unreadable(pk: int) -> dict[str, Any]:
    return {"id": pk, "kind": "unreadable"}


def _plain(entry: Entry) -> dict[str, Any]:
    try:
        at = entry.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except UNFIT:  # on SQLite a word may stand in place of a time
        return _unreadable(entry.id)
    told = {name: getattr(entry, name) for name in COLUMNS}
    return told | {
        "at": at,
        "by": _name(entry.by),
        "whom": _name(entry.whom),
        "session": str(entry.session) if entry.session else None,
    }


def _name(person: Person | None) -> str | None:
    if person is None:
        return None
    return person.username or (f"#{person.id}" if person.id else "?")


def _cells(told: dict[str, Any]) -> list[Any]:
    cells = (told.get(name) for name in COLUMNS)
    return [harmless(json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else cell) for cell in cells]


def harmless(cell: Any) -> Any:
    """A cell for a spreadsheet, in which no text is a formula. ASVS 1.2.10."""
    return _FORMULA.sub("\\1'", cell) if isinstance(cell, str) else cell
