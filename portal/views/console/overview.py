"""What goes on at a tenant, at a glance; every figure leads to the list behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from identity import figures, journal
from identity.figures import Bar
from identity.journal import Entry
from portal.access import ConsoleRequest, console
from portal.views.console import frame
from portal.views.console.events import Row, row_of
from tenants.models import Tenant

HOURS, DAYS = 24, 30
LINES, READ = 7, 100  # of the newest events: lines that are shown, events that are read for them
LABELS = 5  # below a chart


@dataclass(frozen=True, slots=True)
class Column:
    """One bar of a chart as SVG has it, in hundredths of the whole: up for who came in, down for who was turned away."""

    label: str
    came: int
    away: int
    start: str  # of its part of the width, in which the pointer finds it
    x: str
    y: str
    up: str
    down: str


@dataclass(frozen=True, slots=True)
class Chart:
    columns: list[Column]
    zero: str  # where the line between up and down is
    step: str
    width: str  # of a bar, with a gap to the next
    most: int  # that came in in one bar
    labels: list[str]
    came: int
    away: int


@dataclass(frozen=True, slots=True)
class Line:
    """Events in a row that say the same of the same people."""

    at: datetime
    url: str
    text: str
    who: str
    whom: str
    note: str
    times: int


@require_safe
@console
def page(request: ConsoleRequest) -> HttpResponse:
    tenant, zone = request.console_tenant, timezone.get_current_timezone()
    hours = figures.by_hour(tenant, zone, DAYS)
    today, day_before = hours[-HOURS:], hours[-2 * HOURS : -HOURS]
    context = {
        **frame.of_tenant(request, "overview"),
        "live": figures.live(tenant),
        "day_before": {"came": sum(bar.came for bar in day_before), "away": sum(bar.away for bar in day_before)},
        "day": _chart(today, lambda at: date_format(at, "H:i"), _("now")),
        # Translators: Django's date format for a day of this year.
        "month": _chart(figures.by_day(hours), lambda at: date_format(at, _("j M")), _("today")),
        "locked_out": figures.locked_out(tenant),
        "factors": figures.factors(tenant),
        "lines": _lines(tenant),
        "now": timezone.localtime(),
    }
    return render(request, "console/overview/overview.html", context)


# --- Charts -----------------------------------------------------------------------------------------------------------


def _chart(bars: Sequence[Bar], label: Callable[[datetime], str], last: str) -> Chart:
    most, deepest = max(bar.came for bar in bars), max(bar.away for bar in bars)
    scale = 96 / max(most + deepest, 1)
    zero, step = 2 + most * scale, 100 / len(bars)
    columns = [
        Column(
            label(bar.start),
            bar.came,
            bar.away,
            start=_part(n * step),
            x=_part((n + 0.14) * step),
            y=_part(zero - _height(bar.came, scale)),
            up=_part(_height(bar.came, scale)),
            down=_part(_height(bar.away, scale)),
        )
        for n, bar in enumerate(bars)
    ]
    places = [round(n * (len(bars) - 1) / (LABELS - 1)) for n in range(LABELS - 1)]
    labels = [columns[at].label for at in places] + [last]
    came, away = sum(bar.came for bar in bars), sum(bar.away for bar in bars)
    return Chart(columns, _part(zero), _part(step), _part(0.72 * step), most, labels, came, away)


def _height(n: int, scale: float) -> float:
    """A single one among thousands is still to be seen."""
    return max(n * scale, 1.5) if n else 0.0


def _part(value: float) -> str:
    """As SVG wants a number, in every language."""
    return f"{value:.2f}"


# --- The newest events --------------------------------------------------------------------------------------------------


def _lines(tenant: Tenant) -> list[Line]:
    """The newest, as the log's page shows them; what follows each other and says the same, or only that people came in, is one line."""
    newest = journal.matching(tenant, journal.Criteria()).order_by("-pk")[:READ]
    entries = journal.entries(tenant, list(newest))
    return [_line([row_of(tenant, each) for each in same]) for _same, same in groupby(entries, key=_key)][:LINES]


def _key(entry: Entry) -> tuple[Any, ...]:
    return (entry.kind,) if entry.kind == figures.CAME_IN else (entry.kind, entry.by, entry.whom, entry.data.get("note"))


def _line(same: list[Row]) -> Line:
    first, people = same[0], len({row.by for row in same})
    if people > 1:
        who = ngettext("%(n)d person", "%(n)d people", people) % {"n": people}
        return Line(first.entry.at, first.url, first.text, who, "", first.note, len(same))
    return Line(first.entry.at, first.url, first.text, first.by, first.whom, first.note, len(same))
