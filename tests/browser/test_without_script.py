"""Every job works with scripts switched off."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import Site

pytestmark = over_http


@pytest.mark.asvs("3.7.5")
def test_bob_ends_a_session_through_the_confirmation_page(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme", java_script_enabled=False)
    bob = window("bob", at="acme", java_script_enabled=False)
    bob.page.goto(site.url("login", "/console/acme/sessions/"))
    row = bob.page.locator("tr[data-session]", has_text="Dave Vance").first
    session = row.get_attribute("data-session")
    row.get_by_role("button", name="End session").click()
    expect(bob.page.get_by_role("heading", level=1)).to_have_text("End this session of Dave Vance?")

    # It can be left without an end.
    bob.page.get_by_role("link", name="Keep it").click()
    expect(row).not_to_contain_text("Ended")
    row.get_by_role("button", name="End session").click()
    bob.page.get_by_label("Reason").fill("Left the company")
    bob.page.get_by_role("button", name="End session").click()

    expect(bob.page).to_have_url(site.url("login", "/console/acme/sessions/"))
    expect(bob.page.get_by_role("status").filter(has_text="1 session of Dave Vance is over.")).to_be_visible()
    expect(bob.page.locator(f"tr[data-session='{session}']")).to_contain_text("Ended by bob, just now")

    dave.page.reload()
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Acme")
    expect(dave.page.get_by_role("main")).to_contain_text("Left the company")


def test_bob_ends_several_ticked_sessions(site: Site, window: OpenWindow) -> None:
    for _ in range(2):
        window("alice", at="acme", java_script_enabled=False)
    bob = window("bob", at="acme", java_script_enabled=False)
    bob.page.goto(site.url("login", "/console/acme/sessions/?q=alice"))
    rows = bob.page.locator("tr[data-session]:not(.is-ended)", has_text="Alice Keller")
    expect(rows).to_have_count(2)
    for box in rows.get_by_role("checkbox").all():
        box.check()
    bob.page.get_by_role("region", name="Ticked sessions").get_by_role("button", name="End ticked sessions").click()
    bob.page.get_by_label("Reason").fill("Suspicious sign-in")
    bob.page.get_by_role("button", name="End 2 sessions").click()
    expect(bob.page.get_by_role("status").filter(has_text="2 sessions of Alice Keller are over.")).to_be_visible()


@pytest.mark.asvs("3.7.5")
def test_dave_ends_his_other_browser_and_one_of_his_branches(site: Site, window: OpenWindow) -> None:
    other = window("dave", at="globex", java_script_enabled=False)
    dave = window("dave", at="acme", java_script_enabled=False)
    dave.page.goto(site.url("login", "/account/sessions/"))
    dave.page.locator("li.branch", has_text="Acme").get_by_role("button", name="End session").first.click()
    dave.page.get_by_role("button", name="End session").click()
    expect(dave.page.locator("li.branch.is-ended", has_text="Acme").first).to_contain_text("Ended by dave")

    dave.page.get_by_role("button", name="End all others").click()
    dave.page.get_by_role("button", name="End").click()
    expect(dave.page.locator("li.knot")).to_have_count(1)
    other.page.reload()
    expect(other.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Globex")


def test_the_appearance_is_chosen_by_a_button_and_kept(site: Site, window: OpenWindow) -> None:
    dave = window(java_script_enabled=False)
    for host, path in (("login", "/login/"), ("acme", "/welcome/")):
        dave.page.goto(site.url(host, path))
        dave.page.get_by_role("radio", name="Dark").check()
        dave.page.locator("form", has=dave.page.get_by_role("radio", name="Dark")).get_by_role("button").click()
        expect(dave.page).to_have_url(site.url(host, path))
        expect(dave.page.locator("html")).to_have_attribute("data-theme", "dark")
        dave.page.reload()
        expect(dave.page.get_by_role("radio", name="Dark")).to_be_checked()
