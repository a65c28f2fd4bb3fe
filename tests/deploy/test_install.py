"""A bare machine, installed, upgraded under load, rolled back: `make deploy-test`, in this order.

UPGRADES=10 REQUESTS=20000 has it upgraded ten times in a row under load, to and fro between two releases.
"""

import os
import re
import time
from itertools import pairwise

import pytest

from tests.deploy.machine import ROOT
from tests.deploy.site import Site

pytestmark = pytest.mark.deploy
UPGRADES = int(os.environ.get("UPGRADES", "1"))
REQUESTS = int(os.environ.get("REQUESTS", "0"))  # at least so many while they happen
IDS = re.compile(r"\d+\.\d+\.\d+-[0-9a-f]{10}")


@pytest.mark.essential
def test_a_bare_machine_becomes_a_portal_by_one_command_and_its_operator_signs_in(site: Site) -> None:
    said = site.install()
    link = re.search(r"https://login\.example\.com/signup/\S+", said)
    assert link, said
    site.machine.visit("sign-up", site.authority, link[0])
    assert IDS.fullmatch(site.release())
    assert site.machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "gatehouse*") == ""


@pytest.mark.essential
def test_the_owner_of_a_first_tenant_signs_in_there(site: Site) -> None:
    site.settle()


@pytest.mark.essential
def test_a_second_run_changes_nothing_and_says_so(site: Site) -> None:
    before = site.files()
    assert "Nothing to change: everything is as you asked." in site.install()
    assert "Nothing to change: everything is as you asked." in site.machine.run("/shared/first/deploy/install.sh", "--yes")
    assert site.files() == before


def test_nobody_but_root_reads_the_secrets_and_no_process_has_them_in_its_environment(site: Site) -> None:
    secrets = [line for line in site.machine.run("sh", "-c", "cat /etc/gatehouse/credentials/*_KEY*").split() if line]
    assert len(secrets) == 2
    for file in site.machine.run("find", "/etc/gatehouse/credentials", "-type", "f", "-printf", "%u %m\n").splitlines():
        assert file == "root 600"
    environments = site.machine.run("sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert "SECRET_KEY_FILE=/run/credentials/" in environments
    assert not any(secret in environments for secret in secrets)


@pytest.mark.essential
def test_the_jobs_of_the_night_run(site: Site) -> None:
    site.machine.run("systemctl", "start", "gatehouse-prune", "gatehouse-backup", "gatehouse-verify")
    timers = site.machine.run("systemctl", "list-timers", "--plain", "--no-legend", "gatehouse-*")
    assert timers.count("gatehouse-") == 2 * len(list((ROOT / "deploy").glob("*.timer")))  # each with its service
    assert (
        site.machine.run("ls", "/var/backups/gatehouse").count("gatehouse-") == 6
    )  # with that of the installation, each with its facts and sums


@pytest.mark.essential
def test_an_upgrade_under_load_fails_no_request_and_signs_nobody_out(site: Site) -> None:
    served, seconds = [site.release()], list[float]()
    with site.under_load() as met:
        for count in range(UPGRADES):
            site.wait_for_requests(REQUESTS * count // UPGRADES)
            began = time.monotonic()
            said = site.machine.run(f"/shared/{site.other()}/deploy/upgrade.sh")
            seconds.append(round(time.monotonic() - began, 1))
            served.append(site.release())
            assert f"{served[-1]} serves." in said
        site.wait_for_requests(REQUESTS)
    print(f"{site.database}: {UPGRADES} upgrades, seconds: {seconds}")
    assert (met["failed"], met["wrong"]) == ([], [])
    assert min(met["kinds"].get(kind, 0) for kind in ("read", "sign-in", "hand-off", "end")) > 0
    assert all(before != after for before, after in pairwise(served))
    site.machine.visit("still-in", site.authority)
    assert "Nothing to do." in site.machine.run(f"/opt/gatehouse/releases/{served[-1]}/deploy/upgrade.sh")


@pytest.mark.essential
def test_a_release_that_does_not_start_is_taken_back_with_the_reason(site: Site) -> None:
    old = site.release()
    with site.under_load() as met:
        done = site.machine.try_("/shared/broken/deploy/upgrade.sh", "--no-backup")
    assert done.returncode == 1
    assert "did not start: journalctl -u gatehouse@" in done.stderr
    assert f"{old} goes on serving." in done.stderr
    assert met["failed"] == []
    assert site.release() == old
    site.machine.visit("still-in", site.authority)


@pytest.mark.essential
def test_a_rollback_under_load_fails_no_request_and_is_a_matter_of_seconds(site: Site) -> None:
    new = site.release()
    with site.under_load() as met:
        said = site.machine.run("/opt/gatehouse/current/deploy/rollback.sh")
    assert met["failed"] == []
    assert site.release() != new
    print(said.splitlines()[-1])
    site.machine.visit("still-in", site.authority)
    site.machine.run("/opt/gatehouse/current/deploy/rollback.sh")
    assert site.release() == new


def test_what_serves_comes_back_after_a_restart_of_its_slot_only(site: Site) -> None:
    enabled = [slot for slot in ("blue", "green") if site.machine.try_("systemctl", "is-enabled", f"gatehouse@{slot}").returncode == 0]
    active = [slot for slot in ("blue", "green") if site.machine.try_("systemctl", "is-active", f"gatehouse@{slot}").returncode == 0]
    assert len(active) == 1
    assert enabled == active


def test_behind_a_proxy_only_that_proxy_is_heard(site: Site) -> None:
    site.machine.run("/shared/first/deploy/install.sh", "--yes", "--behind-proxy", "127.0.0.2")

    def status(address: str, scheme: str) -> str:
        asked = (
            "-H",
            "Host: login.example.com",
            "-H",
            f"X-Forwarded-Proto: {scheme}",
            "-H",
            "Accept: text/html",
            "http://127.0.0.1/login/",
        )
        return site.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", address, *asked)

    assert (status("127.0.0.2", "https"), status("127.0.0.2", "http"), status("127.0.0.3", "https")) == ("200", "301", "403")
    site.install()
    site.machine.visit("still-in", site.authority)
