"""A person's browser, which notes everything that must never happen while the person uses it."""

import re
import shutil
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, Response, WebError, expect

from tests.browser.site import PASSWORD, Authority, Site

SECONDS = 1000
PATIENCE = 20 * SECONDS  # the machines are noisy; no promise is measured by this
expect.set_options(timeout=PATIENCE)

# An ended session is told by a 401: to the tabs that ask whether it lives, and on the page that says why it is over.
TELLS_OF_AN_END = {"/_portal/whoami", "/api/v1/session", "/_portal/start", "/login/"}


class Window:
    """A browser of its own: `page` is its first tab, `tab()` opens more."""

    def __init__(self, chromium: Browser, site: Site, *, expects: tuple[int, ...] = (), **options: object) -> None:
        self.site = site
        self.expects = {*expects}  # the statuses that this test provokes on purpose
        self.wrong: list[str] = []
        self.requests: list[Request] = []
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self.context: BrowserContext = chromium.new_context(**options)  # type: ignore[arg-type]
        self.context.set_default_timeout(PATIENCE)
        self.context.on("console", self._said)
        self.context.on("weberror", self._broke)
        self.context.on("request", self._asked)
        self.context.on("requestfailed", self._failed)
        self.context.on("response", self._answered)
        # Chromium may forbid something without a word on the console.
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(e.type, e.violatedDirective, e.blockedURI))"
        )
        self.page = self.context.new_page()

    # What a person does ------------------------------------------------------------------------------------------

    def sign_in(self, name: str, *, at: str = "", remember: bool = False) -> None:
        """At the portal, or on the way to a tenant; returns when the page behind it is there."""
        self.page.goto(self.site.url(at) if at else self.site.url("login", "/login/"))
        self.page.get_by_label("Name or e-mail").fill(name)
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        if remember:
            self.page.get_by_role("checkbox").check()
        self.page.get_by_role("button", name="Sign in").click()
        there = self.site.url(at) if at else self.site.url()
        expect(self.page).to_have_url(re.compile(f"^{re.escape(there)}$|/login/code/"))
        if self.page.url != there:
            self.type_code(self.site.code(name))
        expect(self.page).to_have_url(there)

    def type_code(self, code: str) -> None:
        self.page.get_by_label("Code", exact=True).fill(code)
        self.page.get_by_role("button", name="Continue").click()

    def tab(self, host: str = "login", path: str = "/") -> Page:
        page = self.context.new_page()
        page.goto(self.site.url(host, path))
        return page

    # What a test asks --------------------------------------------------------------------------------------------

    def asked(self, method: str, path: str) -> list[str]:
        """The addresses of this window's requests, by method and path."""
        return [r.url for r in self.requests if r.method == method and urlsplit(r.url).path == path]

    def cookies(self) -> dict[tuple[str, str], dict[str, object]]:
        """What the browser holds, by name and domain (with a dot before it where hosts below get it, too)."""
        return {(c["name"], c["domain"]): dict(c) for c in self.context.cookies()}

    def cookie_value(self, name: str, domain: str) -> str:
        return str(self.cookies()[self.site.cookie(name), domain]["value"])

    def close(self) -> list[str]:
        """Closes it; returns what went wrong on the way."""
        wrong = list(self.wrong)  # what is under way when a window closes is cut off, and is no failure
        self.context.close()
        return wrong

    # What must never happen --------------------------------------------------------------------------------------

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource: the server responded"):
            self.wrong.append(f"console on {message.page.url if message.page else '?'}: {message.text}")

    def _broke(self, error: WebError) -> None:
        self.wrong.append(f"script error on {error.page.url if error.page else '?'}: {error.error}")

    def _asked(self, request: Request) -> None:
        self.requests.append(request)
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "about"} and not (parts.hostname or "").endswith(self.site.domain):
            self.wrong.append(f"request to a host that is not ours: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left while it asked
            self.wrong.append(f"failed request: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status < 400 or response.status in self.expects:
            return
        if response.status == 401 and urlsplit(response.url).path in TELLS_OF_AN_END:
            return
        self.wrong.append(f"{response.status} for {response.request.method} {response.url}")


def keeps_nothing(page: Page) -> None:
    """Scripts on a page find none of our cookies, and nothing was put into the browser's stores."""
    found = page.evaluate("() => ({cookie: document.cookie, local: {...localStorage}, session: {...sessionStorage}})")
    assert found == {"cookie": "", "local": {}, "session": {}}, page.url


def starts_with(url: str) -> "re.Pattern[str]":
    return re.compile(re.escape(url))


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def launch(playwright: Playwright, authority: Authority, **options: Any) -> Browser:
    """Chromium, in which the hosts of gate.test are on this machine, the authority is good, and nobody else is there."""
    return playwright.chromium.launch(
        executable_path=find_chromium(),
        args=[
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP *.gate.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE *.localhost",
            f"--ignore-certificate-errors-spki-list={authority.fingerprint}",
        ],
        **options,
    )
