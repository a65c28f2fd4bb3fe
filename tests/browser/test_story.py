"""The main job, from end to end, in Chromium."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenWindow
from tests.browser.site import PASSWORD, Site
from tests.browser.window import SECONDS, starts_with


@pytest.mark.asvs("7.4.5")
def test_dave_signs_in_once_and_bob_ends_his_session_at_acme(site: Site, window: OpenWindow) -> None:
    # Dave signs in once, at Acme, and Globex opens without a second password.
    dave = window("dave", at="acme")
    at_acme = dave.page
    expect(at_acme.get_by_role("heading", level=1)).to_contain_text("Dave")
    at_globex = dave.tab("globex")
    expect(at_globex).to_have_url(site.url("globex"))
    expect(at_globex.get_by_role("heading", level=1)).to_contain_text("Dave")
    assert len(dave.asked("POST", "/login/")) == 1
    mine = dave.tab("login", "/account/sessions/")
    session = mine.locator("li.branch", has_text="Acme").get_attribute("data-session")
    forgetful = dave.context.new_page()  # a second tab at Acme, whose clock stands still: it never asks by itself
    forgetful.add_init_script("window.setInterval = () => 0")
    forgetful.goto(site.url("acme", "/welcome/"))

    # Bob finds it in the console and ends it, with a reason.
    bob = window("bob", at="acme")
    bob.page.get_by_role("link", name="Console").click()
    expect(bob.page).to_have_url(site.url("login", "/console/acme/"))
    bob.page.get_by_role("navigation", name="Console").get_by_role("link", name="Sessions").click()
    expect(bob.page).to_have_url(site.url("login", "/console/acme/sessions/"))
    bob.page.evaluate("window.sameDocument = true")
    row = bob.page.locator(f"tr[data-session='{session}']")
    expect(row).to_contain_text("Dave Vance")
    row.get_by_role("button", name="End session").click()
    dialog = bob.page.get_by_role("dialog")
    expect(dialog).to_contain_text("End this session of Dave Vance?")
    expect(row).not_to_contain_text("Ended")
    dialog.get_by_label("Reason").fill("Laptop reported lost")
    dialog.get_by_role("button", name="End session").click()

    # The row changes in place.
    expect(row).to_contain_text("Ended by bob, just now")
    expect(row).to_contain_text("Laptop reported lost")
    expect(row.get_by_role("button")).to_have_count(0)
    expect(dialog).to_be_hidden()
    expect(bob.page.locator("#proof")).to_contain_text("1 session of Dave Vance is over.")
    assert bob.page.evaluate("window.sameDocument") is True

    # Dave's open tab says who and why, within 5 seconds (and 3 for a machine that is busy); the other one when it is looked at.
    over = "You were signed out of Acme"
    expect(at_acme.get_by_role("heading", name=over)).to_be_visible(timeout=8 * SECONDS)
    expect(at_acme.get_by_role("main")).to_contain_text("Bob Marsh, admin of Acme")
    expect(at_acme.get_by_role("main")).to_contain_text("Laptop reported lost")
    expect(at_acme.get_by_role("main")).to_contain_text("Globex")
    expect(forgetful).to_have_url(site.url("acme", "/welcome/"))
    forgetful.evaluate("dispatchEvent(new Event('focus'))")
    expect(forgetful.get_by_role("heading", name=over)).to_be_visible()

    # Globex stays. Acme asks for a fresh proof, then it opens.
    at_globex.reload()
    expect(at_globex).to_have_url(site.url("globex"))
    at_acme.get_by_role("link", name="Sign in to Acme again").click()
    expect(at_acme).to_have_url(starts_with(site.url("login", "/step-up/")))
    expect(at_acme.get_by_role("main")).to_contain_text("Acme asks for a fresh proof")
    at_acme.get_by_label("Password", exact=True).fill(PASSWORD)
    at_acme.get_by_role("button", name="Continue").click()
    expect(at_acme).to_have_url(site.url("acme"))
    expect(at_acme.get_by_role("heading", level=1)).to_have_text(re.compile(r"Good \w+, Dave"))
    assert len(dave.asked("POST", "/login/")) == 1
