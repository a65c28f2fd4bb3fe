"""`manage.py doctor`: looks at everything that an operator can get wrong, and says for each finding what to do."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import CommandError, CommandParser
from django.core.validators import validate_email
from django.db import Error, connection

from identity.management.doctor import Asked, Finding, State, cookies, database, failure, keys, mail, names, note, proxy, storage, timers
from identity.management.output import Answer, VerbCommand, count
from tenants.text import clean

GROUPS: list[tuple[str, Callable[[Asked], Iterable[Finding]]]] = [
    ("Settings", keys.examine),
    ("Database", database.examine),
    ("Proxy", proxy.examine),
    ("Hosts", names.examine),
    ("Cookies", cookies.examine),
    ("Mail", mail.examine),
    ("Timers", timers.examine),
    ("Storage", storage.examine),
]
LISTED_THERE = {"Hosts", "Cookies"}
MARKS = {State.OK: "ok     ", State.NOTE: "note   ", State.WARNING: "warning", State.FAILURE: "FAILURE"}


class Command(VerbCommand):
    help = "Look at settings, database, proxy, hosts, cookies, mail, timers and disks; each finding has its cure. Exit code 1: a failure."
    requires_system_checks = ()  # they are among the findings

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.examine)
        parser.add_argument("--url", help="connect here for every host, such as http://127.0.0.1:8000 (default: PORTAL_URL, as DNS says)")
        parser.add_argument("--mail", default="", metavar="ADDRESS", help="send a test mail there")
        parser.add_argument("--only", choices=[name.lower() for name, _examine in GROUPS], help="look at one group")

    def examine(self, *, url: str | None, mail: str, only: str | None, **_: Any) -> Answer:
        if mail:
            try:
                validate_email(mail)
            except ValidationError:
                raise CommandError(f"“{clean(mail)}” is no mail address.") from None
        unreachable = database.unreachable()
        asked = Asked(url=url, mail=mail, has_database=not unreachable)
        found = [(name, list(in_spite(name, examine, asked, unreachable))) for name, examine in GROUPS if only in {None, name.lower()}]
        lines = [line for name, findings in found for line in section(name, findings)]
        counted = Counter(finding.state for _name, findings in found for finding in findings)
        data = {
            "ok": not counted[State.FAILURE],
            "counts": {state.value: counted[state] for state in State},
            "findings": [
                {
                    "group": name.lower(),
                    "state": finding.state.value,
                    "text": clean(finding.text),
                    "cure": finding.cure,
                    "data": finding.data,
                }
                for name, findings in found
                for finding in findings
            ],
        }
        rest = f", {count(counted[State.WARNING], 'warning')}" if counted[State.WARNING] else ""
        if counted[State.FAILURE]:
            return Answer(lines, data, error=f"{count(counted[State.FAILURE], 'failure')}{rest}.")
        return Answer([*lines, "", f"No failure{rest}."], data)


def in_spite(name: str, examine: Callable[[Asked], Iterable[Finding]], asked: Asked, unreachable: str) -> Iterator[Finding]:
    """The findings of a group; what breaks it off is a finding, too, and the other groups have their turn."""
    if unreachable and name == "Database":
        yield failure(
            f"The database does not answer: {unreachable}", "Does it run (systemctl status postgresql), and is DATABASE_URL right?"
        )
        return
    if unreachable and name in LISTED_THERE:
        yield note("Not looked at, because the database has the list.")
        return
    try:
        yield from examine(asked)
    except Error as error:
        said = clean(str(error).strip().partition("\n")[0])
        yield failure(f"The database says: {said}", "Its address: DATABASE_URL. Its tables: manage.py migrate")
        connection.close()
    except (OSError, ImproperlyConfigured) as error:
        yield failure(f"This could not be looked at: {clean(str(error))}", "Run the doctor as the service runs: gatehouse doctor")


def section(name: str, findings: Iterable[Finding]) -> Iterator[str]:
    yield name
    for finding in findings:
        yield f"  {MARKS[finding.state]}  {clean(finding.text, 500)}"
        if finding.cure:
            yield f"           {clean(finding.cure, 500)}"
