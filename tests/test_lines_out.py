"""What Gatehouse says to other machines: encrypted, to whom it means, as somebody who may little."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environ
import psycopg
import pytest
from django.db.utils import ConnectionHandler
from psycopg import OperationalError

from identity import mails
from identity.management.doctor import Asked, State, bits, mail
from identity.management.doctor.database import GUESSABLE
from identity.models import Mail, User
from tests.conftest import missing
from tests.servers import Missing, PostgreSQL
from tests.sink import Sink


def certificate(folder: Path, name: str, *addresses: str) -> tuple[Path, Path]:
    """A certificate that is its own authority, for these addresses (as openssl writes them), and its key."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={','.join(addresses)}"]
    subprocess.run([*make, *names, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return chain, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    addresses = {"here": ["IP:127.0.0.1", "DNS:db.gate.test"], "elsewhere": ["IP:10.9.8.7"]}
    return {name: certificate(folder, name, *to) for name, to in addresses.items()}


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(certificates: dict[str, tuple[Path, Path]]) -> Iterator[PostgreSQL]:
    """With TLS, and a role that owns one database and may nothing else."""
    try:
        running = PostgreSQL()
    except Missing as lacks:
        missing(str(lacks))
    chain, key = certificates["here"]
    for name, source in (("server.crt", chain), ("server.key", key)):
        target = running.folder / "data" / name
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
        owner = (running.folder / "data").stat()
        os.chown(target, owner.st_uid, owner.st_gid)
    with psycopg.connect(running.url("postgres"), autocommit=True) as line:
        line.execute("CREATE ROLE plain LOGIN")
        line.execute("CREATE DATABASE plain OWNER plain")
    switch_tls(running, "on")
    yield running
    running.stop()


def switch_tls(server: PostgreSQL, to: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as line:
        line.execute(f"ALTER SYSTEM SET ssl = {to}".encode())
        line.execute("SELECT pg_reload_conf()")
    for _n in range(500):  # the server takes it up when it likes
        with psycopg.connect(server.url("postgres")) as line:
            if line.execute("SHOW ssl").fetchone() == (to,):
                return
    raise TimeoutError(f"PostgreSQL does not turn ssl {to}")


def connect(url: str) -> "psycopg.Connection[Any]":
    """As Django does with this DATABASE_URL."""
    return psycopg.connect(**ConnectionHandler({"default": environ.Env.db_url_config(url)})["default"].get_connection_params())


@pytest.mark.asvs("12.3.1", "12.3.4")
def test_the_line_to_postgresql_is_encrypted_to_the_very_server(server: PostgreSQL, certificates: dict[str, tuple[Path, Path]]) -> None:
    own, other = certificates["here"][0], certificates["elsewhere"][0]
    at = f"postgres://plain@127.0.0.1:{server.port}/plain?sslmode=verify-full"
    with connect(f"{at}&sslrootcert={own}") as line:
        assert line.pgconn.ssl_in_use
    with pytest.raises(OperationalError, match="certificate verify failed"):  # an authority that we do not know
        connect(f"{at}&sslrootcert={other}")
    with pytest.raises(OperationalError, match="does not match host name"):  # another server with a certificate of the right authority
        connect(f"postgres://plain@other.gate.test:{server.port}/plain?sslmode=verify-full&sslrootcert={own}&hostaddr=127.0.0.1")
    switch_tls(server, "off")
    try:
        with pytest.raises(OperationalError, match="does not support SSL"):  # somebody who would like it in clear
            connect(f"{at}&sslrootcert={own}")
    finally:
        switch_tls(server, "on")


def doctor(url: str) -> list[str]:
    """What `manage.py doctor` says of this database."""
    command = [sys.executable, "manage.py", "doctor", "--only", "database"]
    return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True, check=False).stdout.splitlines()


@pytest.mark.asvs("12.3.1", "13.2.1", "13.2.2", "13.2.3")
def test_a_role_that_owns_its_database_is_enough_and_the_doctor_says_what_is_too_much(
    server: PostgreSQL, certificates: dict[str, tuple[Path, Path]]
) -> None:
    """The whole schema is made, and used, by somebody without any privilege on the server."""
    here = f"postgres://plain@127.0.0.1:{server.port}/plain"
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], env={**os.environ, "DATABASE_URL": here}, check=True)
    said = "\n".join(doctor(here))
    assert "Every migration is applied." in said
    for part in ("in clear", "can be guessed", "who may do more"):
        assert part not in said

    far = f"@db.gate.test:{server.port}/plain?hostaddr=127.0.0.1"
    assert "PostgreSQL at db.gate.test goes over the network in clear" in "\n".join(
        doctor(f"postgres://gatehouse:gatehouse{far}&sslmode=disable")
    )
    told = "\n".join(doctor(f"postgres://gatehouse:gatehouse{far}&sslmode=require"))
    assert "its certificate is not held against its name" in told
    assert "Gatehouse is gatehouse to PostgreSQL, who may do more there" in told
    assert "The password of PostgreSQL's role gatehouse can be guessed." in told
    told = "\n".join(doctor(f"postgres://plain{far}&sslmode=verify-full&sslrootcert={certificates['here'][0]}"))
    assert "The line to PostgreSQL at db.gate.test is encrypted, and its certificate was verified." in told


@pytest.mark.asvs("13.2.3")
def test_passwords_that_come_with_a_server_are_found_and_good_ones_pass() -> None:
    for known in ("postgres", "gatehouse", "password", "changeme", "admin123", "12345678"):
        assert bits(known) < GUESSABLE, known
    assert bits("dX4qP0sVn2LkR7tB") > GUESSABLE


# --- Mail -------------------------------------------------------------------------------------------------------------


def context(chain: Path, key: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    return tls


@pytest.mark.django_db
@pytest.mark.asvs("12.3.1", "12.3.4")
@pytest.mark.parametrize("scheme", ["smtp+tls", "smtp+ssl"])
def test_mails_leave_encrypted_to_the_very_server_or_not_at_all(
    scheme: str, certificates: dict[str, tuple[Path, Path]], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KEEP_MAILS = settings.MAIL_OFF = False
    ann = User.objects.create_user("ann", "ann@acme.example")
    for kind, trusted, arrives in (("here", "here", True), ("elsewhere", "elsewhere", False), ("here", "elsewhere", False)):
        tls = context(*certificates[kind])
        options = {"ssl_context": tls} if scheme == "smtp+ssl" else {"tls_context": tls, "require_starttls": True}
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates[trusted][0]))
        with Sink(**options) as sink:
            for name, value in environ.Env.email_url_config(sink.url.replace("smtp:", f"{scheme}:")).items():
                setattr(settings, name, value)
            posted = mails.post("password_changed", to=ann.email, user=ann)
            assert posted
            assert mails.deliver() == arrives
            assert len(sink.mails) == arrives
            left = Mail.objects.get(pk=posted.pk)
            assert (left.sent_at is not None) == arrives
            assert ("CERTIFICATE_VERIFY_FAILED" in left.error) == (not arrives)
        Mail.objects.all().delete()


@pytest.mark.asvs("12.3.1")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Django leaves this line to be closed by chance
@pytest.mark.parametrize("scheme", ["smtp+tls", "smtp+ssl"])
def test_a_mail_server_that_speaks_no_tls_gets_no_mail(db: None, scheme: str, settings: Any) -> None:
    settings.KEEP_MAILS = settings.MAIL_OFF = False
    ann = User.objects.create_user("ann", "ann@acme.example")
    with Sink() as sink:
        for name, value in environ.Env.email_url_config(sink.url.replace("smtp:", f"{scheme}:")).items():
            setattr(settings, name, value)
        mails.post("password_changed", to=ann.email, user=ann)
        assert mails.deliver() == 0
        assert not sink.mails


@pytest.mark.asvs("12.3.1")
@pytest.mark.parametrize(
    ("host", "tls", "warned"), [("mail.gate.test", False, True), ("mail.gate.test", True, False), ("localhost", False, False)]
)
def test_the_doctor_says_that_mails_go_in_clear(db: None, settings: Any, host: str, tls: bool, warned: bool) -> None:
    settings.KEEP_MAILS = settings.MAIL_OFF = False
    settings.EMAIL_HOST, settings.EMAIL_USE_TLS, settings.EMAIL_USE_SSL = host, tls, False
    found = [each for each in mail.examine(Asked(has_database=False)) if "in clear" in each.text]
    assert [each.state for each in found] == ([State.WARNING] if warned else [])
