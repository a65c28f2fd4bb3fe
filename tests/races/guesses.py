"""The races of the ledger: what guessers do at once, in several processes, must lead to no more comparisons than the limits say.

Every round has people of its own. What is counted are comparisons with what is stored of that very person, at the lowest level
(`answers.watch`), not with the dummy hash that others get. The racers run with the real limits: RACES_LIMITS=real.
"""

import base64
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import BasePasswordHasher, MD5PasswordHasher
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django_otp.oath import TOTP

from identity import crypto, factors, ledger
from identity.halfway import HalfWay
from identity.hashers import SMALLEST, Argon2id
from identity.models import Bucket, KnownDevice, RecoveryCode, Session, TotpDevice, User
from tenants import policy
from tenants.models import Membership, Tenant
from tests.races.acts import PASSWORD
from tests.races.answers import WRONG, Item, Medley, Typed
from tests.races.crew import Crew, Outcome, Task
from tests.races.report import Report
from tests.races.rounds import race
from tests.races.stage import chance_of, tree
from tests.races.victims import Victims

CROWD = 50  # a burst; a crew for these races has as many racers at least
Kind = Bucket.Kind


# --- The people -----------------------------------------------------------------------------------------------------


def newcomers(number: int, *, hasher: str = "cheap") -> list[User]:
    """People whom the ledger has never seen, each with a hash that nobody else has; their addresses are verified."""
    kind: BasePasswordHasher = Argon2id() if hasher == "argon2" else MD5PasswordHasher()
    people = []
    for _one in range(number):
        name = f"Guessed{secrets.token_hex(5)}"
        person = User(username=name, email=f"{name}@races.example", email_verified_at=timezone.now())
        person.password = kind.encode(PASSWORD, kind.salt())
        people.append(person)
    with transaction.atomic():
        for person in people:
            person.save()
    return people


class _Quick(Argon2id):
    """For recovery codes that are made by the dozen; what is compared with them is hashed as they are."""

    time_cost, memory_cost = 1, SMALLEST


def with_factor(person: User) -> tuple[TotpDevice, list[str]]:
    """Give somebody an authenticator and ten recovery codes."""
    device = factors.enrolment(person)
    TotpDevice.objects.filter(pk=device.pk).update(confirmed=True, name="a phone")
    codes, salt, now = [base64.b32encode(secrets.token_bytes(10)).decode() for _n in range(10)], _Quick().salt(), timezone.now()
    RecoveryCode.objects.bulk_create([RecoveryCode(user=person, encoded=_Quick().encode(code, salt), made_at=now) for code in codes])
    return device, codes


def spellings(person: User) -> list[str]:
    """Names that all mean this person: NFKC and case do not matter, and the verified address is as good."""
    name, mail = person.username, person.email
    wide = "".join(chr(ord(char) + 0xFEE0) for char in name)  # full-width letters
    return [name, name.upper(), name.swapcase(), wide, wide.upper(), mail, mail.upper(), f"  {name} "]


def addresses(chance: Random, number: int) -> list[str]:
    return [f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}" for _n in range(number)]


def known_browser(person: User) -> str:
    """The value of a device cookie that is good for this person."""
    secret, now = secrets.token_urlsafe(32), timezone.now()
    KnownDevice.objects.create(user=person, digest=crypto.digest(secret), created_at=now, last_seen_at=now)
    return f"{person.pk}.{secret}"


def half_way(person: User) -> dict[str, str]:
    """The cookie of a browser in which this person's password was right."""
    return {str(settings.HALF_WAY_COOKIE_NAME): HalfWay.begin(person, remember=False).text}


def wrong_codes(device: TotpDevice, number: int, chance: Random) -> list[str]:
    """Codes that this authenticator does not show now, nor soon; every fourth looks like a recovery code."""
    totp = TOTP(base64.b32decode(factors.text_key(device)), step=factors.STEP)
    shown: set[int] = set()
    found: list[str] = []
    for step in range(-5, 10):
        totp.drift = step
        shown.add(totp.token())
    while len(found) < number:
        code = chance.randrange(1_000_000)
        if len(found) % 4 == 3:
            found.append(base64.b32encode(chance.randbytes(10)).decode())
        elif code not in shown:
            found.append(f"{code:06d}")
    return found


def bucket(person: User, kind: Bucket.Kind = Kind.PERSON) -> Bucket | None:
    return Bucket.objects.filter(user=person, kind=kind).first()


def as_if_later(rows: Any, **delta: int) -> None:
    """As if so much time had passed for these buckets."""
    shift = timedelta(**delta)
    for row in rows:
        moments = {name: getattr(row, name) for name in ("touched_at", "started_at", "locked_at", "locked_until")}
        Bucket.objects.filter(pk=row.pk).update(**{name: moment - shift for name, moment in moments.items() if moment})


# --- The rounds -----------------------------------------------------------------------------------------------------


@contextmanager
def _armed(crew: Crew, name: str, rounds: int, seed: int, **arms: Any) -> Iterator[Report]:
    """A race by racers that are set up for it."""
    crew.everywhere("arm", **arms)
    with race(name, rounds, seed) as report:
        yield report
    crew.everywhere("arm")


def _run(crew: Crew, report: Report, number: int, items: Sequence[Item | list[Item]], after: Sequence[float] = ()) -> list[Typed] | None:
    """Everybody brings his items at once; what came of all of them, or None if somebody broke down."""
    lists = [item if isinstance(item, list) else [item] for item in items]
    delays = after or [0.0] * len(lists)
    outcomes: list[Outcome] = crew.run([[Task("answer", {"items": one}, delay) for one, delay in zip(lists, delays, strict=True)]])[0]
    if report.broke(number, outcomes):
        return None
    return [typed for outcome in outcomes for typed in outcome.result]


def _compared(done: Sequence[Typed], stored: str) -> int:
    return sum(typed.compared.count(stored) for typed in done)


def _must_be(report: Report, number: int, row: Bucket | None, *, failed: int, locked: bool) -> None:
    """How a bucket must stand when everybody is done."""
    found = (row.failed, row.flying, row.locked_at is not None) if row else None
    if found != (failed, 0, locked):
        what = row.kind if row else "person"
        report.against(number, f"the bucket of the {what} is {found}, not {(failed, 0, locked)} (failed, flying, locked)")


def _tally(report: Report, count: int, asked: int) -> None:
    report.figures[f"{count} of {asked} compared"] += 1


# --- a, b. A burst of wrong guesses ---------------------------------------------------------------------------------

WAYS = ("form", "json", "step_up", "password")


def _burst(person: User, chance: Random, favourite: str, hasher: str) -> list[Item]:
    """50 wrong guesses by every path, in every spelling, from many addresses; the first that is counted is of the favourite path.

    Step-up and current password come from browsers that hold a session of that person, and nothing that makes them known.
    """
    cookies = {str(settings.SESSION_COOKIE_NAME): tree(person).keys[""][0]}
    named, at = spellings(person), addresses(chance, 20)
    ways = chance.choices(["form", "json"], k=CROWD - 14) + ["step_up"] * 8 + ["password"] * 6
    chance.shuffle(ways)
    items = []
    for way in ways:
        held = cookies if way in {"step_up", "password"} else {}
        pause = 0.0 if hasher == "argon2" else chance.uniform(0, 0.02)
        when = (person.pk, "person", 1) if favourite and way != favourite else None
        items.append(Item(way, chance.choice(named), WRONG, address=chance.choice(at), cookies=held, pause=pause, when=when))
    return items


def burst(crew: Crew, *, rounds: int, seed: int, first: int = 0, hasher: str = "cheap") -> Report:
    """50 parallel wrong guesses over all paths: exactly as many comparisons as the limit says; the strictest tenant sets it."""
    with _armed(crew, f"50 wrong guesses, {hasher} hash", rounds, seed, hasher=hasher) as report:
        strict = Tenant.objects.create(slug=f"strict-{secrets.token_hex(4)}", name="strict", policy={"tries": 3})
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1, hasher=hasher)
            limit = 5
            if number % 5 == 4:
                Membership.objects.create(tenant=strict, user=person)
                limit = 3
            nameless = Bucket.objects.filter(kind=Kind.PERSON, user=None).count()
            done = _run(crew, report, number, _burst(person, chance, WAYS[number % len(WAYS)], hasher))
            if done is None:
                continue
            count = _compared(done, person.password)
            _tally(report, count, len(done))
            for typed in done:
                report.figures[f"compared by {typed.way}"] += len(set(typed.compared) & {person.password})
            if count != limit:
                report.against(number, f"{count} comparisons against the person's hash, the limit is {limit}")
            if any(typed.is_in for typed in done):
                report.against(number, "a wrong password opened a session")
            if any(typed.status != (401 if typed.way == "json" else 200) for typed in done):
                report.against(number, f"not all were answered alike: {Counter((typed.way, typed.status) for typed in done)}")
            _must_be(report, number, bucket(person), failed=limit, locked=True)
            if Bucket.objects.filter(kind=Kind.PERSON, user=None).count() != nameless:
                report.against(number, "a spelling has a bucket of its own")
        report.must_have_happened(*(f"compared by {way}" for way in WAYS))
    return report


def right_in_burst(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """The right password, started as the 20th of 50 when the wrong ones before it fill the bucket, stays out."""
    with _armed(crew, "the right password as the 20th of 50", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1)
            items = _burst(person, chance, "", "cheap")
            after = sorted(chance.uniform(0, 0.01) for _n in range(19)) + sorted(chance.uniform(0.01, 0.1) for _n in range(CROWD - 19))
            way, spelled = chance.choice(["form", "json"]), chance.choice(spellings(person))
            items[19] = Item(way, spelled, PASSWORD, address=addresses(chance, 1)[0], when=(person.pk, "person", 5))
            done = _run(crew, report, number, items, after)
            if done is None:
                continue
            count = _compared(done, person.password)
            _tally(report, count, len(done))
            if count != 5 or done[19].compared.count(person.password):
                report.against(number, f"{count} comparisons, {done[19].compared.count(person.password)} of them of the right password")
            if any(typed.is_in for typed in done):
                report.against(number, "the right password was let in")
            _must_be(report, number, bucket(person), failed=5, locked=True)
            if Session.objects.filter(user=person).count() != 1:
                report.against(number, "a session was opened")
            report.figures["kept out"] += not done[19].is_in
    return report


# --- c, d. The owner ------------------------------------------------------------------------------------------------


def valid(crew: Crew, *, rounds: int, seed: int, first: int = 0, hasher: str = "cheap") -> Report:
    """50 valid sign-ins at once from browsers that nobody knows, from many addresses or one office: all get in."""
    with _armed(crew, f"50 valid sign-ins, {hasher} hash", rounds, seed, hasher=hasher) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1, hasher=hasher)
            at, named = addresses(chance, 1 if number % 2 else CROWD), spellings(person)
            pause = 0.0 if hasher == "argon2" else 0.02
            items = [
                Item(
                    chance.choice(["form", "json"]),
                    chance.choice(named),
                    PASSWORD,
                    address=chance.choice(at),
                    pause=chance.uniform(0, pause),
                )
                for _n in range(CROWD)
            ]
            done = _run(crew, report, number, items)
            if done is None:
                continue
            let_in = sum(typed.is_in for typed in done)
            report.figures[f"{let_in} of {CROWD} let in"] += 1
            if let_in != CROWD or Session.objects.filter(user=person, ended_at=None).count() != CROWD:
                report.against(number, f"{let_in} of {CROWD} were let in: {Counter(typed.status for typed in done)}")
            _must_be(report, number, bucket(person), failed=0, locked=False)
            if flying := Bucket.objects.filter(kind=Kind.ADDRESS, flying__gt=0).count():
                report.against(number, f"{flying} addresses have attempts in flight")
            if (devices := KnownDevice.objects.filter(user=person).count()) > policy.KNOWN_DEVICES + 5:
                report.against(number, f"{devices} known browsers")
    return report


def owner_in_burst(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Guessers and valid sign-ins from unknown browsers, at once with the owner on browsers that are known: he is always let in.

    Between two complete sign-ins from unknown browsers there are five comparisons at most.
    """
    with _armed(crew, "the owner, valid and wrong, at once", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1)
            named, at = spellings(person), addresses(chance, 8)
            own = [{str(settings.DEVICE_COOKIE_NAME): known_browser(person)} for _n in range(3)]
            who = ["wrong"] * 30 + ["valid"] * 8 + ["owner"] * 12
            chance.shuffle(who)
            items = []
            for n, each in enumerate(who):
                way, password = chance.choice(["form", "json"]), WRONG if each == "wrong" else PASSWORD
                item = Item(way, chance.choice(named), password, address=chance.choice(at), pause=chance.uniform(0, 0.02))
                items.append(replace(item, cookies=own[n % 3]) if each == "owner" else item)
            done = _run(crew, report, number, items, [chance.uniform(0, 0.05) for _item in items])
            if done is None:
                continue
            by = {each: [typed for typed, kind in zip(done, who, strict=True) if kind == each] for each in ("wrong", "valid", "owner")}
            let_in = sum(typed.is_in for typed in by["valid"])
            guesses = _compared(by["wrong"], person.password)
            report.figures["owner let in"] += sum(typed.is_in for typed in by["owner"])
            report.figures["valid let in" if let_in else "valid kept out"] += 1
            report.figures["guesses compared"] += guesses
            if not all(typed.is_in for typed in by["owner"]):
                report.against(number, f"the owner was kept out of a known browser: {[typed.status for typed in by['owner']]}")
            if any(typed.is_in for typed in by["wrong"]):
                report.against(number, "a wrong password opened a session")
            if guesses > 5 * (let_in + 1):
                report.against(number, f"{guesses} guesses were compared between {let_in} sign-ins")
            strangers = bucket(person)
            if strangers is None or strangers.flying or strangers.failed > 5:
                report.against(number, f"the bucket of the person: {strangers and (strangers.failed, strangers.flying)}")
            for row in Bucket.objects.filter(user=person, kind=Kind.DEVICE):
                _must_be(report, number, row, failed=0, locked=False)
        report.must_have_happened("owner let in", "guesses compared")
    return report


# --- e, f. What dies on the way -------------------------------------------------------------------------------------


def killed_in_flight(crew: Crew, victims: Victims, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Processes killed in the middle of a hash: their attempts stay counted, and count as wrong after a minute."""
    with _armed(crew, "kill -9 in the middle of a hash", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1)
            dead, right = number % 5 + 1, chance.random() < 0.5
            named, at = spellings(person), addresses(chance, 3)
            doomed = Item("json", named[number % 3], PASSWORD if right else WRONG, address=at[0])
            victims.kill([doomed] * dead)
            if (row := bucket(person)) is None or (row.failed, row.flying) != (0, dead):
                report.against(number, f"{dead} were killed in flight, the bucket says {row and (row.failed, row.flying)}")
                continue
            as_if_later([row], seconds=int(policy.FLIGHT.total_seconds()) + 1)
            done = _run(
                crew, report, number, [Item(chance.choice(["form", "json"]), chance.choice(named), address=at[1]) for _n in range(8)]
            )
            if done is None:
                continue
            count = _compared(done, person.password)
            report.figures["killed"] += dead
            report.figures[f"{dead} killed, {count} compared"] += 1
            if dead + count != 5:
                report.against(number, f"{dead} were killed in flight, {count} compared afterwards")
            _must_be(report, number, bucket(person), failed=5, locked=True)
            if Session.objects.filter(user=person).exists():
                report.against(number, "somebody got in")
    return report


def late_settle(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """A comparison takes so long that its attempt was given up: its answer, when it comes, settles nothing."""
    with _armed(crew, "a late answer of an attempt given up", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1)
            (at,) = addresses(chance, 1)
            late = Item("json", person.username, WRONG, address=at, until_round=person.pk)
            outcome = crew.begin("answer", items=[late])
            while (row := bucket(person)) is None or not row.flying:
                time.sleep(0.002)
            as_if_later(Bucket.objects.filter(pk=row.pk), seconds=int(policy.FLIGHT.total_seconds()) + 1)
            meanwhile = HttpRequest()
            meanwhile.META["REMOTE_ADDR"] = addresses(chance, 1)[0]
            attempt = ledger.for_password(meanwhile, person.username)
            came = outcome()
            if report.broke(number, [came]):
                continue
            row = bucket(person)
            if row is None or (row.failed, row.flying, row.round) != (1, 1, 1):
                report.against(number, f"the late answer changed something: {row and (row.failed, row.flying, row.round)}")
            if number % 2:
                attempt.wrong()
            else:
                attempt.right()
            report.figures["late, then settled"] += 1
            _must_be(report, number, bucket(person), failed=1 + number % 2, locked=False)
    return report


def broken_later(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """A view that raises after the check, and a hash that raises: nothing is taken back."""
    with _armed(crew, "exceptions after and in the check", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person, other) = chance_of(seed, number), newcomers(2)
            at = addresses(chance, 4)
            ways = ["broken"] * 12 + ["form", "json"] * 3
            chance.shuffle(ways)
            items = [Item(way, person.username, address=chance.choice(at), pause=chance.uniform(0, 0.01)) for way in ways]
            raising = chance.randint(1, 4)
            items += [Item(chance.choice(["form", "json"]), other.username, PASSWORD, address=at[0], breaks=True) for _n in range(raising)]
            done = _run(crew, report, number, items)
            if done is None:
                continue
            count = _compared(done, person.password)
            _tally(report, count, len(ways))
            report.figures["broke after the check"] += sum(bool(typed.compared) for typed in done if typed.way == "broken")
            if count != 5:
                report.against(number, f"{count} comparisons, some before an exception")
            _must_be(report, number, bucket(person), failed=5, locked=True)
            if (row := bucket(other)) is None or (row.failed, row.flying) != (0, raising):
                report.against(number, f"{raising} hashes raised, the bucket says {row and (row.failed, row.flying)}")
                continue
            as_if_later([row], seconds=int(policy.FLIGHT.total_seconds()) + 1)
            later = _run(crew, report, number, [Item("json", other.username, address=at[1]) for _n in range(8)])
            if later is not None and _compared(later, other.password) != 5 - raising:
                report.against(number, f"{raising} hashes raised, {_compared(later, other.password)} compared afterwards")
        report.must_have_happened("broke after the check")
    return report


# --- g, h. The second factor, and what clears nothing ---------------------------------------------------------------


def nothing_clears(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Another account's success from the same address and browser, and a right password without its code, clear nothing.

    A browser in which the code was missing or wrong does not become known.
    """
    with _armed(crew, "what must not clear", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person, rival, victim) = chance_of(seed, number), newcomers(3)
            device, _codes = with_factor(person)
            (at,) = addresses(chance, 1)
            browser = {str(settings.DEVICE_COOKIE_NAME): known_browser(rival)}
            before = chance.randint(1, 4)
            both = (person, victim)
            one = _run(crew, report, number, [Item("json", each.username, address=at) for each in both for _n in range(before)])
            codes = wrong_codes(device, 4, chance)
            between = [Item("form", rival.username, PASSWORD, address=at, cookies=browser) for _n in range(4)]
            between += [Item(way, person.username, PASSWORD, address=at) for way in ("form", "json", "form", "json")]
            between += [Item("json", person.username, PASSWORD, code=code, address=at) for code in codes[:2]]
            between += [Item("code", code=code, address=at, cookies=half_way(person)) for code in codes[2:]]
            two = _run(crew, report, number, between, [chance.uniform(0, 0.01) for _item in between])
            wrong = [Item("json", each.username, address=at, cookies=browser) for each in both for _n in range(6)]
            three = _run(crew, report, number, wrong)
            if one is None or two is None or three is None:
                continue
            for each in both:
                count = _compared([*one, *three], each.password)
                report.figures[f"{count} of {before + 6} compared"] += 1
                if count != 5:
                    report.against(number, f"{count} guesses were compared around what must not clear ({before} before)")
                _must_be(report, number, bucket(each), failed=5, locked=True)
            _must_be(report, number, bucket(person, Kind.FACTOR), failed=4, locked=False)
            if not all(typed.is_in for typed in two[:4]):
                report.against(number, "the other account was kept out")
            if any(typed.is_in or typed.cookies.get(settings.DEVICE_COOKIE_NAME) for typed in two[4:]):
                report.against(number, "a right password without its code made a session or a known browser")
            if KnownDevice.objects.filter(user=person).exists() or Session.objects.filter(user=person).exists():
                report.against(number, "a right password without its code left a known browser or a session")
            report.figures["right password without its code"] += len(two) - 4
    return report


BY_CODE = ("code", "json_code", "json", "step_up")  # "json": name, password and code in one request


def wrong_codes_at_once(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """30 wrong codes at once, over the page, JSON and step-up, from known browsers and others: five are compared."""
    with _armed(crew, "30 wrong codes", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, (person,) = chance_of(seed, number), newcomers(1)
            device, _codes = with_factor(person)
            session = {str(settings.SESSION_COOKIE_NAME): tree(person).keys[""][0]}
            known = {str(settings.DEVICE_COOKIE_NAME): known_browser(person)}
            waiting, at, favourite = half_way(person), addresses(chance, 12), BY_CODE[number % len(BY_CODE)]
            items = []
            for n, code in enumerate(wrong_codes(device, 30, chance)):
                way = BY_CODE[n % len(BY_CODE)]
                cookies = {"json": {}, "step_up": session}.get(way, waiting) | (known if n % 3 == 0 else {})
                item = Item(way, person.username, PASSWORD, code=code, address=chance.choice(at), cookies=cookies)
                when = None if way == favourite else (person.pk, "factor", 1)
                items.append(replace(item, pause=chance.uniform(0, 0.01), when=when))
            done = _run(crew, report, number, items)
            if done is None:
                continue
            stored = {f"totp:{device.pk}", *RecoveryCode.objects.filter(user=person).values_list("encoded", flat=True)}
            count = sum(_compared(done, each) for each in stored)
            _tally(report, count, len(items))
            for typed in done:
                report.figures[f"compared by {typed.way}"] += len(stored & set(typed.compared))
            if count != 5:
                report.against(number, f"{count} codes were compared")
            _must_be(report, number, bucket(person, Kind.FACTOR), failed=5, locked=True)
            if Session.objects.filter(user=person).count() != 1 or RecoveryCode.objects.filter(user=person).exclude(used_at=None):
                report.against(number, "a wrong code opened a session or used up a recovery code")
            row = bucket(person)
            if row and (row.failed or row.flying):
                report.against(number, f"right passwords were counted as wrong: {(row.failed, row.flying)}")
        report.must_have_happened(*(f"compared by {way}" for way in BY_CODE))
    return report


def one_code(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """One valid code in 16 half-way sign-ins at once, an authenticator's or a recovery code: exactly one session.

    In every other pair of rounds the ledger lets all 16 be compared at once, so that the code is what decides.
    """
    with race("one code, 16 times", rounds, seed) as report:
        for lifted in (False, True):
            crew.everywhere("arm", tries_factor=1000 if lifted else 0)
            for number in range(first, first + rounds):
                if bool(number // 2 % 2) == lifted:
                    _one_code(crew, report, number, chance_of(seed, number), by_app=number % 2 == 0, lifted=lifted)
        crew.everywhere("arm")
        report.must_have_happened("many compared at once")
    return report


def _one_code(crew: Crew, report: Report, number: int, chance: Random, *, by_app: bool, lifted: bool) -> None:
    (person,) = newcomers(1)
    device, codes = with_factor(person)
    code = factors.code_now(device) if by_app else chance.choice(codes)
    waiting, at = half_way(person), addresses(chance, 16)
    ways = chance.choices(["code", "json_code"], k=16)
    done = _run(crew, report, number, [Item(way, code=code, address=one, cookies=waiting) for way, one in zip(ways, at, strict=True)])
    if done is None:
        return
    stored = f"totp:{device.pk}" if by_app else RecoveryCode.objects.filter(user=person)[0].encoded
    count = _compared(done, stored)
    report.figures[f"{'TOTP' if by_app else 'recovery'}{', no limit' if lifted else ''}: {count} of 16 compared"] += 1
    report.figures["many compared at once"] += count > 10
    let_in = [typed for typed in done if typed.is_in]
    opened = Session.objects.filter(user=person).count()
    if len(let_in) != 1 or opened != 1:
        report.against(number, f"{len(let_in)} of 16 were let in, {opened} sessions opened")
    if not by_app and RecoveryCode.objects.filter(user=person).exclude(used_at=None).count() != 1:
        report.against(number, "not exactly one recovery code is used up")


# --- i. An address --------------------------------------------------------------------------------------------------


def one_address(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """78 guesses at 26 people from one address, or from one IPv6 network: 50 are compared, the rest hears 429.

    A known browser at that address still signs in, everybody else there waits, and the next address is open.
    """
    limit = policy.TRIES_ADDRESS
    with _armed(crew, "78 guesses from one address", rounds, seed) as report:
        for number in range(first, first + rounds):
            chance, people = chance_of(seed, number), newcomers(26)
            network = f"2001:db8:{chance.randrange(65536):x}"
            here = [f"{network}:1::{chance.randrange(65536):x}" for _n in range(9)] if number % 2 else addresses(chance, 1)
            there = f"{network}:2::1" if number % 2 else addresses(chance, 1)[0]
            known = {str(settings.DEVICE_COOKIE_NAME): known_browser(people[0])}
            guesses = [
                Item(chance.choice(["form", "json"]), person.username, address=chance.choice(here), pause=chance.uniform(0, 0.01))
                for person in people
                for _n in range(3)
            ]
            chance.shuffle(guesses)
            done = _run(crew, report, number, [guesses[n::CROWD] for n in range(CROWD)])
            one, other = people[0].username, people[1].username
            after = [
                Item("json", one, PASSWORD, address=here[0], cookies=known),
                Item("json", other, PASSWORD, address=here[-1]),
                Item("form", other, PASSWORD, address=here[0]),
                Item("json", f"nobody{secrets.token_hex(4)}", PASSWORD, address=here[0]),
                Item("json", other, PASSWORD, address=there),
            ]
            rows = Bucket.objects.count()
            then = _run(crew, report, number, after)
            if done is None or then is None:
                continue
            count = sum(_compared(done, person.password) for person in people)
            _tally(report, count, len(guesses))
            told = [typed for typed in done if typed.status == 429]
            if count != limit or len(told) != len(guesses) - limit:
                report.against(number, f"{count} comparisons from one address, {len(told)} refused with 429")
            if not all(typed.retry_after.isdigit() and 0 < int(typed.retry_after) <= 600 for typed in [*told, *then[1:4]]):
                report.against(number, f"a 429 without a good Retry-After: { ({typed.retry_after for typed in told}) }")
            if [typed.status for typed in then] != [200, 429, 429, 429, 200] or not (then[0].is_in and then[4].is_in):
                report.against(number, f"afterwards: {[typed.status for typed in then]}")
            if (more := Bucket.objects.count() - rows) > 3:  # the known browser's, and two for who came from the next address
                report.against(number, f"refused attempts left {more} buckets")
            report.figures["429"] += len(told)
    return report


# --- j. Everything at once ------------------------------------------------------------------------------------------


def ledger_medley(crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """Attempts in every combination of buckets, releases and pruning, for as many seconds as there are rounds: nothing breaks."""
    with _armed(crew, "all buckets at once (rounds: seconds)", rounds, seed) as report:
        slices = [min(10, rounds - done) for done in range(0, rounds, 10)]
        for number, seconds in enumerate(slices, first):
            chance, people = chance_of(seed, number), newcomers(3)
            for person in people[:2]:
                with_factor(person)
            scene = Medley(
                people=[(person.pk, person.username) for person in people],
                addresses=addresses(chance, 2),
                devices={person.pk: [known_browser(person) for _n in range(2)] for person in people},
                half_ways=[half_way(person) for person in people[:2]],
            )
            # As many as a small site has threads; with 50 at once on two cores there is little but waiting.
            lane = [Task("ledger_medley", {"seconds": seconds, "scene": scene, "seed": chance.getrandbits(32)}) for _racer in range(16)]
            outcomes = crew.run([lane])[0]
            report.broke(number, outcomes)
            for outcome in outcomes:
                report.figures.update(outcome.result or {})
            mine = Bucket.objects.filter(user__in=people) | Bucket.objects.filter(network__in=scene.addresses)
            if left := mine.filter(flying__gt=0).count():
                report.against(number, f"{left} buckets have attempts in flight")
    return report


def argon2_burst(crew: Crew, **options: Any) -> Report:
    """The burst with the hash of production."""
    return burst(crew, hasher="argon2", **options)


def argon2_valid(crew: Crew, **options: Any) -> Report:
    """50 valid sign-ins with the hash of production."""
    return valid(crew, hasher="argon2", **options)


RACES: dict[str, Callable[..., Report]] = {
    each.__name__: each
    for each in (
        burst, right_in_burst, argon2_burst, valid, argon2_valid, owner_in_burst, late_settle, broken_later, nothing_clears,
        wrong_codes_at_once, one_code, one_address, ledger_medley,
    )
}  # fmt: skip
