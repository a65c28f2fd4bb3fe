"""What systemd is to do by night, whether it did, and whether it keeps the time."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings

from identity.management.doctor import PATIENCE, Asked, Finding, failure, note, ok, warning

# After how long without a run something is wrong: one works every hour, one on Sundays, the others every night.
LATE = {
    "gatehouse-certificates": timedelta(hours=5),
    "gatehouse-prune": timedelta(hours=50),
    "gatehouse-backup": timedelta(hours=50),
    "gatehouse-verify": timedelta(hours=50),
    "gatehouse-backup-verify": timedelta(days=8),
}


def examine(asked: Asked) -> Iterator[Finding]:
    if settings.DEMO:
        yield note("This is the demo: no timers.")
        return
    systemctl = shutil.which("systemctl")
    if systemctl is None or not Path("/run/systemd/system").is_dir():
        yield note("There is no systemd here.", "Let something else run deploy/backup.sh and manage.py prune every night.")
        return
    for name in sorted({*LATE, *installed(systemctl)}):
        yield _timer(name, shown(systemctl, f"{name}.timer"), shown(systemctl, f"{name}.service"))
    if shown("timedatectl", "").get("NTPSynchronized") == "no":
        yield warning("Nothing sets this machine's clock.", "timedatectl set-ntp true (package systemd-timesyncd)")


def installed(systemctl: str) -> list[str]:
    """Every timer of ours that is here."""
    command = [systemctl, "list-unit-files", "--no-legend", "--type=timer", "gatehouse-*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split()[0].removesuffix(".timer") for line in said.splitlines() if line.strip()]


def shown(program: str, unit: str) -> dict[str, str]:
    """What `systemctl show` says of a unit; nothing if it cannot be asked."""
    command = [program, "show", *(["--timestamp=unix", unit] if unit else [])]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def _timer(name: str, timer: dict[str, str], service: dict[str, str]) -> Finding:
    if not timer:
        return note(f"systemd says nothing of {name}.timer.", "Run the doctor as root: gatehouse doctor")
    cure = f"systemctl enable --now {name}.timer"
    if timer.get("LoadState") != "loaded":
        return failure(f"{name}.timer is not installed.", "deploy/install.sh brings it: run it again.")
    if timer.get("ActiveState") != "active":
        return failure(f"{name}.timer does not run.", cure)
    if service.get("Result", "success") != "success":
        return failure(f"{name} failed the last time ({service['Result']}).", f"Why: journalctl -u {name}. Again: systemctl start {name}")
    # By its timer, or by hand.
    times = [timer.get("LastTriggerUSec", ""), service.get("ExecMainExitTimestamp", "")]
    ran = max(int(each) if (each := told.removeprefix("@")).isdecimal() else 0 for told in times)
    if not ran:
        return note(f"{name} has not run yet. When it will: systemctl list-timers {name}.timer")
    at = datetime.fromtimestamp(ran, UTC)
    if datetime.now(UTC) - at > LATE.get(name, timedelta(days=8)):
        return warning(f"{name} ran last at {at:%Y-%m-%d %H:%M} UTC.", f"Why not since: systemctl status {name}.timer", ran_at=at)
    return ok(f"{name} ran at {at:%Y-%m-%d %H:%M} UTC.", ran_at=at)
