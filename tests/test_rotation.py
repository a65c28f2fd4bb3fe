"""A new SECRET_KEY: what goes on while the old one is a fallback, and what does not need it.

ENCRYPTION_KEYS have their proofs beside their verbs: test_commands.py (`rekey`), test_mails.py, test_events.py (seals).
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from identity import factors, links
from identity.models import Link, TotpDevice, User
from tests.test_commands import told
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
pytestmark = pytest.mark.asvs("11.2.2")


@pytest.fixture
def change(settings: Any) -> Callable[..., None]:
    """The operator's change of key: with the old one as a fallback, or (it has leaked) without."""

    def to_another(*, fallback: bool) -> None:
        old, settings.SECRET_KEY = settings.SECRET_KEY, "another key for the tests only, long enough to be one"
        settings.SECRET_KEY_FALLBACKS = [old] if fallback else []

    return to_another


def type_password(browser: Visitor, name: str) -> None:
    browser.get(portal_url("/login/"))
    browser.post(portal_url("/login/"), {"username": name, "password": "gatehouse-demo"})


@pytest.mark.parametrize("fallback", [True, False])
def test_a_new_secret_key_ends_no_session_and_keeps_links_and_authenticators_good(
    cast: dict[str, User], visitor: Open, change: Callable[..., None], fallback: bool
) -> None:
    dave = visitor("dave", at="acme")
    link = links.make(Link.Purpose.PASSWORD, cast["alice"])
    change(fallback=fallback)
    assert (dave.is_in(), dave.is_in("acme")) == (True, True)
    assert "Globex" in dave.get(tenant_url("globex")).content.decode()
    assert dave.is_in("globex")
    assert visitor().get(link).status_code == 200
    assert visitor("erin").is_in()
    assert told("event", "verify")["findings"] == []


def test_with_the_old_key_as_a_fallback_a_hand_off_that_has_begun_arrives(
    cast: dict[str, User], visitor: Open, change: Callable[..., None]
) -> None:
    dave = visitor()
    dave.get(tenant_url("acme"))
    change(fallback=True)
    query = urlsplit(dave.url).query
    dave.post(portal_url(f"/login/?{query}"), {"username": "dave", "password": "gatehouse-demo"})
    assert dave.url == tenant_url("acme", "/")
    assert dave.is_in("acme")


@pytest.mark.parametrize("fallback", [True, False])
def test_a_sign_in_between_password_and_code_goes_on_with_the_fallback_only(
    cast: dict[str, User], visitor: Open, change: Callable[..., None], fallback: bool
) -> None:
    erin = visitor()
    type_password(erin, "erin")
    assert "/login/code/" in erin.url
    change(fallback=fallback)
    erin.type_code("erin")
    assert erin.is_in() == fallback


def test_a_browser_that_was_trusted_is_still_trusted(cast: dict[str, User], visitor: Open, change: Callable[..., None]) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(cast["dave"]).pk).update(confirmed=True, name="Phone")
    dave = visitor()
    type_password(dave, "dave")
    dave.type_code("dave", trust="on")
    dave.post(portal_url("/logout/"))
    change(fallback=False)
    type_password(dave, "dave")
    assert dave.is_in()


def test_what_was_counted_under_the_old_key_is_forgotten(cast: dict[str, User], visitor: Open, change: Callable[..., None]) -> None:
    """The names of the ledger's counts are keyed: a lock opens with a new key, as with an operator's release."""
    for _ in range(5):
        visitor().sign_in("dave", "wrong")
    assert told("lockout", "explain", "dave")["locked"]
    change(fallback=True)
    assert visitor("dave").is_in()
