"""A guest's choice of language, in this browser and on this host; a person's is part of the profile."""

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from portal.access import PortalRequest
from tenants import hosts


@require_POST
def choose(request: PortalRequest) -> HttpResponse:
    back = request.POST.get("next", "/")
    host = request.host
    target = hosts.may_return_to(back, frozenset({host}), host) or "/"
    response = HttpResponse(headers={"HX-Redirect": target}) if request.htmx else redirect(target)
    choice = request.POST.get("language", "")
    if choice in dict(settings.LANGUAGES):
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, choice, max_age=31536000, secure=settings.SECURE, httponly=True, samesite="Lax")
    return response
