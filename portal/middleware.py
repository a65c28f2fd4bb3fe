"""The outermost layer: a request id, no caching, and a plain no to bytes that no page of ours sends."""

import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponse
from django.views import defaults

_ID = re.compile(r"[0-9a-f]{32}")
_HIDDEN = re.compile(r"%(?:0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)  # control characters, percent-encoded
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestMiddleware:
    """Name the request in every log line and event, and keep every answer out of every cache unless it says otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request.id = given if _ID.fullmatch(given) else secrets.token_hex(16)  # type: ignore[attr-defined]
        token = request_id.set(request.id)  # type: ignore[attr-defined]
        try:
            if _HIDDEN.search(request.META.get("QUERY_STRING", "")) or any(ord(char) < 32 or ord(char) == 127 for char in request.path):
                response: HttpResponse = defaults.bad_request(request, ValueError("control characters"))
            else:
                response = self.get_response(request)
        finally:
            request_id.reset(token)
        response.setdefault("X-Request-ID", request.id)  # type: ignore[attr-defined]
        response.setdefault("Cache-Control", "no-store")
        response.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response
