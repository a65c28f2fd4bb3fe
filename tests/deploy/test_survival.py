"""What a portal in production lives through: workers and servers that die or hang, databases that restart, upgrades that break off.

Short by default. KILLS=100, RESTARTS=20 and FAULTS=all are the long form: `make deploy-proof`.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.deploy.site import Site, copy

pytestmark = pytest.mark.deploy
KILLS = int(os.environ.get("KILLS", "6"))
RESTARTS = int(os.environ.get("RESTARTS", "2"))
LONG = os.environ.get("FAULTS") == "all"

# What upgrade.sh says when it begins a step.
STEPS = {
    "build": "build the release",
    "backup": "Back the database up.",
    "migrate": "Migrate the database.",
    "start": "Start ",
    "switch": "nginx changes over",
}


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.2)


@pytest.mark.essential
def test_workers_that_are_killed_fail_no_request(portal: Site) -> None:
    """One at a time, and now and then all of them; the next as soon as they are replaced."""
    with portal.under_load() as met:
        for count in range(KILLS):
            before = portal.workers()
            killed = before if count % 10 == 5 else [random.choice(before)]
            portal.kill("KILL", *killed)
            until(lambda: len(new := portal.workers()) == len(before) and not set(new) & set(killed))  # noqa: B023
            time.sleep(1)
    assert (met["failed"], met["wrong"]) == ([], [])
    assert portal.shows(f"gatehouse@{portal.slot()}", "NRestarts") == "0"


def test_workers_that_hang_are_replaced(portal: Site) -> None:
    hung = portal.workers() if LONG else portal.workers()[:1]
    portal.kill("STOP", *hung)
    began = time.monotonic()
    until(lambda: not set(portal.workers()) & set(hung))
    assert portal.is_ready(30)
    print(f"\n{portal.database}: {len(hung)} hanging workers replaced after {time.monotonic() - began:.0f} s")
    assert "hangs: it is killed" in portal.machine.run("journalctl", "--no-pager", "-u", f"gatehouse@{portal.slot()}", "--lines=100")


def test_a_server_that_hangs_is_started_anew_by_systemd(portal: Site) -> None:
    """With its own limit of a minute in the long form, with one of five seconds in the short."""
    unit = f"gatehouse@{portal.slot()}"
    with watchdog(portal, "" if LONG else "5"):
        main = portal.shows(unit, "MainPID")
        portal.kill("STOP", main, *portal.workers())
        began = time.monotonic()
        until(lambda: portal.shows(unit, "MainPID") not in {main, "0"} and portal.shows(unit, "ActiveState") == "active", 120)
        assert portal.is_ready(30)
        print(f"\n{portal.database}: a hanging server started anew after {time.monotonic() - began:.0f} s")
    assert portal.shows(unit, "NRestarts") == "1"
    portal.machine.visit("still-in", portal.authority)


@contextmanager
def watchdog(portal: Site, seconds: str) -> Iterator[None]:
    """Another limit for as long as this lasts."""
    place = "/run/systemd/system/gatehouse@.service.d"
    if seconds:
        portal.machine.run("sh", "-c", f"mkdir -p {place} && printf '[Service]\\nWatchdogSec={seconds}\\n' > {place}/test.conf")
        portal.machine.run("systemctl", "daemon-reload")
        portal.machine.run("systemctl", "restart", f"gatehouse@{portal.slot()}")  # the limit is that of its start
    yield
    portal.machine.run("rm", "-rf", place)
    portal.machine.run("systemctl", "daemon-reload")


@pytest.mark.essential
def test_a_database_that_restarts_is_a_calm_503_at_most_and_nothing_is_lost(portal: Site) -> None:
    """Orderly, at once, and by a kill. Every sign-in, hand-off and end that was answered is as it was told."""
    if portal.database != "local":
        pytest.skip("SQLite has no server")
    cluster = portal.machine.run("sh", "-c", "pg_lsclusters -h | cut -d' ' -f1").strip()
    unit = f"postgresql@{cluster}-main"
    ways = (
        f"systemctl restart {unit}",
        f"pg_ctlcluster {cluster} main restart -m immediate",
        f"kill -9 $(head -n 1 /var/lib/postgresql/{cluster}/main/postmaster.pid); sleep 1; systemctl restart {unit}",
    )
    with portal.under_load("away") as met:
        for count in range(RESTARTS):
            time.sleep(2)
            way = ways[(count + 1) % len(ways)]
            until(lambda: portal.machine.try_("sh", "-c", way).returncode == 0)  # noqa: B023
            until(portal.is_ready)
    assert (met["failed"], met["wrong"]) == ([], [])
    assert min(met["told"].values()) > 0
    portal.machine.visit("still-in", portal.authority)
    # What is done beside the requests goes on, too.
    until(lambda: " 0 " in portal.machine.run("/usr/local/sbin/gatehouse", "shell", "-v", "0", "-c", UNSEALED), 90)


UNSEALED = "from identity.models import Event; print('', Event.objects.filter(seal=None).count(), '')"


@pytest.mark.parametrize("step", STEPS if LONG else ["switch"])
def test_an_upgrade_that_is_killed_leaves_a_portal_and_another_ends_it(portal: Site, step: str) -> None:
    old = portal.release()
    upgrade = f"/shared/{portal.other()}/deploy/upgrade.sh"
    if step == "build":  # what was built once is not built again
        portal.machine.run("sh", "-c", 'cd /opt/gatehouse/releases && ls | grep -vx "$1" | xargs -r rm -rf', "sh", old)
        portal.machine.run("rm", "-f", "/opt/gatehouse/previous")
    with portal.under_load() as met:
        break_off(portal, upgrade, STEPS[step])
        time.sleep(1)
        assert portal.is_ready()
        # What the dead script has started holds its lock until it is done.
        until(lambda: portal.machine.try_(upgrade).returncode == 0, 120)
        assert portal.release() != old
        portal.machine.run("/opt/gatehouse/current/deploy/rollback.sh")
        assert portal.release() == old
    assert (met["failed"], met["wrong"]) == ([], [])
    assert portal.machine.run("sh", "-c", "systemctl is-enabled gatehouse@blue gatehouse@green || true").count("enabled") == 1


def break_off(portal: Site, script: str, step: str) -> None:
    """Start it, and kill it when it says that it begins this step."""
    command = portal.machine.inside("sh", "-c", f"echo $$; exec {script}")
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout
    number = running.stdout.readline().strip()
    assert any(line.startswith(step) for line in iter(running.stdout.readline, "")), f"it did not come to {step}"
    time.sleep(random.uniform(0.1, 1.5))
    portal.kill("KILL", number)
    running.stdout.close()
    running.wait()


def test_an_upgrade_that_must_not_be_changes_nothing_and_says_why(portal: Site) -> None:
    """A migration that the release before would not survive; a disk that fills while the release is built."""
    copy(portal.shared / "harmful", "CHANGELOG.md", "\n\n\n")
    last = max(path.stem for path in (portal.shared / "harmful/identity/migrations").glob("0*.py"))
    (portal.shared / "harmful/identity/migrations/9000_harmful.py").write_text(
        "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
        f"    dependencies = [('identity', '{last}')]\n    operations = [migrations.RemoveField('event', 'request_id')]\n"
    )
    old, before = portal.release(), portal.files()
    refused = portal.machine.try_("/shared/harmful/deploy/upgrade.sh")
    assert refused.returncode == 1
    assert "the release before still uses it" in refused.stderr
    assert f"{old} goes on serving." in refused.stderr
    portal.machine.run("sh", "-c", "rm -r /opt/gatehouse/releases/$(ls -t /opt/gatehouse/releases | head -n 1)")

    portal.machine.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp")  # noqa: S108
    full = portal.machine.try_("/shared/harmful/deploy/upgrade.sh")
    portal.machine.run("umount", "/tmp")  # noqa: S108
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "goes on as it was" in full.stderr
    assert portal.release() == old
    assert what_serves(portal.files()) == what_serves(before)


def what_serves(files: str) -> list[str]:
    return [line for line in files.splitlines() if not line.startswith("/opt/gatehouse/releases")]
