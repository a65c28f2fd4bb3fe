"""Mail: does the server take us, do mails leave, and (when asked) does one arrive?"""

from collections.abc import Iterator
from datetime import timedelta
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from identity import clock, mails
from identity.management.doctor import PATIENCE, Asked, Finding, failure, is_here, note, ok, warning
from identity.management.output import count

LATE = timedelta(minutes=5)  # a mail that is due and still here: nobody sends


def examine(asked: Asked) -> Iterator[Finding]:
    if settings.KEEP_MAILS:
        yield note(f"This is the demo: mails are shown at {settings.PORTAL_URL}/outbox/ and go nowhere.")
    elif settings.MAIL_OFF:
        yield warning(  # install.sh --smtp none: who chose that is not to hear of a failure every day
            "EMAIL_URL is not set, so no mail leaves: nobody proves an address or sets a forgotten password by himself.",
            "Run deploy/install.sh --smtp URL again, or set EMAIL_URL and restart: smtp+tls://user:password@mail.example.com:587",
        )
    else:
        yield _server(asked.mail)
        if not (settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL or is_here(settings.EMAIL_HOST)):
            yield warning(
                f"Mails go to {settings.EMAIL_HOST} over the network in clear, with the links that are in them.",
                "smtp+tls:// or smtp+ssl:// in EMAIL_URL; the server's certificate is verified then.",
            )
    if asked.has_database:
        yield from _queue()


def _server(to: str) -> Finding:
    """Connect, say who we are, and send a test if there is somebody to send it to."""
    where = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
    line = get_connection(timeout=PATIENCE)
    try:
        line.open()
        if to:
            text = f"This is a test from {settings.PORTAL_URL}. Mails of Gatehouse reach this address.\n"
            EmailMessage("A test from Gatehouse", text, settings.DEFAULT_FROM_EMAIL, [to], connection=line).send()
    except (OSError, SMTPException, ValueError) as error:
        said = f"{type(error).__name__}: {error}"[:300]
        return failure(
            f"The mail server at {where} does not take us ({said}).", "Look at EMAIL_URL: host, port, user, password, tls or ssl."
        )
    finally:
        line.close()
    if to:
        return ok(f"The mail server at {where} has taken a test to {to}. Look whether it arrived, and not among the junk.", sent=True)
    return ok(f"The mail server at {where} takes us. Send a test: manage.py doctor --mail ADDRESS")


def _queue() -> Iterator[Finding]:
    late = mails.due().filter(due_at__lt=clock.now() - LATE).count()
    failed = mails.failed().count()
    if late and not settings.MAIL_OFF:
        yield failure(
            f"{count(late, 'mail is', 'mails are')} due, and nobody sends.", "Is the server running? Else: manage.py mail send", late=late
        )
    if failed:
        yield warning(
            f"{count(failed, 'mail was', 'mails were')} given up.",
            "Why: manage.py mail list --state failed. Again: manage.py mail retry --all",
            failed=failed,
        )
