"""The product on real servers for a real browser: over http on *.localhost, and over https behind nginx with deploy/nginx.conf."""

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.servers import Portal, free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "gatehouse-demo"
NAMES = {"portal": "__Host-portal", "session": "__Secure-session", "start": "__Host-start", "csrf": "__Host-csrf", "theme": "__Host-theme"}


def new_database(folder: Path) -> str:
    """The address of an empty database of the kind that the tests run on."""
    given = os.environ.get("DATABASE_URL", "")
    if not given.startswith("postgres"):
        return f"sqlite:///{folder}/browser-{secrets.token_hex(4)}.sqlite3"
    name = f"browser_{secrets.token_hex(4)}"
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{given.rpartition('/')[0]}/{name}"


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

    def run(self, module: str, *arguments: str) -> Any:
        """Run a module of ours with Django and this portal's environment; returns the JSON it printed."""
        return json.loads(run(module, *arguments, environment=self.portal.environment))

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def run(module: str, *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Plain(Site):
    """Over http on *.portal.localhost, as `make run` serves it."""

    def __init__(self, folder: Path) -> None:
        portal = Portal(new_database(folder), folder)
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
    """The portal as deploy/gatehouse.service starts it: on a unix socket, with everything it needs in the environment."""

    def __init__(self, folder: Path, url: str) -> None:
        self.socket = folder / "portal.sock"
        self.log = folder / "portal.log"
        self.environment = {
            **os.environ,
            "DATABASE_URL": new_database(folder),
            "STATIC_ROOT": str(folder / "static"),
            "PORTAL_URL": url,
            "TENANT_DOMAIN": urlsplit(url).hostname.partition(".")[2],
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "SIGNUP": "open",
        }
        self.manage("migrate", "--verbosity=0")
        self.manage("collectstatic", "--no-input", "--verbosity=0")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "granian", "--interface", "wsgi", "--uds", str(self.socket),
                "--workers", "1", "--blocking-threads", "8", "--no-ws", "portal.wsgi:application",
            ],
            cwd=ROOT, env=self.environment, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


class BehindNginx(Site):
    """Over https on *.gate.test, through nginx with the real deploy/nginx.conf: other names, ports and paths, nothing else."""

    def __init__(self, authority: Authority) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gatehouse-nginx-"))  # short: a socket's path has 107 characters at most
        port = free_port()
        portal = SocketPortal(self.folder, f"https://login.gate.test:{port}")
        super().__init__(portal, "https", "gate.test", port)
        raise NotImplementedError
        portal.run("tests.browser.data", "seed")

    def stop(self) -> None:
        self.portal.stop()


def assert_calm(site: Site) -> None:
    """What the server wrote while it was used has no traceback."""
    log = site.portal.log.read_text()
    assert "Traceback" not in log, log
