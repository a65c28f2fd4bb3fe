"""`manage.py member`: who belongs to a tenant, and as what."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management import CommandError, CommandParser

from identity import clock, factors, members
from identity.management.output import Answer, VerbCommand, change, count, person_named, table, tenant_named
from identity.models import Session, User
from tenants.models import Membership, Tenant

Role = Membership.Role


class Command(VerbCommand):
    help = "Add people to a tenant, change their role, block and remove them."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        add = self._pair(self.verb(verbs.add_parser("add", help="let a person in"), self.add, changes=True))
        add.add_argument("--role", choices=Role.values, default=Role.MEMBER.value)
        self._pair(self.verb(verbs.add_parser("remove", help="and end the sessions there"), self.remove, changes=True))
        role = self._pair(self.verb(verbs.add_parser("role", help="change the role"), self.role, changes=True))
        role.add_argument("role", choices=Role.values, metavar="member|admin|owner")
        self._pair(self.verb(verbs.add_parser("block", help="keep a person out, and end the sessions there"), self.block, changes=True))
        self._pair(self.verb(verbs.add_parser("unblock", help="let a blocked person in again"), self.unblock, changes=True))
        self.verb(verbs.add_parser("list", help="who belongs to a tenant"), self.listing).add_argument("slug", metavar="SLUG")

    @staticmethod
    def _pair(parser: ArgumentParser) -> ArgumentParser:
        parser.add_argument("slug", metavar="SLUG")
        parser.add_argument("username", metavar="USERNAME")
        return parser

    def add(self, *, slug: str, username: str, role: str, **_: Any) -> Answer:
        tenant, person = tenant_named(slug, lock=True), person_named(username)
        done = members.add(tenant, person, role)
        if not done.is_one:
            return self._known(tenant, person, done.membership, role)
        warnings = [] if person.is_active else [f"{person.username} is deactivated: manage.py user activate {person.username}"]
        return change(f"{person.username} is {a(role)} of {tenant.name}.", after=named(done.after, person), warnings=warnings)

    @staticmethod
    def _known(tenant: Tenant, person: User, membership: Membership, role: str) -> Answer:
        if membership.blocked_at:
            raise CommandError(
                f"{person.username} is blocked at {tenant.name}. Cure: manage.py member unblock {tenant.slug} {person.username}"
            )
        if membership.role != role:
            raise CommandError(
                f"{person.username} is {a(membership.role)} of {tenant.name} already. "
                f"To change that: manage.py member role {tenant.slug} {person.username} {role}"
            )
        same = described(membership)
        return change(f"{person.username} is {a(role)} of {tenant.name} already.", before=same, after=same, changed=False)

    def remove(self, *, slug: str, username: str, **_: Any) -> Answer:
        tenant, person, done = self._done(slug, username, members.remove)
        ended = len(done.ended)
        line = f"{person.username} no longer belongs to {tenant.name}; {count(ended, 'session')} ended."
        return change(line, before=named(done.before, person), ended=ended)

    def role(self, *, slug: str, username: str, role: str, **_: Any) -> Answer:
        tenant, person, done = self._done(slug, username, lambda tenant, person: members.change_role(tenant, person, role))
        states: dict[str, Any] = {"before": named(done.before, person), "after": named(done.after, person)}
        if not done.is_one:
            return change(f"{person.username} is {a(role)} of {tenant.name} already.", changed=False, **states)
        ended = len(done.ended)
        lines = [f"{person.username} is now {a(role)} of {tenant.name}, with the next click."]
        if ended:
            lines.append(f"{count(ended, 'session')} ended: a second factor is asked for on the way back in.")
        return change(*lines, ended=ended, warnings=self._without_factor(tenant, person, done.membership), **states)

    @staticmethod
    def _without_factor(tenant: Tenant, person: User, membership: Membership) -> list[str]:
        due = tenant.factor_due(membership)
        if due is None or factors.has_factor(person):
            return []
        when = "on the way in" if due <= clock.now() else f"on the way in from {due:%Y-%m-%d} on"
        return [f"{person.username} has no second factor, and {tenant.name} asks for one: it is set up {when}."]

    def block(self, *, slug: str, username: str, **_: Any) -> Answer:
        tenant, person, done = self._done(slug, username, members.block)
        states: dict[str, Any] = {"before": named(done.before, person), "after": named(done.after, person)}
        if not done.is_one:
            return change(f"{person.username} is blocked at {tenant.name} already.", changed=False, **states)
        ended = len(done.ended)
        lines = [
            f"{person.username} is blocked at {tenant.name}; {count(ended, 'session')} ended.",
            f"To take it back: manage.py member unblock {slug} {person.username}",
        ]
        return change(*lines, ended=ended, **states)

    def unblock(self, *, slug: str, username: str, **_: Any) -> Answer:
        tenant, person, done = self._done(slug, username, members.unblock)
        states: dict[str, Any] = {"before": named(done.before, person), "after": named(done.after, person)}
        if not done.is_one:
            return change(f"{person.username} is not blocked at {tenant.name}.", changed=False, **states)
        return change(f"{person.username} may enter {tenant.name} again, with a fresh proof.", **states)

    def listing(self, *, slug: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        memberships = list(Membership.objects.filter(tenant=tenant).select_related("user").order_by("user__name_key"))
        live = set(Session.objects.alive_at(tenant).values_list("user_id", flat=True))
        listed = [
            {
                **described(membership),
                "name": membership.user.get_full_name(),
                "signed_in": membership.user_id in live,
                "since": membership.created_at,
            }
            for membership in memberships
        ]
        header = ("USERNAME", "NAME", "ROLE", "STATE", "SIGNED IN", "SINCE (UTC)")
        rows = [[m["username"], m["name"], m["role"], m["state"], m["signed_in"], m["since"]] for m in listed]
        lines = table(header, rows) if rows else [f"Nobody belongs to {tenant.name} yet: manage.py member add {slug} USERNAME --role owner"]
        return Answer(lines, {"tenant": slug, "members": listed})

    @staticmethod
    def _done(slug: str, username: str, verb: Callable[[Tenant, User], members.Change]) -> tuple[Tenant, User, members.Change]:
        """The tenant, the person, and what the verb did; its refusals with their cure."""
        tenant, person = tenant_named(slug, lock=True), person_named(username)
        try:
            return tenant, person, verb(tenant, person)
        except members.NoMember:
            raise CommandError(f"{person.username} does not belong to {tenant.name}. Who does: manage.py member list {slug}") from None
        except members.LastOwner:
            raise CommandError(
                f"{person.username} is the last owner of {tenant.name}. "
                f"Make somebody else one first: manage.py member role {tenant.slug} USERNAME owner"
            ) from None


def described(membership: Membership) -> dict[str, Any]:
    return {"username": membership.user.username, **members.state(membership)}


def named(state: dict[str, str] | None, person: User) -> dict[str, Any] | None:
    """A state as scripts read it: with the name that events leave out."""
    return {"username": person.username, **state} if state else None


def a(role: str) -> str:
    """“a member”, “an admin”, “an owner”."""
    return f"{'a' if role == Role.MEMBER else 'an'} {role}"
