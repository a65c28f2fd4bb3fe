"""`make asvs`: which requirements of the OWASP ASVS 5.0 have a test that proves them, by the marks that pytest itself collects.

tests/asvs.csv has every requirement, paraphrased, and whether it applies. A test says what it proves with
`@pytest.mark.asvs("7.4.1")`, or its class or module does. The tests are collected and not run: `make test` runs them.
"""

import argparse
import contextlib
import csv
import io
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHAPTERS = (
    "Encoding and sanitization", "Validation and business logic", "Web frontend", "API and web service", "File handling",
    "Authentication", "Session management", "Authorization", "Self-contained tokens", "OAuth and OIDC", "Cryptography",
    "Secure communication", "Configuration", "Data protection", "Secure coding and architecture", "Logging and errors", "WebRTC",
)  # fmt: skip
LEVELS = (1, 2, 3)


@dataclass
class Requirement:
    id: str  # "7.4.1"
    level: int
    applies: bool
    text: str
    tests: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.id:<8}level {self.level}  {self.text}"

    @property
    def chapter(self) -> int:
        return int(self.id.partition(".")[0])


def requirements() -> dict[str, Requirement]:
    with Path(__file__).with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [Requirement(row["id"].removeprefix("V"), int(row["level"]), row["applies"] == "y", row["paraphrase"]) for row in rows]
    return {each.id: each for each in found}


class Marks:
    """A plugin that notes what each collected test says it proves; the cases of one test count once."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            name = item.nodeid.partition("[")[0]
            for mark in item.iter_markers("asvs"):
                for requirement in mark.args:
                    if name not in self.tests[requirement]:
                        self.tests[requirement].append(name)


def wrong_marks(known: dict[str, Requirement], marked: Iterable[str]) -> list[str]:
    """Why marks cannot be right, with the cure."""
    wrong = []
    for name in sorted(set(marked)):
        if name not in known:
            wrong.append(f"There is no requirement “{name}”: write the number as in tests/asvs.csv, without the V.")
        elif not known[name].applies:
            wrong.append(f"{name} does not apply here, says tests/asvs.csv. Change one of the two.")
    return wrong


def scoreboard(known: Iterable[Requirement]) -> list[str]:
    """A line for each chapter and one for all: proven of those that apply, by level, and what is open."""
    known = [each for each in known if each.applies]
    lines = [f"{'':<36}{'level 1':>11}{'level 2':>11}{'level 3':>11}{'all':>11}{'open':>7}", f"{'':<36}{'proven of what applies':>44}"]
    for number, name in enumerate(CHAPTERS, 1):
        lines.append(_line(f"V{number}", name, [each for each in known if each.chapter == number]))
    return [*lines, _line("", "all", known)]


def _line(number: str, name: str, some: list[Requirement]) -> str:
    cells = [[each for each in some if each.level == level] for level in LEVELS] + [some]
    proven = [sum(bool(each.tests) for each in cell) for cell in cells]
    counts = "".join(f"{f'{n} of {len(cell)}' if cell else '–':>11}" for n, cell in zip(proven, cells, strict=True))
    return f"{number:<4}{name:<32}{counts}{len(some) - proven[-1]:>7}"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.asvs", description=__doc__.partition("\n")[0])
    options.add_argument("--open", action="store_true", help="also what applies and is not proven yet")
    options.add_argument("--tests", action="store_true", help="also which tests prove what")
    chosen = options.parse_args()

    marks, known, said = Marks(), requirements(), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["--collect-only", "-qq"], plugins=[marks])
    wrong = wrong_marks(known, marks.tests) if status == pytest.ExitCode.OK else [said.getvalue(), "The tests cannot be collected."]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    for name, tests in marks.tests.items():
        known[name].tests = tests
    print(*scoreboard(known.values()), sep="\n")
    if chosen.open:
        print("\nOpen:", *(each for each in known.values() if each.applies and not each.tests), sep="\n")
    if chosen.tests:
        print("\nProven:", *("\n    ".join([str(each), *each.tests]) for each in known.values() if each.tests), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
