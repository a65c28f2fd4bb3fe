"""The pages of a console, for its navigation. The current one may show how many rows it has: only that page has counted them."""

from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from tenants.models import Tenant

Pages = list[dict[str, Any]]


def of_tenant(tenant: Tenant, current: str, count: int | None = None) -> Pages:
    pages = [("sessions", _("Sessions"), "sessions"), ("people", _("People"), "people"), ("lockouts", _("Lockouts"), "lock")]
    return [_entry(name, label, icon, reverse(f"console_{name}", args=[tenant.slug]), current, count) for name, label, icon in pages]


def of_platform(current: str, count: int | None = None) -> Pages:
    pages = [("lockouts", _("Lockouts"), "lock"), ("factors", _("Second factors"), "shield")]
    return [_entry(name, label, icon, reverse(f"platform_{name}"), current, count) for name, label, icon in pages]


def _entry(name: str, label: str, icon: str, url: str, current: str, count: int | None) -> dict[str, Any]:
    here = name == current
    return {"name": name, "label": label, "icon": icon, "url": url, "count": count if here else None, "current": here}
