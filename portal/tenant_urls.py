"""A tenant's hosts: no login form here. Names shared with the portal lead to the same thing from both."""

from django.urls import URLPattern, URLResolver, path

from portal.shared_urls import shared
from portal.urls import handler400, handler403, handler404, handler500  # noqa: F401
from portal.views import login, tenant

urlpatterns: list[URLPattern | URLResolver] = [
    path("", tenant.home, name="home"),
    path("welcome/", tenant.welcome, name="welcome"),
    path("_portal/start", tenant.start, name="login"),
    path("_portal/finish", tenant.finish, name="finish"),
    path("_portal/logout", login.logout, name="logout"),
    path("_portal/whoami", tenant.whoami, name="whoami"),
    path("_portal/account", tenant.account, name="profile"),
    path("_portal/console", tenant.console, name="console_home"),
    *shared,
]
