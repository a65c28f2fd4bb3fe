"""Invitations in a real browser: from the admin's pasted list by the mail to the place, on a phone and without a script."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import Site
from tests.browser.window import Window

PHONE: ViewportSize = {"width": 390, "height": 844}
SCHEMES: tuple[Literal["dark", "light"], ...] = ("dark", "light")
pytestmark = over_http


def fits(page: Page) -> None:
    """Nothing sticks out of a phone, light or dark."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), page.url


def mailed_link(reader: Window, site: Site, address: str) -> str:
    """What the mail to this address says to follow; it leaves within seconds."""
    page = reader.tab("login", "/outbox/")
    found: list[str] = []
    for _ in range(40):
        text = page.locator("main").inner_text()
        part = text.partition(address)[2]
        found = re.findall(r"http://\S+/invitation/[A-Za-z0-9_-]{43}/", part)
        if found:
            break
        page.wait_for_timeout(250)
        page.reload()
    page.close()
    assert found, f"no mail to {address} left"
    return found[0]


@pytest.mark.parametrize("script", [True, False])
def test_somebody_invited_signs_up_and_lands_in_the_tenant(site: Site, window: OpenWindow, script: bool) -> None:
    name = f"frank-{'with' if script else 'without'}"
    address = f"{name}@new.example"
    bob = window(viewport=PHONE, java_script_enabled=script)
    bob.sign_in("bob", at="acme")
    page = bob.page
    page.goto(site.url("login", "/console/acme/people/"))
    fits(page) if script else None
    page.get_by_role("link", name="Invite people").click()
    page.get_by_label("E-mail addresses").fill(f"{address}\nno-address")
    page.get_by_role("button", name="Send invitations").click()
    expect(page.get_by_role("heading", name="1 invitation sent")).to_be_visible()
    expect(page.get_by_label("E-mail addresses")).to_have_value("no-address")
    fits(page) if script else None

    frank = window(viewport=PHONE, java_script_enabled=script)
    link = mailed_link(bob, site, address)
    frank.page.goto(link)
    expect(frank.page.get_by_role("heading", name="Acme invites you")).to_be_visible()
    fits(frank.page) if script else None
    frank.page.get_by_label("User name").fill(name)
    frank.page.get_by_label("Password", exact=True).fill("three little words")
    frank.page.get_by_role("button", name="Make the account and accept").click()
    expect(frank.page).to_have_url(site.url("acme"))

    page.goto(site.url("login", "/console/acme/people/"))
    expect(page.locator(f"tr[data-person='{name}']")).to_contain_text("Signed in")


def test_a_member_is_blocked_and_removed_in_the_dialog(site: Site, window: OpenWindow) -> None:
    bob, dave = window(viewport=PHONE), window()
    dave.sign_in("dave", at="acme")
    bob.sign_in("bob", at="acme")
    page = bob.page
    page.goto(site.url("login", "/console/acme/people/"))
    page.locator("tr[data-person='dave']").get_by_role("button", name="Manage").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Dave Vance")).to_be_visible()
    dialog.get_by_role("button", name="End sessions and block").click()
    dialog.get_by_label("Reason").fill("Laptop reported lost")
    fits(page)
    dialog.get_by_role("button", name="Block Dave Vance").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#proof")).to_contain_text("Dave Vance is blocked here until you lift it. 1 session is over.")
    expect(page.locator("tr[data-person='dave']")).to_contain_text("Blocked")
    expect(dave.page.get_by_role("heading", name="You were signed out of Acme")).to_be_visible()

    page.locator("tr[data-person='dave']").get_by_role("button", name="Manage").click()
    dialog.get_by_role("button", name="Lift the block").click()
    expect(page.locator("#proof")).to_contain_text("may come in again")
    page.locator("tr[data-person='dave']").get_by_role("button", name="Manage").click()
    dialog.get_by_role("button", name="Remove from Acme").click()
    dialog.get_by_label("Reason").fill("Left the company")
    dialog.get_by_role("button", name="Remove Dave Vance").click()
    expect(page.locator("tr[data-person='dave']")).to_have_count(0)
