"""Addresses by their beginning: what somebody types to find where something came from."""

import ipaddress
import re
from functools import reduce
from operator import or_

from django.db import connection
from django.db.models import Q


def within(typed: str) -> Q | None:
    """Rows whose `ip` begins with what was typed; None if that is no beginning of an address.

    A range, which an index can serve; as text on SQLite, where addresses are texts and compare as such.
    """
    if not re.fullmatch(r"[0-9a-fA-F.:/]{1,43}", typed) or not ("." in typed or ":" in typed):
        return None
    network = _network(typed)
    if network is None:
        return None
    if connection.vendor != "sqlite":
        return Q(ip__gte=str(network[0]), ip__lte=str(network[-1]))
    if network.version == 6:
        if network.num_addresses == 1:
            return Q(ip=str(network[0]))
        return Q(ip__startswith=typed.partition("/")[0].lower().removesuffix("::"))
    # By its networks of whole bytes: of them a text is the beginning.
    whole = max(1, -(-network.prefixlen // 8))
    return reduce(or_, (_beginning(part, whole) for part in network.subnets(new_prefix=8 * whole)))


def _beginning(network: ipaddress.IPv4Network, n: int) -> Q:
    if n == 4:
        return Q(ip=str(network[0]))  # else 203.0.113.7 would be 203.0.113.70, too
    return Q(ip__startswith="".join(f"{byte}." for byte in network[0].packed[:n]))


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
