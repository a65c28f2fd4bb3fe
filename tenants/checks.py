"""System checks: what an operator can get wrong in the environment, each with its cure."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from tenants import hosts


@register()
def addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """PORTAL_URL, TENANT_DOMAIN and what the product must never run without."""
    problems: list[CheckMessage] = []
    if not settings.SECURE and not settings.ON_LOCALHOST:
        problems.append(
            Error(
                f"PORTAL_URL is {settings.PORTAL_URL}: over http every cookie can be read on the way.",
                hint="Use https. Plain http is for localhost and *.localhost only.",
                id="gatehouse.E001",
            )
        )
    try:
        domain = hosts.normalise(settings.TENANT_DOMAIN)
    except hosts.BadHost:
        domain = ""
    if not domain or domain != settings.TENANT_DOMAIN:
        problems.append(
            Error(
                f"TENANT_DOMAIN is “{settings.TENANT_DOMAIN}”, which is no domain.",
                hint="Set it to the domain under which each tenant gets its name, such as example.com.",
                id="gatehouse.E002",
            )
        )
    elif not settings.ON_LOCALHOST and hosts.is_public_suffix(domain):
        problems.append(
            Error(
                f"Strangers can register names below TENANT_DOMAIN ({domain}).",
                hint="Use a domain that is yours alone.",
                id="gatehouse.E003",
            )
        )
    if not getattr(settings, "AXES_ENABLED", True):
        problems.append(Error("AXES_ENABLED is off: passwords could be guessed without limit.", hint="Leave it on.", id="gatehouse.E004"))
    if settings.DATABASES["default"].get("ATOMIC_REQUESTS"):
        problems.append(
            Error(
                "ATOMIC_REQUESTS is on: an error after a wrong password would take its count back.",
                hint="Turn it off.",
                id="gatehouse.E005",
            )
        )
    return problems


@register(deploy=True)  # not before each command: the doctor says it, and install.sh
def mail(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Without a mail server nobody proves an address, gets a new password by himself, or hears of a stranger's sign-in."""
    if settings.DEBUG or not settings.MAIL_OFF:
        return []
    return [
        Warning(
            "EMAIL_URL is not set, so no mail leaves: nobody can prove an address or set a forgotten password by himself.",
            hint="Set it to smtp+tls://user:password@mail.example.com:587; see deploy/gatehouse.env.example.",
            id="gatehouse.W001",
        )
    ]
