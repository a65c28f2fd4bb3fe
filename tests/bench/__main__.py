"""`make bench`: what a request, a sign-in and an end cost, each beside something measured in the same run.

The machines are noisy: read the ratios, not the rates. Prints one table per database.
"""

import http.client
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.servers import Missing, Portal, PostgreSQL, free_port, wait_for

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
THREADS = 8
CODES = 100  # sign-ins with a code in a second, at most: so many people are made


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-bench-"))
    environment = {"SECRET_KEY": "bench" * 10, "ENCRYPTION_KEYS": "YmVuY2ggb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="}
    try:
        measure("SQLite", f"sqlite:///{folder}/bench.sqlite3", folder, environment)
        try:
            server = PostgreSQL()
        except Missing as missing:
            print(missing)
            return
        try:
            measure("PostgreSQL", server.url("postgres"), folder, environment)
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(database: str, url: str, folder: Path, environment: dict[str, Any]) -> None:
    port = free_port()
    bare = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--blocking-threads", str(THREADS), "--no-ws", "--no-log", "tests.bench.bare:application"],
    )  # fmt: skip
    try:
        wait_for(port)
        with Portal(url, folder, **environment) as portal:
            rows = requests(portal, port) + sign_ins(portal) + ends(portal)
    finally:
        bare.terminate()
        bare.wait()
    print(f"\n{database}, one worker of {THREADS} threads, {SECONDS:g} s each")
    print(f"  {'what':<58} {'measured':>14} {'beside':>14} {'ratio':>7}  {'queries':>7}")
    for what, value, beside, ratio, queries in rows:
        print(f"  {what:<58} {value:>14} {beside:>14} {ratio:>7.2f}  {queries:>7}")


Row = tuple[str, str, str, float, str]


def requests(portal: Portal, bare_port: int) -> list[Row]:
    jar = cookies(portal)
    bare_json = rate(bare_port, "bare.localhost", "/json", "")
    bare_page = rate(bare_port, "bare.localhost", "/page", "")
    host = f"acme.{portal.base}"
    found = []
    for what, path, beside in (
        ("/_portal/whoami, signed in, against a bare view", "/_portal/whoami", bare_json),
        ("a tenant's home, signed in, against a bare page", "/", bare_page),
        ("the welcome page for a guest, against a bare page", "/welcome/", bare_page),
    ):
        jar_here = "" if "guest" in what else jar
        got = rate(portal.port, host, path, jar_here)
        found.append((what, f"{got:,.0f}/s", f"{beside:,.0f}/s", got / beside, queries(portal, path, jar_here)))
    return found


def cookies(portal: Portal) -> str:
    """The cookie of dave's branch at acme, through the real hand-off."""
    jar: dict[str, dict[str, str]] = {}

    def ask(method: str, url: str, body: str = "", **headers: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        host = parts.hostname or ""
        sent = {name: value for scope, values in jar.items() if host == scope for name, value in values.items()}
        connection = http.client.HTTPConnection("127.0.0.1", portal.port)
        all_headers = {"Host": parts.netloc, "Cookie": "; ".join(f"{k}={v}" for k, v in sent.items()), **headers}
        connection.request(method, f"{parts.path}?{parts.query}", body, all_headers)
        answer = connection.getresponse()
        answer.read()
        for line in answer.msg.get_all("Set-Cookie") or []:
            name, _eq, rest = line.partition("=")
            jar.setdefault(host, {})[name] = rest.partition(";")[0]
        return answer

    credentials = urlencode({"username": "dave", "password": "gatehouse-demo"})
    ask("POST", portal.url("login", "/api/v1/login"), credentials, **{"Content-Type": "application/x-www-form-urlencoded"})
    url = portal.url("acme", "/_portal/start")
    for _ in range(3):
        url = ask("GET", url).headers["Location"]
    return f"session={jar['acme.portal.localhost']['session']}"


def rate(port: int, host: str, path: str, cookie: str) -> float:
    """Answers a second, from threads that keep their connections; every answer must be a 200."""
    if wrk := shutil.which("wrk"):
        command = [
            wrk,
            "-t1",
            f"-c{THREADS}",
            f"-d{SECONDS:g}s",
            "-H",
            f"Host: {host}",
            "-H",
            f"Cookie: {cookie}",
            f"http://127.0.0.1:{port}{path}",
        ]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in text:
            raise RuntimeError(text)
        return float(text.partition("Requests/sec:")[2].split()[0])

    def work(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", path, headers={"Host": host, "Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")

    return per_second(lambda: http.client.HTTPConnection("127.0.0.1", port), work)


def per_second(connect: Callable[[], http.client.HTTPConnection], work: Callable[[http.client.HTTPConnection], None]) -> float:
    until = time.monotonic() + SECONDS
    counts = [0] * THREADS

    def run(number: int) -> None:
        connection = connect()
        while time.monotonic() < until:
            work(connection)
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started)


def inside(portal: Portal, code: str) -> str:
    """Run a few lines with this portal's settings, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
        env=portal.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip().splitlines()[-1]


def queries(portal: Portal, path: str, cookie: str) -> str:
    code = f"""
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
headers = {{"HTTP_HOST": "acme.{portal.base}", "HTTP_COOKIE": {cookie!r}}}
client = Client()
client.get({path!r}, **headers)
with CaptureQueriesContext(connection) as asked:
    assert client.get({path!r}, **headers).status_code == 200
print(len(asked))
"""
    return inside(portal, code)


def sign_ins(portal: Portal) -> list[Row]:
    """Complete sign-ins (ledger, hash, session, event) by browsers that nobody knows, beside the hash alone with as many threads."""
    code = f"""
import json
from django.contrib.auth.hashers import make_password
from identity import factors
from identity.models import TotpDevice, User
hashed, found = make_password("gatehouse-demo"), []
for n in range({THREADS + int(CODES * SECONDS)}):
    person = User.objects.create(username=f"bench-{{n}}", email=f"bench-{{n}}@bench.example", password=hashed)
    if n >= {THREADS}:
        TotpDevice.objects.filter(pk=factors.enrolment(person).pk).update(confirmed=True)
        code = factors.code_now(TotpDevice.objects.get(user=person))
    found.append([person.username, code if n >= {THREADS} else ""])
print(json.dumps(found))
"""
    people: list[tuple[str, str]] = json.loads(inside(portal, code))
    code = f"""
import threading, time
from django.contrib.auth.hashers import check_password, make_password
hashed = make_password("gatehouse-demo")
until = time.monotonic() + {SECONDS}
counts = [0] * {THREADS}
def run(n):
    while time.monotonic() < until:
        check_password("gatehouse-demo", hashed)
        counts[n] += 1
threads = [threading.Thread(target=run, args=(n,)) for n in range({THREADS})]
[t.start() for t in threads]; [t.join() for t in threads]
print(sum(counts) / {SECONDS})
"""
    bare = float(inside(portal, code))
    with_code = signed_in_per_second(portal, iter(people[THREADS:]))  # first: each code is good for half a minute, and once
    without = signed_in_per_second(portal, itertools.cycle(people[:THREADS]))
    return [
        ("sign-ins, against the bare Argon2id rate", f"{without:,.1f}/s", f"{bare:,.1f}/s", without / bare, ""),
        ("sign-ins with a code, against the same", f"{with_code:,.1f}/s", f"{bare:,.1f}/s", with_code / bare, ""),
    ]


def signed_in_per_second(portal: Portal, people: Iterator[tuple[str, str]]) -> float:
    """With the next of these people each time, and a code if he has one."""

    def work(connection: http.client.HTTPConnection) -> None:
        name, code = next(people)
        body = json.dumps({"username": name, "password": "gatehouse-demo", **({"code": code} if code else {})})
        connection.request("POST", "/api/v1/login", body, {"Host": f"login.{portal.base}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(str(answer.status))

    return per_second(lambda: http.client.HTTPConnection("127.0.0.1", portal.port), work)


def ends(portal: Portal) -> list[Row]:
    """One end of one branch, committed, beside one committed UPDATE of one row."""
    code = """
import statistics, time, uuid
from django.db import connection
from django.test.utils import CaptureQueriesContext
from identity import sessions
from identity.models import Session, User
from tenants.models import Tenant
from django.db import transaction
dave, acme = User.objects.get(username="dave"), Tenant.objects.get(slug="acme")
times, plain, asked = [], [], 0
for n in range(150):
    portal, _ = sessions.sign_in(User.objects.get(pk=dave.pk), request=None, methods=["pwd"], remember=False)
    with transaction.atomic():
        branch, _ = sessions.open_branch(portal.pk, acme, request=None)
    started = time.perf_counter()
    Session.objects.filter(pk=branch.pk).update(last_seen_at=branch.last_seen_at)
    plain.append(time.perf_counter() - started)
    started = time.perf_counter()
    assert len(sessions.end(Session.objects.filter(pk=branch.pk), by=dave, reason=Session.Reason.BY_ADMIN)) == 1
    times.append(time.perf_counter() - started)
with CaptureQueriesContext(connection) as asked:
    sessions.end(Session.objects.filter(pk=portal.pk), by=dave, reason=Session.Reason.BY_ADMIN)
print(statistics.median(times) * 1000, statistics.median(plain) * 1000, len(asked))
"""
    took, plain, count = inside(portal, code).split()
    return [
        (
            "one end, committed, against one committed UPDATE",
            f"{float(took):.2f} ms",
            f"{float(plain):.2f} ms",
            float(took) / float(plain),
            count,
        )
    ]


if __name__ == "__main__":
    main()
