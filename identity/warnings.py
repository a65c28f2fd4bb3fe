"""Warnings by mail: what happened to an account, and what its owner can do about it. Never a flood: mails of one kind coalesce.

ASVS 6.3.5, 6.3.7.
"""

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef
from django.http import HttpRequest

from identity import addresses, clock, crypto, events, known, ledger, links, mails, sessions
from identity.devices import device as device_of_agent
from identity.models import Bucket, Event, KnownDevice, Link, Mail, Session, User
from tenants.models import Tenant

HOUR, TEN_MINUTES = timedelta(hours=1), timedelta(minutes=10)
MOST_NEW = 5  # mails about new browsers in an hour: whoever knows a password could send any number of user agents


def new_device(user: User, device: KnownDevice, root: Session) -> None:
    """Somebody signed in completely in a browser that was not known, to an account that has others."""
    with transaction.atomic():
        user = sessions.hold_person(user)
        if not user.mail_new_device or not user.email_verified_at:
            return
        if not KnownDevice.objects.filter(user=user).exclude(pk=device.pk).exists():
            return
        # The owner's new browser must not hide a thief's of the next minute: only what looks the same is one.
        seen_as = device_of_agent(device.user_agent).label
        key = f"new_device:{user.pk}:{crypto.digest(f'{seen_as} {device.ip}')[:16]}"
        lately = Mail.objects.filter(user=user, kind="new_device", created_at__gt=clock.now() - HOUR)
        if mails.was_queued(key, TEN_MINUTES) or lately.count() >= MOST_NEW:
            return
        link = links.make(Link.Purpose.NOT_ME, user, session=str(root.pk), device=device.pk, email=user.email)
        told = {"link": link, "at": root.created_at, "address": device.ip, "agent": device.user_agent}
        mails.tell("new_device", user, coalesce=key, **told)


class ReportedLately(Exception):
    """The session was reported within the last hour."""

    def __init__(self, at: datetime) -> None:
        super().__init__(at)
        self.at = at


def report(branch: Session, *, by: User, request: HttpRequest) -> bool:
    """An admin says that a session may be in wrong hands: its owner gets the link that says so himself, the operators a notice.

    False if the owner has no proven address, so that nobody was mailed but the operators. At most once an hour for a session:
    raises ReportedLately.
    """
    assert branch.tenant is not None
    with transaction.atomic():
        user = sessions.hold_person(branch.user)
        lately = Event.objects.filter(tenant=branch.tenant, kind="session_reported", at__gt=clock.now() - HOUR, session=branch.pk)
        if before := lately.order_by("-pk").first():
            raise ReportedLately(before.at)
        what = {"by": by.get_full_name_with_username(), "at": branch.created_at, "address": branch.ip, "agent": branch.user_agent}
        mailed = bool(user.email and user.email_verified_at)
        if mailed:
            link = links.make(Link.Purpose.NOT_ME, user, session=str(branch.parent_id), device=None, email=user.email)
            mails.tell("compromised", user, tenant=branch.tenant, link=link, **what)
        console_url = f"{settings.PORTAL_URL}/console/{branch.tenant.slug}/sessions/{branch.pk}/"
        named = {"who": user.get_full_name_with_username(), "place": branch.tenant.name, "console_url": console_url}
        mails.to_admins("reported", None, **named, **what)
        events.record("session_reported", request=request, tenant=branch.tenant, actor=by, subject=user, session=branch.pk, mailed=mailed)
    return mailed


def not_me(link: Link, *, request: HttpRequest) -> User:
    """The owner says that a sign-in was somebody else's: its tree ends, its browser is unknown, the password is worthless, a mail
    sets a new one, and the admins of his tenants are told. Raises sessions.StaleProof if the link was used meanwhile, and
    addresses.Taken if the address that it was mailed to belongs to another account by now.

    If the account has another address by now, whoever it was has changed it: the one that got this link is its own again.
    """
    assert link.user is not None
    try:
        with transaction.atomic():
            user = sessions.hold_person(link.user)
            if not links.take(link):
                raise sessions.StaleProof
            tree = Session.objects.filter(pk=link.data["session"], user=user)
            sessions.end(tree, by=user, reason=Session.Reason.BY_MAIL, request=request)
            if link.data["device"] is None:  # an admin's report names a session, not its browser
                known.forget_all(user)
            else:
                known.revoke(user, link.data["device"], request=request)
            sessions.withdraw_password(user)
            addresses.put_back(user, link, request=request)
            addresses.mail_reset(user)
            events.record("not_me", request=request, actor=user, subject=user, session=uuid.UUID(link.data["session"]))
            for tenant in Tenant.objects.filter(memberships__user=user).order_by("pk"):
                events.record("not_me_told", request=request, tenant=tenant, actor=user, subject=user)
                _tell_admins(tenant, user, link)
    except IntegrityError:
        raise addresses.Taken from None
    return user


def _tell_admins(tenant: Tenant, user: User, link: Link) -> None:
    """Without the address: of a sign-in that never came to this tenant it is the platform's to know."""
    row = Session.objects.filter(pk=link.data["session"]).first()
    mails.to_admins(
        "not_me",
        tenant,
        who=user.get_full_name_with_username(),
        console_url=f"{settings.PORTAL_URL}/console/{tenant.slug}/sessions/",
        coalesce=f"not_me:{tenant.pk}:{user.pk}",
        within=HOUR,
        at=row.created_at if row else None,
    )


def tell_locked(limit: int = 100) -> int:
    """The worker's part: tell people who are locked out, once an hour, with a link that opens. Never done in the request that locked.

    In it, the time of the answer would tell who exists.
    """
    told = 0
    lately = Mail.objects.filter(user=OuterRef("user"), kind="locked", created_at__gt=clock.now() - HOUR)
    shut = Bucket.objects.filter(locked_at__isnull=False, locked_until__gt=clock.now(), user__is_active=True)
    untold = shut.exclude(user__email_verified_at=None).exclude(Exists(lately))
    for row in untold.select_related("user").order_by("locked_at", "pk")[:limit]:
        assert row.user is not None
        with transaction.atomic():
            user = sessions.hold_person(row.user)  # two workers look at once, and one of them tells
            key = f"locked:{user.pk}"
            if mails.was_queued(key, HOUR):
                continue
            link = links.make(Link.Purpose.UNLOCK, user)
            told += bool(mails.tell("locked", user, coalesce=key, link=link, bucket=row, at=row.locked_at, address=row.ip))
    return told


def unlock(link: Link, *, request: HttpRequest) -> User:
    """Open what keeps a person out, by the link that was mailed. Raises sessions.StaleProof if it was used meanwhile."""
    assert link.user is not None
    with transaction.atomic():
        if not links.take(link):
            raise sessions.StaleProof
        ledger.release_person(link.user, by=link.user, reason="mailed link", request=request)
    return link.user
