"""The hosts: does DNS lead each of them here, does its certificate cover it, and for how long?"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings

from identity.management.doctor import Asked, Finding, failure, in_parallel, ok, warning
from identity.management.doctor.asking import Reply, ask
from identity.management.output import count
from identity.management.wire import Wire
from tenants.models import App, Host, Tenant

IN_ALL = 30  # seconds for all hosts together
SOON, NOW = 21, 7  # days that a certificate has left
CERTIFICATES = {
    "expired": ("has run out", "Renew it; if a timer should have: systemctl list-timers, and reload nginx afterwards."),
    "early": ("is not valid yet", "Is this machine's clock right? timedatectl"),
    "name": (
        "does not cover this name",
        "Get one with this name in it, and name the host in its server of nginx (end of deploy/nginx.conf).",
    ),
    "chain": (
        "is not trusted",
        "Give nginx the whole chain (fullchain.pem) of an authority that browsers know. One of your own: SSL_CERT_FILE in gatehouse.env.",
    ),
}


@dataclass(frozen=True, slots=True)
class Named:
    """A host of ours; app: something else answers there, only its name and certificate are looked at."""

    host: str
    tenant: str
    app: bool = False


def all_names() -> list[Named]:
    names = [Named(settings.PORTAL_HOST, "")]
    names += [Named(tenant.hostname, tenant.slug) for tenant in Tenant.objects.order_by("slug")]
    further = Host.objects.filter(approved_at__isnull=False).select_related("tenant").order_by("name")
    names += [Named(host.name, host.tenant.slug) for host in further]
    return names + [Named(app.host, app.tenant.slug, app=True) for app in App.objects.select_related("tenant").order_by("host")]


def examine(asked: Asked) -> Iterator[Finding]:
    wire, names = Wire(asked.url), all_names()
    if wire.address:
        names = [name for name in names if not name.app]  # what an app's own proxy has cannot be asked here
    replies = in_parallel(lambda name: ask(wire, name.host), names, IN_ALL)
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


def _judged(name: Named, reply: Reply, portal: Reply | None) -> Finding | None:
    """What is wrong with a host, or None."""
    told = {"host": name.host, "tenant": name.tenant or None, "dns": reply.dns, "certificate_until": reply.certificate_until}
    addresses = ", ".join(portal.dns) if portal and portal.dns else "this server's address"
    found = warning if name.app else failure  # an app's host is its own proxy's business
    record = f"Let an A or AAAA record of {name.host} name {addresses}"
    if not reply.dns and reply.trouble.startswith("DNS"):
        return found(f"{name.host}: {reply.trouble}.", f"{record}; *.{settings.TENANT_DOMAIN} does for all tenants.", **told)
    if reply.certificate:
        wrong, cure = CERTIFICATES[reply.certificate]
        return found(f"{name.host}: its certificate {wrong}.", cure, **told)
    if reply.trouble:
        return found(f"{name.host}: no answer ({reply.trouble}).", f"{record}, and let the firewall pass 443.", **told)
    if not name.app and reply.seen is None:
        return failure(
            f"{name.host}: something else answers there ({reply.status}).",
            f"{record}; a site that already lives there hands over /_portal/ (end of deploy/nginx.conf).",
            **told,
        )
    if reply.days_left is not None and reply.days_left < SOON:
        text, cure = f"{name.host}: its certificate ends in {count(reply.days_left, 'day')}.", CERTIFICATES["expired"][1]
        return (failure if reply.days_left < NOW else warning)(text, cure, **told)
    return None


def _summary(good: list[Reply], *, secure: bool) -> Finding:
    first = min((reply for reply in good if reply.days_left is not None), key=lambda reply: reply.days_left or 0, default=None)
    rest = f", each with a certificate; the first ends in {count(first.days_left or 0, 'day')} ({first.host})" if secure and first else ""
    listed = [{"host": reply.host, "dns": reply.dns, "certificate_until": reply.certificate_until} for reply in good]
    return ok(f"{count(len(good), 'host leads', 'hosts lead')} here{rest}.", hosts=listed)
