"""`manage.py operator`: who runs the platform."""

from typing import Any

from django.core.management import CommandError, CommandParser

from identity import clock, factors, links
from identity.management.commands.user import described, keep_an_operator, link_answer, state
from identity.management.output import Answer, VerbCommand, change, note, person_named, table
from identity.models import Link, User
from tenants import policy


class Command(VerbCommand):
    help = "Make operators and take the right back; make the link for the first one."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        grant = self.verb(verbs.add_parser("grant", help="make a person an operator"), self.grant, changes=True)
        grant.add_argument("username", metavar="USERNAME")
        revoke = self.verb(verbs.add_parser("revoke", help="take it back, in force with the next click"), self.revoke, changes=True)
        revoke.add_argument("username", metavar="USERNAME")
        revoke.add_argument("--force", action="store_true", help="even the last one")
        self.verb(verbs.add_parser("link", help="a link to sign up as an operator: once, within a day"), self.link, changes=True)
        self.verb(verbs.add_parser("list", help="who is one"), self.listing)

    def grant(self, *, username: str, **_: Any) -> Answer:
        person = person_named(username, lock=True)
        if not person.is_active:
            raise CommandError(f"{person.username} is deactivated. First: manage.py user activate {person.username}")
        text = f"{person.username} is an operator: every tenant's console is open to this account."
        next_step = (
            "A second factor is asked for at the next visit to the console."
            if factors.has_factor(person)
            else "There is no second factor yet: the next visit to the console asks to set one up."
        )
        return self._set(person, True, text, next_step)

    def revoke(self, *, username: str, force: bool, **_: Any) -> Answer:
        """No session has to end: the console asks for the right with every request."""
        if not force:
            keep_an_operator(person_named(username))
        person = person_named(username, lock=True)
        return self._set(person, False, f"{person.username} is no operator any more. What the memberships allow stays.")

    @staticmethod
    def _set(person: User, operator: bool, *lines: str) -> Answer:
        before, after = {"operator": person.is_superuser}, {"operator": operator}
        if before == after:
            same = f"{person.username} is {'an operator already' if operator else 'no operator'}."
            return change(same, before=before, after=after, changed=False)
        person.is_superuser = person.is_staff = operator
        person.save(update_fields=["is_superuser", "is_staff"])
        note("operator_granted" if operator else "operator_revoked", subject=person, before=before, after=after)
        return change(*lines, before=before, after=after)

    def link(self, *, dry_run: bool, **_: Any) -> Answer:
        expires = clock.now() + policy.OPERATOR_LINK
        address = links.make(Link.Purpose.OPERATOR)
        note("operator_link_made", expires_at=expires)
        return link_answer(address, "A link to sign up as an operator", expires, dry_run=dry_run)

    def listing(self, **_: Any) -> Answer:
        operators = list(User.objects.filter(is_superuser=True).order_by("name_key"))
        rows = [[person.username, person.get_full_name(), person.email, state(person)] for person in operators]
        lines = table(("USERNAME", "NAME", "E-MAIL", "STATE"), rows) if rows else ["No operators yet: manage.py operator link"]
        return Answer(lines, {"operators": [described(person) for person in operators]})
