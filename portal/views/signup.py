"""Making an account, and the two one-time links that an operator hands out."""

from urllib.parse import urlencode

from django.conf import settings
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from identity import events, ledger, links, sessions
from identity.middleware import SessionRequest
from identity.models import Link, User
from portal.access import portal_next
from portal.forms import NewPasswordForm, SignUpForm
from portal.views.login import bound_for


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def signup(request: SessionRequest) -> HttpResponse:
    """A user and no session. Closed unless the platform opens it."""
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, _state = bound_for(target)
    place = {"brand": tenant, "next": target, "login_url": f"/login/?{urlencode({'next': target})}" if target else "/login/"}
    if settings.SIGNUP != "open":
        return render(request, "signup/closed.html", place, status=403)
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (user := form.create()):
        events.record("signed_up", request=request, actor=user, subject=user)
        return render(request, "signup/done.html", {"username": user.username, **place}, status=201)
    return render(request, "signup/signup.html", {"form": form, **place})


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
        user = _first_operator(request, form, link)
        if user:
            return render(request, "signup/done.html", {"username": user.username, "operator": True, "login_url": "/login/"}, status=201)
        if not form.errors:
            return refused(request)
    return render(request, "signup/signup.html", {"form": form, "operator": True, "login_url": "/login/"})


def _first_operator(request: SessionRequest, form: SignUpForm, link: Link) -> User | None:
    """Account and link in one transaction: an account without the link, or the link without an account, is not left behind."""
    with transaction.atomic():
        user = form.create() if links.take(link) else None
        if user is None:
            transaction.set_rollback(True)
            return None
        events.record("operator_granted", request=request, actor=user, subject=user, by="link")
    return user


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def password_reset(request: SessionRequest, token: str) -> HttpResponse:
    """A new password behind a link that `manage.py user link` printed. It signs nobody in and ends every session (ASVS 6.4.3)."""
    link = links.seen(request, token, Link.Purpose.PASSWORD)
    if link is None or link.user is None:
        return refused(request)
    form = NewPasswordForm(link.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                if not links.take(link):
                    return refused(request)
                sessions.change_password(link.user, form.cleaned_data["password"], by=link.user, request=request)
        except sessions.StaleProof:
            return refused(request)
        ledger.release_person(link.user, by=link.user, reason="new password by a one-time link", request=request)
        return redirect("password_reset_complete")
    return render(request, "password/reset.html", {"form": form, "person": link.user.username})


@require_safe
def password_reset_complete(request: SessionRequest) -> HttpResponse:
    return render(request, "password/reset_done.html")


@require_safe
def password_forgot(request: SessionRequest) -> HttpResponse:
    """No mail yet: the page says whom to ask."""
    return render(request, "password/forgot.html")


def refused(request: SessionRequest) -> HttpResponse:
    """Used, late or unknown: one page for all three."""
    return render(request, "login/link_refused.html", status=404)
