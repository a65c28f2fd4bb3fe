"""What the commands share: verbs, `--json`, `--dry-run`, tables, and errors that carry their cure."""

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser
from django.core.management.base import OutputWrapper
from django.db import IntegrityError, OperationalError, ProgrammingError, transaction

from identity import events
from identity.models import User
from tenants.models import Tenant
from tenants.text import clean

COMMAND_LINE = "command line"
NO_TENANTS = 'No tenants yet: manage.py tenant add acme "Acme"'


@dataclass(slots=True)
class Answer:
    """What a verb has to say: lines for people, data with stable keys for machines, warnings for both.

    error: it is said, what was done stays done, and then the command fails with this text and exit code.
    """

    lines: list[str]
    data: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    code: int = 1


def change(*lines: str, before: Any = None, after: Any = None, changed: bool = True, warnings: Iterable[str] = (), **more: Any) -> Answer:
    """The answer of a verb that changes something. In a dry run `changed` says whether it would have."""
    return Answer(list(lines), {"changed": changed, "before": before, "after": after, **more}, list(warnings))


Verb = Callable[..., Answer]


def as_called(text: str) -> str:
    """Commands in our own words, as they are typed here: in an installation gatehouse, in a checkout manage.py."""
    return re.sub(r"\bmanage\.py(?= [a-z])", settings.COMMAND, text)


class Errors(OutputWrapper):
    """What went wrong, without the name that the class of the error has in Python."""

    def write(self, msg: str = "", style_func: Callable[[str], str] | None = None, ending: str | None = None) -> None:  # type: ignore[override]
        super().write(as_called(msg.removeprefix("CommandError: ")), style_func, ending)


class VerbCommand(BaseCommand):
    """A command of ours. Each verb is a method that takes its options by name and returns an Answer.

    Errors are CommandErrors with their cure (exit code 1); wrong usage is argparse's (exit code 2).
    """

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        return super().create_parser(settings.COMMAND, subcommand, **options)

    def run_from_argv(self, argv: list[str]) -> None:
        style = self.stderr.style_func
        self.stderr = Errors(sys.stderr)
        self.stderr.style_func = style
        super().run_from_argv(argv)

    def verb(self, parser: ArgumentParser, method: Verb, *, changes: bool = False, in_steps: bool = False) -> ArgumentParser:
        """Let `method` answer for this parser.

        changes: it takes --dry-run, and is one transaction. in_steps: it commits by itself, step by step.
        """
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        if changes:
            parser.add_argument("--dry-run", action="store_true", help="do everything, then take it back and say so")
        parser.set_defaults(method=method, whole=changes and not in_steps)
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        method: Verb = options.pop("method")
        as_json, whole, dry_run = options.pop("json"), options.pop("whole"), options.get("dry_run")
        try:
            with transaction.atomic() if whole or dry_run else nullcontext():
                answer = method(**options)
                if dry_run:
                    transaction.set_rollback(True)
        except ValidationError as wrong:
            raise CommandError("\n".join(plain_lines(wrong))) from None
        except IntegrityError as error:
            raise CommandError("Somebody changed the same thing at this moment. Nothing was changed here; try again.") from error
        except (OperationalError, ProgrammingError) as error:
            said = clean(str(error).strip().partition("\n")[0])
            raise CommandError(
                f"The database says: {said}. Its tables: manage.py migrate. What is wrong: manage.py doctor --only database"
            ) from error
        self.say(answer, as_json=as_json, dry_run=dry_run)
        self.stdout.flush()
        if answer.error:
            raise CommandError(answer.error, returncode=answer.code)

    def say(self, answer: Answer, *, as_json: bool, dry_run: bool | None = None) -> None:
        """Print an answer; dry_run is None for a verb that changes nothing."""
        if as_json:
            extra = {} if dry_run is None else {"dry_run": dry_run, "warnings": answer.warnings}
            self.stdout.write(json.dumps({**answer.data, **extra}, default=plain, ensure_ascii=False, indent=2))
            return
        if dry_run:
            self.stdout.write("Dry run: nothing was changed. Without --dry-run it says:")
        for line in answer.lines:
            self.stdout.write(as_called(line))
        for warning in answer.warnings:
            self.stderr.write(f"Warning: {warning}", self.style.WARNING)


def plain(value: Any) -> Any:
    """What JSON has no form for: times in UTC, durations in whole seconds, ids as texts."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def plain_lines(wrong: ValidationError) -> list[str]:
    """A form's errors as lines, each with the name of its field."""
    if not hasattr(wrong, "error_dict"):
        return list(wrong.messages)
    named = wrong.message_dict.items()
    return [text if name == NON_FIELD_ERRORS else f"{name.replace('_', ' ')}: {text}" for name, texts in named for text in texts]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, widest: int = 44) -> list[str]:
    """Columns for a terminal. Foreign text is cleaned, so that no name or user agent can steer it."""
    cells = [list(header), *[[_cell(value, widest) for value in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def facts(pairs: Iterable[tuple[str, Any]]) -> list[str]:
    """One fact a line, the values below each other."""
    listed = [(label, _cell(value, 300)) for label, value in pairs]
    width = max(len(label) for label, _value in listed)
    return [f"{label.ljust(width)}  {value}".rstrip() for label, value in listed]


def _cell(value: Any, widest: int) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = clean("" if value is None else str(value))
    return text if len(text) <= widest else f"{text[: widest - 1]}…"


def count(n: int, one: str, many: str = "") -> str:
    """“1 session”, “3 sessions”."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def at_most(text: str) -> int | None:
    """For argparse: a number of rows to show; 0 is no limit."""
    if not text.isdecimal():
        raise ArgumentTypeError("is a whole number; 0 shows all")
    return int(text) or None


# --- Finding and noting -------------------------------------------------------------------------------------------


def tenant_named(slug: str, *, lock: bool = False) -> Tenant:
    """The tenant with this slug, or an error that says how to find one. lock: hold it until the transaction ends."""
    tenants = Tenant.objects.select_for_update(no_key=True) if lock else Tenant.objects.all()
    if tenant := tenants.filter(slug=slug).first():
        return tenant
    cure = "Those there are: manage.py tenant list" if Tenant.objects.exists() else NO_TENANTS
    raise CommandError(f"There is no tenant “{clean(slug)}”. {cure}")


def person_named(name: str, *, lock: bool = False) -> User:
    """The person with this user name (or verified e-mail address), or an error that says how to find one."""
    person = User.objects.named(name)
    if person and lock:
        person = User.objects.select_for_update(no_key=True).filter(pk=person.pk).first()
    if person:
        return person
    shown = clean(name)
    raise CommandError(
        f"There is no user “{shown}”. Look for one: manage.py user list --search {shown}. Or add one: manage.py user add {shown} EMAIL"
    )


def note(kind: str, *, tenant: Tenant | None = None, subject: User | None = None, **data: Any) -> None:
    """Record what the command line did: nobody's account stands behind it. Values as in JSON; never a secret."""
    fitting = json.loads(json.dumps(data, default=plain))
    events.record(kind, tenant=tenant, subject=subject, source=COMMAND_LINE, **fitting)
