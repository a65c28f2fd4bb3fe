"""Paging by key: the next page begins behind the last row, so that page 2,000 costs what page 1 does (facts: OFFSET does not)."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import Http404

from tenants.text import is_plain

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Order:
    """A column to sort by; the id breaks ties. `path` is a lookup, or "pk" itself; values are texts or times."""

    path: str
    descending: bool
    is_time: bool = True


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: list[Row]
    newer: str  # cursor of the page before, "" on the first
    older: str  # cursor of the page behind, "" on the last

    def links(self, here: str, **kept: str) -> dict[str, Any]:
        """What a pager shows, for a list whose state is `kept`."""
        return {
            "newer_url": link(here, **kept, before=self.newer) if self.newer else "",
            "older_url": link(here, **kept, after=self.older) if self.older else "",
            "count_here": len(self.rows),
        }


def link(here: str, **query: str) -> str:
    """The address of a list in one state: parameters that are empty are left out."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{here}?{text}" if text else here


def page_of(
    rows: QuerySet[Row], order: Order, *, after: str = "", before: str = "", size: int = 50, also: QuerySet[Row] | None = None
) -> Page[Row]:
    """One page of `rows` after or before a cursor. A cursor that is none of ours is a 404.

    also: more rows, other ones, that an index of their own finds; one "or" over both would read them all to sort them.
    """
    backwards = bool(before)
    descending = order.descending != backwards
    cursor = before or after
    sign = "-" if descending else ""
    found: list[Row] = []
    for part in [rows] if also is None else [rows, also]:
        if cursor:
            part = part.filter(_behind(order, *_read(cursor, order, rows.model), descending=descending))
        found += part.order_by(f"{sign}{order.path}", f"{sign}pk")[: size + 1]
    if also is not None:
        found.sort(key=lambda row: (_value(row, order.path), row.pk), reverse=descending)
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    if not found:
        return Page([], "", "")
    has_newer = more if backwards else bool(after)
    has_older = True if backwards else more
    return Page(found, _write(found[0], order) if has_newer else "", _write(found[-1], order) if has_older else "")


def _behind(order: Order, value: Any, pk: Any, *, descending: bool) -> Q:
    less = "lt" if descending else "gt"
    # "at most, and not the same with a later id" lets an index on (column, id) serve both conditions.
    return Q(**{f"{order.path}__{less}e": value}) & (Q(**{f"{order.path}__{less}": value}) | Q(**{f"pk__{less}": pk}))


def _value(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name)
    return row


def _write(row: Model, order: Order) -> str:
    value = _value(row, order.path)
    text = json.dumps([value.isoformat() if isinstance(value, datetime) else str(value), str(row.pk)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, order: Order, model: type[Model]) -> tuple[Any, Any]:
    try:
        value, text = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(value, str) or not isinstance(text, str) or not is_plain(value):
            raise ValueError
        pk = model._meta.pk.to_python(text)
        if order.path == "pk":
            return pk, pk
        if not order.is_time:
            return value, pk
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC), pk
    except (OverflowError, ValueError, TypeError, AttributeError, binascii.Error, RecursionError, ValidationError):
        raise Http404 from None
