"""The list of sessions as it is used: on a phone without scripts, and under a hand while it refreshes."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import Site

pytestmark = over_http

LIST = "/console/acme/sessions/"


def test_on_a_phone_without_script_filters_fold_and_end_what_matches(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme", java_script_enabled=False)
    alice = window("alice", at="acme", java_script_enabled=False)
    bob = window("bob", at="acme", java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = bob.page
    page.goto(site.url("login", LIST))
    expect(page.get_by_label("Factor")).not_to_be_visible()
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Role").select_option("Member")
    page.get_by_label("Name, e-mail or address").fill("dave")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("Filters (1)")).to_be_visible()
    rows = page.locator("tr[data-session]:not(.is-ended)")
    expect(rows.first).to_contain_text("Dave Vance")
    n = rows.count()

    page.get_by_role("button", name="End all that match").click()
    page.get_by_label("Reason").fill("Laptop reported lost")
    page.get_by_label("Type").fill(str(n))
    page.get_by_role("button", name="End", exact=False).last.click()
    expect(page.get_by_role("status").filter(has_text="of Dave Vance")).to_contain_text("Committed")
    page.get_by_role("link", name="Role: Member").click()
    expect(page.get_by_text("Filters", exact=True)).to_be_visible()
    dave.page.reload()
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Acme")
    alice.page.reload()
    expect(alice.page).to_have_url(site.url("acme"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.asvs("7.3.1")
def test_ticks_and_a_dialog_survive_what_the_page_hears(site: Site, window: OpenWindow) -> None:
    window("alice", at="acme")
    bob = window("bob", at="acme")
    page = bob.page
    page.goto(site.url("login", LIST))
    box = page.locator("tr[data-session]", has_text="Alice Keller").get_by_role("checkbox").first
    box.check()
    page.get_by_role("button", name="End session of Alice").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("half a rea")
    window("dave", at="acme")
    expect(page.locator(".news")).to_contain_text("1 new session")
    expect(dialog.get_by_label("Reason")).to_have_value("half a rea")
    expect(box).to_be_checked()
    dialog.get_by_role("link", name="Keep it").click()
    page.locator(".news").get_by_role("link", name="Show").click()
    expect(page.locator("tr[data-session]", has_text="Dave Vance").first).to_be_visible()
    expect(page.locator(".news")).to_have_count(0)


def test_everything_here_ends_in_a_dialog_and_the_own_browser_stays(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme")
    bob = window("bob", at="acme")
    page = bob.page
    page.goto(site.url("login", LIST))
    page.get_by_role("button", name="End everything here").click()
    dialog = page.get_by_role("dialog")
    n = dialog.locator("[name=shown]").get_attribute("value")
    dialog.get_by_label("Reason").fill("Incident")
    dialog.get_by_label("Type").fill("0")
    dialog.locator(".is-final").click()
    expect(dialog).to_contain_text("so that it is certain that you mean all of them")
    dialog.get_by_label("Type").fill(str(n))
    dialog.locator(".is-final").click()
    expect(page.locator("#proof")).to_contain_text("Committed")
    expect(dialog).not_to_be_visible()
    expect(page.locator("tr[data-session]:not(.is-ended)")).to_have_count(1)
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Acme")
