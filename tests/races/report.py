"""What comes of a race. Needs no Django, so that whoever starts the races can read it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.races.crew import Outcome


@dataclass(slots=True)
class Report:
    """What a race came to. Violations name the seed and the round, so that it can be run again (`--seed`, `--first`)."""

    race: str
    rounds: int
    seed: int
    database: str = ""
    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def against(self, number: int, text: str) -> None:
        self.violations.append(f"{self.race}, seed {self.seed}, round {number}: {text}")

    def broke(self, number: int, outcomes: Iterable[Outcome]) -> bool:
        """Whether a racer raised: a 500, a deadlock, a locked database."""
        errors = [outcome.error for outcome in outcomes if outcome.error]
        for error in errors:
            self.against(number, "a racer broke down: " + " | ".join(error.strip().splitlines()[-6:]))
        return bool(errors)

    def must_have_happened(self, *names: str) -> None:
        """A race in which one side always came first has tested nothing."""
        for name in names:
            if not self.figures[name] and self.rounds >= 10:
                self.violations.append(f"{self.race}, seed {self.seed}: in {self.rounds} rounds it never happened: {name}")

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}
