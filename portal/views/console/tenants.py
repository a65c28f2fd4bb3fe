"""The platform's tenants: finding one, making one, closing one, deleting one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe

from identity import ledger, members, platform
from identity.members import Actor
from identity.models import Event, Session, fold
from portal.access import PortalRequest, operator
from portal.answers import leave_for, see_other
from portal.console_forms import DeleteTenantForm, NewTenantForm, ReasonForm
from portal.paging import Order, link, page_of
from portal.stepup import question
from portal.views.console import ask, frame
from portal.views.show import Badge
from tenants.models import Invitation, Membership, Tenant
from tenants.text import clean

Status = Tenant.Status
ORDERS = {
    "name": Order("name", descending=False, is_time=False),
    "new": Order("created_at", descending=True),
    "active": Order("active_at", descending=True),
}
STATES: dict[str, tuple[Any, Q]] = {
    "": (lazy("All"), Q()),
    "active": (lazy("Active"), Q(status=Status.ACTIVE, frozen_at=None)),
    "suspended": (lazy("Suspended"), Q(status__in=[Status.SUSPENDED, Status.DELETED])),
    "frozen": (lazy("Frozen"), Q(status=Status.ACTIVE, frozen_at__isnull=False)),
}
SIZE = 25


# --- The list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    tenant: Tenant
    state: Badge
    members: int
    live: int
    locked: int
    active_at: datetime


@require_safe
@operator
def page(request: PortalRequest) -> HttpResponse:
    """All tenants: search, state, sort, keyset pages, exact count; the whole state is in the URL."""
    get = request.GET
    q, state = " ".join(get.get("q", "").split())[:100], get.get("state", "") if get.get("state") in STATES else ""
    sort = get.get("sort", "") if get.get("sort") in ORDERS else "name"
    matching = _search(_tenants().filter(STATES[state][1]), q)
    found = page_of(matching, ORDERS[sort], after=get.get("after", ""), before=get.get("before", ""), size=SIZE)
    here = reverse("platform_tenants")
    kept = {"q": q, "state": state, "sort": sort if sort != "name" else ""}
    total = Tenant.objects.count()
    context = {
        **frame.of_platform("tenants", total),
        "rows": _rows(found.rows),
        "page": found.links(here, **kept),
        "total": total,
        "matching": matching.count(),
        "q": q,
        "state": state,
        "states": [{"name": name, "label": label, "url": link(here, **{**kept, "state": name})} for name, (label, _q) in STATES.items()],
        "sort": sort,
        "sort_dir": "descending" if ORDERS[sort].descending else "ascending",
        "sort_urls": {name: link(here, **{**kept, "sort": name if name != "name" else ""}) for name in ORDERS},
        "tokens": [{"label": q, "url": link(here, **{**kept, "q": ""})}] if q else [],
        "all_url": here,
    }
    part = request.htmx and request.htmx.target == "tenants"
    return render(request, "console/platform/_tenants.html" if part else "console/platform/tenants.html", context)


def _tenants() -> QuerySet[Tenant]:
    """With `active_at`: when somebody was last seen there, or something last happened."""
    seen = Session.objects.filter(tenant=OuterRef("pk"), ended_at=None).order_by("-last_seen_at", "-pk").values("last_seen_at")[:1]
    happened = Event.objects.filter(tenant=OuterRef("pk")).order_by("-pk").values("at")[:1]
    return Tenant.objects.annotate(active_at=Coalesce(Subquery(seen), Subquery(happened), "created_at"))


def _search(rows: QuerySet[Tenant], q: str) -> QuerySet[Tenant]:
    """By a part of name, slug or host."""
    if not q:
        return rows
    key = fold(q)
    own = key.removesuffix(f".{settings.TENANT_DOMAIN}")
    found = Q(name__icontains=q) | Q(slug__contains=own) | Q(cookie_domain__contains=key)
    for path in ("hosts__name__contains", "apps__host__contains"):
        found |= Q(pk__in=Tenant.objects.filter(**{path: key}).values("pk"))
    return rows.filter(found)


def _rows(tenants: list[Tenant]) -> list[Row]:
    people = dict(Membership.objects.filter(tenant__in=tenants).order_by().values_list("tenant").annotate(Count("pk")))
    live = dict(Session.objects.standing_in(tenants).order_by().values_list("tenant").annotate(Count("pk")))
    locked = ledger.locked_members(tenants)
    return [
        Row(each, state_of(each), people.get(each.pk, 0), live.get(each.pk, 0), locked.get(each.pk, 0), each.active_at)  # type: ignore[attr-defined]
        for each in tenants
    ]


def state_of(tenant: Tenant) -> Badge:
    """In one word, and how good that is."""
    if tenant.status == Status.DELETED:
        return Badge(_("Being deleted"), "weak")
    if tenant.status == Status.SUSPENDED:
        return Badge(_("Suspended"), "bad")
    return Badge(_("Frozen"), "warn") if tenant.frozen_at else Badge(_("Active"), "good")


# --- A new one ----------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def add(request: PortalRequest) -> HttpResponse:
    """Make a tenant and invite its owner; its page says what comes next."""
    form = NewTenantForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            platform.add(Tenant(slug=data["slug"], name=data["name"]), owner=data["owner"], by=by(request))
        except ValidationError as wrong:
            form.explain(wrong)
        except IntegrityError:  # somebody else took the slug at this moment
            form.add_error("slug", _("There is a tenant with that slug already. Choose another."))
        else:
            text = _("%(name)s is there, and %(address)s is invited to run it.") % {"name": data["name"], "address": data["owner"]}
            messages.success(request, text)
            return see_other(reverse("platform_tenant", args=[data["slug"]]))
    return render(request, "console/platform/tenant_add.html", {**frame.of_platform("tenants"), "form": form})


def by(request: PortalRequest) -> Actor:
    """An operator acts with an owner's powers."""
    return Actor(request.user, request=request)


# --- One ----------------------------------------------------------------------------------------------------------


@require_safe
@operator
def tenant(request: PortalRequest, slug: str) -> HttpResponse:
    """Facts, hosts and counts of one tenant, the way into its console, and what an operator may do about it."""
    place = get_object_or_404(_tenants(), slug=slug)
    owners = Membership.objects.filter(tenant=place, role=Membership.Role.OWNER).select_related("user").order_by("user__name_key")
    invited = Invitation.objects.filter(tenant=place, role=Membership.Role.OWNER, accepted_at=None, revoked_at=None)
    context = {
        **frame.of_platform("tenants"),
        "place": place,
        "row": _rows([place])[0],
        "contents": platform.contents(place),
        "owners": [{"membership": each, "may_act": each.blocked_at is None and each.user.is_active} for each in owners],
        "invited": invited,
        "is_without_owner": not members.acting_owners(place),
        "hosts": place.hosts.all(),
        "apps": place.apps.all(),
        "doors": frame.tenant_pages(place, ""),
        "brands": [place],
    }
    return render(request, "console/platform/tenant.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def act(request: PortalRequest, slug: str) -> HttpResponse:
    """One verb for one tenant, after a confirmation with a reason."""
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect("platform_tenant", slug)
    place = get_object_or_404(Tenant, slug=slug)
    verb = VERBS.get(request.POST.get("verb", ""))
    if verb is None:
        raise Http404
    try:
        return verb(request, place)
    except platform.BeingDeleted:
        return _said(request, place, _("%(name)s is being deleted, and nothing brings it back.") % {"name": place.name}, good=False)


def _suspend(request: PortalRequest, place: Tenant) -> HttpResponse:
    if asked := question(request, _("You are about to close %(name)s for everybody.") % {"name": place.name}):
        return asked
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        live = Session.objects.standing_at(place).count()
        return _ask(
            request,
            place,
            form,
            title=_("Suspend %(name)s?") % {"name": place.name},
            lead=_("It closes at once: nobody comes in, and whoever comes is told to ask the support of the place. You can open it again."),
            lines=[ngettext("%(n)d session ends", "%(n)d sessions end", live) % {"n": live}],
            keep=_("Keep it open"),
            do=_("Suspend %(name)s") % {"name": place.name},
        )
    done = platform.suspend(place, reason=_reason(form), by=by(request))
    text = ngettext("%(name)s is suspended; %(n)d session ended.", "%(name)s is suspended; %(n)d sessions ended.", done.ended)
    return _said(request, place, text % {"name": place.name, "n": done.ended})


def _resume(request: PortalRequest, place: Tenant) -> HttpResponse:
    done = platform.resume(place, by=by(request))
    text = _("%(name)s is open again; its people prove themselves anew.") if done.is_one else _("%(name)s is open already.")
    return _said(request, place, text % {"name": place.name})


def _delete(request: PortalRequest, place: Tenant) -> HttpResponse:
    if place.status == Status.ACTIVE:
        return _said(
            request, place, _("Suspend %(name)s first: only a suspended tenant can be deleted.") % {"name": place.name}, good=False
        )
    if asked := question(request, _("You are about to delete %(name)s for good.") % {"name": place.name}):
        return asked
    form = DeleteTenantForm(place, request.POST if "confirm" in request.POST else None)
    if not form.is_valid():
        return _ask(
            request,
            place,
            form,
            title=_("Delete %(name)s for good?") % {"name": place.name},
            lead=_("Nothing brings it back. The accounts of its people stay, and so do the events, without its name."),
            lines=_what_goes(place),
            keep=_("Keep %(name)s") % {"name": place.name},
            do=_("Delete %(name)s") % {"name": place.name},
        )
    try:
        gone = platform.delete(place, reason=_reason(form), by=by(request))
    except platform.NotSuspended:  # somebody opened it meanwhile
        return _said(request, place, _("%(name)s was opened again meanwhile. Nothing was deleted.") % {"name": place.name}, good=False)
    text = _("%(name)s is deleted.") if gone else _("%(name)s is being deleted; it is gone from this list when nothing is left of it.")
    messages.success(request, text % {"name": place.name})
    return leave_for(request, reverse("platform_tenants"))


def _what_goes(place: Tenant) -> list[str]:
    n = platform.contents(place)
    kept = Event.objects.filter(tenant=place).count()
    lines = {
        "members": ngettext("%(n)d membership goes", "%(n)d memberships go", n["members"]),
        "sessions": ngettext("%(n)d session goes, ended ones too", "%(n)d sessions go, ended ones too", n["sessions"]),
        "invitations": ngettext("%(n)d invitation goes", "%(n)d invitations go", n["invitations"]),
        "groups": ngettext("%(n)d group goes", "%(n)d groups go", n["groups"]),
        "apps": ngettext("%(n)d app goes", "%(n)d apps go", n["apps"]),
    }
    return [
        *[text % {"n": n[name]} for name, text in lines.items() if n[name]],
        *[_("%(host)s is free again") % {"host": host} for host in [place.hostname, *place.hosts.values_list("name", flat=True)]],
        ngettext("%(n)d event stays in the log", "%(n)d events stay in the log", kept) % {"n": kept},
    ]


VERBS = {"suspend": _suspend, "resume": _resume, "delete": _delete}


def _ask(request: PortalRequest, place: Tenant, form: ReasonForm, **words: Any) -> HttpResponse:
    back = reverse("platform_tenant", args=[place.slug])
    return ask.answer(request, "tenants", ask.Question(**words), form, back=back, verb=request.POST["verb"])


def _reason(form: ReasonForm) -> str:
    return clean(form.cleaned_data["reason"], 200)


def _said(request: PortalRequest, place: Tenant, text: str, *, good: bool = True) -> HttpResponse:
    (messages.success if good else messages.warning)(request, text)
    return leave_for(request, reverse("platform_tenant", args=[place.slug]))
