"""What a tenant host shows. It never shows a login form."""

from urllib.parse import quote

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_safe

from identity import events, tickets
from identity.middleware import SessionRequest
from identity.store import SessionStore
from portal.api.views import who
from portal.greeting import greeting
from portal.views.login import reason_page
from tenants import hosts
from tenants.models import App, Membership, Tenant


def _tenant(request: SessionRequest) -> Tenant:
    assert request.tenant is not None
    return request.tenant


def _back_to(request: SessionRequest, target: str) -> str:
    """The address behind `next`, on the portal host or a host of this tenant; else this tenant's home."""
    tenant = _tenant(request)
    allowed = tenant.all_hosts() | {settings.PORTAL_HOST, request.host}
    return hosts.may_return_to(target, allowed, request.host) or f"{hosts.origin(request.host)}/"


@require_safe
def start(request: SessionRequest) -> HttpResponse:
    """The way in: binds a signed state to this browser and goes to the portal. A session that was ended says so first."""
    target = _back_to(request, request.GET.get("next", "/"))
    if request.user.is_authenticated:
        return redirect(target)
    if "again" not in request.GET and (page := reason_page(request, target)):
        return page
    tenant = _tenant(request)
    browser = (tickets.Browser.of(request) or tickets.Browser.new()).started()
    if browser.goes_in_circles:
        return _stop(request, browser, target)
    state = tickets.State.make(tenant, request.host, target, browser)
    response = redirect(f"{settings.PORTAL_URL}/enter/{tenant.slug}/?state={quote(state.text, safe='')}")
    browser.write(response)
    response["Referrer-Policy"] = "no-referrer"
    return response


def _stop(request: SessionRequest, browser: tickets.Browser, target: str) -> HttpResponse:
    """Instead of a loop: the sign-in worked again and again, and its cookie never came back."""
    tenant = _tenant(request)
    events.record_sparingly("hand_off_loop", request=request, tenant=tenant, host=request.host)
    causes = [
        (_("This browser blocks cookies"), _("Allow cookies for %(host)s, then try again.") % {"host": request.host}),
        (_("The clock of this device is wrong"), _("Let the device set its date and time by itself, then try again.")),
        (
            _("The cookie domain does not fit this host"),
            _("For the people who run %(tenant)s: the cookie is set for %(domain)s.")
            % {"tenant": tenant.name, "domain": request.place.cookie_domain if request.place else ""},
        ),
    ]
    context = {"causes": causes, "again_url": f"/_portal/start?again=1&next={quote(target, safe='')}"}
    response = render(request, "tenant/loop.html", context, status=409)
    tickets.Browser(browser.value).write(response)
    return response


@require_GET
def finish(request: SessionRequest) -> HttpResponse:
    """Take the ticket, open the branch, go to the clean address. HEAD is refused: a preview must not burn a ticket."""
    tenant = _tenant(request)
    state = tickets.State.read(request.GET.get("state", ""))
    browser = tickets.Browser.of(request)
    try:
        if state is None or browser is None:
            raise tickets.Refused("no state" if state is None else "no start cookie")
        redeemed = tickets.redeem(
            request.GET.get("ticket", ""), state, browser, tenant, request.host, held=request.held_branches, request=request
        )
    except tickets.Refused as refused:
        if refused.opened and request.session.row is not None:  # reloaded, or gone back to
            events.record("hand_off_refused", request=request, tenant=tenant, subject=request.session.row.user, reason=str(refused))
            return redirect(_back_to(request, state.next if state else ""))
        if state and browser and tickets.take_back(request.GET.get("ticket", ""), state, browser, tenant, request=request):
            return redirect(f"/_portal/start?again=1&next={quote(_back_to(request, state.next), safe='')}")
        return _refuse(request, str(refused), state.next if state else "")
    response = redirect(_back_to(request, state.next))
    request.session = SessionStore.born(redeemed.branch, redeemed.key)
    browser.has_finished().write(response)
    response["Referrer-Policy"] = "no-referrer"
    return response


def _refuse(request: SessionRequest, reason: str, target: str) -> HttpResponse:
    event = events.record_sparingly("hand_off_refused", request=request, tenant=_tenant(request), reason=reason)
    context = {
        "event_ref": event.reference if event else "",
        "again_url": f"/_portal/start?again=1&next={quote(_back_to(request, target), safe='')}",
    }
    response = render(request, "tenant/refused.html", context, status=403)
    response["Referrer-Policy"] = "no-referrer"
    return response


@require_safe
def whoami(request: SessionRequest) -> JsonResponse:
    """Who is signed in here. No activity: open tabs ask it every few seconds."""
    return who(request)


@require_safe
def home(request: SessionRequest) -> HttpResponse:
    """The tenant's apps: for its people, or for everybody where the tenant says so."""
    if request.user.is_authenticated or not _tenant(request).home_is_public:
        return _members_home(request)
    return welcome(request)


@login_required
def _members_home(request: SessionRequest) -> HttpResponse:
    tenant = _tenant(request)
    membership = Membership.objects.filter(tenant=tenant, user=request.user).first()  # type: ignore[misc]
    role = membership.role if membership else ""
    apps = [app for app in tenant.apps.all() if not app.roles or role in app.roles]
    context = {
        "greeting": greeting(request.user, timezone.localtime()),  # type: ignore[arg-type]
        "apps": apps,
        "places_url": settings.PORTAL_URL + "/?places=1",
        "console_url": f"{settings.PORTAL_URL}/console/{tenant.slug}/" if membership and membership.may_administer else "",
    }
    return render(request, "tenant/home.html", context)


@require_safe
def welcome(request: SessionRequest) -> HttpResponse:
    return render(request, "tenant/welcome.html")


@require_safe
def account(request: SessionRequest) -> HttpResponse:
    return redirect(f"{settings.PORTAL_URL}/account/")


@require_safe
def console(request: SessionRequest) -> HttpResponse:
    return redirect(f"{settings.PORTAL_URL}/console/{_tenant(request).slug}/")


@require_safe
def app(request: SessionRequest, path: str = "") -> HttpResponse:
    """An app's host that no proxy stands before yet: one calm page, with the lines that are to come."""
    assert request.place
    assert isinstance(request.place.app, App)
    lines = (
        f"server_name {request.place.app.host};\n"
        "location / {\n"
        "    auth_request /_portal/check;   # the gate: not built yet\n"
        "    proxy_pass http://127.0.0.1:8080;   # your app\n"
        "}"
    )
    context = {"app": request.place.app, "tenant": request.tenant, "lines": lines}
    return render(request, "tenant/app.html", context, status=404 if path else 200)
