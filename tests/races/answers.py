"""What racers do to the ledger: type secrets, right and wrong ones, by every path; each answer says what was really compared.

`watch` wraps the lowest level in the racer's process: a hasher's verify, an authenticator's `accepts`, a recovery code's hash.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.races.acts import PASSWORD, Act, Answer, Broken, ask

if TYPE_CHECKING:
    from identity.models import TotpDevice

NEW_PASSWORD = "quiet harbour lantern"
WRONG = "no password of the races"
HASHERS = {"cheap": "django.contrib.auth.hashers.MD5PasswordHasher", "argon2": "identity.hashers.Argon2id"}


@dataclass(frozen=True, slots=True)
class Item:
    """One request that brings a secret. `way`: form, json (perhaps with a code), step_up, password, broken; half-way: code, json_code."""

    way: str
    name: str = ""
    password: str = WRONG
    code: str = ""
    address: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds that a comparison takes longer
    breaks: bool = False  # the comparison raises
    when: tuple[int, str, int] | None = None  # begin only when this person's bucket of that kind has so many attempts
    until_round: int = 0  # of this person: the comparison takes until the ledger has given the flight up


@dataclass(slots=True)
class Typed:
    """What came of an item."""

    way: str
    status: int
    compared: list[str]  # stored hashes, "totp:<id>" of authenticators
    cookies: dict[str, str]
    retry_after: str = ""

    @property
    def is_in(self) -> bool:
        from django.conf import settings

        return bool(self.cookies.get(settings.SESSION_COOKIE_NAME))


# --- Watching -------------------------------------------------------------------------------------------------------


class _Now(threading.local):
    """What the request in this thread compares, and how."""

    def __init__(self) -> None:
        self.item = Item("")
        self.compared: list[str] = []


_now = _Now()
inside: list[Callable[[], None]] = []  # called when a comparison has begun: a victim says that it may be killed


def watch() -> None:
    """Note every comparison from now on. Once in a process."""
    from argon2.exceptions import HashingError
    from django.contrib.auth import hashers

    from identity import factors

    def noted(what: str) -> None:
        _now.compared.append(what)
        for call in inside:
            call()
        if _now.item.breaks:
            raise HashingError("no memory left")
        if _now.item.until_round:
            _wait_for_bucket(_now.item.until_round, lambda row: bool(row.round))
        if _now.item.pause:
            time.sleep(_now.item.pause)

    def watch_hasher(kind: Any) -> None:
        verify = kind.verify

        def watched(self: Any, password: str, encoded: str) -> bool:
            noted(encoded)
            return bool(verify(self, password, encoded))

        kind.verify = watched

    watch_hasher(hashers.MD5PasswordHasher)
    watch_hasher(hashers.Argon2PasswordHasher)
    accepts, hashed_like = factors.accepts, factors._hashed_like

    def watched_accepts(device: "TotpDevice", token: str) -> bool:
        noted(f"totp:{device.pk}")
        return accepts(device, token)

    def watched_hash(code: str, encoded: str) -> str:
        noted(encoded)
        return hashed_like(code, encoded)

    factors.accepts, factors._hashed_like = watched_accepts, watched_hash


def _wait_for_bucket(user: int, is_so: Callable[[Any], bool], kind: str = "person", seconds: float = 30) -> None:
    """Until a bucket of this person is so."""
    from identity.models import Bucket

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        row = Bucket.objects.filter(user_id=user, kind=kind).first()
        if row and is_so(row):
            return
        time.sleep(random.uniform(0.005, 0.03))
    raise TimeoutError("the bucket never came to that")


# --- Acts -----------------------------------------------------------------------------------------------------------


def arm(hasher: str = "cheap", tries_factor: int = 0) -> Act:
    """Set this process up for a race: how passwords are hashed, and another limit for codes."""
    from django.conf import settings
    from django.core.signals import setting_changed

    from identity import backends
    from tenants import policy

    def act() -> None:
        if not _armed:
            watch()
            _armed.append(policy.TRIES_FACTOR)
        settings.PASSWORD_HASHERS = [HASHERS[hasher]]
        setting_changed.send(None, setting="PASSWORD_HASHERS", value=None, enter=True)
        backends._nobody.cache_clear()
        policy.TRIES_FACTOR = tries_factor or _armed[0]

    return act


_armed: list[int] = []


def answer(items: list[Item]) -> Act:
    """Bring these secrets, one after the other."""
    return lambda: [_bring(item) for item in items]


def _bring(item: Item) -> Typed:
    if item.when:
        person, kind, number = item.when
        _wait_for_bucket(person, lambda row: row.failed + row.flying >= number, kind)
    with _comparing(item) as compared:
        try:
            came = _ask(item)
        except Broken:
            if item.way != "broken" and not item.breaks:
                raise
            return Typed(item.way, 500, compared, {})
    assert came.status in {200, 302, 401, 429}, came
    return Typed(item.way, came.status, compared, came.cookies, came.headers.get("Retry-After", ""))


@contextmanager
def _comparing(item: Item) -> Iterator[list[str]]:
    _now.item, _now.compared = item, []
    try:
        yield _now.compared
    finally:
        _now.item = Item("")


def _ask(item: Item) -> Answer:
    from django.conf import settings

    host, cookies, address = settings.PORTAL_HOST, item.cookies, item.address
    proof = {"password": item.password, **({"code": item.code} if item.code else {})}
    if item.way == "json":
        return ask(host, "/api/v1/login", cookies, body=json.dumps({"username": item.name, **proof}), address=address)
    if item.way == "json_code":
        return ask(host, "/api/v1/login", cookies, body=json.dumps({"code": item.code}), address=address)
    if item.way == "password":
        form = {"old_password": item.password, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        return ask(host, "/account/password/", cookies, form=form, address=address)
    path = {"form": "/login/", "step_up": "/step-up/", "code": "/login/code/", "broken": "/races/broken"}[item.way]
    return ask(host, path, cookies, form={"username": item.name, **proof}, address=address)


@dataclass(slots=True)
class Medley:
    """The people, addresses and browsers of a medley."""

    people: list[tuple[int, str]]
    addresses: list[str]
    devices: dict[int, list[str]]  # cookies of known browsers
    half_ways: list[dict[str, str]]  # cookies of people whose password was right


def ledger_medley(seed: int, seconds: float, scene: Medley) -> Act:
    """Random attempts and releases by few people for some seconds; returns how many of each. What breaks raises."""
    chance = random.Random(seed)

    def act() -> Counter[str]:
        done: Counter[str] = Counter()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done[_step(chance, scene)] += 1
        return done

    return act


def _step(chance: random.Random, scene: Medley) -> str:
    from django.db.models import F
    from django.utils import timezone

    from identity import factors, known, ledger
    from identity.models import Bucket, User
    from tenants import policy

    names = {"wrong": 8, "right": 6, "known": 4, "wrong code": 6, "release": 4, "prune": 2, "forget": 1, "new codes": 1, "time": 2}
    what = chance.choices(list(names), list(names.values()))[0]
    user, name = chance.choice(scene.people)
    address = chance.choice(scene.addresses)
    if what in {"wrong", "right", "known"}:
        cookies = {"device": chance.choice(scene.devices[user])} if what == "known" else {}
        password = WRONG if what == "wrong" else PASSWORD
        _bring(Item(chance.choice(["form", "json"]), name, password, address=address, cookies=cookies, pause=chance.uniform(0, 0.004)))
    elif what == "wrong code":
        code = chance.choice(["000000", "ABCDEFGHIJKLMNOP"])
        _bring(Item(chance.choice(["code", "json_code"]), code=code, address=address, cookies=chance.choice(scene.half_ways)))
    elif what == "release":
        if chance.random() < 0.5:
            ledger.release_person(User.objects.get(pk=user), by=None, reason="a race")
        else:
            ledger.release(list(Bucket.objects.values_list("pk", flat=True)), by=None, reason="a race")
    elif what == "prune":
        old = timezone.now() - policy.FORGOTTEN - policy.FLIGHT
        some = list(Bucket.objects.filter(flying=0).values_list("pk", flat=True))
        for pk in chance.sample(some, len(some) // 2):  # one by one: the test must not be what locks in a wrong order
            Bucket.objects.filter(pk=pk, flying=0).update(failed=0, locked_at=None, locked_until=None, touched_at=old)
        ledger.prune()
    elif what == "time":
        for pk in Bucket.objects.filter(locked_at__isnull=False).values_list("pk", flat=True):
            Bucket.objects.filter(pk=pk).update(locked_until=F("locked_at"))
    elif what == "forget":
        with suppress(IndexError):
            device = chance.choice(known.trusted(User.objects.get(pk=user)))
            known.revoke(device.user, device.pk)
    else:
        factors.make_recovery_codes(User.objects.get(pk=user))
    return what


ACTS: dict[str, Callable[..., Act]] = {"arm": arm, "answer": answer, "ledger_medley": ledger_medley}
