"""Cookie domains: none that strangers share, none around the portal or another tenant; and who lives beside us."""

from collections.abc import Iterator

from django.conf import settings

from identity.management.doctor import Asked, Finding, failure, in_parallel, note, ok
from identity.management.doctor.asking import resolve
from identity.management.output import count
from tenants import hosts
from tenants.models import Host, Tenant

IN_ALL = 6  # seconds


def examine(asked: Asked) -> Iterator[Finding]:
    domains = _domains()
    bad = [finding for host, domain, slug in domains if (finding := _judged(host, domain, slug))]
    yield from bad
    yield from _overlaps({(domain, slug) for _host, domain, slug in domains})
    if not domains:
        yield ok("There is no tenant yet, so no cookie domain.")
    elif not bad:
        yield ok(
            f"{count(len(domains), 'cookie domain')}: none is a public suffix, none reaches the portal.",
            domains=sorted({each[1] for each in domains}),
        )
    if not settings.ON_LOCALHOST and not asked.url:
        yield from _siblings({hostname for hostname, _domain, _slug in domains})


def _domains() -> list[tuple[str, str, str]]:
    """Host, cookie domain, tenant."""
    found = [(tenant.hostname, tenant.cookie_domain, tenant.slug) for tenant in Tenant.objects.order_by("slug")]
    further = Host.objects.filter(approved_at__isnull=False).select_related("tenant").order_by("name")
    return found + [(host.name, host.cookie_domain, host.tenant.slug) for host in further]


def _judged(host: str, domain: str, slug: str) -> Finding | None:
    told = {"host": host, "domain": domain, "tenant": slug}
    cure = f"manage.py tenant set {slug} --cookie-domain {host}"
    if not hosts.is_within(host, domain):
        return failure(f"{host}: no browser takes a cookie for {domain} from it.", cure, **told)
    if not settings.ON_LOCALHOST and hosts.is_public_suffix(domain):
        return failure(f"{host}: strangers can register names below its cookie domain {domain}.", cure, **told)
    if hosts.is_within(settings.PORTAL_HOST, domain):
        return failure(f"{host}: its cookie domain {domain} reaches the portal.", cure, **told)
    return None


def _overlaps(pairs: set[tuple[str, str]]) -> Iterator[Finding]:
    owner = dict(pairs)
    for domain, slug in sorted(pairs):
        for above in hosts.parents(domain):
            if owner.get(above, slug) != slug:
                yield failure(
                    f"The cookie domain {domain} of {slug} lies inside {above} of {owner[above]}: each reads the other's cookies.",
                    f"manage.py tenant set {owner[above]} --cookie-domain HOST, with a narrower one",
                    domain=domain,
                    tenants=sorted([slug, owner[above]]),
                )


def _siblings(ours: set[str]) -> Iterator[Finding]:
    """A site beside the tenants can plant cookies at the domain above them. What signs in is safe from it; a nuisance it is."""
    beside = {settings.TENANT_DOMAIN, f"www.{settings.TENANT_DOMAIN}"} - ours - {settings.PORTAL_HOST}
    found = in_parallel(resolve, sorted({settings.PORTAL_HOST, *beside}), IN_ALL)
    here = set(found.get(settings.PORTAL_HOST, ()))
    others = sorted(host for host in beside if (there := set(found.get(host, ()))) and not there & here)
    if others:
        yield note(
            f"Another site lives at {' and '.join(others)}: it can set cookies for {settings.TENANT_DOMAIN}, though none that signs in.",
            "Where that site is not yours alone, give Gatehouse a domain of its own.",
            siblings=others,
        )
    else:
        yield ok(f"No other site was found beside the tenants, at {settings.TENANT_DOMAIN} or www.")
