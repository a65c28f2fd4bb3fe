"""An app's host that reaches us directly: one calm page. Sign-in never runs here."""

from django.urls import URLPattern, URLResolver, path

from portal.shared_urls import shared
from portal.urls import handler400, handler403, handler404, handler500  # noqa: F401
from portal.views import tenant

urlpatterns: list[URLPattern | URLResolver] = [
    *shared,
    path("", tenant.app, name="home"),
    path("<path:path>", tenant.app),
]
