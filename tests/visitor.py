"""A browser for tests: real cookies by host and domain, real redirects across hosts, through the whole product in this process."""

from dataclasses import dataclass, field
from functools import cache
from http.cookies import Morsel
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpResponse
from django.test.client import Client, ClientHandler

from identity import factors
from identity.crypto import digest
from identity.models import Session, TotpDevice


@cache
def _product() -> ClientHandler:
    """One for all visitors while no test changes the settings, as in production: when it starts it looks at every static file."""
    return ClientHandler(enforce_csrf_checks=True)


@receiver(setting_changed)
def _start_anew(**_: object) -> None:
    _product.cache_clear()


def _client() -> Client:
    client = Client(enforce_csrf_checks=True)
    client.handler = _product()
    return client


@dataclass
class Cookie:
    name: str
    value: str
    domain: str
    host_only: bool
    path: str = "/"


@dataclass
class Visitor:
    """Holds cookies as RFC 6265 says; `get` and `post` take absolute URLs or paths on the host of the last page."""

    user_agent: str = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
    address: str = "127.0.0.1"
    cookies: list[Cookie] = field(default_factory=list)
    url: str = ""
    page: HttpResponse = field(default_factory=HttpResponse)
    trail: list[str] = field(default_factory=list)
    client: Client = field(default_factory=_client)

    # Going places ------------------------------------------------------------------------------------------------

    def get(self, url: str, *, follow: bool = True, **headers: Any) -> Any:
        return self._go("GET", url, None, follow, headers)

    def head(self, url: str, **headers: str) -> HttpResponse:
        return self._go("HEAD", url, None, False, headers)

    def post(self, url: str, data: dict[str, Any] | None = None, *, follow: bool = True, csrf: bool = True, **headers: Any) -> Any:
        """A form post from a page of the same host, with its token (fetched from that host if there is none yet)."""
        data = dict(data or {})
        if csrf:
            host = urlsplit(self._absolute(url)).netloc
            data.setdefault("csrfmiddlewaretoken", self._csrf(host))
            headers.setdefault("HTTP_ORIGIN", f"{self._scheme}://{host}")
        return self._go("POST", url, urlencode(data, doseq=True), follow, headers)

    def post_json(self, url: str, body: str, **headers: Any) -> Any:
        return self._go("POST", url, body, False, headers, content_type="application/json")

    def sign_in(self, name: str, password: str, *, at: str = "", remember: bool = False) -> Any:
        """Sign in through the real pages: at the portal, or by way of a tenant's host."""
        self.get(tenant_url(at) if at else f"{settings.PORTAL_URL}/login/")
        data = {"username": name, "password": password, **({"remember": "on"} if remember else {})}
        target = urlsplit(self.url).query
        page = self.post(f"{settings.PORTAL_URL}/login/{'?' + target if target else ''}", data)
        return self.type_code(name) if "/login/code/" in self.url else page

    def type_code(self, name: str, **fields: str) -> Any:
        """Answer the page that asks for a code with what the person's authenticator shows; no waiting for the next one in tests."""
        device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
        TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
        return self.post(self.url, {"code": factors.code_now(device), **fields})

    def step_up(self, password: str = "gatehouse-demo") -> Any:
        """Prove anew, with everything that is asked from the person of this session."""
        person = self.session().user
        data = {"password": password}
        if device := TotpDevice.objects.filter(user=person, confirmed=True).first():
            TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
            data["code"] = factors.code_now(device)
        return self.post(f"{settings.PORTAL_URL}/step-up/", data, follow=False)

    # What a test asks --------------------------------------------------------------------------------------------

    def key(self, host: str) -> str:
        """The value of the session cookie that this browser sends to a host."""
        name = settings.SESSION_COOKIE_NAME if host == settings.PORTAL_HOST else settings.TENANT_COOKIE_NAME
        return next((cookie.value for cookie in self.sent_to(host) if cookie.name == name), "")

    def session(self, slug: str = "") -> Session:
        """The row behind this browser's session at a tenant, or at the portal."""
        host = f"{slug}.{settings.TENANT_DOMAIN}" if slug else settings.PORTAL_HOST
        return Session.objects.get(key_digest=digest(self.key(host)))

    def is_in(self, slug: str = "") -> bool:
        url = tenant_url(slug, "/_portal/whoami") if slug else f"{settings.PORTAL_URL}/api/v1/session"
        return self._go("GET", url, None, False, {}, keep=False).status_code == 200

    def sent_to(self, host: str) -> list[Cookie]:
        return [c for c in self.cookies if host == c.domain or (not c.host_only and host.endswith(f".{c.domain}"))]

    def plant(self, name: str, value: str, domain: str) -> None:
        """What a sibling host can do: set a cookie at a parent domain."""
        self.cookies.append(Cookie(name, value, domain, host_only=False))

    # How -----------------------------------------------------------------------------------------------------------

    @property
    def _scheme(self) -> str:
        return "https" if settings.SECURE else "http"

    def _absolute(self, url: str) -> str:
        return urljoin(self.url or f"{settings.PORTAL_URL}/", url)

    def _csrf(self, netloc: str) -> str:
        host = netloc.partition(":")[0]
        for cookie in self.sent_to(host):
            if cookie.name == settings.CSRF_COOKIE_NAME:
                return cookie.value
        value = "c" * 32
        self.cookies.append(Cookie(settings.CSRF_COOKIE_NAME, value, host, host_only=True))
        return value

    def _go(
        self,
        method: str,
        url: str,
        body: str | None,
        follow: bool,
        headers: dict[str, str],
        content_type: str = "application/x-www-form-urlencoded",
        keep: bool = True,
    ) -> HttpResponse:
        url = self._absolute(url)
        trail = [url]
        response = self._ask(method, url, body, headers, content_type)
        while follow and response.status_code in {301, 302, 303} and len(trail) < 20:
            url = urljoin(url, response["Location"])
            trail.append(url)
            response = self._ask("GET", url, None, {k: v for k, v in headers.items() if k != "HTTP_ORIGIN"}, content_type)
        if keep:
            self.url, self.page, self.trail = url, response, trail
        return response

    def _ask(self, method: str, url: str, body: str | None, headers: dict[str, str], content_type: str) -> HttpResponse:
        parts = urlsplit(url)
        host = parts.hostname or ""
        jar = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.sent_to(host))
        environ: dict[str, Any] = {
            "HTTP_HOST": parts.netloc,
            "SERVER_NAME": host,
            "SERVER_PORT": str(parts.port or (443 if parts.scheme == "https" else 80)),
            "REMOTE_ADDR": self.address,
            "HTTP_USER_AGENT": self.user_agent,
            "HTTP_ACCEPT": "text/html,*/*",
            **({"HTTP_COOKIE": jar} if jar else {}),
            **({} if parts.path.startswith("/api/") else {"HTTP_SEC_FETCH_SITE": "same-origin"}),
            **headers,
        }
        self.client.cookies.clear()
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        response: HttpResponse = self.client.generic(
            method, path, body or "", content_type=content_type, secure=parts.scheme == "https", **environ
        )  # type: ignore[assignment]
        for morsel in response.cookies.values():
            self._keep(morsel, host)
        return response

    def _keep(self, morsel: "Morsel[str]", host: str) -> None:
        domain = morsel["domain"] or host
        if domain != host and not host.endswith(f".{domain}"):
            return  # a browser refuses it
        host_only = not morsel["domain"]
        self.cookies = [c for c in self.cookies if (c.name, c.domain, c.host_only) != (morsel.key, domain, host_only)]
        if morsel["max-age"] != 0 and morsel.value:
            self.cookies.append(Cookie(morsel.key, morsel.value, domain, host_only))


def tenant_url(slug: str, path: str = "/") -> str:
    port = f":{settings.PORTAL_PORT}" if settings.PORTAL_PORT else ""
    return f"{'https' if settings.SECURE else 'http'}://{slug}.{settings.TENANT_DOMAIN}{port}{path}"


def portal_url(path: str = "/") -> str:
    return f"{settings.PORTAL_URL}{path}"
