"""The portal's half of a hand-off: `/enter/<slug>/`."""

from urllib.parse import quote, urlencode

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from identity import accounts, clock, events, factors, sessions, tickets
from identity.middleware import SessionRequest
from identity.models import User
from portal.access import enrol, leaving, portal_row, step_up
from tenants import hosts
from tenants.models import JoinRequest, Tenant


@require_safe
def enter(request: SessionRequest, slug: str) -> HttpResponse:
    """Check the state, the person, admission; then a ticket. Not a member and no such tenant look the same."""
    tenant = Tenant.objects.filter(slug=slug).first()
    state = tickets.State.read(request.GET.get("state", ""))
    if tenant and (state is None or state.tenant_id != tenant.pk or state.host not in tenant.all_hosts()):
        return _away(f"{hosts.origin(tenant.hostname)}/_portal/start")
    if not request.user.is_authenticated:
        return redirect(f"/login/?next={quote(request.get_full_path(), safe='')}")
    if page := leaving(request):
        return page
    portal = portal_row(request)
    admitted = sessions.admission(portal, slug)
    if admitted.verdict is sessions.Verdict.PROVE:
        return step_up(request)
    if admitted.verdict is sessions.Verdict.ENROL:
        return enrol(request)
    if admitted.verdict is not sessions.Verdict.OPEN:
        return refuse(request, admitted, slug)
    assert tenant is not None
    assert state is not None
    assert admitted.tenant == tenant
    if page := _remind(request, admitted, tenant):
        return page
    ticket = tickets.issue(portal, tenant, state)
    return _away(f"{hosts.origin(state.host)}/_portal/finish?{urlencode({'ticket': ticket, 'state': state.text})}")


def _remind(request: SessionRequest, admitted: sessions.Admission, tenant: Tenant) -> HttpResponse | None:
    """During the days of grace, once in each portal session: a second factor will be asked for, and from when on."""
    due = tenant.factor_due(admitted.membership)
    told: list[int] = request.session.get("reminded", [])
    if due is None or due <= clock.now() or tenant.pk in told or factors.has_factor(portal_row(request).user):
        return None
    request.session["reminded"] = [*told, tenant.pk][-50:]
    return render(request, "enter/remind.html", {"brand": tenant, "tenant": tenant, "due": due, "next": request.get_full_path()})


def _away(address: str) -> HttpResponse:
    response = redirect(address)
    response["Referrer-Policy"] = "no-referrer"
    return response


def refuse(request: SessionRequest, admitted: sessions.Admission, slug: str) -> HttpResponse:
    """A stranger learns nothing; a proven member is told the truth."""
    assert isinstance(request.user, User)
    events.record("admission_refused", request=request, tenant=admitted.tenant, subject=request.user, verdict=admitted.verdict, slug=slug)
    if admitted.verdict is sessions.Verdict.STRANGER:
        # An open door is no secret: the sign-in page of the tenant shows it to everybody.
        found = Tenant.objects.filter(slug=slug).first()
        if found and JoinRequest.objects.filter(tenant=found, user=request.user).exists():
            context = {"brand": found, "tenant": found, "person": request.user, "waits": True}
            return render(request, "signup/join.html", context, status=403)
        door = found if found and accounts.is_open(found) else None
        return render(request, "enter/no_access.html", {"brand": None, "door": door}, status=403)
    tenant = admitted.tenant
    assert tenant is not None
    if admitted.verdict is sessions.Verdict.BLOCKED:
        title = _("Your way into %(tenant)s is blocked") % {"tenant": tenant.name}
        lead = _("An administrator of %(tenant)s blocked this account there. Your account and your other places are untouched.") % {
            "tenant": tenant.name
        }
    elif admitted.verdict is sessions.Verdict.FROZEN:
        title = _("Nobody new can enter %(tenant)s right now") % {"tenant": tenant.name}
        lead = _("The people who run %(tenant)s have frozen sign-ins for the moment. Who is in already goes on. Try again later.") % {
            "tenant": tenant.name
        }
    else:
        title = _("%(tenant)s is suspended") % {"tenant": tenant.name}
        lead = _("An operator of this portal suspended %(tenant)s. Nobody can enter until it is resumed.") % {"tenant": tenant.name}
    return render(request, "enter/closed.html", {"brand": tenant, "tenant": tenant, "title": title, "lead": lead}, status=403)
