"""Accounts that people make by themselves: where that is offered, and the verb."""

from typing import Literal

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import translation

from identity import addresses, clock, events, ledger
from identity.models import Event, User
from tenants import policy
from tenants.models import Tenant

Offer = Literal["closed", "invited", "domain", "open"]


class NameTaken(Exception):
    """Somebody took this user name in this very moment."""


def offer(tenant: Tenant | None) -> Offer:
    """What somebody without an account is offered: at a tenant's door what the tenant says, at the platform's own what SIGNUP says."""
    if tenant is None:
        return "open" if settings.SIGNUP == "open" else "closed"
    said: Offer = tenant.rules.sign_up if tenant.is_active else "closed"  # type: ignore[assignment]  # Policy has checked it
    return said


def is_open(tenant: Tenant | None) -> bool:
    """May somebody make an account here, without an invitation?"""
    return offer(tenant) in {"open", "domain"}


def sign_up(user: User, *, request: HttpRequest, tenant: Tenant | None = None, next_path: str = "") -> None:
    """Save a new account, whose address nobody has proven, and have the link mailed that proves it.

    The same for an address that somebody else has proven: only its owner hears of it. The account's language is the page's. Raises
    NameTaken, and ledger.AddressFull where more accounts come from one address than people make.
    """
    network = ledger.network_of(request)
    user.language = translation.get_language() or ""
    _keep_few(network)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            events.record("signed_up", request=request, actor=user, subject=user, network=network)
            addresses.ask_to_prove(user, user.email, request=request, tenant=tenant, next_path=next_path)
    except IntegrityError:
        raise NameTaken from None


def _keep_few(network: str) -> None:
    """Each account sends a mail to an address that a stranger chooses: not a thousand of them."""
    since = clock.now() - policy.ADDRESS_WINDOW
    lately = Event.objects.filter(kind="signed_up", at__gt=since, data__network=network)
    if network and lately.count() >= policy.SIGN_UPS:
        raise ledger.AddressFull(int(policy.ADDRESS_WINDOW.total_seconds()))
