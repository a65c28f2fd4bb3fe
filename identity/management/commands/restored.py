"""`manage.py restored`: after a database came back from a backup. deploy/restore.sh runs it before anybody uses the database."""

from dataclasses import asdict
from typing import Any

from django.core.management import CommandError, CommandParser

from identity import restoring
from identity.management.output import Answer, VerbCommand, change, count
from tenants.text import clean

WORDS = {
    "tickets": "unused tickets",
    "links": "unused links",
    "invitations": "open invitations: send them anew",
    "trusted_browsers": "trusted browsers: the next sign-in there asks for the code",
    "enrolments": "authenticators that were being set up",
    "mails": "mails that waited: they may have left before",
    "recovery_codes": "unused recovery codes: people make new ones under Two-factor",
}
AGAIN = (
    "Unused recovery codes are good, and so are those used since the copy was taken. To void them all: "
    "manage.py restored --void-recovery-codes"
)
AS_BEFORE = (
    "Passwords, factors, roles, blocks and policies are as they were then, and what was deleted since is back. Undo by hand what must stay."
)


class Command(VerbCommand):
    help = "Make everything worthless that a restored database brings back: sessions, tickets, links, invitations, codes, waiting mails."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.restored, changes=True, in_steps=True)
        parser.add_argument("--copy", default="", metavar="NAME", help="which backup it was, for the event")
        parser.add_argument("--void-recovery-codes", action="store_true", help="unused recovery codes, too")
        parser.add_argument("--check", action="store_true", help="change nothing; say whether this release can work with the database")

    def restored(self, *, copy: str, void_recovery_codes: bool, check: bool, **_: Any) -> Answer:
        if unknown := restoring.unknown_migrations():
            raise CommandError(
                f"A newer release of Gatehouse wrote this database: this one does not know {unknown[-1]}. "
                "Install that release, or a later one."
            )
        if check:
            return change("This release can work with the database.", changed=False)
        voided = asdict(restoring.void_everything(copy=clean(copy), recovery_codes=void_recovery_codes))
        lines = [f"{count(voided['sessions'], 'session')} ended, and no proof from before opens anything."]
        lines += [f"Void now: {n} {WORDS[name]}." for name, n in voided.items() if n and name in WORDS]
        lines += [*([] if void_recovery_codes else [AGAIN]), AS_BEFORE]
        return change(*lines, changed=True, **voided)
