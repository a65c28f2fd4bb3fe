"""The table of roles (design, section 1): who may do what in the consoles, for every route that there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction

from identity.models import User
from tenants import hosts
from tests.acts import ACTS, PATTERNS, RANKS, ROLES, Act
from tests.furnish import Furnished, furnish
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]


@contextmanager
def undone() -> Iterator[None]:
    """What is done in here has not happened."""
    point = transaction.savepoint()
    try:
        yield
    finally:
        transaction.savepoint_rollback(point)
        hosts.forget()


def do(browser: Visitor, act: Act, it: Furnished, slug: str = "") -> Any:
    url = portal_url(act.url(it, slug))
    return browser.post(url, act.post(it), follow=False) if act.post else browser.get(url, follow=False)


def may(role: str, least: str) -> bool:
    return RANKS.index(role) >= RANKS.index(least)


def expected(act: Act, role: str) -> str:
    """What somebody of this role is to get: "in", or the status of the refusal."""
    if may(role, act.who):
        return "in"
    return "403" if role == "admin" and not act.is_platforms else "404"


def got(answer: Any) -> str:
    status, location = answer.status_code, answer.headers.get("Location", "")
    if status in {200, 302, 303, 422} and not location.startswith(("/login/", "/step-up/", "/account/")):
        return "in"
    return f"{status} {location}".strip()


@pytest.mark.asvs("8.2.1", "8.2.2", "8.3.1", "8.1.1")
@pytest.mark.parametrize("name", ROLES)
def test_each_role_may_what_the_table_says_and_nothing_else(cast: dict[str, User], visitor: Open, name: str) -> None:
    it, browser, wrong = furnish("acme"), visitor(name), []
    for act in ACTS:
        with undone():
            found = got(do(browser, act, it))
        if found != expected(act, ROLES[name]):
            wrong.append(f"{act}: {ROLES[name]} gets {found}, not {expected(act, ROLES[name])}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.asvs("8.2.1")
def test_who_is_not_signed_in_is_sent_to_sign_in(cast: dict[str, User], visitor: Open) -> None:
    it, nobody = furnish("acme"), visitor()
    for act in ACTS:
        answer = got(do(nobody, act, it))
        assert answer.startswith("302 /login/"), f"{act}: {answer}"


def test_the_table_has_every_route_and_each_of_its_methods(cast: dict[str, User], visitor: Open) -> None:
    """A page that nobody has put into the table has been thought through by nobody."""
    assert set(PATTERNS) == {act.name for act in ACTS}
    it, erin = furnish("acme"), visitor("erin")
    for name in PATTERNS:
        acts = [act for act in ACTS if act.name == name]
        for method in {"GET", "POST"} - {act.method for act in acts}:
            ask = erin.get if method == "GET" else erin.post
            status = ask(portal_url(acts[0].url(it)).partition("?")[0], follow=False).status_code
            # A page that is left through a POST may be asked for again by a phone: that leads back to the list.
            assert status == 405 or (method == "GET" and status == 302), f"{method} {name} is not in the table ({status})"
