"""`manage.py isolation`: proves on the running portal that no session is good anywhere but at home."""

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import CommandError, CommandParser

from identity import sessions
from identity.management import probe
from identity.management.output import NO_TENANTS, Answer, VerbCommand, count, note, table
from identity.management.wire import UNPROVEN, Wire, described
from tenants.models import Host, Tenant

NAMED_COLUMNS, MOST_COLUMNS = 6, 30  # so many hosts stand above their columns; so many are shown at all
NOBODY = "(nobody)"  # a row for a key that was never given out: every host must refuse it
LEAK = 1  # exit code


class Command(VerbCommand):
    help = (
        "Open short-lived sessions of a synthetic member in every active tenant, try each cookie over real HTTP on every host, "
        "and end them. Exit code 1: a session was good away from home. 3: nothing could be proven."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.prove)
        parser.add_argument(
            "--url",
            help="connect here for every host, such as http://127.0.0.1:8000 (default: as DNS says, and 127.0.0.1 on localhost)",
        )

    def prove(self, *, url: str | None, **_: Any) -> Answer:
        wire = Wire(url)
        swept = probe.sweep()
        places = all_places()
        if not Tenant.objects.filter(status=Tenant.Status.ACTIVE).exists():
            return Answer(
                [NO_TENANTS if len(places) == 1 else "No tenant is active: manage.py tenant list"], report([], places, [], 0, swept)
            )
        wire.reach(settings.PORTAL_HOST)
        name, started = probe.new_name(), time.monotonic()
        tries: list[Try] = []
        try:
            with signals_as_exceptions():
                try:
                    cookies = probe.open_everywhere(name)
                    tries.extend(every_try(wire, cookies, places, name))
                finally:
                    with undisturbed():
                        clean_up(name, tries)
        except Stopped as stopped:
            raise CommandError("Stopped. Everything that was opened for the check is closed.", returncode=stopped.code) from None
        took = time.monotonic() - started
        rows = [cookie.place for cookie in cookies] + [NOBODY]
        return judge(matrix(rows, places, tries), tries, took, report(rows, places, tries, took, swept))


def judge(lines: list[str], tries: "list[Try]", took: float, data: dict[str, Any]) -> Answer:
    leaks, unclear = [one for one in tries if one.leaks], [one for one in tries if one.is_unclear]
    lines = [*lines, *[f"LEAK: {one}" for one in leaks], *[f"Unclear: {one}" for one in unclear]]
    summary = f"{count(len(tries), 'request')} in {took:.1f} s."
    if leaks:
        text = (
            f"{summary} {count(len(leaks), 'answer')} let a session in away from its home. Take the portal off the net until you know why."
        )
        return Answer(lines, data, error=text, code=LEAK)
    if unclear:
        text = (
            f"{summary} Nothing is proven: {count(len(unclear), 'answer')} unclear. Does each of these hosts lead to this portal, "
            "and does that portal use this database (DATABASE_URL)?"
        )
        return Answer(lines, data, error=text, code=UNPROVEN)
    return Answer([*lines, f"{summary} Every session is good at home and nowhere else."], data)


def report(rows: list[str], places: "list[Place]", tries: "list[Try]", took: float, swept: int) -> dict[str, Any]:
    leaks, unclear = [one for one in tries if one.leaks], [one for one in tries if one.is_unclear]
    return {
        "clean": not leaks and not unclear if tries else None,  # None: there was nothing to try
        "requests": len(tries),
        "took_ms": round(took * 1000),
        "leftovers_removed": swept,
        "cookies": rows,
        "hosts": [{"host": place.host, "tenant": place.tenant} for place in places],
        "leaks": [asdict(one) for one in leaks],
        "unclear": [asdict(one) for one in unclear],
        "tries": [asdict(one) for one in tries],
    }


def clean_up(name: str, tries: "list[Try]") -> None:
    """Nothing of the probe stays but one event."""
    if person := probe.named(name):
        probe.remove(person)
    leaks, unclear = sum(one.leaks for one in tries), sum(one.is_unclear for one in tries)
    note("isolation_probe", requests=len(tries), leaks=leaks, unclear=unclear)


# --- What is asked, and what it means -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A host of ours that reads session cookies; `tenant` is a slug, or None at the portal."""

    host: str
    tenant: str | None

    @property
    def path(self) -> str:
        return "/_portal/whoami" if self.tenant else "/api/v1/session"

    @property
    def cookie_name(self) -> str:
        return settings.TENANT_COOKIE_NAME if self.tenant else settings.SESSION_COOKIE_NAME


def all_places() -> list[Place]:
    """Every tenant's host (of suspended ones too), each further approved host, and the portal."""
    places = [Place(tenant.hostname, tenant.slug) for tenant in Tenant.objects.order_by("slug")]
    further = Host.objects.filter(approved_at__isnull=False).select_related("tenant").order_by("tenant__slug", "name")
    places += [Place(host.name, host.tenant.slug) for host in further]
    return [*places, Place(settings.PORTAL_HOST, None)]


@dataclass(frozen=True, slots=True)
class Try:
    """One request: whose cookie, where, under which name, and what came back (status 0: no answer)."""

    cookie: str
    host: str
    name: str
    path: str
    expected: int
    status: int
    problem: str = ""

    @property
    def leaks(self) -> bool:
        return self.expected != 200 and 200 <= self.status < 300

    @property
    def is_unclear(self) -> bool:
        return not self.leaks and (self.status != self.expected or bool(self.problem))

    def __str__(self) -> str:
        answered = f"{self.status or 'no answer'} {self.problem}".strip()
        return f"{self.cookie}'s session as “{self.name}” at {self.host}{self.path}: {answered}"


def every_try(wire: Wire, cookies: list[probe.Cookie], places: list[Place], person: str) -> Iterator[Try]:
    """Each cookie on each host under both names; then once more at home, since only a session that still lives proves the rest."""
    rows = [*cookies, probe.Cookie(NOBODY, sessions.new_key())]
    names = (settings.TENANT_COOKIE_NAME, settings.SESSION_COOKIE_NAME)
    silent = set()
    for place in places:
        for one in until_silent(try_one(wire, cookie, place, name, person) for cookie in rows for name in names):
            yield one
            silent |= {place} if one.status == 0 else set()
    for place in places:
        for cookie in cookies:
            if is_home(cookie, place) and place not in silent:
                yield try_one(wire, cookie, place, place.cookie_name, person)


def until_silent(tries: Iterator[Try]) -> Iterator[Try]:
    """A host that does not answer is not asked again and again."""
    for one in tries:
        yield one
        if one.status == 0:
            return


def is_home(cookie: probe.Cookie, place: Place) -> bool:
    return cookie.place == (place.tenant or "portal")


def try_one(wire: Wire, cookie: probe.Cookie, place: Place, name: str, person: str) -> Try:
    expected = 200 if is_home(cookie, place) and name == place.cookie_name else 401
    problem = ""
    try:
        status, body = wire.ask(place.host, place.path, f"{name}={cookie.key}")
        if status == expected == 200 and not is_about(body, person, place.tenant):
            problem = "but it names somebody else"
    except (OSError, http.client.HTTPException) as error:
        status, problem = 0, f"({described(error)})"
    return Try(cookie.place, place.host, name, place.path, expected, status, problem)


def is_about(body: bytes, person: str, tenant: str | None) -> bool:
    """Whether an answer of whoami is about the probe, at this tenant."""
    try:
        told = json.loads(body)
    except ValueError:
        return False
    return isinstance(told, dict) and (told.get("username"), told.get("tenant")) == (person, tenant)


def matrix(rows: Iterable[str], places: list[Place], tries: list[Try]) -> list[str]:
    """Rows are cookies, columns hosts."""
    if len(places) > MOST_COLUMNS:
        return [f"{len(places)} hosts: the whole matrix is in --json."]
    cells: dict[tuple[str, str], list[Try]] = {}
    for one in tries:
        cells.setdefault((one.cookie, one.host), []).append(one)
    numbered = len(places) > NAMED_COLUMNS
    heads = [str(at) if numbered else place.host for at, place in enumerate(places, 1)]
    lines = [f"{at:>3}  {place.host}" for at, place in enumerate(places, 1)] if numbered else []
    return [*lines, *table(["COOKIE OF", *heads], [[row, *[cell(cells.get((row, place.host), [])) for place in places]] for row in rows])]


def cell(tries: list[Try]) -> str:
    if any(one.leaks for one in tries):
        return "LEAK"
    unclear = [one for one in tries if one.is_unclear]
    if unclear or not tries:
        return f"{unclear[0].status}?" if unclear and unclear[0].status else "?"
    return str(min(one.expected for one in tries))


# --- Being stopped --------------------------------------------------------------------------------------------------

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal as an exception, so that `finally` runs. Database drivers know how to leave a query on its parent."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may have handlers
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def signals_as_exceptions() -> Any:
    return _handled(_stop)


def undisturbed() -> Any:
    return _handled(signal.SIG_IGN)
