"""Hosts: their canonical form, whose they are, and where a person may be sent back to."""

import contextlib
import ipaddress
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from publicsuffixlist import PublicSuffixList

if TYPE_CHECKING:
    from tenants.models import App, Tenant

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NEXT = re.compile(
    r"(?P<origin>https?://[A-Za-z0-9.\[\]:-]+)?(?P<path>/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?(?P<query>\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?"
)

RESERVED_SLUGS = frozenset(
    [
        "login",
        "www",
        "api",
        "admin",
        "mail",
        "portal",
        "static",
        "account",
        "console",
        "enter",
        "gatehouse",
        "root",
        "support",
        "help",
        "status",
        "ftp",
        "smtp",
        "imap",
        "pop",
        "ns",
        "dns",
        "auth",
        "sso",
        "id",
        "idp",
        "oauth",
        "oidc",
        "saml",
        "cdn",
        "assets",
        "app",
        "apps",
        "localhost",
        "platform",
        "autodiscover",
        "autoconfig",
        "wpad",
        "isatap",
    ]
)


class BadHost(ValueError):
    """What was given is no host name; the text says why."""


def normalise(raw: str) -> str:
    """The canonical form of a host: lower-case ASCII (IDNA), no port, no trailing dot. Raises BadHost.

    The one place that decides it, for requests, forms and commands alike.
    """
    host = raw.strip()
    if host.startswith("["):
        raise BadHost(f"“{raw}” is an address, not a name.")
    host, _, port = host.partition(":")
    if port and not port.isdigit():
        raise BadHost(f"“{raw}” is no host name.")
    host = host.removesuffix(".").lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise BadHost(f"“{raw}” is no host name.") from None
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise BadHost(f"“{raw[:80]}” is no host name: letters, digits and hyphens between dots.")
    return host


def is_within(host: str, domain: str) -> bool:
    """Whether `host` is `domain` or below it (RFC 6265 section 5.1.3, domain match)."""
    return host == domain or host.endswith(f".{domain}")


def parents(host: str) -> list[str]:
    """Every domain at which this host could set or receive a cookie, itself first; no bare top level."""
    labels = host.split(".")
    return [".".join(labels[at:]) for at in range(max(len(labels) - 1, 1))]


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def is_public_suffix(domain: str) -> bool:
    """Whether strangers may register below this domain (publicsuffix.org), so that no cookie may span it."""
    return "." not in domain or _suffixes().privatesuffix(domain) is None


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def origin(host: str) -> str:
    """The origin of one of our hosts: the portal's scheme and port, since one proxy stands before all of them."""
    scheme = "https" if settings.SECURE else "http"
    port = f":{settings.PORTAL_PORT}" if settings.PORTAL_PORT else ""
    return f"{scheme}://{host}{port}"


# --- Whose host is it? --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """What answers at a host: a tenant, and the app if the host is an app's."""

    tenant: "Tenant"
    cookie_domain: str
    app: "App | None" = None


# Which tenant a host belongs to is remembered for two seconds, so that a signed-in request costs one query. Nothing here
# decides that a session is alive or a tenant open: `sessions.live` and `admission` ask the database for that.
_MEMORY_SECONDS = 2.0
_MEMORY_SIZE = 10_000
_memory: dict[str, tuple[float, Place]] = {}


def forget() -> None:
    """Drop what this process remembers of hosts."""
    _memory.clear()


def changed() -> None:
    """Tenants, hosts or apps are others now: nothing that is remembered holds, and certificates are looked after anew."""
    forget()
    transaction.on_commit(_tell, robust=True)


def _tell() -> None:
    """systemd waits for this file (deploy/gatehouse-certificates.path). What gets lost, its timer finds within the hour."""
    if settings.HOSTS_CHANGED:
        with contextlib.suppress(OSError):
            settings.HOSTS_CHANGED.touch()


def tenant_at(host: str) -> Place | None:
    """The tenant that answers at a canonical host, or None. Unknown hosts are asked for each time and never remembered."""
    now = time.monotonic()
    found = _memory.get(host)
    if found and found[0] > now:
        return found[1]
    place = _look_up(host)
    if place is not None:
        if len(_memory) >= _MEMORY_SIZE:
            _memory.clear()
        _memory[host] = (now + _MEMORY_SECONDS, place)
    return place


def _look_up(host: str) -> Place | None:
    from tenants.models import App, Host, Tenant

    label, _, rest = host.partition(".")
    if rest == settings.TENANT_DOMAIN:
        tenant = Tenant.objects.filter(slug=label).first()
        return Place(tenant, tenant.cookie_domain) if tenant else None
    further = Host.objects.filter(name=host, approved_at__isnull=False).select_related("tenant").first()
    if further:
        return Place(further.tenant, further.cookie_domain)
    app = App.objects.filter(host=host).select_related("tenant").first()
    domain = app.tenant.cookie_domain_for(host) if app else None
    return Place(app.tenant, domain, app) if app and domain else None


# --- Where may a person be sent back to? --------------------------------------------------------------------------


def may_return_to(target: str, allowed: frozenset[str], here: str) -> str | None:
    """The address behind `next`, rebuilt, or None if it leads anywhere but to an allowed host.

    target: as it came, at most 2,000 characters: a path, or an absolute URL.
    allowed: canonical hosts; here: the host that a bare path belongs to.

    A strict grammar instead of Django's checker, which passes values like `/\\t//evil` that a browser follows from a link.
    Control characters, backslashes, user-info, other schemes and foreign ports do not fit the grammar. ASVS 3.7.2.
    """
    if len(target) > 2000:
        return None
    fits = _NEXT.fullmatch(target)
    if not fits or target.startswith("//"):
        return None
    path, query = fits["path"] or "/", fits["query"] or ""
    if path.startswith("//"):
        return None
    host = here
    if fits["origin"]:
        try:
            parts = urlsplit(fits["origin"])
            host = normalise(parts.hostname or "")
            port = parts.port
        except ValueError:
            return None
        if parts.scheme != ("https" if settings.SECURE else "http") or port != settings.PORTAL_PORT:
            return None
    elif not fits["path"]:
        return None
    return f"{origin(host)}{path}{query}" if host in allowed else None
