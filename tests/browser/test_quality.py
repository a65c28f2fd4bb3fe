"""Every page: sound for assistive programs (axe), valid, light, no wider than a phone. That it says nothing on the console is
noticed by Window.

Each page is looked at twice: light on a desk, dark on a phone. Contrast depends on the scheme and layout on the width; the other
two pairs would say the same again.
"""

import json
import uuid
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.urls import Resolver404, URLPattern, resolve
from playwright.sync_api import Page, ViewportSize

from portal import tenant_urls, urls
from tests.browser.conftest import OpenWindow, over_http
from tests.browser.html import faults
from tests.browser.pages import ALL, Look
from tests.browser.site import Site, data
from tests.browser.window import Window

PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 800}
KILOBYTES = 60

# Routes that are no page: what a form is sent to, a file, JSON.
NO_PAGE = {
    "invitation_accept", "account_keep", "outbox_mail", "two_factor_remove", "two_factor_codes_file", "two_factor_revoke",
    "account_sessions_end", "console_sessions_end", "console_people_act", "theme", "language", "brand_css", "brand_logo",
    "enter", "finish", "whoami", "console", "platform", "console_sessions_pulse", "console_sessions_end_all",
    "console_session_report", "console_app_remove", "console_group_act", "console_settings_hosts_act", "console_settings_look_css",
    "platform_tenant_act", "platform_account_act", "platform_sessions_end",
}  # fmt: skip
# A page behind a link that was mailed, or after something that was done: looked at where that is tested.
ELSEWHERE = {
    "login_code", "signup_link", "link_verify", "link_take_back", "link_not_me", "link_unlock", "platform_factors_done",
}  # fmt: skip


@pytest.fixture(scope="module")
def ids(site: Site) -> dict[str, str]:
    """Something of everything at Acme; next to nothing at Globex, whose lists are empty. What is where."""
    site.data("crowd", "long-names")
    found: dict[str, str] = json.loads(data("furnish:acme", environment=site.portal.environment).splitlines()[-1])
    return found


@over_http
@pytest.mark.parametrize("who", ["", "dave", "olivia", "erin"])
def test_every_page_is_sound(site: Site, ids: dict[str, str], window: OpenWindow, who: str) -> None:
    at = {"dave": "acme", "olivia": "acme"}.get(who, "")
    reader = window(who, at=at, viewport=DESK, color_scheme="light", expects=(400, 403, 404))
    wrong = [fault for look in ALL if look.who == who for fault in look_over(reader, look, ids)]
    assert not wrong, "\n".join(wrong)


def look_over(reader: Window, look: Look, ids: dict[str, str]) -> list[str]:
    """What is wrong with a page."""
    page = reader.page
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    answer = page.goto(reader.site.url(look.host, look.path.format(**ids)))
    assert answer
    text = answer.text()
    found = [f"status {answer.status}, not {look.status}"] if answer.status != look.status else []
    size = answer.request.sizes()["responseBodySize"] / 1000
    found += [f"{size:.0f} kB, more than {KILOBYTES}"] if size > KILOBYTES else []
    found += faults(text)
    found += [f"axe, light on a desk: {each}" for each in violations(page)]
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    found += [f"axe, dark on a phone: {each}" for each in violations(page)]
    width = page.evaluate("document.scrollingElement.scrollWidth")
    found += [f"{width} px wide on a phone of {PHONE['width']}"] if width > PHONE["width"] else []
    return [f"{look}: {each}" for each in found]


def violations(page: Page) -> list[str]:
    """What axe-core finds, all its rules: evaluated by the debugger, which the page's content security policy does not bind."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    # Colours glide to a new scheme: what is measured is where they arrive.
    page.evaluate("() => Promise.all(document.getAnimations().map((each) => each.finished.catch(() => 0)))")
    found: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations'], preload: false})")
    return [f"{each['id']}: {node['failureSummary']} {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]


@over_http
def test_faults_of_a_page_would_be_noticed(site: Site, window: OpenWindow) -> None:
    """The watch itself: without it the promise of this file would be empty."""
    guest = window()
    guest.page.goto(site.url("login", "/login/"))
    guest.page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img width=9 height=9>')")
    assert [each for each in violations(guest.page) if each.startswith("image-alt")]
    text = "<!doctype html><html lang=en><title>x</title><p id=a><p id=a><input name=n><label for=b>x</label></i>"
    assert {"id “a” is there 2 times", "the field “n” has no label", "for=“b” names nothing"} <= set(faults(text))
    assert len(faults(text)) == 4


@cache
def names() -> set[str]:
    found = {pattern.name for pattern in [*urls.urlpatterns, *tenant_urls.urlpatterns] if isinstance(pattern, URLPattern)}
    return {name for name in found if name}


def test_every_page_of_the_urlconf_is_looked_at() -> None:
    seen = set()
    for look in ALL:
        path = look.path.partition("?")[0].replace("{branch}", str(uuid.uuid4())).replace("{ended}", str(uuid.uuid4()))
        with suppress(Resolver404):  # the page that says so
            seen.add(resolve(path.format_map(Numbers()), "portal.urls" if look.host == "login" else "portal.tenant_urls").url_name)
    missing = names() - seen - NO_PAGE - ELSEWHERE
    assert not missing, f"Put these pages into tests/browser/pages.py: {sorted(missing)}"


class Numbers(dict[str, str]):
    """Any id will do for an address that is only read."""

    def __missing__(self, key: str) -> str:
        return "1"
