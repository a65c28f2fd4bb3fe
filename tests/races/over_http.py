"""Races over real HTTP against the real server (tests.servers.Portal), from outside: no Django here."""

import http.client
import random
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from tests.races.crew import Crew, Task
from tests.races.report import Report
from tests.servers import Portal

# What a visitor without a session looks at. None of it may write a row.
VISITS = [
    ("login", "/login/"),
    ("login", "/"),
    ("login", "/signup/"),
    ("login", "/password/forgot/"),
    ("login", "/account/"),
    ("login", "/console/acme/sessions/"),
    ("login", "/enter/acme/"),
    ("login", "/api/v1/session"),
    ("acme", "/"),
    ("acme", "/welcome/"),
    ("acme", "/_portal/start"),
    ("acme", "/_portal/whoami"),
    ("globex", "/"),
    ("wiki.acme", "/"),
    ("nobody", "/"),
]
THREADS = 8


# --- The database from outside --------------------------------------------------------------------------------------


def new_database(url: str, name: str) -> str:
    """Create an empty database on the PostgreSQL server of this address; returns its own address."""
    with psycopg.connect(url.replace("postgres://", "postgresql://"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return f"{url.rpartition('/')[0]}/{name}"


def rows_by_table(url: str) -> dict[str, int]:
    """How many rows every table has."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)) as lite:
            names = [name for (name,) in lite.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: lite.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
    with psycopg.connect(url.replace("postgres://", "postgresql://")) as connection:
        names = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        counted = {}
        for name in names:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
            assert row is not None
            counted[name] = int(row[0])
        return counted


# --- 8. Visitors leave nothing ----------------------------------------------------------------------------------------


def anonymous(portal: Portal, database: str, *, requests: int) -> Report:
    """Requests without a session, many at once: 0 rows, in any table. By wrk where it is installed and worth it."""
    report = Report("requests of visitors", requests, 0, _kind(database))
    before, started = rows_by_table(database), time.monotonic()
    with_wrk = shutil.which("wrk") and requests > 5_000
    statuses = _by_wrk(portal, requests) if with_wrk else _by_hand(portal, requests)
    report.seconds = time.monotonic() - started
    report.rounds = sum(statuses.values())
    report.figures.update({f"{status}": count for status, count in sorted(statuses.items())})
    after = rows_by_table(database)
    if left := {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}:
        report.violations.append(f"{report.race}: {report.rounds} requests left rows: {left}")
    if set(statuses) - {200, 302, 401, 404}:
        report.violations.append(f"{report.race}: {dict(statuses)}")
    if report.rounds < requests:
        report.violations.append(f"{report.race}: only {report.rounds} of {requests} were answered")
    return report


def _by_hand(portal: Portal, requests: int) -> Counter[int]:
    def visit(lane: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with closing(_Line(portal)) as line:
            for number in range(lane, requests, THREADS):
                statuses[line.get(*VISITS[number % len(VISITS)])] += 1
        return statuses

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(visit, range(THREADS)), Counter())


_LUA = """
local visits = { %s }
local threads, at = {}, 0
statuses = ""
function setup(thread) table.insert(threads, thread) end
function init() counts = {} end
function request()
  at = at %% #visits + 1
  return wrk.format("GET", visits[at][2], { Host = visits[at][1], Accept = "text/html" })
end
function response(status)
  counts[status] = (counts[status] or 0) + 1
  statuses = ""
  for name, count in pairs(counts) do statuses = statuses .. name .. ":" .. count .. " " end
end
function done(summary)
  for _, thread in ipairs(threads) do io.write("STATUSES " .. thread:get("statuses") .. "\\n") end
end
"""


def _by_wrk(portal: Portal, requests: int) -> Counter[int]:
    visits = ", ".join(f'{{ "{host}.{portal.base}", "{path}" }}' for host, path in VISITS)
    statuses: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "visits.lua")
        script.write_text(_LUA % visits)
        command = ["wrk", "-t2", "-c16", "-d5s", "--timeout=20s", "-s", str(script), f"http://127.0.0.1:{portal.port}/"]
        while sum(statuses.values()) < requests:
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            lines = [line for line in said.splitlines() if line.startswith("STATUSES ")]
            for pair in " ".join(lines).replace("STATUSES", "").split():
                status, _colon, count = pair.partition(":")
                statuses[int(status)] += int(count)
            if not lines:
                break
    return statuses


# --- 9. Signed-in requests while the session is ended ---------------------------------------------------------------------


@dataclass(slots=True)
class _Hammer:
    """Threads that ask again and again with the cookies of one tree, and note when each request began and what came."""

    portal: Portal
    cookies: dict[str, str]  # by host
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[str, int, int]] = field(default_factory=list)  # path, began, status

    PATHS = (("acme", "/_portal/whoami"), ("acme", "/"), ("login", "/api/v1/session"))

    def swing(self, lane: int) -> None:
        mine: list[tuple[str, int, int]] = []
        with closing(_Line(self.portal)) as line:
            number = lane
            while not self.stop.is_set():
                number += 1
                host, path = self.PATHS[number % len(self.PATHS)]
                began = time.monotonic_ns()
                mine.append((host + path, began, line.get(host, path, self.cookies[host])))
        self.answers.extend(mine)


def ends_over_http(portal: Portal, database: str, crew: Crew, *, rounds: int, seed: int, first: int = 0) -> Report:
    """An end by another process: no request that began after it returned is served, by any worker; none breaks at any time.

    Rounds end the whole tree and the branch alone in turn; in the latter the portal session goes on.
    """
    report = Report("ends under HTTP load, 2 workers", rounds, seed)
    report.database = _kind(database)
    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(first, first + rounds):
            chance = random.Random(f"{seed}:{number}")
            tree = crew.do("open_tree", username="dave", slug="acme")
            hammer = _Hammer(portal, {"acme": f"session={tree['branch_key']}", "login": f"portal={tree['key']}"})
            swinging = [pool.submit(hammer.swing, lane) for lane in range(THREADS)]
            time.sleep(chance.uniform(0.1, 0.25))
            end = crew.run([[_end(tree["branch"] if number % 2 else tree["portal"])]])[0][0]
            time.sleep(0.25)
            hammer.stop.set()
            for swung in swinging:
                swung.result()
            if report.broke(number, [end]):
                continue
            _judge(report, number, hammer.answers, end.started, end.finished, branch_only=bool(number % 2))
    report.seconds = time.monotonic() - started
    report.must_have_happened("served before", "refused after")
    return report


def _end(pk: str) -> Task:
    return Task("end", {"ids": [pk]})


def _judge(report: Report, number: int, answers: list[tuple[str, int, int]], ending: int, ended: int, *, branch_only: bool) -> None:
    for path, began, status in answers:
        spared = branch_only and path.startswith("login")
        report.figures["requests"] += 1
        report.figures["served before"] += status == 200 and began < ending
        report.figures["began during the end"] += ending <= began <= ended
        report.figures["refused after"] += status != 200 and began > ended
        if status not in {200, 302, 401}:
            report.against(number, f"{status} at {path}")
        elif began > ended and status == 200 and not spared:
            report.against(number, f"{path} was served {(began - ended) / 1e6:.2f} ms after the end had returned")
        elif spared and status != 200:
            report.against(number, f"{path} was refused although its session lives")


class _Line:
    """One connection that is kept open, as a browser's; a new one when the server closes it."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.connection = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=30)

    def get(self, host: str, path: str, cookie: str = "") -> int:
        headers = {"Host": f"{host}.{self.portal.base}", "Accept": "text/html", **({"Cookie": cookie} if cookie else {})}
        for attempt in range(2):
            try:
                self.connection.request("GET", path, headers=headers)
                response = self.connection.getresponse()
                response.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection.close()
                if attempt:
                    raise
                continue
            return response.status
        raise AssertionError

    def close(self) -> None:
        with suppress(OSError):
            self.connection.close()


def _kind(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql"
