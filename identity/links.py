"""One-time links that an operator hands to a person: random, stored as a digest, good once, for a limited time. ASVS 6.4.1."""

import secrets
from datetime import timedelta

from django.conf import settings
from django.db.models import F, Q

from identity import clock, sessions
from identity.models import Link, User
from tenants import policy


def make(purpose: Link.Purpose, user: User | None = None) -> str:
    """A new link, as the address to hand over. It is shown once: only its digest is kept."""
    token = secrets.token_urlsafe(32)
    good_for: timedelta = policy.OPERATOR_LINK if purpose == Link.Purpose.OPERATOR else policy.LINK
    Link.objects.create(
        digest=sessions.digest(token), purpose=purpose, user=user, epoch=user.epoch if user else "", expires_at=clock.now() + good_for
    )
    path = "signup" if purpose == Link.Purpose.OPERATOR else "password/reset"
    return f"{settings.PORTAL_URL}/{path}/{token}/"


def _good(token: str, purpose: Link.Purpose) -> "Q":
    unchanged = Q(user=None) | Q(user__epoch=F("epoch"), user__is_active=True)
    return unchanged & Q(digest=sessions.digest(token), purpose=purpose, used_at=None, expires_at__gt=clock.now())


def find(token: str, purpose: Link.Purpose) -> Link | None:
    """The link behind a token while it is good; opening its page does not use it up (a mail scanner opens every link)."""
    return Link.objects.filter(_good(token, purpose)).select_related("user").first()


def take(token: str, purpose: Link.Purpose) -> Link | None:
    """Use a link up: one UPDATE, so that of parallel takers one gets it. Call it in the transaction of what it allows."""
    link = find(token, purpose)
    if link is None or not Link.objects.filter(pk=link.pk, used_at=None).update(used_at=clock.now()):
        return None
    return link


def void(user: User) -> None:
    """Make every unused link of a person worthless, for good."""
    Link.objects.filter(user=user, used_at=None).update(used_at=clock.now())
