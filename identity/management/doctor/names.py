"""The hosts: does DNS lead each of them here, does its certificate cover it, and for how long?"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from django.conf import settings

from identity import checkup
from identity.management.doctor import Asked, Finding, failure, in_parallel, note, ok, warning
from identity.management.doctor.asking import Reply, ask_everywhere
from identity.management.named import Named, all_named
from identity.management.output import count
from identity.management.wire import Wire
from tenants.text import clean

IN_ALL = 30  # seconds for all hosts together
SOON, NOW = 21, 7  # days that a certificate has left
WHY_NOT = Path("/var/lib/gatehouse-certificates/waiting")  # deploy/certificates.sh: a file for each host that it got none for
GET_ONE = "Let certificates.sh get one (journalctl -u gatehouse-certificates says why it did not), or get one with this name in it."
CERTIFICATES = {
    "none": ("is missing", GET_ONE),
    "expired": ("has run out", "Renew it; if a timer should have: systemctl list-timers, and reload nginx afterwards."),
    "early": ("is not valid yet", "Is this machine's clock right? timedatectl"),
    "name": ("does not cover this name", GET_ONE),
    "chain": (
        "is not trusted",
        "Give nginx the whole chain (fullchain.pem) of an authority that browsers know. One of your own: SSL_CERT_FILE in gatehouse.env.",
    ),
}


def examine(asked: Asked) -> Iterator[Finding]:
    wire, names = Wire(asked.url), all_named()
    if wire.address:
        names = [name for name in names if not name.is_app]  # what an app's own proxy has cannot be asked here
    replies = in_parallel(lambda name: ask_everywhere(wire, name.host), names, IN_ALL)
    portal = replies.get(names[0])
    good: list[Reply] = []
    for name in names:
        reply = replies.get(name) or Reply(name.host, trouble=f"no answer in {IN_ALL} s")
        finding = _judged(name, reply, portal)
        if finding:
            yield finding
        else:
            good.append(reply)
    if good:
        yield _summary(good, secure=wire.secure)
        yield from _other_machines(good)


def _judged(name: Named, reply: Reply, portal: Reply | None) -> Finding | None:
    """What is wrong with a host, or None."""
    told = {"host": name.host, "tenant": name.tenant or None, "dns": reply.dns, "certificate_until": reply.certificate_until}
    addresses = ", ".join(portal.dns) if portal and portal.dns else "this server's address"
    at = f" at {reply.at}, one of its addresses" if reply.at else ""
    found = warning if name.is_app else failure  # an app's host is its own proxy's business
    record = f"Let an A or AAAA record of {name.host} name {addresses}"
    if not reply.dns and reply.trouble.startswith("DNS"):
        below = name.host.endswith(f".{settings.TENANT_DOMAIN}")
        cure = f"{record}{f'; one of *.{settings.TENANT_DOMAIN} does for all tenants' if below else ''}."
        return found(f"{name.host}: {reply.trouble}.", cure, **told)
    if reply.certificate:
        wrong, cure = CERTIFICATES[reply.certificate]
        return found(f"{name.host}: its certificate {wrong}{at}.", _why_not(name.host) or cure, **told)
    if reply.trouble:
        if reply.dns and portal and reply.dns == portal.dns and not at:
            cure = f"Is {addresses} this machine, does nginx run (systemctl status nginx), and does the firewall let 443 pass?"
        else:
            cure = f"{record}{', and no other' if at else ''}, and let the firewall pass 443."
        cure = _why_not(name.host) or cure
        return found(f"{name.host}: no answer{at} ({reply.trouble}).", cure, **told)
    if not name.is_app and reply.seen is None:
        return failure(
            f"{name.host}: something else answers there{at} ({reply.status}).",
            f"{record}; a site that already lives there hands over /_portal/ (end of deploy/nginx.conf).",
            **told,
        )
    if reply.days_left is not None and reply.days_left < SOON:
        text, cure = (
            f"{name.host}: its certificate ends in {count(reply.days_left, 'day')}.",
            _why_not(name.host) or CERTIFICATES["expired"][1],
        )
        return (failure if reply.days_left < NOW else warning)(text, cure, **told)
    return None


def _summary(good: list[Reply], *, secure: bool) -> Finding:
    first = min((reply for reply in good if reply.days_left is not None), key=lambda reply: reply.days_left or 0, default=None)
    rest = f", each with a certificate; the first ends in {count(first.days_left or 0, 'day')} ({first.host})" if secure and first else ""
    listed = [{"host": reply.host, "dns": reply.dns, "certificate_until": reply.certificate_until} for reply in good]
    return ok(f"{count(len(good), 'host leads', 'hosts lead')} here{rest}.", hosts=listed)


def _why_not(host: str) -> str:
    """What deploy/certificates.sh noted of a host that it got no certificate for."""
    if not re.fullmatch(r"[a-z0-9.-]+", host):
        return ""
    try:
        _when, _, said = (WHY_NOT / host).read_text().partition("\n")
    except OSError:
        return ""
    return f"No new certificate: {clean(said, 300).rstrip('.')}. Again at once: /opt/gatehouse/current/deploy/certificates.sh --now {host}"


def _other_machines(good: Iterable[Reply]) -> Iterator[Finding]:
    """Another machine may hold the same keys: a second node, or the old one after a move, to which DNS still leads."""
    here = checkup.this_machine()
    there = [reply.host for reply in good if here and reply.seen and reply.seen.machine not in {"", here}]
    if there:
        yield note(
            f"{count(len(there), 'host leads', 'hosts lead')} to another machine that holds the same keys: {', '.join(there[:5])}"
            f"{' …' if len(there) > 5 else ''}.",
            "With several machines behind one name that is right. After a move, let the records name this one.",
            hosts=there,
        )
