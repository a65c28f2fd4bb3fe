"""Passwords can be looked at, pasted and filled in by a manager."""

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import PASSWORD, Site

pytestmark = over_http
PHONE: ViewportSize = {"width": 390, "height": 844}
CARET = "field => [field.selectionStart, field.selectionEnd, field === document.activeElement]"


def test_a_password_is_shown_and_hidden_without_losing_the_place(site: Site, window: OpenWindow) -> None:
    page = window().page
    page.goto(site.url("login", "/login/"))
    field, button = page.get_by_label("Password", exact=True), page.get_by_role("button", name="Show Password")
    field.fill("three little words")
    field.evaluate("field => field.setSelectionRange(3, 7)")
    for shown in (True, False):
        button.click()
        expect(field).to_have_attribute("type", "text" if shown else "password")
        expect(button).to_have_attribute("aria-pressed", "true" if shown else "false")
        assert field.evaluate(CARET) == [3, 7, True]
    page.keyboard.type("X")
    expect(field).to_have_value("thrXittle words")

    # With keys alone: the button keeps the focus, so that the same key hides it again.
    for shown in (True, False):
        button.focus() if shown else None
        page.keyboard.press("Space")
        expect(field).to_have_attribute("type", "text" if shown else "password")
        expect(button).to_be_focused()
    expect(page).to_have_url(site.url("login", "/login/"))


def test_a_shown_password_is_hidden_before_it_is_sent(site: Site, window: OpenWindow) -> None:
    dave = window()
    page = dave.page
    page.goto(site.url("login", "/login/"))
    page.get_by_label("Name or e-mail").fill("dave")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show Password").click()
    types: list[str] = []
    page.expose_function("note", lambda kind: types.append(kind))
    page.evaluate("addEventListener('formdata', () => note(document.getElementById('password').type))")
    page.get_by_label("Password", exact=True).press("Enter")
    expect(page).to_have_url(site.url())
    assert set(types) == {"password"}


@pytest.mark.asvs("6.2.7")
def test_a_password_can_be_pasted_into_every_field(site: Site, window: OpenWindow) -> None:
    dave = window("dave", permissions=["clipboard-read", "clipboard-write"])
    page = dave.page
    page.goto(site.url("login", "/account/password/"))
    secret = " pasted: Pässwörd, with spaces " * 200
    page.evaluate("text => navigator.clipboard.writeText(text)", secret)
    for label in ("Current password", "New password", "New password again"):
        page.get_by_label(label, exact=True).focus()
        page.keyboard.press("Control+v")
        expect(page.get_by_label(label, exact=True)).to_have_value(secret)  # whole, although it is too long: the page says so
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("main")).to_contain_text("A password has at most 4096 characters.")


def test_a_finger_finds_the_button(site: Site, window: OpenWindow) -> None:
    dave = window("dave", viewport=PHONE)
    for path in ("/account/password/", "/step-up/"):
        dave.page.goto(site.url("login", path))
        buttons = dave.page.locator("[data-shows]")
        assert buttons.count()
        for box in (button.bounding_box() for button in buttons.all()):
            assert box
            assert min(box["width"], box["height"]) >= 44


def test_there_is_no_such_button_without_scripts(site: Site, window: OpenWindow) -> None:
    page: Page = window(java_script_enabled=False).page
    page.goto(site.url("login", "/login/"))
    expect(page.get_by_role("main").get_by_role("button")).to_have_text(["Sign in"])
