"""What strangers meet first: nginx with deploy/nginx.conf, and the server behind it. Spoken to in bytes, as an attacker would."""

import http.client
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.browser.site import MAIN, ROOT, Authority, BehindNginx, find_nginx, install
from tests.conftest import missing
from tests.servers import free_port, wait_for
from tests.test_isolation_command import quiet

HOST = "login.gate.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if find_nginx() is None:
        missing("nginx is not installed: apt-get install nginx")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def site(authority: Authority) -> Iterator[BehindNginx]:
    with quiet(), BehindNginx(authority) as running:
        yield running


def line_to(site: BehindNginx, *protocols: str) -> ssl.SSLSocket:
    """A TLS connection to nginx, which speaks the first of these protocols (ALPN)."""
    trust = ssl.create_default_context(cafile=site.authority.root)
    trust.set_alpn_protocols(protocols or ("http/1.1",))
    raw = socket.create_connection(("127.0.0.1", site.port), timeout=60)
    return trust.wrap_socket(raw, server_hostname=HOST)


def said(site: BehindNginx, request: bytes) -> bytes:
    """All that comes back for these bytes until the other side hangs up."""
    with line_to(site) as line:
        line.sendall(request)
        answer = b""
        with suppress(ssl.SSLError, ConnectionError):
            while block := line.recv(65536):
                answer += block
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@contextmanager
def asked(site: BehindNginx) -> Iterator[http.client.HTTPConnection]:
    """One connection that stays open, for requests one after the other."""
    connection = http.client.HTTPConnection(HOST, site.port)
    connection.sock = line_to(site)
    try:
        yield connection
    finally:
        connection.close()


def get(site: BehindNginx, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    with asked(site) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"{HOST}:{site.port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


# --- TLS ------------------------------------------------------------------------------------------------------------


@contextmanager
def nginx_alone(authority: Authority, key: str) -> Iterator[tuple[int, Path]]:
    """The same nginx without a portal, with a certificate for a key of this kind; its port and its folder."""
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-tls-"))
    port = free_port()
    own = Authority.__new__(Authority)
    own.root, own.chain, own.key = authority.root, folder / "chain.pem", folder / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        key,
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={HOST}",
        "-keyout",
        str(own.key),
        "-out",
        str(own.chain),
    ]
    subprocess.run([*make, *(["-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else [])], check=True, capture_output=True)
    install(folder, http=free_port(), https=port, socket=folder / "none.sock", authority=own)
    (folder / "nginx.conf").write_text(MAIN.format(user=""))
    program = find_nginx()
    assert program
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
    nginx = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port, folder
    finally:
        nginx.terminate()
        nginx.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def anything(*, version: ssl.TLSVersion, ciphers: str = "ALL:eNULL") -> ssl.SSLContext:
    """A client that takes what it gets, as old as OpenSSL can."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions, which is the point
        client.minimum_version = client.maximum_version = version
    return client


def agreed(port: int, client: ssl.SSLContext) -> tuple[str, str] | None:
    """Version and cipher that nginx settles on with this client; None if it refuses."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, client.wrap_socket(raw, server_hostname=HOST) as line:
            found = line.cipher()
            return (line.version() or "", found[0]) if found else None
    except (ssl.SSLError, ConnectionError):
        return None


def shakes_hands(client: ssl.SSLContext, chain: Path, key: Path) -> bool:
    """Does this client come to terms with a server that takes anything? Both in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    server.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = ssl.TLSVersion.TLSv1
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _round in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].cipher() is not None


@pytest.mark.asvs("12.1.1", "12.1.2")
@pytest.mark.parametrize("key", ["ec", "rsa:2048"])
def test_nginx_speaks_tls_12_and_13_with_forward_secrecy_only(authority: Authority, key: str) -> None:
    with nginx_alone(authority, key) as (port, _folder):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            assert shakes_hands(anything(version=version), authority.chain, authority.key), "the client cannot speak it itself"
            assert agreed(port, anything(version=version)) is None, version
        offered = [each["name"] for each in anything(version=ssl.TLSVersion.TLSv1_2).get_ciphers() if each["protocol"] != "TLSv1.3"]
        assert {"AES128-SHA", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES256-GCM-SHA384", "NULL-SHA256"} <= set(offered)
        taken = [name for name in offered if agreed(port, anything(version=ssl.TLSVersion.TLSv1_2, ciphers=name))]
        newest = agreed(port, anything(version=ssl.TLSVersion.TLSv1_3))
    kind = "ECDSA" if key == "ec" else "RSA"
    strong = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    assert set(taken) == {f"ECDHE-{kind}-{each}" for each in strong}
    assert newest is not None
    assert newest[0] == "TLSv1.3"


# --- One request is one request ---------------------------------------------------------------------------------------

INNER = b"GET /smuggled HTTP/1.1\r\nHost: login.gate.test\r\nConnection: close\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + INNER
AMBIGUOUS = {
    "both lengths": (b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(CHUNKED), CHUNKED),
    "both lengths, the other way round": (
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n",
    ),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(INNER), INNER),
    "a list of lengths": (b"Content-Length: 0, %d\r\n" % len(INNER), INNER),
    "a length with a sign": (b"Content-Length: +0\r\n", INNER),
    "a length in hex": (b"Content-Length: 0x0\r\n", INNER),
    "an unknown coding": (b"Transfer-Encoding: xchunked\r\n", CHUNKED),
    "two codings": (b"Transfer-Encoding: identity, chunked\r\n", CHUNKED),
    "the coding twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
    "a space before the colon": (b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n" % len(CHUNKED), CHUNKED),
    "a folded line": (b"Content-Length:\r\n 0\r\nX-Folded: a\r\n b\r\n", INNER),
    "a tab in front": (b"Transfer-Encoding:\tchunked\r\nContent-Length: %d\r\n" % len(CHUNKED), CHUNKED),
    "an underscore": (b"Transfer_Encoding: chunked\r\nContent-Length: %d\r\n" % len(CHUNKED), CHUNKED),
}


@pytest.mark.asvs("4.2.1")
def test_no_request_hides_in_the_body_of_another(site: BehindNginx) -> None:
    """A message whose end can be read in two ways is refused, or its body is a body: nobody answers a second request."""
    host = b"Host: login.gate.test:%d\r\n" % site.port
    for name, (headers, body) in AMBIGUOUS.items():
        answer = said(site, b"POST /login/ HTTP/1.1\r\n%sConnection: close\r\n%s\r\n%s" % (host, headers, body))
        assert statuses(answer) in ([400], [501], [302]), name
    assert "/smuggled" not in site.portal.log.read_text()
    plain = b"POST /login/ HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%s" % (host, CHUNKED)
    assert statuses(said(site, plain)) == [302, 404], "two honest requests on one connection are two"
    assert site.portal.log.read_text().count('"path": "/smuggled"') == 1


@pytest.mark.asvs("4.2.2")
def test_every_answer_is_as_long_as_it_says(site: BehindNginx) -> None:
    """On one connection: a byte too many or too few would be the beginning of the next answer."""
    stylesheet = stylesheet_of(site)
    _status, headers, _body = get(site, stylesheet)
    host = {"Host": f"{HOST}:{site.port}"}
    with asked(site) as connection:
        for method, path, more, expected in (
            ("GET", "/login/", {}, 200),
            ("HEAD", "/login/", {}, 200),
            ("GET", "/", {}, 302),
            ("GET", stylesheet, {}, 200),
            ("GET", stylesheet, {"Accept-Encoding": "gzip"}, 200),
            ("HEAD", stylesheet, {"Accept-Encoding": "gzip"}, 200),
            ("GET", stylesheet, {"If-None-Match": headers["etag"]}, 304),
            ("GET", stylesheet, {"Range": "bytes=0-9"}, 206),
            ("GET", "/nothing", {}, 404),
            ("POST", "/login/", {"Content-Length": "0", "Origin": "https://evil.test"}, 302),
            ("PUT", "/healthz", {"Content-Length": "0"}, 403),
            ("OPTIONS", "/healthz", {}, 405),
            ("GET", "/api/v1/session", {}, 401),
        ):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {**host, **more}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == expected, f"{method} {path}: {answer.status}"
            assert not (answer.headers["Content-Length"] and answer.headers["Transfer-Encoding"])
            length = answer.headers["Content-Length"]
            body = answer.read()
            if method != "HEAD" and answer.status != 304 and length:
                assert len(body) == int(length), path
        assert isinstance(connection.sock, ssl.SSLSocket)
        connection.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------

HEADERS, RESET, SETTINGS, GO_AWAY = 1, 3, 4, 7  # kinds of frames (RFC 9113)
OK_200, BAD_400 = b"\x88", b"\x8c"  # how HPACK's own table says `:status`


def field(name: bytes, value: bytes) -> bytes:
    """One header field, as HPACK writes it without a table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def over_h2(site: BehindNginx, *more: tuple[bytes, bytes], path: bytes = b"/healthz") -> bytes:
    """The status of the answer as HPACK writes it, or b"" where the stream is reset."""
    first = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"login.gate.test:%d" % site.port), (b":path", path)]
    block = b"".join(field(name, value) for name, value in [*first, *more])
    with line_to(site, "h2") as line:
        assert line.selected_alpn_protocol() == "h2"
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, block))
        with line.makefile("rb") as read:
            while head := read.read(9):
                payload = read.read(int.from_bytes(head[:3], "big"))
                if head[3] in {RESET, GO_AWAY}:
                    return b""
                if head[3] == HEADERS:
                    return payload[:1]
    return b""


@pytest.mark.asvs("4.2.3")
def test_http_2_carries_no_headers_of_a_connection(site: BehindNginx) -> None:
    assert over_h2(site) == over_h2(site, (b"te", b"trailers")) == OK_200
    for name in (b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"):
        assert over_h2(site, (name, b"chunked")) in {BAD_400, b""}, name
    assert over_h2(site, (b"te", b"gzip")) in {BAD_400, b""}


@pytest.mark.asvs("4.2.4")
@pytest.mark.parametrize("value", [b"a\r\nX-Forwarded-For: 10.0.0.1", b"a\nb", b"a\x00b", b"a\rb"])
def test_no_line_end_hides_in_http_2(site: BehindNginx, value: bytes) -> None:
    assert over_h2(site, (b"x-harmless", value)) in {BAD_400, b""}
    assert over_h2(site, (value, b"harmless")) in {BAD_400, b""}
    assert over_h2(site, path=b"/" + value) in {BAD_400, b""}


# --- Nobody answers ---------------------------------------------------------------------------------------------------


@pytest.mark.asvs("16.2.5")
def test_no_log_of_nginx_has_a_ticket_or_a_link_while_nobody_answers(authority: Authority) -> None:
    """Each of them is good still: nobody has seen it. Once there is no socket, once nobody listens at it."""
    secret = "s" * 43
    with nginx_alone(authority, "ec") as (port, folder):
        for listener in (None, socket.socket(socket.AF_UNIX)):
            if listener:
                listener.bind(str(folder / "none.sock"))
                listener.close()
            for path in (f"/password/reset/{secret}/", f"/_portal/finish?ticket={secret}&state={secret}"):
                raw = socket.create_connection(("127.0.0.1", port), timeout=60)
                with anything(version=ssl.TLSVersion.TLSv1_3).wrap_socket(raw, server_hostname=HOST) as line:
                    line.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                    assert statuses(b"".join(iter(lambda: line.recv(65536), b""))) == [503]
        logs = {log.name: log.read_text() for log in folder.glob("*.log")}
    assert logs["gatehouse.access.log"].count(" 503 ") == 4
    assert [name for name, text in logs.items() if secret in text] == []


# --- What there is to find --------------------------------------------------------------------------------------------

TYPES = {".css", ".js", ".svg", ".png", ".ico", ".woff2"}


def stylesheet_of(site: BehindNginx) -> str:
    _status, _headers, page = get(site, "/login/")
    found = re.search(rb'href="(/_portal/static/[^"]+\.css)"', page)
    assert found
    return found[1].decode()


@pytest.mark.asvs("13.4.1")
def test_no_file_of_the_program_is_served(site: BehindNginx) -> None:
    """Nor of the checkout, by any way round: every file of the project that nobody needs in a browser."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    names = [name for name in tracked if not name.startswith(("portal/static/", "tests/", "templates/", "portal/locale/"))][::4]
    names += [
        ".git/HEAD",
        ".git/config",
        ".gitignore",
        ".env",
        "var/secret-key",
        "gatehouse.sqlite3",
        "release",
        "manage.py",
        "portal/settings.py",
    ]
    with asked(site) as connection:
        for name in names:
            for path in (f"/{name}", f"/_portal/static/..%2f..%2f{name}"):
                connection.request("GET", path, headers={"Host": f"{HOST}:{site.port}"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 404, path


@pytest.mark.asvs("13.4.3", "13.4.7")
def test_a_folder_lists_nothing_and_only_what_pages_need_is_served(site: BehindNginx) -> None:
    collected = Path(site.portal.environment["STATIC_ROOT"])
    (collected / "left-behind.json").touch()
    files = [path for path in collected.rglob("*") if path.is_file()]
    kinds = {path.suffix: f"/_portal/static/{path.relative_to(collected)}" for path in files}
    assert {".css", ".js", ".json", ".gz"} <= set(kinds)
    for kind, path in kinds.items():
        assert get(site, path)[0] == (200 if kind in TYPES else 404), path
    for folder in {f"/_portal/static/{path.parent.relative_to(collected)}" for path in files}:
        for path in (folder, f"{folder}/"):
            assert get(site, path)[0] == 404, path


@pytest.mark.asvs("13.4.6")
def test_no_answer_names_a_version(site: BehindNginx) -> None:
    """Neither of nginx nor of the server, the framework or the language; of the release: tests/test_health.py."""
    numbers = re.compile(rb"(?i)(nginx|granian|django|python|gatehouse|whitenoise|openssl)[/ ]v?\d")
    host = b"Host: login.gate.test:%d\r\n" % site.port
    answers = [said(site, request) for request in (b"\x16\x03\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"TRACE / HTTP/1.1\r\n%s\r\n" % host)]
    answers.append(said(site, b"GET /%s HTTP/1.1\r\n%s\r\n" % (b"a" * 40_000, host)))
    paths = ("/login/", "/nothing", "/healthz", "/readyz", "/api/v1/session", "/api/none", stylesheet_of(site))
    answers += [said(site, b"GET %s HTTP/1.1\r\nConnection: close\r\n%s\r\n" % (path.encode(), host)) for path in paths]
    for answer in answers:
        assert not (found := numbers.search(answer)), found


@pytest.mark.asvs("14.2.2", "14.2.5")
def test_nothing_of_a_person_is_kept_by_a_cache_however_it_is_called(site: BehindNginx) -> None:
    """A name that looks like a file's is no page, and no cache keeps what it answers; nginx itself keeps nothing."""
    for path in ("/account/x.css", "/account/sessions/;.js", "/account/%2e%2e/x.png", "/console/acme/people/a.css", "/api/v1/session.js"):
        status, headers, _body = get(site, path)
        assert status in {301, 404}, path  # 301: the same with a slash, which is a 404
        assert headers["cache-control"] == "no-store", path
    for path in ("/login/", "/account/", "/api/v1/session", "/healthz", "/account/?x.css", "/login/?a=/_portal/static/a.css"):
        first, second = get(site, path)[1], get(site, path)[1]
        assert first["cache-control"] == "no-store", path
        assert first["x-request-id"] != second["x-request-id"], "answered twice by the portal, not once by a cache"


@pytest.mark.asvs("13.2.5", "12.3.3")
def test_nginx_leads_to_the_portals_socket_and_nowhere_else(site: BehindNginx) -> None:
    """Whatever a request says. The line inside the machine is a unix socket, which no network carries."""
    canary = socket.create_server(("127.0.0.1", 0))
    port = canary.getsockname()[1]
    for first, more in (
        (f"GET http://127.0.0.1:{port}/ HTTP/1.1", f"Host: 127.0.0.1:{port}"),
        (f"CONNECT 127.0.0.1:{port} HTTP/1.1", f"Host: 127.0.0.1:{port}"),
        (f"GET //127.0.0.1:{port}/ HTTP/1.1", f"Host: {HOST}:{site.port}"),
        (f"GET @127.0.0.1:{port}/ HTTP/1.1", f"Host: {HOST}:{site.port}"),
        ("GET / HTTP/1.1", f"Host: {HOST}:{site.port}\r\nX-Forwarded-Host: 127.0.0.1:{port}\r\nX-Original-URL: http://127.0.0.1:{port}/"),
        ("GET / HTTP/1.1", f"Host: {HOST}:{site.port}\r\nX-Accel-Redirect: http://127.0.0.1:{port}/\r\nForwarded: host=127.0.0.1:{port}"),
    ):
        said(site, f"{first}\r\n{more}\r\nConnection: close\r\n\r\n".encode())
    canary.settimeout(0)
    with canary, pytest.raises(BlockingIOError):
        canary.accept()
    program = find_nginx()
    assert program
    dump = [program, "-p", str(site.folder), "-c", "nginx.conf", "-e", "error.log", "-T"]
    read = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^\s*(?:proxy|fastcgi|uwsgi|scgi|grpc|memcached)_pass\s+([^;]+);", read, re.MULTILINE)) == {"http://gatehouse"}
    assert set(re.findall(r"^\s*server\s+([^{; ]+)", read, re.MULTILINE)) - {""} == {f"unix:{site.folder}/portal.sock"}
    assert not re.search(r"^\s*(?:proxy_cache|proxy_store|autoindex)\b", read, re.MULTILINE)
    assert listens_at(site.portal.process.pid) == set(), "the server behind it has no port"


def listens_at(pid: int) -> set[str]:
    """The local addresses, as the kernel writes them, at which this process waits for TCP connections."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


# --- Many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("15.4.1")
def test_what_many_ask_at_once_is_never_mixed_up(site: BehindNginx) -> None:
    """Eight threads of one process: each page is its tenant's, in its reader's language, with its own request id."""
    asked_for = [(slug, language) for slug in ("acme", "globex") for language in ("de", "en", "fr", "ar")] * 6

    def ask(which: tuple[str, str]) -> tuple[str, str, str]:
        slug, language = which
        _status, headers, page = get(site, "/welcome/", Host=f"{slug}.gate.test:{site.port}", Accept_Language=language)
        text = page.decode()
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
        spoken = re.search(r'<html lang="(\w+)"', text)
        assert title
        assert spoken
        return "acme" if "Acme" in title[1] else "globex" if "Globex" in title[1] else title[1], spoken[1], headers["x-request-id"]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, asked_for))
    assert [(slug, language) for slug, language, _id in answers] == asked_for
    assert len({request_id for *_rest, request_id in answers}) == len(asked_for)


# --- Nothing is shown as what it is not -------------------------------------------------------------------------------


@pytest.mark.asvs("3.2.1")
def test_what_is_no_page_is_never_read_as_one(site: BehindNginx) -> None:
    """JSON, texts, styles and refusals say what they are; a browser that is led to them guesses nothing and runs nothing."""
    for path, kind in (
        ("/api/v1/session", "application/json"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        (stylesheet_of(site), 'text/css; charset="utf-8"'),
        ("/api/none", "application/json"),
        ("/nothing", "text/html; charset=utf-8"),
    ):
        _status, headers, _body = get(site, path, Sec_Fetch_Dest="document", Accept="text/html")
        assert headers["content-type"] == kind, path
        assert headers["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["object-src"] == "'none'", path
        assert "unsafe" not in headers["content-security-policy"]
