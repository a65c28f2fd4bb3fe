"""One-time links, by mail or from an operator's hand: random, stored as a digest, good once, for a limited time. ASVS 6.4.1.

Every look at a token passes the ledger, once a request: `seen` reserves, looks and settles; `take` uses up what was seen.
"""

import secrets
from typing import Any

from django.conf import settings
from django.db.models import F, Q
from django.http import HttpRequest

from identity import clock, crypto, flight, ledger
from identity.models import Link, User
from tenants import policy

PATHS = {
    Link.Purpose.PASSWORD: "password/reset",
    Link.Purpose.OPERATOR: "signup",
    Link.Purpose.VERIFY: "link/verify",
    Link.Purpose.TAKE_BACK: "link/take-back",
    Link.Purpose.NOT_ME: "link/not-me",
    Link.Purpose.UNLOCK: "link/unlock",
}
GOOD_FOR = {
    Link.Purpose.PASSWORD: policy.LINK,
    Link.Purpose.OPERATOR: policy.OPERATOR_LINK,
    Link.Purpose.VERIFY: policy.VERIFY_LINK,
    Link.Purpose.TAKE_BACK: policy.TAKE_BACK_LINK,
    Link.Purpose.NOT_ME: policy.NOT_ME_LINK,
    Link.Purpose.UNLOCK: policy.LINK,
}
# A thief who has changed the password must not void the links by which its owner takes the account back.
OUTLIVES_A_PASSWORD = {Link.Purpose.TAKE_BACK, Link.Purpose.NOT_ME}


def make(purpose: Link.Purpose, user: User | None = None, **data: Any) -> str:
    """A new link, as the address to hand over or to mail. It is shown once: only its digest is kept."""
    token = secrets.token_urlsafe(32)
    now = clock.now()
    epoch = user.epoch if user and purpose not in OUTLIVES_A_PASSWORD else ""
    expires = now + GOOD_FOR[purpose]
    Link.objects.create(digest=crypto.digest(token), purpose=purpose, user=user, epoch=epoch, data=data, made_at=now, expires_at=expires)
    return f"{settings.PORTAL_URL}/{PATHS[purpose]}/{token}/"


_UNCHANGED = Q(user=None) | Q(user__is_active=True) & (Q(epoch="") | Q(user__epoch=F("epoch")))


def seen(request: HttpRequest, token: str, purpose: Link.Purpose, *, spent: bool = False) -> Link | None:
    """The link behind a token while it is good; looking does not use it up (a mail scanner opens every link).

    spent: also one that is good no more (`is_good` says so), for a page that tells its holder why. Raises ledger.AddressFull
    for an address that has guessed too often.
    """
    attempt = ledger.for_link(request)
    if attempt.refused:
        return None
    with attempt.flight():
        link = _link_behind(token, purpose)
    if link is None:
        attempt.wrong()
        return None
    attempt.right()  # also one that is over: a scanner that opens old mails guesses nothing
    return link if spent or is_good(link) else None


def _link_behind(token: str, purpose: Link.Purpose) -> Link | None:
    flight.demand()
    return Link.objects.filter(digest=crypto.digest(token), purpose=purpose).select_related("user").first()


def is_good(link: Link) -> bool:
    """Would `take` get it, as it was when it was seen?"""
    owner_stands = link.user is None or (link.user.is_active and link.epoch in {"", link.user.epoch})
    return link.used_at is None and link.expires_at > clock.now() and owner_stands


def take(link: Link) -> bool:
    """Use a link up that was seen in this request: one UPDATE with everything in its WHERE, so that of parallel takers one gets it.

    Call it in the transaction of what it allows.
    """
    good = Link.objects.filter(_UNCHANGED, pk=link.pk, used_at=None, expires_at__gt=clock.now()).values("pk")
    return bool(Link.objects.filter(pk__in=good, used_at=None).update(used_at=clock.now()))


def void(user: User, *purposes: Link.Purpose) -> None:
    """Make every unused link of a person worthless, for good; with purposes, only those."""
    rows = Link.objects.filter(user=user, used_at=None)
    if purposes:
        rows = rows.filter(purpose__in=purposes)
    rows.update(used_at=clock.now())


def void_all() -> int:
    """Make every unused link of everybody worthless; returns how many there were."""
    return Link.objects.filter(used_at=None).update(used_at=clock.now())


def void_all_but_ways_back(user: User) -> None:
    """The same, but for the links by which an owner takes the account back from a thief."""
    void(user, *(purpose for purpose in Link.Purpose if purpose not in OUTLIVES_A_PASSWORD))
