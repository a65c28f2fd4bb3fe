"""From a mail in a real mail server to the last page, on a phone: signing up, a forgotten password, another address and back."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.site import PASSWORD, Plain, Site, assert_calm
from tests.browser.test_warnings import NEW, PHONE, fits, mailed
from tests.browser.window import Window
from tests.sink import Sink


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Site]:
    with Plain(tmp_path_factory.mktemp("flows"), EMAIL_URL=sink.url, SIGNUP="open") as running:
        yield running
        assert_calm(running)


@pytest.fixture
def phone(chromium: Browser, site: Site) -> Iterator[Page]:
    """The only tab of a phone; what goes wrong in it fails the test. 404: a link that was used."""
    window = Window(chromium, site, expects=(404,), viewport=PHONE)
    yield window.page
    assert window.close() == []


def says(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    fits(page)


def sign_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name or e-mail").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_sign_up_leads_by_its_mail_to_a_proven_address(phone: Page, site: Site, sink: Sink) -> None:
    phone.goto(site.url("login", "/login/"))
    phone.get_by_role("link", name="Make one").click()
    phone.get_by_label("User name").fill("frank")
    phone.get_by_label("E-mail address").fill("frank@new.example")
    phone.get_by_label("Password", exact=True).fill(NEW)
    phone.get_by_role("button", name="Make the account").click()
    says(phone, "Look into your mail")
    phone.get_by_role("link", name="Sign in").click()
    sign_in(phone, "frank@new.example", NEW)
    expect(phone.get_by_text("do not match")).to_be_visible()  # nobody has proven the address yet
    link = mailed(sink, "link/verify", "frank@new.example")
    phone.goto(link)
    says(phone, "Is this address yours?")
    phone.get_by_role("main").get_by_role("button").click()
    says(phone, "Your address is proven")
    phone.get_by_role("link", name="Sign in").click()
    sign_in(phone, "frank@new.example", NEW)
    expect(phone).to_have_url(site.url("login", "/account/"))
    phone.goto(site.url())
    expect(phone.get_by_role("heading", name="No places yet")).to_be_visible()
    fits(phone)


def test_a_forgotten_password_is_replaced_once_and_the_second_factor_stays(phone: Page, site: Site, sink: Sink) -> None:
    phone.goto(site.url("login", "/login/"))
    phone.get_by_role("link", name="Forgot it?").click()
    phone.get_by_label("Name or e-mail").fill("erin")
    phone.get_by_role("button", name="Send the link").click()
    says(phone, "Look into your mail")
    link = mailed(sink, "password/reset", "erin@")
    phone.goto(link)
    says(phone, "Choose a new password")
    phone.get_by_label("New password", exact=True).fill("erin")
    phone.get_by_role("button", name="Set the new password").click()
    expect(phone.get_by_text("This is too short")).to_be_visible()  # and the link is still good
    phone.get_by_label("New password", exact=True).fill(NEW)
    phone.get_by_role("button", name="Set the new password").click()
    says(phone, "Your new password is set")
    phone.goto(link)
    says(phone, "This link opens nothing any more")
    phone.get_by_role("link", name="Sign in").click()
    sign_in(phone, "erin", NEW)
    says(phone, "Enter your code")
    phone.get_by_label("Code", exact=True).fill(site.code("erin"))
    phone.get_by_role("button", name="Continue").click()
    expect(phone).to_have_url(site.url())


def test_a_changed_address_is_taken_back_from_the_mail_to_the_old_one(phone: Page, chromium: Browser, site: Site, sink: Sink) -> None:
    thief = Window(chromium, site)
    thief.sign_in("alice", at="acme")
    thief.page.goto(site.url("login", "/account/email/"))
    thief.page.get_by_label("New address").fill("alice@thief.example")
    thief.page.get_by_role("button", name="Send the link").click()
    expect(thief.page.get_by_text("A mail is on its way to alice@thief.example")).to_be_visible()
    thief.page.goto(mailed(sink, "link/verify", "alice@thief.example"))
    thief.page.get_by_role("main").get_by_role("button").click()
    expect(thief.page.get_by_role("heading", level=1)).to_have_text("Your address is proven")

    phone.goto(mailed(sink, "link/take-back", "alice@acme.example"))
    says(phone, "Take your address back?")
    phone.get_by_role("button", name="Take the address back").click()
    says(phone, "The address is the account’s again")
    thief.page.goto(site.url("login", "/account/email/"))
    expect(thief.page.get_by_text("A link that was mailed to the owner of the account ended this session.")).to_be_visible()
    thief.page.get_by_role("link", name="Sign in again").click()
    sign_in(thief.page, "alice", PASSWORD)
    expect(thief.page.get_by_text("do not match")).to_be_visible()
    assert thief.close() == []

    phone.goto(mailed(sink, "password/reset", "alice@acme.example"))
    phone.get_by_label("New password", exact=True).fill(NEW)
    phone.get_by_role("button", name="Set the new password").click()
    says(phone, "Your new password is set")
    phone.get_by_role("link", name="Sign in").click()
    sign_in(phone, "alice@acme.example", NEW)
    expect(phone).to_have_url(re.compile(re.escape(site.url("acme"))))
