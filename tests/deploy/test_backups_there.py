"""Backups on a booted machine, by its own units: taken, tried, brought back under load, and carried to another machine."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.machine import ROOT, Machine
from tests.deploy.site import Site

pytestmark = pytest.mark.deploy
BACKUPS = "/var/backups/gatehouse"
TIMERS = 2 * len(list((ROOT / "deploy").glob("*.timer")))  # each with its service
MANAGE = "/usr/local/sbin/gatehouse"
RESTORE = "/opt/gatehouse/current/deploy/restore.sh"
WAY = "--resolve login.example.com:443:127.0.0.1 https://login.example.com/login/"
ASK = f"curl -sk -o /dev/null -w '%{{http_code}}\\n' {WAY}"


def link(machine: Machine, name: str) -> str:
    found = re.search(r"https://login\.example\.com/\S+", machine.run(MANAGE, "user", "link", name))
    assert found
    return found[0]


def memory(site: Site) -> str:
    return str(site.shared.with_name("memory"))


def visit(site: Site, verb: str, *more: str) -> None:
    site.machine.visit(verb, site.authority, memory(site), *more, module="restored")


def newest(machine: Machine) -> str:
    """The newest copy there."""
    return machine.run("sh", "-c", f"ls {BACKUPS}/gatehouse-*Z.* | grep -v -e facts -e sha256 | tail -n 1").strip()


def failed(machine: Machine, unit: str) -> str:
    """Start a unit that cannot do its work; what it said."""
    assert machine.try_("systemctl", "start", unit).returncode == 1
    return machine.run("journalctl", "--no-pager", "--output=cat", "--lines=12", f"--unit={unit}")


def ailing(machine: Machine) -> list[str]:
    """What the doctor finds wrong, but for what this machine cannot have: DNS, mail, a clock, speed."""
    told = json.loads(machine.try_(MANAGE, "doctor", "--json").stdout)
    bad = [f"{each['group']}: {each['text']}" for each in told["findings"] if each["state"] in {"warning", "failure"}]
    return [
        text
        for text in bad
        if not re.match(r"proxy: Nobody answers|hosts: |mail: |timers: Nothing sets|database: The database takes", text)
    ]


def serves(machine: Machine) -> bool:
    return machine.run("sh", "-c", ASK) == "200\n"


@contextmanager
def asked_all_the_time(machine: Machine) -> Iterator[list[str]]:
    """The status of each answer, afterwards."""
    statuses: list[str] = []
    with subprocess.Popen(machine.inside("sh", "-c", f"while true; do {ASK}; done"), stdout=subprocess.PIPE, text=True) as asking:
        try:
            yield statuses
        finally:
            machine.kill(asking)
            statuses += asking.communicate()[0].split()


def put_aside(site: Site) -> list[str]:
    """The databases that a restore has put aside."""
    if site.database == "sqlite":
        return site.machine.run(
            "find", "/var/lib/gatehouse", "-name", "*.before-*", "-not", "-name", "*-wal", "-not", "-name", "*-shm"
        ).split()
    listed = "select datname from pg_database where datname like 'gatehouse_%'"
    return site.machine.run("runuser", "-u", "postgres", "--", "psql", "-qtAc", listed).split()


def test_people_work_and_the_nights_unit_takes_a_copy(site: Site) -> None:
    site.install()
    machine = site.machine
    machine.run(MANAGE, "tenant", "add", "acme", "Acme")
    for name in ("olivia", "bob"):
        machine.run(MANAGE, "user", "add", name, f"{name}@acme.example", "--verified")
        machine.run(MANAGE, "member", "add", "acme", name, "--role", "owner")
    visit(site, "before", link(machine, "olivia"), link(machine, "bob"))
    site.shared.with_name("link").write_text(link(machine, "olivia"))
    machine.run("systemctl", "start", "gatehouse-backup", "gatehouse-backup-verify")
    assert Path(newest(machine)).name in machine.run("cat", f"{BACKUPS}/verified")
    site.shared.with_name("copy").write_text(newest(machine))
    visit(site, "meanwhile")
    assert ailing(machine) == []


def test_a_restore_under_load_answers_503_for_a_moment_and_everybody_signs_in_anew(site: Site) -> None:
    machine, copy = site.machine, site.shared.with_name("copy").read_text()
    machine.run(MANAGE, "member", "remove", "acme", "bob")
    machine.run(MANAGE, "tenant", "suspend", "acme", "--reason", "by mistake")
    with asked_all_the_time(machine) as statuses:
        said = machine.run(RESTORE, "--yes", copy)
        assert serves(machine)
    assert set(statuses) <= {"200", "503"}, statuses
    print(f"{site.database}: {statuses.count('200')} answers, {statuses.count('503')} of 503 while the databases were swapped")
    assert re.search(r"^Stopping .*gatehouse@blue\.service", said, re.MULTILINE), said  # and what of the jobs was at work
    for promise in ("Starting gatehouse@blue.service", "Nobody is signed in.", "3 sessions ended"):
        assert promise in said, said
    assert "so are those used since the copy was taken. To void them all: gatehouse restored --void-recovery-codes" in said
    assert len(put_aside(site)) == 1
    assert put_aside(site)[0] in said
    visit(site, "after", site.shared.with_name("link").read_text())
    assert ailing(machine) == []
    assert machine.run("systemctl", "list-timers", "--plain", "--no-legend", "gatehouse-*").count("gatehouse-") == TIMERS


def test_recovery_codes_can_be_voided_afterwards_and_authenticators_are_good_again(site: Site) -> None:
    assert "7 unused recovery codes" in site.machine.run(MANAGE, "restored", "--void-recovery-codes")
    visit(site, "later")


def test_with_a_key_the_nights_copy_is_encrypted_and_the_weekly_trial_opens_it(site: Site) -> None:
    machine = site.machine
    machine.run("apt-get", "-qq", "install", "--no-install-recommends", "gnupg")
    make = "install -m 0640 -g gatehouse /dev/null /etc/gatehouse/backup.key && openssl rand -base64 32 >/etc/gatehouse/backup.key"
    machine.run("sh", "-c", f"{make} && echo BACKUP_KEY_FILE=/etc/gatehouse/backup.key >>/etc/gatehouse/gatehouse.env")
    machine.run("systemctl", "start", "gatehouse-backup", "gatehouse-backup-verify")
    assert newest(machine).endswith(".gpg")
    assert Path(newest(machine)).name in machine.run("cat", f"{BACKUPS}/verified")
    machine.run("mv", "/etc/gatehouse/backup.key", "/root/backup.key")
    assert "the key file /etc/gatehouse/backup.key cannot be read as gatehouse" in failed(machine, "gatehouse-backup")
    said = machine.try_(RESTORE, "--yes", newest(machine)).stderr
    assert "the key file /etc/gatehouse/backup.key cannot be read as root" in said
    assert "timers: gatehouse-backup failed the last time (exit-code)." in ailing(machine)
    machine.run("mv", "/root/backup.key", "/etc/gatehouse/backup.key")
    assert serves(machine)


def test_the_fourteen_newest_copies_stay(site: Site) -> None:
    machine = site.machine
    machine.run("sh", "-c", f"cd {BACKUPS} && for day in $(seq 10 30); do touch gatehouse-202001${{day}}T000000Z.dump; done")
    machine.run("systemctl", "start", "gatehouse-backup")
    copies = machine.run("sh", "-c", f"ls {BACKUPS} | grep -c -e 'Z.dump$' -e 'Z.sqlite3$' -e 'gpg$'")
    assert int(copies) == 14
    machine.run("sh", "-c", f"rm {BACKUPS}/gatehouse-2020*")


def test_a_damaged_copy_is_said_to_be_one_and_nothing_is_touched(site: Site) -> None:
    machine, good = site.machine, newest(site.machine)
    bad = f"{BACKUPS}/gatehouse-20991231T235959Z.{good.partition('Z.')[2]}"
    machine.run(
        "sh",
        "-c",
        f"cp {good} {bad} && sed s/{Path(good).name}/{Path(bad).name}/ {good}.sha256 >{bad}.sha256 && cp {good}.facts {bad}.facts",
    )
    machine.run("sh", "-c", f"printf x | dd of={bad} bs=1 seek=5000 conv=notrunc status=none; chown gatehouse {BACKUPS}/*")
    assert f"{bad} is damaged: it is not as backup.sh wrote it. Take another copy" in failed(machine, "gatehouse-backup-verify")
    done = machine.try_(RESTORE, "--yes", bad)
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "timers: gatehouse-backup-verify failed the last time (exit-code)." in ailing(machine)
    assert (serves(machine), len(put_aside(site))) == (True, 1)
    machine.run("sh", "-c", f"rm {bad}*")


def test_a_full_disk_is_said_to_be_full_and_people_sign_in_meanwhile(site: Site) -> None:
    machine = site.machine
    machine.run("sh", "-c", f"mount -t tmpfs -o size=64k,mode=0700 tmpfs {BACKUPS} && chown gatehouse: {BACKUPS}")
    try:
        assert re.search(rf"the disk of {BACKUPS} is (too )?full", failed(machine, "gatehouse-backup"))
        assert machine.run("find", BACKUPS, "-name", "gatehouse-*") == ""
        assert serves(machine)
    finally:
        machine.run("umount", BACKUPS)
    machine.run("systemctl", "start", "gatehouse-backup", "gatehouse-backup-verify")
    assert ailing(machine) == []


def test_a_restore_that_was_killed_is_done_again_and_starts_what_it_had_stopped(site: Site) -> None:
    machine, copy = site.machine, newest(site.machine)
    killer = """#!/bin/sh\\n[ "$1" != start ] || { kill -9 "$PPID"; exit; }\\nexec /usr/bin/systemctl "$@"\\n"""
    machine.run("sh", "-c", f"mkdir /root/bin && printf '{killer}' >/root/bin/systemctl && chmod 0755 /root/bin/systemctl")
    killed = machine.try_("env", "PATH=/root/bin:/usr/sbin:/usr/bin:/sbin:/bin", RESTORE, "--yes", copy)
    assert killed.returncode in {-9, 137}, killed.stdout + killed.stderr
    assert not serves(machine)
    said = machine.run(RESTORE, "--yes", copy)
    assert re.search(r"Starting gatehouse@(blue|green)\.service\n", said), said
    assert serves(machine)
    assert machine.run("systemctl", "list-timers", "--plain", "--no-legend", "gatehouse-*").count("gatehouse-") == TIMERS
    assert machine.run("systemctl", "is-active", "gatehouse-certificates.path") == "active\n"
    assert ailing(machine) == []


def test_another_machine_becomes_the_portal_by_three_commands(site: Site) -> None:
    """What somebody has who copied the copies and /etc/gatehouse elsewhere, as the README asks."""
    machine, copy = site.machine, newest(site.machine)
    machine.run("sh", "-c", f"mkdir /root/elsewhere && cp -a /etc/gatehouse /root/elsewhere/ && cp -a {copy}* /root/elsewhere/")
    machine.run("/opt/gatehouse/current/deploy/uninstall.sh", "--yes")
    machine.run("rm", "-rf", "/etc/gatehouse", "/var/lib/gatehouse", BACKUPS)
    if site.database == "local":
        for name in ["gatehouse", *put_aside(site)]:
            machine.run("runuser", "-u", "postgres", "--", "dropdb", name)
        machine.run("runuser", "-u", "postgres", "--", "dropuser", "gatehouse")
    machine.run("userdel", "gatehouse")

    machine.run("chgrp", "games", "/root/elsewhere/gatehouse/backup.key")  # as a number of the old machine may look here

    machine.run("cp", "-a", "/root/elsewhere/gatehouse", "/etc/")
    machine.run("/shared/first/deploy/install.sh", "--yes")
    machine.run(RESTORE, "--yes", f"/root/elsewhere/{Path(copy).name}")

    assert "olivia" in machine.run(MANAGE, "user", "list")
    assert "all as they were written" in machine.run(MANAGE, "event", "verify")
    visit(site, "again")
    assert ailing(machine) == []
