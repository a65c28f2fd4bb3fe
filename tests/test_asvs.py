"""The scoreboard of the ASVS counts what is marked, and refuses what cannot be true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import asvs

pytest_plugins = ["pytester"]


def test_every_mark_names_a_requirement_that_applies() -> None:
    environment = {**os.environ, "TEST_DATABASE": "sqlite"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.asvs", "--open", "--tests"],
        cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/test_passwords.py::test_eight_characters_are_the_least\n" in done.stdout


def test_marks_of_functions_classes_modules_and_cases_count(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.asvs("1.1.1")
        @pytest.mark.asvs("6.2.1", "6.2.5")
        class TestWords:
            @pytest.mark.asvs("6.2.9")
            @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.asvs("6.2.10"))])
            def test_one(self, n): pass
        """
    )
    pytester.makeini("[pytest]\nmarkers = asvs(requirement): proves it")
    marks = asvs.Marks()
    pytester.inline_run("--collect-only", "-p", "no:django", plugins=[marks])
    (test,) = {name for tests in marks.tests.values() for name in tests}
    assert test.endswith("::TestWords::test_one")
    assert dict(marks.tests) == {name: [test] for name in ("1.1.1", "6.2.1", "6.2.5", "6.2.9", "6.2.10")}


def test_a_mark_that_cannot_be_true_is_refused_with_the_cure() -> None:
    known = asvs.requirements()
    assert asvs.wrong_marks(known, ["6.2.1", "17.1.1", "V6.2.1", "6.2.99"]) == [
        "17.1.1 does not apply here, says tests/asvs.csv. Change one of the two.",
        "There is no requirement “6.2.99”: write the number as in tests/asvs.csv, without the V.",
        "There is no requirement “V6.2.1”: write the number as in tests/asvs.csv, without the V.",
    ]


def test_the_scoreboard_adds_up() -> None:
    known = asvs.requirements()
    assert len(known) == 345
    known["6.2.1"].tests = ["a test"]
    *_, everything = asvs.scoreboard(known.values())
    applies = sum(each.applies for each in known.values())
    assert everything.split()[-4:] == ["1", "of", str(applies), str(applies - 1)]
