"""What a test does with mails: let the worker do its part, look at what arrived, and ask strangers' questions by the clock."""

import re

from django.core import mail
from django.core.mail import EmailMessage

from identity import addresses, forgotten, mails, warnings


def delivered() -> list[EmailMessage]:
    """Everything that is due, asked for or found out, is sent; what has newly arrived, the oldest first."""
    before = len(mail.outbox)
    forgotten.answer_asked()
    addresses.answer_asked()
    warnings.tell_locked()
    mails.deliver()
    return mail.outbox[before:]


def link_in(sent: EmailMessage, path: str) -> str:
    """The one link of this kind in a mail."""
    found = set(re.findall(rf"https?://[^\s\"<>]+/{path}/[A-Za-z0-9_-]{{43}}/", str(sent.body)))
    assert len(found) == 1, f"{found} in {sent.body}"
    return str(found.pop())
