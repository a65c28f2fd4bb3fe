"""What a tenant asks of its people, and the platform's defaults (design, section 8). Durations are timedeltas."""

import contextlib
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Self

from tenants import hosts

# The platform's part: one sign-in at the portal.
PORTAL_IDLE = timedelta(hours=8)
PORTAL_ABSOLUTE = timedelta(hours=24)
REMEMBERED_IDLE = timedelta(days=14)
REMEMBERED_ABSOLUTE = timedelta(days=30)

STEP_UP = timedelta(minutes=10)  # how long a proof lets somebody do what is dangerous
TICKET = timedelta(seconds=60)
STATE = timedelta(minutes=10)
LINK = timedelta(hours=1)
VERIFY_LINK = timedelta(hours=24)
TAKE_BACK_LINK = timedelta(days=7)
NOT_ME_LINK = timedelta(days=7)
INVITATION = timedelta(days=7)
DELETION = timedelta(days=7)  # how long somebody who asked to be deleted may come back
OPERATOR_LINK = timedelta(hours=24)
GRACE = timedelta(seconds=10)  # how long the key before a step-up still opens the door for requests in flight

LOOP_WINDOW = timedelta(seconds=20)
LOOP_STARTS = 4

HALF_WAY = timedelta(minutes=5)  # between the password and the code
TRUSTED_BROWSER = timedelta(days=30)
KNOWN_DEVICES = 20  # of one person

# The ledger's limits (design, section 6): how many wrong answers a lock needs, and how long it lasts, doubling from the
# first figure to the second.
TRIES_UNKNOWN = 5  # of a person, from browsers that are not known
KNOWN_TIMES = 2  # from one known browser that many times as many
TRIES_FACTOR = 5
TRIES_ADDRESS, ADDRESS_WINDOW = 50, timedelta(minutes=10)
LOCK = (timedelta(minutes=1), timedelta(hours=1))
FACTOR_LOCK = (timedelta(minutes=1), timedelta(minutes=15))
FLIGHT = timedelta(seconds=60)  # an answer that is being checked for longer counts as wrong: its worker died
FORGOTTEN = timedelta(hours=24)  # after that long without a wrong answer the next lock is a short one again
SIGN_UPS = 100  # from one address within its window; each sends a mail to whatever address was typed
ALARM_TENANT, ALARM_PLATFORM, ALARM_WINDOW = 50, 250, timedelta(minutes=10)

KEEP_ENDED = timedelta(days=90)
KEEP_EVENTS = timedelta(days=400)
KEEP_MAILS = timedelta(days=30)  # that left, or were given up

SHORTEST_IDLE = timedelta(minutes=5)


SECOND_FACTOR = ("off", "admins", "everyone")
SIGN_UP = ("closed", "invited", "domain", "open")


@dataclass(frozen=True)
class Policy:
    """A tenant's own limits. `Tenant.policy` stores the fields that differ, durations in whole seconds."""

    idle: timedelta = timedelta(hours=8)
    absolute: timedelta = timedelta(hours=24)
    remembered: bool = True  # may a remembered portal session keep a branch for as long as itself?
    second_factor: str = "off"  # who must have one: nobody, admins and owners, everyone
    grace_days: int = 0  # how long who must have one may do without
    trusted_browsers: bool = True  # may a trusted browser stand in for the code?
    tries: int = TRIES_UNKNOWN  # wrong passwords until a lock; a known browser has twice as many
    password_length: int = 8  # characters, at least
    password_length_alone: int = 8  # the same for who is not asked for a second factor
    sign_up: str = "invited"  # who becomes a member: nobody, who is invited, who has an address of these domains, everybody
    sign_up_domains: str = ""  # separated by commas
    approval: bool = False  # who comes without an invitation waits for an admin

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        """The policy behind a tenant's stored JSON.

        Raises ValueError with the cure for a name or value that does not fit.
        """
        known = {field.name: field.default for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in stored.items():
            if name not in known:
                raise ValueError(f"There is no policy “{name}”. Choose from: {', '.join(known)}.")
            values[name] = _fitting(name, value, known[name])
        return cls(**values)

    def __post_init__(self) -> None:
        if self.idle < SHORTEST_IDLE:
            raise ValueError("The idle limit is at least 5 minutes (300 seconds).")
        if self.absolute < SHORTEST_IDLE:
            raise ValueError("The absolute limit is at least 5 minutes (300 seconds).")
        if self.second_factor not in SECOND_FACTOR:
            raise ValueError(f"The policy “second_factor” is one of: {', '.join(SECOND_FACTOR)}.")
        if self.sign_up not in SIGN_UP:
            raise ValueError(f"The policy “sign_up” is one of: {', '.join(SIGN_UP)}.")
        if self.sign_up == "domain" and not self.domains:  # which says what is no domain
            raise ValueError("Say which domains: sign_up_domains=example.com,example.org")
        _within("grace_days", self.grace_days, 0, 365)
        _within("tries", self.tries, 1, TRIES_UNKNOWN)  # a tenant may be stricter than the platform, not laxer
        _within("password_length", self.password_length, 8, 64)
        _within("password_length_alone", self.password_length_alone, 8, 64)

    @property
    def stored(self) -> dict[str, Any]:
        """What `of` reads: the fields that differ from the platform's, durations in whole seconds."""
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {
            name: int(value.total_seconds()) if isinstance(value, timedelta) else value for name, value, usual in values if value != usual
        }

    def is_weaker_than(self, other: "Policy") -> bool:
        """Does it let anything pass that the other one does not? ASVS 7.5.1."""
        asks = self.second_factor != "off"
        return (
            self.idle > other.idle
            or self.absolute > other.absolute
            or self.remembered > other.remembered
            or SECOND_FACTOR.index(self.second_factor) < SECOND_FACTOR.index(other.second_factor)
            or (asks and self.grace_days > other.grace_days)
            or self.trusted_browsers > other.trusted_browsers
            or self.tries > other.tries
            or self.password_length < other.password_length
            or self.shortest_password(factor_asked=False) < other.shortest_password(factor_asked=False)
            or SIGN_UP.index(self.sign_up) > SIGN_UP.index(other.sign_up)
            or (self.sign_up == "domain" and not self.domains <= other.domains)
            or (self.sign_up in {"domain", "open"} and self.approval < other.approval)
        )

    @property
    def domains(self) -> frozenset[str]:
        """The domains of addresses that sign-up by domain lets in, as DNS knows them. Raises ValueError for what is none."""
        return frozenset(hosts.normalise(part) for part in self.sign_up_domains.split(",") if part.strip())

    def lets_in(self, address: str) -> bool:
        """May the owner of this proven address become a member without an invitation?"""
        if self.sign_up == "domain":
            with contextlib.suppress(hosts.BadHost):
                return hosts.normalise(address.rpartition("@")[2]) in self.domains
        return self.sign_up == "open"

    def idle_limit(self, *, persistent: bool) -> timedelta:
        """How long a branch may lie unused, under a remembered portal session or a plain one; never longer than the tree."""
        return REMEMBERED_IDLE if persistent and self.remembered else min(self.idle, PORTAL_IDLE)

    def absolute_limit(self, *, persistent: bool) -> timedelta:
        """How old the proof behind a branch may become."""
        return REMEMBERED_ABSOLUTE if persistent and self.remembered else self.absolute

    def shortest_password(self, *, factor_asked: bool) -> int:
        """In characters; longer for who signs in with nothing but a password, where a tenant says so."""
        return self.password_length if factor_asked else max(self.password_length, self.password_length_alone)


def _fitting(name: str, value: Any, default: Any) -> Any:
    """A stored value as the field's type. Raises ValueError with the cure."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"The policy “{name}” is true or false.")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise ValueError(f"The policy “{name}” is a word.")
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        unit = "number of whole seconds" if isinstance(default, timedelta) else "whole number, 0 or more"
        raise ValueError(f"The policy “{name}” is a {unit}.")
    return timedelta(seconds=value) if isinstance(default, timedelta) else value


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"The policy “{name}” is a number from {low} to {high}.")
