"""The WSGI application. The URLconfs are loaded before the first request is taken, so that nobody waits for them."""

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.wsgi import get_wsgi_application

_django = get_wsgi_application()

from django.conf import settings  # noqa: E402

from identity import alarm, backends, chores, crypto, leaving, mails, mass, platform, seals, upkeep  # noqa: E402

crypto.current_key_id()  # keys that cannot be read stop the server here, not at the first sign-in
backends.spend_a_check("")  # makes the hash that nobody has: the first stranger is answered as fast as everybody else
_chores = []
if settings.SEAL_EVERY:
    _chores = [upkeep.Chore("seal", settings.SEAL_EVERY, seals.seal), upkeep.Chore("alarm", alarm.EVERY, alarm.watch)]
if settings.DELIVER_EVERY:
    _chores += [upkeep.Chore(name, settings.DELIVER_EVERY, work) for name, work in chores.BEFORE_MAIL.items()]
    _chores.append(upkeep.Chore("leaving", timedelta(minutes=10), leaving.carry_out_due))
    _chores.append(upkeep.Chore("deletions", settings.DELIVER_EVERY, platform.carry_on))
# On its own: a mail server that hangs must not keep the audit log from its seals.
_post = [upkeep.Chore("mail", settings.DELIVER_EVERY, mails.deliver)] if settings.DELIVER_EVERY else []
# On its own, too: an end of a hundred thousand sessions takes minutes.
_ends = [upkeep.Chore("mass ends", mass.EVERY, mass.carry_on)] if settings.SEAL_EVERY else []

# The server hands its environment to every request; the keys are in the settings by now and need not be there.
for _name in ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "ENCRYPTION_KEYS", "DATABASE_URL", "DATABASE_DIRECT_URL", "EMAIL_URL"):
    os.environ.pop(_name, None)

_DRAIN = 1 << 20  # bytes: what nginx lets through at the most


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Django, given UTF-8 whatever the client claims, and a body that is always read.

    Django looks a foreign charset up before any middleware can refuse it, and a wrong one would decode its way past every
    check of ours. A body that nobody reads resets the unix socket under nginx, which then answers 502 for our 400.
    """
    upkeep.start(_chores, _post, _ends)
    kind, _semicolon, parameters = environ.get("CONTENT_TYPE", "").partition(";")
    if "charset" in parameters.lower():
        kept = [part for part in parameters.split(";") if "charset" not in part.lower()]
        environ["CONTENT_TYPE"] = ";".join([kind, *kept])
    answer = _django(environ, start_response)
    left = _DRAIN
    while left > 0 and (block := environ["wsgi.input"].read(65536)):
        left -= len(block)
    return answer


from django.urls import get_resolver  # noqa: E402

for _urlconf in (settings.ROOT_URLCONF, settings.TENANT_URLCONF, settings.APP_URLCONF):
    get_resolver(_urlconf).url_patterns  # noqa: B018
