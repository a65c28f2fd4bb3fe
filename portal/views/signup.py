"""Making an account: by oneself, where it is offered, and the first operator's, behind a one-time link."""

from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from identity import accounts, addresses, events, invitations, links
from identity.middleware import SessionRequest
from identity.models import Link, User
from portal.access import portal_next
from portal.answers import see_other
from portal.forms import SignUpForm
from portal.views.login import bound_for, let_through
from tenants.models import JoinRequest, Membership, Tenant

_SALT = "portal.signup"
_GOOD_FOR = 3600  # seconds in which the page after the form can send the mail again


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def signup(request: SessionRequest) -> HttpResponse:
    """A user and no session, where the tenant that one is bound for offers it, or the platform."""
    if request.method == "POST" and "again" in request.POST:
        return _again(request)
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, _state = bound_for(target)
    if not accounts.is_open(tenant):
        return render(request, "signup/closed.html", {**_place(tenant, target), "offer": accounts.offer(tenant)}, status=403)
    if tenant and request.user.is_authenticated:
        return _join(request, tenant, target)
    form = SignUpForm(request.POST or None, tenant=tenant)
    if request.method == "POST" and form.is_valid():
        try:
            user = form.person()
            accounts.sign_up(user, request=request, tenant=tenant, next_path=_way(tenant, target))
        except accounts.NameTaken:
            form.explain_taken()
        else:
            return _look(request, user, tenant, target, status=201)
    return render(request, "signup/signup.html", {"form": form, "domains": _domains(tenant), **_place(tenant, target)})


def _place(tenant: Tenant | None, target: str) -> dict[str, Any]:
    login_url = f"{reverse('login')}?{urlencode({'next': target})}" if target else reverse("login")
    return {"brand": tenant, "next": target, "login_url": login_url}


def _way(tenant: Tenant | None, target: str) -> str:
    """Where the mail's link leads on to. Into a tenant by its front door: the state of a hand-off is old by then."""
    return reverse("enter", args=[tenant.slug]) if tenant else target


def _look(request: SessionRequest, user: User, tenant: Tenant | None, target: str, *, again: str = "", status: int = 200) -> HttpResponse:
    """“Look into your mail”: the same for every address."""
    again = again or signing.dumps([user.pk, user.email, target], salt=_SALT)
    context = {**_place(tenant, target), "username": user.username, "address": user.email, "again": again}
    return render(request, "signup/look.html", {**context, "sent_again": status == 200}, status=status)


def _again(request: SessionRequest) -> HttpResponse:
    """The mail once more, for the browser that has just made the account: its page carries a signed word."""
    try:
        pk, address, target = signing.loads(request.POST["again"], salt=_SALT, max_age=_GOOD_FOR)
    except signing.BadSignature:
        return redirect("login")
    tenant, _state = bound_for(target)
    user = User.objects.filter(pk=pk, email=address, is_active=True).first()
    if user is None or user.email_verified_at:
        return redirect(_place(tenant, target)["login_url"])
    addresses.ask_again(user, request=request, tenant=tenant, next_path=_way(tenant, target))
    return _look(request, user, tenant, target, again=request.POST["again"])


def _join(request: SessionRequest, tenant: Tenant, target: str) -> HttpResponse:
    """Who has an account already asks with it, by a button: it needs a proven address that the tenant takes."""
    assert isinstance(request.user, User)
    person = User.objects.get(pk=request.user.pk)
    joined = invitations.join(tenant, person, request=request) if request.method == "POST" else invitations.Joined()
    if joined.membership or Membership.objects.filter(tenant=tenant, user=person).exists():
        return see_other(reverse("enter", args=[tenant.slug]))
    waits = joined.waits or JoinRequest.objects.filter(tenant=tenant, user=person).exists()
    fits = bool(person.email_verified_at) and tenant.rules.lets_in(person.email)
    context = {"person": person, "tenant": tenant, "waits": waits, "fits": fits, "domains": _domains(tenant), **_place(tenant, target)}
    return let_through(render(request, "signup/join.html", context), tenant, None)


def _domains(tenant: Tenant | None) -> str:
    return ", ".join(sorted(tenant.rules.domains)) if tenant and accounts.offer(tenant) == "domain" else ""


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def signup_link(request: SessionRequest, token: str) -> HttpResponse:
    """The first operator's account, behind a link that `manage.py operator link` printed."""
    link = links.seen(request, token, Link.Purpose.OPERATOR)
    if link is None:
        return refused(request)
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.is_superuser = form.instance.is_staff = True
        try:
            user = _first_operator(request, form.person(), link)
        except accounts.NameTaken:
            form.explain_taken()
        else:
            return render(request, "signup/done.html", {"username": user.username}, status=201) if user else refused(request)
    return render(request, "signup/signup.html", {"form": form, "operator": True, "login_url": reverse("login")})


def _first_operator(request: SessionRequest, user: User, link: Link) -> User | None:
    """Account and link in one transaction: an account without the link, or the link without an account, is not left behind."""
    with transaction.atomic():
        if not links.take(link):
            return None
        accounts.sign_up(user, request=request)
        events.record("operator_granted", request=request, actor=user, subject=user, by="link")
    return user


def refused(request: SessionRequest) -> HttpResponse:
    """Used, late or unknown: one page for all three."""
    return render(request, "login/link_refused.html", status=404)
