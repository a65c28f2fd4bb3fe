"""The sessions of a tenant: who is signed in, who was, and what is being ended right now."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from identity import mass
from identity.listing import Criteria
from identity.models import RUNS_OUT, MassEnd, Session
from portal.access import ConsoleRequest, console, portal_row
from portal.paging import Order, page_of
from portal.views.console import filters, frame
from portal.views.show import Row
from tenants.models import Tenant

ORDERS = {
    "seen": Order("last_seen_at", descending=True),
    "signed_in": Order("created_at", descending=True),
    "expires": Order("runs_out", descending=False),
    "person": Order("user__name_key", descending=False, is_time=False),
}
ENDED = Order("ended_at", descending=True)
MOST_COUNTED = 10_000  # an exact count of more is made with the page, not every few seconds for each page that is open


@require_safe
@gzip_page
@console
def sessions_page(request: ConsoleRequest) -> HttpResponse:
    """Live sessions (or ended ones) of this tenant: filters, sort, keyset pages, exact count; the whole state is in the URL."""
    context = list_context(request, request.GET)
    if request.htmx and request.htmx.target == "sessions":
        return render(request, "console/sessions/_sessions.html", context)
    return render(request, "console/sessions/sessions.html", context)


def list_context(request: ConsoleRequest, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The list as `asked` says: an address's query, or the fields that a form has carried along."""
    tenant = request.console_tenant
    ended = asked.get("state") == "ended"
    criteria = Criteria.of(asked) if ended else replace(Criteria.of(asked), ended="")
    sort = asked.get("sort", "seen") if asked.get("sort") in ORDERS else "seen"
    order = ENDED if ended else _order(sort, asked.get("dir", ""))
    now = timezone.now()
    matching = criteria.of_ended(tenant) if ended else criteria.of_live(tenant)
    cursors = {"after": asked.get("after", ""), "before": asked.get("before", "")}
    rows = matching.annotate(runs_out=RUNS_OUT).select_related("user", "ended_by")
    page = page_of(rows, order, **cursors)
    kept = {"state": "ended" if ended else "", "sort": asked.get("sort", ""), "dir": asked.get("dir", "")}

    def address(which: Criteria = criteria, **changes: str) -> str:
        query = {name: value for name, value in {**which.as_query(), **kept, **changes}.items() if value}
        here = reverse("console_sessions", args=[tenant.slug])
        return f"{here}?{urlencode(query)}" if query else here

    total = Criteria().of_ended(tenant).count() if ended else Criteria().of_live(tenant).count()
    count = matching.count() if criteria else total
    lately = [] if ended or criteria or any(cursors.values()) else _lately(tenant)
    return {
        **frame.of_tenant(request, "sessions", None if ended else total),
        "rows": [Row.of(row, portal=portal_row(request)) for row in page.rows],
        "ended_rows": [Row.of(row) for row in lately],
        "page": {
            "newer_url": address(before=page.newer) if page.newer else "",
            "older_url": address(after=page.older) if page.older else "",
            "count_here": len(page.rows),
        },
        "total": total,
        "matching": count,
        "q": criteria.q,
        "asked": criteria.as_query().items(),
        "selects": filters.selects(criteria, ended=ended),
        "chosen": len(criteria.as_query().keys() - {"q"}),
        "tokens": filters.tokens(criteria, address),
        "sort": sort,
        "dir": kept["dir"],
        "sort_dir": "descending" if order.descending else "ascending",
        "is_newest_first": order.is_time and order.descending,
        "sort_urls": {name: address(sort=name, dir=_other_way(name, sort, order)) for name in ORDERS},
        "state": "ended" if ended else "live",
        "all_url": address(Criteria()),
        "live_url": address(Criteria(q=criteria.q), state="", sort="", dir=""),
        "ended_url": address(Criteria(q=criteria.q), state="ended", sort="", dir=""),
        **({} if ended else _first_pulse(tenant, criteria, now, total, count)),
        "here_url": address(),
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


def _lately(tenant: Tenant) -> list[Session]:
    rows = Criteria().of_ended(tenant).filter(ended_at__gt=timezone.now() - timedelta(hours=1))
    return list(rows.select_related("user", "ended_by").order_by("-ended_at")[:10])


# --- What happened since ------------------------------------------------------------------------------------------


@require_safe
@console
def sessions_pulse(request: ConsoleRequest) -> HttpResponse:
    """What an open page asks every few seconds (no activity: see `identity.middleware.is_quiet`): counts, what is new since it was
    made, how far mass ends are. 204 if nothing changed. Rows stay as they are: nothing moves under a finger.
    """
    tenant = request.console_tenant
    criteria = Criteria.of(request.GET)
    at = _moment(request.GET.get("at", ""))
    if at is None or not request.htmx:
        return redirect("console_sessions", tenant.slug)
    total = _number(request.GET.get("total", ""))
    matching = criteria.of_live(tenant)
    counted = {}
    if total <= MOST_COUNTED:
        total = Criteria().of_live(tenant).count()
        counted = {"counted": True, "matching": matching.count() if criteria else total}
    news = {
        "begun": matching.filter(created_at__gt=at).count(),
        "ended_since": criteria.matching(Criteria().of_ended(tenant).filter(ended_at__gt=at)).count(),
    }
    context = {**_pulse(tenant, criteria, at, total, {**news, **counted}), **news, **counted}
    if context["pulse_mark"] == request.GET.get("mark"):
        return HttpResponse(status=204)
    here = reverse("console_sessions", args=[tenant.slug])
    kept = {name: request.GET[name] for name in ("sort", "dir") if request.GET.get(name)}
    query = urlencode({**criteria.as_query(), **kept})
    context |= {"tenant": tenant, "total": total, "tokens": bool(criteria), "state": "live", "here_url": f"{here}?{query}"}
    return render(request, "console/sessions/_pulsed.html", context)


def _first_pulse(tenant: Tenant, criteria: Criteria, at: datetime, total: int, count: int) -> dict[str, Any]:
    counted = {"counted": True, "matching": count} if total <= MOST_COUNTED else {}
    return _pulse(tenant, criteria, at, total, {"begun": 0, "ended_since": 0, **counted})


def _pulse(tenant: Tenant, criteria: Criteria, at: datetime, total: int, news: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the page that asks again: how far mass ends are, and the address that it asks, with a mark of what it shows."""
    under_way = [_progress(each) for each in mass.of_tenant(tenant)]
    shown = [total, sorted(news.items()), [(each["mass"].pk, each["mass"].done, each["mass"].finished_at) for each in under_way]]
    mark = hashlib.sha256(str(shown).encode()).hexdigest()[:12]
    query = urlencode({**criteria.as_query(), "at": at.isoformat(), "total": total, "mark": mark})
    url = f"{reverse('console_sessions_pulse', args=[tenant.slug])}?{query}"
    return {"pulse_url": url, "pulse_mark": mark, "under_way": under_way}


def _progress(each: MassEnd) -> dict[str, Any]:
    criteria = Criteria.of(each.criteria)
    done = each.expected if each.finished_at else min(each.done, each.expected)
    return {"mass": each, "what": filters.in_words(criteria), "done": done, "of": each.expected}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _moment(text: str) -> datetime | None:
    try:
        at = parse_datetime(text)
        return at.astimezone(UTC) if at and at.tzinfo else None
    except (ValueError, OverflowError):
        return None
