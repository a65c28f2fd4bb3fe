"""Run races on DATABASE_URL, whose database must have its tables: `python -m tests.races [RACE …] [--rounds N] [--seed N] [--first N]`."""

import argparse
import json
import os
import sys
import time

ROUNDS = {
    "ticket_against_end": 500,
    "end_against_everything": 10_000,
    "one_ticket_many_times": 100,
    "two_tabs_rotate": 400,
    "ends_exactly_once": 200,
    "sign_in_against_password": 500,
    "medley": 60,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.races", description="Races between real processes, on DATABASE_URL.")
    parser.add_argument("races", nargs="*", metavar="RACE", help=f"some of: {', '.join(ROUNDS)} (all of them if none is named)")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each race (seconds of medley)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual rounds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to repeat one")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each race")
    options = parser.parse_args()
    if unknown := set(options.races) - set(ROUNDS):
        parser.error(f"there is no race {', '.join(sorted(unknown))}")

    from tests.races import acts
    from tests.races.crew import Crew

    acts.set_up()

    from tests.races import rounds
    from tests.races.stage import Stage

    broken = False
    with Crew(os.environ["DATABASE_URL"], processes=4, threads=4) as crew:
        stage = Stage()
        for name in options.races or ROUNDS:
            wanted = options.rounds or max(int(ROUNDS[name] * options.scale), 1)
            report = rounds.RACES[name](crew, stage, rounds=wanted, seed=options.seed, first=options.first)
            broken = broken or bool(report.violations)
            if options.json:
                print(json.dumps(report.as_dict()), flush=True)
            else:
                print(f"{report.race}: {report.rounds} rounds, {len(report.violations)} violations, {report.seconds:.1f} s")
                print(f"  {dict(report.figures)}")
                for text in report.violations[:20]:
                    print(f"  {text}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
