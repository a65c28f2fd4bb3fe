"""One-time links that an operator hands to a person: random, stored as a digest, good once, for a limited time. ASVS 6.4.1.

Every look at a token passes the ledger, once a request: `seen` reserves, looks and settles; `take` uses up what was seen.
"""

import secrets
from datetime import timedelta

from django.conf import settings
from django.db.models import F, Q
from django.http import HttpRequest

from identity import clock, crypto, flight, ledger
from identity.models import Link, User
from tenants import policy


def make(purpose: Link.Purpose, user: User | None = None) -> str:
    """A new link, as the address to hand over. It is shown once: only its digest is kept."""
    token = secrets.token_urlsafe(32)
    good_for: timedelta = policy.OPERATOR_LINK if purpose == Link.Purpose.OPERATOR else policy.LINK
    Link.objects.create(
        digest=crypto.digest(token), purpose=purpose, user=user, epoch=user.epoch if user else "", expires_at=clock.now() + good_for
    )
    path = "signup" if purpose == Link.Purpose.OPERATOR else "password/reset"
    return f"{settings.PORTAL_URL}/{path}/{token}/"


def _good(token: str, purpose: Link.Purpose) -> "Q":
    unchanged = Q(user=None) | Q(user__epoch=F("epoch"), user__is_active=True)
    return unchanged & Q(digest=crypto.digest(token), purpose=purpose, used_at=None, expires_at__gt=clock.now())


def seen(request: HttpRequest, token: str, purpose: Link.Purpose) -> Link | None:
    """The link behind a token while it is good; looking does not use it up (a mail scanner opens every link).

    Raises ledger.AddressFull for an address that has guessed too often.
    """
    attempt = ledger.for_link(request)
    if attempt.refused:
        return None
    with attempt.flight():
        link = _link_behind(token, purpose)
    if link is None:
        attempt.wrong()
        return None
    attempt.right()
    return link


def _link_behind(token: str, purpose: Link.Purpose) -> Link | None:
    flight.demand()
    return Link.objects.filter(_good(token, purpose)).select_related("user").first()


def take(link: Link) -> bool:
    """Use a link up that was seen in this request: one UPDATE with everything in its WHERE, so that of parallel takers one gets it.

    Call it in the transaction of what it allows.
    """
    unchanged = Q(user=None) | Q(user__epoch=F("epoch"), user__is_active=True)
    good = Link.objects.filter(unchanged, pk=link.pk, used_at=None, expires_at__gt=clock.now()).values("pk")
    return bool(Link.objects.filter(pk__in=good, used_at=None).update(used_at=clock.now()))


def void(user: User) -> None:
    """Make every unused link of a person worthless, for good."""
    Link.objects.filter(user=user, used_at=None).update(used_at=clock.now())
