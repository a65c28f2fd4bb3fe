"""A real SMTP server for tests: it takes mails, is slow, refuses, or hangs up, as a test says."""

import asyncio
import email.policy
import logging
from email.message import EmailMessage
from email.parser import BytesParser
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.servers import free_port

logging.getLogger("mail.log").setLevel(logging.WARNING)  # every command of every mail is no news


class Sink:
    """Listens on 127.0.0.1; `mails` holds what it took. As a handler of aiosmtpd it answers RCPT and DATA."""

    def __init__(self, *, rcpt: str = "250 OK", data: str = "250 OK", delay: float = 0, port: int = 0, **tls: Any) -> None:
        self.rcpt, self.data, self.delay = rcpt, data, delay
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections = 0
        self.port = port or free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, **tls)

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:  # noqa: N802
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]) -> str:  # noqa: N802
        await asyncio.sleep(self.delay)
        if self.rcpt.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data.startswith("2"):
            assert isinstance(envelope.original_content, bytes)
            self.mails.append(BytesParser(EmailMessage, policy=email.policy.default).parsebytes(envelope.original_content))
            self.recipients += envelope.rcpt_tos
        return self.data

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._controller.stop()


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def html_of(mail: EmailMessage) -> str:
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
