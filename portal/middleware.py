"""The outermost layer: a request id, no caching, and a plain no to bytes that no page of ours sends."""

import re
import secrets
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware

from identity.ledger import AddressFull
from portal.logs import note_request, request_id
from portal.views.errors import bad_request, too_many
from tenants.middleware import is_trusted_peer
from tenants.text import is_plain

_ID = re.compile(r"[0-9a-f]{32}")
_HIDDEN = re.compile(r"%(?:0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)  # control characters, percent-encoded

_SERVED = {".css", ".js", ".svg", ".png", ".ico", ".woff2"}


class RequestMiddleware:
    """Name the request in every log line and event, and keep every answer out of every cache unless it says otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        from_proxy = is_trusted_peer(request.META.get("REMOTE_ADDR") or "", settings.TRUSTED_PROXIES)
        request.id = given if from_proxy and _ID.fullmatch(given) else secrets.token_hex(16)  # type: ignore[attr-defined]
        token = request_id.set(request.id)  # type: ignore[attr-defined]
        # Whatever the request calls it: UTF-7 would hide control characters from the look below, and from databases nothing.
        request.encoding = "utf-8"
        response: HttpResponse
        began = time.monotonic()
        try:
            if _HIDDEN.search(request.META.get("QUERY_STRING", "")) or any(ord(char) < 32 or ord(char) == 127 for char in request.path):
                response = bad_request(request)
            else:
                response = self.get_response(request)
            if settings.LOG_REQUESTS:
                note_request(request, response.status_code, time.monotonic() - began)
        finally:
            request_id.reset(token)
        response.setdefault("X-Request-ID", request.id)  # type: ignore[attr-defined]
        response.setdefault("Cache-Control", "no-store")
        response.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return too_many(request, exception) if isinstance(exception, AddressFull) else None

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: object) -> HttpResponse | None:
        """A control character in a field is nothing that a person types (a password may hold what it likes)."""
        if request.method == "POST":
            for name, values in request.POST.lists():
                if "password" not in name and not all(is_plain(value) for value in values):
                    return bad_request(request)
        return None


class StaticMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]
    """Serves what pages are made of, and nothing else that may lie in STATIC_ROOT. ASVS 13.4.7."""

    def add_file_to_dictionary(self, url: str, path: str, stat_cache: Any = None) -> None:
        if PurePath(url).suffix in _SERVED:
            super().add_file_to_dictionary(url, path, stat_cache=stat_cache)
