"""The tenant admin's console: who is signed in, and ending it."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe

from identity import events, listing, members, sessions
from identity.devices import device
from identity.models import Event, Session, SessionQuerySet
from portal.access import ConsoleRequest, actor_of, console, portal_row
from portal.answers import leave_for, see_other
from portal.forms import EndForm
from portal.paging import Order, page_of
from portal.stepup import question
from portal.views.account import chosen
from portal.views.console import frame
from portal.views.show import Row
from tenants.models import Membership, Tenant
from tenants.text import clean

ORDERS = {
    "seen": Order("last_seen_at", descending=True),
    "signed_in": Order("created_at", descending=True),
    "person": Order("user__name_key", descending=False, is_time=False),
}
ENDED = Order("ended_at", descending=True)


# --- The list -----------------------------------------------------------------------------------------------------


@require_safe
@console
def sessions_page(request: ConsoleRequest) -> HttpResponse:
    """Live sessions (or ended ones) of this tenant: search, sort, keyset pages, exact count; the whole state is in the URL."""
    tenant = request.console_tenant
    context = _list(request, tenant)
    if request.htmx and request.htmx.target == "sessions":
        return render(request, "console/sessions/_sessions.html", context)
    return render(request, "console/sessions/sessions.html", context)


def _list(request: ConsoleRequest, tenant: Tenant) -> dict[str, Any]:
    get = request.GET
    state = "ended" if get.get("state") == "ended" else "live"
    sort = get.get("sort", "seen") if get.get("sort") in ORDERS else "seen"
    order = ENDED if state == "ended" else _order(sort, get.get("dir", ""))
    q = " ".join(get.get("q", "").split())[:100]
    everything = _ended(tenant) if state == "ended" else Session.objects.standing_at(tenant)
    matching = listing.search(everything, q)
    total = everything.count()
    page = page_of(matching.select_related("user", "ended_by"), order, after=get.get("after", ""), before=get.get("before", ""))
    here = reverse("console_sessions", args=[tenant.slug])
    kept = {"q": q, "state": "ended" if state == "ended" else "", "sort": get.get("sort", ""), "dir": get.get("dir", "")}

    def address(**changes: str) -> str:
        query = {name: value for name, value in {**kept, **changes}.items() if value}
        return f"{here}?{urlencode(query)}" if query else here

    first = not (get.get("after") or get.get("before"))
    return {
        **frame.of_tenant(request, "sessions", total if state == "live" else None),
        "rows": [Row.of(row, portal=portal_row(request)) for row in page.rows],
        "ended_rows": [Row.of(row) for row in _lately(tenant)] if state == "live" and first and not q else [],
        "page": {
            "newer_url": address(before=page.newer) if page.newer else "",
            "older_url": address(after=page.older) if page.older else "",
            "count_here": len(page.rows),
        },
        "total": total,
        "matching": matching.count() if q else total,
        "q": q,
        "sort": sort,
        "sort_dir": "descending" if order.descending else "ascending",
        "sort_urls": {name: address(sort=name, dir=_other_way(name, sort, order)) for name in ORDERS},
        "tokens": [{"label": q, "url": address(q="")}] if q else [],
        "state": state,
        "live_url": address(state="", sort="", dir=""),
        "ended_url": address(state="ended", sort="", dir=""),
        "proof": None,
    }


def _order(sort: str, direction: str) -> Order:
    order = ORDERS[sort]
    return Order(order.path, {"asc": False, "desc": True}.get(direction, order.descending), order.is_time)


def _other_way(name: str, sort: str, order: Order) -> str:
    """A second click on the column in use turns it round."""
    if name != sort:
        return ""
    return "asc" if order.descending else "desc"


def _ended(tenant: Tenant) -> SessionQuerySet:
    return Session.objects.filter(tenant=tenant, ended_at__isnull=False).exclude(end_reason=Session.Reason.PROBE)


def _lately(tenant: Tenant) -> list[Session]:
    rows = _ended(tenant).filter(ended_at__gt=timezone.now() - timedelta(hours=1))
    return list(rows.select_related("user", "ended_by").order_by("-ended_at")[:10])


# --- The end ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """What an end leaves behind: when it was committed, how long it took, and the event that names it."""

    text: str
    committed: datetime
    took_ms: int | None
    event_ref: str


@require_http_methods(["GET", "HEAD", "POST"])
@console
def sessions_end(request: ConsoleRequest) -> HttpResponse:
    """End the named sessions of this tenant. With a reason at once, without one after a confirmation.

    Ended ids are ignored; one id that is not of this tenant is a 404 and nothing changes.
    """
    tenant = request.console_tenant
    back = reverse("console_sessions", args=[tenant.slug])
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect(back)
    only = request.POST.get("only")
    ids = chosen([only] if only else request.POST.getlist("ids"))
    which = Session.objects.filter(tenant=tenant, pk__in=ids)
    named = list(which.select_related("user"))
    if len(named) != len(set(ids)):
        events.record("foreign_session", request=request, tenant=tenant, actor=request.user, ids=[str(pk) for pk in ids][:20])
        raise Http404
    live = [row for row in named if row.ended_at is None]
    if not live:
        return _nothing_to_end(request, named, back)
    people = len({row.user_id for row in live})
    if people > 1 and (asked := question(request, _("You are about to end sessions of %(n)d people.") % {"n": people})):
        return asked
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, tenant, live, form, back)
    reason = Session.Reason.BY_ADMIN if request.membership and request.membership.may_administer else Session.Reason.BY_OPERATOR
    blocked = live[0].user if "block" in request.POST and _may_block(request, live) else None
    started = time.perf_counter()
    note = clean(form.cleaned_data["reason"], 200)
    if blocked:  # ends what the person has here, named or not
        done = members.block(tenant, blocked, by=actor_of(request), note=note).ended
        named = list({row.pk: row for row in [*named, *done]}.values())
    else:
        done = sessions.end(which, by=request.user, reason=reason, note=note, request=request)
    took = round((time.perf_counter() - started) * 1000)
    text = _over(done, already=len(named) - len(done))
    if blocked:
        text += " " + _("%(name)s is blocked here until you lift it, under People.") % {"name": blocked.display_name}
    if not request.htmx:
        messages.success(request, text)
        return see_other(back)
    found = Event.objects.filter(session__in=[row.pk for row in done], kind="session_ended")
    event = found.select_related("tenant").order_by("-pk").first()
    committed = done[0].ended_at if done else None
    return _swap(request, named, Proof(text, committed or timezone.now(), took, event.reference if event else ""))


def _may_block(request: ConsoleRequest, live: list[Session]) -> bool:
    """Is it one person, who is a member, not oneself, and none that this admin may not touch, nor the last owner?"""
    people = {row.user_id for row in live}
    theirs = Membership.objects.filter(tenant=request.console_tenant, user__in=people, blocked_at=None).first()
    if len(people) != 1 or theirs is None or theirs.user_id == request.user.pk or not actor_of(request).may_touch(theirs.role):
        return False
    return [owner.pk for owner in members.acting_owners(request.console_tenant)] != [theirs.user_id]


def _swap(request: ConsoleRequest, named: list[Session], proof: Proof) -> HttpResponse:
    """The rows as they are now, the proof, and the counts, each for its place on the page."""
    tenant = request.console_tenant
    rows = Session.objects.filter(pk__in=[row.pk for row in named]).select_related("user", "ended_by")
    live = Session.objects.standing_at(tenant)
    q = " ".join(request.POST.get("q", "").split())[:100]
    total = live.count()
    context = {
        "tenant": tenant,
        "rows": [Row.of(row, fresh=True) for row in rows],
        "proof": proof,
        "state": "live",
        "tokens": bool(q),
        "total": total,
        "matching": listing.search(live, q).count() if q else total,
    }
    return render(request, "console/sessions/_ended.html", context)


def _nothing_to_end(request: ConsoleRequest, named: list[Session], back: str) -> HttpResponse:
    """Somebody else was first, or nothing was ticked."""
    if request.htmx and named:
        newest = max(row.ended_at or timezone.now() for row in named)
        text = ngettext("That session was over already.", "Those sessions were over already.", len(named))
        return _swap(request, named, Proof(text, newest, None, ""))
    messages.info(request, _("These sessions were over already.") if named else _("Tick the sessions to end first."))
    return leave_for(request, back)


def _confirm(request: ConsoleRequest, tenant: Tenant, live: list[Session], form: EndForm, back: str) -> HttpResponse:
    people = {row.user_id: row.user for row in live}
    n = len(live)
    if len(people) == 1:
        name = live[0].user.display_name
        title = ngettext("End this session of %(name)s?", "End %(n)d sessions of %(name)s?", n) % {"n": n, "name": name}
    else:
        name = _("Everyone named here")
        title = _("End %(n)d sessions of %(people)d people?") % {"n": n, "people": len(people)}
    lead = _("%(name)s is signed out of %(tenant)s at once, in every app and every open tab, and told who did it and why.") % {
        "name": name,
        "tenant": tenant.name,
    }
    if any(row.parent_id == portal_row(request).pk for row in live):
        lead = _("Your own session in this browser is among them: the console asks for your password again.")
    sample = [
        {
            "device": f"{row.user.display_name}: {device(row.user_agent).label}" if len(people) > 1 else device(row.user_agent).label,
            "address": row.ip or "",
            "seen": row.last_seen_at,
        }
        for row in live[:10]
    ]
    context = {
        **frame.of_tenant(request, "sessions"),
        "title": title,
        "lead": lead,
        "count": n,
        "people": name,
        "sample": sample,
        "more": n - len(sample),
        "ids": [str(row.pk) for row in live],
        "reason": form.data.get("reason", "") if form.is_bound else "",
        "error": _("Say why: the person reads it, and it stays in the log.") if form.is_bound else "",
        "back_url": back,
        "q": request.POST.get("q", "")[:100],
        "may_block": _may_block(request, live),
        "wants_block": "block" in request.POST,
    }
    return render(request, "console/sessions/_end.html" if request.htmx else "console/sessions/end.html", context)


def _over(done: list[Session], *, already: int) -> str:
    names = {row.user.display_name for row in done}
    n = len(done)
    if len(names) == 1:
        text = ngettext("%(n)d session of %(name)s is over.", "%(n)d sessions of %(name)s are over.", n) % {"n": n, "name": names.pop()}
    else:
        text = ngettext("%(n)d session is over.", "%(n)d sessions are over.", n) % {"n": n}
    if already:
        text += " " + ngettext("%(n)d more was over already.", "%(n)d more were over already.", already) % {"n": already}
    return text
