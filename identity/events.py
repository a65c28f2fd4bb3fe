"""The audit log: `record` writes one event, `write` several, each with a MAC over its canonical form. ASVS 16.2, 16.4.2.

Nothing here updates or deletes an event; `identity.seals` binds them together, `pruning.prune` deletes what is old enough.
"""

import hashlib
import hmac
import ipaddress
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest

from identity import clock, crypto
from identity.models import Event, User
from tenants.hosts import is_address
from tenants.models import Tenant
from tenants.text import clean, is_storable

COMMAND_LINE = "command line"


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
    write([event])
    return event


SPARING, SPARING_WINDOW = 50, timedelta(minutes=10)


def record_sparingly(kind: str, *, request: HttpRequest, **more: Any) -> Event | None:
    """The same for what anybody can cause without an account: at most 50 of a kind from one address in ten minutes. ASVS 2.4.1."""
    lately = Event.objects.filter(kind=kind, ip=address(request), at__gt=clock.now() - SPARING_WINDOW)
    return record(kind, request=request, **more) if lately[:SPARING].count() < SPARING else None


def make(kind: str, *, request: HttpRequest | None = None, **fields: Any) -> Event:
    """An event that is not written yet."""
    known = {name: fields.pop(name, None) for name in ("tenant", "actor", "subject", "session")}
    event = Event(kind=kind, at=fields.pop("at", None) or clock.now(), data=fields, **known)
    if request is not None:
        event.ip = address(request)
        event.user_agent = user_agent(request)
        event.request_id = getattr(request, "id", "")
    return event


def write(events: Sequence[Event]) -> None:
    """Insert events with their MACs: the only code that does."""
    for event in events:
        # As every database gives it back: PostgreSQL would turn 1e16 into 10000000000000000, so a fraction is kept as a text.
        event.data = _storable(json.loads(json.dumps(event.data, cls=DjangoJSONEncoder), parse_float=str, parse_constant=str))
        event.mac = mac_of(event)
    if len(events) == 1:
        events[0].save(force_insert=True)
    else:
        Event.objects.bulk_create(events)


def _storable(value: Any) -> Any:
    """Without the characters that no database takes, down to the last key."""
    if isinstance(value, str):
        return value if is_storable(value) else clean(value, len(value))
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


def canonical(event: Any) -> bytes:
    """The bytes that an event's MAC covers: every column but the row's number, the MAC and the seal, as sorted JSON."""
    fields = {
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "kind": event.kind,
        "tenant": event.tenant_id,
        "actor": event.actor_id,
        "subject": event.subject_id,
        "session": str(event.session) if event.session else None,
        "ip": ipaddress.ip_address(event.ip).exploded if event.ip else None,  # databases have forms of their own
        "user_agent": event.user_agent,
        "request_id": event.request_id,
        "data": event.data,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def mac_of(event: Any, key_id: str = "") -> str:
    """`<key id>.<hex of HMAC-SHA256>` under the current key, or the one named. Raises crypto.Undecipherable if that key is gone."""
    key_id = key_id or crypto.current_key_id()
    return f"{key_id}.{hmac.new(crypto.mac_key(key_id, 'events'), canonical(event), hashlib.sha256).hexdigest()}"


def is_genuine(event: Any) -> bool:
    """Is the event as it was written? Raises crypto.Undecipherable if its key is no longer in ENCRYPTION_KEYS."""
    key_id = event.mac.partition(".")[0]
    return hmac.compare_digest(event.mac, mac_of(event, key_id)) if key_id else False
