"""Who may see a page. A decorator answers for everybody who may not, so that a view sees only people who may."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import quote

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.middleware import HtmxDetails

from identity import factors, sessions
from identity.members import Actor
from identity.middleware import SessionRequest, login_address, page_behind
from identity.models import Session, User
from tenants import hosts
from tenants.models import Membership, Tenant

P = ParamSpec("P")


class PortalRequest(SessionRequest):
    """A request of a signed-in person at the portal host."""

    id: str
    user: User
    htmx: HtmxDetails


class ConsoleRequest(PortalRequest):
    """A request in the console of one tenant, by somebody who may administer it."""

    console_tenant: Tenant
    membership: Membership | None


def portal_row(request: SessionRequest) -> Session:
    """The portal session of a request that passed `signed_in` at the portal host."""
    assert request.session.row is not None
    assert not request.session.row.is_branch
    return request.session.row


def signed_in(view: Callable[Concatenate[PortalRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Like login_required, but one comes back to the page, not to the address of its form, and a part of a page that asks
    without a session sends the whole page away. Of an account that is to be deleted only one page is left: to keep it."""

    @wraps(view)
    def ask(request: PortalRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        return leaving(request) or view(request, *args, **kwargs)

    return present(ask)  # type: ignore[arg-type]


def leaving(request: HttpRequest) -> HttpResponse | None:
    """The way to the page that offers to keep an account, for whoever has asked to delete it."""
    if not isinstance(request.user, User) or request.user.delete_at is None:
        return None
    address = reverse("account_keep")
    return HttpResponse(headers={"HX-Redirect": address}) if getattr(request, "htmx", False) else redirect(address)


def present(view: Callable[Concatenate[PortalRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Signed in, whatever becomes of the account."""

    @wraps(view)
    def ask(request: PortalRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if request.session.row is None:
            address = login_address(request)
            return HttpResponse(headers={"HX-Redirect": address}) if request.htmx else redirect(address)
        return view(request, *args, **kwargs)

    return ask


def console(view: Callable[Concatenate[ConsoleRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Admins and owners of the tenant, and operators, under `admission`. Everybody else, members too, finds no page: 404.

    Asked anew for every request, so a role that was taken away is gone with the next click (ASVS 8.3.2).
    """

    @wraps(view)
    def ask(request: ConsoleRequest, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        admitted = sessions.admission(portal_row(request), slug, console=True)
        allowed = request.user.is_superuser or (admitted.membership is not None and admitted.membership.may_administer)
        if not allowed or admitted.verdict not in {sessions.Verdict.OPEN, sessions.Verdict.PROVE, sessions.Verdict.ENROL}:
            raise Http404
        if admitted.verdict is sessions.Verdict.PROVE:
            return step_up(request)
        if admitted.verdict is sessions.Verdict.ENROL:
            return enrol(request)
        assert admitted.tenant is not None
        request.console_tenant, request.membership = admitted.tenant, admitted.membership
        try:
            return view(request, *args, **kwargs)
        except Tenant.DoesNotExist:  # an operator has deleted it at this moment
            raise Http404 from None

    return signed_in(ask)  # type: ignore[arg-type]


def actor_of(request: ConsoleRequest) -> Actor:
    """With whose powers this person acts in the console: an operator has an owner's."""
    own = request.membership
    role = own.role if own and own.may_administer and not request.user.is_superuser else Membership.Role.OWNER.value
    return Actor(request.user, role, request)


def operator(view: Callable[Concatenate[PortalRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Those who run the platform, in a session proven with a second factor. For everybody else there is no such page. ASVS 8.4.2."""

    @wraps(view)
    def ask(request: PortalRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.is_superuser:
            raise Http404
        return operators_proof(request) or view(request, *args, **kwargs)

    return signed_in(ask)  # type: ignore[arg-type]


def operators_proof(request: PortalRequest) -> HttpResponse | None:
    """None if an operator's session was proven with a second factor, typed in it; else the way to do so."""
    if request.user.is_verified() and not portal_row(request).in_grace:
        return None
    return step_up(request) if factors.has_factor(request.user) else enrol(request)


def step_up(request: HttpRequest) -> HttpResponse:
    """Send the person to prove himself and back to this page."""
    address = f"{reverse('step_up')}?next={quote(page_behind(request), safe='')}"
    if getattr(request, "htmx", False):
        return HttpResponse(headers={"HX-Redirect": address})
    return redirect(address)


def enrol(request: HttpRequest) -> HttpResponse:
    """Send the person to set up an authenticator and back to this page."""
    address = f"{reverse('two_factor')}?next={quote(page_behind(request), safe='')}"
    if getattr(request, "htmx", False):
        return HttpResponse(headers={"HX-Redirect": address})
    return redirect(address)


def portal_next(target: str) -> str:
    """Where to go on the portal host: the rebuilt path behind `next`, or "" where it leads elsewhere or nowhere."""
    rebuilt = hosts.may_return_to(target, frozenset({settings.PORTAL_HOST}), settings.PORTAL_HOST) if target else None
    return rebuilt.removeprefix(settings.PORTAL_URL) if rebuilt else ""
