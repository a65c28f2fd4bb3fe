"""Real HTTP to the hosts of this portal."""

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import CommandError

from tenants import hosts

TIMEOUT = 10  # seconds, for one answer
UNPROVEN = 3  # exit code of a check that could prove nothing


class Wire:
    """Asks any host of this portal, without DNS on localhost: Python does not resolve *.localhost.

    One connection is kept, to the host asked last. Certificates are verified (SSL_CERT_FILE names an authority of one's own).
    """

    def __init__(self, url: str | None) -> None:
        parts = urlsplit(url or settings.PORTAL_URL)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise CommandError(f"“{url}” is no address to connect to. Write it like http://127.0.0.1:8000")
        self.secure = parts.scheme == "https"
        self.port = port or (443 if self.secure else 80)
        # On one machine every host is here; else each is where DNS says.
        self.address = parts.hostname if url else "127.0.0.1" if settings.ON_LOCALHOST else ""
        self._host = ""
        self._kept: http.client.HTTPConnection | None = None

    def reach(self, host: str) -> None:
        """Refuse to begin when nobody answers."""
        try:
            self.ask(host, "/healthz", "")
        except (OSError, http.client.HTTPException) as error:
            where = f"{self.address or host}:{self.port}"
            raise CommandError(
                f"The portal does not answer at {where} ({described(error)}). Is it running (make run, or systemctl status "
                "'gatehouse@*')? Or say where it listens: --url http://127.0.0.1:8000",
                returncode=UNPROVEN,
            ) from None

    def ask(self, host: str, path: str, cookie: str) -> tuple[int, bytes]:
        """Status and body. A kept connection that the server closed meanwhile is opened anew, once."""
        fresh = self._kept is None or self._kept.sock is None or self._host != host
        try:
            return self._ask(self._connection(host, fresh=fresh), host, path, cookie)
        except (ConnectionError, http.client.HTTPException):
            self._close()
            if fresh:
                raise
            return self._ask(self._connection(host, fresh=True), host, path, cookie)

    def _ask(self, connection: http.client.HTTPConnection, host: str, path: str, cookie: str) -> tuple[int, bytes]:
        headers = {"Host": hosts.origin(host).partition("//")[2], "Accept": "application/json", "User-Agent": "Gatehouse isolation check"}
        if cookie:
            headers["Cookie"] = cookie
        if settings.SECURE and not self.secure:
            headers["X-Forwarded-Proto"] = "https"  # in the place of the proxy that we go round
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(65_536)
        if not response.isclosed():
            self._close()
        return response.status, body

    def _connection(self, host: str, *, fresh: bool) -> http.client.HTTPConnection:
        if fresh or self._kept is None:
            self._close()
            wire = socket.create_connection((self.address or host, self.port), timeout=TIMEOUT)
            if self.secure:
                wire = ssl.create_default_context().wrap_socket(wire, server_hostname=host)
            self._kept, self._host = http.client.HTTPConnection(host, self.port, timeout=TIMEOUT), host
            self._kept.sock = wire
            self._kept.auto_open = 0
        return self._kept

    def _close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None


def described(error: Exception) -> str:
    return str(error) or type(error).__name__
