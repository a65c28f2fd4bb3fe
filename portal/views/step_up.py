"""The page that asks for a fresh proof and goes back to where it was asked."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from identity.models import TRUSTED
from portal import stepup
from portal.access import PortalRequest, portal_next, portal_row, signed_in
from portal.views.login import bound_for, let_through, only_tenant
from tenants.models import Tenant


@sensitive_post_parameters("password", "code")
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def step_up(request: PortalRequest) -> HttpResponse:
    """Prove that it is you: the password again, and a code where there is an authenticator. The absolute limits stay as they were."""
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, state = bound_for(target)
    form = stepup.form_for(request, request.POST or None, initial={"next": target})
    if request.method == "POST" and form.is_valid() and stepup.answer(request, form):
        return redirect(target or "home")
    context: dict[str, Any] = {"form": form, "brand": tenant, "username": request.user.username, "why": _why(request, target, tenant)}
    context["tenant"] = tenant or only_tenant(request.user)  # who helps
    context["back_url"] = f"{reverse('home')}?places=1"
    return let_through(render(request, "step_up/step_up.html", context), tenant, state)


def _why(request: PortalRequest, target: str, tenant: Tenant | None) -> str:
    if tenant and TRUSTED in portal_row(request).methods and not tenant.rules.trusted_browsers:
        return _("%(tenant)s asks for a code in every browser, trusted ones too.") % {"tenant": tenant.name}
    if tenant:
        return _("%(tenant)s asks for a fresh proof before it opens again.") % {"tenant": tenant.name}
    if target.startswith("/console/"):
        return _("The console asks for a fresh proof.")
    if target.startswith("/account/"):
        return _("You are about to change how your account is protected.")
    return _("What comes next asks for a fresh proof.")
