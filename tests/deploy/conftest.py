"""The booted machine that the tests share: one for each database."""

from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.deploy.machine import Machine, lacking
from tests.deploy.site import Site, certificate, copy


@pytest.fixture(scope="session", params=["sqlite", "local"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Not installed yet. In /shared: `first` and `next`, two releases; `broken`, one that does not start."""
    if lack := lacking():
        missing(lack)
    folder = tmp_path_factory.mktemp("machine")
    shared = folder / "shared"
    shared.mkdir()
    copy(shared / "first", "CHANGELOG.md", "\n")
    copy(shared / "next", "CHANGELOG.md", "\n\n")
    copy(shared / "broken", "portal/wsgi.py", "\nraise RuntimeError('this release does not start')\n")
    certificate(shared)
    with Machine(folder, shared) as machine:
        yield Site(machine, shared, request.param)


@pytest.fixture
def portal(site: Site) -> Site:
    """Installed, with its people; if no test before has done that, it is done now."""
    if site.machine.try_("test", "-e", "/opt/gatehouse/current").returncode != 0:
        site.install()
        site.settle()
    return site
