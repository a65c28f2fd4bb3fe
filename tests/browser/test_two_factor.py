"""A second factor on a phone's width: from the picture to the way in, with an app, a paper and a trusted browser."""

import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenWindow, over_http
from tests.browser.site import PASSWORD, Site
from tests.browser.test_pages import PHONE, SCHEMES, look_over
from tests.browser.window import Window, starts_with
from tests.conftest import missing
from tests.phone import PAGE, oathtool


def scanned(picture: Locator, folder: Path) -> str:
    """What a scanner that is not ours reads from the screen."""
    if not shutil.which("zbarimg"):
        missing("The picture is read by a scanner that is not ours: apt install zbar-tools")
    path = folder / "qr.png"
    picture.screenshot(path=path)
    return subprocess.run(["zbarimg", "--quiet", "--raw", str(path)], capture_output=True, text=True, check=True).stdout.strip()


def type_password(page: Page, name: str) -> None:
    page.get_by_label("Name or e-mail").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def on_a_phone(window: OpenWindow, **options: object) -> Window:
    return window(viewport=PHONE, has_touch=True, **options)


@pytest.mark.asvs("6.3.3")
def test_a_tenant_that_asks_leads_from_the_picture_to_the_way_in(site: Site, window: OpenWindow, tmp_path: Path) -> None:
    site.data("asks:globex")

    # Carol wants to go to Globex, which asks for a second factor. She scans the picture, types the code, keeps the paper.
    carol = on_a_phone(window)
    page = carol.page
    page.goto(site.url("globex"))
    type_password(page, "carol")
    expect(page).to_have_url(starts_with(site.url("login", PAGE)))
    expect(page.get_by_role("main")).to_contain_text("Globex asks for a second factor.")
    key = "".join((page.locator("#totp-key").text_content() or "").split())
    look_over(page)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert parse_qs(urlsplit(scanned(page.get_by_role("img", name="QR code"), tmp_path)).query)["secret"] == [key]
    href = page.get_by_role("link", name="Open the app on this phone").get_attribute("href") or ""
    assert parse_qs(urlsplit(href).query)["secret"] == [key]
    page.get_by_label("Six digits").fill("000000")
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_text("That code is not right")).to_be_visible()
    expect(page.get_by_label("Six digits")).to_be_focused()
    look_over(page)
    first = oathtool(key)
    page.keyboard.type(f"{first[:3]} {first[3:]}")
    page.keyboard.press("Enter")
    expect(page.locator("[data-recovery-code]")).to_have_count(10)
    look_over(page)
    codes = page.locator("[data-recovery-code]").all_text_contents()
    page.get_by_role("link", name="Continue to Globex").click()
    expect(page).to_have_url(site.url("globex"))

    # On another phone: the password, a code, and no code the next time.
    other = on_a_phone(window)
    page = other.page
    page.goto(site.url("globex"))
    type_password(page, "carol")
    expect(page.get_by_role("heading", level=1)).to_have_text("Enter your code")
    look_over(page)
    page.get_by_role("checkbox", name="Don’t ask for a code on this browser").check()
    other.type_code(oathtool(key, "30 seconds"))  # the next one: the first is used
    expect(page).to_have_url(site.url("globex"))
    page.goto(site.url("login", PAGE))
    expect(page.get_by_role("region", name="Trusted browsers")).to_contain_text("This browser")
    look_over(page)
    page.goto(site.url("login", "/logout/"))
    page.get_by_role("button", name="Sign out").click()
    page.goto(site.url("globex"))
    type_password(page, "carol")
    expect(page).to_have_url(site.url("globex"))

    # The phone is lost: a code from the paper, once.
    for good in (True, False):
        third = on_a_phone(window)
        page = third.page
        page.goto(site.url("globex"))
        type_password(page, "carol")
        page.get_by_role("link", name="Lost your phone?").click()
        expect(page.get_by_role("main")).to_contain_text("help@globex.example")
        look_over(page)
        page.get_by_label("Recovery code").fill(codes[6].upper())
        page.get_by_role("button", name="Continue").click()
        if good:
            expect(page).to_have_url(site.url("globex"))
        else:
            expect(page.get_by_text("That recovery code is not right, or it was used already.")).to_be_visible()
            look_over(page)


@over_http
def test_without_a_script_all_of_it_works_as_well(site: Site, window: OpenWindow) -> None:
    dave = on_a_phone(window, java_script_enabled=False)
    page = dave.page
    page.goto(site.url("login", "/login/"))
    type_password(page, "dave")
    page.goto(site.url("login", PAGE))
    key = "".join((page.locator("#totp-key").text_content() or "").split())
    expect(page.get_by_role("button", name="Copy the key")).to_be_hidden()
    page.get_by_label("Name for this authenticator").fill("Telefon")
    page.get_by_label("Six digits").fill(oathtool(key))
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("status").filter(has_text="Telefon is on.")).to_be_visible()
    expect(page.get_by_role("button", name="Print")).to_be_hidden()
    codes = page.locator("[data-recovery-code]").all_text_contents()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "gatehouse-recovery-codes-dave.txt"
    text = Path(download.value.path()).read_text()
    assert all(code in text for code in codes)

    other = on_a_phone(window, java_script_enabled=False)
    other.page.goto(site.url("login", "/login/"))
    type_password(other.page, "dave")
    other.page.get_by_role("button", name="Not dave? Start again").click()
    expect(other.page).to_have_url(site.url("login", "/login/"))
    type_password(other.page, "dave")
    other.page.get_by_role("checkbox").check()
    other.type_code(site.code("dave"))
    expect(other.page).to_have_url(site.url())
    other.page.goto(site.url("login", PAGE))
    other.page.get_by_role("button", name="Stop trusting").click()
    expect(other.page.get_by_role("status").filter(has_text="no longer trusted")).to_be_visible()

    page.goto(site.url("login", PAGE))
    page.get_by_role("link", name="Remove Telefon").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Remove “Telefon”?")
    page.get_by_role("button", name="Remove the authenticator").click()
    expect(page.get_by_role("status").filter(has_text="“Telefon” is removed.")).to_be_visible()
    other.page.reload()
    expect(other.page.get_by_role("heading", level=1)).to_have_text("You were signed out of Gatehouse")


@over_http
def test_the_codes_can_be_printed_and_the_key_copied(site: Site, window: OpenWindow) -> None:
    alice = window("alice", at="acme")
    alice.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = alice.page
    page.goto(site.url("login", PAGE))
    page.get_by_role("button", name="Copy the key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    key = page.evaluate("navigator.clipboard.readText()")
    assert key == page.locator("#totp-key").text_content()
    page.get_by_role("button", name="Show another key").click()
    expect(page.locator("#totp-key")).not_to_have_text(key)
    page.get_by_label("Six digits").fill(oathtool(page.locator("#totp-key").text_content() or ""))
    page.get_by_role("button", name="Turn it on").click()
    page.evaluate("window.print = () => { window.printed = true }")
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("window.printed") is True
    page.emulate_media(media="print")
    expect(page.locator("[data-recovery-code]").last).to_be_visible()
    for gone in (page.get_by_role("navigation"), page.get_by_role("button"), page.get_by_role("link", name="I have kept them")):
        expect(gone.first).to_be_hidden()
