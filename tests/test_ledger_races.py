"""The ledger under guessers in several processes: some rounds of every race of `guesses`; `make races` runs the long ones."""

import os
import time
from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests.races import guesses
from tests.races.crew import Crew
from tests.races.report import Report
from tests.races.stage import database_url
from tests.races.victims import Victims

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SEED = int(os.environ.get("RACES_SEED", "0")) or int(time.time())


@pytest.fixture(scope="module")
def crew(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Crew]:
    """Four processes with thirteen threads each, on the test database, with the real limits."""
    with Crew(database_url(str(connection.settings_dict["NAME"])), processes=4, threads=13, RACES_LIMITS="real") as racers:
        yield racers


def _nothing_went_wrong(report: Report) -> None:
    print(f"{report.race} on {report.database}: {dict(report.figures)}")  # shown by pytest -rP
    assert not report.violations, "\n".join(report.violations)


# --- Exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.1")
def test_of_50_wrong_guesses_over_all_paths_exactly_five_are_compared(crew: Crew) -> None:
    _nothing_went_wrong(guesses.burst(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_so_it_is_with_the_hash_of_production(crew: Crew) -> None:
    _nothing_went_wrong(guesses.argon2_burst(crew, rounds=2, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_the_right_password_as_the_20th_of_a_burst_stays_out(crew: Crew) -> None:
    _nothing_went_wrong(guesses.right_in_burst(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_an_attempt_whose_process_is_killed_stays_counted(crew: Crew) -> None:
    with Victims(database_url(str(connection.settings_dict["NAME"]))) as victims:
        _nothing_went_wrong(guesses.killed_in_flight(crew, victims, rounds=5, seed=SEED))


def test_a_late_answer_of_an_attempt_given_up_settles_nothing(crew: Crew) -> None:
    _nothing_went_wrong(guesses.late_settle(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_exceptions_after_and_in_the_check_take_nothing_back(crew: Crew) -> None:
    _nothing_went_wrong(guesses.broken_later(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_what_is_no_complete_sign_in_of_that_person_clears_nothing(crew: Crew) -> None:
    _nothing_went_wrong(guesses.nothing_clears(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.3.1")
def test_of_30_wrong_codes_five_are_compared(crew: Crew) -> None:
    _nothing_went_wrong(guesses.wrong_codes_at_once(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("6.5.1")
def test_one_code_opens_one_session(crew: Crew) -> None:
    _nothing_went_wrong(guesses.one_code(crew, rounds=6, seed=SEED))


@pytest.mark.asvs("2.4.1", "6.3.1")
def test_an_address_is_shut_after_50_wrong_guesses_but_not_for_known_browsers(crew: Crew) -> None:
    _nothing_went_wrong(guesses.one_address(crew, rounds=5, seed=SEED))


# --- Not to be turned against its owner -----------------------------------------------------------------------------


@pytest.mark.asvs("6.1.1")
def test_50_valid_sign_ins_at_once_all_get_in(crew: Crew) -> None:
    _nothing_went_wrong(guesses.valid(crew, rounds=5, seed=SEED))


def test_so_they_do_with_the_hash_of_production(crew: Crew) -> None:
    _nothing_went_wrong(guesses.argon2_valid(crew, rounds=2, seed=SEED))


@pytest.mark.asvs("6.1.1")
def test_guessers_do_not_keep_the_owner_out_of_a_known_browser(crew: Crew) -> None:
    _nothing_went_wrong(guesses.owner_in_burst(crew, rounds=5, seed=SEED))


@pytest.mark.asvs("15.4.3")
def test_buckets_in_every_combination_wait_for_nothing_forever(crew: Crew) -> None:
    _nothing_went_wrong(guesses.ledger_medley(crew, rounds=2, seed=SEED))
