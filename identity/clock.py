"""One clock for every time that SQL compares: the database's."""

from datetime import datetime

from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone


def now() -> datetime:
    """The database's present, with microseconds.

    SQLite has no clock but this machine's, and its SQL functions stop at milliseconds; so the value always passes through
    Python and is stored by one code path. On PostgreSQL it is asked of the server, because the portal may run on several.
    """
    if connection.vendor == "sqlite":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
    assert row is not None
    present: datetime = row[0]
    return present


def in_query() -> datetime | Now:
    """The database's present, for a question over many rows: SQLite would work a function of its own out anew for each."""
    return timezone.now() if connection.vendor == "sqlite" else Now()
