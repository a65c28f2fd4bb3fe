"""Whose is a domain? Who can write into its DNS. One TXT record is looked for, with short timeouts, never in a transaction."""

from enum import StrEnum

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from tenants.models import Host

SECONDS = 4.0  # for one look, however many servers are asked


class Finding(StrEnum):
    PROVEN = "proven"
    NOTHING = "nothing"  # no such record
    OTHER = "other"  # there are records, none of them says what it has to
    ELSEWHERE = "elsewhere"  # the name leads to another one, which may be in other hands
    SILENT = "silent"  # no server answered in time, or none in a way that can be read


def look(host: Host) -> Finding:
    """Does the domain say that this host belongs to its tenant? Asks the DNS; nothing is changed.

    The record stands at the widest domain that the host's cookie reaches, so that it proves all of it. An answer by way of a
    CNAME is none: a wildcard that leads to a hosting company would let any of its customers prove the domain.
    """
    try:
        name = dns.name.from_text(host.record_name)
    except dns.exception.DNSException:  # with our word in front it is longer than a name may be: it has no such record
        return Finding.NOTHING
    try:
        answer = dns.resolver.resolve(name, dns.rdatatype.TXT, lifetime=SECONDS, search=False, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN as none:
        return Finding.NOTHING if none.canonical_name == name else Finding.ELSEWHERE
    except (dns.exception.DNSException, OSError):
        return Finding.SILENT
    if answer.canonical_name != name:
        return Finding.ELSEWHERE
    said = [b"".join(record.strings) for record in answer.rrset or ()]
    if not said:
        return Finding.NOTHING
    return Finding.PROVEN if host.record_value.encode() in said else Finding.OTHER
