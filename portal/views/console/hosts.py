"""The hosts of a tenant and their cookie domains: added, proven by a DNS record, approved, moved, removed."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from identity import events, hosting
from identity.ownership import Finding
from portal.access import ConsoleRequest, actor_of, console
from portal.answers import leave_for
from portal.settings_forms import DomainForm, HostForm
from portal.stepup import question
from portal.views.console.settings import around, only_owners, shown
from tenants import hosts
from tenants.models import Host
from tenants.text import clean

FOUND: dict[Finding, Any] = {
    Finding.NOTHING: lazy("There is no such record yet. A new one can take some minutes, with some providers an hour, until it is seen."),
    Finding.OTHER: lazy("There is a record, but it says something else. Copy the value once more, without quotation marks or spaces."),
    Finding.ELSEWHERE: lazy("That name leads elsewhere (CNAME). Put a TXT record at the name itself; a wildcard is not enough."),
    Finding.SILENT: lazy("The name servers of that domain did not answer in time. Nothing was changed; try again in a minute."),
}


@require_http_methods(["GET", "HEAD", "POST"])
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """Every host with its state, and a form for a new one."""
    only_owners(request)
    tenant = request.console_tenant
    form = HostForm(tenant, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            done = hosting.settle(tenant, form.cleaned_data["name"], form.cleaned_data["cookie_domain"], by=actor_of(request))
        except ValidationError as wrong:
            form.add_error("name", ValidationError(wrong.messages))
        else:
            return _added(request, done.host)
    context = around(request, "settings_hosts")
    further = list(tenant.hosts.all())
    for host in further:
        host.tenant = tenant
    context |= {
        "form": shown(form, may_change=context["may_change"]),
        "own_url": tenant.home_url,
        "rows": [{"host": host, "url": f"{hosts.origin(host.name)}/"} for host in further],
        "may_approve": actor_of(request).may_approve_hosts,
        "action": reverse("console_settings_hosts_act", args=[tenant.slug]),
    }
    return render(request, "console/settings/hosts.html", context, status=422 if form.errors else 200)


def _added(request: ConsoleRequest, host: Host) -> HttpResponse:
    said = {"host": host.name}
    if host.approved_at:
        messages.success(request, _("%(host)s is good at once: it lies under the tenant's own name.") % said)
    else:
        messages.info(request, _("%(host)s is noted. It answers once its domain says that it is yours: see below.") % said)
    return _back(request)


def _back(request: ConsoleRequest) -> HttpResponse:
    return leave_for(request, reverse("console_settings_hosts", args=[request.console_tenant.slug]))


# --- Acting -------------------------------------------------------------------------------------------------------


@require_POST
@console
def act(request: ConsoleRequest) -> HttpResponse:
    """One verb for one host: the name of the button says which verb, its value which host. A foreign one is a 404."""
    only_owners(request)
    verb = next((name for name in VERBS if name in request.POST), None)
    if verb is None:
        raise Http404
    try:
        return VERBS[verb](request, _host(request, request.POST[verb]))
    except hosting.Gone:
        return _told(request, _("That was changed meanwhile by somebody else. Here is how it is now."), good=False)
    except hosting.TooOften:
        return _told(request, _("The DNS was asked ten times without finding it. Wait ten minutes before the next try."), good=False)
    except ValidationError as wrong:
        return _told(request, " ".join(wrong.messages), good=False)


def _host(request: ConsoleRequest, name: str) -> Host:
    host = Host.objects.filter(tenant=request.console_tenant, name=name).first()
    if host is None:
        events.record("foreign_host", request=request, tenant=request.console_tenant, actor=request.user, named=clean(name, 253))
        raise Http404
    host.tenant = request.console_tenant
    return host


def _told(request: ConsoleRequest, text: str, *, good: bool = True) -> HttpResponse:
    (messages.success if good else messages.warning)(request, text)
    return _back(request)


def _check(request: ConsoleRequest, host: Host) -> HttpResponse:
    finding = hosting.prove(host, by=actor_of(request))
    if finding is Finding.PROVEN:
        return _told(request, _("Proven. %(host)s answers from now on.") % {"host": host.name})
    return _told(request, f"{host.name}: {FOUND[finding]}", good=False)


def _approve(request: ConsoleRequest, host: Host) -> HttpResponse:
    by = actor_of(request)
    if not by.may_approve_hosts:
        raise PermissionDenied
    if asked := question(request, _("You are about to approve %(host)s without a proof.") % {"host": host.name}):
        return asked
    hosting.settle(host.tenant, host.name, approved=True, by=by, challenge=host.challenge)
    return _told(request, _("Approved. %(host)s answers from now on.") % {"host": host.name})


def _domain(request: ConsoleRequest, host: Host) -> HttpResponse:
    """Another cookie domain. Who is signed in there is counted before; a wider one is looked up in the DNS."""
    by = actor_of(request)
    form = DomainForm(host, request.POST if "cookie_domain" in request.POST else None)
    sessions, people = hosting.signed_in_at(host)
    context: dict[str, Any] = {"form": form, "sessions": sessions, "people": people}
    if not form.is_valid():
        return _ask(request, host, "domain", context)
    domain = form.cleaned_data["cookie_domain"]
    if asked := question(request, _("You are about to change where the cookies of %(host)s are good.") % {"host": host.name}):
        return asked
    try:
        done = hosting.settle(host.tenant, host.name, domain, approved=by.may_approve_hosts, by=by, challenge=host.challenge)
    except ValidationError as wrong:
        form.add_error("cookie_domain", ValidationError(wrong.messages))
    except hosting.Unproven:
        finding = hosting.prove(host, domain, by=by)
        if finding is Finding.PROVEN:
            return _told(request, _moved(host, domain, sessions))
        form.add_error("cookie_domain", FOUND[finding])
        context["record"] = Host(tenant=host.tenant, name=host.name, cookie_domain=domain, challenge=host.challenge)
    else:
        return _told(request, _moved(host, domain, done.ended))
    return _ask(request, host, "domain", context)


def _moved(host: Host, domain: str, ended: int) -> str:
    text = _("The cookies of %(host)s are good at %(domain)s from now on.") % {"host": host.name, "domain": domain}
    return f"{text} {_over(ended)}" if ended else text


def _over(n: int) -> str:
    return ngettext("%(n)d session is over.", "%(n)d sessions are over.", n) % {"n": n}


def _remove(request: ConsoleRequest, host: Host) -> HttpResponse:
    """Asks first, and says who is signed in there."""
    sessions, people = hosting.signed_in_at(host)
    if "sure" not in request.POST:
        return _ask(request, host, "remove", {"sessions": sessions, "people": people})
    if people > 1:
        why = ngettext("You are about to end %(n)d session.", "You are about to end %(n)d sessions.", sessions) % {"n": sessions}
        if asked := question(request, why):
            return asked
    done = hosting.remove(host, by=actor_of(request))
    text = _("%(tenant)s no longer answers at %(host)s.") % {"tenant": host.tenant.name, "host": host.name}
    return _told(request, f"{text} {_over(done.ended)}" if done.ended else text)


VERBS: dict[str, Callable[[ConsoleRequest, Host], HttpResponse]] = {
    "check": _check,
    "approve": _approve,
    "domain": _domain,
    "remove": _remove,
}


def _ask(request: ConsoleRequest, host: Host, what: str, context: dict[str, Any]) -> HttpResponse:
    """A dialog, or the same as a page."""
    slug = request.console_tenant.slug
    urls = {"action": reverse("console_settings_hosts_act", args=[slug]), "back_url": reverse("console_settings_hosts", args=[slug])}
    template = f"console/settings/_host_{what}.html" if request.htmx else "console/settings/host.html"
    return render(request, template, {**around(request, "settings_hosts"), "what": what, "host": host, **urls, **context})
