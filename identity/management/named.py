"""Every host of this portal, and whose it is: for certificates and for the doctor."""

from dataclasses import dataclass

from django.conf import settings

from tenants.models import App, Host, Tenant


@dataclass(frozen=True, slots=True)
class Named:
    """A host of ours. kind: "portal", "tenant", "host" (a further one) or "app" (something else answers there, or will)."""

    host: str
    kind: str
    tenant: str = ""

    @property
    def is_app(self) -> bool:
        return self.kind == "app"


def all_named() -> list[Named]:
    """What people may come to: approved hosts only. A suspended tenant's are among them, because they say that it is closed."""
    tenants = Tenant.objects.exclude(status=Tenant.Status.DELETED)
    further = Host.objects.filter(tenant__in=tenants, approved_at__isnull=False).select_related("tenant").order_by("name")
    apps = App.objects.filter(tenant__in=tenants).select_related("tenant").order_by("host")
    return [
        Named(settings.PORTAL_HOST, "portal"),
        *[Named(tenant.hostname, "tenant", tenant.slug) for tenant in tenants.order_by("slug")],
        *[Named(host.name, "host", host.tenant.slug) for host in further],
        *[Named(app.host, "app", app.tenant.slug) for app in apps],
    ]
