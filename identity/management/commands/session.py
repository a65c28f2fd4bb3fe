"""`manage.py session`: who is signed in, and ending it. The list is the store."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management import CommandError, CommandParser
from django.db import transaction

from identity import sessions
from identity.devices import device
from identity.management.output import Answer, VerbCommand, at_most, change, count, note, person_named, table, tenant_named
from identity.models import Session, SessionQuerySet, User
from tenants.models import Tenant
from tenants.text import clean

LISTED = 50


class Command(VerbCommand):
    help = "List live or ended sessions; end some, a person's, or a whole tenant's."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        listing = self.verb(verbs.add_parser("list", help="live sessions, or ended ones"), self.listing)
        listing.add_argument("--tenant", metavar="SLUG", help="branches at this tenant only")
        listing.add_argument("--user", metavar="NAME", help="this person's only")
        listing.add_argument("--ended", action="store_true", help="the history: by whom, when and why")
        listing.add_argument("--limit", type=at_most, default=LISTED, metavar="N", help=f"at most so many ({LISTED}); 0: all")
        end = self.verb(verbs.add_parser("end", help="end sessions at once"), self.end, changes=True, in_steps=True)
        end.add_argument("ids", nargs="*", metavar="ID", help="public ids, as session list prints them")
        end.add_argument("--user", metavar="NAME", help="all of this person's; with --tenant: those at that tenant")
        end.add_argument("--tenant", metavar="SLUG", help="all of this tenant's")
        end.add_argument("--reason", metavar="TEXT", required=True, help="the person reads it, and it stays in the log")

    # --- list -------------------------------------------------------------------------------------------------------

    def listing(self, *, tenant: str | None, user: str | None, ended: bool, limit: int | None, **_: Any) -> Answer:
        place = tenant_named(tenant) if tenant else None
        person = person_named(user) if user else None
        order = "ended_at" if ended else "last_seen_at"
        total = 0
        rows: list[Session] = []
        for part in [over(place)] if ended else alive(place):
            part = part.filter(user=person) if person else part
            total += part.count()
            rows += part.select_related("user", "tenant", "ended_by").order_by(f"-{order}", "-pk")[:limit]
        rows = sorted(rows, key=lambda row: getattr(row, order), reverse=True)[:limit]
        lines = self._lines(rows, ended=ended) if rows else [self._nothing(ended)]
        if total > len(rows):
            lines.append(f"{len(rows)} of {total}. More with --limit, fewer with --tenant or --user.")
        return Answer(lines, {"sessions": [described(row) for row in rows], "total": total})

    @staticmethod
    def _lines(rows: list[Session], *, ended: bool) -> list[str]:
        header = ["ID", "PERSON", "PLACE", "DEVICE", "ADDRESS", "SIGNED IN (UTC)"]
        first = [[row.pk, row.user.username, where(row), device(row.user_agent).label, row.ip, row.created_at] for row in rows]
        if ended:
            header += ["ENDED", "BY", "WHY"]
            rest = [[row.ended_at, row.ended_by.username if row.ended_by else "", why(row)] for row in rows]
        else:
            header += ["SEEN", "EXPIRES"]
            rest = [[row.last_seen_at, expires(row)] for row in rows]
        return table(header, [left + right for left, right in zip(first, rest, strict=True)])

    @staticmethod
    def _nothing(ended: bool) -> str:
        return "No session has ended here." if ended else "Nobody is signed in here. Those that are over: manage.py session list --ended"

    # --- end --------------------------------------------------------------------------------------------------------

    def end(self, *, ids: list[str], user: str | None, tenant: str | None, reason: str, **_: Any) -> Answer:
        text = clean(reason, 200).strip()
        if not text:
            raise CommandError('Say why: the person reads it, and it stays in the log. --reason "Laptop lost"')
        if bool(ids) == bool(user or tenant):
            raise CommandError("Name the sessions by ID, or a person with --user, or a tenant with --tenant; one of these ways.")
        place = tenant_named(tenant) if tenant else None
        person = person_named(user) if user else None
        whole_tenant = place is not None and person is None  # in batches, each committed
        with nullcontext() if whole_tenant else transaction.atomic():
            ended, skipped = self._end(ids, person, place, text)
            if ended:
                note("sessions_ended", tenant=place, subject=person, reason=text, ended=ended, ids=ids)
        lines = [f"{count(ended, 'session')} ended." if ended else "There was no live session to end."]
        if skipped:
            lines.append(f"{count(skipped, 'was', 'were')} over already.")
        return change(*lines, changed=ended > 0, ended=ended, already_over=skipped)

    @staticmethod
    def _end(ids: list[str], person: User | None, place: Tenant | None, text: str) -> tuple[int, int]:
        """How many this call ended (with branches below them), and how many of the named ones were over before."""
        reason = sessions.Reason.BY_OPERATOR
        if person and place:
            return len(sessions.end_here(person, place, by=None, reason=reason, note=text)), 0
        if person:
            return len(sessions.end_everywhere(person, by=None, reason=reason, note=text)), 0
        if place:
            return sessions.end_tenant(place, by=None, reason=reason, note=text), 0
        which = named(ids)
        over_before = which.filter(ended_at__isnull=False).count()
        return len(sessions.end(which, by=None, reason=reason, note=text)), over_before


def alive(place: Tenant | None) -> Iterator[SessionQuerySet]:
    """The live sessions of one tenant; or of the portal, and of every tenant where there may be some."""
    if place:
        yield Session.objects.alive_at(place)
        return
    yield Session.objects.alive_at_portal()
    for pk in Session.objects.filter(tenant__isnull=False, ended_at=None).order_by().values_list("tenant", flat=True).distinct():
        assert pk is not None
        yield Session.objects.alive_at(pk)


def over(place: Tenant | None) -> SessionQuerySet:
    rows = Session.objects.filter(ended_at__isnull=False).exclude(end_reason=Session.Reason.PROBE)
    return rows.filter(tenant=place) if place else rows


def named(ids: list[str]) -> SessionQuerySet:
    """The sessions with these public ids. One that is none is an error, and nothing is ended."""
    try:
        keys = {UUID(text) for text in ids}
    except ValueError:
        raise CommandError("A session's id looks like 0b9e1f6a-….  They are here: manage.py session list") from None
    which = Session.objects.filter(pk__in=keys)
    unknown = keys - set(which.values_list("pk", flat=True))
    if unknown:
        raise CommandError(
            f"There is no session {', '.join(map(str, sorted(unknown)))}. Nothing was ended. They are here: manage.py session list"
        )
    return which


def where(row: Session) -> str:
    return row.tenant.slug if row.tenant else "portal"


def expires(row: Session) -> datetime:
    return min(row.expires_at, row.idle_expires_at)


def why(row: Session) -> str:
    return f"{row.get_end_reason_display()}: {row.end_note}" if row.end_note else str(row.get_end_reason_display())


def described(row: Session) -> dict[str, Any]:
    return {
        "id": row.pk,
        "parent": row.parent_id,
        "username": row.user.username,
        "name": row.user.get_full_name(),
        "place": where(row),
        "tenant": row.tenant.slug if row.tenant else None,
        "device": row.user_agent,
        "address": row.ip,
        "methods": row.methods,
        "persistent": row.persistent,
        "signed_in": row.created_at,
        "seen": row.last_seen_at,
        "expires": expires(row),
        "ended": row.ended_at,
        "ended_by": row.ended_by.username if row.ended_by else None,
        "reason": row.end_reason or None,
        "note": row.end_note or None,
    }
