"""Isolation both ways: every route of both URLconfs, with the wrong cookie, the wrong tenant, or none."""

import re
import uuid
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.apps import apps
from django.urls import URLPattern

from identity.models import Event, Session, User
from identity.sessions import new_key
from tests.acts import ACTS, Act
from tests.furnish import Furnished, furnish
from tests.test_roles import do, undone
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
FILLED = {
    "slug": "acme",
    "token": "x" * 43,
    "digest": "0" * 12,
    "path": "x",
}
# Open to everybody, on purpose.
PUBLIC_PORTAL = {
    "login/", "logout/", "signup/", "signup/<token>/", "password/forgot/", "password/reset/done/", "password/reset/<token>/",
    "invitation/<token>/",
    "api/v1/signup", "api/v1/login", "_portal/theme", "_portal/language", "_portal/brand/css", "_portal/brand/png", "healthz", "readyz",
    "link/verify/<token>/", "link/take-back/<token>/", "link/not-me/<token>/", "link/unlock/<token>/", "outbox/",
}  # fmt: skip
PUBLIC_TENANT = {
    "welcome/", "_portal/start", "_portal/finish", "_portal/logout", "_portal/account", "_portal/console", "_portal/theme",
    "_portal/language", "_portal/brand/css", "_portal/brand/png", "healthz", "readyz",
}  # fmt: skip


def routes(urlconf: str) -> dict[str, str]:
    """Every route of a URLconf: its name for humans, and a path that reaches it."""
    found = {}
    for pattern in import_module(urlconf).urlpatterns:
        assert isinstance(pattern, URLPattern), "an include would hide routes from this test"
        text = str(pattern.pattern)
        if text.startswith("^_portal/brand"):
            kind = "css" if "css" in text else "png"
            found[f"_portal/brand/{kind}"] = f"/_portal/brand/acme-{'0' * (12 if kind == 'css' else 32)}.{kind}"
        elif text.startswith("^"):
            prefix = text[1:].partition("(")[0]
            found[f"{prefix}<token>/"] = f"/{prefix}{'x' * 43}/"
        else:
            path = text.replace("<slug:slug>", "acme").replace("<int:pk>", "1").replace("<str:username>", "alice")
            path = path.replace("<uuid:pk>", str(uuid.uuid4()))
            found[text.replace("<slug:slug>", "<slug>")] = f"/{path}"
    return found


def is_let_in(response: object) -> bool:
    status = getattr(response, "status_code", 0)
    location = getattr(response, "headers", {}).get("Location", "")
    return status in {200, 303} or (status == 302 and "/login/" not in location and "/_portal/start" not in location)


@pytest.mark.asvs("8.2.1", "8.4.1", "7.2.1", "8.3.1")
@pytest.mark.parametrize("cookies", ["none", "acme's branch", "a random key"])
def test_every_portal_route_is_closed_without_a_portal_session(cast: dict[str, User], visitor: Open, cookies: str) -> None:
    stranger = visitor()
    if cookies == "acme's branch":  # under the portal's name, as a stolen cookie would be tried
        value = visitor("olivia", at="acme").key("acme.portal.localhost")
        stranger.cookies = [Cookie(name, value, "login.portal.localhost", host_only=True) for name in ("portal", "session")]
    if cookies == "a random key":
        stranger.cookies = [Cookie("portal", new_key(), "login.portal.localhost", host_only=True)]
    rows = Session.objects.count()
    for name, path in routes("portal.urls").items():
        if name in PUBLIC_PORTAL:
            continue
        for method in ("get", "post"):
            answer = getattr(stranger, method)(portal_url(path), follow=False)
            assert not is_let_in(answer), f"{method} {path}: {answer.status_code} {answer.headers.get('Location')}"
            assert b"dave" not in answer.content
    assert Session.objects.count() == rows


@pytest.mark.asvs("8.2.1", "8.4.1", "7.2.1", "8.3.1")
@pytest.mark.parametrize("cookies", ["none", "globex's branch", "the portal session"])
def test_every_tenant_route_is_closed_without_a_branch_of_that_tenant(cast: dict[str, User], visitor: Open, cookies: str) -> None:
    stranger = visitor()
    if cookies != "none":
        olivia = visitor("olivia", at="globex")
        host = "globex.portal.localhost" if cookies == "globex's branch" else "login.portal.localhost"
        value = olivia.key(host)
        stranger.cookies = [Cookie(name, value, "acme.portal.localhost", host_only=True) for name in ("portal", "session")]
    rows = Session.objects.count()
    for name, path in routes("portal.tenant_urls").items():
        if name in PUBLIC_TENANT:
            continue
        for method in ("get", "post"):
            answer = getattr(stranger, method)(tenant_url("acme", path), follow=False)
            assert not is_let_in(answer), f"{method} {path}: {answer.status_code} {answer.headers.get('Location')}"
    answer = stranger.get(tenant_url("acme", "/welcome/"))
    assert "Welcome, Guest" in answer.content.decode()
    assert Session.objects.count() == rows


@pytest.mark.asvs("3.5.4")
def test_the_routes_of_the_two_kinds_of_host_do_not_mix(cast: dict[str, User], visitor: Open) -> None:
    """A page that must not exist on a host is not in that host's URLconf."""
    olivia = visitor("olivia", at="acme")
    shared = set(routes("portal.urls")) & set(routes("portal.tenant_urls"))
    for name, path in routes("portal.urls").items():
        if name not in shared:
            assert olivia.get(tenant_url("acme", path), follow=False).status_code == 404, path
    for name, path in routes("portal.tenant_urls").items():
        if name not in shared:
            assert olivia.get(portal_url(path), follow=False).status_code == 404, path
    assert olivia.get(tenant_url("acme", "/_portal/check"), follow=False).status_code == 404  # the gate is not built yet


CONSOLE = (
    "/console/{}/", "/console/{}/panic/", "/console/{}/sessions/", "/console/{}/lockouts/", "/console/{}/people/",
    "/console/{}/people/invite/", "/console/{}/people/olivia/", "/console/{}/events/", "/console/{}/events/export/",
    "/console/{}/groups/", "/console/{}/apps/", "/console/{}/apps/add/", "/console/{}/settings/", "/console/{}/settings/look/",
    "/console/{}/settings/policy/", "/console/{}/settings/sign-up/", "/console/{}/settings/hosts/",
)  # fmt: skip


@pytest.mark.asvs("8.1.1", "8.2.1", "8.2.2", "8.3.1")
@pytest.mark.parametrize(
    ("person", "slug", "status"),
    [
        ("alice", "acme", 404), ("carol", "acme", 404), ("mallory", "acme", 404), ("dave", "acme", 404),
        ("bob", "acme", 200), ("bob", "globex", 404), ("bob", "nowhere", 404),
        ("olivia", "acme", 200), ("olivia", "globex", 200),
        ("erin", "acme", 200), ("erin", "globex", 200), ("erin", "nowhere", 404),
    ],
)  # fmt: skip
def test_who_sees_which_console(cast: dict[str, User], visitor: Open, person: str, slug: str, status: int) -> None:
    browser = visitor(person)
    for path in CONSOLE:
        assert browser.get(portal_url(path.format(slug))).status_code == status
    answer = browser.post(portal_url(f"/console/{slug}/sessions/end"), {"ids": [str(uuid.uuid4())], "reason": "x"})
    assert answer.status_code == 404


@pytest.mark.asvs("8.2.2", "8.4.1", "2.2.3", "16.3.3")
def test_a_public_id_of_another_tenant_is_a_404_and_changes_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    dave.get(tenant_url("globex"))
    own, foreign, portal = dave.session("acme").pk, dave.session("globex").pk, dave.session().pk
    for ids in ([foreign], [own, foreign], [portal], [own, uuid.uuid4()], ["rubbish"], [own, "rubbish"]):
        answer = bob.post(portal_url("/console/acme/sessions/end"), {"ids": [str(pk) for pk in ids], "reason": "x"})
        assert answer.status_code == 404
    for pk in (foreign, portal):
        assert bob.get(portal_url(f"/console/acme/sessions/{pk}/")).status_code == 404
        assert bob.post(portal_url(f"/console/acme/sessions/{pk}/report")).status_code == 404
    assert Session.objects.filter(user=cast["dave"], ended_at=None).count() == 3
    assert Event.objects.filter(kind="foreign_session", tenant__slug="acme", actor=cast["bob"]).exists()
    for path in ("", "?state=ended", f"{own}/"):
        assert str(foreign) not in bob.get(portal_url(f"/console/acme/sessions/{path}")).content.decode()


@pytest.mark.asvs("8.2.2")
def test_nobody_ends_other_peoples_sessions_from_the_own_list(cast: dict[str, User], visitor: Open) -> None:
    dave, alice = visitor("dave"), visitor("alice")
    answer = alice.post(portal_url("/account/sessions/end"), {"ids": [str(dave.session().pk)], "sure": "1"})
    assert answer.status_code == 404
    assert dave.is_in()


def test_operators_see_every_tenant_but_enter_none_without_membership(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    page = erin.get(portal_url("/console/")).content.decode()
    assert "Acme" in page
    assert "Globex" in page
    assert erin.get(tenant_url("acme")).status_code == 403
    assert not erin.is_in("acme")


# --- The console, with another tenant's ids -----------------------------------------------------------------------------


def everything() -> dict[str, list[Any]]:
    """All rows of all our tables, but for events: that somebody tried is noted."""
    models = [model for label in ("identity", "tenants") for model in apps.get_app_config(label).get_models() if model is not Event]
    return {model.__name__: sorted(model.objects.values_list(), key=str) for model in models}  # type: ignore[attr-defined]


def is_about(act: Act, one: Furnished, other: Furnished) -> bool:
    """Does this act name something of a tenant: are its arguments others at the other one?"""
    return (act.path(one), act.post and act.post(one)) != (act.path(other), act.post and act.post(other))


def traces(answer: Any, sent: Iterable[object] = ()) -> list[str]:
    """What an answer says of globex, in its body or its headers, but for what was sent there."""
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    text = body.decode(errors="replace") + repr(list(answer.headers.items()))
    for each in sent:
        text = text.replace(str(each), "")
    return re.findall("[Gg]lobex|[Cc]arol|Wren", text)


@pytest.mark.asvs("8.2.2", "8.4.1", "8.1.1")
def test_an_admin_with_another_tenants_ids_changes_and_learns_nothing(cast: dict[str, User], visitor: Open) -> None:
    """Every act of the tenant's console, in one's own console with globex's ids, and in globex's console."""
    own, theirs, bob = furnish("acme"), furnish("globex"), visitor("bob")
    before, noted = everything(), Event.objects.filter(tenant=theirs.tenant).count()
    tried = 0
    for act in ACTS:
        if not act.is_of_tenant:
            continue
        for slug in ("acme", "globex"):
            if slug == "acme" and not is_about(act, own, theirs):
                continue
            with undone():
                answer: Any = do(bob, act, theirs, slug)
                # A form that has a foreign id in a field says so beside it. Who may not do it at home is told that first.
                refused = {404} if slug == "globex" else {404, 200, *([403] if act.who == "owner" else [])}
                assert answer.status_code in refused, f"{act} at {slug}: {answer.status_code}"
                assert everything() == before, f"{act} at {slug}"
                assert Event.objects.filter(tenant=theirs.tenant).count() == noted
                if slug == "acme":
                    sent = [*act.path(theirs).values(), *(act.post(theirs).values() if act.post else ())]
                    assert not traces(answer, sent), f"{act} at {slug}"
            tried += 1
    assert tried > 20


@pytest.mark.asvs("8.2.2", "8.4.1")
def test_no_filter_of_a_page_reaches_another_tenant(cast: dict[str, User], visitor: Open) -> None:
    """Every parameter that a page's own links and forms have, with ids of globex: on each page a third of them, on all pages all."""
    own, theirs, bob = furnish("acme"), furnish("globex"), visitor("bob")
    values = [value for value in theirs.ids.values() if value != theirs.tenant.slug]
    before = everything()
    for turn, act in enumerate(ACTS):
        if not act.is_of_tenant or act.post:
            continue
        url = portal_url(act.url(own))
        page = bob.get(url, follow=False)
        assert not traces(page), act
        for also, name in enumerate(sorted(parameters("" if page.streaming else page.content.decode()))):
            for value in values[(turn + also) % 3 :: 3]:
                answer = bob.get(f"{url}{'&' if '?' in url else '?'}{name}={value}", follow=False)
                assert answer.status_code in {200, 302, 404}, f"{act} {name}={value}: {answer.status_code}"
                assert not traces(answer, [value]), f"{act} {name}={value}"
    after = everything()
    assert {name for name in before if before[name] != after[name]} <= {"Session"}  # that bob was there


def parameters(html: str) -> set[str]:
    """The names that the links and the forms of a page put into addresses."""
    links = re.findall(r'(?:href|hx-get|action)="([^"]*)"', html)
    found = {name for link in links for name, _value in parse_qsl(urlsplit(link.replace("&amp;", "&")).query, keep_blank_values=True)}
    for form in re.findall(r"<form[^>]*method=\"get\".*?</form>", html, re.DOTALL | re.IGNORECASE):
        found |= set(re.findall(r'name="([^"]+)"', form))
    return found | {"q", "person", "after", "before"}
