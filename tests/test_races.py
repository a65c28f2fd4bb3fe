"""A few rounds of every race, on the database of this run; `make races` runs the long ones (tests/bench/races.py)."""

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests.races import over_http, rounds
from tests.races.crew import Crew
from tests.races.report import Report
from tests.races.stage import Stage, database_url
from tests.servers import Portal

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SEED = int(os.environ.get("RACES_SEED", "0")) or int(time.time())


@pytest.fixture(scope="module")
def crew(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Crew]:
    """Four processes with four threads each, on the test database."""
    with Crew(database_url(str(connection.settings_dict["NAME"])), processes=4, threads=4) as racers:
        yield racers


@pytest.fixture
def stage(transactional_db: None) -> Stage:
    return Stage(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Portal, str]]:
    """The real server with two workers, and the address of its own database."""
    folder = tmp_path_factory.mktemp("portal")
    if connection.vendor == "sqlite":
        url = database_url(f"{folder / 'portal.sqlite3'}")
    else:
        url = over_http.new_database(database_url("postgres"), f"portal_{os.getpid()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Portal leaves its log open
        portal = Portal(url, Path(folder), workers=2)
    with portal:
        yield portal, url


def _nothing_went_wrong(report: Report) -> None:
    assert not report.violations, "\n".join(report.violations)


@pytest.mark.asvs("7.4.1", "15.4.2")
def test_no_branch_outlives_its_portal_session(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.ticket_against_end(crew, stage, rounds=30, seed=SEED))


@pytest.mark.asvs("7.4.1", "15.4.2")
def test_after_an_end_nothing_that_it_was_for_is_ever_live(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.end_against_everything(crew, stage, rounds=54, seed=SEED))


@pytest.mark.asvs("2.3.4", "15.4.2")
def test_one_ticket_opens_one_branch(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.one_ticket_many_times(crew, stage, rounds=10, seed=SEED))


def test_two_tabs_that_rotate_at_once_stay_signed_in(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.two_tabs_rotate(crew, stage, rounds=20, seed=SEED))


def test_an_end_ends_each_session_exactly_once(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.ends_exactly_once(crew, stage, rounds=12, seed=SEED))


@pytest.mark.asvs("7.4.2", "7.4.3", "15.4.2")
def test_no_session_of_the_old_password_is_live(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.sign_in_against_password(crew, stage, rounds=20, seed=SEED))


@pytest.mark.asvs("15.4.3")
def test_everything_at_once_waits_for_nothing_forever(crew: Crew, stage: Stage) -> None:
    _nothing_went_wrong(rounds.medley(crew, stage, rounds=2, seed=SEED))


def test_visitors_leave_no_rows(server: tuple[Portal, str]) -> None:
    portal, url = server
    _nothing_went_wrong(over_http.anonymous(portal, url, requests=450))


@pytest.mark.asvs("7.4.1")
def test_no_worker_serves_a_request_that_began_after_the_end(server: tuple[Portal, str]) -> None:
    portal, url = server
    with Crew(url, processes=1, PORT=str(portal.port)) as crew:
        _nothing_went_wrong(over_http.ends_over_http(portal, url, crew, rounds=6, seed=SEED))
