"""The cast, the visitor's browser, and what every test gets."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings

from identity.flight import in_flight
from identity.hashers import SMALLEST, Argon2id
from identity.management.commands.demo import seed
from identity.models import User
from tenants import hosts
from tenants.models import Tenant
from tests.visitor import Visitor

PASSWORD = "gatehouse-demo"
django_settings.SEAL_EVERY = None  # a test seals when it means to; the servers that tests start seal each second
django_settings.DELIVER_EVERY = None  # and delivers by `mails.deliver()`
PRODUCTION = {"time_cost": Argon2id.time_cost, "memory_cost": Argon2id.memory_cost}
Argon2id.time_cost, Argon2id.memory_cost = 1, SMALLEST  # else hashing were half of all work; servers and races keep the real cost


def password_is(person: User, password: str) -> bool:
    """For a test's own look at what is stored; the product compares under a reservation of the ledger only."""
    with in_flight():
        return person.check_password(password)


def missing(text: str) -> None:
    """Skip for a newcomer and say which package helps; an error in CI, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browsers first, then other files that take long: at the end there is something small for every process."""
    long = {item.path: mark for mark in ("slow", "browser") for item in items if item.get_closest_marker(mark)}
    items.sort(key=lambda item: long.get(item.path, "~"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    database = django_settings.DATABASES["default"]
    if "sqlite" in database["ENGINE"]:  # a file and WAL, as in the product, not Django's memory
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    hosts.forget()
    yield
    hosts.forget()


@pytest.fixture
def dear_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash costs what it costs in production. Comes before the cast."""
    for name, value in PRODUCTION.items():
        monkeypatch.setattr(Argon2id, name, value)


@pytest.fixture
def cast(db: None) -> dict[str, User]:
    """alice (member of acme), bob (admin of acme), carol (member of globex), dave (member of both), erin (operator),
    olivia (owner of acme and globex), mallory (no one)."""
    return people()


def people() -> dict[str, User]:
    seed(PASSWORD)
    User.objects.create_user("mallory", "mallory@nowhere.example", password=PASSWORD)
    return {user.username: user for user in User.objects.all()}


@pytest.fixture
def acme(cast: dict[str, User]) -> Tenant:
    return Tenant.objects.get(slug="acme")


@pytest.fixture
def globex(cast: dict[str, User]) -> Tenant:
    return Tenant.objects.get(slug="globex")


@pytest.fixture
def visitor() -> Callable[..., Visitor]:
    """A new browser: `visitor()`; or one that has signed in: `visitor("dave")`, `visitor("dave", at="acme")`."""

    def open_browser(name: str = "", at: str = "", **kwargs: Any) -> Visitor:
        browser = Visitor(**kwargs)
        if name:
            browser.sign_in(name, PASSWORD, at=at)
        return browser

    return open_browser


@pytest.fixture
def over_https(settings: pytest.FixtureRequest) -> None:
    """The product as in production: https, other hosts, prefixed cookies."""
    values = {
        "SECURE": True,
        "PORTAL_URL": "https://login.example.com",
        "PORTAL_HOST": "login.example.com",
        "PORTAL_PORT": None,
        "TENANT_DOMAIN": "example.com",
        "ON_LOCALHOST": False,
        "SESSION_COOKIE_NAME": "__Host-portal",
        "TENANT_COOKIE_NAME": "__Secure-session",
        "START_COOKIE_NAME": "__Host-start",
        "DEVICE_COOKIE_NAME": "__Host-device",
        "HALF_WAY_COOKIE_NAME": "__Host-half-way",
        "THEME_COOKIE_NAME": "__Host-theme",
        "LANGUAGE_COOKIE_NAME": "__Host-language",
        "CSRF_COOKIE_NAME": "__Host-csrf",
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        "SECURE_HSTS_SECONDS": 63072000,
        "TRUSTED_PROXIES": ["127.0.0.1"],
    }
    for name, value in values.items():
        setattr(settings, name, value)
