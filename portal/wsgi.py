"""The WSGI application. The URLconfs are loaded before the first request is taken, so that nobody waits for them."""

import os
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.wsgi import get_wsgi_application

_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Django, given UTF-8 whatever the client claims: Django looks a foreign charset up before any middleware can refuse it,
    and a wrong one would decode its way past every check of ours."""
    kind, _semicolon, parameters = environ.get("CONTENT_TYPE", "").partition(";")
    if "charset" in parameters.lower():
        kept = [part for part in parameters.split(";") if "charset" not in part.lower()]
        environ["CONTENT_TYPE"] = ";".join([kind, *kept])
    return _django(environ, start_response)


from django.conf import settings  # noqa: E402
from django.urls import get_resolver  # noqa: E402

for _urlconf in (settings.ROOT_URLCONF, settings.TENANT_URLCONF, settings.APP_URLCONF):
    get_resolver(_urlconf).url_patterns  # noqa: B018
