"""Something of everything at a tenant, so that a test can look at every page and try every id. All of it says the tenant's slug."""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from identity import events, invitations, sessions
from identity.models import Bucket, Event, MassEnd, Session, User
from tenants.models import App, Group, Host, Invitation, JoinRequest, Membership, Tenant

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"


@dataclass(frozen=True)
class Furnished:
    """What is there now. Everybody named here belongs to this tenant alone."""

    tenant: Tenant
    member: User  # signed in, locked out of a new browser, in the group
    membership: Membership
    waiting: User
    invitation: Invitation
    group: Group
    app: App
    host: Host
    portal: Session
    branch: Session
    ended: Session
    event: Event
    lockout: Bucket
    mass: MassEnd

    @property
    def ids(self) -> dict[str, str]:
        """Everything that names something of this tenant in a URL or a form."""
        numbers = {name: str(getattr(self, name).pk) for name in self.__dataclass_fields__ if name not in {"member", "waiting"}}
        return {**numbers, "slug": self.tenant.slug, "member": self.member.username, "waiting": self.waiting.username}


def furnish(slug: str) -> Furnished:
    """Fill a tenant of the demo."""
    tenant, now = Tenant.objects.get(slug=slug), timezone.now()
    by = User.objects.get(username="olivia")
    member, waiting = _person(f"{slug}-mia", "Mia"), _person(f"{slug}-walt", "Walt")
    membership = Membership.objects.create(tenant=tenant, user=member)
    JoinRequest.objects.create(tenant=tenant, user=waiting, created_at=now)
    invitations.invite(tenant, f"invited@{slug}.example", Membership.Role.MEMBER.value)
    group = Group.objects.create(tenant=tenant, name=f"{slug} guild")
    group.members.add(membership)
    rules = {"roles": ["member"], "public_paths": ["/hooks"]}
    app = App.objects.create(tenant=tenant, name=f"{slug} vault", host=f"vault.{tenant.hostname}", **rules)
    app.groups.add(group)
    host = Host.objects.create(tenant=tenant, name=f"id.{slug}-inc.example")
    portal, branch = _visit(member, tenant)
    _portal, ended = _visit(member, tenant)
    sessions.end(Session.objects.filter(pk=ended.pk), by=by, reason=Session.Reason.BY_ADMIN, note=f"left open at {slug}", tell=False)
    event = events.record("console_read", tenant=tenant, actor=by, subject=member, session=branch.pk, page=f"{slug} page")
    lockout = Bucket.objects.create(
        key=uuid.uuid4().hex, kind=Bucket.Kind.PERSON, user=member, failed=5, locks=1, started_at=now, touched_at=now, locked_at=now,
        locked_until=now + timedelta(hours=1), ip="203.0.113.7",
    )  # fmt: skip
    mass = MassEnd.objects.create(
        tenant=tenant, before=now, by=by, reason=Session.Reason.BY_ADMIN, note=f"{slug} mass", started_at=now, finished_at=now
    )
    invitation = Invitation.objects.get(tenant=tenant)
    return Furnished(tenant, member, membership, waiting, invitation, group, app, host, portal, branch, ended, event, lockout, mass)


def _person(username: str, first: str) -> User:
    email = f"{username}@people.example"
    user = User(username=username, first_name=first, last_name=username, email=email, email_verified_at=timezone.now())
    user.set_unusable_password()
    user.save()
    return user


def _visit(user: User, tenant: Tenant) -> tuple[Session, Session]:
    portal, _key = sessions.sign_in(user, request=None, methods=["pwd"], remember=False)
    with transaction.atomic():
        branch, _key = sessions.open_branch(portal.pk, tenant, request=None)
    Session.objects.filter(pk__in=[portal.pk, branch.pk]).update(ip="203.0.113.7", user_agent=AGENT)
    return portal, branch
