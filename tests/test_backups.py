"""Backups: deploy/backup.sh, verify-backup.sh and restore.sh on a real database of the kind that the tests run on."""

import hashlib
import os
import re
import resource
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.conftest import PASSWORD, missing
from tests.races.over_http import new_database, rows_by_table
from tests.servers import Portal, PostgreSQL

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
SCRIPTS = ["backup.sh", "verify-backup.sh", "restore.sh"]
ON_POSTGRES = os.environ.get("TEST_DATABASE") == "postgres"
SERVER = os.environ["DATABASE_URL"]
UNTOUCHED = "Nothing was changed: Gatehouse has the database that it had"
SUFFIX = "dump" if ON_POSTGRES else "sqlite3"


@dataclass
class Place:
    """A database of Gatehouse, with a folder for its copies."""

    folder: Path
    url: str

    @property
    def copies(self) -> Path:
        return self.folder / "copies"

    def script(self, name: str | Path, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        address = self.folder / "DATABASE_URL"  # as the units hand it over
        address.write_text(self.url)
        address.chmod(0o644)
        environment = {**os.environ, "DATABASE_URL_FILE": str(address), "TMPDIR": "/tmp", "GATEHOUSE_ENV": "/nowhere"}  # noqa: S108
        del environment["DATABASE_URL"]
        command = [str(ROOT / "deploy" / name), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)

    def done(self, name: str | Path, *arguments: object) -> str:
        """What a script says that has done its work."""
        ran = self.script(name, *arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def refused(self, name: str, *arguments: object, **more: Any) -> str:
        """Why a script failed. The database is as it was."""
        before = rows_by_table(self.url)
        ran = self.script(name, *arguments, **more)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert rows_by_table(self.url) == before
        assert self.databases() == [self.name]
        return ran.stderr

    def copy(self, *arguments: object) -> Path:
        """A new copy of the database as it is now."""
        return Path(self.done("backup.sh", *arguments, self.copies).partition(" (")[0])

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run these; returns the rows of the last one."""
        if ON_POSTGRES:
            with psycopg.connect(self.url) as connection:
                for statement in statements:
                    cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)) as lite, lite:
            for statement in statements:
                rows = lite.execute(statement).fetchall()
            return rows

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, "DATABASE_URL": self.url}, capture_output=True, text=True, check=True
        ).stdout

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def databases(self) -> list[str]:
        """This one, and what a restore has put aside or left lying about."""
        if ON_POSTGRES:
            with psycopg.connect(SERVER) as connection:
                rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{self.name}%"]).fetchall()
            return sorted(row[0] for row in rows)
        return sorted(path.name for path in self.folder.glob(f"{self.name}*") if not path.name.endswith(("-wal", "-shm")))


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The demo's people and tenants, in a database that nobody uses."""
    folder = tmp_path_factory.mktemp("seeded")
    place = Place(folder, database(folder))
    place.manage("demo", "seed")
    place.manage("tenant", "suspend", "globex", "--reason", "so that there is an event")
    return place


@pytest.fixture(scope="module")
def first_copy(seeded: Place) -> Path:
    return seeded.copy()


@pytest.fixture
def copied(place: Place, first_copy: Path) -> Path:
    """A copy of the database as it is, which nobody had to make anew."""
    place.copies.mkdir(exist_ok=True)
    for file in first_copy.parent.glob(f"{first_copy.name}*"):
        shutil.copy2(file, place.copies)
    return place.copies / first_copy.name


@pytest.fixture
def place(seeded: Place, first_copy: Path, tmp_path: Path) -> Place:
    """A database of its own for each test, with the same in it: all of it sealed, as whoever makes a copy does first."""
    if not ON_POSTGRES:
        url = database(tmp_path)
        with (
            closing(sqlite3.connect(seeded.url.removeprefix("sqlite:///"))) as source,
            closing(sqlite3.connect(tmp_path / "gatehouse.sqlite3")) as own,
        ):
            source.backup(own)
        return Place(tmp_path, url)
    name = f"backup_{secrets.token_hex(4)}"
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {seeded.name}".encode())
    return Place(tmp_path, f"{SERVER.rpartition('/')[0]}/{name}")


def database(folder: Path) -> str:
    return new_database(SERVER, f"backup_{secrets.token_hex(4)}") if ON_POSTGRES else f"sqlite:///{folder}/gatehouse.sqlite3"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    if not shutil.which("gpg"):
        missing("Encrypted copies are made by GnuPG: apt install gnupg")
    (tmp_path / "key").write_text(secrets.token_urlsafe(32) + "\n")
    return tmp_path / "key"


def sign(copy: Path) -> None:
    """Write the sums anew, as somebody does who changes a copy and wants nobody to notice."""
    files = [path for path in (copy, Path(f"{copy}.facts")) if path.exists()]
    Path(f"{copy}.sha256").write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files))


def test_each_script_tells_how_it_is_used_and_refuses_what_it_does_not_know(place: Place) -> None:
    for name in SCRIPTS:
        text = place.done(name, "--help")
        assert text.startswith(f"Usage: {name} "), text
        assert "Exit status" in text
        for wrong in (["--nonsense", "x"], [], ["one", "two"], ["--key-file"]):
            ran = place.script(name, *wrong)
            assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
            assert f"({name} --help tells more)" in ran.stderr


# --- A copy ---------------------------------------------------------------------------------------------------------


def test_copies_taken_while_many_write_are_of_one_moment_and_a_trial_is_noted(place: Place) -> None:
    """Each writer puts a row into two tables, in one transaction. No copy has more of the one than of the other, or stops a writer."""
    place.sql("CREATE TABLE one (n integer)", "CREATE TABLE two (n integer)")
    over, written = threading.Event(), []

    def write() -> None:
        while not over.is_set():
            place.sql("INSERT INTO one VALUES (1)", "INSERT INTO two VALUES (1)")
            written.append(1)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    copies = [place.copy() for _ in range(2)]
    over.set()
    for writer in writers:
        writer.join()
    counts = []
    for copy in copies:
        facts = dict(re.findall(r"^rows (\w+) (\d+)$", Path(f"{copy}.facts").read_text(), re.MULTILINE))
        assert facts["one"] == facts["two"]
        counts.append(int(facts["one"]))
    assert 0 < counts[0] < counts[1] <= len(written)
    assert place.sql("SELECT count(*) FROM one") == [(len(written),)]
    said = place.done("verify-backup.sh", place.copies)
    newest = copies[-1]
    assert said.startswith(f"{newest} would do: restored, as many rows in each table as there were, log verified (1 event and 1 seal")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {newest.name}\n", (place.copies / "verified").read_text())


def test_the_newest_copies_are_kept_each_for_its_owner_only_with_its_sums(place: Place) -> None:
    place.copies.mkdir()
    for name in ("20200101T000000Z.sqlite3", "20210101T000000Z.dump", "20220101T000000Z.dump.gpg", "20230101T000000Z.sqlite3.gpg"):
        for end in ("", ".sha256", ".facts"):
            (place.copies / f"gatehouse-{name}{end}").touch(0o600)
    (place.copies / "notes.txt").touch(0o600)
    ran = place.script("backup.sh", "--keep", 3, place.copies)
    assert ran.stderr == ""
    new = Path(ran.stdout.partition(" (")[0])
    assert re.fullmatch(rf"gatehouse-\d{{8}}T\d{{6}}Z\.{SUFFIX}", new.name)
    left = {path.name for path in place.copies.iterdir()}
    kept = [new.name, "gatehouse-20230101T000000Z.sqlite3.gpg", "gatehouse-20220101T000000Z.dump.gpg"]
    assert left == {".lock", "notes.txt", *(f"{name}{end}" for name in kept for end in ("", ".sha256", ".facts"))}
    assert {path.stat().st_mode & 0o777 for path in place.copies.iterdir()} == {0o600}
    sums = f"{new.name}: OK\n{new.name}.facts: OK\n"
    assert subprocess.check_output(["sha256sum", "-c", f"{new.name}.sha256"], cwd=place.copies, text=True) == sums
    place.copy("--keep", 0)
    assert len(list(place.copies.glob("*.sha256"))) == 4


def test_a_dry_run_writes_nothing(place: Place, copied: Path) -> None:
    assert "Dry run: nothing was done." in place.done("backup.sh", "--dry-run", place.folder / "nowhere")
    assert not (place.folder / "nowhere").exists()
    before = sorted(place.copies.iterdir()), rows_by_table(place.url)
    assert f"{copied} would be restored" in place.done("verify-backup.sh", "--dry-run", place.copies)
    assert "Dry run: nothing was done." in place.done("restore.sh", "--dry-run", copied)
    assert (sorted(place.copies.iterdir()), rows_by_table(place.url)) == before
    assert place.databases() == [place.name]


# --- Encrypted --------------------------------------------------------------------------------------------------------


def test_an_encrypted_copy_opens_with_its_key_and_with_no_other(place: Place, key: Path) -> None:
    copy = place.copy("--key-file", key)
    assert copy.suffix == ".gpg"
    assert not re.search(rb"SQLite format|PGDMP|gatehouse", copy.read_bytes())
    other = key.with_name("other")
    other.write_text(secrets.token_urlsafe(32))
    for name, more in (("verify-backup.sh", []), ("restore.sh", ["--yes", "--no-services"])):
        assert "is encrypted: name the file with its key, --key-file FILE" in place.refused(name, *more, copy)
        assert f"the key in {other} does not open {copy.name}" in place.refused(name, *more, "--key-file", other, copy)
    place.sql("DELETE FROM tenants_membership")
    place.done("restore.sh", "--yes", "--no-services", "--key-file", key, copy)
    assert place.sql("SELECT count(*) FROM tenants_membership") == [(7,)]


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "cannot be read"), ("", "is empty"), ("\n", "is too short"), ("short", "is too short. Make one: openssl rand -base64 32")],
)
def test_a_missing_or_poor_key_stops_a_backup_before_it_begins(place: Place, key: Path, text: str | None, why: str) -> None:
    if text is None:
        key.unlink()
    else:
        key.write_text(text)
    assert why in place.refused("backup.sh", "--key-file", key, place.copies)
    assert not place.copies.exists()


# --- Tried, and found wanting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a byte", "the end", "the facts", "the sums", "another name"])
def test_a_damaged_copy_is_refused_and_nothing_is_touched(place: Place, copied: Path, what: str) -> None:
    copy = copied
    raw = copy.read_bytes()
    if what == "a byte":
        copy.write_bytes(raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:])
    elif what == "the end":
        copy.write_bytes(raw[:-1])
    elif what == "the facts":
        Path(f"{copy}.facts").unlink()
    elif what == "the sums":
        Path(f"{copy}.sha256").unlink()
    else:
        Path(f"{copy}.sha256").write_text(Path(f"{copy}.sha256").read_text().replace("gatehouse-2", "gatehouse-3"))
    named = {"the sums": "nobody can tell whether", "the facts": "it belongs to the copy", "another name": "is of another copy"}
    why = named.get(what, "is damaged")
    assert why in place.refused("verify-backup.sh", copy)
    assert why in place.refused("restore.sh", "--yes", "--no-services", copy)
    assert not (place.copies / "verified").exists()


def test_a_copy_whose_rows_are_not_all_there_would_not_do(place: Place, copied: Path) -> None:
    facts = Path(f"{copied}.facts")
    facts.write_text(facts.read_text().replace("rows identity_user 6", "rows identity_user 7"))
    sign(copied)
    said = place.refused("verify-backup.sh", copied)
    assert "< rows identity_user 7" in said
    assert "> rows identity_user 6" in said
    assert UNTOUCHED in place.refused("restore.sh", "--yes", "--no-services", copied)


def test_a_copy_whose_log_was_changed_would_not_do(place: Place) -> None:
    assert place.sql("SELECT count(*) FROM identity_seal") == [(1,)]
    place.sql("UPDATE identity_event SET kind = 'tenant_resumed' WHERE kind = 'tenant_suspended'")
    copy = place.copy()
    place.sql("UPDATE identity_event SET kind = 'tenant_suspended' WHERE kind = 'tenant_resumed'")  # the copy is asked, not the portal
    said = place.refused("verify-backup.sh", copy)
    assert "its audit log is not as it was written" in said
    assert "is not as it was written" in said


def test_a_copy_of_a_newer_release_is_refused_and_nothing_is_touched(place: Place) -> None:
    place.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('identity', '9000_later', '2026-11-21 00:00:00')")
    copy = place.copy()
    place.sql("DELETE FROM django_migrations WHERE name = '9000_later'")
    assert "does not know identity.9000_later. Install that release" in place.refused("verify-backup.sh", copy)
    said = place.refused("restore.sh", "--yes", "--no-services", copy)
    assert "does not know identity.9000_later. Install that release" in said
    assert UNTOUCHED in said


def test_after_a_rollback_the_copies_of_the_release_that_was_taken_back_come_back_by_it(place: Place, tmp_path: Path) -> None:
    newer, last = tmp_path / "previous", max(path.stem for path in ROOT.glob("identity/migrations/0*.py"))
    shutil.copytree(ROOT, newer, ignore=shutil.ignore_patterns(".git", ".venv", "var", "tests", "*.pyc"))
    (newer / ".venv").symlink_to(ROOT / ".venv")
    (newer / "identity/migrations/9000_later.py").write_text(
        f"from django.db import migrations\nclass Migration(migrations.Migration):\n    dependencies = [('identity', '{last}')]\n"
    )
    (tmp_path / "current").symlink_to(ROOT)
    place.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('identity', '9000_later', '2026-11-21 00:00:00')")
    copy = place.copy()
    assert "would do" in place.done(tmp_path / "current/deploy/verify-backup.sh", copy)
    assert "Nobody is signed in." in place.done(tmp_path / "current/deploy/restore.sh", "--yes", "--no-services", copy)
    assert place.sql("SELECT count(*) FROM identity_user") == [(6,)]


def test_what_is_no_copy_for_this_database_is_refused(place: Place, copied: Path) -> None:
    other = copied.with_name("gatehouse-20260101T000000Z." + ("sqlite3" if ON_POSTGRES else "dump"))
    other.write_bytes(b"something else altogether")
    sign(other)
    assert UNTOUCHED in place.refused("restore.sh", "--yes", "--no-services", other)
    nonsense = copied.with_name(f"gatehouse-20260101T000001Z.{SUFFIX}")
    nonsense.write_bytes(b"something else altogether")
    sign(nonsense)
    assert "cannot be restored" in place.refused("verify-backup.sh", nonsense)
    assert UNTOUCHED in place.refused("restore.sh", "--yes", "--no-services", nonsense)
    assert "is not a copy by its name" in place.refused("restore.sh", "--yes", __file__)
    assert "there is no copy at" in place.refused("restore.sh", "--yes", place.folder / "none.dump")


def test_nobody_is_surprised_by_a_restore(place: Place, copied: Path) -> None:
    ran = place.script("restore.sh", "--no-services", copied)
    assert ran.returncode == 2
    assert "nobody is here to ask: say --yes" in ran.stderr
    assert place.databases() == [place.name]


# --- Whoever runs the portal is not root --------------------------------------------------------------------------------


def test_nothing_runs_that_lies_in_the_folder_where_root_stands_or_in_the_services_home(place: Place, copied: Path) -> None:
    trap = "open(__file__ + '.ran', 'w')"
    for name in ("urllib", "shlex", "sqlite3"):
        (place.copies / f"{name}.py").write_text(trap)
    home = place.copies / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    home.mkdir(parents=True)
    (home / "usercustomize.py").write_text(trap)
    in_the_trap = {"cwd": place.copies, "preexec_fn": lambda: os.environ.update(HOME=str(place.copies))}
    for script, arguments in (("verify-backup.sh", ["."]), ("backup.sh", ["."]), ("restore.sh", ["--yes", "--no-services", copied.name])):
        ran = place.script(script, *arguments, **in_the_trap)
        assert ran.returncode == 0, ran.stderr
    assert list(place.copies.rglob("*.ran")) == []


@pytest.fixture
def of_nobody(copied: Path) -> Iterator[Path]:
    """A copy in a folder of another user's, as the service's user has it, seen by root."""
    if os.getuid() != 0:
        missing("Only root reads what another user may change meanwhile")
    with tempfile.TemporaryDirectory(prefix="gatehouse-nobody-") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "copies")
        shutil.copytree(copied.parent, folder)
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody")
        yield folder / copied.name


def as_root(copy: Path, commands: str) -> subprocess.CompletedProcess[str]:
    """Commands of the scripts, where nobody is the service's user."""
    begin = f"source {ROOT}/deploy/database.sh; trap drop_work EXIT; make_work; check_copy {copy}"
    environment = {**os.environ, "GATEHOUSE_USER": "nobody", "TMPDIR": "/tmp"}  # noqa: S108
    return subprocess.run(["bash", "-c", f"{begin}; {commands}"], env=environment, capture_output=True, text=True, check=False)


def test_root_reads_a_copy_with_the_rights_of_whoever_may_change_it(of_nobody: Path, tmp_path: Path) -> None:
    """A link to what is root's alone takes its place when it has been looked at."""
    (tmp_path / "secret").write_text("of root alone")
    (tmp_path / "secret").chmod(0o600)
    ran = as_root(of_nobody, f"ln -sf {tmp_path}/secret {of_nobody}; open_copy")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Permission denied" in ran.stderr


def test_what_root_notes_beside_a_copy_follows_no_link(of_nobody: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (of_nobody.parent / "verified").symlink_to(tmp_path / "precious")
    ran = as_root(of_nobody, "note_trial")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "precious").read_text() == "as it was"
    assert of_nobody.name in (of_nobody.parent / "verified").read_text()
    assert (of_nobody.parent / "verified").owner() == "nobody"


def test_nobody_but_root_writes_where_root_writes(of_nobody: Path) -> None:
    ran = as_root(of_nobody, 'stat --format="%U %a" "$work" "$theirs"')
    assert ran.stdout == "root 711\nnobody 700\n", ran.stderr


# --- A full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 1.5 MB (for PostgreSQL's own data 150), where this machine lets us have one; a folder elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-disk-"))
    size = "150m" if ON_POSTGRES else "1500k"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


def fill(disk: Path, leave: int) -> None:
    """Until there are so many bytes left."""
    with (disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(disk).free - leave)


def no_large_files() -> None:
    """For a child: as if the disk were full after 50 kB of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_backup_that_finds_the_disk_full_leaves_the_older_copies_and_no_draft(place: Place, copied: Path, small_disk: Path) -> None:
    copies, limits = small_disk / "copies", dict[str, Any]()
    shutil.copytree(copied.parent, copies)
    (copies / ".lock").touch()
    if small_disk.is_mount():
        fill(small_disk, 60_000)
    else:
        limits["preexec_fn"] = no_large_files
    before = sorted(path.name for path in copies.iterdir())
    said = place.refused("backup.sh", "--keep", 1, copies, **limits)
    assert re.search(r"the disk of \S+ is (too )?full|no copy was made", said), said
    assert sorted(path.name for path in copies.iterdir()) == before


def test_a_restore_that_finds_the_disk_full_leaves_the_database_as_it_was(
    place: Place, copied: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small_disk.is_mount():
        said = place.refused("restore.sh", "--yes", "--no-services", copied, preexec_fn=no_large_files)
        assert UNTOUCHED in said
    elif ON_POSTGRES:
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
        server = PostgreSQL()
        try:
            monkeypatch.setattr(sys.modules[__name__], "SERVER", server.url("postgres"))
            place = Place(place.folder, database(place.folder))
            subprocess.run([server.bin / "pg_restore", "--no-owner", "--dbname", place.url, copied], check=True)
            fill(small_disk, 5_000_000)
            said = place.refused("restore.sh", "--yes", "--no-services", copied)
        finally:
            server.stop()
    else:
        shutil.copy(place.url.removeprefix("sqlite:///"), small_disk / "gatehouse.sqlite3")
        place = Place(small_disk, f"sqlite:///{small_disk}/gatehouse.sqlite3")
        fill(small_disk, 200_000)
        said = place.refused("restore.sh", "--yes", "--no-services", copied)
    assert UNTOUCHED in said
    assert not small_disk.is_mount() or "too full" in said


def test_a_copy_that_ends_in_the_middle_leaves_the_database_as_it_was(place: Place, copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-30_000])
    sign(copied)
    assert UNTOUCHED in place.refused("restore.sh", "--yes", "--no-services", copied)


# --- Back -------------------------------------------------------------------------------------------------------------


class Guest:
    """Somebody with a browser, as far as the JSON endpoints go."""

    def __init__(self, portal: Portal) -> None:
        self.session = requests.Session()
        self.aim(portal)

    def aim(self, portal: Portal) -> None:
        self.base, self.host = f"http://127.0.0.1:{portal.port}/api/v1", f"login.{portal.base}"

    def sign_in(self, name: str) -> int:
        body = {"username": name, "password": PASSWORD}
        answer = self.session.post(f"{self.base}/login", json=body, headers={"Host": self.host}, timeout=20)
        self.cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in answer.cookies)
        return answer.status_code

    def sign_out(self) -> int:
        return requests.post(f"{self.base}/logout", json={}, headers={"Host": self.host, "Cookie": self.cookie}, timeout=20).status_code

    def is_in(self) -> bool:
        return requests.get(f"{self.base}/session", headers={"Host": self.host, "Cookie": self.cookie}, timeout=20).status_code == 200


def test_after_a_restore_the_portal_is_as_it_was_but_nobody_is_signed_in(place: Place, tmp_path: Path) -> None:
    with Portal(place.url, tmp_path, is_seeded=True) as portal:
        alice, bob = Guest(portal), Guest(portal)
        assert (alice.sign_in("alice"), bob.sign_in("bob")) == (200, 200)
        copy = place.copy()
        assert bob.sign_out() == 200
        place.sql("UPDATE identity_user SET bio = 'later' WHERE username = 'carol'")
        assert (alice.is_in(), bob.is_in()) == (True, False)
        said = place.script("restore.sh", "--yes", "--no-services", copy).stderr
        assert "something else still uses" in said
        assert UNTOUCHED in said
        assert alice.is_in()
        assert place.databases() == [place.name]
    said = place.done("restore.sh", "--yes", "--no-services", copy)
    assert "Nobody is signed in." in said
    assert "2 sessions ended, and no proof from before opens anything." in said
    assert "Unused recovery codes are good, and so are those used since the copy was taken." in said
    with Portal(place.url, tmp_path, is_seeded=True, port=portal.port) as portal:
        assert (alice.is_in(), bob.is_in()) == (False, False)
        assert (alice.sign_in("alice"), bob.sign_in("bob")) == (200, 200)
        assert (alice.is_in(), bob.is_in()) == (True, True)
    assert place.sql("SELECT count(*) FROM identity_user WHERE bio = 'later'") == [(0,)]
    put_aside = Place(place.folder, place.url.replace(place.name, place.databases()[1]))
    assert put_aside.sql("SELECT count(*) FROM identity_user WHERE bio = 'later'") == [(1,)]
    assert "all as they were written" in place.manage("event", "verify")


@pytest.mark.skipif(ON_POSTGRES, reason="PostgreSQL renames both in one transaction")
def test_a_restore_that_is_killed_at_any_step_leaves_a_database_and_another_ends_it(place: Place, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for command in ("ln", "mv"):
        killer = tmp_path / "bin" / command
        killer.write_text('#!/bin/sh\nkill -9 "$PPID"\n')
        killer.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{killer.parent}:{os.environ['PATH']}")
            assert place.script("restore.sh", "--yes", "--no-services", copied).returncode == -signal.SIGKILL
        killer.unlink()
        assert place.sql("SELECT count(*) FROM identity_user") == [(6,)]
    place.done("restore.sh", "--yes", "--no-services", copied)
    assert place.sql("SELECT count(*) FROM identity_user") == [(6,)]


def test_a_copy_comes_back_where_there_is_no_database_any_more(place: Place, copied: Path) -> None:
    if ON_POSTGRES:
        with psycopg.connect(SERVER, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {place.name}".encode())
    else:
        Path(place.url.removeprefix("sqlite:///")).unlink()
    place.done("restore.sh", "--yes", "--no-services", copied)
    assert place.databases() == [place.name]
    assert place.sql("SELECT count(*) FROM identity_user") == [(6,)]
