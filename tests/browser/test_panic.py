"""In an emergency, on a phone: freeze sign-ins, see who is kept out, and lift it again with one click."""

import pytest
from playwright.sync_api import ViewportSize, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import Site

pytestmark = over_http
PHONE: ViewportSize = {"width": 390, "height": 844}
WHY = "Somebody is guessing passwords"


@pytest.mark.parametrize("script", [True, False])
def test_bob_freezes_acme_on_a_phone_and_olivia_lifts_it(site: Site, window: OpenWindow, script: bool) -> None:
    bob = window("bob", at="acme", java_script_enabled=script, viewport=PHONE, expects=(403,))
    dave = window("dave", java_script_enabled=script, expects=(403,))
    page = bob.page
    page.goto(site.url("login", "/console/acme/"))
    page.get_by_role("link", name="Emergency…").click()
    page.get_by_role("button", name="Freeze sign-ins…").click()
    asked = page.get_by_role("dialog") if script else page.get_by_role("main")
    expect(asked.get_by_role("heading")).to_have_text("Freeze sign-ins at Acme?")
    expect(asked.get_by_role("link", name="Leave it open")).to_be_focused()
    asked.get_by_label("Reason").fill(WHY)
    asked.get_by_role("button", name="Freeze sign-ins").click()
    expect(page.get_by_role("region", name="Sign-ins are frozen")).to_contain_text(f"by Bob Marsh. “{WHY}”")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]

    dave.page.goto(site.url("acme"))
    expect(dave.page.get_by_role("heading", level=1)).to_have_text("Nobody new can enter Acme right now")
    page.goto(site.url("acme"))  # who is in goes on
    expect(page).to_have_url(site.url("acme"))

    olivia = window("olivia", java_script_enabled=script, viewport=PHONE)
    olivia.page.goto(site.url("login", "/console/acme/people/"))
    olivia.page.get_by_role("button", name="Lift the freeze").click()
    expect(olivia.page).to_have_url(site.url("login", "/console/acme/people/"))
    expect(olivia.page.get_by_text("The freeze is lifted: people come in again.")).to_be_visible()
    expect(olivia.page.get_by_role("region", name="Sign-ins are frozen")).to_have_count(0)
    dave.page.goto(site.url("acme"))
    expect(dave.page).to_have_url(site.url("acme"))


def test_the_numbers_of_a_chart_are_a_table_too(site: Site, window: OpenWindow) -> None:
    window("dave", at="acme")
    bob = window("bob", at="acme", viewport=PHONE)
    page = bob.page
    page.goto(site.url("login", "/console/acme/"))
    day = page.get_by_role("region", name="The last 24 hours", exact=True)
    expect(day.get_by_role("table")).to_be_hidden()
    day.get_by_text("The numbers as a table").click()
    expect(day.get_by_role("table").get_by_role("row")).to_have_count(25)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("link", name="Live sessions").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
