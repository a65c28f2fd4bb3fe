"""While the database does not answer, everybody gets a calm 503, and what it was is told to the log alone."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection

from identity.models import User
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.fixture(params=[OperationalError, InterfaceError])
def down(request: pytest.FixtureRequest, cast: dict[str, User], visitor: Open) -> Iterator[Visitor]:
    """A visitor who was signed in before."""
    browser = visitor("dave", at="acme")
    browser.client.raise_request_exception = False

    def refuse(*args: Any) -> None:
        raise request.param("server closed the connection unexpectedly")

    with connection.execute_wrapper(refuse):
        yield browser


@pytest.mark.asvs("16.5.1", "16.5.2")
def test_a_page_says_503_and_what_to_do(down: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    for url in (portal_url("/account/"), tenant_url("acme"), portal_url("/login/")):
        caplog.clear()
        answer = down.get(url)
        assert (answer.status_code, answer["Retry-After"], answer["Cache-Control"]) == (503, "5", "no-store")
        page = answer.content.decode()
        assert "Wait a few seconds, then load the page again." in page
        assert "server closed" not in page
        [line] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert line.getMessage() == "The database does not answer: server closed the connection unexpectedly"
        assert line.exc_info is None


def test_a_form_that_is_sent_says_so_too(down: Visitor) -> None:
    answer = down.post(portal_url("/login/"), {"username": "dave", "password": "gatehouse-demo", "csrfmiddlewaretoken": "x"}, csrf=False)
    assert answer.status_code == 503


def test_a_script_gets_json(down: Visitor) -> None:
    for url in (portal_url("/api/v1/session"), tenant_url("acme", "/_portal/whoami")):
        answer = down.get(url)
        assert (answer.status_code, answer["Retry-After"], answer.json()) == (503, "5", {"error": "Try again"})


def test_the_session_is_good_again_with_the_database(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("dave", at="acme")
    browser.client.raise_request_exception = False

    def refuse(*args: Any) -> None:
        raise OperationalError("the database system is shutting down")

    with connection.execute_wrapper(refuse):
        assert browser.get(tenant_url("acme")).status_code == 503
    assert browser.get(tenant_url("acme")).status_code == 200
    assert browser.trail == [tenant_url("acme")]
