"""Figures for Prometheus, for whom METRICS_FROM names. Everybody else finds nothing here."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from portal import metrics as figures
from tenants.hosts import is_address
from tenants.middleware import is_trusted_peer


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    peer = request.META.get("REMOTE_ADDR") or ""
    if not is_address(peer) or not is_trusted_peer(peer, settings.METRICS_FROM):
        raise Http404
    return HttpResponse(figures.page(), content_type="text/plain; version=0.0.4; charset=utf-8")
