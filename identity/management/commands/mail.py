"""`manage.py mail`: what is in the queue, what did not leave and why, and sending it. No text of a mail is ever shown."""

from typing import Any

from django.core.management import CommandError, CommandParser

from identity import chores, clock, mails
from identity.management.output import Answer, VerbCommand, at_most, change, count, note, table
from identity.models import Mail

LISTED = 50
AT_ONCE = 1000  # questions and locks that one run looks after: a timer comes seldom
STATES = ("waiting", "sent", "failed")


class Command(VerbCommand):
    help = "List the mails in the queue, send what is due, and try again what was given up."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        listing = self.verb(verbs.add_parser("list", help="the newest first, without their texts"), self.listing)
        listing.add_argument("--state", choices=STATES, help="only these")
        listing.add_argument("--limit", type=at_most, default=LISTED, metavar="N", help=f"at most so many ({LISTED}); 0: all")
        self.verb(
            verbs.add_parser("send", help="answer what was asked for by mail, and send what is due (the server does so each second)"),
            self.send,
            changes=True,
            in_steps=True,
        )
        retry = self.verb(verbs.add_parser("retry", help="put what was given up back into the queue"), self.retry, changes=True)
        retry.add_argument("ids", nargs="*", type=int, metavar="ID", help="of these mails (manage.py mail list --state failed)")
        retry.add_argument("--all", action="store_true", dest="everything", help="every mail that was given up")

    def listing(self, *, state: str | None, limit: int | None, **_: Any) -> Answer:
        wanted = Mail.objects.exclude(to="").select_related("user", "tenant")
        if state:
            wanted = wanted.filter(**{"due_at__isnull": False} if state == "waiting" else {f"{state}_at__isnull": False})
        found = list(wanted.order_by("-pk")[: limit + 1 if limit else None])
        shown, more = found[:limit], bool(limit) and len(found) > (limit or 0)
        rows = [[row.pk, row.kind, row.to, row.created_at, _state(row), row.tries, row.due_at, row.error] for row in shown]
        lines = table(("MAIL", "KIND", "TO", "QUEUED (UTC)", "STATE", "TRIES", "NEXT TRY", "LAST ERROR"), rows)
        if not rows:
            lines = ["No mail is here. Mails that left are kept 30 days without their texts."]
        if more:
            lines.append(f"The newest {len(shown)}. More with --limit, fewer with --state.")
        return Answer(lines, {"mails": [described(row) for row in shown], "more": more})

    def send(self, *, dry_run: bool, **_: Any) -> Answer:
        """The worker's round: what was asked for and who was locked out becomes mail, and what is due leaves."""
        if dry_run:
            n, asked = mails.due().count(), Mail.objects.filter(to="", due_at__lte=clock.now()).count()
            lines = [f"{count(n, 'mail')} would be tried."] if n else ["No mail is due."]
            lines += [f"{count(asked, 'question')} would be looked into, and may become mail."] if asked else []
            return change(*lines, changed=n + asked > 0, sent=n, asked=asked)
        sent, failed, broken = 0, mails.failed().count(), chores.queue_all(AT_ONCE)
        while mails.due().exists():
            sent += mails.deliver()
        waiting = mails.waiting().count()
        failed = mails.failed().count() - failed
        answer = change(
            f"{count(sent, 'mail')} left." if sent else "No mail left.", changed=sent > 0, sent=sent, waiting=waiting, failed=failed
        )
        if waiting:
            answer.lines.append(f"{count(waiting, 'mail')} will be tried again: manage.py mail list --state waiting")
        if failed:
            answer.error = f"{count(failed, 'mail')} could not be sent. Why: manage.py mail list --state failed"
        if broken:
            answer.error = f"{answer.error} Not done: {', '.join(broken)}. The log says why; run it again.".strip()
        return answer

    def retry(self, *, ids: list[int], everything: bool, dry_run: bool, **_: Any) -> Answer:
        if bool(ids) == everything:
            raise CommandError(
                "Which ones? manage.py mail retry ID …, or manage.py mail retry --all. Those there are: manage.py mail list --state failed"
            )
        which = mails.failed() if everything else mails.failed().filter(pk__in=ids)
        if missing := sorted(set(ids) - set(which.values_list("pk", flat=True))):
            raise CommandError(
                f"Not given up, or not there: {', '.join(map(str, missing))}. Those that were: manage.py mail list --state failed"
            )
        n = mails.retry(which)
        if n:
            note("mails_retried", count=n)
        return change(f"{count(n, 'mail')} back in the queue." if n else "No mail was given up.", changed=n > 0, retried=n)


def _state(row: Mail) -> str:
    return "sent" if row.sent_at else "failed" if row.failed_at else "waiting"


def described(row: Mail) -> dict[str, Any]:
    """All of a mail but its text."""
    return {
        "id": row.pk,
        "kind": row.kind,
        "to": row.to,
        "user": row.user.username if row.user else None,
        "tenant": row.tenant.slug if row.tenant else None,
        "subject": row.subject,
        "queued_at": row.created_at,
        "state": _state(row),
        "tries": row.tries,
        "next_try_at": row.due_at,
        "sent_at": row.sent_at,
        "failed_at": row.failed_at,
        "error": row.error,
    }
