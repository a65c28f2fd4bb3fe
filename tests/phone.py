"""What a person with a phone does in tests: set it up, read a code from it, and read the pages about it."""

import html
import re
import shutil
import subprocess
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from identity import factors
from identity.models import Session, TotpDevice
from tenants.models import Tenant
from tests.conftest import PASSWORD, missing
from tests.visitor import Visitor, portal_url

PAGE = "/account/two-factor/"


def oathtool(key: str, when: str = "now") -> str:
    """What Debian's oathtool, a generator that is not ours, shows at a moment such as "30 seconds ago"."""
    if not shutil.which("oathtool"):
        missing("Codes are compared with a generator that is not ours: apt install oathtool")
    command = ["oathtool", "--totp", "--base32", f"--now={when}", key]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# --- Reading a page -----------------------------------------------------------------------------------------------


def source(browser: Visitor) -> str:
    return html.unescape(browser.page.content.decode())


def said(browser: Visitor) -> str:
    """What the page says: without tags, on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", source(browser).partition("<main")[2]).split())


def key_on(browser: Visitor) -> str:
    """What stands in the element with the id of the contract, without tags and spaces."""
    found = re.search(r'id="totp-key"[^>]*>(.*?)</p>', source(browser), re.DOTALL)
    assert found, said(browser)
    return re.sub(r"<[^>]+>|\s", "", found[1])


def codes_on(browser: Visitor) -> list[str]:
    return re.findall(r"data-recovery-code[^>]*>([^<]+)<", source(browser))


def hidden(browser: Visitor, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', source(browser))
    assert found, f"{name} in: {said(browser)}"
    return found[1]


# --- Doing --------------------------------------------------------------------------------------------------------


def first_code(name: str) -> str:
    """What the authenticator that this person is setting up shows."""
    return factors.code_now(TotpDevice.objects.get(user__username=name, confirmed=False))


def code_of(name: str) -> str:
    """A code of this person's newest authenticator that is good now, as if the last one had been used long ago."""
    device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
    TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
    return factors.code_now(device)


def enrol(browser: Visitor, name: str) -> list[str]:
    """Set an authenticator up as the page asks for it; returns the recovery codes."""
    browser.get(portal_url(PAGE))
    browser.post(browser.url, {"code": first_code(name), "device": hidden(browser, "device")})
    return codes_on(browser)


def half_way(browser: Visitor, name: str = "dave", target: str = "") -> Visitor:
    """The password is typed, the code is asked for."""
    query = f"?next={quote(target, safe='')}" if target else ""
    browser.get(portal_url(f"/login/{query}"))
    browser.post(portal_url(f"/login/{query}"), {"username": name, "password": PASSWORD, "next": target})
    assert "/login/code/" in browser.url, browser.url
    return browser


def is_asked(browser: Visitor, name: str = "dave") -> bool:
    """Does a sign-in in this browser ask for a code?"""
    browser.get(portal_url("/login/"))
    browser.post(portal_url("/login/"), {"username": name, "password": PASSWORD})
    return "/login/code/" in browser.url


def sign_out(browser: Visitor) -> None:
    browser.post(portal_url("/logout/"))


# --- What time and admins do --------------------------------------------------------------------------------------


def proof_is_old(name: str) -> None:
    Session.objects.filter(user__username=name).update(proved_at=timezone.now() - timedelta(minutes=11))


def asks(tenant: Tenant, **rules: Any) -> None:
    """From now on this tenant asks for a second factor."""
    tenant.policy = {"second_factor": "everyone", **rules}
    tenant.factor_since = timezone.now()
    tenant.save()
