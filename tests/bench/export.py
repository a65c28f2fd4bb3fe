"""What a copy of a long log costs: `python -m tests.bench.export [ROWS]`, a million by default, as CSV and as JSON lines.

Prints the size and the seconds of each copy, and by how much it raised the memory of its process: the goal is under 200 MB in all.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers import Missing, PostgreSQL

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
KEYS = {"SECRET_KEY": "bench" * 10, "ENCRYPTION_KEYS": "YmVuY2ggb25seTogMzIgYnl0ZXMgb2YgYSBmYWtlIGs="}
FILL = """
from django.utils import timezone
from identity.models import Event, User
from tenants.models import Tenant
acme, dave, now = Tenant.objects.get(slug="acme"), User.objects.get(username="dave"), timezone.now()
agent = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
for start in range(0, {rows}, 10_000):
    Event.objects.bulk_create([
        Event(at=now, kind="session_ended" if n % 2 else "branch_opened", tenant=acme, actor=dave, subject=dave, ip="203.0.113.9",
              user_agent=agent, request_id="0" * 32, data={{"reason": "by_admin", "note": "=1+1"}} if n % 2 else {{}})
        for n in range(start, min(start + 10_000, {rows}))
    ], batch_size=500)
print(Event.objects.filter(tenant=acme).count())
"""
COPY = """
import resource, time
from identity import journal
from tenants.models import Tenant
acme = Tenant.objects.get(slug="acme")
rows = journal.matching(acme, journal.Criteria())
before, started, size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), 0
for piece in journal.lines(acme, rows, "{form}"):
    size += len(piece.encode())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
took, by_copy = time.monotonic() - started, (after - before) / 1024
print(f"{{size / 1e6:8.1f}} MB {{took:8.1f}} s {{after / 1024:8.0f}} MB, of them by the copy {{by_copy:.0f}} MB")
"""


def main() -> None:
    print(f"A copy of {ROWS:,} events:   size, time, memory of the process")
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


def measure(name: str, url: str, folder: Path) -> None:
    environment = os.environ | KEYS | {"DATABASE_URL": url, "STATIC_ROOT": str(folder), "PORT": "8000"}
    manage(environment, "demo", "seed")
    manage(environment, "shell", "--no-imports", "-c", FILL.format(rows=ROWS))
    for form in ("csv", "jsonl"):
        print(f"  {name:<11} {form:<6} {manage(environment, 'shell', '--no-imports', '-c', COPY.format(form=form))}", flush=True)


def manage(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
