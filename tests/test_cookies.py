"""Every cookie, compared by its whole line."""

import re
from collections.abc import Callable

import pytest
from django.conf import settings

from identity.models import Event, Session, User
from identity.sessions import new_key
from tenants.models import Host, Tenant
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

KEY = r"[A-Za-z0-9_-]{43}"
Open = Callable[..., Visitor]


def lines(visitor: Visitor) -> list[str]:
    """The Set-Cookie lines of the last answer."""
    return [morsel.OutputString() for morsel in visitor.page.cookies.values()]


def line(visitor: Visitor, name: str) -> str:
    found = [text for text in lines(visitor) if text.startswith(f"{name}=")]
    assert len(found) == 1, found
    return found[0]


def log_in(browser: Visitor, *, remember: bool = False) -> None:
    browser.get(portal_url("/login/"))
    data = {"username": "dave", "password": "gatehouse-demo", **({"remember": "on"} if remember else {})}
    browser.post(portal_url("/login/"), data, follow=False)


def test_the_portals_cookie_over_http(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    log_in(browser)
    assert re.fullmatch(rf"portal={KEY}; HttpOnly; Path=/; SameSite=Lax", line(browser, "portal"))


def test_a_remembered_portal_cookie_lives_fourteen_days(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    log_in(browser, remember=True)
    assert re.fullmatch(rf"portal={KEY}; expires=[^;]+ GMT; HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax", line(browser, "portal"))


@pytest.mark.asvs("3.3.1", "3.3.2", "3.3.3")
def test_the_portals_cookie_over_https_is_host_only(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    browser = visitor()
    log_in(browser)
    assert re.fullmatch(rf"__Host-portal={KEY}; HttpOnly; Path=/; SameSite=Lax; Secure", line(browser, "__Host-portal"))


def finish(browser: Visitor, slug: str = "acme") -> None:
    """Go through the hand-off and stop at the answer of `finish`."""
    browser.get(tenant_url(slug), follow=False)
    for _ in range(6):
        if "/_portal/finish" in browser.page.get("Location", ""):
            browser.get(browser.page["Location"], follow=False)
            return
        browser.get(browser.page["Location"], follow=False)
    raise AssertionError(browser.url)


def test_the_tenants_cookie_over_http_carries_the_tenants_domain(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave")
    finish(browser)
    assert re.fullmatch(rf"session={KEY}; Domain=acme.portal.localhost; HttpOnly; Path=/; SameSite=Lax", line(browser, "session"))
    assert re.fullmatch(rf"start={KEY}\.\d+\.0; expires=[^;]+; HttpOnly; Max-Age=2592000; Path=/; SameSite=Lax", line(browser, "start"))


@pytest.mark.asvs("3.3.1", "3.3.3", "3.3.2")
def test_the_tenants_cookie_over_https(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    for tenant in Tenant.objects.all():  # made for the demo's domain
        tenant.cookie_domain = tenant.hostname
        tenant.save()
    browser = visitor("dave")
    finish(browser)
    expected = rf"__Secure-session={KEY}; Domain=acme.example.com; HttpOnly; Path=/; SameSite=Lax; Secure"
    assert re.fullmatch(expected, line(browser, "__Secure-session"))
    assert re.fullmatch(
        rf"__Host-start={KEY}\.\d+\.0; expires=[^;]+; HttpOnly; Max-Age=2592000; Path=/; SameSite=Lax; Secure",
        line(browser, "__Host-start"),
    )


def test_sign_out_deletes_the_tenants_cookie_at_every_scope(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave", at="acme")
    browser.post(tenant_url("acme", "/_portal/logout"), follow=False)
    gone = [text for text in lines(browser) if text.startswith("session=")]
    scopes = {found[1] if (found := re.search(r"Domain=([^;]+)", text)) else "" for text in gone}
    assert scopes == {"", "portal.localhost", "acme.portal.localhost"}
    assert all("Max-Age=0" in text and "HttpOnly" in text for text in gone)


@pytest.mark.asvs("3.3.4")
def test_the_key_is_in_no_page_and_no_row(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave", at="acme")
    keys = {browser.key("login.portal.localhost"), browser.key("acme.portal.localhost")}
    for url in (portal_url("/account/sessions/"), tenant_url("acme"), portal_url("/api/v1/session"), tenant_url("acme", "/_portal/whoami")):
        text = browser.get(url).content.decode()
        assert not any(key in text for key in keys)
    stored = "".join(str(row) for row in Session.objects.values())
    assert not any(key in stored for key in keys)


def test_an_unknown_key_never_deletes_a_cookie(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    browser.cookies.append(Cookie("session", new_key(), "acme.portal.localhost", host_only=False))
    browser.cookies.append(Cookie("portal", new_key(), "login.portal.localhost", host_only=True))
    browser.get(tenant_url("acme"), follow=False)
    assert not any(text.startswith("session=") for text in lines(browser))
    browser.get(portal_url("/account/"), follow=False)
    assert not any(text.startswith("portal=") for text in lines(browser))


def test_a_planted_dead_cookie_changes_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    for value in ("x", new_key(), new_key(), "", "' OR 1=1"):
        dave.plant("session", value, "portal.localhost")
    assert dave.is_in("acme")


def test_a_planted_live_cookie_swaps_nobody(cast: dict[str, User], visitor: Open) -> None:
    """alice runs a sibling host and plants her own live cookie at the parent domain: it was not opened in dave's browser."""
    alice, dave, guest = visitor("alice", at="acme"), visitor("dave", at="acme"), visitor()
    for browser in (dave, guest):
        browser.plant("session", alice.key("acme.portal.localhost"), "portal.localhost")
        browser.cookies.reverse()  # a longer path is sent first
    assert dave.get(tenant_url("acme", "/_portal/whoami")).json()["username"] == "dave"
    assert guest.get(tenant_url("acme", "/_portal/whoami")).status_code == 401
    guest.sign_in("dave", "gatehouse-demo", at="acme")
    assert guest.url == tenant_url("acme")
    assert guest.get(tenant_url("acme", "/_portal/whoami")).json()["username"] == "dave"
    assert alice.is_in("acme")


def test_two_live_cookies_without_a_browser_open_nothing_and_are_cleared(cast: dict[str, User], visitor: Open) -> None:
    alice, dave = visitor("alice", at="acme"), visitor("dave", at="acme")
    both = f"session={alice.key('acme.portal.localhost')}; session={dave.key('acme.portal.localhost')}"
    script = visitor()
    answer = script.client.get("/_portal/whoami", HTTP_HOST="acme.portal.localhost:8000", HTTP_COOKIE=both)
    assert answer.status_code == 401
    assert Event.objects.filter(kind="duplicate_cookie", tenant__slug="acme").count() == 1
    assert sum(morsel.key == "session" and morsel["max-age"] == 0 for morsel in answer.cookies.values()) == 3
    one = f"session={dave.key('acme.portal.localhost')}"
    assert script.client.get("/_portal/whoami", HTTP_HOST="acme.portal.localhost:8000", HTTP_COOKIE=one).status_code == 200


def test_two_hosts_of_one_cookie_domain_share_the_branch(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    from django.utils import timezone

    Host.objects.create(tenant=acme, name="id.acme.portal.localhost", approved_at=timezone.now())
    dave = visitor("dave", at="acme")
    branch = dave.session("acme").pk
    for _ in range(2):
        dave.get("http://id.acme.portal.localhost:8000/")
        assert dave.page.status_code == 200
        dave.get(tenant_url("acme"))
        assert len(dave.trail) == 1
    assert dave.session("acme").pk == branch
    assert Session.objects.filter(tenant=acme).count() == 1


def test_a_flood_of_planted_cookies_does_not_hide_ones_own(cast: dict[str, User], visitor: Open) -> None:
    """Browsers send longer paths first, so ours, with the path /, is among the last."""
    dave = visitor("dave", at="acme")
    own = dave.key("acme.portal.localhost")
    planted = [Cookie("session", new_key(), "portal.localhost", host_only=False) for _ in range(12)]
    dave.cookies = planted + dave.cookies
    assert dave.key("acme.portal.localhost") != own
    assert dave.is_in("acme")


@pytest.mark.asvs("3.3.3")
def test_helpers_are_host_only(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.post(tenant_url("acme", "/_portal/theme"), {"theme": "dark", "next": "/"}, follow=False)
    assert re.fullmatch(r"theme=dark; expires=[^;]+; HttpOnly; Max-Age=31536000; Path=/; SameSite=Lax", line(dave, "theme"))
    wide = [cookie.name for cookie in dave.cookies if not cookie.host_only]
    assert wide == [settings.TENANT_COOKIE_NAME]
