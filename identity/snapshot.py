"""Reading a whole table: as it is at one moment, page by page, and in spite of what somebody wrote into it past the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import connection, transaction
from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)
UNFIT = (ValueError, TypeError, AttributeError)  # what a value raises that its column cannot hold; SQLite takes any text for a time


@contextmanager
def snapshot() -> Iterator[None]:
    """Everything that is read inside is of one moment, however long it takes. No writer waits for it, and nothing is written inside."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    else:  # atomic() would take the place of a writer
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")


def pages(rows: QuerySet[Row], size: int = 2_000) -> Iterator[tuple[list[Row], list[int]]]:
    """All rows in the order of their ids, in pages; each with the ids of those that cannot be read."""
    last = 0
    while True:
        page = rows.filter(pk__gt=last).order_by("pk")[:size]
        found, unfit = _read(page)
        if not found and not unfit:
            return
        yield found, unfit
        last = max([*[row.pk for row in found[-1:]], *unfit[-1:]])


def _read(page: QuerySet[Row]) -> tuple[list[Row], list[int]]:
    try:
        return list(page), []
    except UNFIT:
        found, unfit = [], []
        for pk in page.values_list("pk", flat=True):
            try:
                found.append(page.model._default_manager.get(pk=pk))
            except UNFIT:
                unfit.append(pk)
        return found, unfit
