"""What every page may need. Nothing here asks the database."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

THEMES = ("auto", "light", "dark")


def page(request: HttpRequest) -> dict[str, Any]:
    theme = request.COOKIES.get(settings.THEME_COOKIE_NAME, "auto")
    user = getattr(request, "user", None)
    signed_in = bool(user and user.is_authenticated)
    tenant = getattr(request, "tenant", None)
    return {
        "brand": tenant,
        "theme": theme if theme in THEMES else "auto",
        "languages": [] if signed_in else settings.LANGUAGES,  # a guest chooses in the foot, a person in the profile
        "portal_url": settings.PORTAL_URL,
        "portal_host": settings.PORTAL_HOST,
        "signed_in": signed_in,
        "outbox_url": f"{settings.PORTAL_URL}/outbox/" if settings.KEEP_MAILS else "",
        # Open tabs ask this address whether the session still lives; asking is no activity.
        "alive_url": ("/_portal/whoami" if tenant else "/api/v1/session") if signed_in else "",
        "login_url": reverse("login", urlconf=getattr(request, "urlconf", None)) if signed_in else "",
    }
