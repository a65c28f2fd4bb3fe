"""Refusals, calm: JSON for JSON."""

import math
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from identity import events
from identity.ledger import AddressFull
from tenants.text import clean


def _wants_json(request: HttpRequest) -> bool:
    return request.path.startswith("/api/") or request.path == "/_portal/whoami"


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


def broken(request: HttpRequest) -> HttpResponse:
    """Something of ours failed. The page needs no database and says the request id that the log has."""
    if _wants_json(request):
        return JsonResponse({"error": "Internal error"}, status=500)
    from django.template.loader import render_to_string

    return HttpResponse(render_to_string("500.html", {"request_id": getattr(request, "id", "")}), status=500)
