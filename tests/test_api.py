"""The JSON endpoints, to the letter."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from identity.models import Event, Session, User
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
DAVE = {"username": "dave", "password": "gatehouse-demo"}


def call(browser: Visitor, name: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    answer = browser.post_json(portal_url(f"/api/v1/{name}"), body if isinstance(body, str) else json.dumps(body or {}), **headers)
    assert answer["Content-Type"] == "application/json"
    return answer.status_code, answer.json()


@pytest.mark.asvs("15.3.1")
def test_the_whole_life_of_a_session_in_json(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    person = {"username": "frank", "email": "frank@acme.example", "password": "three little words"}
    assert call(browser, "signup", person) == (201, {"message": "User created successfully"})
    assert browser.get(portal_url("/api/v1/session")).json() == {"error": "Unauthorized"}
    assert call(browser, "login", {"username": "frank", "password": "wrong"}) == (401, {"error": "Invalid credentials"})
    assert call(browser, "login", {"username": "frank", "password": "three little words"}) == (200, {"message": "Login successful"})
    frank = User.objects.get(username="frank")
    answer = browser.get(portal_url("/api/v1/session")).json()
    assert answer.pop("expires_at").endswith("Z")
    assert answer == {"id": frank.pk, "username": "frank", "name": "", "email": "frank@acme.example", "tenant": None}
    assert call(browser, "logout") == (200, {"message": "Logout successful"})
    assert call(browser, "logout") == (401, {"error": "Unauthorized"})
    assert Session.objects.get().end_reason == Session.Reason.SIGNED_OUT


@pytest.mark.asvs("15.3.1")
def test_whoami_at_a_tenant_names_the_tenant(cast: dict[str, User], visitor: Open) -> None:
    answer = visitor("dave", at="acme").get(tenant_url("acme", "/_portal/whoami")).json()
    assert set(answer) == {"id", "username", "name", "email", "tenant", "expires_at"}
    assert (answer["tenant"], answer["name"]) == ("acme", "Dave Vance")
    stranger = visitor().get(tenant_url("acme", "/_portal/whoami"))
    assert (stranger.status_code, stranger.json()) == (401, {"error": "Unauthorized"})


def test_a_session_from_json_is_the_same_session(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    call(browser, "login", DAVE)
    browser.get(tenant_url("acme"))
    assert browser.url == tenant_url("acme")


def test_form_encoded_fields_work_too(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    answer = browser.post(portal_url("/api/v1/login"), DAVE, csrf=False)
    assert answer.json() == {"message": "Login successful"}


@pytest.mark.asvs("3.5.1", "3.5.2", "16.3.3")
@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_ORIGIN": "http://acme.portal.localhost:8000"},
        {"HTTP_ORIGIN": "http://login.portal.localhost"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_SEC_FETCH_SITE": "same-origin"},
    ],
)
def test_other_origins_are_refused(cast: dict[str, User], visitor: Open, headers: dict[str, str]) -> None:
    for name in ("login", "logout", "signup"):
        assert call(visitor(), name, DAVE, **headers) == (403, {"error": "Forbidden"})
    assert Session.objects.count() == 0
    assert Event.objects.filter(kind="csrf_refused").count() == 3


def test_the_own_origin_is_let_in(cast: dict[str, User], visitor: Open) -> None:
    headers = {"HTTP_ORIGIN": "http://login.portal.localhost:8000", "HTTP_SEC_FETCH_SITE": "same-origin"}
    assert call(visitor(), "login", DAVE, **headers)[0] == 200


@pytest.mark.asvs("15.3.5", "15.3.7", "1.5.3", "2.2.1")
@pytest.mark.parametrize(
    "body",
    [
        "", "null", "[]", "{", "1e999", '"x"', '{"username": 1}', '{"username": null}', '{"username": []}', '{"username": {"a": 1}}',
        '{"username": "dave", "username": "erin"}', "[" * 100_000, '{"a":' * 50_000, '{"username": "d\\u0000ave"}', "\xff\xfe",
    ],
)  # fmt: skip
def test_a_body_that_does_not_fit_is_a_400(cast: dict[str, User], visitor: Open, body: str) -> None:
    for name in ("login", "signup"):
        status, answer = call(visitor(), name, body)
        assert status == 400
        assert "error" in answer


@pytest.mark.parametrize("kind", ["text/plain", "", "application/xml", "application/json; charset=utf-16"])
def test_other_content_types_are_refused(cast: dict[str, User], visitor: Open, kind: str) -> None:
    browser = visitor()
    answer = browser._go("POST", portal_url("/api/v1/login"), json.dumps(DAVE), False, {}, content_type=kind)
    assert answer.status_code == 400 or kind.startswith("application/json")
    assert "Traceback" not in answer.content.decode()


@pytest.mark.asvs("3.4.2", "3.5.6")
def test_no_answer_may_be_read_by_another_origin(cast: dict[str, User], visitor: Open) -> None:
    for url in (portal_url("/api/v1/session?callback=x"), tenant_url("acme", "/_portal/whoami"), portal_url("/login/")):
        answer = visitor().get(url, HTTP_ORIGIN="https://evil.example")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer["Cache-Control"] == "no-store"
        assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.asvs("4.1.4")
def test_methods_that_do_not_fit_are_405(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    assert browser.get(portal_url("/api/v1/login"), follow=False).status_code == 405
    assert browser.post(portal_url("/api/v1/session"), {}).status_code == 405
