"""The audit log: record, and nothing else yet."""

import uuid
from typing import Any

from django.http import HttpRequest

from identity import clock
from identity.models import Event, User
from tenants.hosts import is_address
from tenants.models import Tenant
from tenants.text import clean


def user_agent(request: HttpRequest) -> str:
    return clean(request.META.get("HTTP_USER_AGENT", ""))


def address(request: HttpRequest) -> str | None:
    """The client's address as ProxyMiddleware settled it; None where there is none (a local socket without a proxy)."""
    peer = request.META.get("REMOTE_ADDR") or ""
    return peer if is_address(peer) else None


def record(
    kind: str,
    *,
    request: HttpRequest | None = None,
    tenant: Tenant | None = None,
    actor: User | None = None,
    subject: User | None = None,
    session: uuid.UUID | None = None,
    **data: Any,
) -> Event:
    """Insert one event, in the caller's transaction. Names and values in `data` must not be secrets."""
    event = make(kind, request=request, tenant=tenant, actor=actor, subject=subject, session=session, **data)
    event.save(force_insert=True)
    return event


def make(kind: str, *, request: HttpRequest | None = None, **fields: Any) -> Event:
    """An event that is not saved yet, for bulk inserts."""
    known = {name: fields.pop(name, None) for name in ("tenant", "actor", "subject", "session")}
    event = Event(kind=kind, at=fields.pop("at", None) or clock.now(), data=fields, **known)
    if request is not None:
        event.ip = address(request)
        event.user_agent = user_agent(request)
        event.request_id = getattr(request, "id", "")
    return event
