"""`manage.py hosts`: every host of this portal. deploy/certificates.sh asks it who needs a certificate."""

from pathlib import Path
from typing import Any

from django.core.management import CommandError, CommandParser

from identity.management.named import all_named
from identity.management.output import Answer, VerbCommand, table


class Command(VerbCommand):
    help = "List every host: the portal's, each tenant's, further ones that are approved, apps'."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.listing)
        parser.add_argument(
            "--to", type=Path, metavar="FILE", help="write them there (-: here) for deploy/certificates.sh: HOST KIND TENANT"
        )

    def listing(self, *, to: Path | None, **_: Any) -> Answer:
        named = all_named()
        data = {"hosts": [{"host": each.host, "kind": each.kind, "tenant": each.tenant or None} for each in named]}
        if to is None:
            return Answer(table(("HOST", "KIND", "TENANT"), [[each.host, each.kind, each.tenant or "–"] for each in named]), data)
        lines = [f"{each.host} {each.kind} {each.tenant or '-'}" for each in named]
        if to == Path("-"):
            return Answer(lines, data)
        try:
            to.write_text("".join(f"{line}\n" for line in lines))
            to.chmod(0o644)  # root reads it, without the right to read what is closed to him
        except OSError as error:
            raise CommandError(f"{to} cannot be written: {error.strerror}.") from None
        return Answer([f"{to} has {len(named)} hosts."], data)
