"""Who is it? The cookie of this host ↔ the session of this tenant."""

import itertools
import re
from http.cookies import Morsel
from urllib.parse import quote

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject

from identity import crypto, events, known, sessions
from identity.models import Session
from identity.store import SessionStore
from identity.tickets import Browser
from tenants import hosts
from tenants.middleware import TenantRequest

_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
# Asked by our own pages while nobody does anything: no activity.
QUIET_PATHS = frozenset({"/_portal/whoami", "/_portal/check", "/api/v1/session"})
_QUIET_PART = re.compile(r"/console/[a-z0-9-]+/sessions/pulse")


def is_quiet(path: str) -> bool:
    """Is this address asked by a page of ours by itself? Idle means idle."""
    return path in QUIET_PATHS or _QUIET_PART.fullmatch(path) is not None


class SessionRequest(TenantRequest):
    """A request behind SessionMiddleware."""

    session: SessionStore
    ended_session: Session | None  # behind a late cookie; asked of the database when first looked at
    planted_cookies: bool
    held_branches: dict[str, Session]  # every live branch that the browser presents at this tenant, by key


def cookie_name(request: TenantRequest) -> str:
    """Two names, because one name at two scopes breaks sign-out."""
    return settings.TENANT_COOKIE_NAME if request.tenant else settings.SESSION_COOKIE_NAME


def presented_keys(header: str, name: str) -> list[str]:
    """The values of our cookie in a Cookie header that have the form of a key, the last four of them, without repeats.

    A sibling host can plant a cookie of our name at a parent domain. Browsers send cookies of longer paths first, and ours
    has the path "/", so it is always among the last (RFC 6265 section 5.4).
    """
    pairs = (part.strip().partition("=") for part in header.split(";"))
    values = [value.strip('"') for key, _eq, value in pairs if key == name and _KEY.fullmatch(value.strip('"'))]
    return list(dict.fromkeys(reversed(values)))[:4]


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's middleware with our store behind it, the tenant's cookie instead of the global one, and a calm end."""

    def process_request(self, request: SessionRequest) -> None:  # type: ignore[override]
        request.session = SessionStore()
        request.planted_cookies, request.ended_session, request.held_branches = False, None, {}
        if request.place and request.place.app:
            return  # an app's own host: we show one page there, and it is the same for everybody
        keys = presented_keys(request.META.get("HTTP_COOKIE", ""), cookie_name(request))
        if not keys:
            return
        request.ended_session = SimpleLazyObject(lambda: sessions.ended(keys, request.tenant))  # type: ignore[assignment]
        rows = sessions.live(keys, request.tenant)
        if request.tenant:
            by_digest = {crypto.digest(key): key for key in keys}
            request.held_branches = {by_digest[row.key_digest]: row for row in rows if row.key_digest in by_digest}
            rows = own_branches(request, rows)
        if len(rows) > 1:
            events.record_sparingly("duplicate_cookie", request=request, tenant=request.tenant, sessions=[str(row.id) for row in rows])
            request.planted_cookies = True
        if len(rows) != 1:
            return
        row = rows[0]
        key = next((key for key in keys if crypto.digest(key) == row.key_digest), None)
        in_grace = key is None
        key = key or next(key for key in keys if crypto.digest(key) == row.previous_digest)
        store = SessionStore.of(row, key, in_grace=in_grace)
        if row.session_data and not _is_readable(store):
            return  # what cannot be decrypted counts as ended
        request.session = store
        row.user.methods = () if in_grace else tuple(row.methods)
        request._cached_user = row.user  # type: ignore[attr-defined]
        if not is_quiet(request.path) and sessions.touch(row, request.tenant) and row.persistent:
            store.modified = True  # a remembered browser's cookie rolls on

    def process_exception(self, request: SessionRequest, exception: Exception) -> HttpResponse | None:
        """A view that rotates or writes a session which ended meanwhile answers calmly, too."""
        if isinstance(exception, (UpdateError, SessionInterrupted)):
            request.session.modified = False
            return interrupted(request)
        return None

    def process_response(self, request: SessionRequest, response: HttpResponse) -> HttpResponse:  # type: ignore[override]
        store = request.session
        assert isinstance(store, SessionStore)
        if store.row is None and store.modified:
            store.save()
        try:
            response = super().process_response(request, response)
        except SessionInterrupted:
            response = interrupted(request)
        self._stamp(request, response, store)
        known.write(request, response)
        patch_vary_headers(response, ("Cookie",))
        return response

    def _stamp(self, request: SessionRequest, response: HttpResponse, store: SessionStore) -> None:
        """Give the cookie that Django has set the name and the domain of this host; delete it where a session went."""
        morsel = response.cookies.pop(settings.SESSION_COOKIE_NAME, None)
        name = cookie_name(request)
        if morsel is not None and store.row is not None and not store.in_grace:
            response.set_cookie(
                name,
                morsel.value,
                max_age=int(morsel["max-age"]) if morsel["max-age"] != "" else None,
                domain=request.place.cookie_domain if request.place else None,
                secure=settings.SESSION_COOKIE_SECURE,
                httponly=True,
                samesite="Lax",
            )
        elif store.gone or request.planted_cookies:
            delete_everywhere(request, response, name)


def own_branches(request: TenantRequest, rows: list[Session]) -> list[Session]:
    """In a browser only branches that were opened in this browser count: a sibling host can plant a tenant cookie, but not
    the host-only start cookie that a branch is bound to. Whoever sends no Sec-Fetch-Site is no browser, and nobody can take
    that header from one.
    """
    if "HTTP_SEC_FETCH_SITE" not in request.META:
        return rows
    browser = Browser.of(request)
    return [row for row in rows if browser and browser.digest in row.browsers]


def delete_everywhere(request: SessionRequest, response: HttpResponse, name: str) -> None:
    """Delete a cookie at every scope that this host could have got it from: its own and each parent domain.

    At the portal over http also at each path that leads to this page: what is left there would be the only one next time.
    (Over https nobody plants a __Host- cookie, and a tenant's branch is bound to its browser.)
    """
    scopes: list[str | None] = [None]
    if not name.startswith("__Host-"):
        scopes += hosts.parents(request.host)
        own = request.place.cookie_domain if request.place else None
        scopes = [scope for scope in scopes if scope != own] + [own]
    paths = _prefixes(request.path) if request.planted_cookies and not request.tenant else ["/"]
    for path, scope in itertools.product(paths, dict.fromkeys(scopes)):
        response.delete_cookie(name, path=path, domain=scope, samesite="Lax")
        morsel: Morsel[str] = response.cookies.pop(name)
        morsel["secure"], morsel["httponly"] = settings.SESSION_COOKIE_SECURE, True
        response.cookies[f"{name}@{scope}{path}"] = morsel  # one name, several scopes: several lines


def _prefixes(path: str) -> list[str]:
    """Every cookie path that matches this request (RFC 6265 section 5.1.4), as deep as pages of ours lie."""
    plain = re.match(r"[A-Za-z0-9._~/-]*", path)  # ours have nothing else, and a ";" would be an attribute
    parts = [part for part in (plain[0] if plain else "").split("/") if part][:5]
    below = ["/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return ["/", *below, *[f"{each}/" for each in below]]


def _is_readable(store: SessionStore) -> bool:
    try:
        store.keys()  # decrypts
    except crypto.Undecipherable:
        return False
    store.accessed = False
    return True


def page_behind(request: HttpRequest) -> str:
    """The page that a person is looking at: where to come back to. A form's own address cannot be opened, its page can."""
    htmx = getattr(request, "htmx", None)
    if htmx and htmx.current_url_abs_path:
        path = str(htmx.current_url_abs_path)
    elif request.method in {"GET", "HEAD"}:
        path = request.get_full_path()
    else:
        host = request.host  # type: ignore[attr-defined]
        came_from = hosts.may_return_to(request.headers.get("Referer", ""), frozenset({host}), host) or "/"
        path = came_from.removeprefix(hosts.origin(host))
    return path.removesuffix("end") if path.endswith("/end") else path


def login_address(request: HttpRequest) -> str:
    """Where somebody without a session goes from this page, and back to it afterwards."""
    return f"{reverse('login')}?next={quote(page_behind(request), safe='')}"


def interrupted(request: HttpRequest) -> HttpResponse:
    """The answer to a request whose session ended while it was answered: the way to the page that says why."""
    if request.path.startswith("/api/") or request.path in QUIET_PATHS:
        return JsonResponse({"error": "Unauthorized"}, status=401)
    address = login_address(request)
    if getattr(request, "htmx", False):
        return HttpResponse(headers={"HX-Redirect": address})
    return redirect(address)
