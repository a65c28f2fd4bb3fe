"""`manage.py member`: who belongs to a tenant, and as what."""

from argparse import ArgumentParser
from typing import Any

from django.core.management import CommandError, CommandParser

from identity import clock, factors, sessions
from identity.management.output import Answer, VerbCommand, change, count, note, person_named, save_checked, table, tenant_named
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
        known = Membership.objects.filter(tenant=tenant, user=person).first()
        if known:
            return self._known(tenant, person, known, role)
        membership = Membership(tenant=tenant, user=person, role=role)
        if Session.objects.filter(tenant=tenant, user=person).exists():
            membership.prove_after = clock.now()  # was here before: what was ended then does not come back without a fresh proof
        save_checked(membership)
        after = described(membership)
        note("member_added", tenant=tenant, subject=person, before=None, after=after)
        warnings = [] if person.is_active else [f"{person.username} is deactivated: manage.py user activate {person.username}"]
        return change(f"{person.username} is {a(role)} of {tenant.name}.", after=after, warnings=warnings)

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
        tenant, person, membership = self._find(slug, username)
        keep_an_owner(tenant, membership)
        before = described(membership)
        ended = sessions.end_here(person, tenant, by=None, reason=sessions.Reason.REMOVED)
        membership.delete()
        note("member_removed", tenant=tenant, subject=person, before=before, after=None)
        return change(
            f"{person.username} no longer belongs to {tenant.name}; {count(len(ended), 'session')} ended.", before=before, ended=len(ended)
        )

    def role(self, *, slug: str, username: str, role: str, **_: Any) -> Answer:
        tenant, person, membership = self._find(slug, username)
        before = described(membership)
        if membership.role == role:
            return change(f"{person.username} is {a(role)} of {tenant.name} already.", before=before, after=before, changed=False)
        keep_an_owner(tenant, membership)
        membership.role = role
        membership.save(update_fields=["role"])
        after = described(membership)
        note("member_role_changed", tenant=tenant, subject=person, before=before, after=after)
        # Of an admin more may be asked for than of a member: what is open without it ends.
        ended = sessions.end_unproven(tenant) if role != Role.MEMBER else []
        lines = [f"{person.username} is now {a(role)} of {tenant.name}, with the next click."]
        if ended:
            lines.append(f"{count(len(ended), 'session')} ended: a second factor is asked for on the way back in.")
        return change(*lines, before=before, after=after, ended=len(ended), warnings=self._without_factor(tenant, person, membership))

    @staticmethod
    def _without_factor(tenant: Tenant, person: User, membership: Membership) -> list[str]:
        due = tenant.factor_due(membership)
        if due is None or factors.has_factor(person):
            return []
        when = "on the way in" if due <= clock.now() else f"on the way in from {due:%Y-%m-%d} on"
        return [f"{person.username} has no second factor, and {tenant.name} asks for one: it is set up {when}."]

    def block(self, *, slug: str, username: str, **_: Any) -> Answer:
        tenant, person, membership = self._find(slug, username)
        before = described(membership)
        if membership.blocked_at:
            return change(f"{person.username} is blocked at {tenant.name} already.", before=before, after=before, changed=False)
        keep_an_owner(tenant, membership)
        membership.blocked_at = clock.now()
        membership.save(update_fields=["blocked_at"])
        ended = sessions.end_here(person, tenant, by=None, reason=sessions.Reason.BLOCKED)
        after = described(membership)
        note("member_blocked", tenant=tenant, subject=person, before=before, after=after)
        lines = [
            f"{person.username} is blocked at {tenant.name}; {count(len(ended), 'session')} ended.",
            f"To take it back: manage.py member unblock {slug} {person.username}",
        ]
        return change(*lines, before=before, after=after, ended=len(ended))

    def unblock(self, *, slug: str, username: str, **_: Any) -> Answer:
        tenant, person, membership = self._find(slug, username)
        before = described(membership)
        if membership.blocked_at is None:
            return change(f"{person.username} is not blocked at {tenant.name}.", before=before, after=before, changed=False)
        membership.blocked_at = None
        membership.save(update_fields=["blocked_at"])
        after = described(membership)
        note("member_unblocked", tenant=tenant, subject=person, before=before, after=after)
        return change(f"{person.username} may enter {tenant.name} again, with a fresh proof.", before=before, after=after)

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
    def _find(slug: str, username: str) -> tuple[Tenant, User, Membership]:
        """The tenant, held until the end (so that two commands cannot take the last two owners), the person and the membership."""
        tenant, person = tenant_named(slug, lock=True), person_named(username)
        membership = Membership.objects.select_for_update(no_key=True).filter(tenant=tenant, user=person).first()
        if membership is None:
            raise CommandError(f"{person.username} does not belong to {tenant.name}. Who does: manage.py member list {slug}")
        membership.user = person
        return tenant, person, membership


def keep_an_owner(tenant: Tenant, membership: Membership) -> None:
    """Refuse to take away the last owner who can act. Called under the tenant's lock."""
    owners = acting_owners(tenant)
    if [owner.pk for owner in owners] == [membership.user_id]:
        raise CommandError(
            f"{owners[0].username} is the last owner of {tenant.name}. "
            f"Make somebody else one first: manage.py member role {tenant.slug} USERNAME owner"
        )


def acting_owners(tenant: Tenant) -> list[User]:
    """The owners of a tenant who are neither blocked there nor deactivated."""
    owning = Membership.objects.filter(tenant=tenant, role=Role.OWNER, blocked_at=None, user__is_active=True)
    return [membership.user for membership in owning.select_related("user").order_by("pk")]


def described(membership: Membership) -> dict[str, Any]:
    blocked, active = membership.blocked_at is not None, membership.user.is_active
    state = "blocked" if blocked else "active" if active else "deactivated"
    return {"username": membership.user.username, "role": membership.role, "state": state}


def a(role: str) -> str:
    """“a member”, “an admin”, “an owner”."""
    return f"{'a' if role == Role.MEMBER else 'an'} {role}"
