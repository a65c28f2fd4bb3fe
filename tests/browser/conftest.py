"""Chromium, the running product at its two addresses, and a new browser for everybody who asks for one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.browser.site import Authority, BehindNginx, Plain, Site, assert_calm, find_nginx
from tests.browser.window import Window, find_chromium, launch
from tests.conftest import missing

OpenWindow = Callable[..., Window]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


# For the package, not the session: Playwright's event loop would keep Django from its database in the tests that follow.
@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if not shutil.which("openssl"):
        missing("The browser tests make a certificate authority: apt-get install openssl")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="package")
def chromium(playwright: Playwright, authority: Authority) -> Iterator[Browser]:
    if not find_chromium():
        missing("The browser tests need Chromium: apt-get install chromium")
    with launch(playwright, authority) as browser:
        yield browser


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Plain(tmp_path_factory.mktemp("plain")) as site:
        yield site
        assert_calm(site)


@pytest.fixture(scope="module")
def behind_nginx(authority: Authority) -> Iterator[Site]:
    if not find_nginx():
        missing("The browser tests over https need nginx: apt-get install nginx")
    with BehindNginx(authority) as site:
        yield site
        assert_calm(site)


@pytest.fixture(scope="module", params=["http", "https"])
def site(request: pytest.FixtureRequest) -> Site:
    """The product at its two addresses, one after the other; every test file gets it with a fresh database."""
    found: Site = request.getfixturevalue("plain" if request.param == "http" else "behind_nginx")
    return found


# For what https cannot change.
over_http = pytest.mark.parametrize("site", ["http"], indirect=True)


@pytest.fixture
def window(chromium: Browser, site: Site) -> Iterator[OpenWindow]:
    """A new browser: `window()`; or one that has signed in: `window("dave")`, `window("dave", at="acme")`.

    At the end of the test each is closed, and the test fails if anything went wrong in it (see Window).
    """
    opened: list[Window] = []

    def open_window(name: str = "", *, at: str = "", remember: bool = False, **options: object) -> Window:
        new = Window(chromium, site, **options)  # type: ignore[arg-type]
        opened.append(new)
        if name:
            new.sign_in(name, at=at, remember=remember)
        return new

    yield open_window
    wrong = [text for each in opened for text in each.close()]
    assert not wrong, "\n".join(wrong)
