"""Run races on DATABASE_URL, whose database must have its tables: `python -m tests.races [RACE …] [--rounds N] [--seed N] [--first N]`."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from tests.races.report import Report

ROUNDS = {
    "ticket_against_end": 500,
    "end_against_everything": 10_000,
    "one_ticket_many_times": 100,
    "two_tabs_rotate": 400,
    "ends_exactly_once": 200,
    "sign_in_against_password": 500,
    "medley": 60,
}
# The ledger's, with the real limits (tests/races/guesses.py).
GUESSES = {
    "burst": 200,
    "right_in_burst": 200,
    "argon2_burst": 60,
    "valid": 100,
    "argon2_valid": 40,
    "owner_in_burst": 200,
    "killed_in_flight": 200,
    "late_settle": 200,
    "broken_later": 200,
    "nothing_clears": 100,
    "wrong_codes_at_once": 200,
    "one_code": 400,
    "one_address": 60,
    "ledger_medley": 60,
}


def main() -> int:
    every = {**ROUNDS, **GUESSES}
    parser = argparse.ArgumentParser(prog="python -m tests.races", description="Races between real processes, on DATABASE_URL.")
    parser.add_argument("races", nargs="*", metavar="RACE", help=f"some of: {', '.join(every)} (all of them if none is named)")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each race (seconds of a medley)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual rounds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to repeat one")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each race")
    options = parser.parse_args()
    if unknown := set(options.races) - set(every):
        parser.error(f"there is no race {', '.join(sorted(unknown))}")
    os.environ["RACES_LIMITS"] = "real"  # for the ledger that judges

    from tests.races import acts

    acts.set_up()

    broken = False
    chosen = options.races or list(every)
    for name, race in _races([name for name in chosen if name in ROUNDS], [name for name in chosen if name in GUESSES]):
        wanted = options.rounds or max(int(every[name] * options.scale), 1)
        report = race(rounds=wanted, seed=options.seed, first=options.first)
        broken = broken or bool(report.violations)
        if options.json:
            print(json.dumps(report.as_dict()), flush=True)
        else:
            print(f"{report.race}: {report.rounds} rounds, {len(report.violations)} violations, {report.seconds:.1f} s")
            print(f"  {dict(report.figures)}")
            for text in report.violations[:20]:
                print(f"  {text}")
    return 1 if broken else 0


def _races(of_sessions: list[str], of_guesses: list[str]) -> Iterator[tuple[str, Callable[..., Report]]]:
    """The chosen races, each bound to a crew that is set up for it."""
    from tests.races import guesses, rounds
    from tests.races.crew import Crew
    from tests.races.stage import Stage
    from tests.races.victims import Victims

    database = os.environ["DATABASE_URL"]
    if of_sessions:
        with Crew(database, processes=4, threads=4, RACES_LIMITS="") as crew:
            stage = Stage()
            for name in of_sessions:
                yield name, partial(rounds.RACES[name], crew, stage)
    if of_guesses:
        with Crew(database, processes=4, threads=13) as crew, Victims(database) as victims:
            for name in of_guesses:
                if name == "killed_in_flight":
                    yield name, partial(guesses.killed_in_flight, crew, victims)
                else:
                    yield name, partial(guesses.RACES[name], crew)


if __name__ == "__main__":
    sys.exit(main())
