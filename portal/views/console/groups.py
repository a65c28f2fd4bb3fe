"""The groups of a tenant: what apps let in beside roles, and what they are told about a person."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from identity import events, groups, members
from identity.models import User, fold
from portal.access import ConsoleRequest, actor_of, console
from portal.answers import leave_for, see_other
from portal.console_forms import GroupForm
from portal.paging import Order, page_of
from portal.views.console import frame
from tenants.models import Group, Membership

BY_NAME = Order("user__name_key", descending=False, is_time=False)
OFFERED = 10  # people whom a search offers to put in


# --- The list -----------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """The groups with their sizes, and a new one."""
    tenant = request.console_tenant
    form = GroupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            group = groups.add(tenant, form.cleaned_data["name"], by=actor_of(request))
        except ValidationError as wrong:
            form.add_error("name", wrong.messages)
        else:
            return see_other(_address(group))
    rows = list(tenant.groups.annotate(people=Count("members", distinct=True)).prefetch_related("apps"))
    return render(request, "console/groups/groups.html", {**frame.of_tenant(request, "groups", len(rows)), "rows": rows, "form": form})


# --- One group ----------------------------------------------------------------------------------------------------


@require_safe
@console
def group_page(request: ConsoleRequest, pk: int) -> HttpResponse:
    """Who is in a group, and whom one may put in."""
    context = _context(request, _group(request, pk), request.GET)
    part = request.htmx and request.htmx.target == "group"
    return render(request, "console/groups/_group.html" if part else "console/groups/group.html", context)


def _context(request: ConsoleRequest, group: Group, given: Any, form: GroupForm | None = None) -> dict[str, Any]:
    q = " ".join(given.get("q", "").split())[:100]
    found = page_of(group.members.select_related("user"), BY_NAME, after=given.get("after", ""), before=given.get("before", ""))
    here = _address(group)

    def address(**changes: str) -> str:
        query = {name: value for name, value in {"q": q, **changes}.items() if value}
        return f"{here}?{urlencode(query)}" if query else here

    outside = Membership.objects.filter(tenant=group.tenant, user__search_text__contains=fold(q)).exclude(groups=group)
    return {
        **frame.of_tenant(request, "groups"),
        "group": group,
        "form": form or GroupForm(initial={"name": group.name}),
        "apps": list(group.apps.all()),
        "action": reverse("console_group_act", args=[group.tenant.slug, group.pk]),
        "here": here,
        "q": q,
        "offered": list(outside.select_related("user").order_by("user__name_key")[:OFFERED]) if q else [],
        "rows": found.rows,
        "total": group.members.count(),
        "page": {
            "newer_url": address(before=found.newer) if found.newer else "",
            "older_url": address(after=found.older) if found.older else "",
            "count_here": len(found.rows),
        },
    }


@require_POST
@console
def act(request: ConsoleRequest, pk: int) -> HttpResponse:
    """One verb, named by the button. A foreign id or person is a 404, and noted."""
    group = _group(request, pk)
    verb = next((name for name in VERBS if name in request.POST), None)
    if verb is None:
        raise Http404
    try:
        return VERBS[verb](request, group)
    except groups.Gone:
        back = reverse("console_groups", args=[group.tenant.slug])
    except members.NoMember:
        back = _address(group)
    messages.warning(request, _("That was changed meanwhile by somebody else. Here is how it is now."))
    return leave_for(request, back)


def _rename(request: ConsoleRequest, group: Group) -> HttpResponse:
    form = GroupForm(request.POST)
    if form.is_valid():
        try:
            groups.rename(group, form.cleaned_data["name"], by=actor_of(request))
        except ValidationError as wrong:
            form.add_error("name", wrong.messages)
    if form.errors:
        return render(request, "console/groups/group.html", _context(request, _group(request, group.pk), {}, form))
    return _back(request, group, _("The group is called %(name)s now.") % {"name": group.name})


def _put(request: ConsoleRequest, group: Group) -> HttpResponse:
    person = _person(request, request.POST["put"])
    groups.put(group, person, by=actor_of(request))
    return _back(request, group, _("%(name)s is in %(group)s now.") % {"name": person.display_name, "group": group.name})


def _take(request: ConsoleRequest, group: Group) -> HttpResponse:
    person = _person(request, request.POST["take"])
    groups.take(group, person, by=actor_of(request))
    return _back(request, group, _("%(name)s is not in %(group)s any more.") % {"name": person.display_name, "group": group.name})


def _remove(request: ConsoleRequest, group: Group) -> HttpResponse:
    alone = groups.alone_in(group)
    if "sure" not in request.POST or alone:
        apps = [app for app in group.apps.all() if app not in alone]
        context = {**_context(request, group, {}), "alone": alone, "apps": apps, "back_url": _address(group)}
        return render(request, "console/groups/_remove.html" if request.htmx else "console/groups/remove.html", context)
    try:
        groups.remove(group, by=actor_of(request))
    except groups.StillNeeded as needed:  # by an app that somebody changed meanwhile
        messages.warning(request, _("%(apps)s would be open to everyone now. Change that first.") % {"apps": needed})
        return leave_for(request, _address(group))
    messages.success(request, _("The group %(name)s is gone.") % {"name": group.name})
    return leave_for(request, reverse("console_groups", args=[group.tenant.slug]))


VERBS: dict[str, Callable[[ConsoleRequest, Group], HttpResponse]] = {"rename": _rename, "put": _put, "take": _take, "remove": _remove}


def _group(request: ConsoleRequest, pk: int) -> Group:
    found = Group.objects.filter(tenant=request.console_tenant, pk=pk).first() if pk < 2**63 else None
    if found is None:
        events.record("foreign_group", request=request, tenant=request.console_tenant, actor=request.user, number=pk)
        raise Http404
    found.tenant = request.console_tenant
    return found


def _person(request: ConsoleRequest, name: str) -> User:
    found = Membership.objects.filter(tenant=request.console_tenant, user__name_key=fold(name)).select_related("user").first()
    if found is None:
        person = User.objects.filter(name_key=fold(name)).first()
        events.record(
            "foreign_person", request=request, tenant=request.console_tenant, actor=request.user, named=person.pk if person else None
        )
        raise Http404
    return found.user


def _address(group: Group) -> str:
    return reverse("console_group", args=[group.tenant.slug, group.pk])


def _back(request: ConsoleRequest, group: Group, text: str) -> HttpResponse:
    """The group as it is now, and what was done; the search stays."""
    if request.htmx:
        return render(request, "console/groups/_group.html", {**_context(request, group, request.POST), "text": text})
    messages.success(request, text)
    q = request.POST.get("q", "")[:100]
    return see_other(f"{_address(group)}?{urlencode({'q': q})}" if q else _address(group))
