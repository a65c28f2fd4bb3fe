"""Log lines: one JSON object or one plain line each, with the request id.

No control characters (ASVS 16.4.1), and no one-time token: Django logs the path of a request that fails (ASVS 16.2.5).
"""

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime

from django.http import HttpRequest

from tenants.text import clean

request_id: ContextVar[str] = ContextVar("request_id", default="-")


_TOKEN = re.compile(r"(?<=/)[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
access = logging.getLogger("gatehouse.access")


def _message(record: logging.LogRecord) -> str:
    return clean(_TOKEN.sub("…", record.getMessage()), 2000)


def note_request(request: HttpRequest, status: int, seconds: float) -> None:
    """One line for one request. Without the query, which carries tickets; of a link in the path its beginning only."""
    path, ms = clean(_TOKEN.sub("…", request.path), 300), round(seconds * 1000, 1)
    fields = {"method": clean(request.method or "", 20), "path": path, "status": status, "ms": ms}
    access.info("%s %s %d", fields["method"], path, status, extra={"fields": fields})


class RequestFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """Fields: at (RFC 3339, UTC), level, logger, message, request_id, error with the traceback; of a request method, path, status, ms."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "request_id": getattr(record, "request_id", "-"),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        line = f"{at} {record.levelname.lower()} {_message(record)} ({record.name}, {getattr(record, 'request_id', '-')[:8]})"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
