"""What proxies and upgrades ask."""

from collections.abc import Callable

import pytest
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test.utils import CaptureQueriesContext

from identity.models import User
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]


def test_healthz_asks_no_database_and_answers_at_any_name(cast: dict[str, User], visitor: Open) -> None:
    with CaptureQueriesContext(connection) as asked:
        answer = visitor().get("http://10.0.0.7:8000/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "release": settings.RELEASE})
    assert len(asked) == 0


@pytest.mark.asvs("13.4.6")
def test_strangers_learn_no_release(cast: dict[str, User], visitor: Open) -> None:
    """upgrade.sh, which compares it, asks on the machine itself."""
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        assert visitor(address="203.0.113.9").get(portal_url(path)).json() == {"status": status}
        assert visitor(address="").get(portal_url(path)).json() == {"status": status, "release": settings.RELEASE}


def test_healthz_answers_a_proxy_that_speaks_http_to_an_https_portal(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    assert visitor().get("http://localhost/healthz").status_code == 200


def test_readyz_says_when_migrations_are_missing(cast: dict[str, User], visitor: Open) -> None:
    assert visitor().get(portal_url("/readyz")).json()["status"] == "ready"
    MigrationRecorder(connection).record_unapplied(*MigrationLoader(connection).graph.leaf_nodes("identity")[0])
    answer = visitor().get(portal_url("/readyz"))
    assert (answer.status_code, answer.json()) == (503, {"status": "migrations"})


@pytest.mark.asvs("16.5.1")
def test_readyz_says_when_the_database_does_not_answer(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*args: object) -> None:
        raise DatabaseError("the server closed the connection")

    monkeypatch.setattr("portal.views.health.MigrationExecutor", down)
    answer = visitor().get(portal_url("/readyz"))
    assert (answer.status_code, answer.json()) == (503, {"status": "database"})
    assert "closed" not in answer.content.decode()
