"""Does the sealer slow the writers? `python -m tests.bench.seals`: 8 processes write events, with it and without, in turns.

With it means: a sealer in each of the 8 processes, every second, as in 8 workers of the server. The machines are noisy: each
round with the sealer stands beside one without, and the ratio is the median of theirs. “Alone” is what one event costs one
process that has the machine's database for itself: to write it, and to seal it. BENCH_SECONDS, BENCH_PAIRS: of the rounds.
"""

import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from tests.servers import Missing, PostgreSQL

WRITERS = 8
ALONE = 500  # events
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
PAIRS = int(os.environ.get("BENCH_PAIRS", "12"))


def main() -> None:
    print(f"{WRITERS} processes write events for {SECONDS:g} s, {PAIRS} times without the sealer and {PAIRS} times with it")
    print(
        "                  without        with   ratio   (worst, best)   slowest 1 in 100: without, with   alone: written, sealed    seals"
    )
    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder:
        measure("SQLite", f"sqlite:///{folder}/bench.sqlite3", Path(folder))
        try:
            server = PostgreSQL()
        except Missing as missing:
            print(missing)
            return
        try:
            measure("PostgreSQL", server.url("postgres"), Path(folder))
        finally:
            server.stop()


@dataclass(slots=True)
class Round:
    events: int
    p99: float  # milliseconds
    write: float  # microseconds for one event, alone
    seal: float


def measure(name: str, url: str, folder: Path) -> None:
    environment = {"DATABASE_URL": url, "SECRET_KEY": "bench" * 10, "ENCRYPTION_KEYS": "YmVuY2ggb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="}
    environment |= {"STATIC_ROOT": str(folder), "PORT": "8000", "DJANGO_SETTINGS_MODULE": "portal.settings"}
    manage(environment, "demo", "seed")
    context = multiprocessing.get_context("spawn")
    pipes = []
    for number in range(WRITERS):
        here, there = context.Pipe()
        context.Process(target=writer, args=(there, environment, number), daemon=True).start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()
    play(pipes, sealing=True)  # to warm up
    pairs = []
    for pair in range(PAIRS):
        first = pair % 2 == 1  # neither is always the second
        rounds = {first: play(pipes, sealing=first)}
        rounds[not first] = play(pipes, sealing=not first)
        pairs.append((rounds[False], rounds[True]))
    for pipe in pipes:
        pipe.send(None)
    told = manage(environment, "event", "verify")
    assert "all as they were written" in told, told
    median = statistics.median
    without, sealed = (median(pair[which].events for pair in pairs) / SECONDS for which in (0, 1))
    p99_without, p99_sealed = (median(pair[which].p99 for pair in pairs) for which in (0, 1))
    written, sealed_in = (median(getattr(pair[0], what) for pair in pairs) for what in ("write", "seal"))
    ratios = sorted(pair[1].events / pair[0].events for pair in pairs)
    print(
        f"  {name:<12} {without:>8,.0f}/s {sealed:>8,.0f}/s {median(ratios):>7.3f} {f'({ratios[0]:.2f}, {ratios[-1]:.2f})':>15}"
        f" {p99_without:>22.1f} ms, {p99_sealed:.1f} ms {written:>9,.0f} µs, {sealed_in:.0f} µs"
        f" {told.partition(' seals')[0].rpartition(' ')[2]:>7}"
    )


def manage(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ).stdout


def play(pipes: list[Connection], *, sealing: bool) -> Round:
    """One round; what is left without a seal gets one between the rounds."""
    start = time.monotonic() + 0.2
    for pipe in pipes:
        pipe.send((start, sealing))
    took = sorted(took for pipe in pipes for took in pipe.recv())
    pipes[0].send("seal")
    written, sealed = pipes[0].recv()
    return Round(len(took), 1000 * took[int(len(took) * 0.99)], 1e6 * written, 1e6 * sealed)


def writer(pipe: Connection, environment: dict[str, str], number: int) -> None:
    os.environ.update(environment)
    import logging

    import django

    django.setup()
    logging.getLogger("gatehouse.seals").setLevel(logging.WARNING)
    from identity import events, seals, upkeep
    from identity.models import User
    from tenants.models import Tenant

    places, person = [*Tenant.objects.order_by("pk"), None], User.objects.get(username="dave")
    numbers = itertools.count()

    def write() -> None:
        n = next(numbers)
        events.record("bench", tenant=places[n % 3], actor=person, subject=person, writer=number, n=n)

    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        if task == "seal":
            began = time.monotonic()
            for _alone in range(ALONE):
                write()
            written = time.monotonic()
            sealed = seals.seal(wait=True)
            pipe.send(((written - began) / ALONE, (time.monotonic() - written) / sealed))
            continue
        start, sealing = task
        sealer = upkeep.Upkeep(upkeep.Chore("seal", timedelta(seconds=1), seals.seal))
        time.sleep(max(start - time.monotonic(), 0))
        if sealing:
            sealer.start()
        took = []
        while (began := time.monotonic()) < start + SECONDS:
            write()
            took.append(time.monotonic() - began)
        if sealing:
            sealer.stop()
        pipe.send(took)


if __name__ == "__main__":
    main()
