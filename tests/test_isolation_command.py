"""`manage.py isolation`, against the real server, and against servers that let everybody in, nobody in, or say nothing."""

import http.client
import json
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.management import CommandError, call_command

from tests.browser.site import new_database, secret_keys, seeded
from tests.servers import Portal, free_port

Answer = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("isolation")
    with quiet(), Portal(new_database(folder, of=seeded()), folder, is_seeded=True, workers=1, port=0, **secret_keys()) as running:
        yield running


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Portal leaves its log open
        yield


@contextmanager
def stub(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that says what it likes; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass  # the other side went away

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def isolation(portal: Portal, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "isolation", *arguments],
        env={**portal.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def told(portal: Portal, *command: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(portal.manage(*command, "--json"))
    return data


def value(portal: Portal, sql: str) -> Any:
    """What this portal's database answers, without a process of its own."""
    url = portal.environment["DATABASE_URL"]
    opened: Any = psycopg.connect(url) if url.startswith("postgres") else sqlite3.connect(url.removeprefix("sqlite:///"))
    with closing(opened) as connection:
        return connection.execute(sql).fetchone()[0]


def left_behind(portal: Portal) -> dict[str, int]:
    """What there is of probes: users, memberships, sessions."""
    return {
        "users": value(portal, "SELECT count(*) FROM identity_user WHERE username LIKE 'isolation-probe-%'"),
        "memberships": value(portal, "SELECT count(*) FROM tenants_membership"),
        "sessions": value(portal, "SELECT count(*) FROM identity_session"),
    }


NOTHING = {"users": 0, "memberships": 7, "sessions": 0}


def last_event(portal: Portal) -> dict[str, Any]:
    checks = "FROM identity_event WHERE kind = 'isolation_probe' AND actor_id IS NULL"
    data: dict[str, Any] = json.loads(value(portal, f"SELECT CAST(data AS text) {checks} ORDER BY id DESC LIMIT 1"))
    return data


@pytest.mark.asvs("8.4.1")
def test_a_sound_portal_is_all_green_and_nothing_stays(portal: Portal) -> None:
    done = isolation(portal)
    assert (done.returncode, done.stderr) == (0, "")
    acme, globex, login = (f"{name}.portal.localhost" for name in ("acme", "globex", "login"))
    matrix = [line.split() for line in done.stdout.splitlines()[:5]]
    assert matrix == [
        ["COOKIE", "OF", acme, globex, login],
        ["acme", "200", "401", "401"],
        ["globex", "401", "200", "401"],
        ["portal", "401", "401", "200"],
        ["(nobody)", "401", "401", "401"],
    ]
    assert done.stdout.splitlines()[-1].endswith("Every session is good at home and nowhere else.")
    assert left_behind(portal) == NOTHING
    assert told(portal, "session", "list")["total"] == 0
    assert last_event(portal) == {"source": "command line", "requests": 27, "leaks": 0, "unclear": 0}


@pytest.mark.asvs("8.4.1")
def test_every_cookie_is_tried_under_both_names_on_every_host(portal: Portal) -> None:
    portal.manage("tenant", "host", "acme", "id.acme.test")
    portal.manage("tenant", "add", "initech", "Initech")
    portal.manage("tenant", "suspend", "initech")
    try:
        found = told(portal, "isolation")
    finally:
        portal.manage("tenant", "host", "remove", "acme", "id.acme.test")
        portal.manage("shell", "--no-imports", "-c", "from tenants.models import Tenant; Tenant.objects.filter(slug='initech').delete()")
    assert (found["clean"], found["leaks"], found["unclear"]) == (True, [], [])
    hosts = [host["host"] for host in found["hosts"]]
    assert hosts == [f"{name}.portal.localhost" for name in ("acme", "globex", "initech")] + ["id.acme.test", "login.portal.localhost"]
    asked = {(one["cookie"], one["host"], one["name"]) for one in found["tries"]}
    cookies = ["acme", "globex", "portal", "(nobody)"]
    assert asked == {(cookie, host, name) for cookie in cookies for host in hosts for name in ("session", "portal")}
    at_home = {(one["cookie"], one["host"], one["name"]) for one in found["tries"] if one["status"] == 200}
    assert at_home == {
        ("acme", "acme.portal.localhost", "session"),
        ("acme", "id.acme.test", "session"),
        ("globex", "globex.portal.localhost", "session"),
        ("portal", "login.portal.localhost", "portal"),
    }
    assert all(one["status"] == one["expected"] for one in found["tries"])


def test_a_portal_that_lets_everybody_in_is_a_leak(portal: Portal) -> None:
    with stub(lambda request: (200, b"{}")) as url:
        done = isolation(portal, "--url", url)
        found = json.loads(isolation(portal, "--url", url, "--json").stdout)
    assert done.returncode == 1
    assert "let a session in away from its home" in done.stderr
    assert "LEAK: acme's session as “session” at globex.portal.localhost/_portal/whoami: 200" in done.stdout
    assert (found["clean"], len(found["leaks"])) == (False, 4 * 3 * 2 - 3)
    assert left_behind(portal) == NOTHING
    assert last_event(portal)["leaks"] == 21


def test_one_tenant_that_takes_anothers_cookie_is_a_leak(portal: Portal) -> None:
    """Sound but for one thing: globex also serves whoever acme knows."""

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        status, body = forward(request, portal.port)
        if status == 401 and "globex" in request.headers["Host"]:
            return forward(request, portal.port, host=f"acme.{portal.base}")
        return status, body

    with stub(answer) as url:
        done = isolation(portal, "--url", url)
    assert done.returncode == 1
    leaks = [line for line in done.stdout.splitlines() if line.startswith("LEAK")]
    assert leaks == ["LEAK: acme's session as “session” at globex.portal.localhost/_portal/whoami: 200"]
    assert [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("acme ")] == [["200", "LEAK", "401"]]


def forward(request: BaseHTTPRequestHandler, port: int, host: str = "") -> tuple[int, bytes]:
    """What the real portal answers to this request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {name: value for name, value in request.headers.items() if name in {"Host", "Cookie", "Accept"}}
    headers["X-Forwarded-Proto"] = "https" if isinstance(request.connection, ssl.SSLSocket) else "http"
    try:
        connection.request("GET", request.path, headers={**headers, **({"Host": host} if host else {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": "Unauthorized"}'),  # a portal on another database
        (302, b""),
        (500, b""),
    ],
)
def test_a_portal_that_knows_no_session_proves_nothing(portal: Portal, status: int, body: bytes) -> None:
    with stub(lambda request: (status, body)) as url:
        done = isolation(portal, "--url", url)
    assert done.returncode == 3
    assert "Nothing is proven" in done.stderr
    assert "DATABASE_URL" in done.stderr
    assert left_behind(portal) == NOTHING


def test_a_portal_that_names_somebody_else_proves_nothing(portal: Portal) -> None:
    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        status, body = forward(request, portal.port)
        return status, json.dumps({"username": "dave", "tenant": "acme"}).encode() if status == 200 else body

    with stub(answer) as url:
        done = isolation(portal, "--url", url)
    assert (done.returncode, "but it names somebody else" in done.stdout) == (3, True)


def test_a_portal_that_is_not_there_is_an_error_with_the_cure(portal: Portal) -> None:
    done = isolation(portal, "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Is it running (make run, or systemctl status 'gatehouse@*')?" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_behind(portal) == NOTHING


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "localhost:8000", "http://127.0.0.1:99999", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match=r"Write it like http://127\.0\.0\.1:8000"):
        call_command("isolation", url=url)


@contextmanager
def stopped_half_way(portal: Portal, number: int) -> Iterator[subprocess.Popen[str]]:
    """A check that has opened its sessions and hangs, until it is killed with this signal."""
    began = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        if request.path != "/healthz":
            began.set()
            time.sleep(3)
        return 200, b"{}"

    with stub(answer) as url:
        command = [sys.executable, "manage.py", "isolation", "--url", url]
        with subprocess.Popen(command, env=portal.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert began.wait(20)
            assert left_behind(portal) == {"users": 1, "memberships": 9, "sessions": 3}
            process.send_signal(number)
            process.wait(20)
            yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_check_that_is_stopped_leaves_nothing(portal: Portal, number: int) -> None:
    with stopped_half_way(portal, number) as process:
        assert process.returncode == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == "Stopped. Everything that was opened for the check is closed.\n"
    assert left_behind(portal) == NOTHING
    assert last_event(portal)["requests"] == 0


@pytest.mark.parametrize("cure", [["isolation"], ["prune"]])
def test_what_a_killed_check_leaves_is_removed_by_the_next_one_and_by_prune(portal: Portal, cure: list[str]) -> None:
    with stopped_half_way(portal, signal.SIGKILL) as process:
        assert process.returncode == -signal.SIGKILL
    assert left_behind(portal)["users"] == 1
    found = told(portal, *cure)
    assert found.get("leftovers_removed", found.get("probes")) == 1
    assert left_behind(portal) == NOTHING


def test_two_checks_at_once_do_not_disturb_each_other(portal: Portal) -> None:
    with ThreadPoolExecutor(3) as several:
        for done in several.map(isolation, [portal] * 3):
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert left_behind(portal) == NOTHING


# --- Over https -------------------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away certificate for the hosts of gate.test that is its own authority; and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Gatehouse tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.gate.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    chain, secret = folder / "gate.pem", folder / "gate.key"
    chain.write_bytes(made.public_bytes(pem))
    secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return chain, secret


@pytest.fixture(scope="module")
def secure_portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("secure")
    url, proxy = "https://login.gate.test", "127.0.0.1"
    said = {"PORTAL_URL": url, "TENANT_DOMAIN": "gate.test", "TRUSTED_PROXIES": proxy, "EMAIL_URL": "smtp://127.0.0.1:9", **secret_keys()}
    with quiet(), Portal(new_database(folder, of=seeded("gate.test")), folder, is_seeded=True, workers=1, port=0, **said) as running:
        yield running


@pytest.mark.asvs("8.4.1")
def test_over_https_each_host_is_asked_by_its_own_name(secure_portal: Portal, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    named: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: named.append(name)
    with stub(lambda request: forward(request, secure_portal.port), tls) as url:
        done = isolation(secure_portal, "--url", url, SSL_CERT_FILE=str(chain))
        assert (done.returncode, done.stderr) == (0, "")
        assert set(named) == {"login.gate.test", "acme.gate.test", "globex.gate.test"}
        assert "__Secure-session" in isolation(secure_portal, "--url", url, "--json", SSL_CERT_FILE=str(chain)).stdout
        distrusted = isolation(secure_portal, "--url", url)
    assert (distrusted.returncode, "certificate verify failed" in distrusted.stderr) == (3, True)


def test_behind_the_proxy_an_https_portal_is_asked_as_its_proxy_would(secure_portal: Portal) -> None:
    done = isolation(secure_portal, "--url", f"http://127.0.0.1:{secure_portal.port}")
    assert (done.returncode, done.stderr) == (0, "")
