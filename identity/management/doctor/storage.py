"""Room on the disks, and a backup that somebody has tried."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import connection

from identity.management.doctor import Asked, Finding, failure, note, ok, warning

OLD, TOO_OLD = timedelta(days=8), timedelta(days=31)  # since a backup was verified
TIGHT, FULL = 0.10, 0.03  # of a disk
GIGABYTE = 1024**3


def examine(asked: Asked) -> Iterator[Finding]:
    if settings.BACKUPS:
        yield _verified(settings.BACKUPS / "verified")
    else:
        yield note("BACKUP_DIRECTORY is empty: somebody else looks after the backups.")
    yield from _disks()


def _verified(path: Path) -> Finding:
    """What deploy/verify-backup.sh wrote when a copy would have done: its time and the copy's name."""
    cure = "Make a copy and try it: systemctl start gatehouse-backup gatehouse-backup-verify; journalctl -u gatehouse-backup-verify"
    try:
        told, name = path.read_text().split()
        at = datetime.fromisoformat(told).astimezone(UTC)
    except FileNotFoundError:
        return note("This is the demo: no backups.") if settings.DEMO else warning("No backup was ever verified.", cure)
    except (OSError, ValueError) as error:
        return warning(f"{path} cannot be read ({type(error).__name__}).", cure)
    age = datetime.now(UTC) - at
    if age > OLD:
        return (failure if age > TOO_OLD else warning)(f"The last backup was verified {age.days} days ago.", cure, verified_at=at)
    return ok(f"The backup {name} was verified on {at:%Y-%m-%d}.", verified_at=at, file=name)


def _disks() -> Iterator[Finding]:
    places = [settings.STATE, settings.BACKUPS or settings.STATE, Path(settings.STATIC_ROOT)]
    if connection.vendor == "sqlite":
        places.insert(0, Path(str(connection.settings_dict["NAME"])).parent)
    disks: dict[int, Path] = {}
    for place in places:
        if place.is_dir():
            disks.setdefault(place.stat().st_dev, place)
    for place in disks.values():
        yield _room(place)


def _room(place: Path) -> Finding:
    disk = os.statvfs(place)
    size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    part = min(free / size if size else 1, disk.f_favail / disk.f_files if disk.f_files else 1)
    text = f"{place}: {free / GIGABYTE:.1f} GB free of {size / GIGABYTE:.1f}."
    told = {"path": str(place), "free": free, "size": size, "inodes_free": disk.f_favail}
    if part < FULL or free < GIGABYTE / 5:
        return failure(text, "Make room now: a full disk stops every sign-in. What may go: deploy/README.md, The disk is full", **told)
    if part < TIGHT or free < GIGABYTE:
        return warning(text, "Make room. What may go: deploy/README.md, The disk is full", **told)
    return ok(text, **told)
