"""Every page on a phone, light and dark: nothing forbidden, nothing foreign, nothing kept, nothing sticks out.

That no page breaks the content security policy, fails to load something or asks another host is noticed by Window, everywhere.
"""

from typing import Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import Site
from tests.browser.window import Window, keeps_nothing

PHONE: ViewportSize = {"width": 390, "height": 844}
SCHEMES: tuple[Literal["dark", "light"], ...] = ("dark", "light")

GUEST = [
    ("login", "/login/"),
    ("login", "/signup/"),
    ("login", "/password/forgot/"),
    ("login", "/password/reset/done/"),
    ("login", f"/password/reset/{'x' * 43}/"),
    ("login", f"/invitation/{'x' * 43}/"),
    ("login", "/logout/"),
    ("login", "/no/such/page"),
    ("login", "/login/?next=%00"),
    ("acme", "/"),
    ("acme", "/welcome/"),
    ("acme", "/_portal/finish"),
    ("globex", "/"),
    ("nobody", "/"),
    ("wiki.acme", "/"),
]
DAVE = [
    ("login", "/"),
    ("login", "/account/"),
    ("login", "/account/password/"),
    ("login", "/account/password/done/"),
    ("login", "/account/sessions/"),
    ("login", "/account/two-factor/"),
    ("login", "/console/"),
    ("login", "/step-up/?next=/account/"),
    ("login", "/enter/nobody/"),
    ("login", "/logout/"),
    ("acme", "/"),
    ("acme", "/welcome/"),
    ("acme", "/_portal/logout"),
    ("globex", "/"),
]
ERIN = [
    ("login", "/account/two-factor/"),
    ("login", "/account/two-factor/add/"),
    ("login", "/account/two-factor/codes/"),
    ("login", "/step-up/?next=/account/two-factor/"),
    ("login", "/console/"),
    ("login", "/console/acme/lockouts/"),
    ("login", "/console/platform/lockouts/"),
    ("login", "/console/platform/lockouts/?q=nobody"),
    ("login", "/console/platform/lockouts/?part=addresses"),
    ("login", "/console/platform/factors/"),
    ("login", "/console/platform/tenants/"),
    ("login", "/console/platform/tenants/?q=nobody&state=frozen"),
    ("login", "/console/platform/tenants/add"),
    ("login", "/console/platform/tenants/acme/"),
    ("login", "/console/platform/accounts/"),
    ("login", "/console/platform/accounts/?which=password&sort=new"),
    ("login", "/console/platform/accounts/1/"),
    ("login", "/console/platform/sessions/"),
    ("login", "/console/platform/sessions/?q=nobody"),
]
OLIVIA = [
    ("login", "/"),
    ("login", "/console/"),
    ("login", "/console/acme/"),
    ("login", "/console/acme/panic/"),
    ("login", "/console/acme/sessions/"),
    ("login", "/console/acme/sessions/?q=mei&sort=person"),
    ("login", "/console/acme/sessions/?q=nobody"),
    ("login", "/console/acme/sessions/?state=ended"),
    ("login", "/console/globex/sessions/?state=ended"),
    ("login", "/console/acme/lockouts/"),
    ("login", "/console/acme/people/"),
    ("login", "/console/acme/people/?q=nobody"),
    ("login", "/console/acme/people/?state=invited"),
    ("login", "/console/acme/people/?state=waiting"),
    ("login", "/console/acme/people/invite/"),
]


@pytest.fixture(scope="module", autouse=True)
def crowd(site: Site) -> None:
    site.data("crowd", "long-names")


def look_over(page: Page) -> None:
    """Nothing is wider than the window, in light and dark, and nothing stays in the browser."""
    keeps_nothing(page)
    page.set_viewport_size(PHONE)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], f"{page.url} is {width} px wide in a window of {PHONE['width']} px ({scheme})"


def visit(window: Window, pages: list[tuple[str, str]]) -> None:
    for host, path in pages:
        window.page.goto(window.site.url(host, path))
        expect(window.page.get_by_role("heading", level=1)).to_have_count(1)
        look_over(window.page)


@pytest.mark.asvs("3.6.1", "14.2.3", "14.3.3")
def test_what_a_guest_sees(site: Site, window: OpenWindow) -> None:
    visit(window(expects=(400, 403, 404)), GUEST)


@pytest.mark.asvs("3.6.1", "14.2.3", "14.3.3")
def test_what_dave_sees(site: Site, window: OpenWindow) -> None:
    visit(window("dave", at="acme", expects=(403,)), DAVE)


@pytest.mark.asvs("3.6.1", "14.2.3", "14.3.3")
def test_what_erin_sees_of_her_second_factor(site: Site, window: OpenWindow) -> None:
    visit(window("erin"), ERIN)


@pytest.mark.asvs("3.6.1", "14.2.3", "14.3.3")
def test_what_olivia_sees_in_the_console(site: Site, window: OpenWindow) -> None:
    visit(window("olivia", at="acme"), OLIVIA)


@pytest.mark.asvs("14.3.3")
@over_http
def test_the_console_filters_and_asks_without_a_trace(site: Site, window: OpenWindow) -> None:
    olivia = window("olivia", at="acme", viewport=PHONE)
    page = olivia.page
    page.goto(site.url("login", "/console/acme/sessions/"))
    rows = page.locator("tr[data-session]:not(.is-ended)")
    everybody = rows.count()
    page.get_by_role("searchbox").fill("mei")
    page.get_by_role("button", name="Search").click()
    expect(rows).to_have_count(2)
    assert "q=mei" in page.url
    look_over(page)
    rows.first.get_by_role("button", name="End session").click()
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_be_visible()
    look_over(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    rows.first.get_by_role("checkbox").check()
    page.locator("form.ticking").evaluate("form => form.submit()")  # as without a script: the whole page
    expect(page.get_by_role("heading", level=1)).to_contain_text("End this session of Mei Tanaka?")
    look_over(page)
    page.go_back()
    expect(rows).to_have_count(2)
    page.evaluate("history.back()")
    expect(rows).to_have_count(everybody)


def test_the_pages_of_what_went_wrong(site: Site, window: OpenWindow) -> None:
    dave = window("dave", at="acme", expects=(403, 409))
    page = dave.page

    # His cookie of Acme is lost again and again: no endless circle, but a page that says what to do.
    for _ in range(4):
        page.goto("about:blank")  # an open page would notice the loss and leave by itself
        dave.context.clear_cookies(name=site.cookie("session"))
        page.goto(site.url("acme"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Your sign-in does not hold here")
    look_over(page)

    page.goto(site.url("login", "/account/"))
    page.locator("main [name=csrfmiddlewaretoken]").first.evaluate("field => { field.value = 'x' }")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This form can no longer be sent")
    look_over(page)

    page.goto(site.url("login", "/account/sessions/"))
    page.locator("li.branch").first.get_by_role("button", name="End session").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("End this session?")
    look_over(page)
    page.get_by_role("button", name="End session").click()
    page.goto(site.url("acme"))
    page.goto(site.url("globex"))
    look_over(page)


@over_http
def test_a_sign_in_that_fails_says_one_sentence(site: Site, window: OpenWindow) -> None:
    guest = window(viewport=PHONE)
    guest.page.goto(site.url("acme"))
    guest.page.get_by_label("Name or e-mail").fill("dave")
    guest.page.get_by_label("Password", exact=True).fill("not this one")
    guest.page.get_by_role("button", name="Sign in").click()
    expect(guest.page.get_by_text("That name and password do not match.")).to_be_visible()
    look_over(guest.page)


@pytest.mark.asvs("3.4.3")
@over_http
def test_a_script_that_the_policy_forbids_would_be_noticed(site: Site, window: OpenWindow) -> None:
    """The watch itself: without it the promise of this file would be empty."""
    guest = window()
    guest.page.goto(site.url("login", "/login/"))
    guest.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    guest.page.evaluate("fetch('http://example.com/').catch(() => 0)")
    assert guest.page.evaluate("window.ran") is None
    guest.page.evaluate("setTimeout(() => { throw new Error('broken') })")
    guest.page.wait_for_function("() => true")
    for word in ("script-src", "connect-src", "broken"):
        assert any(word in text for text in guest.wrong), (word, guest.wrong)
    guest.wrong.clear()
