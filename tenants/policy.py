"""What a tenant asks of its people, and the platform's defaults (design, section 8). Durations are timedeltas."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self

# The platform's part: one sign-in at the portal.
PORTAL_IDLE = timedelta(hours=8)
PORTAL_ABSOLUTE = timedelta(hours=24)
REMEMBERED_IDLE = timedelta(days=14)
REMEMBERED_ABSOLUTE = timedelta(days=30)

STEP_UP = timedelta(minutes=10)  # how long a proof lets somebody do what is dangerous
TICKET = timedelta(seconds=60)
STATE = timedelta(minutes=10)
LINK = timedelta(hours=1)
OPERATOR_LINK = timedelta(hours=24)
GRACE = timedelta(seconds=10)  # how long the key before a step-up still opens the door for requests in flight

LOOP_WINDOW = timedelta(seconds=20)
LOOP_STARTS = 4

KEEP_ENDED = timedelta(days=90)
KEEP_EVENTS = timedelta(days=400)

SHORTEST_IDLE = timedelta(minutes=5)


@dataclass(frozen=True)
class Policy:
    """A tenant's own limits. `Tenant.policy` stores the fields that differ, durations in whole seconds."""

    idle: timedelta = timedelta(hours=8)
    absolute: timedelta = timedelta(hours=24)
    remembered: bool = True  # may a remembered portal session keep a branch for as long as itself?

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        """The policy behind a tenant's stored JSON.

        Raises ValueError with the cure for a name or value that does not fit.
        """
        known = {field.name: field.type for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in stored.items():
            if name not in known:
                raise ValueError(f"There is no policy “{name}”. Choose from: {', '.join(known)}.")
            if name == "remembered":
                if not isinstance(value, bool):
                    raise ValueError("The policy “remembered” is true or false.")
                values[name] = value
            else:
                if isinstance(value, bool) or not isinstance(value, int):
                    raise ValueError(f"The policy “{name}” is a number of whole seconds.")
                values[name] = timedelta(seconds=value)
        policy = cls(**values)
        if policy.idle < SHORTEST_IDLE:
            raise ValueError("The idle limit is at least 5 minutes (300 seconds).")
        if policy.absolute < SHORTEST_IDLE:
            raise ValueError("The absolute limit is at least 5 minutes (300 seconds).")
        return policy

    def idle_limit(self, *, persistent: bool) -> timedelta:
        """How long a branch may lie unused, under a remembered portal session or a plain one; never longer than the tree."""
        return REMEMBERED_IDLE if persistent and self.remembered else min(self.idle, PORTAL_IDLE)

    def absolute_limit(self, *, persistent: bool) -> timedelta:
        """How old the proof behind a branch may become."""
        return REMEMBERED_ABSOLUTE if persistent and self.remembered else self.absolute
