"""One's e-mail address: the page in the account, and what stands behind the links that prove one or take one back."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from identity import addresses, clock, invitations, links, sessions
from identity.middleware import SessionRequest
from identity.models import Link, User
from portal.access import PortalRequest, portal_next
from portal.forms import EmailForm
from portal.stepup import proven
from portal.views.login import bound_for, only_tenant
from portal.views.signup import refused
from tenants.models import JoinRequest, Membership, Tenant


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def page(request: PortalRequest) -> HttpResponse:
    """The address that is, the one that waits for its proof, and a form for another. Nothing changes before the mailed link."""
    person = User.objects.get(pk=request.user.pk)
    form = EmailForm(person, request.POST if "email" in request.POST else None)
    if request.method == "POST" and "cancel" in request.POST:
        if addresses.forget_change(person, request=request):
            messages.success(request, _("The change is dropped. Your address stays as it was."))
        return redirect("email")
    if request.method == "POST" and "again" in request.POST:
        _say_mailed(request, addresses.ask_again(person, request=request), addresses.waiting(person))
        return redirect("email")
    if request.method == "POST" and form.is_valid():
        address = form.cleaned_data["email"]
        _say_mailed(request, addresses.ask_to_change(person, address, request=request), address)
        return redirect("email")
    context = {"here": "profile", "person": person, "form": form, "waiting": addresses.waiting(person)}
    return render(request, "email/page.html", context)


def _say_mailed(request: PortalRequest, mailed: bool, address: str) -> None:
    if mailed:
        messages.success(request, _("A mail is on its way to %(address)s. Follow the link in it.") % {"address": address})
    elif address:
        messages.info(request, _("A mail left a moment ago, or many did in the last hour. Look into your mail, or try again later."))


# --- Behind the links -----------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def verify(request: SessionRequest, token: str) -> HttpResponse:
    """Prove an address. Opening the link proves nothing, since mail scanners open every link; the button does."""
    link = links.seen(request, token, Link.Purpose.VERIFY, spent=True)
    if link is None or link.user is None or not link.user.is_active:
        return refused(request)
    target = portal_next(link.data["next"])
    tenant, _state = bound_for(target)
    context = {"brand": tenant or only_tenant(link.user), "person": link.user, "address": link.data["email"]}
    if not links.is_good(link):
        if addresses.is_proven_by(link):  # the second click of a double click, another tab, or the mail opened once more
            return _proven(request, link.user, tenant, target, context)
        newer = Link.objects.filter(user=link.user, purpose=link.purpose, pk__gt=link.pk).exists()
        late = link.expires_at <= clock.now()
        return render(request, "email/spent.html", {**context, "newer": newer, "late": late}, status=404)
    if request.method != "POST":
        return render(request, "email/verify.html", context)
    try:
        with transaction.atomic():
            user = addresses.prove(link, request=request)
            if tenant:
                invitations.join(tenant, user, request=request)
    except sessions.StaleProof:
        return redirect(request.path)  # somebody was first: the page says what it was
    except addresses.Taken:
        return render(request, "email/taken.html", context, status=409)
    return _proven(request, user, tenant, target, context)


def _proven(request: SessionRequest, user: User, tenant: Tenant | None, target: str, context: dict[str, Any]) -> HttpResponse:
    """The address is the person's; and what became of the place where he signed up."""
    here = request.user.is_authenticated and request.user.pk == user.pk
    onward = target or reverse("profile")
    is_in = tenant is not None and Membership.objects.filter(tenant=tenant, user=user).exists()
    context |= {
        "tenant": tenant,
        "is_in": is_in,
        "waits": tenant is not None and not is_in and JoinRequest.objects.filter(tenant=tenant, user=user).exists(),
        "here": here,
        "onward": onward if here else f"{reverse('login')}?{urlencode({'next': onward})}",
    }
    return render(request, "email/proven.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def take_back(request: SessionRequest, token: str) -> HttpResponse:
    """The owner of the address from before undoes a change that was not his."""
    link = links.seen(request, token, Link.Purpose.TAKE_BACK, spent=True)
    if link is None or link.user is None or not link.user.is_active:
        return refused(request)
    context = {"brand": only_tenant(link.user), "person": link.user, "address": link.data["email"]}
    if not links.is_good(link):
        if addresses.is_proven_by(link):
            return render(request, "email/taken_back.html", context)
        return render(request, "email/too_late.html", context, status=404)
    if request.method != "POST":
        return render(request, "email/take_back.html", context)
    try:
        user = addresses.take_back(link, request=request)
    except sessions.StaleProof:
        return redirect(request.path)
    except addresses.Taken:
        return render(request, "link/not_me_taken.html", context, status=409)
    if request.session.row is not None and request.session.row.user_id == user.pk:
        request.session.forget()  # it was this very browser
        request.user = AnonymousUser()
    return render(request, "email/taken_back.html", context)
