"""`make races`: the long races, on SQLite and on PostgreSQL, one after the other, and a table of what came of them.

`python -m tests.bench.races [--scale 0.1] [--seed 7] [--database postgres] [RACE …]`; the races are in tests/races.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.races.__main__ import GUESSES, ROUNDS
from tests.servers import Missing, Portal, PostgreSQL

OVER_HTTP = {"anonymous": 100_000, "ends_over_http": 60}
EVERY = [*ROUNDS, *GUESSES, *OVER_HTTP]
SECRETS = {
    "SECRET_KEY": "a key for the races only, long enough to be one",
    "ENCRYPTION_KEYS": "cmFjZXMgb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlISE=",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.races", description="The long races, on both databases.")
    parser.add_argument("races", nargs="*", metavar="RACE", help=f"some of: {', '.join(EVERY)}")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual rounds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    options = parser.parse_args()
    chosen = options.races or EVERY
    if unknown := set(chosen) - set(EVERY):
        parser.error(f"there is no race {', '.join(sorted(unknown))}")
    for name in ("PORTAL_URL", "TENANT_DOMAIN", "TRUSTED_PROXIES", "SIGNUP", "DEBUG", "LOG_FORMAT"):
        os.environ.pop(name, None)
    os.environ.update(SECRETS, PORT="8000")

    reports: list[dict[str, Any]] = []
    print(f"{'race':<42} {'database':<10} {'rounds':>8} {'violations':>10} {'seconds':>8}   seed {options.seed}")
    for kind in ("sqlite", "postgres") if options.database == "both" else (options.database,):
        with tempfile.TemporaryDirectory(prefix="gatehouse-races-") as name, _databases(kind, Path(name)) as (first, second):
            for report in _run(chosen, first, second, Path(name), options.scale, options.seed):
                reports.append(report)
                _print(report)
    return 1 if any(report["violations"] for report in reports) else 0


@contextmanager
def _databases(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Two empty databases: one for the racers, one for the servers."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/races.sqlite3", f"sqlite:///{folder}/servers.sqlite3"
        return
    try:
        server = PostgreSQL()
    except Missing as missing:
        sys.exit(str(missing))
    try:
        from tests.races.over_http import new_database

        yield new_database(server.url("postgres"), "races"), new_database(server.url("postgres"), "servers")
    finally:
        server.stop()


def _run(chosen: list[str], first: str, second: str, folder: Path, scale: float, seed: int) -> Iterator[dict[str, Any]]:
    environment = {**os.environ, "DATABASE_URL": first, "STATIC_ROOT": str(folder / "static")}
    if direct := [name for name in chosen if name not in OVER_HTTP]:
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], env=environment, check=True)
        command = [sys.executable, "-m", "tests.races", "--json", f"--scale={scale}", f"--seed={seed}", *direct]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        if process.returncode not in {0, 1}:
            sys.exit(f"The races broke down on {first.partition(':')[0]}.")
    if not set(chosen) & set(OVER_HTTP):
        return

    from tests.races import over_http
    from tests.races.crew import Crew

    with Portal(second, folder, workers=2) as portal:
        if "anonymous" in chosen:
            yield over_http.anonymous(portal, second, requests=int(OVER_HTTP["anonymous"] * scale)).as_dict()
        if "ends_over_http" in chosen:
            with Crew(second, processes=1, PORT=str(portal.port)) as crew:
                yield over_http.ends_over_http(
                    portal, second, crew, rounds=max(int(OVER_HTTP["ends_over_http"] * scale), 1), seed=seed
                ).as_dict()


def _print(report: dict[str, Any]) -> None:
    print(
        f"{report['race']:<42} {report['database']:<10} {report['rounds']:>8} {len(report['violations']):>10} {report['seconds']:>8.1f}   "
        + ", ".join(f"{name}: {count}" for name, count in report["figures"].items()),
        flush=True,
    )
    for text in report["violations"][:10]:
        print(f"    {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
