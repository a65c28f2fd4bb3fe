"""Where am I? Who really asks, over which scheme, and which tenant answers at this host."""

import ipaddress
from collections.abc import Callable
from functools import cache

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.shortcuts import render
from django.utils.translation import gettext as _

from tenants import hosts
from tenants.models import Tenant

Answer = Callable[[HttpRequest], HttpResponse]


def client_address(peer: str, forwarded: str, trusted: list[str]) -> str:
    """The address of the one who asks, as the nearest proxy that we trust saw it.

    peer: the socket's address ("" for a unix socket, which only a local proxy can open, so it is trusted);
    forwarded: the X-Forwarded-For header, counted from the right; trusted: addresses and networks.
    A part that is no address makes the whole header worthless: the peer it is. ASVS 15.3.4.
    """

    def is_trusted(address: str) -> bool:
        return is_trusted_peer(address, trusted)

    def parse(text: str) -> str:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address)

    try:
        nearest = parse(peer) if peer else ""
        if not is_trusted(nearest):
            return nearest
        for part in reversed([part for part in forwarded.split(",") if part.strip()]):
            nearest = parse(part)
            if not is_trusted(nearest):
                return nearest
        return nearest
    except ValueError:
        return peer


def is_trusted_peer(peer: str, trusted: list[str]) -> bool:
    """Whether the one at the other end of the socket is a proxy of ours: a unix socket, or a trusted address."""
    if peer == "":
        return True
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in _networks(tuple(trusted)))


@cache
def _networks(trusted: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(part, strict=False) for part in trusted)


_FORWARDED = [
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_REAL_IP",
    "HTTP_FORWARDED",
    "HTTP_X_ORIGINAL_URL",
    "HTTP_X_REWRITE_URL",
]


class ProxyMiddleware:
    """Set REMOTE_ADDR and the scheme from a trusted proxy's word, and drop everybody else's word about them."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        meta = request.META
        peer = meta.get("REMOTE_ADDR") or ""
        claims = {name: meta.pop(name, "") for name in _FORWARDED}
        if is_trusted_peer(peer, settings.TRUSTED_PROXIES):
            meta["REMOTE_ADDR"] = client_address(peer, claims["HTTP_X_FORWARDED_FOR"], settings.TRUSTED_PROXIES)
            if claims["HTTP_X_FORWARDED_PROTO"] in {"http", "https"}:
                request.environ["wsgi.url_scheme"] = claims["HTTP_X_FORWARDED_PROTO"]  # type: ignore[attr-defined]
        if settings.SECURE and not request.is_secure():
            return self._insecure(request)
        return self.get_response(request)

    def _insecure(self, request: HttpRequest) -> HttpResponse:
        """Only a page is sent on to https: whoever posts in clear has lost the secret already. ASVS 4.1.2."""
        if request.path in {"/healthz", "/readyz"}:
            return self.get_response(request)
        accepts_html = "text/html" in request.headers.get("Accept", "")
        if request.method in {"GET", "HEAD"} and accepts_html:
            try:
                host = hosts.normalise(request.get_host())
            except (DisallowedHost, hosts.BadHost):
                return HttpResponse("This host name is not valid.\n", status=400, content_type="text/plain; charset=utf-8")
            return HttpResponsePermanentRedirect(f"{hosts.origin(host)}{request.get_full_path()}")
        return HttpResponse("This address speaks https only.\n", status=400, content_type="text/plain; charset=utf-8")


class TenantRequest(HttpRequest):
    """A request behind HostMiddleware."""

    host: str
    tenant: Tenant | None
    place: hosts.Place | None
    urlconf: str


class HostMiddleware:
    """Host → `request.tenant` (None at the portal) and the URLconf. A page that must not exist on a host is not in its URLconf."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        assert isinstance(request, HttpRequest)
        # Health is asked by machines, at whatever name they know.
        request.tenant = request.place = None  # type: ignore[attr-defined]
        try:
            host = hosts.normalise(request.get_host())
        except (DisallowedHost, hosts.BadHost):
            if request.path in {"/healthz", "/readyz"}:
                request.host = settings.PORTAL_HOST  # type: ignore[attr-defined]
                return self.get_response(request)
            return HttpResponse(_("This host name is not valid.") + "\n", status=400, content_type="text/plain; charset=utf-8")
        request.host = host  # type: ignore[attr-defined]
        if host == settings.PORTAL_HOST or request.path in {"/healthz", "/readyz"}:
            return self.get_response(request)
        place = hosts.tenant_at(host)
        if place is None:
            return self._nobody(request, host)
        request.place, request.tenant = place, place.tenant  # type: ignore[attr-defined]
        request.urlconf = settings.APP_URLCONF if place.app else settings.TENANT_URLCONF
        return self.get_response(request)

    def _nobody(self, request: HttpRequest, host: str) -> HttpResponse:
        cure = f"manage.py tenant host add TENANT {host}"
        label, _dot, rest = host.partition(".")
        if rest == settings.TENANT_DOMAIN and label not in hosts.RESERVED_SLUGS:
            cure = f'manage.py tenant add {label} "{label.capitalize()}"'
        return render(request, "errors/unknown_host.html", {"host": host, "cure": cure}, status=404)
