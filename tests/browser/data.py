"""What goes into a portal's database beside the browser, in a process with that portal's environment.

python -m tests.browser.data install | crowd | month | long-names | furnish:SLUG | asks:SLUG | code:NAME | old-proofs …
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402

from identity import factors  # noqa: E402
from identity.management.commands import demo  # noqa: E402
from identity.models import Session, TotpDevice  # noqa: E402
from tenants.models import Tenant  # noqa: E402
from tests.browser.believable import LONG_NAME, LONG_VISIT, NEW_PEOPLE, VISITS, crowd, month  # noqa: E402
from tests.browser.site import PASSWORD  # noqa: E402
from tests.furnish import furnish  # noqa: E402


def install() -> None:
    """What an operator does, and the demo's people (whom `manage.py demo` seeds on localhost only)."""
    call_command("migrate", verbosity=0)
    demo.seed(PASSWORD)


def asks(slug: str) -> None:
    """From now on this tenant asks everybody for a second factor."""
    tenant = Tenant.objects.get(slug=slug)
    tenant.policy, tenant.factor_since = {"second_factor": "everyone"}, timezone.now()
    tenant.save()


def code(name: str) -> None:
    """Print what the person's authenticator shows, as if the last code had been used long ago."""
    device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
    TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
    print(factors.code_now(device))


def old_proofs() -> None:
    """Everybody's proof is older than a step-up takes."""
    Session.objects.update(proved_at=timezone.now() - timedelta(minutes=11))


VERBS: dict[str, Callable[..., None]] = {
    "install": install,
    "crowd": lambda: crowd(NEW_PEOPLE, VISITS),
    "month": month,
    "long-names": lambda: crowd([LONG_NAME], [LONG_VISIT]),
    "furnish": lambda slug: print(json.dumps(furnish(slug).ids)),
    "asks": asks,
    "code": code,
    "old-proofs": old_proofs,
}

if __name__ == "__main__":
    for verb in sys.argv[1:]:
        name, _, of = verb.partition(":")
        VERBS[name](*filter(None, [of]))
