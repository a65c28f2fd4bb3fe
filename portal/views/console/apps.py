"""The apps of a tenant: where they are, and who may enter. Their rules are stored, not yet enforced, and each page says so."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from identity import app_rules, events
from identity.app_rules import Wanted
from portal.access import ConsoleRequest, actor_of, console
from portal.answers import leave_for, see_other
from portal.console_forms import EVERYONE, SOME, AppForm
from portal.views.console import frame
from tenants.models import App, Membership

ROLES: dict[str, Any] = dict(Membership.Role.choices)


@require_safe
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """The apps with their rules."""
    apps = list(request.console_tenant.apps.prefetch_related("groups"))
    rows = [{"app": app, "who": who(app)} for app in apps]
    return render(request, "console/apps/apps.html", {**frame.of_tenant(request, "apps", len(rows)), "rows": rows})


def who(app: App) -> str:
    """Who may enter, in words."""
    let_in = [str(ROLES.get(role, role)) for role in app.roles] + [group.name for group in app.groups.all()]
    return ", ".join(let_in) or _("Every member")


@require_http_methods(["GET", "HEAD", "POST"])
@console
def add(request: ConsoleRequest) -> HttpResponse:
    """A new app."""
    tenant = request.console_tenant
    form = AppForm(tenant, request.POST or None, initial={"who": EVERYONE})
    if request.method == "POST" and form.is_valid():
        try:
            app = app_rules.add(tenant, _wanted(form), by=actor_of(request))
        except ValidationError as wrong:
            form.explain(wrong)
        except app_rules.Gone:
            return _gone(request)
        else:
            messages.success(request, _("%(name)s is an app of %(tenant)s now.") % {"name": app.name, "tenant": tenant.name})
            return see_other(reverse("console_apps", args=[tenant.slug]))
    return render(request, "console/apps/app.html", {**frame.of_tenant(request, "apps"), **_ticked(form), "form": form})


@require_http_methods(["GET", "HEAD", "POST"])
@console
def change(request: ConsoleRequest, pk: int) -> HttpResponse:
    """One app: look at its rules, and change them."""
    tenant, app = request.console_tenant, _app(request, pk)
    initial = {
        "name": app.name,
        "host": app.host,
        "who": SOME if app.roles or app.groups.exists() else EVERYONE,
        "roles": app.roles,
        "groups": list(app.groups.values_list("pk", flat=True)),
        "second_factor": app.second_factor,
        "public_paths": "\n".join(app.public_paths),
    }
    form = AppForm(tenant, request.POST or None, initial=initial)
    title = app.name
    if request.method == "POST" and form.is_valid():
        try:
            done = app_rules.change(app, _wanted(form), by=actor_of(request))
        except ValidationError as wrong:
            form.explain(wrong)
        except app_rules.Gone:
            return _gone(request)
        else:
            messages.success(request, (_("%(name)s is changed.") if done else _("%(name)s was like that already.")) % {"name": app.name})
            return see_other(reverse("console_apps", args=[tenant.slug]))
    context = {**frame.of_tenant(request, "apps"), **_ticked(form), "form": form, "app": app, "title": title}
    return render(request, "console/apps/app.html", context)


@require_POST
@console
def remove(request: ConsoleRequest, pk: int) -> HttpResponse:
    """Remove an app, after a confirmation that says what it means."""
    app = _app(request, pk)
    back = reverse("console_apps", args=[request.console_tenant.slug])
    if "sure" not in request.POST:
        context = {**frame.of_tenant(request, "apps"), "app": app, "back_url": back}
        return render(request, "console/apps/_remove.html" if request.htmx else "console/apps/remove.html", context)
    try:
        app_rules.remove(app, by=actor_of(request))
    except app_rules.Gone:
        return _gone(request)
    messages.success(request, _("%(name)s is no app here any more.") % {"name": app.name})
    return leave_for(request, back)


def _app(request: ConsoleRequest, pk: int) -> App:
    found = App.objects.filter(tenant=request.console_tenant, pk=pk).first() if pk < 2**63 else None
    if found is None:
        events.record("foreign_app", request=request, tenant=request.console_tenant, actor=request.user, number=pk)
        raise Http404
    found.tenant = request.console_tenant
    return found


def _gone(request: ConsoleRequest) -> HttpResponse:
    messages.warning(request, _("That was changed meanwhile by somebody else. Here is how it is now."))
    return leave_for(request, reverse("console_apps", args=[request.console_tenant.slug]))


def _wanted(form: AppForm) -> Wanted:
    names = ("name", "host", "roles", "second_factor", "public_paths")
    return Wanted(**{name: form.cleaned_data[name] for name in names}, groups=list(form.cleaned_data["groups"]))


def _ticked(form: AppForm) -> dict[str, Any]:
    """The boxes of roles and groups, as typed or as they are."""
    roles, groups = ({str(value) for value in form[name].value() or []} for name in ("roles", "groups"))
    return {
        "who": form["who"].value(),
        "roles": [{"value": value, "label": label, "is_ticked": value in roles} for value, label in Membership.Role.choices],
        "groups": [{"value": each.pk, "label": each.name, "is_ticked": str(each.pk) in groups} for each in form.offered],
    }
