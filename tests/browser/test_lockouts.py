"""An admin opens what somebody's guesses have shut, in the dialog or without any script."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.window import Window

pytestmark = over_http


def lock_out(stranger: Window, name: str) -> None:
    for _ in range(5):
        stranger.page.goto(stranger.site.url("login", "/login/"))
        stranger.page.fill("#username", name)
        stranger.page.fill("#password", "not this one")
        stranger.page.keyboard.press("Enter")
        expect(stranger.page.get_by_text("do not match")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_an_admin_releases_a_member_with_a_reason(window: OpenWindow, script: bool) -> None:
    lock_out(window(), "alice")
    bob = window("bob", at="acme", java_script_enabled=script)
    page = bob.page
    page.goto(bob.site.url("login", "/console/acme/lockouts/"))
    row = page.locator("tr[data-lockout=alice]")
    expect(row).to_contain_text("Password, on browsers that are not known")
    row.get_by_role("button", name="Release").click()
    asked = page.get_by_role("dialog") if script else page.get_by_role("main")
    expect(asked.get_by_role("heading")).to_have_text("Release Alice Keller?")
    expect(asked.get_by_role("link", name="Keep it locked")).to_be_focused()
    asked.get_by_label("Reason").fill("Stands beside me")
    asked.get_by_role("button", name="Release Alice Keller").click()
    expect(page.get_by_text("Alice Keller may try again at once.")).to_be_visible()
    expect(page.get_by_role("heading", name="Nobody is locked out")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    window("alice", at="acme")  # gets in
