"""What is dangerous asks for a fresh proof first, and nothing that was ticked is lost on the way."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import PASSWORD, Site
from tests.browser.window import Window

pytestmark = over_http


def tick(window: Window, names: list[str]) -> list[str | None]:
    """Tick a live session of each of these people, and ask for their end; returns the ticked ids."""
    page = window.page
    page.goto(window.site.url("login", "/console/acme/sessions/"))
    rows = [page.locator("tr[data-session]:not(.is-ended)", has_text=name).first for name in names]
    for row in rows:
        row.get_by_role("checkbox").check()
    ids = [row.get_attribute("data-session") for row in rows]
    page.get_by_role("region", name="Ticked sessions").get_by_role("button", name="End ticked sessions").click()
    return ids


def ticked(where: Page | Locator) -> list[str | None]:
    return [field.get_attribute("value") for field in where.locator("input[name=ids]").all()]


@pytest.mark.asvs("7.5.3")
def test_in_the_dialog_the_ticks_stay(site: Site, window: OpenWindow) -> None:
    for name in ("alice", "dave"):
        window(name, at="acme")
    erin = window("erin")
    site.data("old-proofs")
    ids = tick(erin, ["Alice Keller", "Dave Vance"])
    dialog = erin.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Prove that it is you")
    expect(dialog).to_contain_text("You are about to end sessions of 2 people.")
    dialog.get_by_label("Password", exact=True).fill("not this one")
    dialog.get_by_label("Code", exact=True).fill("000000")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_text("That password is not right.")).to_be_visible()
    dialog.get_by_label("Password", exact=True).fill(PASSWORD)
    dialog.get_by_label("Code", exact=True).fill(site.code("erin"))
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_role("heading")).to_have_text("End 2 sessions of 2 people?")
    assert sorted(map(str, ticked(dialog))) == sorted(map(str, ids))
    dialog.get_by_label("Reason").fill("Suspicious sign-in")
    dialog.get_by_role("button", name="End 2 sessions").click()
    expect(erin.page.locator("#proof")).to_contain_text("2 sessions are over.")

    # The proof is fresh now: the next one asks for nothing. And a question can be left.
    window("alice", at="acme")
    window("dave", at="acme")
    tick(erin, ["Alice Keller", "Dave Vance"])
    expect(dialog.get_by_role("heading")).to_have_text("End 2 sessions of 2 people?")
    erin.page.keyboard.press("Escape")
    site.data("old-proofs")
    tick(erin, ["Alice Keller", "Dave Vance"])
    dialog.get_by_role("link", name="Not now").click()
    expect(dialog).to_be_hidden()


@pytest.mark.asvs("7.5.3")
def test_without_a_script_the_ticks_stay(site: Site, window: OpenWindow) -> None:
    for name in ("alice", "dave"):
        window(name, at="acme")
    bob = window("bob", at="acme", java_script_enabled=False)
    site.data("old-proofs")
    ids = tick(bob, ["Alice Keller", "Dave Vance"])
    page = bob.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Prove that it is you")
    expect(page.get_by_role("main")).to_contain_text("what you have filled in stays")
    page.get_by_label("Password", exact=True).fill("not this one")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("That password is not right.")).to_be_visible()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("End 2 sessions of 2 people?")
    assert sorted(map(str, ticked(page))) == sorted(map(str, ids))
    page.get_by_label("Reason").fill("Suspicious sign-in")
    page.get_by_role("button", name="End 2 sessions").click()
    expect(page.get_by_role("status").filter(has_text="2 sessions are over.")).to_be_visible()
