"""The keyboard alone: a person who has no mouse signs in, ends a session with a reason, and closes what has opened."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import PASSWORD, Site

pytestmark = over_http

# What has the focus, and whether it can be seen: an outline or a shadow that it has because of the focus, inside of the window.
FOCUS = """() => {
  const it = document.activeElement;
  if (!it || it === document.body) return {what: "nothing", seen: false};
  let seen = false;
  for (const each of [it, it.closest("label"), it.nextElementSibling]) {
    if (!each) continue;
    const style = getComputedStyle(each);
    if ((style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none") seen = true;
  }
  const box = it.getBoundingClientRect();
  const inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return {what: it.tagName + " " + (it.textContent || it.name || "").trim().slice(0, 60), seen: seen && inside};
}"""


def press(page: Page, key: str) -> str:
    """One key; afterwards something has the focus and shows it. Returns what."""
    page.keyboard.press(key)
    focus = page.evaluate(FOCUS)
    assert focus["seen"], f"{key} on {page.url} leads to {focus['what']}, and nobody can see that"
    return str(focus["what"])


def tab_to(page: Page, wanted: Locator, *, key: str = "Tab", most: int = 60) -> None:
    for _ in range(most):
        if wanted.evaluate("it => it === document.activeElement"):
            return
        press(page, key)
    raise AssertionError(f"{most} times {key}, and {wanted} was not reached")


def test_a_session_is_ended_without_a_mouse(site: Site, window: OpenWindow) -> None:
    dave, bob = window("dave", at="acme"), window()
    page = bob.page
    page.goto(site.url("login", "/login/?next=/console/acme/sessions/"))
    tab_to(page, page.get_by_label("Name or e-mail"))
    page.keyboard.type("bob")
    tab_to(page, page.get_by_label("Password", exact=True))
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(site.url("login", "/console/acme/sessions/"))

    # The first stop of a page leads past what is the same on every page.
    assert "Skip to the content" in press(page, "Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))

    end = page.locator("tr[data-session]", has_text="Dave Vance").first.get_by_role("button", name="End session")
    tab_to(page, end)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Reason")
    expect(reason).to_be_visible()

    # Escape closes it, and the focus is where it was; so does the button that leaves everything as it is.
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(end).to_be_focused()
    page.keyboard.press("Space")
    expect(reason).to_be_visible()
    tab_to(page, dialog.get_by_text("Keep it"))
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(end).to_be_focused()

    # While it is open, the focus stays in it.
    page.keyboard.press("Enter")
    expect(reason).to_be_visible()
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    tab_to(page, reason, key="Shift+Tab")
    page.keyboard.type("Left the company")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("tr[data-session]", has_text="Dave Vance").first).to_contain_text("Ended by bob, just now")
    assert press(page, "Tab") != "nothing"  # whoever goes on is not sent back to the top of the page

    expect(dave.page.get_by_role("heading", name="You were signed out of Acme")).to_be_visible()


def test_ticked_sessions_are_asked_about_without_a_mouse(site: Site, window: OpenWindow) -> None:
    window("alice", at="acme")
    page = window("bob", at="acme").page
    page.goto(site.url("login", "/console/acme/sessions/"))
    row = page.locator("tr[data-session]", has_text="Alice Keller").first
    tab_to(page, row.get_by_role("checkbox"))
    page.keyboard.press("Space")
    expect(row.get_by_role("checkbox")).to_be_checked()
    many = page.get_by_role("region", name="Ticked sessions").get_by_role("button", name="End ticked sessions")
    tab_to(page, many)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_be_visible()
    page.keyboard.press("Escape")
    expect(many).to_be_focused()
