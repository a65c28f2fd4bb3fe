"""What every page of a console has around it: whose it is, who looks at it, and where else one may go."""

from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from identity import panic
from portal.access import ConsoleRequest
from tenants.models import Tenant

Pages = list[dict[str, Any]]


def of_tenant(request: ConsoleRequest, current: str, count: int | None = None) -> dict[str, Any]:
    """The context of a page in a tenant's console. count: how many rows the page lists, for its entry in the navigation."""
    tenant = request.console_tenant
    return {
        "brand": tenant,
        "tenant": tenant,
        "membership": request.membership,
        "nav": tenant_pages(tenant, current, count),
        "is_panic": current == "panic",
        "in_force": panic.in_force(tenant),
    }


def of_platform(current: str, count: int | None = None) -> dict[str, Any]:
    """The context of a page in the platform's console."""
    return {"nav": platform_pages(current, count)}


def tenant_pages(tenant: Tenant, current: str, count: int | None = None) -> Pages:
    """The pages of a tenant's console. The current one may show how many rows it has: only that page has counted them."""
    pages = [
        ("overview", _("Overview"), "overview"),
        ("sessions", _("Sessions"), "sessions"),
        ("people", _("People"), "people"),
        ("events", _("Events"), "events"),
        ("lockouts", _("Lockouts"), "lock"),
        ("groups", _("Groups"), "groups"),
        ("apps", _("Apps"), "apps"),
        ("settings", _("Settings"), "settings"),
    ]
    return [_entry(name, label, icon, reverse(f"console_{name}", args=[tenant.slug]), current, count) for name, label, icon in pages]


def platform_pages(current: str, count: int | None = None) -> Pages:
    pages = [
        ("tenants", _("Tenants"), "tenants"),
        ("accounts", _("Accounts"), "people"),
        ("sessions", _("Sessions"), "sessions"),
        ("lockouts", _("Lockouts"), "lock"),
        ("factors", _("Second factors"), "shield"),
    ]
    return [_entry(name, label, icon, reverse(f"platform_{name}"), current, count) for name, label, icon in pages]


def _entry(name: str, label: str, icon: str, url: str, current: str, count: int | None) -> dict[str, Any]:
    here = name == current
    return {"name": name, "label": label, "icon": icon, "url": url, "count": count if here else None, "current": here}
