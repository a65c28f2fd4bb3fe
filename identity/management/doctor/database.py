"""The database: its clock, whether it keeps what it was told, its migrations, and who follows it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from identity import clock
from identity.management.doctor import PATIENCE, Asked, Finding, bits, failure, is_here, note, ok, warning
from identity.management.output import count
from tenants.text import clean

OLDEST = 14  # PostgreSQL, for Django 5.2
SLOW = 0.05  # seconds for one answer
CLOCKS_APART, CLOCKS_FAR_APART = 2, 30  # seconds; a code of an authenticator is good for 30
GUESSABLE = 40  # bits
BEHIND, FAR_BEHIND = 30, 300  # seconds of a replica
CHECKED_WHOLE = 256 * 1024**2  # bytes: a SQLite file up to this size is read through


def examine(asked: Asked) -> Iterator[Finding]:
    yield from _clock()
    yield from _sqlite() if connection.vendor == "sqlite" else _postgresql()
    yield from _migrations()


def unreachable() -> str:
    """Why there is no connection to be had; "" if there is. Without the pool, which waits long and keeps the reason to itself."""
    own = connection.copy()
    if own.settings_dict["OPTIONS"].pop("pool", None):
        own.settings_dict["OPTIONS"]["connect_timeout"] = round(PATIENCE)
    try:
        own.ensure_connection()
    except Error as error:
        return clean(str(error).strip().partition("\n")[0])
    finally:
        own.close()
    return ""


def _row(sql: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: tuple[Any, ...] = cursor.fetchone()
    return found


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _clock() -> Iterator[Finding]:
    trips = []
    for _n in range(3):
        began = time.monotonic()
        _row("SELECT 1")
        trips.append(time.monotonic() - began)
    apart = abs((clock.now() - timezone.now()).total_seconds())
    told = {"apart_seconds": round(apart, 3), "answer_ms": round(min(trips) * 1000, 2)}
    if apart > CLOCKS_APART:
        found = failure if apart > CLOCKS_FAR_APART else warning
        yield found(
            f"The database's clock and this machine's are {apart:.0f} s apart.", "Let NTP set both: timedatectl set-ntp true", **told
        )
    elif min(trips) > SLOW:
        yield warning(
            f"The database takes {min(trips) * 1000:.0f} ms to answer; each request waits for it.",
            "Put it nearer, or look at its load.",
            **told,
        )
    else:
        yield ok(f"The database answers in {min(trips) * 1000:.1f} ms, and its clock agrees with this one.", **told)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def _postgresql() -> Iterator[Finding]:
    version, follows = _row("SELECT current_setting('server_version_num')::int, pg_is_in_recovery()")
    number = f"{version // 10000}.{version % 10000}"
    if version // 10000 < OLDEST:
        yield failure(f"PostgreSQL is {number}.", f"Gatehouse needs {OLDEST} or newer.", version=number)
    else:
        yield ok(f"PostgreSQL {number}.", version=number)
    if follows:
        yield failure(
            "This PostgreSQL is a replica, and takes no writes.",
            "Name all servers in DATABASE_URL, with target_session_attrs=read-write, so that the one that writes is found.",
        )
    if not _rows("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'"):
        yield failure(
            "The extension pg_trgm is missing: searches read every person.", "CREATE EXTENSION pg_trgm; (package postgresql-contrib)"
        )
    yield from _durability()
    yield from _connections()
    yield from _line()
    yield from _role()
    yield from _replicas()


def _durability() -> Iterator[Finding]:
    told = dict(_rows("SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"))
    off = sorted(name for name, value in told.items() if value == "off")
    if off:
        yield failure(
            f"PostgreSQL may forget what it has answered, when the power fails: {', '.join(off)} is off.",
            f"ALTER SYSTEM SET {off[0]} = on; SELECT pg_reload_conf();  An end of a session that was shown as done must stay done.",
            **told,
        )
    else:
        yield ok("What PostgreSQL has answered is on its disk.", **told)


def _connections() -> Iterator[Finding]:
    used, most = _row(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), current_setting('max_connections')::int"
    )
    if used > most * 0.8:
        yield warning(
            f"{used} of PostgreSQL's {most} connections are taken.", "Raise max_connections, or lower DATABASE_POOL.", used=used, most=most
        )


def _line() -> Iterator[Finding]:
    """Is what is said to a server elsewhere encrypted, and has somebody looked whether it is that server? ASVS 12.3.1, 12.3.4."""
    line = connection.connection
    host = line.info.host
    cure = "Add ?sslmode=verify-full to DATABASE_URL, and &sslrootcert=FILE for an authority of your own."
    if is_here(host):
        return
    if not line.pgconn.ssl_in_use:
        yield warning(f"What is said to PostgreSQL at {host} goes over the network in clear.", cure)
    elif line.info.get_parameters().get("sslmode") != "verify-full":
        yield warning(f"PostgreSQL at {host} is believed to be itself: its certificate is not held against its name.", cure)
    else:
        yield ok(f"The line to PostgreSQL at {host} is encrypted, and its certificate was verified.")


def _role() -> Iterator[Finding]:
    """It needs nothing but its own database. ASVS 13.2.2, 13.2.3."""
    role, above = _row("SELECT rolname, rolsuper OR rolcreaterole OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
    password = str(connection.settings_dict.get("PASSWORD") or "")
    if above:
        yield warning(
            f"Gatehouse is {role} to PostgreSQL, who may do more there than own a database.",
            "CREATE ROLE gatehouse LOGIN; ALTER DATABASE … OWNER TO gatehouse; and that role in DATABASE_URL.",
        )
    if password and bits(password) < GUESSABLE:
        yield failure(f"The password of PostgreSQL's role {role} can be guessed.", "\\password in psql, then DATABASE_URL.")


def _replicas() -> Iterator[Finding]:
    rows = _rows("SELECT application_name, state, sync_state, COALESCE(EXTRACT(epoch FROM replay_lag), 0)::float FROM pg_stat_replication")
    if rows and all(state is None for _name, state, _sync, _lag in rows):
        yield note("PostgreSQL has replicas, and does not tell us how far behind they are.", "GRANT pg_monitor TO gatehouse;")
        return
    for name, state, sync, lag in rows:
        told = {"replica": name, "state": state, "sync": sync, "lag_seconds": round(lag, 3)}
        if lag > BEHIND or state != "streaming":
            found = failure if lag > FAR_BEHIND else warning
            yield found(f"The replica {name} is {state}, {lag:.0f} s behind.", "Look at its log and its network.", **told)
        else:
            yield ok(f"The replica {name} is {lag:.1f} s behind ({sync}).", **told)
    if rows and all(sync == "async" for _name, _state, sync, _lag in rows):
        yield note(
            "No replica is synchronous: after a failover the last moments are lost, ends of sessions among them.",
            "Set synchronous_standby_names.",
        )


# --- SQLite ---------------------------------------------------------------------------------------------------------


def _sqlite() -> Iterator[Finding]:
    journal, durable = _row("PRAGMA journal_mode")[0], _row("PRAGMA synchronous")[0]
    told = {"version": _row("SELECT sqlite_version()")[0], "journal_mode": journal, "synchronous": durable}
    path = Path(str(connection.settings_dict["NAME"]))
    if journal != "wal":
        yield failure(
            f"SQLite's journal is “{journal}”: parallel writes fail.",
            "Is the file on a disk of this machine? WAL needs one, no network share.",
            **told,
        )
    elif durable < 2:
        yield failure("SQLite may forget what it has answered, when the power fails.", "PRAGMA synchronous must be FULL.", **told)
    else:
        yield ok(f"SQLite {told['version']}, in WAL, and what it has answered is on the disk.", **told)
    if not path.is_file():
        return
    if path.stat().st_mode & 0o077 and path.parent.stat().st_mode & 0o011:
        found = warning if settings.DEMO else failure
        yield found(f"Other users of this machine may open {path}.", f"chmod 600 {path} {path}-wal {path}-shm")
    if path.stat().st_size <= CHECKED_WHOLE and (said := _row("PRAGMA quick_check(1)")[0]) != "ok":
        yield failure(
            f"The database file is damaged: {said}", "Stop the service, keep a copy, restore the last backup (deploy/README.md, Backups)."
        )


# --- Migrations -----------------------------------------------------------------------------------------------------


def _migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    loader = executor.loader
    waiting = executor.migration_plan(loader.graph.leaf_nodes())
    ours = {app for app, _name in loader.disk_migrations}
    newer = sorted(f"{app}.{name}" for app, name in set(loader.applied_migrations) - set(loader.disk_migrations) if app in ours)
    if waiting:
        names = [f"{step.app_label}.{step.name}" for step, _back in waiting]
        yield failure(
            f"{count(len(waiting), 'migration is', 'migrations are')} not applied, from {names[0]} on.", "manage.py migrate", waiting=names
        )
    elif newer:
        yield note(
            f"The database is ahead of this release by {', '.join(newer)}.",
            "Right after a rollback; else install the newer release.",
            newer=newer,
        )
    else:
        yield ok("Every migration is applied.")
