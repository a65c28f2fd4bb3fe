"""The WSGI application. The URLconfs are loaded before the first request is taken, so that nobody waits for them."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.conf import settings  # noqa: E402
from django.urls import get_resolver  # noqa: E402

for _urlconf in (settings.ROOT_URLCONF, settings.TENANT_URLCONF, settings.APP_URLCONF):
    get_resolver(_urlconf).url_patterns  # noqa: B018
