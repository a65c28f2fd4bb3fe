"""From a warning in the mail to the last page, on a phone, with a real mail server between."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.site import PASSWORD, Plain, Site, assert_calm
from tests.browser.window import Window
from tests.sink import Sink, text_of

PHONE: ViewportSize = {"width": 390, "height": 844}
NEW = "four little words now"


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Site]:
    with Plain(tmp_path_factory.mktemp("mailing"), EMAIL_URL=sink.url) as running:
        yield running
        assert_calm(running)


def mailed(sink: Sink, path: str, to: str) -> str:
    """The link of that kind in the newest mail to somebody, once it is there."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for mail in reversed(sink.mails):
            if to in str(mail["To"]) and (found := re.search(rf"http://\S+/{path}/\S+", text_of(mail))):
                return found[0]
        time.sleep(0.1)
    raise TimeoutError(f"no mail with {path} to {to}: {[str(mail['Subject']) for mail in sink.mails]}")


def fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.url


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_sign_in_that_was_not_me_is_over_and_a_new_password_follows(chromium: Browser, site: Site, sink: Sink, scripts: bool) -> None:
    name = "dave" if scripts else "olivia"  # each of them once
    first, thief = Window(chromium, site), Window(chromium, site)
    first.sign_in(name)
    thief.sign_in(name)
    owner = Window(chromium, site, expects=(404,), viewport=PHONE, java_script_enabled=scripts)
    page = owner.page
    link = mailed(sink, "link/not-me", f"{name}@")
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This was not you?")
    fits(page)
    page.get_by_role("button", name="It was not me: end it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("That session is over")
    fits(page)
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link opens nothing any more")
    fits(page)
    thief.page.goto(site.url("login", "/account/"))
    expect(thief.page).to_have_url(re.compile("/login/"))
    page.goto(mailed(sink, "password/reset", f"{name}@"))
    page.locator("input[type=password]").first.fill(NEW)
    page.get_by_role("main").get_by_role("button", name=re.compile("password$")).last.click()
    page.goto(site.url("login", "/login/"))
    page.get_by_label("Name or e-mail").fill(name)
    page.get_by_label("Password", exact=True).fill(NEW)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(site.url())
    assert owner.close() == []
    first.close()
    thief.close()


def test_who_is_locked_out_opens_the_account_from_the_mail(chromium: Browser, site: Site, sink: Sink) -> None:
    carol = Window(chromium, site, viewport=PHONE)
    page = carol.page
    for _n in range(5):
        page.goto(site.url("login", "/login/"))
        page.get_by_label("Name or e-mail").fill("carol")
        page.get_by_label("Password", exact=True).fill("not the password")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("do not match")).to_be_visible()
    page.goto(mailed(sink, "link/unlock", "carol@"))
    fits(page)
    page.get_by_role("button", name="Open the account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account is open")
    fits(page)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Name or e-mail").fill("carol")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(site.url("globex"))
    assert carol.close() == []
