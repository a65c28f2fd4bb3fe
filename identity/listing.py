"""Finding sessions by what an admin types."""

import ipaddress
import re

from django.db import connection
from django.db.models import Q

from identity.models import SessionQuerySet, User, fold


def search(rows: SessionQuerySet, q: str) -> SessionQuerySet:
    """By a part of name or e-mail, or by the beginning of an address."""
    if not q:
        return rows
    named, addresses = Q(user__search_text__contains=fold(q)), _addresses(q)
    if addresses is None:
        return rows.filter(named)
    # Hardly anybody is called “203.0.113.”: then the index of addresses answers alone. An "or" over both could use neither index.
    is_name = User.objects.filter(search_text__contains=fold(q)).exists()
    return rows.filter(named | addresses) if is_name else rows.filter(addresses)


def _addresses(q: str) -> Q | None:
    """Sessions from addresses that begin with `q`: a range, which an index can serve; as text on SQLite, where addresses are texts."""
    if not re.fullmatch(r"[0-9a-fA-F.:/]{1,43}", q) or not ("." in q or ":" in q):
        return None
    if connection.vendor == "sqlite":
        return Q(ip__startswith=q.partition("/")[0].lower().removesuffix("::") if "/" in q else q.lower())
    network = _network(q)
    return Q(ip__gte=str(network[0]), ip__lte=str(network[-1])) if network else None


def _network(q: str) -> "ipaddress.IPv4Network | ipaddress.IPv6Network | None":
    """`203.0.113.` → 203.0.113.0/24, `2001:db8:61:` → 2001:db8:61::/48, whole addresses and networks as they are."""
    try:
        return ipaddress.ip_network(q, strict=False)
    except ValueError:
        pass
    parts = [part for part in re.split(r"[.:]", q) if part]
    try:
        if "." in q and len(parts) < 4:
            return ipaddress.ip_network(f"{'.'.join(parts + ['0'] * (4 - len(parts)))}/{8 * len(parts)}")
        if ":" in q and len(parts) < 8:
            return ipaddress.ip_network(f"{':'.join(parts)}::/{16 * len(parts)}")
    except ValueError:
        return None
    return None
