"""What bad input gets: a calm 4xx, no row, no traceback, no 500."""

from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from identity.models import Session, User
from tests.test_isolation import routes
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


def every_url() -> list[str]:
    urls = [portal_url(path) for path in routes("portal.urls").values()]
    return urls + [tenant_url("acme", path) for path in routes("portal.tenant_urls").values()]


def calm(browser: Visitor, method: str, url: str, body: str = "", **headers: str) -> int:
    answer = browser._go(method, url, body, False, headers)
    text = answer.content.decode(errors="replace")
    assert answer.status_code < 500, f"{method} {url}: {answer.status_code}"
    assert "Traceback" not in text
    return answer.status_code


@pytest.mark.asvs("4.1.4", "13.4.4")
def test_methods_that_no_page_has(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    for url in every_url():
        for method in ("TRACE", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"):
            status = calm(olivia, method, url)
            assert status in {400, 403, 404, 405}, f"{method} {url}: {status}"


@pytest.mark.asvs("2.2.1", "16.5.1")
def test_control_characters_everywhere(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    for url in every_url():
        for query in ("q=%00", "next=%0d%0aX:1", "state=%7f", "a%1f=b"):
            assert calm(olivia, "GET", f"{url}?{query}") == 400
        calm(olivia, "GET", url, HTTP_USER_AGENT="a\x00\x1b[31m\udcff", HTTP_REFERER="\x00", HTTP_X_REQUEST_ID="\n" * 40)
    assert calm(olivia, "GET", portal_url("/%00")) == 400
    assert calm(olivia, "GET", portal_url("/console/acme%0a/")) in {400, 404}


def test_invalid_utf8_everywhere(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    for url in every_url():
        calm(olivia, "GET", f"{url}?q=%ff%fe&next=%c3%28&state=%e2%82")
        calm(olivia, "POST", url, "username=%ff&password=%fe&ids=%ff&reason=%ff")
    calm(olivia, "GET", portal_url("/%ff%fe/"))


def test_fields_that_are_missing_long_many_or_twice(cast: dict[str, User], visitor: Open) -> None:
    olivia = visitor("olivia", at="acme")
    token = "c" * 32
    olivia.cookies += [Cookie("csrf", token, host, True) for host in ("login.portal.localhost", "acme.portal.localhost")]
    names = (
        "username",
        "email",
        "password",
        "next",
        "ids",
        "only",
        "reason",
        "first_name",
        "bio",
        "birth_date",
        "theme",
        "remember",
        "sure",
    )
    long = urlencode(dict.fromkeys(names, "x" * 10000))
    twice = urlencode([(name, value) for name in names for value in ("a", "b\x00")])
    for url in every_url():
        for body in ("", long, twice):
            calm(olivia, "POST", url, f"csrfmiddlewaretoken={token}&{body}")
    for url in (portal_url("/login/"), portal_url("/signup/"), portal_url("/console/acme/sessions/end"), portal_url("/api/v1/login")):
        assert calm(olivia, "POST", url, "&".join(f"f{n}=1" for n in range(10_000))) == 400
        assert calm(olivia, "POST", url, "password=" + "x" * 5_000_000) in {400, 403, 413}


def test_huge_and_broken_cookies(cast: dict[str, User], visitor: Open) -> None:
    for jar in (
        "session=" + "x" * 16_000,
        "; ".join(f"c{n}=1" for n in range(400)),
        'session="\x01',
        "=;=;;",
        "start=a.b.c",
        "theme=<x>",
        "portal=" + "é" * 43,
    ):
        for url in (
            portal_url("/login/"),
            portal_url("/account/"),
            tenant_url("acme"),
            tenant_url("acme", "/_portal/finish?ticket=x&state=y"),
        ):
            calm(visitor(), "GET", url, HTTP_COOKIE=jar)


@pytest.mark.asvs("9.1.1")
def test_states_and_tickets_that_are_none(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    for text in ("", "x", "a:b:c", "." * 100, "eyJhIjoxfQ:1xUaXP:AAAA", "x" * 9000, "☃"):
        for url in (tenant_url("acme", f"/_portal/finish?state={text}&ticket={text}"), portal_url(f"/enter/acme/?state={text}")):
            assert calm(dave, "GET", url) in {302, 400, 403}
    assert not dave.is_in("acme")


def test_nothing_of_all_this_leaves_a_row(cast: dict[str, User], visitor: Open) -> None:
    for url in every_url():
        calm(visitor(), "GET", f"{url}?next=//x&state=1&ticket=2")
        calm(visitor(), "POST", url, "a=b")
    assert Session.objects.count() == 0


@pytest.mark.asvs("14.3.2", "3.4.3", "3.4.4", "3.4.6", "3.4.8", "3.5.8", "4.1.1", "3.4.5")
def test_every_answer_carries_the_headers(cast: dict[str, User], visitor: Open) -> None:
    for browser in (visitor(), visitor("olivia", at="acme")):
        for url in [*every_url(), portal_url("/nowhere"), tenant_url("acme", "/nowhere"), "http://nobody.test:8000/"]:
            answer = browser.get(url, follow=False)
            policy = answer["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "base-uri 'none'" in policy
            assert "unsafe" not in policy
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer["Referrer-Policy"] in {"same-origin", "no-referrer"}
            assert answer["Cache-Control"] == "no-store"
            if answer.content:
                assert "charset=utf-8" in answer["Content-Type"] or answer["Content-Type"] == "application/json"


@pytest.mark.asvs("3.4.3")
def test_the_nonce_differs_on_every_answer(cast: dict[str, User], visitor: Open) -> None:
    import re

    pages = [visitor().get(portal_url("/login/")) for _ in range(3)]
    nonces = {re.search(r"'nonce-([^']+)'", page["Content-Security-Policy"])[1] for page in pages}  # type: ignore[index]
    assert len(nonces) == 3
    for page in pages:
        scripts = re.findall(r"<script[^>]*>", page.content.decode())
        assert scripts
        assert all("nonce=" in script and "src=" in script for script in scripts)
        assert not re.search(r"\son\w+=|\sstyle=|javascript:", page.content.decode())
