"""The pictures of the README, taken from the running product: `make shots` writes them into tests/browser/shots/."""

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.browser.agents import CHROME_WINDOWS, FIREFOX_LINUX, IPHONE, SAFARI_MAC
from tests.browser.site import PASSWORD, Authority, Plain, Site
from tests.browser.window import Window, launch

FOLDER = Path(__file__).with_suffix("")
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
TALL: ViewportSize = {"width": 1280, "height": 1020}
PHONE: ViewportSize = {"width": 390, "height": 844}
LETTER: ViewportSize = {"width": 720, "height": 620}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gatehouse-shots-") as name, sync_playwright() as playwright:
        folder = Path(name)
        # Believed from this machine, so that the pictures show addresses of the documentation networks.
        with Plain(folder, TRUSTED_PROXIES="127.0.0.1") as site, launch(playwright, Authority(folder)) as chromium:
            site.data("month")
            tell_the_story(chromium, site)


def tell_the_story(chromium: Browser, site: Site) -> None:
    dave = open_window(chromium, site, FIREFOX_LINUX, "203.0.113.40")
    dave.page.goto(site.url("acme"))
    dave.page.get_by_label("Name or e-mail").fill("dave")
    dave.page.get_by_label("Password", exact=True).fill(PASSWORD)
    take(dave.page, "sign-in")
    dave.page.get_by_role("button", name="Sign in").click()
    expect(dave.page).to_have_url(site.url("acme"))
    page = dave.tab("login", "/account/")
    take(page, "account-phone", size=PHONE)
    page.close()

    bob = open_window(chromium, site, CHROME_WINDOWS, "203.0.113.9")
    bob.sign_in("bob", at="acme")
    console(bob, "acme/")
    take(bob.page, "overview", size=TALL)
    take(bob.page, "overview-dark", size=TALL, scheme="dark")
    console(bob, "acme/sessions/?factor=pwd&role=member")
    bob.page.set_viewport_size(PHONE)
    bob.page.get_by_text("Filters (2)").click()
    take(bob.page, "sessions-phone", size=PHONE)
    end_a_session(bob, dave)
    guest = open_window(chromium, site, IPHONE, "198.51.100.29")
    invite(bob, guest)

    olivia = open_window(chromium, site, SAFARI_MAC, "203.0.113.12")
    olivia.sign_in("olivia", at="acme")
    foresee(olivia)
    freeze(bob)
    console(bob, "acme/events/")
    take(bob.page, "events")

    erin = open_window(chromium, site, FIREFOX_LINUX, "203.0.113.5")
    erin.sign_in("erin")
    console(erin, "platform/tenants/")
    take(erin.page, "tenants")
    speak_arabic(bob, "203.0.113.9")
    for window in (dave, bob, olivia, erin, guest):
        if wrong := window.close():
            raise SystemExit("\n".join(wrong))


def end_a_session(bob: Window, dave: Window) -> None:
    """Bob asks, and says why; Dave's open tab says so."""
    console(bob, "acme/sessions/?q=dave")
    row = bob.page.locator("tr[data-session]", has_text="Dave Vance").filter(has_text="Firefox")
    row.get_by_role("button", name="End session").click()
    dialog = bob.page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("Laptop reported lost")
    take(bob.page, "end-dialog")
    dialog.get_by_role("button", name="End session").click()
    expect(row).to_contain_text("Ended by bob, just now")
    expect(dave.page.get_by_role("heading", name="You were signed out of Acme")).to_be_visible()
    take(dave.page, "ended")


def invite(bob: Window, guest: Window) -> None:
    """Bob invites somebody: the mail in Acme's look, and where its link leads, on a phone."""
    console(bob, "acme/people/invite/")
    bob.page.get_by_label("E-mail addresses").fill("amelie@acme.example")
    bob.page.get_by_role("button", name="Send invitations").click()
    expect(bob.page.get_by_role("heading", name="1 invitation sent")).to_be_visible()
    guest.page.goto(guest.site.url("login", "/outbox/"))
    mail = guest.page.locator("article", has_text="amelie@acme.example").first
    link = mail.get_by_role("link").filter(has_text="/invitation/").get_attribute("href")
    assert link
    mail.get_by_role("link", name="As a mail program shows it").click()
    expect(guest.page.get_by_text("Accept the invitation")).to_be_visible()
    take(guest.page, "mail", size=LETTER)
    guest.page.goto(link)
    take(guest.page, "invitation-phone", size=PHONE)


def speak_arabic(bob: Window, address: str) -> None:
    bob.context.set_extra_http_headers({"X-Forwarded-For": address, "Accept-Language": "ar"})
    console(bob, "acme/people/")
    take(bob.page, "arabic")


def foresee(olivia: Window) -> None:
    """What half an hour of idle time would end, before it is saved."""
    console(olivia, "acme/settings/policy/")
    olivia.page.locator("[name=idle_0]").fill("30")
    olivia.page.locator("[name=idle_1]").select_option("minutes")
    expect(olivia.page.locator("#forecast")).to_contain_text("would end")
    take(olivia.page, "forecast")


def freeze(bob: Window) -> None:
    console(bob, "acme/panic/")
    bob.page.get_by_role("button", name="Freeze sign-ins…").click()
    dialog = bob.page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("Somebody is guessing passwords")
    dialog.get_by_role("button", name="Freeze sign-ins").click()
    expect(bob.page.get_by_role("region", name="Sign-ins are frozen")).to_be_visible()
    console(bob, "acme/panic/")
    take(bob.page, "panic-phone", size=PHONE)


def console(admin: Window, path: str) -> None:
    admin.page.set_viewport_size(DESKTOP)
    admin.page.goto(admin.site.url("login", f"/console/{path}"))


def open_window(chromium: Browser, site: Site, user_agent: str, address: str) -> Window:
    return Window(chromium, site, user_agent=user_agent, extra_http_headers={"X-Forwarded-For": address}, reduced_motion="reduce")


def take(page: Page, name: str, *, size: ViewportSize = DESKTOP, scheme: str = "light") -> None:
    """One picture, with a palette instead of full colour: our pages have few, and the repository stays small."""
    page.set_viewport_size(size)
    page.mouse.move(0, 0)  # nothing looks pointed at
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    with Image.open(path) as full:
        full.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
