"""Whoever signs out has left: every place, every tab, and the way back."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from tests.browser.conftest import OpenWindow
from tests.browser.site import Authority, Site
from tests.browser.window import Window, launch, starts_with


def look_at(page: Page) -> None:
    page.bring_to_front()
    page.evaluate("dispatchEvent(new Event('focus'))")


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize("host", ["acme", "login"])
def test_a_sign_out_on_any_host_ends_everything(site: Site, window: OpenWindow, host: str) -> None:
    dave = window("dave", at="acme")
    tabs = {"acme": dave.page, "globex": dave.tab("globex"), "login": dave.tab("login", "/account/sessions/")}
    page = tabs.pop(host)
    page.get_by_role("link", name="Sign out").first.click()
    expect(page.get_by_role("main")).to_contain_text("Acme, Globex")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    expect(page.get_by_role("main")).to_contain_text("Acme, Globex")

    for tab in tabs.values():
        look_at(tab)
        expect(tab).to_have_url(starts_with(site.url("login", "/login/")))
        expect(tab.get_by_label("Password", exact=True)).to_be_visible()
    for place in ("acme", "globex", "login"):
        page.goto(site.url(place))
        expect(page).to_have_url(starts_with(site.url("login", "/login/")))


def test_a_form_that_was_open_at_the_sign_out_does_nothing(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme", expects=(403,))
    profile = dave.tab("login", "/account/")
    profile.route("**/api/v1/session", lambda route: route.abort())  # the tab notices nothing
    dave.page.goto(site.url("acme", "/_portal/logout"))
    dave.page.get_by_role("button", name="Sign out").click()
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    profile.get_by_label("First name").fill("Davina")
    profile.get_by_role("button", name="Save", exact=True).click()
    expect(profile).to_have_url(starts_with(site.url("login", "/login/")))
    dave.wrong = [text for text in dave.wrong if "/api/v1/session" not in text]


# Playwright switches the back/forward cache off, people's browsers have it.
@pytest.fixture(scope="module")
def chromium_with_memory(playwright: Playwright, authority: Authority) -> Iterator[Browser]:
    with launch(playwright, authority, ignore_default_args=["--disable-back-forward-cache"]) as browser:
        yield browser


@pytest.mark.asvs("14.3.1")
@pytest.mark.parametrize("host", ["acme", "login"])
def test_the_back_button_shows_nothing_private_after_a_sign_out(chromium_with_memory: Browser, site: Site, host: str) -> None:
    dave = Window(chromium_with_memory, site)
    dave.sign_in("dave", at="acme")
    path = "/" if host == "acme" else "/account/sessions/"
    dave.page.goto(site.url(host, path))
    expect(dave.page.locator("body")).to_contain_text("dave")
    dave.page.get_by_role("link", name="Sign out").first.click()
    dave.page.get_by_role("button", name="Sign out").click()
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    for _ in range(3):  # to the question, to the page before it, to the one before that
        dave.page.evaluate("window.left = true; history.back()")
        dave.page.wait_for_function("() => !window.left && document.readyState === 'complete'")
        expect(dave.page.get_by_role("heading", level=1)).to_have_text(re.compile("^(You are signed out|Sign in)$"))
        expect(dave.page.locator("body")).not_to_contain_text(re.compile("dave", re.IGNORECASE))
    assert dave.close() == []
