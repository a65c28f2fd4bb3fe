"""How long do the console's lists take at 10,000, 100,000 and 1,000,000 live sessions? `python -m tests.bench.console`

Server time of the whole request in this process, by a real signed-in owner of the tenant that has a tenth of all sessions, in
milliseconds: processor time of Python and the time until each query is answered, both the least of BENCH_ROUNDS, since the
machines are noisy. Behind the last size: the ratio to the first, the number of queries, and what of the time is theirs.
--sizes, --database postgres|sqlite, --explain PATH prints the plans of a slow page.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.servers import Missing, PostgreSQL

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
GOAL_MS, GOAL_RATIO = 50, 1.3
SIZES = {"postgres": [10_000, 100_000, 1_000_000], "sqlite": [10_000, 100_000]}
PASSWORD = "gatehouse-demo"

# What is asked, as paths below the console of the big tenant.
LISTS = {
    "sessions": "sessions/",
    "sessions, oldest activity first": "sessions/?sort=seen&dir=asc",
    "sessions, by sign-in": "sessions/?sort=signed_in",
    "sessions, by person": "sessions/?sort=person",
    "sessions, half-way down": "sessions/?after={seen}",
    "sessions, by person, half-way down": "sessions/?sort=person&after={person}",
    "search: a first name": "sessions/?q=mei",
    "search: one person": "sessions/?q={one}",
    "search: an e-mail": "sessions/?q={one}@people.example",
    "search: nobody": "sessions/?q=nobodyhasthisname",
    "search: a network": "sessions/?q={network}",
    "search: an address": "sessions/?q={address}",
    "ended": "sessions/?state=ended",
    "ended, a first name": "sessions/?state=ended&q=mei",
    "people": "people/",
    "people, half-way down": "people/?after={member}",
    "people: a first name": "people/?q=mei",
    "people: one person": "people/?q={one}",
    "people: admins": "people/?role=admin",
    "overview": "",
    "sessions: with a code": "sessions/?factor=otp",
    "sessions: older than a day": "sessions/?older=1d",
    "sessions: idle for an hour": "sessions/?idle=1h",
    "sessions: of admins": "sessions/?role=admin",
    "events": "events/",
    "events: of a kind": "events/?kind=branch_opened",
    "events: of one person": "events/?person={one}",
    "events: from an address": "events/?address={address}",
    "policy, with its forecast": "settings/policy/",
    "groups": "groups/",
    "lockouts": "lockouts/",
}
MEDIUM = {"a tenant of middle size: sessions": "sessions/", "a tenant of middle size: a first name": "sessions/?q=mei"}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")])
    options.add_argument("--database", choices=SIZES)
    options.add_argument("--explain", help="print the plans of this path, such as sessions/?q=mei, at the last size")
    given = options.parse_args()
    if given.database:
        measure(given.database, given.sizes or SIZES[given.database], given.explain)
        return
    for database in SIZES:  # each in a process of its own: Django knows one database
        subprocess.run([sys.executable, "-m", "tests.bench.console", "--database", database, *sys.argv[1:]], check=True)


def measure(database: str, sizes: list[int], explain: str | None) -> None:
    folder = tempfile.mkdtemp(prefix="gatehouse-bench-")
    try:
        server = PostgreSQL() if database == "postgres" else None
    except Missing as missing:
        print(missing)
        return
    url = server.url("postgres") if server else f"sqlite:///{folder}/bench.sqlite3"
    for name in ("PORTAL_URL", "TENANT_DOMAIN"):
        os.environ.pop(name, None)
    os.environ |= {"DATABASE_URL": url, "SECRET_KEY": "bench" * 10, "ENCRYPTION_KEYS": "YmVuY2ggb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="}
    os.environ |= {"STATIC_ROOT": folder, "PORT": "8000", "DJANGO_SETTINGS_MODULE": "portal.settings"}
    try:
        subprocess.run([sys.executable, "manage.py", "demo", "seed"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([sys.executable, "manage.py", "collectstatic", "--no-input", "--verbosity=0"], check=True)
        import django

        django.setup()
        run("PostgreSQL" if server else "SQLite", sizes, explain)
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run(name: str, sizes: list[int], explain: str | None) -> None:
    from django.conf import settings

    settings.SEAL_EVERY = settings.DELIVER_EVERY = None
    table: dict[str, list[float]] = {}
    queries: dict[str, tuple[int, float]] = {}
    filled = 0
    for size in sizes:
        started = time.perf_counter()
        from tests.bench.fill import BIG, fill

        fill(size - filled)
        filled = size
        print(f"{name}: {size:,} live sessions, filled in {time.perf_counter() - started:.0f} s", flush=True)
        get = signed_in()
        for what, slug, path in asked():
            url = f"/console/{slug}/{path}"
            get(url)
            took, in_sql, count = timed(get, url)
            table.setdefault(what, []).append(took)
            queries[what] = (count, in_sql)
        if explain and size == sizes[-1]:
            plans(get, f"/console/{BIG}/{explain}")
    print(f"\n{name}, milliseconds of server time{'':<14} " + " ".join(f"{size:>10,}" for size in sizes) + "   ratio  queries    in SQL")
    for what, times in table.items():
        ratio = times[-1] / times[0]
        over = " !" if times[-1] > GOAL_MS or ratio > GOAL_RATIO else ""
        count, took = queries[what]
        print(f"  {what:<44} " + " ".join(f"{each:>10.1f}" for each in times) + f" {ratio:>7.2f}  {count:>7}  {took:>8.1f}{over}")
    print(f"  ! over the goal: at most {GOAL_MS} ms at {sizes[-1]:,}, and {GOAL_RATIO} times what it takes at {sizes[0]:,}\n")
    the_end()


def asked() -> list[tuple[str, str, str]]:
    from identity.models import Session
    from portal import paging
    from portal.views.console.people import BY_NAME
    from portal.views.console.sessions import ORDERS
    from tenants.models import Membership, Tenant
    from tests.bench.fill import BIG
    from tests.bench.fill import MEDIUM as SLUG

    tenant = Tenant.objects.get(slug=BIG)
    live = Session.objects.alive_at(tenant).select_related("user")
    half = live.count() // 2
    by_person = live.order_by("user__name_key", "pk")[half]
    member = Membership.objects.filter(tenant=tenant).select_related("user").order_by("user__name_key", "pk")[half // 2]
    known = {
        "seen": paging._write(live.order_by("-last_seen_at", "-pk")[half], ORDERS["seen"]),
        "person": paging._write(by_person, ORDERS["person"]),
        "member": paging._write(member, BY_NAME),
        "one": by_person.user.username,
    }
    address = str(live.filter(ip__contains=".").order_by("pk")[0].ip)
    known |= {"address": address, "network": ".".join(address.split(".")[:2]) + "."}
    return [
        *((what, BIG, path.format(**known)) for what, path in LISTS.items()),
        *((what, SLUG, path.format(**known)) for what, path in MEDIUM.items()),
    ]


Get = Callable[[str], Any]


def signed_in() -> Get:
    """What asks for a page as olivia, an owner of all that is asked for."""
    from identity.models import User
    from tenants.models import Membership, Tenant
    from tests.bench.fill import BIG
    from tests.bench.fill import MEDIUM as SLUG
    from tests.visitor import Visitor, portal_url

    olivia = User.objects.get(username="olivia")
    for tenant in Tenant.objects.filter(slug__in=[BIG, SLUG]):
        Membership.objects.get_or_create(tenant=tenant, user=olivia, defaults={"role": "owner"})
    visitor = Visitor()
    visitor.sign_in("olivia", PASSWORD)

    def get(path: str) -> Any:
        answer = visitor.get(portal_url(path), follow=False)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.headers.get('Location')}")
        return answer

    return get


def timed(get: Get, path: str) -> tuple[float, float, int]:
    """Milliseconds altogether, those of the queries, and how many queries there are."""
    from django.db import connection

    spent: list[float] = []

    def ask(execute: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            spent.append(time.perf_counter() - started)

    rounds = []
    for _ in range(ROUNDS):
        spent.clear()
        started = time.process_time()
        with connection.execute_wrapper(ask):
            get(path)
        rounds.append((time.process_time() - started, sum(spent)))
    own, queries = (min(column) * 1000 for column in zip(*rounds, strict=True))
    # SQLite works in this process, so that its time is in ours already.
    return own + (queries if connection.vendor == "postgresql" else 0), queries, len(spent)


def plans(get: Get, path: str) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as found:
        get(path)
    for each in found:
        if float(each["time"]) >= 0.003 and each["sql"].startswith("SELECT"):
            print(f"\n-- {float(each['time']) * 1000:.0f} ms\n{each['sql']}")
            with connection.cursor() as cursor:
                cursor.execute(
                    ("EXPLAIN (ANALYZE, BUFFERS) " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + each["sql"]
                )
                for row in cursor.fetchall():
                    print("  ", row[0] if len(row) == 1 else row)


def the_end() -> None:
    """The whole of the big tenant: when is it in force, and when are all rows marked?"""
    from identity import mass
    from identity.models import Session, User
    from tenants.models import Tenant
    from tests.bench.fill import BIG

    tenant = Tenant.objects.get(slug=BIG)
    expected = Session.objects.standing_at(tenant).count()
    by, reason = User.objects.get(username="olivia"), Session.Reason.BY_ADMIN
    started = time.perf_counter()
    mass.end_tenant(tenant, expected=expected, by=by, reason=reason, note="bench")
    in_force = (time.perf_counter() - started) * 1000
    left = Session.objects.standing_at(tenant).count()
    while mass.carry_on():
        pass
    took = time.perf_counter() - started
    print(f"  ending {expected:,} sessions of one tenant: in force after {in_force:.1f} ms ({left} left), rows marked after {took:.1f} s\n")


if __name__ == "__main__":
    main()
