"""Races between real processes: what happens at once must come out as if one had come after the other.

`crew` holds the processes, `acts` what they do, `stage` the people and sessions they do it to, `rounds` and `http` the races.
The suite runs a few rounds of each (tests/test_races.py), `make races` many, on both databases. By hand, on DATABASE_URL:
`python -m tests.races end_against_everything --rounds 1000 --seed 7`.
"""
