"""A tenant's look: one colour, one logo, and the visitor's choice of light or dark."""

from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST, require_safe

from portal.access import PortalRequest
from portal.context import THEMES
from tenants import hosts
from tenants.models import Logo, Tenant

_FOR_EVER = "public, max-age=31536000, immutable"


@require_safe
def css(request: HttpRequest, slug: str, digest: str) -> HttpResponse:
    """One rule: the tenant's colour, which was checked to be six hex digits."""
    tenant = get_object_or_404(Tenant, slug=slug)
    if digest != tenant.look_digest:
        raise Http404
    text = f'[data-brand="{tenant.slug}"] {{ --brand: {tenant.colour}; }}\n'
    return HttpResponse(text, content_type="text/css; charset=utf-8", headers={"Cache-Control": _FOR_EVER})


@require_safe
def logo(request: HttpRequest, slug: str, digest: str) -> HttpResponse:
    picture = get_object_or_404(Logo, pk=UUID(digest), tenant__slug=slug)
    return HttpResponse(bytes(picture.png), content_type="image/png", headers={"Cache-Control": _FOR_EVER})


@require_POST
def theme(request: PortalRequest) -> HttpResponse:
    """Remember light or dark in this browser, on this host."""
    choice = request.POST.get("theme", "auto")
    back = request.POST.get("next", "/")
    host = request.host
    response: HttpResponse = (
        HttpResponse(status=204) if request.htmx else redirect(hosts.may_return_to(back, frozenset({host}), host) or "/")
    )
    if choice in THEMES[1:]:
        response.set_cookie(settings.THEME_COOKIE_NAME, choice, max_age=31536000, secure=settings.SECURE, httponly=True, samesite="Lax")
    else:
        response.delete_cookie(settings.THEME_COOKIE_NAME, samesite="Lax")
        response.cookies[settings.THEME_COOKIE_NAME]["secure"] = settings.SECURE
    return response
