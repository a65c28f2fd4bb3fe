"""`manage.py user`: the accounts of this platform."""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, CommandParser
from django.core.validators import validate_email

from identity import clock, factors, known, leaving, ledger, links, platform
from identity.backends import LONGEST_PASSWORD
from identity.export import gather
from identity.management.output import (
    COMMAND_LINE,
    Answer,
    VerbCommand,
    at_most,
    change,
    count,
    facts,
    note,
    person_named,
    plain,
    table,
)
from identity.members import acting_owners
from identity.models import Link, Session, User, fold
from tenants import policy
from tenants.models import Membership
from tenants.saving import save_checked
from tenants.text import clean

LISTED = 100


class Command(VerbCommand):
    help = "Add, show, deactivate and activate people, make the link with which they set a password, take lost second factors away."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        add = self.verb(verbs.add_parser("add", help="a new account"), self.add, changes=True)
        add.add_argument("username", metavar="USERNAME")
        add.add_argument("email", metavar="EMAIL")
        add.add_argument("--first", default="", metavar="NAME", help="first name")
        add.add_argument("--last", default="", metavar="NAME", help="last name")
        add.add_argument("--verified", action="store_true", help="the address is known to be this person's: it is good for signing in")
        add.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input; without: none, see user link"
        )

        listing = self.verb(verbs.add_parser("list", help="who there is"), self.listing)
        listing.add_argument("--search", metavar="TEXT", default="", help="a part of name or address")
        listing.add_argument("--limit", type=at_most, default=LISTED, metavar="N", help=f"at most so many ({LISTED}); 0: all")

        self._name(self.verb(verbs.add_parser("show", help="everything about one person"), self.show))
        self._name(self.verb(verbs.add_parser("link", help="a link to set a password: once, within the hour"), self.link, changes=True))
        deactivate = verbs.add_parser("deactivate", help="close the account and end its sessions everywhere")
        self._name(self.verb(deactivate, self.deactivate, changes=True))
        deactivate.add_argument("--force", action="store_true", help="even the last operator")
        self._name(self.verb(verbs.add_parser("activate", help="open the account again"), self.activate, changes=True))
        export = verbs.add_parser("export", help="everything that is kept about a person, as JSON")
        self._name(self.verb(export, self.export))
        delete = verbs.add_parser("delete", help="close the account now, and delete it in seven days")
        self._name(self.verb(delete, self.delete, changes=True))
        how = delete.add_mutually_exclusive_group()
        how.add_argument("--now", action="store_true", help="delete it at once, for good")
        how.add_argument("--undo", action="store_true", help="keep it after all")
        reset = verbs.add_parser("reset-factors", help="take every second factor away, for somebody who lost them all")
        self._name(self.verb(reset, self.reset_factors, changes=True))
        reset.add_argument("--reason", metavar="TEXT", required=True, help="how you know who asks; it stays in the log")

    @staticmethod
    def _name(parser: ArgumentParser) -> None:
        parser.add_argument("username", metavar="USERNAME")

    def add(self, *, username: str, email: str, first: str, last: str, verified: bool, password_stdin: bool, **_: Any) -> Answer:
        self._refuse_taken(username, email)
        validate_email(email)
        person = User(username=username, email=email, first_name=first, last_name=last)
        person.email_verified_at = clock.now() if verified else None
        if password_stdin:
            password = typed_password()
            validate_password(password, person)
            person.set_password(password)
        else:
            person.set_unusable_password()
        save_checked(person)
        after = described(person)
        told = {name: after[name] for name in ("email_verified", "active", "operator")}  # the log keeps ids, no names
        note("user_added", subject=person, before=None, after=told)
        lines = [f"Added {person.get_full_name_with_username()}."]
        if not password_stdin:
            lines.append(f"There is no password yet. The link to set one: manage.py user link {person.username}")
        lines.append(f"To let the person in somewhere: manage.py member add SLUG {person.username}")
        return change(*lines, after=after)

    @staticmethod
    def _refuse_taken(username: str, email: str) -> None:
        if taken := User.objects.filter(name_key=fold(username)).first() or User.objects.filter(email_key=fold(email)).first():
            raise CommandError(f"{taken.username} has that name or address already. Look: manage.py user show {taken.username}")

    def listing(self, *, search: str, limit: int | None, **_: Any) -> Answer:
        people = User.objects.filter(search_text__contains=fold(search)).order_by("name_key")
        total = people.count()
        shown = list(people[:limit])
        header = ("USERNAME", "NAME", "E-MAIL", "VERIFIED", "STATE", "OPERATOR", "SINCE (UTC)")
        rows = [
            [p.username, p.get_full_name(), p.email, p.email_verified_at is not None, state(p), p.is_superuser, p.date_joined]
            for p in shown
        ]
        lines = table(header, rows)
        if not rows:
            nobody = "Nobody yet. The first operator: manage.py operator link. Anybody else: manage.py user add USERNAME EMAIL"
            lines = [f"Nobody matches “{clean(search)}”. Everybody: manage.py user list"] if search else [nobody]
        elif total > len(shown):
            lines.append(f"{len(shown)} of {total}. More with --limit, fewer with --search.")
        return Answer(lines, {"users": [described(person) for person in shown], "total": total})

    def show(self, *, username: str, **_: Any) -> Answer:
        person = person_named(username)
        memberships = list(Membership.objects.filter(user=person).select_related("tenant", "user").order_by("tenant__slug"))
        places = [{"tenant": m.tenant.slug, "role": m.role, "blocked": m.blocked_at is not None} for m in memberships]
        live = Session.objects.alive_at_portal().filter(user=person).count()
        known = {
            **described(person),
            "has_password": person.has_usable_password(),
            "last_sign_in": Session.objects.filter(user=person, tenant=None)
            .order_by("-created_at")
            .values_list("created_at", flat=True)
            .first(),
            "memberships": places,
            "live_portal_sessions": live,
            **factors_of(person),
            "locked": [each.bucket.kind for each in ledger.explain(person.username) if each.is_locked],
        }
        belongs = [f"{p['tenant']} ({p['role']}{', blocked' if p['blocked'] else ''})" for p in places]
        lines = facts(
            [
                ("Name", person.get_full_name_with_username()),
                ("E-mail", f"{person.email} ({'verified' if person.email_verified_at else 'not verified'})"),
                ("State", state(person)),
                ("Password", "set" if person.has_usable_password() else f"none yet: manage.py user link {person.username}"),
                ("Second factor", factors_line(known)),
                ("Locked out", f"yes: manage.py lockout explain {person.username}" if known["locked"] else "no"),
                ("Operator", person.is_superuser),
                ("Since", person.date_joined),
                ("Last sign-in", known["last_sign_in"] or "never"),
                ("Signed in now", f"in {count(live, 'browser')}: manage.py session list --user {person.username}" if live else "no"),
                ("Belongs to", ", ".join(belongs) or f"no tenant yet: manage.py member add SLUG {person.username}"),
            ]
        )
        return Answer(lines, {"user": known})

    def link(self, *, username: str, dry_run: bool, **_: Any) -> Answer:
        person = person_named(username)
        if not person.is_active:
            raise CommandError(f"{person.username} is deactivated. First: manage.py user activate {person.username}")
        expires = clock.now() + policy.LINK
        address = links.make(Link.Purpose.PASSWORD, person)
        note("password_link_made", subject=person, expires_at=expires)
        return link_answer(address, f"A link for {person.username} to set a password", expires, dry_run=dry_run)

    def deactivate(self, *, username: str, force: bool, **_: Any) -> Answer:
        person = person_named(username)
        try:
            done = platform.deactivate(person, force=force)
        except leaving.LastOperator:
            raise _last_operator(person) from None
        if not done.is_one:
            return change(f"{person.username} is deactivated already.", before=done.before, after=done.after, changed=False)
        owned = Membership.objects.filter(user=person, role=Membership.Role.OWNER, blocked_at=None).select_related("tenant")
        warnings = [
            f"{m.tenant.name} has no owner now: manage.py member add {m.tenant.slug} USERNAME --role owner"
            for m in owned
            if not acting_owners(m.tenant)
        ]
        lines = [
            f"{person.username} is deactivated; {count(done.ended, 'session')} ended.",
            f"To take it back: manage.py user activate {person.username}",
        ]
        return change(*lines, before=done.before, after=done.after, ended=done.ended, warnings=warnings)

    def activate(self, *, username: str, **_: Any) -> Answer:
        person = person_named(username)
        done = platform.activate(person)
        said = "is active again, and signs in anew." if done.is_one else "is active already."
        return change(f"{person.username} {said}", before=done.before, after=done.after, changed=done.is_one)

    def export(self, *, username: str, **_: Any) -> Answer:
        data = gather(person_named(username))
        return Answer([json.dumps(data, default=plain, ensure_ascii=False, indent=2)], data)

    def delete(self, *, username: str, now: bool, undo: bool, **_: Any) -> Answer:
        """One transaction with everything that goes."""
        person = person_named(username)
        before = {"delete_at": person.delete_at}
        if undo:
            undone = leaving.undo(person, by=None, source=COMMAND_LINE)
            said = f"{person.username} stays." if undone else f"{person.username} was not about to be deleted."
            return change(said, before=before, after={"delete_at": None}, changed=undone)
        try:
            if now:
                leaving.carry_out(person, now=True, source=COMMAND_LINE)
                return change(f"{person.username} is deleted. The log keeps the id {person.pk}, and no name.", before=before, id=person.pk)
            after = leaving.ask(person, by=None, source=COMMAND_LINE)
        except leaving.LastOwner as alone:
            cures = [f"manage.py member role {tenant.slug} USERNAME owner" for tenant in alone.tenants]
            raise CommandError(
                f"{person.username} is the last owner of {alone}. Make somebody else one first: {'; '.join(cures)}"
            ) from None
        except leaving.LastOperator:
            raise CommandError(
                f"{person.username} is the last operator. Make another one first: manage.py operator grant USERNAME"
            ) from None
        if before["delete_at"]:
            said = f"{person.username} is about to be deleted already, on {after.delete_at:%Y-%m-%d %H:%M} UTC."
            return change(said, before=before, after=before, changed=False)
        return change(
            f"{person.username} is closed, every session ended, and deleted on {after.delete_at:%Y-%m-%d %H:%M} UTC.",
            f"To take it back: manage.py user delete {person.username} --undo",
            before=before,
            after={"delete_at": after.delete_at},
        )

    def reset_factors(self, *, username: str, reason: str, **_: Any) -> Answer:
        person, text = person_named(username), clean(reason, 200).strip()
        if not text:
            raise CommandError('Say how you know who asks: it stays in the log. --reason "Showed the passport at the desk"')
        before = factors_of(person)
        if not before["authenticators"]:
            line = f"{person.username} has no second factor: there is nothing to take away."
            return change(line, before=before, after=before, changed=False)
        live = Session.objects.filter(user=person, ended_at=None).count()
        gone = factors.reset(person, by=None, reason=text, source=COMMAND_LINE)
        lines = [
            f"{person.username} has no second factor any more: {count(gone, 'authenticator')} gone; {count(live, 'session')} ended.",
            "The password stays, and where a second factor is asked for, a new one is set up on the way in.",
        ]
        locked = any(each.is_locked for each in ledger.explain(person.username))
        warnings = [f"{person.username} is locked out, too: manage.py lockout explain {person.username}"] if locked else []
        return change(*lines, before=before, after=factors_of(person), ended=live, warnings=warnings)


def factors_of(person: User) -> dict[str, int]:
    return {
        "authenticators": len(factors.authenticators(person)),
        "recovery_codes": factors.codes_left(person),
        "trusted_browsers": len(known.trusted(person)),
    }


def factors_line(found: dict[str, Any]) -> str:
    """“1 authenticator, 8 recovery codes left, 2 trusted browsers”."""
    if not found["authenticators"]:
        return "none"
    names = [
        count(found["authenticators"], "authenticator"),
        f"{count(found['recovery_codes'], 'recovery code')} left",
        count(found["trusted_browsers"], "trusted browser"),
    ]
    return ", ".join(names)


def described(person: User) -> dict[str, Any]:
    return {
        "id": person.pk,
        "username": person.username,
        "name": person.get_full_name(),
        "email": person.email,
        "email_verified": person.email_verified_at is not None,
        "active": person.is_active,
        "operator": person.is_superuser,
        "created_at": person.date_joined,
    }


def state(person: User) -> str:
    return "active" if person.is_active else "deactivated"


def typed_password() -> str:
    """Standard input as it came, without the newline that ends it (ASVS 6.2.8)."""
    text = sys.stdin.read(LONGEST_PASSWORD + 3).removesuffix("\n").removesuffix("\r")
    if not text:
        raise CommandError("Standard input is empty. Send the password: printf %s … | manage.py user add … --password-stdin")
    if len(text) > LONGEST_PASSWORD:
        raise ValidationError(f"A password has at most {LONGEST_PASSWORD} characters.")
    return text


def link_answer(address: str, what: str, expires: Any, *, dry_run: bool) -> Answer:
    """A one-time link, shown once; in a dry run there is none, since it is taken back."""
    shown = "(the link)" if dry_run else address
    lines = [f"{what}, good once, until {expires:%Y-%m-%d %H:%M} UTC:", shown, "Hand it over by a way that nobody else reads."]
    return change(*lines, link=None if dry_run else address, expires_at=expires)


def keep_an_operator(person: User) -> None:
    """Refuse to take away the last active operator."""
    try:
        platform.keep_an_operator(person)
    except leaving.LastOperator:
        raise _last_operator(person) from None


def _last_operator(person: User) -> CommandError:
    return CommandError(
        f"{person.username} is the last operator. Make another one first: manage.py operator grant USERNAME. "
        "Or the same with --force: whoever has this command line can make the next one."
    )
