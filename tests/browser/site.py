"""The product on real servers for a real browser: over http on *.localhost, and over https behind nginx with deploy/nginx.conf."""

import atexit
import base64
import hashlib
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.servers import Portal, free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "gatehouse-demo"
NAMES = {name: f"__Host-{name}" for name in ("portal", "start", "device", "half-way", "csrf", "theme")} | {"session": "__Secure-session"}


def new_database(folder: Path, of: str = "") -> str:
    """The address of a new database of the kind that the tests run on: empty, or a copy of the one at this address."""
    given, name = os.environ.get("DATABASE_URL", ""), f"server_{secrets.token_hex(4)}"
    if not given.startswith("postgres"):
        file = folder / f"{name}.sqlite3"
        if of:
            shutil.copyfile(of.removeprefix("sqlite:///"), file)
        return f"sqlite:///{file}"
    template = f" TEMPLATE {of.rpartition('/')[2]}" if of else ""
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{template}".encode())
    return f"{given.rpartition('/')[0]}/{name}"


@cache
def seeded(domain: str = "portal.localhost") -> str:
    """The address of a database with the demo's people at this domain, for `new_database` to copy. Made once in a process."""
    folder = tempfile.TemporaryDirectory(prefix="gatehouse-seeded-")
    atexit.register(folder.cleanup)
    url = new_database(Path(folder.name))
    at = {} if domain == "portal.localhost" else {"PORTAL_URL": f"https://login.{domain}", "TENANT_DOMAIN": domain}
    data("install", environment={**os.environ, **secret_keys(), **at, "DATABASE_URL": url})
    return url


@cache
def secret_keys() -> dict[str, str]:
    """For all servers of a process: each gets a copy of the same database."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {"SECRET_KEY": secrets.token_urlsafe(50), "ENCRYPTION_KEYS": key}


@dataclass
class Site(ABC):
    """One running portal with the demo's people, at its own hosts."""

    portal: Portal
    scheme: str
    domain: str
    port: int

    def url(self, host: str = "login", path: str = "/") -> str:
        """An address on the portal host ("login"), a tenant host ("acme") or an app's host ("wiki.acme")."""
        return f"{self.scheme}://{host}.{self.domain}:{self.port}{path}"

    def cookie(self, name: str) -> str:
        """The name that a cookie has here: over https it has a prefix."""
        return NAMES[name] if self.secure else name

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    def data(self, *verbs: str) -> None:
        """Put something into the database: see tests/browser/data.py."""
        data(*verbs, environment=self.portal.environment)

    def code(self, name: str) -> str:
        """What this person's authenticator shows, good at once, as if the last code had been used long ago."""
        return data(f"code:{name}", environment=self.portal.environment).split()[-1]

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def data(*verbs: str, environment: dict[str, str]) -> str:
    """Do these verbs of tests/browser/data.py; returns what they print."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser.data", *verbs], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(verbs)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Plain(Site):
    """Over http on *.portal.localhost, as `make run` serves it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        portal = Portal(new_database(folder, of=seeded()), folder, is_seeded=True, workers=1, port=0, **secret_keys(), **environment)
        super().__init__(portal, "http", "portal.localhost", portal.port)

    def stop(self) -> None:
        self.portal.stop()


class Authority:
    """A throw-away certificate authority, and a certificate of it for the hosts of gate.test."""

    def __init__(self, folder: Path) -> None:
        self.root, self.chain, self.key = folder / "root.pem", folder / "chain.pem", folder / "key.pem"
        root_key = folder / "root-key.pem"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = ",".join(f"DNS:{name}" for name in ("*.gate.test", "*.acme.gate.test", "*.globex.gate.test"))
        for extra in (
            ["-subj", "/CN=Throw-away authority of the tests", "-keyout", str(root_key), "-out", str(self.root)],
            [
                "-subj", "/CN=login.gate.test", "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
                "-CA", str(self.root), "-CAkey", str(root_key), "-keyout", str(self.key), "-out", str(self.chain),
            ],
        ):  # fmt: skip
            subprocess.run([*make, *extra], check=True, capture_output=True)
        self.chain.write_text(self.chain.read_text() + self.root.read_text())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's public key: Chromium trusts every chain with a key that it is told by this hash."""
        public = x509.load_pem_x509_certificate(self.root.read_bytes()).public_key()
        key = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(key).digest()).decode()


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


class SocketPortal(Portal):
    """The portal as deploy/gatehouse@.service starts it: on a unix socket, with everything it needs in the environment."""

    def __init__(self, folder: Path, url: str) -> None:
        self.socket = folder / "portal.sock"
        self.log = folder / "portal.log"
        self.environment = {
            **os.environ,
            "DATABASE_URL": new_database(folder, of=seeded("gate.test")),
            "PORTAL_URL": url,
            "TENANT_DOMAIN": "gate.test",
            "SIGNUP": "open",
            "GRANIAN_WORKERS": "1",
            **secret_keys(),
        }
        command = [sys.executable, "-m", "portal.server", str(self.socket)]
        self._output = self.log.open("w")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True
        )


DEPLOY = ROOT / "deploy"
MAIN = """{user}
pid nginx.pid;
worker_processes 1;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log access.log;
    client_body_temp_path temp-body;
    proxy_temp_path temp-proxy;
    fastcgi_temp_path temp-fastcgi;
    uwsgi_temp_path temp-uwsgi;
    scgi_temp_path temp-scgi;
    include sites-available/gatehouse;
}}
"""


def install(to: Path, *, http: int, https: int, socket: Path, authority: Authority) -> None:
    """Put deploy/nginx*.conf where their first lines say, below `to` for /etc/nginx, with the names, ports and paths of a test.

    Nothing else changes: what operators get is what is tested.
    """
    changes = {
        r"example\.com": "gate.test",
        r"(?m)listen\s+\[::\]:[^;]*;": "",
        r"(listen\s+)443\b": rf"\g<1>127.0.0.1:{https}",
        r"(listen\s+)80\b": rf"\g<1>127.0.0.1:{http}",
        r"unix:/[^\s;:]+\.sock": f"unix:{socket}",
        r"(ssl_certificate\s+)[^;]+;": rf"\g<1>{authority.chain};",
        r"(ssl_certificate_key\s+)[^;]+;": rf"\g<1>{authority.key};",
        r"/var/log/nginx/": f"{to}/",
    }
    missed = set(changes)
    for source in sorted(DEPLOY.glob("nginx*.conf")):
        conf = source.read_text()
        place = re.search(r"Install as /etc/nginx/([\w./-]*\w)", conf)
        assert place, f"{source} does not say where to install it"
        for pattern, new in changes.items():
            conf, times = re.subn(pattern, new, conf)
            if times:
                missed.discard(pattern)
        target = to / place[1]
        target.parent.mkdir(exist_ok=True)
        target.write_text(conf)
    assert not missed, f"deploy/nginx*.conf have nothing like {missed}"


class BehindNginx(Site):
    """Over https on *.gate.test, through nginx with the real deploy/nginx.conf: other names, ports and paths, nothing else."""

    def __init__(self, authority: Authority) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gatehouse-nginx-"))  # short: a socket's path has 107 characters at most
        self.authority = authority
        port = free_port()
        portal = SocketPortal(self.folder, f"https://login.gate.test:{port}")
        super().__init__(portal, "https", "gate.test", port)
        install(self.folder, http=free_port(), https=port, socket=portal.socket, authority=authority)
        # A master that is root would give its workers to nobody, who may not open the files of a test.
        (self.folder / "nginx.conf").write_text(MAIN.format(user="user root;" if os.getuid() == 0 else ""))
        program = find_nginx()
        assert program is not None
        self.nginx = subprocess.Popen(
            [program, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"], start_new_session=True
        )
        try:
            self._wait()
        except TimeoutError:
            self.stop()
            raise

    def _wait(self) -> None:
        """Until the portal answers through nginx, with a certificate that the authority vouches for."""
        trust = ssl.create_default_context(cafile=self.authority.root)
        until = time.monotonic() + 30
        answer = ""
        while time.monotonic() < until and self.nginx.poll() is None:
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.port), timeout=5) as raw,
                    trust.wrap_socket(raw, server_hostname="login.gate.test") as line,
                ):
                    line.sendall(f"GET /readyz HTTP/1.0\r\nHost: login.gate.test:{self.port}\r\n\r\n".encode())
                    answer = line.recv(4096).decode()
                if " 200 " in answer.partition("\r\n")[0]:
                    return
            except OSError as error:
                answer = str(error)
            time.sleep(0.05)
        logs = [path.read_text() for path in (self.portal.log, self.folder / "error.log") if path.exists()]
        raise TimeoutError("\n".join(["The portal does not answer through nginx:", answer, *logs]))

    def stop(self) -> None:
        if self.nginx.poll() is None:
            self.nginx.terminate()
            self.nginx.wait(10)
        self.portal.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def assert_calm(site: Site) -> None:
    """What the server wrote while it was used has no traceback."""
    log = site.portal.log.read_text()
    assert "Traceback" not in log, log
