"""The platform's sessions: every browser that is signed in at the portal, with whatever it has open, and ending it."""

import time
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from identity import events, listing, sessions
from identity.devices import device
from identity.models import Event, Session
from portal.access import PortalRequest, operator, portal_row
from portal.answers import leave_for, see_other
from portal.console_forms import ReasonForm
from portal.paging import Order, link, page_of
from portal.stepup import question
from portal.views import show
from portal.views.account import chosen
from portal.views.console import ask, frame
from portal.views.console.ends import Proof
from tenants.text import clean

ORDERS = {
    "seen": Order("last_seen_at", descending=True),
    "signed_in": Order("created_at", descending=True),
    "person": Order("user__name_key", descending=False, is_time=False),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One browser that is signed in; `places`: how many tenants it has open."""

    session: show.Row
    person_id: int
    places: int
    here: bool


@require_safe
@gzip_page
@operator
def page(request: PortalRequest) -> HttpResponse:
    """Live portal sessions of the whole platform: search, sort, keyset pages, exact count; the whole state is in the URL."""
    get = request.GET
    q = " ".join(get.get("q", "").split())[:100]
    sort = get.get("sort", "") if get.get("sort") in ORDERS else "seen"
    everything = Session.objects.alive_at_portal()
    matching = listing.search(everything, q)
    found = page_of(matching.select_related("user"), ORDERS[sort], after=get.get("after", ""), before=get.get("before", ""))
    total = Session.objects.standing_at_portal().count()
    here = reverse("platform_sessions")
    kept = {"q": q, "sort": sort if sort != "seen" else ""}
    context = {
        **frame.of_platform("sessions", total),
        "rows": _rows(request, found.rows),
        "page": found.links(here, **kept),
        "total": total,
        "matching": matching.count() if q else total,
        "q": q,
        "sort": sort,
        "sort_dir": "descending" if ORDERS[sort].descending else "ascending",
        "sort_urls": {name: link(here, **{**kept, "sort": name if name != "seen" else ""}) for name in ORDERS},
        "tokens": [{"label": q, "url": link(here, **{**kept, "q": ""})}] if q else [],
        "all_url": here,
    }
    part = request.htmx and request.htmx.target == "sessions"
    return render(request, "console/platform/_sessions.html" if part else "console/platform/sessions.html", context)


def _rows(request: PortalRequest, found: list[Session], *, fresh: bool = False) -> list[Row]:
    below = Session.objects.filter(parent__in=[row.pk for row in found], ended_at=None)
    places = dict(below.order_by().values_list("parent").annotate(Count("pk")))
    mine = portal_row(request).pk
    return [Row(show.Row.of(row, fresh=fresh), row.user_id, places.get(row.pk, 0), row.pk == mine) for row in found]


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def end(request: PortalRequest) -> HttpResponse:
    """End the named trees. With a reason at once, without one after a confirmation.

    Ended ids are ignored; one id that is no portal session is a 404 and nothing changes.
    """
    back = reverse("platform_sessions")
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect(back)
    only = request.POST.get("only")
    ids = chosen([only] if only else request.POST.getlist("ids"))
    which = Session.objects.filter(tenant=None, pk__in=ids)
    named = list(which.select_related("user"))
    if len(named) != len(set(ids)):
        events.record("foreign_session", request=request, actor=request.user, ids=[str(pk) for pk in ids][:20])
        raise Http404
    live = [row for row in named if row.ended_at is None]
    if not live:
        messages.info(request, _("These sessions were over already.") if named else _("Tick the sessions to end first."))
        return leave_for(request, back)
    people = len({row.user_id for row in live})
    if people > 1 and (asked := question(request, _("You are about to end sessions of %(n)d people.") % {"n": people})):
        return asked
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, live, form, back)
    started = time.perf_counter()
    note = clean(form.cleaned_data["reason"], 200)
    done = sessions.end(which, by=request.user, reason=Session.Reason.BY_OPERATOR, note=note, request=request)
    took = round((time.perf_counter() - started) * 1000)
    trees = [row.pk for row in done if row.tenant_id is None]
    text = ngettext(
        "%(n)d session is over, with everything it had open.", "%(n)d sessions are over, with everything they had open.", len(trees)
    )
    text %= {"n": len(trees)}
    if not request.htmx:
        messages.success(request, text)
        return see_other(back)
    event = Event.objects.filter(session__in=trees, kind="session_ended").select_related("tenant").order_by("-pk").first()
    committed = done[0].ended_at if done else None
    proof = Proof(text, committed or timezone.now(), took, event.reference if event else "")
    return _swap(request, named, proof)


def _swap(request: PortalRequest, named: list[Session], proof: Proof) -> HttpResponse:
    """The rows as they are now, the proof, and the counts, each for its place on the page."""
    rows = list(Session.objects.filter(pk__in=[row.pk for row in named]).select_related("user", "ended_by"))
    live = Session.objects.alive_at_portal()
    q = " ".join(request.POST.get("q", "").split())[:100]
    total = Session.objects.standing_at_portal().count()
    context = {
        "rows": _rows(request, rows, fresh=True),
        "proof": proof,
        "q": q,
        "total": total,
        "matching": listing.search(live, q).count() if q else total,
    }
    return render(request, "console/platform/_sessions_ended.html", context)


def _confirm(request: PortalRequest, live: list[Session], form: ReasonForm, back: str) -> HttpResponse:
    n, people = len(live), len({row.user_id for row in live})
    if people == 1:
        title = ngettext("End this session of %(name)s?", "End %(n)d sessions of %(name)s?", n)
        title %= {"n": n, "name": live[0].user.display_name}
    else:
        title = _("End %(n)d sessions of %(people)d people?") % {"n": n, "people": people}
    lead = _("It is over at once, in every tab and every place it has open. Whoever is signed out is told who did it and why.")
    if any(row.pk == portal_row(request).pk for row in live):
        lead = _("Your own session in this browser is among them: you sign in again.")
    lines = [f"{row.user.display_name}: {device(row.user_agent).label}" + (f", {row.ip}" if row.ip else "") for row in live[:10]]
    if n > len(lines):
        lines.append(_("and %(n)d more") % {"n": n - len(lines)})
    words: dict[str, Any] = {
        "title": title,
        "lead": lead,
        "lines": lines,
        "keep": ngettext("Keep it", "Keep them", n),
        "do": ngettext("End session", "End %(n)d sessions", n) % {"n": n},
    }
    hidden: dict[str, Any] = {"ids": [str(row.pk) for row in live], "q": request.POST.get("q", "")[:100]}
    return ask.answer(request, "sessions", ask.Question(**words), form, back=back, **hidden)
