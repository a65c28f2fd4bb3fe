"""A tenant's log: what happened, by whom, to whom and from where; one event in full; and a copy for elsewhere."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from identity import crypto, events, journal
from identity.audit import VERIFIED
from identity.devices import device
from identity.events import COMMAND_LINE
from identity.journal import Criteria, Entry, Person
from identity.models import Event, Seal, Session
from identity.snapshot import UNFIT
from portal.access import ConsoleRequest, console
from portal.console_forms import EventsForm
from portal.paging import Order, page_of
from portal.stepup import question
from portal.views.console import frame, kinds
from tenants.models import Tenant

NEWEST = Order("pk", descending=True, is_time=False)
COUNTED = 1_000  # more than so many are not counted for a page
PRESETS: dict[str, tuple[Any, timedelta]] = {
    "hour": (lazy("Last hour"), timedelta(hours=1)),
    "day": (lazy("Last 24 hours"), timedelta(days=1)),
    "week": (lazy("Last 7 days"), timedelta(days=7)),
}
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}
GENUINE, CHANGED, KEY_GONE = "genuine", "changed", "key gone"
REASONS: dict[str, Any] = dict(Session.Reason.choices)


# --- The list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One event in words."""

    entry: Entry
    url: str
    text: str
    by: str
    whom: str
    details: str
    note: str
    device: str


@require_safe
@gzip_page
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """The newest events first, a page at a time; what is filtered and which page it is stands in the URL."""
    part = request.htmx and request.htmx.target == "events"
    return render(request, "console/events/_events.html" if part else "console/events/events.html", _list(request))


def _list(request: ConsoleRequest) -> dict[str, Any]:
    tenant, given = request.console_tenant, request.GET
    form = EventsForm(given)
    asked = _asked(form)
    rows, also = journal.halves(tenant, _criteria(tenant, form))
    found = page_of(rows, NEWEST, also=also, after=given.get("after", ""), before=given.get("before", ""))
    n = sum(part.order_by()[: COUNTED + 1].count() for part in (rows, also) if part is not None)
    states = [_state(event) for event in found.rows] if "check" in given else []
    around = {name: given[name] for name in ("after", "before") if given.get(name)}
    return {
        **frame.of_tenant(request, "events"),
        "form": form,
        "rows": [row_of(tenant, each) for each in journal.entries(tenant, found.rows)],
        "n": min(n, COUNTED),
        "is_more": n > COUNTED,
        "asked": asked,
        "groups": [(name, label, words.items()) for name, (label, words) in kinds.GROUPS.items()],
        "other_kind": asked.get("kind", "") if asked.get("kind", "") not in kinds.WORDS | kinds.GROUPS else "",
        "presets": [(name, label) for name, (label, _span) in PRESETS.items()],
        "tokens": [{"label": label, "url": _address(tenant, asked, **{name: ""})} for name, label in _labels(asked, form).items()],
        "chosen": len(asked.keys() - {"person"}),
        "opens": not {"address", "from", "to"}.isdisjoint({*asked, *form.errors}),
        "here": _address(tenant, {}),
        "export_url": f"{reverse('console_events_export', args=[tenant.slug])}{_query(asked)}",
        "check_url": _address(tenant, {**asked, **around, "check": "1"}),
        "states": states,
        "changed": [f"{tenant.slug}-{each.pk}" for each, state in zip(found.rows, states, strict=False) if state == CHANGED],
        "unclear": states.count(KEY_GONE),
        "seal": Seal.objects.filter(tenant_ref=tenant.pk).order_by("-n").first(),
        "verified": Event.objects.filter(tenant=tenant, kind=VERIFIED).order_by("-at").first(),
        "page": {
            "newer_url": _address(tenant, asked, before=found.newer) if found.newer else "",
            "older_url": _address(tenant, asked, after=found.older) if found.older else "",
            "count_here": len(found.rows),
        },
    }


def _asked(form: EventsForm) -> dict[str, str]:
    """What is filtered, as the URL has it; what makes no sense is left out, and the form says why."""
    form.is_valid()
    return {name: str(form.data[name]).strip() for name, value in form.cleaned_data.items() if value}


def _criteria(tenant: Tenant, form: EventsForm) -> Criteria:
    asked = form.cleaned_data
    since, person = asked.get("from"), asked.get("person")
    if preset := PRESETS.get(asked.get("since", "")):
        since = max(filter(None, [since, timezone.now() - preset[1]]))
    return Criteria(
        kinds=kinds.meant(asked.get("kind", "")),
        people=journal.people(tenant, person) if person else None,
        since=since,
        until=asked.get("to"),
        address=asked.get("address", ""),
    )


def _labels(asked: dict[str, str], form: EventsForm) -> dict[str, str]:
    """Each filter in words, for the tokens that take it away."""
    labels = {"person": asked.get("person", ""), "address": asked.get("address", "")}
    if "kind" in asked:
        labels["kind"] = kinds.label(asked["kind"])
    if "since" in asked:
        labels["since"] = str(PRESETS[asked["since"]][0])
    for name, text in (("from", _("from %(time)s")), ("to", _("until %(time)s"))):
        if name in asked:
            labels[name] = text % {"time": date_format(timezone.localtime(form.cleaned_data[name]), "SHORT_DATETIME_FORMAT")}
    return {name: label for name, label in labels.items() if label}


def _address(tenant: Tenant, asked: dict[str, str], **changes: str) -> str:
    return f"{reverse('console_events', args=[tenant.slug])}{_query({**asked, **changes})}"


def _query(asked: dict[str, str]) -> str:
    kept = {name: value for name, value in asked.items() if value}
    return f"?{urlencode(kept)}" if kept else ""


def row_of(tenant: Tenant, entry: Entry) -> Row:
    """One event in words."""
    return Row(
        entry=entry,
        url=reverse("console_event", args=[tenant.slug, entry.id]),
        text=kinds.said(entry.kind),
        by=_who(entry.by) or (_("Command line") if entry.data.get("source") == COMMAND_LINE else ""),
        whom="" if entry.whom == entry.by else _who(entry.whom),
        details=_details(entry),
        note=next((text for text in (entry.data.get("note"), entry.data.get("reason")) if text and text not in REASONS), ""),
        device=device(entry.user_agent).label if entry.user_agent else "",
    )


def _who(person: Person | None) -> str:
    if person is None:
        return ""
    if person.username:
        return person.name
    return _("A deleted account (#%(id)d)") % {"id": person.id} if person.id else _("Somebody who does not belong here")


def _details(entry: Entry) -> str:
    """What a line says beside the kind: why a session ended, or what changed."""
    if entry.kind == "session_ended":
        return str(REASONS.get(str(entry.data.get("reason")), ""))
    if entry.data.get("group"):
        return str(entry.data["group"])
    if entry.before is None or entry.after is None:  # made or removed: its name says enough
        side = entry.after or entry.before
        return _shown(side.get("name") or side.get("host") or side.get("role"))[:200] if isinstance(side, dict) else ""
    changed = [f"{name}: {before} → {after}" for name, before, after, is_changed in _sides(entry) if is_changed]
    return ", ".join(changed)[:200]


# --- One event ----------------------------------------------------------------------------------------------------


@require_safe
@console
def event(request: ConsoleRequest, pk: int) -> HttpResponse:
    """All of one event, before and after side by side. One of another place is a 404, and noted."""
    tenant = request.console_tenant
    found = Event.objects.filter(tenant=tenant, pk=pk).select_related("seal").first() if pk < 2**63 else None
    if found is None:
        events.record("foreign_event", request=request, tenant=tenant, actor=request.user, number=pk)
        raise Http404
    entry = journal.entries(tenant, [found])[0]
    context = {
        **frame.of_tenant(request, "events"),
        "row": row_of(tenant, entry),
        "entry": entry,
        "state": _state(found),
        "seal": found.seal,
        "sides": _sides(entry),
        "session_url": _session_url(tenant, entry),
        "facts": [(_label(name), _shown(value)) for name, value in entry.data.items() if name not in {"note", "reason"}],
        "reason": REASONS.get(str(entry.data.get("reason"))) or entry.data.get("reason"),
        "note": entry.data.get("note"),
        "back_url": _address(tenant, {}),
    }
    return render(request, "console/events/event.html", context)


def _session_url(tenant: Tenant, entry: Entry) -> str:
    """The page of a session of this place; other sessions, and those that are kept no longer, have none."""
    rows = Session.objects.filter(tenant=tenant).exclude(end_reason=Session.Reason.PROBE)
    if entry.session is None or not rows.filter(pk=entry.session).exists():
        return ""
    return reverse("console_session", args=[tenant.slug, entry.session])


def _state(row: Event) -> str:
    """Is the event as it was written? By its own MAC; whether one is missing, only `event verify` can say."""
    try:
        return GENUINE if events.is_genuine(row) else CHANGED
    except crypto.Undecipherable:
        return KEY_GONE
    except UNFIT:
        return CHANGED


def _sides(entry: Entry) -> list[tuple[str, str, str, bool]]:
    """Name, before, after, and whether it changed; what is inside of a value (a policy) one by one."""
    before, after = _flat(entry.before), _flat(entry.after)
    names = list(dict.fromkeys([*before, *after]))
    return [(_label(name), before.get(name, "–"), after.get(name, "–"), before.get(name) != after.get(name)) for name in names]


def _flat(side: Any, prefix: str = "") -> dict[str, str]:
    if side is None:
        return {}
    if not isinstance(side, dict):
        return {prefix or "value": _shown(side)}
    found: dict[str, str] = {}
    for name, value in side.items():
        path = f"{prefix} {name}".strip()
        if isinstance(value, dict):
            found |= _flat(value, path)
        else:
            found[path] = _time(value) if name.endswith("_at") else _shown(value)
    return found


def _label(name: str) -> str:
    return name.replace("_", " ")


def _time(value: Any) -> str:
    """A moment that was written as ISO 8601, as the list shows moments."""
    at = parse_datetime(value) if isinstance(value, str) else None
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}" if at else _shown(value)


def _shown(value: Any) -> str:
    match value:
        case True:
            return _("yes")
        case False:
            return _("no")
        case None | "" | []:
            return "–"
        case list():
            return ", ".join(_shown(each) for each in value)
    return str(value)


# --- A copy for elsewhere -----------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def export(request: ConsoleRequest) -> HttpResponseBase:
    """What the filter matches, as a file. GET says what will be in it; a fresh proof comes first, and the log says who took it."""
    tenant = request.console_tenant
    if asked := question(request, _("You are about to take a copy of the log of %(name)s.") % {"name": tenant.name}):
        return asked
    form = EventsForm(request.POST if request.method == "POST" else request.GET)
    filters = _asked(form)
    wanted = _criteria(tenant, form)
    rows = journal.matching(tenant, wanted)
    kind = request.POST.get("format", "")
    if request.method != "POST" or kind not in FORMATS:
        context = {
            "asked": filters,
            "labels": _labels(filters, form).values(),
            "n": rows.order_by().count(),
            "back_url": _address(tenant, filters),
        }
        return render(request, "console/events/export.html", {**frame.of_tenant(request, "events"), **context})
    taken = events.record("events_exported", request=request, tenant=tenant, actor=request.user, format=kind, **wanted.facts)
    name = f"{tenant.slug}-events-{timezone.localdate():%Y-%m-%d}.{kind}"
    disposition = content_disposition_header(as_attachment=True, filename=name)
    return StreamingHttpResponse(
        journal.lines(tenant, rows.filter(pk__lt=taken.pk), kind),
        content_type=FORMATS[kind],
        headers={"Content-Disposition": disposition or "attachment"},
    )
