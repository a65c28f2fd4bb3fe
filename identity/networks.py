"""Addresses by their beginning: what somebody types to find where something came from."""

import ipaddress
import re

from django.db import connection
from django.db.models import Q


def within(typed: str) -> Q | None:
    """Rows whose `ip` begins with what was typed; None if that is no beginning of an address.

    A range, which an index can serve; as text on SQLite, where addresses are texts.
    """
    if not re.fullmatch(r"[0-9a-fA-F.:/]{1,43}", typed) or not ("." in typed or ":" in typed):
        return None
    network = _network(typed)
    if network is None:
        return None
    if connection.vendor != "sqlite":
        return Q(ip__gte=str(network[0]), ip__lte=str(network[-1]))
    return Q(ip__startswith=typed.partition("/")[0].lower().removesuffix("::") if "/" in typed else typed.lower())


def _network(typed: str) -> "ipaddress.IPv4Network | ipaddress.IPv6Network | None":
    """`203.0.113.` → 203.0.113.0/24, `2001:db8:61:` → 2001:db8:61::/48, whole addresses and networks as they are."""
    parts = [part for part in re.split(r"[.:]", typed) if part]
    try:
        if "/" not in typed and "." in typed and len(parts) < 4:
            return ipaddress.ip_network(f"{'.'.join(parts + ['0'] * (4 - len(parts)))}/{8 * len(parts)}")
        if "/" not in typed and "::" not in typed and ":" in typed and len(parts) < 8:
            return ipaddress.ip_network(f"{':'.join(parts)}::/{16 * len(parts)}")
        return ipaddress.ip_network(typed, strict=False)
    except ValueError:
        return None
