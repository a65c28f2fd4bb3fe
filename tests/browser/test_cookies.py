"""Cookies as a browser holds them, and what becomes of those that a sibling host plants."""

import re
import secrets
import time

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import OpenWindow
from tests.browser.site import Site
from tests.browser.window import SECONDS, Window, starts_with

DAY = 24 * 3600


@pytest.mark.asvs("3.3.1", "3.3.2", "3.3.3", "3.3.4")
def test_each_cookie_has_its_host_and_no_script_reads_any(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme")
    dave.page.wait_for_load_state("load")  # the script that sends the choice is at work
    with dave.page.expect_response("**/_portal/theme"):
        dave.page.get_by_text("Dark", exact=True).click()
    dave.page.reload()
    expect(dave.page.get_by_role("radio", name="Dark")).to_be_checked()
    login, acme, parent = f"login.{site.domain}", f"acme.{site.domain}", f".acme.{site.domain}"
    held = dave.cookies()
    assert set(held) == {
        (site.cookie("portal"), login),
        (site.cookie("device"), login),
        (site.cookie("csrf"), login),
        (site.cookie("session"), parent),
        (site.cookie("start"), acme),
        (site.cookie("csrf"), acme),
        (site.cookie("theme"), acme),
    }
    for cookie in held.values():
        assert (cookie["path"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == ("/", True, site.secure, "Lax"), cookie


@pytest.mark.parametrize(("remember", "days"), [(True, 14), (False, None)])
def test_only_a_remembered_browser_keeps_its_session_when_it_closes(
    site: Site, window: OpenWindow, remember: bool, days: int | None
) -> None:
    dave = window("dave", at="acme", remember=remember)
    for name, domain in (("portal", f"login.{site.domain}"), ("session", f".acme.{site.domain}")):
        expires = dave.cookies()[site.cookie(name), domain]["expires"]
        if days is None:
            assert expires == -1, name
        else:
            assert float(str(expires)) == pytest.approx(time.time() + days * DAY, abs=600), name


# --- Planted by an app of Globex, at the domain that all tenants share --------------------------------------------


def plant(victim: Window, *cookies: tuple[str, str, str]) -> None:
    """Let the browser visit a page of an app of Globex that sets cookies (name, value, path) for the whole domain."""
    site = victim.site
    victim.page.goto("about:blank")  # an open page would notice at a moment of its own
    page = victim.context.new_page()

    def answer(route: Route) -> None:
        secure = "; Secure" if site.secure else ""
        lines = [f"{name}={value}; Domain={site.domain}; Path={path}{secure}" for name, value, path in cookies]
        route.fulfill(status=200, headers={"Set-Cookie": "\n".join(lines), "Content-Type": "text/html"}, body="planted")

    page.route(starts_with(site.url("board.globex")), answer)
    page.goto(site.url("board.globex", "/plant"))
    page.close()


def test_a_planted_cookie_signs_nobody_out(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme")
    key = dave.cookie_value("session", f".acme.{site.domain}")
    name = site.cookie("session")
    plant(dave, *[(name, secrets.token_urlsafe(32), path) for path in ("/", "/_portal", "/_portal/whoami", "/welcome")], (name, "x", "/w"))
    assert (name, f".{site.domain}") in dave.cookies()
    for path in ("/", "/welcome/"):
        dave.page.goto(site.url("acme", path))
        expect(dave.page).to_have_url(site.url("acme", path))
        expect(dave.page.get_by_role("main")).to_contain_text("Dave")
    assert dave.page.evaluate("async () => (await (await fetch('/_portal/whoami')).json()).username") == "dave"
    assert dave.cookie_value("session", f".acme.{site.domain}") == key


@pytest.mark.parametrize("path", ["/", "/welcome"])
def test_a_planted_session_of_somebody_else_swaps_nobody(site: Site, window: OpenWindow, path: str) -> None:
    alice = window("alice", at="acme")
    planted = (site.cookie("session"), alice.cookie_value("session", f".acme.{site.domain}"), path)
    for name in ("Dave", "Guest"):
        victim = window("dave", at="acme") if name == "Dave" else window()
        plant(victim, planted)
        for _ in range(2):
            victim.page.goto(site.url("acme", "/welcome/"))
            expect(victim.page.get_by_role("heading", level=1)).to_have_text(f"Welcome, {name}")


@pytest.mark.parametrize("path", ["/", "/account"])
def test_a_session_planted_on_the_portal_swaps_nobody(site: Site, window: OpenWindow, path: str) -> None:
    carol = window("carol", at="globex")
    dave = window("dave")
    name, login = site.cookie("portal"), f"login.{site.domain}"
    plant(dave, (name, carol.cookie_value("portal", login), path))
    if site.secure:  # nobody sets a __Host- cookie for a domain
        assert (name, f".{site.domain}") not in dave.cookies()
    for _ in range(2):  # both at once open nothing; what is left must not be Carol's alone
        dave.page.goto(site.url("login", "/account/"))
        expect(dave.page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Sign in|Dave Vance"), timeout=5 * SECONDS)
    assert (name, f".{site.domain}") not in dave.cookies()
