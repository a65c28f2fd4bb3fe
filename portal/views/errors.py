"""Refusals, calm: JSON for JSON."""

import logging
import math
import sys
from urllib.parse import urlencode

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string

from identity import events
from identity.ledger import AddressFull
from tenants.text import clean

log = logging.getLogger("gatehouse.database")


def _wants_json(request: HttpRequest) -> bool:
    return request.path.startswith("/api/") or request.path in {"/_portal/whoami", "/_portal/check"}


def route(request: HttpRequest) -> str:
    """The pattern that a request matched: a path itself can hold a one-time token."""
    match = request.resolver_match
    return match.route if match else ""


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form that did not come from our own page. ASVS 16.3.3."""
    tenant = getattr(request, "tenant", None)
    events.record_sparingly("csrf_refused", request=request, tenant=tenant, path=route(request), reason=clean(reason))
    if request.method == "POST" and request.path in {"/login/", "/login/code/"} and getattr(request, "tenant", None) is None:
        # Another tab signed in (or out) meanwhile and its token is the newer one: nothing is lost by showing the form again.
        target = request.POST.get("next", "")[:8000]
        return redirect(f"{request.path}?{urlencode({'next': target})}" if target else request.path)
    return render(request, "403_csrf.html", status=403)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"error": "Bad request"}, status=400)
    return render(request, "400.html", status=400)


def too_many(request: HttpRequest, full: AddressFull) -> HttpResponse:
    """An address that has guessed too often. Says nothing of any person. ASVS 2.4.1."""
    headers = {"Retry-After": str(full.retry_after)}
    if _wants_json(request):
        return JsonResponse({"error": "Too many attempts"}, status=429, headers=headers)
    minutes = math.ceil(full.retry_after / 60)
    page = render(request, "429.html", {"minutes": minutes}, status=429)
    page["Retry-After"] = headers["Retry-After"]
    return page


# Where mailed links lead: one that a mail program has broken fits no route.
LINKS = ("/password/reset/", "/invitation/", "/link/", "/signup/")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"error": "Not found"}, status=404)
    if request.path.startswith(LINKS) and getattr(request, "tenant", None) is None:
        return render(request, "login/link_refused.html", status=404)
    return render(request, "404.html", status=404)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"error": "Forbidden"}, status=403)
    return render(request, "403.html", status=403)


def no_database(request: HttpRequest) -> HttpResponse:
    """The database does not answer, or not in time. One line in the log, no traceback for each request."""
    log.error("The database does not answer: %s", sys.exception())
    headers = {"Retry-After": "5"}
    if _wants_json(request):
        response: HttpResponse = JsonResponse({"error": "Try again"}, status=503, headers=headers)
    else:
        response = HttpResponse(render_to_string("503.html"), status=503, headers=headers)
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def broken(request: HttpRequest) -> HttpResponse:
    """Something of ours failed, wherever: Django calls this while it handles the exception.

    The page needs no database and says the request id that the log has.
    """
    if isinstance(sys.exception(), (OperationalError, InterfaceError)):
        return no_database(request)
    if _wants_json(request):
        return JsonResponse({"error": "Internal error"}, status=500)
    return HttpResponse(render_to_string("500.html", {"request_id": getattr(request, "id", "")}), status=500)
