"""The way a visitor takes: does the portal answer at its own address, and does it know who asks?"""

import ipaddress
from collections.abc import Iterator

from django.conf import settings
from django.utils import timezone

from identity.management.doctor import Asked, Finding, failure, note, ok, warning
from identity.management.doctor.asking import Reply, ask, ask_in_clear
from identity.management.wire import Wire
from tenants import hosts

FORGED = "192.0.2.77"  # nobody's: RFC 5737
APART = 5  # seconds between two clocks
PROXY = "Give the proxy the lines of deploy/nginx-proxy.conf"


def examine(asked: Asked) -> Iterator[Finding]:
    yield from _trust()
    wire = Wire(asked.url)
    reply = ask(wire, settings.PORTAL_HOST)
    if reply.seen is None:
        yield _silent(reply, f"{wire.address or settings.PORTAL_HOST}:{wire.port}")
        return
    seen = reply.seen
    if seen.release != settings.RELEASE:
        yield warning(
            f"The portal runs release {seen.release}, and this is {settings.RELEASE}.",
            "Restart it: systemctl restart 'gatehouse@*'",
            seen=seen.release,
        )
    else:
        yield ok(f"The portal answers at {settings.PORTAL_URL}, release {seen.release}.", release=seen.release)
    yield _address(reply)
    if abs((seen.time - timezone.now()).total_seconds()) > APART:
        yield warning(f"The portal's clock is at {seen.time:%H:%M:%S} UTC, this one at {timezone.now():%H:%M:%S}.", "Let NTP set both.")
    if wire.secure != settings.SECURE:
        yield note("At this --url the doctor stands where the proxy does: what the proxy adds was not looked at.")
        return
    forged = ask(wire, settings.PORTAL_HOST, {"X-Forwarded-For": FORGED, "X-Real-IP": FORGED, "Forwarded": f"for={FORGED}"})
    if forged.seen and forged.seen.address == FORGED:
        yield failure(
            "A visitor can choose the address that the portal believes: no limit by address holds.",
            f"{PROXY}: it overwrites X-Forwarded-For. And name nobody but proxies in TRUSTED_PROXIES.",
        )
    elif forged.seen:
        yield ok("A forged X-Forwarded-For is not believed.")
    if settings.SECURE:
        yield from _clear(reply, go_round=bool(asked.url))


def _trust() -> Iterator[Finding]:
    for part in settings.TRUSTED_PROXIES:
        network = ipaddress.ip_network(part, strict=False)
        if network.prefixlen < (8 if network.version == 4 else 32):
            yield failure(
                f"TRUSTED_PROXIES has {part}: a good part of the world may say who it is.", "Name the addresses of your proxies only."
            )


def _silent(reply: Reply, where: str) -> Finding:
    """Why there was no answer of ours."""
    if reply.trouble:
        return failure(
            f"Nobody answers at {where} ({reply.trouble}).",
            "Is the portal running (systemctl status 'gatehouse@*' nginx), and does DNS lead here? Without a proxy: --url http://127.0.0.1:8000",
        )
    if reply.status == 400 and "https only" in reply.said:
        return failure(
            "The portal takes the proxy's visitors for visitors over http: it does not believe the proxy.",
            f"Set TRUSTED_PROXIES to the proxy's address, or let it use the unix socket. {PROXY}.",
        )
    if reply.status >= 500:
        return failure(
            f"A proxy answers at {where}, and the portal behind it does not ({reply.status}).", "Why: journalctl -u 'gatehouse@*'"
        )
    return failure(
        f"Somebody answers at {where} ({reply.status}), and it is not this installation.",
        "It may run with another SECRET_KEY, or an older release (systemctl restart 'gatehouse@*'), or DNS leads elsewhere.",
    )


def _address(reply: Reply) -> Finding:
    """“Your address as I see it”."""
    assert reply.seen
    seen, here = reply.seen.address, reply.here
    told = {"seen": seen, "here": here}
    if not hosts.is_address(seen):
        return failure(
            "The portal sees no address of who asks: every visitor counts as one.", f"{PROXY}: X-Forwarded-For is missing.", **told
        )
    if seen == here or {seen, here} <= {"127.0.0.1", "::1"}:
        return ok(f"Your address as the portal sees it is {seen}, and that is yours.", **told)
    text = f"Your address as the portal sees it is {seen}, and this machine's is {here}."
    if ipaddress.ip_address(seen).is_private:
        return warning(
            text,
            f"If {seen} is a proxy's, every visitor looks like it: TRUSTED_PROXIES={seen}. Behind a router of yours it is right.",
            **told,
        )
    return note(f"{text} That is right where a router stands between them.", **told)


def _clear(reply: Reply, *, go_round: bool) -> Iterator[Finding]:
    if not reply.is_strict:
        yield warning(
            "Strict-Transport-Security does not reach the visitor.", "The proxy takes a header away; it must pass on what Gatehouse says."
        )
    if go_round or settings.PORTAL_PORT:
        return
    clear = ask_in_clear(settings.PORTAL_HOST)
    if clear.trouble:
        yield note(f"Nothing answers over http ({clear.trouble}): who types the bare name may get no page.")
    elif clear.status not in {301, 302, 307, 308} or not clear.location.startswith("https://"):
        yield warning(
            f"http://{settings.PORTAL_HOST}/ answers {clear.status} instead of leading to https.",
            "See the first server of deploy/nginx.conf.",
        )
    else:
        yield ok("A page asked for over http is sent on to https.")
