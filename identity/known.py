"""Known devices: browsers in which a person has signed in completely, by a host-only cookie. Some are trusted in place of a code.

The cookie holds up to five (person, secret) pairs, each good for that person only. A stranger can neither mint one for
somebody else nor use up what a known device has left; all of a person's are dead when password or factors change.
"""

import re
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from identity import clock, crypto, events
from identity.models import KnownDevice, User
from tenants import policy
from tenants.models import Tenant

_PAIR = re.compile(r"(\d{1,18})\.([A-Za-z0-9_-]{43})")
PAIRS = 5
COOKIE_AGE = timedelta(days=400)  # what browsers allow at most


def _pairs(request: HttpRequest) -> dict[int, str]:
    """Person → secret, as this browser presents them, the latest first."""
    parts = request.COOKIES.get(settings.DEVICE_COOKIE_NAME, "").split("~")[:PAIRS]
    return {int(fits[1]): fits[2] for part in parts if (fits := _PAIR.fullmatch(part))}


def device_of(request: HttpRequest, user: User | None) -> KnownDevice | None:
    """The known device behind this browser's cookie, if it is one of this person's.

    Whoever sends such a cookie is looked for, nobody as well: else its time would tell whether a name has the id in the cookie.
    """
    pairs = _pairs(request)
    if not pairs:
        return None
    pk = user.pk if user else 0
    return KnownDevice.objects.filter(user_id=pk, digest=crypto.digest(pairs.get(pk, "")), revoked_at=None).first()


def is_trusted(request: HttpRequest, user: User) -> bool:
    """Does this browser stand in for the person's code? An operator's never does."""
    device = device_of(request, user)
    return bool(device and device.trusted_until and device.trusted_until > clock.now() and may_trust(user))


def may_trust(user: User, tenant: Tenant | None = None) -> bool:
    """May a browser stand in for this person's code? Not for an operator, and not where the tenant he is bound for forbids it.

    Without a tenant: unless every one of his forbids it.
    """
    if user.is_superuser:
        return False
    if tenant:
        return tenant.rules.trusted_browsers
    rules = [policy.Policy.of(stored) for stored in Tenant.objects.filter(memberships__user=user).values_list("policy", flat=True)]
    return not rules or any(each.trusted_browsers for each in rules)


def remember(request: HttpRequest, user: User, *, trust: bool = False) -> KnownDevice:
    """Note this browser as the person's, after a complete sign-in; its cookie goes out with the response (see `write`)."""
    now = clock.now()
    device = device_of(request, user)
    if device is None:
        secret = secrets.token_urlsafe(32)
        device = KnownDevice(user=user, digest=crypto.digest(secret), created_at=now)
    else:
        secret = _pairs(request)[user.pk]
    device.last_seen_at = now
    device.ip, device.user_agent = events.address(request), events.user_agent(request)
    if trust:
        device.trusted_until = now + policy.TRUSTED_BROWSER
        events.record("browser_trusted", request=request, actor=user, subject=user, until=device.trusted_until)
    if device._state.adding:
        device.save(force_insert=True)
        _forget_oldest(user)
    else:  # never brings back a device that was revoked meanwhile
        fields = ("last_seen_at", "ip", "user_agent", "trusted_until")
        KnownDevice.objects.filter(pk=device.pk, revoked_at=None).update(**{name: getattr(device, name) for name in fields})
    rest = [f"{pk}.{kept}" for pk, kept in _pairs(request).items() if pk != user.pk]
    request.device_cookie = "~".join([f"{user.pk}.{secret}", *rest][:PAIRS])  # type: ignore[attr-defined]
    return device


def _forget_oldest(user: User) -> None:
    """Trusted ones stay longest, then those that came back, then the newest: scripts that keep no cookie push none of them out."""
    now = clock.now()
    rows = list(KnownDevice.objects.filter(user=user))

    def worth(row: KnownDevice) -> tuple[bool, bool, datetime, int]:
        return bool(row.trusted_until and row.trusted_until > now), row.last_seen_at > row.created_at, row.last_seen_at, row.pk

    kept = sorted((row for row in rows if row.revoked_at is None), key=worth, reverse=True)[: policy.KNOWN_DEVICES]
    for pk in sorted({row.pk for row in rows} - {row.pk for row in kept}):  # in one order, whoever else does the same
        KnownDevice.objects.filter(pk=pk).delete()


def write(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set the cookie that `remember` made, if it did."""
    if text := getattr(request, "device_cookie", ""):
        response.set_cookie(settings.DEVICE_COOKIE_NAME, text, max_age=COOKIE_AGE, secure=settings.SECURE, httponly=True, samesite="Lax")


def trusted(user: User) -> list[KnownDevice]:
    """The browsers that stand in for a code now, the latest first."""
    rows = KnownDevice.objects.filter(user=user, revoked_at=None, trusted_until__gt=clock.now())
    return list(rows.order_by("-last_seen_at"))


def revoke(user: User, pk: int, *, request: HttpRequest | None = None) -> bool:
    """Make one of a person's browsers unknown: the next sign-in there asks for the code. False if there is no such one."""
    done = KnownDevice.objects.filter(user=user, pk=pk, revoked_at=None).update(revoked_at=clock.now(), trusted_until=None)
    if done:
        events.record("trust_revoked", request=request, actor=user, subject=user)
    return bool(done)


def forget_all(user: User) -> None:
    """Every browser of a person is unknown from now on. Called with the change of password or factors, in its transaction."""
    KnownDevice.objects.filter(user=user, revoked_at=None).update(revoked_at=clock.now(), trusted_until=None)


def trust_none() -> int:
    """No browser of anybody stands in for a code any more; all stay known. Returns how many were trusted."""
    return KnownDevice.objects.filter(trusted_until__isnull=False).update(trusted_until=None)
