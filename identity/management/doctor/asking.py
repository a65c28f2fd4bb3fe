"""One question to one host, over the network: where DNS leads, which certificate is there, and whether our portal answers."""

import http.client
import socket
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.conf import settings

from identity import checkup
from identity.management.doctor import PATIENCE
from identity.management.wire import Wire, described
from tenants import hosts

_EXPIRED, _NOT_YET, _OTHER_NAME = 10, 9, 62  # OpenSSL's verify codes; every other one is about the chain


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. seen is None unless it was our portal that answered."""

    host: str
    dns: tuple[str, ...] = ()
    at: str = ""  # which of them this is about; "": the one that was taken
    here: str = ""  # this end of the connection
    status: int = 0
    said: str = ""
    is_strict: bool = False  # Strict-Transport-Security came along
    location: str = ""
    seen: checkup.Seen | None = None
    trouble: str = ""  # why there was no answer
    certificate: str = ""  # what is wrong with it: "none", "expired", "early", "name", "chain"
    certificate_until: datetime | None = None

    @property
    def days_left(self) -> int | None:
        return (self.certificate_until - datetime.now(UTC)).days if self.certificate_until else None


def resolve(host: str) -> tuple[str, ...]:
    """The addresses of a name; none if DNS has none."""
    try:
        return tuple(sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}))
    except OSError:
        return ()


def ask_everywhere(wire: Wire, host: str) -> Reply:
    """Ask at each address that DNS has of it: an old one among them fails some visitors, or the authority. The first that is wrong."""
    reply = ask(wire, host)
    if reply.seen is None or len(reply.dns) < 2:
        return reply
    each = (replace(ask(wire, host, at=address), dns=reply.dns, at=address) for address in reply.dns)
    return next((other for other in each if other.seen is None or other.certificate), reply)


def ask(wire: Wire, host: str, forged: dict[str, str] | None = None, *, at: str = "") -> Reply:
    """Ask the portal at this host what it sees. forged: headers that a visitor might send; at: connect to this address of it."""
    dns = () if wire.address or at else resolve(host)
    if not wire.address and not at and not dns:
        return Reply(host, trouble="DNS knows no address of it")
    where, certificate = wire.address or at or host, ""
    try:
        return _asked(wire, where, host, dns, forged or {}, certificate)
    except ssl.SSLCertVerificationError as wrong:
        certificate = {_EXPIRED: "expired", _NOT_YET: "early", _OTHER_NAME: "name"}.get(wrong.verify_code, "chain")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "TLSV1_UNRECOGNIZED_NAME":
            return Reply(host, dns, certificate="none")  # as deploy/nginx.conf answers for a name that has none
        return Reply(host, dns, trouble=described(error))
    try:  # whose server is it, then? Nothing secret is sent.
        return _asked(wire, where, host, dns, forged or {}, certificate)
    except (OSError, http.client.HTTPException) as error:
        return Reply(host, dns, trouble=described(error), certificate=certificate)


def _asked(wire: Wire, where: str, host: str, dns: tuple[str, ...], forged: dict[str, str], certificate: str) -> Reply:
    nonce, question = checkup.question()
    headers = {"Host": hosts.origin(host).partition("//")[2], "Accept": "application/json", checkup.HEADER: question, **forged}
    if settings.SECURE and not wire.secure:
        headers["X-Forwarded-Proto"] = "https"  # in the place of the proxy that we go round
    until = None
    with socket.create_connection((where, wire.port), timeout=PATIENCE) as plain:
        line = plain
        if wire.secure:
            context = ssl.create_default_context()
            if certificate:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            line = context.wrap_socket(plain, server_hostname=host)
            if told := (line.getpeercert() or {}).get("notAfter"):
                until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told)), UTC)
        connection = http.client.HTTPConnection(host, wire.port, timeout=PATIENCE)
        connection.sock, connection.auto_open = line, 0
        here = str(line.getsockname()[0])
        connection.request("GET", checkup.PATH, headers=headers)
        response = connection.getresponse()
        said = response.read(65_536).decode(errors="replace")
        connection.close()
    return Reply(
        host=host,
        dns=dns,
        here=here,
        status=response.status,
        said=said[:200],
        is_strict=bool(response.headers["Strict-Transport-Security"]),
        location=response.headers["Location"] or "",
        seen=checkup.read(said, nonce) if response.status == 200 else None,
        certificate=certificate,
        certificate_until=until,
    )


def ask_in_clear(host: str) -> Reply:
    """What port 80 says of a page."""
    connection = http.client.HTTPConnection(host, 80, timeout=PATIENCE)
    try:
        connection.request("GET", "/", headers={"Accept": "text/html"})
        response = connection.getresponse()
        return Reply(host, status=response.status, location=response.headers["Location"] or "")
    except (OSError, http.client.HTTPException) as error:
        return Reply(host, trouble=described(error))
    finally:
        connection.close()
