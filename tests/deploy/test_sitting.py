"""What an operator meets on one machine, in this order: nothing, one command, a portal with people; then what can go wrong."""

import json
import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.deploy.machine import Machine, lacking
from tests.deploy.site import certificate, copy

pytestmark = pytest.mark.deploy
INSTALL = "/shared/first/deploy/install.sh"
NAMES = ("--yes", "--portal-url", "https://login.example.com", "--admin-email", "erin@example.com")
TLS = ("--tls-cert", "/shared/cert.pem", "--tls-key", "/shared/key.pem")
PLAIN = (INSTALL, *NAMES, *TLS, "--database", "sqlite", "--smtp", "none")
PASSWORD = "p%40ss-of-the-database"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/shared is what the machine sees, /post what the mail server took."""
    folder = tmp_path_factory.mktemp("sitting")
    (folder / "shared").mkdir()
    (folder / "post").mkdir()
    copy(folder / "shared/first", "CHANGELOG.md", "\n")
    certificate(folder / "shared")
    return folder


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Machine]:
    """With a mail server, and the portal's names in its /etc/hosts, as DNS would have them."""
    if lack := lacking():
        missing(lack)
    with Machine(folder, folder / "shared") as machine:
        machine.run("sh", "-c", "echo 127.0.0.1 localhost login.example.com acme.example.com >/etc/hosts")
        post = machine.client("post-office", str(folder / "post"), module="sitting")
        assert post.stdout
        assert post.stdout.readline() == "ready\n", post.communicate()
        yield machine
        post.communicate("")


def everything(machine: Machine) -> list[str]:
    """Every folder; every file, with the time of its last change. In /run and the journal systemd itself is at work: ours alone."""
    what = ("-type", "d", "-printf", r"%p %m %u\n", "-o", "-printf", r"%p %T@ %m %u %l\n")
    listed = machine.run("find", "/", "/run", "-xdev", *what)
    return sorted(line for line in listed.splitlines() if "gatehouse" in line or not line.startswith(("/run/", "/var/log/journal")))


def wipe(machine: Machine) -> None:
    """As if it had never been here; the packages of Debian stay."""
    machine.try_("/opt/gatehouse/current/deploy/uninstall.sh", "--yes")
    machine.run("rm", "-rf", "/etc/gatehouse", "/opt/gatehouse", "/var/lib/gatehouse", "/var/backups/gatehouse")
    machine.try_("runuser", "-u", "postgres", "--", "dropdb", "gatehouse")


def refused(machine: Machine, *command: str) -> str:
    done = machine.try_(*command)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def findings(machine: Machine, *states: str) -> list[str]:
    """What the doctor says, in these states."""
    told = json.loads(machine.try_("gatehouse", "doctor", "--json").stdout)
    texts = [finding["text"] for finding in told["findings"] if finding["state"] in states]
    return [text for text in texts if not text.startswith("The database takes")]  # the machine of a test may be slow


# --- One sitting ------------------------------------------------------------------------------------------------------


def test_a_dry_run_on_a_bare_machine_changes_nothing(machine: Machine) -> None:
    before = everything(machine)
    assert "Nothing was changed." in machine.run(*PLAIN, "--dry-run")
    assert everything(machine) == before


def test_from_a_bare_root_to_the_owner_of_a_first_tenant_it_takes_one_command(machine: Machine, folder: Path) -> None:
    began = time.monotonic()
    said = machine.run(INSTALL, *NAMES, *TLS, "--database", "local", "--smtp", "smtp://127.0.0.1:2525")
    installed = time.monotonic()
    link = re.search(r"https://login\.example\.com/signup/\S+", said)
    assert link, said
    machine.visit("first-people", str(folder / "shared/cert.pem"), str(folder / "post"), link[0], module="sitting")
    print(f"One command, {installed - began:.0f} s; two people in the browser, {time.monotonic() - installed:.0f} s")


def test_the_doctor_finds_only_what_is_wrong_with_this_machine(machine: Machine) -> None:
    untrusted = ["login.example.com: its certificate is not trusted.", "acme.example.com: its certificate is not trusted."]
    assert findings(machine, "failure") == untrusted
    machine.run("cp", "/shared/cert.pem", "/etc/ssl/authority.pem")
    machine.run("sh", "-c", "echo SSL_CERT_FILE=/etc/ssl/authority.pem >>/etc/gatehouse/gatehouse.env")
    assert findings(machine, "failure") == []
    assert set(findings(machine, "warning")) <= {"Nothing sets this machine's clock."}
    assert not [text for text in findings(machine, "note") if "backup" in text]


def test_a_test_mail_arrives(machine: Machine, folder: Path) -> None:
    machine.run("gatehouse", "doctor", "--only", "mail", "--mail", "admin@example.com")
    newest = max((folder / "post").iterdir(), key=lambda file: file.stat().st_mtime)
    assert newest.read_text().startswith("admin@example.com\nThis is a test from https://login.example.com.")


def test_changed_settings_are_those_that_serve_after_a_second_run(machine: Machine) -> None:
    machine.run("sh", "-c", "echo METRICS_FROM=127.0.0.1 >>/etc/gatehouse/gatehouse.env")
    assert "start it again, with the settings as they are now" in machine.run(INSTALL, "--yes")
    asked = ("--resolve", "login.example.com:443:127.0.0.1", "https://login.example.com/metrics")
    assert "gatehouse_" in machine.run("curl", "--silent", "--insecure", *asked)
    assert "Nothing to change" in machine.run(INSTALL, "--yes")


def test_the_same_files_are_the_same_release_from_an_archive_a_tag_or_a_directory(machine: Machine, folder: Path) -> None:
    work = folder / "work"
    shutil.copytree(folder / "shared/first", work)
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t.example", "-C", str(work))
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "First"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    for kind in ("tar.gz", "zip"):
        archive = folder / f"shared/gatehouse.{kind}"
        subprocess.run([*git, "archive", "--prefix=gatehouse-1/", f"--output={archive}", "v1"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, folder / "shared/gatehouse.git"], check=True)
    machine.run("apt-get", "-qq", "install", "--no-install-recommends", "git")
    upgrade = "/opt/gatehouse/current/deploy/upgrade.sh"
    machine.run("git", "config", "--system", "--add", "safe.directory", "*")
    for source in (
        ["/shared/gatehouse.tar.gz"],
        ["/shared/gatehouse.zip"],
        ["file:///shared/gatehouse.git", "--tag", "v1"],
        ["/shared/first"],
    ):
        assert "serves already. Nothing to do." in machine.run(upgrade, *source), source
    assert "has no tag v2, or cannot be reached" in refused(machine, upgrade, "file:///shared/gatehouse.git", "--tag", "v2")
    assert "holds no release of Gatehouse" in refused(machine, upgrade, "/etc/nginx")


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_wrong_answer_is_asked_again_and_a_password_is_seen_nowhere(machine: Machine) -> None:
    wipe(machine)
    machine.run("apt-get", "-qq", "install", "--no-install-recommends", "postgresql")
    for statement in (f"CREATE ROLE portal LOGIN PASSWORD '{PASSWORD.replace('%40', '@')}'", "CREATE DATABASE portal OWNER portal"):
        machine.run("runuser", "-u", "postgres", "--", "psql", "-qc", statement)
    answers = ["login", "login.example.com", "ex ample", "", "erin", "erin@example.com", "mysql"]
    answers += [f"postgres://portal:{PASSWORD}@127.0.0.1:5432/portal", "mail", "none", "maybe", "files", "/nowhere", "/shared/cert.pem"]
    answers += ["/shared/cert.pem", "/shared/key.pem"]
    ours, theirs = pty.openpty()
    # setsid --ctty: the terminal that it asks is this one.
    with subprocess.Popen(machine.inside("setsid", "--ctty", "--wait", INSTALL), stdin=theirs, stdout=theirs, stderr=theirs) as script:
        os.close(theirs)
        said, seen = "", set[str]()
        while script.poll() is None or answers:
            try:
                said += os.read(ours, 65536).decode()
            except OSError:  # the other end is closed
                break
            if said.endswith(": ") and answers:
                os.write(ours, f"{answers.pop(0)}\n".encode())
                said += "\n"
            seen |= {line for line in machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'").splitlines() if PASSWORD in line}
    os.close(ours)
    assert script.returncode == 0, said
    assert answers == []
    assert said.count("it must ") == 8
    assert not seen
    found = machine.run(
        "grep", "-rl", "--", PASSWORD, "/etc", "/opt/gatehouse/current/deploy", "/var/lib/gatehouse", "/usr/local"
    ).splitlines()
    assert found == ["/etc/gatehouse/credentials/DATABASE_URL"]
    assert machine.run("stat", "-c", "%U %a", found[0]) == "root 600\n"
    assert not [text for text in findings(machine, "failure", "warning") if "atabase" in text or "backup" in text]


def test_an_installation_that_is_killed_is_finished_by_the_next_run(machine: Machine) -> None:
    wipe(machine)
    for last_words in ("build the release", "make the secret ENC", "migrate the", "start Gatehouse", "link /etc/nginx", "first backup"):
        with subprocess.Popen(machine.inside(*PLAIN), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as script:
            assert script.stdout
            said = ""
            for line in script.stdout:
                said += line
                if last_words in line:
                    machine.kill(script)
                    break
            else:
                raise AssertionError(f"it never said “{last_words}”:\n{said}")
        until_free(machine)
    machine.run(*PLAIN)
    assert "Nothing to change" in machine.run(*PLAIN)
    assert not [text for text in findings(machine, "failure") if "certificate" not in text and "EMAIL" not in text]


def until_free(machine: Machine) -> None:
    """A child of the killed script may go on for a moment, and the next run does not start before it has ended."""
    machine.run("flock", "--timeout", "60", "/run/gatehouse-deploy.lock", "true")


def test_each_obstacle_is_named_with_what_to_do(machine: Machine) -> None:
    wipe(machine)
    machine.run("systemctl", "stop", "nginx")
    machine.run("systemd-run", "--quiet", "--unit=other", "python3", "-m", "http.server", "80")
    machine.run("sh", "-c", "until curl --silent --output /dev/null http://127.0.0.1/; do sleep 0.1; done")
    assert "another program has a port that nginx needs: python3 (process " in refused(machine, *PLAIN)
    assert machine.try_("ls", "/etc/gatehouse").returncode != 0
    machine.run("systemctl", "stop", "other")

    machine.run("apt-get", "-qq", "remove", "curl")
    machine.run("sh", "-c", "mkdir -p /root/debs && mv /var/cache/apt/archives/*.deb /root/debs")
    assert "these packages could not be installed: curl. Mend what apt-get says" in refused(machine, *PLAIN)
    machine.run("sh", "-c", "mv /root/debs/*.deb /var/cache/apt/archives")

    said = refused(machine, "env", "PIP_FIND_LINKS=/nowhere", *PLAIN)
    assert "pip could not install the packages: see above. What runs goes on as it was" in said

    machine.run("sh", "-c", "mkdir -p /opt/gatehouse && mount -t tmpfs -o size=100m tmpfs /opt/gatehouse")
    assert "less than 512 MB are free in /opt/gatehouse. Make room, then run this again" in refused(machine, *PLAIN)
    machine.run("umount", "/opt/gatehouse")

    machine.run("sh", "-c", "systemctl stop 'postgresql@*' && chmod a-x /usr/lib/postgresql/*/bin/postgres")
    said = refused(machine, *PLAIN, "--database", "local")
    assert "PostgreSQL does not answer on this machine: pg_lsclusters" in said
    machine.run("sh", "-c", "chmod a+x /usr/lib/postgresql/*/bin/postgres")
    machine.run("rm", "-rf", "/etc/gatehouse/credentials/DATABASE_URL")
    said = refused(machine, *PLAIN, "--database", "postgres://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in said
    assert "The database does not answer: " in said
    assert "the database could not be migrated: see above. Mend it (another one: --database)" in said

    machine.run(*PLAIN)
    assert "Nothing to change" in machine.run(*PLAIN)
