"""System checks: keys that would only fail at the first sign-in."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from identity import crypto


@register()
def keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """ENCRYPTION_KEYS can be read, SECRET_KEY is long enough to be one. ASVS 11.2.3."""
    problems: list[CheckMessage] = []
    try:
        crypto.current_key_id()
    except ImproperlyConfigured as wrong:
        problems.append(Error(str(wrong), id="gatehouse.E007"))
    if len(settings.SECRET_KEY) < 32:
        problems.append(
            Error(
                "SECRET_KEY is shorter than 32 characters: it could be guessed.",
                hint="Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
                id="gatehouse.E008",
            )
        )
    if settings.AXES_HANDLER != "identity.ledger.Handler":
        problems.append(Error("Without the ledger nobody counts wrong passwords: AXES_HANDLER stays as it is.", id="gatehouse.E009"))
    return problems
