"""Every page of the product with something on it: what `tests/browser/data.py` "all-sorts" puts there. For tests that look at all of them.

A page of the URLconf that nobody has put here fails a test (test_quality.py).
"""

import uuid
from dataclasses import dataclass

from django.urls import Resolver404, resolve

ANY = str(uuid.uuid4())


@dataclass(frozen=True)
class Look:
    """A page as one of the cast sees it. who: "" is a guest. status: what the server answers."""

    who: str
    host: str
    path: str
    status: int = 200

    def __str__(self) -> str:
        return f"{self.who or 'guest'} {self.host}{self.path}"

    @property
    def name(self) -> str:
        """Of its route; "" for a page that says that there is none."""
        path = self.path.partition("?")[0].replace("{branch}", ANY).replace("{ended}", ANY)
        try:
            found = resolve(path.format_map(Numbers()), "portal.urls" if self.host == "login" else "portal.tenant_urls").url_name
        except Resolver404:
            return ""
        return found or ""


class Numbers(dict[str, str]):
    """Any id will do for an address that is only read."""

    def __missing__(self, key: str) -> str:
        return "1"


TOKEN = "x" * 43


def looks(who: str, host: str, *paths: str, status: int = 200) -> list[Look]:
    return [Look(who, host, path, status) for path in paths]


GUEST = [
    *looks("", "login", "/login/", "/signup/", "/password/forgot/", "/password/reset/done/", "/logout/", "/outbox/"),
    *looks("", "login", f"/password/reset/{TOKEN}/", f"/invitation/{TOKEN}/", "/no/such/page", status=404),
    *looks("", "acme", "/welcome/"),
    *looks("", "nobody", "/", status=404),
]
DAVE = [
    *looks("dave", "login", "/?places=1", "/account/", "/account/password/", "/account/password/done/", "/account/sessions/"),
    *looks("dave", "login", "/account/activity/", "/account/two-factor/", "/account/two-factor/add/", "/account/email/", "/account/name/"),
    *looks("dave", "login", "/account/export/", "/account/delete/", "/console/", "/step-up/?next=/account/"),
    *looks("dave", "acme", "/", "/welcome/", "/_portal/logout"),
]
ACME = "/console/acme"
OLIVIA = [
    *looks("olivia", "login", "/console/", f"{ACME}/", f"{ACME}/panic/", "/console/globex/"),
    *looks("olivia", "login", f"{ACME}/sessions/", f"{ACME}/sessions/?q=mei&sort=person", f"{ACME}/sessions/?q=nobody"),
    *looks("olivia", "login", f"{ACME}/sessions/?state=ended", f"{ACME}/sessions/{{branch}}/", f"{ACME}/sessions/{{ended}}/"),
    *looks("olivia", "login", f"{ACME}/people/", f"{ACME}/people/?q=nobody", f"{ACME}/people/{{member}}/", f"{ACME}/people/invite/"),
    *looks("olivia", "login", f"{ACME}/people/?state=invited", f"{ACME}/people/?state=waiting", "/console/globex/people/?state=invited"),
    *looks("olivia", "login", f"{ACME}/lockouts/", "/console/globex/lockouts/"),
    *looks("olivia", "login", f"{ACME}/events/", f"{ACME}/events/?kind=nothing", f"{ACME}/events/{{event}}/", f"{ACME}/events/export/"),
    *looks("olivia", "login", f"{ACME}/groups/", f"{ACME}/groups/{{group}}/", "/console/globex/groups/"),
    *looks("olivia", "login", f"{ACME}/apps/", f"{ACME}/apps/add/", f"{ACME}/apps/{{app}}/"),
    *looks("olivia", "login", f"{ACME}/settings/", f"{ACME}/settings/look/", f"{ACME}/settings/policy/", f"{ACME}/settings/sign-up/"),
    *looks("olivia", "login", f"{ACME}/settings/hosts/"),
]
PLATFORM = "/console/platform"
ERIN = [
    *looks("erin", "login", "/account/two-factor/", "/account/two-factor/codes/", "/console/", "/step-up/?next=/account/two-factor/"),
    *looks(
        "erin", "login", f"{PLATFORM}/tenants/", f"{PLATFORM}/tenants/?q=nobody", f"{PLATFORM}/tenants/add", f"{PLATFORM}/tenants/acme/"
    ),
    *looks("erin", "login", f"{PLATFORM}/accounts/", f"{PLATFORM}/accounts/1/", f"{PLATFORM}/sessions/", f"{PLATFORM}/sessions/?q=nobody"),
    *looks("erin", "login", f"{PLATFORM}/lockouts/", f"{PLATFORM}/lockouts/?q=nobody", f"{PLATFORM}/factors/"),
]
ALL = [*GUEST, *DAVE, *OLIVIA, *ERIN]
