"""What goes on at a tenant, at a glance."""

from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from portal.access import ConsoleRequest, console


@require_safe
@console
def page(request: ConsoleRequest) -> HttpResponse:
    return redirect("console_sessions", request.console_tenant.slug)
