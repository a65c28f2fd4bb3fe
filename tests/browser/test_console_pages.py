"""People, groups, apps and the log on a phone, with scripts and without."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.window import Window

pytestmark = [over_http, pytest.mark.parametrize("script", [True, False])]


def at_console(window: OpenWindow, script: bool) -> tuple[Window, str]:
    """bob's phone, and where acme's console is."""
    bob = window("bob", at="acme", java_script_enabled=script, viewport={"width": 390, "height": 844})
    return bob, bob.site.url("login", "/console/acme")


def fits(page: Page) -> None:
    assert page.locator("html").evaluate("html => html.scrollWidth") <= 390, page.url


def test_an_admin_fills_a_group_and_lets_it_into_an_app(window: OpenWindow, script: bool) -> None:
    bob, console = at_console(window, script)
    page, group = bob.page, "Finance" if script else "Sales"
    page.goto(f"{console}/groups/")
    page.get_by_label("Name").fill(group)
    page.get_by_role("button", name="Add a group").click()
    page.get_by_label("Name or e-mail").fill("vance")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name="Put in Dave Vance").click()
    expect(page.get_by_text(f"Dave Vance is in {group} now.")).to_be_visible()
    page.goto(f"{console}/apps/add/")
    page.get_by_label("Name").fill(f"App of {group}")
    page.get_by_label("Host").fill(f"{group.lower()}.acme.portal.localhost")
    page.get_by_label("Only these").check()
    page.get_by_label(group).check()
    page.get_by_role("button", name="Add the app").click()
    expect(page.get_by_text(f"App of {group} is an app of Acme now.")).to_be_visible()
    fits(page)
    page.goto(f"{console}/groups/")
    page.get_by_role("link", name=f"Open {group}").click()
    page.get_by_role("button", name=f"Remove {group}").click()
    expect(page.get_by_role("heading", name=f"{group} is still needed")).to_be_visible()


def test_an_admin_ends_all_of_a_person_here(window: OpenWindow, script: bool) -> None:
    dave = window("dave", at="acme")
    bob, console = at_console(window, script)
    page = bob.page
    page.goto(f"{console}/people/?role=member")
    fits(page)
    page.get_by_role("link", name="Dave Vance").click()
    fits(page)
    page.get_by_role("button", name="End all sessions here").click()
    asked = page.get_by_role("dialog") if script else page.get_by_role("main")
    asked.get_by_label("Reason").fill("Laptop reported lost")
    asked.get_by_role("button", name=re.compile(r"^End \d+ session")).click()
    expect(page.get_by_text("Dave Vance: 1 session is over.")).to_be_visible()
    expect(page.get_by_role("heading", name="0 live sessions")).to_be_visible()
    dave.page.reload()
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Acme")


def test_an_admin_finds_an_event_checks_it_and_takes_a_copy(window: OpenWindow, script: bool) -> None:
    window("alice", at="acme")
    bob, console = at_console(window, script)
    page = bob.page
    page.goto(f"{console}/events/")
    page.get_by_label("Name or e-mail").fill("alice")
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("What").select_option("sessions")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page).to_have_url(re.compile(r"/events/\?person=alice&kind=sessions"))
    expect(page.locator("tr[data-event]").first).to_contain_text("Alice Keller")
    page.get_by_role("link", name="Check the events").click()
    expect(page.get_by_text("Every event on this page is as it was written.")).to_be_visible()
    fits(page)
    page.get_by_role("link", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert re.fullmatch(r"acme-events-[0-9-]+\.csv", download.value.suggested_filename)
    assert ",branch_opened,alice,alice," in Path(download.value.path()).read_text()
    page.goto(f"{console}/events/")
    page.locator("tr[data-event] a").first.click()
    expect(page.get_by_role("link", name="All events")).to_be_visible()
    fits(page)
