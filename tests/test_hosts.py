"""Hosts: one canonical form, whose they are, what may be entered, and where one may be sent back to."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity.models import Event, User
from tenants import checks, hosts
from tenants.hosts import BadHost, may_return_to, normalise
from tenants.middleware import client_address
from tenants.models import App, Host, Tenant
from tenants.policy import Policy
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("acme.example.com", "acme.example.com"),
        ("ACME.Example.COM", "acme.example.com"),
        ("acme.example.com.", "acme.example.com"),
        ("acme.example.com:8000", "acme.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        (" acme.example ", "acme.example"),
    ],
)
def test_a_host_has_one_form(raw: str, host: str) -> None:
    assert normalise(raw) == host


@pytest.mark.parametrize(
    "raw", ["", ".", "..", "a..b", "-a.b", "a_b.c", "a b", "[::1]:80", "a" * 64 + ".x", "a." * 130, "a:b", "x@y", "a/b", "a\n"]
)
def test_what_is_no_host_is_refused(raw: str) -> None:
    with pytest.raises(BadHost):
        normalise(raw + "!" if raw == "a\n" else raw)


@pytest.mark.parametrize("host", ["ACME.portal.localhost:8000", "acme.portal.localhost.:8000", "acme.portal.localhost"])
def test_every_spelling_of_a_host_finds_its_tenant(cast: dict[str, User], visitor: Open, host: str) -> None:
    assert "Welcome, Guest" in visitor().get(tenant_url("acme", "/welcome/"), HTTP_HOST=host).content.decode()


def test_an_unknown_host_gets_a_quiet_page_with_the_cure(cast: dict[str, User], visitor: Open, caplog: pytest.LogCaptureFixture) -> None:
    with CaptureQueriesContext(connection) as asked:
        page = visitor().get("http://wiki.acme.test:8000/any/page", follow=False)
    assert page.status_code == 404
    text = page.content.decode()
    assert "wiki.acme.test" in text
    assert "manage.py tenant host add TENANT wiki.acme.test" in text
    assert not [query for query in asked if not query["sql"].startswith("SELECT")]
    assert caplog.text == ""
    assert Event.objects.count() == 0


def test_a_malformed_host_is_a_400(cast: dict[str, User], visitor: Open) -> None:
    for host in ("acme.portal.localhost@evil.example", "a b", "[::1]", "<script>"):
        page = visitor().get(portal_url("/login/"), follow=False, HTTP_HOST=host)
        assert page.status_code == 400
        assert "script" not in page.content.decode()


def test_a_further_host_answers_once_it_is_approved(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    from django.utils import timezone

    host = Host(tenant=acme, name="id.acme.test")
    host.full_clean()
    host.save()
    assert host.cookie_domain == "id.acme.test"
    assert visitor().get("http://id.acme.test:8000/welcome/").status_code == 404
    host.approved_at = timezone.now()
    host.save()
    dave = visitor("dave")
    dave.get("http://id.acme.test:8000/")
    assert dave.url == "http://id.acme.test:8000/"
    assert next(cookie.domain for cookie in dave.cookies if cookie.name == "session") == "id.acme.test"
    assert not dave.is_in("acme")  # another domain, another hand-off


def test_an_app_host_shows_one_calm_page(cast: dict[str, User], visitor: Open) -> None:
    page = visitor().get("http://wiki.acme.portal.localhost:8000/")
    assert page.status_code == 200
    assert "Wiki" in page.content.decode()
    assert visitor().get("http://wiki.acme.portal.localhost:8000/_portal/start", follow=False).status_code == 404


# --- What may be entered ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slug", ["login", "www", "api", "admin", "mail", "Acme", "a.b", "-a", "a-", "a_b", "xn--a", "1a", "", "a" * 64, "portal"]
)
def test_a_slug_that_does_not_fit_is_refused(cast: dict[str, User], slug: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Tenant(slug=slug, name="X").full_clean()
    assert "slug" in refused.value.message_dict


@pytest.mark.asvs("2.2.3")
@pytest.mark.parametrize(
    ("domain", "word"),
    [
        ("localhost", "Strangers"),
        ("co.uk", "Strangers"),
        ("github.io", "Strangers"),
        ("login.portal.localhost", "portal itself"),
        ("portal.localhost", "portal itself"),
        ("globex.portal.localhost", "only its own name"),
        ("x.globex.portal.localhost", "only its own name"),
        ("acme.org", "does not accept"),
        ("127.0.0.1", "not an address"),
    ],
)
def test_a_cookie_domain_that_leaks_is_refused_with_the_cure(acme: Tenant, domain: str, word: str) -> None:
    acme.cookie_domain = domain
    with pytest.raises(ValidationError) as refused:
        acme.full_clean()
    assert word in str(refused.value)


@pytest.mark.parametrize(
    ("name", "cookie_domain"),
    [
        ("login.portal.localhost", ""),
        ("x.login.portal.localhost", ""),
        ("globex.portal.localhost", ""),
        ("x.globex.portal.localhost", ""),
        ("new.portal.localhost", ""),
        ("co.uk", ""),
        ("com", ""),
        ("id.acme.org", "org"),
        ("id.acme.org", "other.org"),
        ("id.acme.co.uk", "co.uk"),
        ("acme.portal.localhost", ""),
        ("wiki.acme.portal.localhost", ""),
        ("10.0.0.1", ""),
    ],
)
def test_a_further_host_that_is_not_ones_own_is_refused(acme: Tenant, name: str, cookie_domain: str) -> None:
    with pytest.raises(ValidationError):
        Host(tenant=acme, name=name, cookie_domain=cookie_domain).full_clean()


@pytest.mark.asvs("2.2.3")
def test_cookie_domains_of_tenants_never_overlap(acme: Tenant, globex: Tenant) -> None:
    first = Host(tenant=acme, name="id.shared.test", cookie_domain="shared.test", approved_at=timezone.now())
    first.full_clean()
    first.save()
    for name, domain in (("www.shared.test", ""), ("id.shared.test", ""), ("a.b.shared.test", "b.shared.test")):
        with pytest.raises(ValidationError):
            Host(tenant=globex, name=name, cookie_domain=domain).full_clean()


@pytest.mark.asvs("2.2.3")
def test_an_app_lies_inside_the_tenants_cookie_domain(acme: Tenant) -> None:
    App(tenant=acme, name="Mail", host="post.acme.portal.localhost").full_clean()
    for host in ("wiki.globex.portal.localhost", "acme.org", "login.portal.localhost", "acme.portal.localhost"):
        with pytest.raises(ValidationError):
            App(tenant=acme, name="X", host=host).full_clean()


def test_a_policy_that_does_not_fit_is_refused() -> None:
    for stored in ({"idle": 10}, {"nonsense": 1}, {"idle": "8h"}, {"remembered": 1}, {"absolute": True}):
        with pytest.raises(ValueError, match=r"\w+ .*\."):
            Policy.of(stored)


# --- next ---------------------------------------------------------------------------------------------------------

ALLOWED = frozenset({"acme.portal.localhost", "login.portal.localhost", "wiki.acme.portal.localhost"})
HERE = "acme.portal.localhost"
BASE = "http://acme.portal.localhost:8000"


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("/", f"{BASE}/"),
        ("/a/b?c=d&e=%20", f"{BASE}/a/b?c=d&e=%20"),
        (f"{BASE}/x", f"{BASE}/x"),
        ("/?a=/b?c", f"{BASE}/?a=/b?c"),
        ("http://wiki.acme.portal.localhost:8000/p", "http://wiki.acme.portal.localhost:8000/p"),
        ("http://LOGIN.portal.localhost:8000/", "http://login.portal.localhost:8000/"),
    ],
)
def test_next_is_rebuilt(target: str, address: str) -> None:
    assert may_return_to(target, ALLOWED, HERE) == address


@pytest.mark.asvs("3.7.2", "1.1.1", "1.2.2")
@pytest.mark.parametrize(
    "target",
    [
        "",
        "a",
        "//evil.example",
        "///evil.example",
        "/\t//evil.example",
        "/\n//evil.example",
        "/\t\\evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "https:evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
        "java\tscript:x",
        "data:text/html,x",
        "https://acme.portal.localhost:8000/",
        "http://acme.portal.localhost/",
        "http://acme.portal.localhost:8001/",
        "http://globex.portal.localhost:8000/",
        "http://acme.portal.localhost:8000@evil.example/",
        "http://evil.example#@acme.portal.localhost:8000/",
        "http://x:y@acme.portal.localhost:8000/",
        "http://acme.portal.localhost:8000\\.evil.example/",
        "http://acme.portal.localhost:8000.evil.example/",
        "http://[::1]/",
        "http://127.0.0.1:8000/",
        " /x",
        "/x ",
        "/x#y",
        "/x\x00",
        "/ü",
        "http://acme.portal.localhost:99999/",
        "/" + "a" * 2000,
        "%2F%2Fevil.example",
        "http://acme%2eportal.localhost:8000/",
        "?x",
        "ftp://acme.portal.localhost:8000/",
        "//acme.portal.localhost:8000/",
    ],
)
def test_a_next_that_leads_elsewhere_is_dropped(target: str) -> None:
    assert may_return_to(target, ALLOWED, HERE) is None


# --- Who asks -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("15.3.4", "4.1.3")
@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", "1.2.3.4", [], "203.0.113.9"),
        ("127.0.0.1", "1.2.3.4", [], "127.0.0.1"),  # loopback is not trusted by itself
        ("127.0.0.1", "1.2.3.4", ["127.0.0.1"], "1.2.3.4"),
        ("", "1.2.3.4", [], "1.2.3.4"),  # a unix socket is
        ("", "6.6.6.6, 1.2.3.4", [], "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", ["10.0.0.0/8"], "1.2.3.4"),
        ("10.0.0.1", "10.0.0.3", ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", "garbage", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, garbage", ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", "", ["10.0.0.0/8"], "10.0.0.1"),
        ("::1", "2001:db8::1%eth0", ["::1"], "2001:db8::1"),
        ("::1", "::ffff:1.2.3.4", ["::1"], "1.2.3.4"),
        ("", "", [], ""),
    ],
)
def test_the_clients_address_is_the_one_a_trusted_proxy_saw(peer: str, forwarded: str, trusted: list[str], address: str) -> None:
    assert client_address(peer, forwarded, trusted) == address


@pytest.mark.asvs("4.1.3", "15.3.4")
def test_forwarded_headers_of_strangers_have_no_effect(cast: dict[str, User], visitor: Open) -> None:
    forged: dict[str, Any] = {
        "HTTP_X_FORWARDED_HOST": "globex.portal.localhost:8000",
        "HTTP_X_FORWARDED_FOR": "6.6.6.6",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_REAL_IP": "6.6.6.6",
        "HTTP_FORWARDED": "for=6.6.6.6;host=globex.portal.localhost",
        "HTTP_X_FORWARDED_PORT": "1",
        "HTTP_X_ORIGINAL_URL": "/console/",
    }
    dave = visitor("dave")
    dave.get(tenant_url("acme"), **forged)
    assert dave.url == tenant_url("acme")
    assert dave.session("acme").ip == "127.0.0.1"


@pytest.mark.asvs("4.1.2", "12.2.1")
def test_only_pages_are_sent_from_http_to_https(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    page = visitor().get("http://login.example.com/login/?next=/", follow=False)
    assert (page.status_code, page["Location"]) == (301, "https://login.example.com/login/?next=/")
    assert visitor().post("http://login.example.com/login/", {}, follow=False).status_code == 400
    assert visitor().get("http://login.example.com/api/v1/session", follow=False, HTTP_ACCEPT="application/json").status_code == 400


@pytest.mark.asvs("3.4.1")
def test_every_answer_over_https_asks_for_https_for_two_years(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    for url in ("https://login.example.com/login/", "https://login.example.com/nowhere", "https://unknown.example.com/"):
        assert visitor().get(url)["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains"


def test_the_checks_refuse_what_would_leak() -> None:
    def found(**values: object) -> set[str | None]:
        with override_settings(**values):
            return {problem.id for problem in checks.addresses(None)}

    assert found() == set()
    assert found(ON_LOCALHOST=False) == {"gatehouse.E001"} | ({"gatehouse.E003"} if hosts.is_public_suffix("portal.localhost") else set())
    assert found(TENANT_DOMAIN="") == {"gatehouse.E002"}
    assert found(SECURE=True, ON_LOCALHOST=False, TENANT_DOMAIN="co.uk") == {"gatehouse.E003"}
    assert found(AXES_ENABLED=False) == {"gatehouse.E004"}
