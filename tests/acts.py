"""Everything that the consoles let somebody do, and who may: the table of roles (design, section 1), one line for each act.

`tests/test_roles.py` asks that the table is whole and true, `tests/test_isolation.py` tries each act with another tenant's ids.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.urls import URLPattern, reverse

from portal.urls import urlpatterns
from tests.furnish import Furnished

# Each may what those before him may. Of the consoles, a member has no more than a stranger has.
ROLES = {"mallory": "stranger", "alice": "member", "bob": "admin", "olivia": "owner", "erin": "operator"}
RANKS = [*ROLES.values(), "nobody"]
Fill = Callable[[Furnished], dict[str, Any]]


@dataclass(frozen=True)
class Act:
    """name: of the URL. who: the least who may. path: its arguments but for the slug. post: what is sent; none: it is a GET."""

    name: str
    who: str
    path: Fill = field(default=lambda it: {})
    post: Fill | None = None
    query: str = ""

    @property
    def method(self) -> str:
        return "POST" if self.post else "GET"

    @property
    def is_platforms(self) -> bool:
        return self.name.startswith("platform")

    def url(self, it: Furnished, slug: str = "") -> str:
        arguments = self.path(it)
        if "<slug:slug>" in PATTERNS[self.name] and "slug" not in arguments:
            arguments["slug"] = slug or it.tenant.slug
        return reverse(self.name, kwargs=arguments, urlconf="portal.urls") + self.query

    def __str__(self) -> str:
        return f"{self.method} {self.name}{self.query}"


def _patterns() -> dict[str, str]:
    """The console's part of the URLconf: names and patterns. Every route there has a name."""
    found = {}
    for pattern in urlpatterns:
        assert isinstance(pattern, URLPattern)
        if str(pattern.pattern).startswith("console/"):
            assert pattern.name, f"{pattern.pattern} has no name"
            found[pattern.name] = str(pattern.pattern)
    return found


PATTERNS = _patterns()

ACTS = [
    Act("console_home", "stranger"),  # says that there is nothing to administer
    Act("platform", "operator"),
    Act("platform_lockouts", "operator"),
    Act("platform_lockouts", "operator", query="?part=people"),
    Act("platform_lockouts", "operator", post=lambda it: {"id": it.lockout.pk}),
    Act("platform_lockouts", "operator", post=lambda it: {"id": it.lockout.pk, "reason": "x"}),
    Act("platform_factors", "operator"),
    Act("platform_factors", "operator", post=lambda it: {"username": it.member.username, "reason": "x"}),
    Act("platform_factors_done", "nobody"),  # but for who has just done it: tests/test_lockouts.py
    Act("console", "admin"),
    Act("console_sessions", "admin"),
    Act("console_sessions", "admin", query="?state=ended"),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.branch.pk]}),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.branch.pk], "reason": "x"}),
    Act("console_sessions_end", "admin", post=lambda it: {"only": it.branch.pk, "reason": "x", "block": "on"}),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.ended.pk], "reason": "x"}),
    Act("console_people", "admin"),
    Act("console_people", "admin", query="?state=invited"),
    Act("console_people", "admin", query="?state=waiting"),
    Act("console_people_invite", "admin"),
    Act("console_people_invite", "admin", post=lambda it: {"addresses": "new@people.example", "role": "member"}),
    Act("console_people_act", "admin", post=lambda it: {"manage": it.member.username}),
    Act("console_people_act", "owner", post=lambda it: {"role": it.member.username, "to": "admin"}),
    Act("console_people_act", "admin", post=lambda it: {"block": it.member.username, "reason": "x"}),
    Act("console_people_act", "admin", post=lambda it: {"unblock": it.member.username}),
    Act("console_people_act", "admin", post=lambda it: {"remove": it.member.username}),
    Act("console_people_act", "admin", post=lambda it: {"remove": it.member.username, "reason": "x"}),
    Act("console_people_act", "admin", post=lambda it: {"resend": it.invitation.pk}),
    Act("console_people_act", "admin", post=lambda it: {"revoke": it.invitation.pk}),
    Act("console_people_act", "admin", post=lambda it: {"approve": it.waiting.username}),
    Act("console_people_act", "admin", post=lambda it: {"decline": it.waiting.username}),
    Act("console_lockouts", "admin"),
    Act("console_lockouts", "admin", post=lambda it: {"id": it.member.username}),
    Act("console_lockouts", "admin", post=lambda it: {"id": it.member.username, "reason": "x"}),
]
