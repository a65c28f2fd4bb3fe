"""The consoles that one may open."""

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from portal.access import PortalRequest, operator, operators_proof, signed_in
from tenants.models import Membership, Tenant


@require_safe
@signed_in
def home(request: PortalRequest) -> HttpResponse:
    """The tenants that one may administer: one's own, or all of them for an operator, with a second factor as everywhere."""
    if request.user.is_superuser and (page := operators_proof(request)):
        return page
    roles = {
        membership.tenant_id: membership.get_role_display()
        for membership in Membership.objects.filter(user=request.user, role__in=["admin", "owner"], blocked_at=None)
    }
    tenants = Tenant.objects.all() if request.user.is_superuser else Tenant.objects.filter(pk__in=roles, status=Tenant.Status.ACTIVE)
    listed = list(tenants.order_by("name")[:500])
    shown = [{"tenant": tenant, "role": roles.get(tenant.pk, _("Operator"))} for tenant in listed]
    context = {"here": "console", "tenants": shown, "brands": listed, "is_operator": request.user.is_superuser}
    return render(request, "console/home.html", context)


@require_safe
@operator
def platform(request: PortalRequest) -> HttpResponse:
    return redirect("platform_tenants")
