"""A password that is forgotten: the question, and the page behind the mailed link (or behind one from an operator's hand)."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from identity import clock, forgotten, ledger, links, sessions
from identity.middleware import SessionRequest
from identity.models import Link, User
from portal.access import portal_next
from portal.forms import ForgotForm, NewPasswordForm
from portal.views.login import bound_for, only_tenant
from portal.views.signup import refused
from tenants.models import Membership, Tenant


@require_http_methods(["GET", "HEAD", "POST"])
def password_forgot(request: SessionRequest) -> HttpResponse:
    """One field, and one answer for whatever is typed into it. ASVS 6.3.8."""
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, _state = bound_for(target)
    form = ForgotForm(request.POST or None, initial={"next": target})
    context = {
        "form": form,
        "brand": tenant,
        "login_url": f"{reverse('login')}?{urlencode({'next': target})}" if target else reverse("login"),
    }
    if request.method == "POST" and form.is_valid():
        forgotten.ask(request, form.cleaned_data["username"], tenant=tenant)
        return render(request, "password/asked.html", context)
    return render(request, "password/forgot.html", context)


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def password_reset(request: SessionRequest, token: str) -> HttpResponse:
    """A new password behind a one-time link. It signs nobody in, ends every session, and leaves the second factor (ASVS 6.4.3)."""
    link = links.seen(request, token, Link.Purpose.PASSWORD, spent=True)
    if link is None or link.user is None or not link.user.is_active:
        return refused(request)
    if not links.is_good(link):
        return _spent(request, link, link.user)
    form = NewPasswordForm(link.user, request.POST or None)
    brand = _brand(link, link.user)
    if request.method == "POST" and form.is_valid():
        try:
            sessions.change_password(link.user, form.cleaned_data["password"], by=link.user, request=request, link=link)
        except sessions.StaleProof:
            return _spent(request, Link.objects.get(pk=link.pk), User.objects.get(pk=link.user.pk))
        ledger.release_person(link.user, by=link.user, reason="new password by a one-time link", request=request)
        done = reverse("password_reset_complete")
        return redirect(f"{done}?{urlencode({'next': reverse('enter', args=[brand.slug])})}" if brand else done)
    return render(request, "password/reset.html", {"form": form, "person": link.user.username, "brand": brand})


def _brand(link: Link, user: User) -> Tenant | None:
    """The tenant at whose door it was asked for, if it is one of the person's own; else the only one there is."""
    asked_at = Membership.objects.filter(user=user, tenant=link.data.get("tenant"), tenant__status=Tenant.Status.ACTIVE)
    own = asked_at.select_related("tenant").first()
    return own.tenant if own else only_tenant(user)


def _spent(request: SessionRequest, link: Link, user: User) -> HttpResponse:
    """Why a link opens nothing any more, for whoever holds it, and the way to a new one."""
    newer = Link.objects.filter(user=user, purpose=link.purpose, pk__gt=link.pk).exists()
    if link.epoch != user.epoch:
        lead = _("The password has been changed since this link was made. If that was you, sign in with the new one.")
    elif newer:
        lead = _("You asked again after this mail, and only the link in the newest one works. Look for it in your mail.")
    elif link.used_at is None and link.expires_at <= clock.now():
        lead = _("It was good for an hour, and that is over.")
    else:
        lead = _("It worked once, or the address of the account was changed since.")
    context: dict[str, Any] = {"lead": lead, "brand": _brand(link, user)}
    return render(request, "password/spent.html", context, status=404)


@require_safe
def password_reset_complete(request: SessionRequest) -> HttpResponse:
    target = portal_next(request.GET.get("next", ""))
    tenant, _state = bound_for(target)
    context = {"brand": tenant, "login_url": f"{reverse('login')}?{urlencode({'next': target})}" if target else reverse("login")}
    return render(request, "password/reset_done.html", context)
