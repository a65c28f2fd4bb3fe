"""`python -m tests.bench.oracle`: does the time of a refused sign-in tell who exists? ASVS 6.3.8.

Against the real server, over HTTP and one kept connection, by the form (by way of acme's brand) and by JSON: every case in
random order, each as often, idle and while other clients sign in without a pause. For each case the median, the 95th
percentile, and the p-value of a two-sample Kolmogorov-Smirnov test against wrong passwords of one known person. The last
column says whether status, headers and bytes are the same but for what differs between any two requests. Buckets are set back
between the requests, outside of what is timed.
"""

import argparse
import http.client
import json
import math
import os
import random
import re
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.servers import Missing, Portal, PostgreSQL

SECRETS: dict[str, Any] = {"SECRET_KEY": "oracle" * 10, "ENCRYPTION_KEYS": "b3JhY2xlIG9ubHk6IDMyIGJ5dGVzIG9mIGEgZmFrZSE="}
CLIENTS = 4
CSRF = "c" * 32
BASE = "wrong"
LONGEST = 300  # what a stored name may have; a longer one is refused by its form, whoever it is


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.oracle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="requests of each case, way and load")
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--load", choices=["idle", "busy", "both"], default="both")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    for name in ("PORTAL_URL", "TENANT_DOMAIN", "TRUSTED_PROXIES", "SIGNUP", "DEBUG", "LOG_FORMAT"):
        os.environ.pop(name, None)
    worst = 1.0
    kinds = ("sqlite", "postgres") if options.database == "both" else (options.database,)
    for kind in kinds:
        # Django can be set up once in a process, and it is what sets the buckets back: a process for each database.
        if len(kinds) > 1:
            import subprocess

            command = [sys.executable, "-m", "tests.bench.oracle", *sys.argv[1:], f"--database={kind}", f"--seed={options.seed}"]
            worst = min(worst, 0.0 if subprocess.run(command, check=False).returncode else 1.0)
            continue
        with tempfile.TemporaryDirectory(prefix="gatehouse-oracle-") as folder, _database(kind, Path(folder)) as url:
            worst = measure(kind, url, Path(folder), options)
    return 0 if worst else 1


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/oracle.sqlite3"
        return
    try:
        server = PostgreSQL()
    except Missing as missing:
        sys.exit(str(missing))
    try:
        yield server.url("postgres")
    finally:
        server.stop()


# --- The cases ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Kind:
    """One kind of refused sign-in."""

    title: str
    name: Callable[[], str]
    locked: bool = False
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def _cases() -> list[Kind]:
    """The people are made here; all names have eight letters but for the long one."""
    from argon2 import PasswordHasher
    from django.contrib.auth.hashers import make_password

    from identity.models import User
    from tenants.models import Membership, Tenant

    acme, globex = Tenant.objects.get(slug="acme"), Tenant.objects.get(slug="globex")
    today = make_password("gatehouse-demo")
    old = "argon2" + PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("gatehouse-demo")

    def person(name: str, encoded: str = today, place: Tenant | None = acme, **fields: Any) -> Callable[[], str]:
        user = User.objects.create(username=name, email=f"{name}@oracle.example", password=encoded, **fields)
        if place:
            Membership.objects.create(tenant=place, user=user)
        return lambda: name

    for number in range(CLIENTS):
        person(f"client-{number}")
    return [
        Kind(BASE, person("wrongone")),
        Kind("wrong, another member", person("wrongtwo")),
        Kind("an unknown name, the same one", lambda: "nobody-1"),
        Kind("an unknown name, new each time", lambda: f"x{secrets.token_hex(4)[:7]}"),
        Kind("locked", person("lockedup"), locked=True),
        Kind("locked, an unknown name", lambda: "nobody-2", locked=True),
        Kind("inactive", person("inactive", is_active=False)),
        Kind("unusable password", person("unusable", make_password(None))),
        Kind("member of another tenant", person("stranger", place=globex)),
        Kind("member of no tenant", person("belongs0", place=None)),
        Kind("old hash (t=1, m=8192)", person("oldhash1", old)),
        Kind("an unknown long name", lambda: secrets.token_hex(LONGEST // 2)),
    ]


def _set_back(case: Kind, name: str) -> None:
    """Nobody has tried yet, whoever is locked stays it; rows stay, as they would."""
    from django.db import transaction
    from django.db.models import Case, DateTimeField, Value, When
    from django.utils import timezone

    from identity import ledger
    from identity.models import Bucket, User

    now = timezone.now()
    key = ledger._person(User.objects.named(name), name, None).key if case.locked else "x"
    with transaction.atomic():
        list(Bucket.objects.select_for_update(no_key=True).order_by("key").values_list("pk"))  # in the order of the server's
        # One statement of one form for everybody: what was just written is read faster.
        Bucket.objects.update(
            failed=Case(When(key=key, then=Value(5)), default=Value(0)),
            locked_at=Case(When(key=key, then=Value(now)), default=None),
            locked_until=Case(When(key=key, then=Value(now + timedelta(hours=1))), default=None, output_field=DateTimeField()),
            started_at=None,
            touched_at=now,
        )


# --- The requests ---------------------------------------------------------------------------------------------------


class Line:
    """One kept connection to the portal's host."""

    def __init__(self, portal: Portal) -> None:
        self.host = f"login.{portal.base}"
        self.connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=60)

    def sign_in(self, way: str, name: str, password: str) -> tuple[float, http.client.HTTPResponse, bytes]:
        """Seconds until the whole answer is here, and the answer."""
        headers = {"Host": self.host, "User-Agent": "oracle"}
        fields = {"username": name, "password": password}
        if way == "form":
            path, kind = "/login/", "application/x-www-form-urlencoded"
            body = urlencode({**fields, "next": "/enter/acme/", "csrfmiddlewaretoken": CSRF})
            headers |= {"Cookie": f"csrf={CSRF}", "Origin": f"http://{self.host}"}
        else:
            path, kind, body = "/api/v1/login", "application/json", json.dumps(fields)
        headers["Content-Type"] = kind
        started = time.perf_counter()
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        return time.perf_counter() - started, answer, content


# What differs between any two requests, whoever asks.
_CHANGES = [
    (re.compile(r'(csrfmiddlewaretoken" value=")[^"]+'), r"\1*"),
    (re.compile(r'(nonce[-=]"?)[A-Za-z0-9+/_=-]+'), r"\1*"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "*"),
    (re.compile(r"(expires=)[^;]+"), r"\1*"),
]


def plain(status: int, headers: Iterable[tuple[str, str]], content: bytes, name: str) -> str:
    """Status, headers and bytes without request id, token, nonce, date and the typed name."""
    lines = sorted(f"{key.lower()}: {value}" for key, value in headers if key.lower() not in {"date", "x-request-id", "content-length"})
    text = "\n".join([str(status), *lines, "", content.decode()]).replace(name, "*name*")
    for pattern, instead in _CHANGES:
        text = pattern.sub(instead, text)
    return text


@contextmanager
def _busy(portal: Portal, busy: bool) -> Iterator[list[int]]:
    """Clients that sign in all the time, each a person of his own; how often each did."""
    stop, counts = threading.Event(), [0] * CLIENTS

    def client(number: int) -> None:
        line = Line(portal)
        while not stop.is_set():
            line.sign_in("json", f"client-{number}", "gatehouse-demo")
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS if busy else 0)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def measure(kind: str, url: str, folder: Path, options: argparse.Namespace) -> float:
    """Print the tables of one database; 0.0 if answers differ in bytes, else the least p-value."""
    with Portal(url, folder, **SECRETS) as portal:
        os.environ.update(SECRETS, DATABASE_URL=url, PORT=str(portal.port), DJANGO_SETTINGS_MODULE="portal.settings")
        import django

        django.setup()
        cases, chance, worst = _cases(), random.Random(options.seed), 1.0
        for busy in (False, True) if options.load == "both" else (options.load == "busy",):
            for case in cases:
                case.times.clear()
            with _busy(portal, busy) as counts:
                started, line = time.monotonic(), Line(portal)
                for number in range(-3, options.times):  # the first three warm up
                    for way in ("form", "json"):
                        for case in chance.sample(cases, len(cases)):
                            name = case.name()
                            _set_back(case, name)
                            seconds, answer, content = line.sign_in(way, name, "no password of theirs")
                            if number >= 0:
                                case.times[way].append(seconds * 1000)
                                case.answers[way].add(plain(answer.status, answer.getheaders(), content, name))
                rate = sum(counts) / (time.monotonic() - started)
            for way in ("form", "json"):
                load = f"{CLIENTS} other clients, together {rate:.0f} sign-ins/s" if busy else "idle"
                print(f"\n{kind}, {way}, {load}, {options.times} of each, seed {options.seed}")
                worst = min(worst, _table(cases, way))
    return worst


def _table(cases: Sequence[Kind], way: str) -> float:
    base = next(case for case in cases if case.title == BASE)
    print(f"  {'':<34} {'median ms':>10} {'95th':>8} {'against wrong':>14} {'KS p':>8}   bytes and headers")
    least = 1.0
    for case in cases:
        times, others = case.times[way], base.times[way]
        median, beside = statistics.median(times), statistics.median(others)
        p = ks(times, others)
        same = case.answers[way] == base.answers[way] and len(case.answers[way]) == 1
        least = min(least, p if same else 0.0)
        late = statistics.quantiles(times, n=20)[-1]
        against = f"{(median / beside - 1) * 100:>+13.1f}% {p:>8.3f}" if case is not base else f"{'':>23}"
        print(f"  {case.title:<34} {median:>10.2f} {late:>8.2f} {against}   {'same' if same else 'DIFFERENT'}")
        if not same:
            for line in difference(next(iter(base.answers[way])), next(iter(case.answers[way]))):
                print(f"      {line}")
    return least


def ks(one: Sequence[float], other: Sequence[float]) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test: how likely so great a distance is, if both are of one distribution.

    Asymptotic, with Stephens' correction for small samples (Numerical Recipes, section 14.3).
    """
    marked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    seen, distance = [0, 0], 0.0
    for at, (value, side) in enumerate(marked):
        seen[side] += 1
        if at + 1 == len(marked) or marked[at + 1][0] != value:  # equal values step together
            distance = max(distance, abs(seen[0] / len(one) - seen[1] / len(other)))
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:  # where the series does not converge, and the value is 1 to many digits
        return 1.0
    terms = [math.exp(-2 * j * j * x * x) for j in range(1, 101)]
    return min(max(2 * (sum(terms[::2]) - sum(terms[1::2])), 0.0), 1.0)


def difference(one: str, other: str) -> list[str]:
    """The first lines that two answers do not share."""
    pairs = zip(one.splitlines(), other.splitlines(), strict=False)
    return [text for a, b in pairs if a != b for text in (f"- {a[:300]}", f"+ {b[:300]}")][:6] or ["one is longer"]


if __name__ == "__main__":
    sys.exit(main())
