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
    def is_of_tenant(self) -> bool:
        return not self.is_platforms and self.name != "console_home"

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


def person(it: Furnished) -> dict[str, Any]:
    return {"pk": it.member.pk}


def _verb(verb: str) -> Fill:
    return lambda it: {"verb": verb, "reason": "x"}


def group(it: Furnished) -> dict[str, Any]:
    return {"pk": it.group.pk}


ACTS = [
    Act("console_home", "stranger"),  # says that there is nothing to administer
    # The platform's
    Act("platform", "operator"),
    Act("platform_tenants", "operator"),
    Act("platform_tenants", "operator", query="?state=suspended"),
    Act("platform_tenants_add", "operator"),
    Act("platform_tenants_add", "operator", post=lambda it: {"name": "Initech", "slug": "initech"}),
    Act("platform_tenant", "operator"),
    Act("platform_tenant_act", "operator", post=lambda it: {"verb": "suspend"}),
    Act("platform_tenant_act", "operator", post=lambda it: {"verb": "suspend", "reason": "x"}),
    Act("platform_tenant_act", "operator", post=lambda it: {"verb": "resume", "reason": "x"}),
    Act("platform_tenant_act", "operator", post=lambda it: {"verb": "delete"}),
    Act("platform_accounts", "operator"),
    Act("platform_account", "operator", path=person),
    *(Act("platform_account_act", "operator", path=person, post=_verb(verb)) for verb in ("deactivate", "activate", "end_all", "link")),
    Act("platform_account_act", "operator", path=person, post=lambda it: {"end": [it.portal.pk], "reason": "x"}),
    Act("platform_sessions", "operator"),
    Act("platform_sessions_end", "operator", post=lambda it: {"ids": [it.portal.pk]}),
    Act("platform_sessions_end", "operator", post=lambda it: {"ids": [it.portal.pk], "reason": "x"}),
    Act("platform_lockouts", "operator"),
    Act("platform_lockouts", "operator", query="?part=people"),
    Act("platform_lockouts", "operator", post=lambda it: {"id": it.lockout.pk}),
    Act("platform_lockouts", "operator", post=lambda it: {"id": it.lockout.pk, "reason": "x"}),
    Act("platform_factors", "operator"),
    Act("platform_factors", "operator", post=lambda it: {"username": it.member.username, "reason": "x"}),
    Act("platform_factors_done", "nobody"),  # but for who has just done it: tests/test_lockouts.py
    # A tenant's: overview and panic
    Act("console", "admin"),
    Act("console_overview", "admin"),
    Act("console_panic", "admin"),
    *(
        Act("console_panic", "admin", post=post)
        for post in (
            lambda it: {"do": "freeze"},
            lambda it: {"do": "freeze", "reason": "x"},
            lambda it: {"do": "end", "reason": "x"},
            lambda it: {"do": "demand", "reason": "x"},
            lambda it: {"lift": "freeze"},
        )
    ),
    # Sessions
    Act("console_sessions", "admin"),
    Act("console_sessions", "admin", query="?state=ended"),
    Act("console_sessions_pulse", "admin"),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.branch.pk]}),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.branch.pk], "reason": "x"}),
    Act("console_sessions_end", "admin", post=lambda it: {"only": it.branch.pk, "reason": "x", "all": "on"}),
    Act("console_sessions_end", "admin", post=lambda it: {"only": it.branch.pk, "reason": "x", "block": "on"}),
    Act("console_sessions_end", "admin", post=lambda it: {"ids": [it.ended.pk], "reason": "x"}),
    Act("console_sessions_end_all", "admin", post=lambda it: {"q": "mia"}),
    Act("console_sessions_end_all", "admin", post=lambda it: {"scope": "tenant"}),
    Act("console_session", "admin", path=lambda it: {"pk": it.branch.pk}),
    Act("console_session", "admin", path=lambda it: {"pk": it.ended.pk}),
    Act("console_session_report", "admin", path=lambda it: {"pk": it.branch.pk}, post=lambda it: {"reason": "x"}),
    # People
    Act("console_people", "admin"),
    Act("console_people", "admin", query="?state=invited"),
    Act("console_people", "admin", query="?state=waiting"),
    Act("console_person", "admin", path=lambda it: {"username": it.member.username}),
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
    # Groups and apps
    Act("console_groups", "admin"),
    Act("console_groups", "admin", post=lambda it: {"name": "New guild"}),
    Act("console_group", "admin", path=group),
    Act("console_group_act", "admin", path=group, post=lambda it: {"rename": "1", "name": "Renamed"}),
    Act("console_group_act", "admin", path=group, post=lambda it: {"put": it.member.username}),
    Act("console_group_act", "admin", path=group, post=lambda it: {"take": it.member.username}),
    Act("console_group_act", "admin", path=group, post=lambda it: {"remove": "1", "sure": "1"}),
    Act("console_apps", "admin"),
    Act("console_app_add", "admin"),
    Act("console_app_add", "admin", post=lambda it: {"name": "New", "host": f"new.{it.tenant.hostname}", "who": "everyone"}),
    Act("console_app", "admin", path=lambda it: {"pk": it.app.pk}),
    Act("console_app", "admin", path=lambda it: {"pk": it.app.pk}, post=lambda it: {"name": "Old", "host": it.app.host, "who": "everyone"}),
    Act("console_app_remove", "admin", path=lambda it: {"pk": it.app.pk}, post=lambda it: {"sure": "1"}),
    # Events
    Act("console_events", "admin"),
    Act("console_event", "admin", path=lambda it: {"pk": it.event.pk}),
    Act("console_events_export", "admin"),
    Act("console_events_export", "admin", post=lambda it: {"format": "csv"}),
    # Settings: an admin reads them
    Act("console_settings", "admin"),
    Act("console_settings_look", "admin"),
    Act("console_settings_look", "owner", post=lambda it: {"name": "Acme", "colour": "#0d5f7a"}),
    Act("console_settings_look_css", "admin", query="?colour=0d5f7a"),
    Act("console_settings_policy", "admin"),
    Act("console_settings_policy", "owner", post=lambda it: {"idle": "30"}),
    Act("console_settings_sign_up", "admin"),
    Act("console_settings_sign_up", "owner", post=lambda it: {"sign_up": "closed"}),
    Act("console_settings_hosts", "admin"),
    Act("console_settings_hosts", "owner", post=lambda it: {"name": "id.new-inc.example"}),
    Act("console_settings_hosts_act", "owner", post=lambda it: {"check": it.host.name}),
    Act("console_settings_hosts_act", "owner", post=lambda it: {"remove": it.host.name, "sure": "1"}),
]  # fmt: skip
