"""Races between real processes: what happens at once must come out as if one had come after the other.

`crew` holds the processes, `victims` those that die on the way; `acts` and `answers` are what they do, `stage` the people and
sessions they do it to; `rounds`, `guesses` (of the ledger) and `over_http` are the races. The suite runs a few rounds of each
(tests/test_races.py, tests/test_ledger_races.py), `make races` many, on both databases. By hand, on DATABASE_URL:
`python -m tests.races end_against_everything --rounds 1000 --seed 7`.
"""
