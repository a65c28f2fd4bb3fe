"""`manage.py event`: the audit log. What happened, whether the log is as it was written, and a copy of it for elsewhere."""

import csv
import json
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TextIO

from django.core.management import CommandError, CommandParser
from django.db.models import Q, QuerySet
from django.utils import timezone

from identity import seals
from identity.audit import Audit, Finding, Problem
from identity.journal import harmless
from identity.management.output import Answer, VerbCommand, at_most, change, count, person_named, plain, table, tenant_named
from identity.models import Event, User
from identity.snapshot import pages, snapshot

LISTED = 50
TOLD = 1_000  # findings, at most
FIELDS = (
    "id at kind tenant_id tenant actor_id actor subject_id subject session ip user_agent request_id data mac seal".split()  # noqa: SIM905
)
_TIMES = "Such as 2026-11-21, 2026-11-21T09:30Z (UTC), or 7d, 12h, 30m ago"
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(VerbCommand):
    help = "List the events of the audit log, verify that nobody changed it, export it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        listing = _filters(self.verb(verbs.add_parser("list", help="the newest events first"), self.listing))
        listing.add_argument("--limit", type=at_most, default=LISTED, metavar="N", help=f"at most so many ({LISTED}); 0: all")
        verify = self.verb(verbs.add_parser("verify", help="is the log as it was written? exit code 1 if not"), self.verify)
        verify.add_argument("--tenant", metavar="SLUG", help="this tenant's only; portal: the platform's own")
        verify.add_argument("--heads", metavar="FILE", help="the program's log (- is the input): compare the heads that the sealer printed")
        export = _filters(verbs.add_parser("export", help="the oldest events first, as CSV or JSON lines"))
        export.add_argument("--format", choices=["csv", "jsonl"], default="jsonl", help="default: jsonl")
        export.add_argument("--json", action="store_const", const="jsonl", dest="format", help="the same as --format jsonl")
        export.set_defaults(method=self.export, whole=False, json=False)
        self.verb(verbs.add_parser("seal", help="seal the newest events now, not in a second"), self.seal, changes=True, in_steps=True)

    # --- list -------------------------------------------------------------------------------------------------------

    def listing(self, *, limit: int | None, **filters: Any) -> Answer:
        rows = list(_wanted(**filters).order_by("-pk")[: limit + 1 if limit else None])
        more = bool(limit) and len(rows) > (limit or 0)
        rows = rows[:limit]
        lines = table(["EVENT", "WHEN (UTC)", "WHAT", "BY", "WHOM", "ADDRESS", "DETAILS"], [_line(row) for row in rows])
        if not rows:
            lines = ["No event matches. Without filters: manage.py event list"]
        if more:
            lines.append(f"The newest {len(rows)}. Older ones with --limit or --until, all of them: manage.py event export")
        return Answer(lines, {"events": [described(row) for row in rows], "more": more})

    # --- verify -----------------------------------------------------------------------------------------------------

    def verify(self, *, tenant: str | None, heads: str | None, **_: Any) -> Answer:
        with _opened(heads) as lines:
            audit = Audit(_place(tenant), everything=tenant is None, heads=lines)
            found = audit.findings()
            told = list(islice(found, TOLD))
            kinds = {each.problem for each in told}
            more = 0
            for each in found:
                kinds.add(each.problem)
                more += 1
        if heads and not audit.printed:
            raise CommandError(f"There are no heads in {heads}. A line that has one: seal acme n=12 count=3 head=…")
        return self._verdict(audit, told, more, kinds)

    @staticmethod
    def _verdict(audit: Audit, told: list[Finding], more: int, kinds: set[Problem]) -> Answer:
        of = f"{count(audit.events, 'event')} and {count(audit.seals, 'seal')} in {count(len(audit.chains), 'chain')}"
        data: dict[str, Any] = {"ok": not told, "events": audit.events, "seals": audit.seals, "printed": audit.printed}
        data["chains"] = [{"place": one.place, "first": one.first, "last": one.last, "head": one.head} for one in audit.chains.values()]
        data |= {"findings": [asdict(each) for each in told], "more": more}
        lines = [f"{each.place}: {each.text}" for each in told] + ([f"And {more:,} more."] if more else [])
        if not told:
            audit.note()
            compared = f", and as the log has them ({count(audit.printed, 'head')})" if audit.printed else ""
            return Answer([f"{of}: all as they were written{compared}."], data)
        if kinds == {Problem.KEY_GONE}:
            cure = "Put the old key back into ENCRYPTION_KEYS to verify the rest."
            return Answer(lines, data, error=f"Of {of} nothing is changed that can be verified. {cure}")
        cure = "Keep a copy of the database and of the log as evidence."
        return Answer(lines, data, error=f"The audit log is not as it was written ({of}). {cure}")

    # --- export -----------------------------------------------------------------------------------------------------

    def export(self, *, format: str, **filters: Any) -> Answer:
        rows = _wanted(**filters)
        seals.seal(wait=True)
        written, unfit = 0, 0
        try:
            write = csv.DictWriter(self.stdout, FIELDS, lineterminator="\n")
            if format == "csv":
                write.writeheader()
            with snapshot():
                for page, unreadable in pages(rows):
                    unfit += len(unreadable)
                    written += len(page)
                    for row in page:
                        if format == "csv":
                            write.writerow(_cells(row))
                        else:
                            self.stdout.write(json.dumps(described(row), default=plain))
        except BrokenPipeError:  # whoever reads has seen enough, such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warnings = [f"{count(unfit, 'event')} cannot be read, and not exported. See manage.py event verify"] if unfit else []
        self.stderr.write(f"{count(written, 'event')} exported.")
        return Answer([], {}, warnings)

    # --- seal -------------------------------------------------------------------------------------------------------

    def seal(self, *, dry_run: bool, **_: Any) -> Answer:
        n = Event.objects.filter(seal=None).count() if dry_run else seals.seal(wait=True)
        return change(f"{count(n, 'event')} sealed." if n else "All events have their seals.", changed=n > 0, sealed=n)


# --- Which, and how they look -------------------------------------------------------------------------------------


def _filters(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--tenant", metavar="SLUG", help="this tenant's only; portal: the platform's own")
    parser.add_argument("--person", metavar="NAME", help="done by this person, or to this person")
    parser.add_argument("--kind", action="append", metavar="KIND", help="of this kind, such as sign_in; may be repeated")
    parser.add_argument(
        "--since", type=_moment, metavar="TIME", help="from then on: 2026-11-21, 2026-11-21T09:30Z (UTC), or 7d, 12h, 30m ago"
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="before then")
    return parser


def _moment(text: str) -> datetime:
    if found := re.fullmatch(r"(\d{1,5})([mhdw])", text):
        return timezone.now() - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"“{text}” is no time. {_TIMES}") from None


def _place(tenant: str | None) -> Any:
    return tenant_named(tenant) if tenant and tenant != seals.PORTAL else None


def _wanted(
    *, tenant: str | None, person: str | None, kind: list[str] | None, since: datetime | None, until: datetime | None, **_: Any
) -> QuerySet[Event]:
    wanted = Event.objects.select_related("tenant", "actor", "subject", "seal")
    if tenant:
        wanted = wanted.filter(tenant=_place(tenant))
    if person:
        who = person_named(person)
        wanted = wanted.filter(Q(subject=who) | Q(actor=who))
    if kind:
        wanted = wanted.filter(kind__in=kind)
    if since:
        wanted = wanted.filter(at__gte=since)
    return wanted.filter(at__lt=until) if until else wanted


def _line(row: Event) -> list[Any]:
    at = row.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    details = " ".join(f"{name}={value}" for name, value in row.data.items() if value not in (None, "", [], {}))
    return [_reference(row), at, row.kind, _name(row.actor, row.actor_id), _name(row.subject, row.subject_id), row.ip, details]


def _reference(row: Event) -> str:
    return f"{row.tenant.slug if row.tenant else f'#{row.tenant_id}' if row.tenant_id else seals.PORTAL}-{row.pk}"


def _name(person: User | None, pk: int | None) -> str:
    """A person's name, or the id of an account that is no more."""
    return person.username if person else f"#{pk}" if pk else ""


def described(row: Event) -> dict[str, Any]:
    """All of an event, with the names that its ids have today. `seal` is the number in the chain of its tenant."""
    return {
        "id": row.pk,
        "at": row.at,
        "kind": row.kind,
        "tenant_id": row.tenant_id,
        "tenant": row.tenant.slug if row.tenant else None,
        "actor_id": row.actor_id,
        "actor": row.actor.username if row.actor else None,
        "subject_id": row.subject_id,
        "subject": row.subject.username if row.subject else None,
        "session": row.session,
        "ip": row.ip,
        "user_agent": row.user_agent,
        "request_id": row.request_id,
        "data": row.data,
        "mac": row.mac,
        "seal": row.seal.n if row.seal else None,
    }


def _cells(row: Event) -> dict[str, Any]:
    """A row for a spreadsheet, in which no text is a formula."""
    cells = {**described(row), "at": plain(row.at), "data": json.dumps(row.data)}
    return {name: harmless(cell) for name, cell in cells.items()}


@contextmanager
def _opened(path: str | None) -> Iterator[TextIO | list[str]]:
    """The lines of a file, of the input (-), or none."""
    if path is None:
        yield []
    elif path == "-":
        yield sys.stdin
    else:
        try:
            file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        with file:
            yield file
