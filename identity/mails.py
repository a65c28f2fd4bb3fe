"""Mails to people. Nobody's request waits for a mail server: they leave from a thread, after the commit that caused them."""

import logging
import threading
from collections.abc import Sequence
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.utils.translation import gettext as _

from identity.models import User

log = logging.getLogger("gatehouse.mails")


def are_sent() -> bool:
    """Does anything become of a mail? Not before an operator has set EMAIL_URL; the demo keeps them in a folder."""
    return bool(settings.EMAIL_URL or settings.DEMO)


def factors_changed(user: User, what: str) -> None:
    """Tell a person that the second factor changed, and what to do if it was somebody else. ASVS 6.3.7."""
    said = {
        "enrolled": (_("An authenticator was added"), _("From now on your account asks for its code.")),
        "removed": (_("An authenticator was removed"), _("Its codes are not accepted any more.")),
        "reset": (
            _("Your second factor was taken away"),
            _("An operator removed every authenticator and recovery code of your account and ended all its sessions. Your password stays."),
        ),
        "codes": (_("New recovery codes were made"), _("The ones from before are worthless.")),
    }
    subject, text = said[what]
    cure = _("If that was not you: change your password at %(url)s, then tell the people who run the portal.")
    to_person(user, subject, f"{text}\n\n{cure % {'url': f'{settings.PORTAL_URL}/account/password/'}}")


def to_person(user: User, subject: str, text: str) -> None:
    """One mail to a person's verified address; nothing to an address that nobody has proven to be his."""
    if user.email_verified_at and user.email:
        to_addresses([user.email], subject, f"{_('Hello %(name)s') % {'name': user.display_name}},\n\n{text}\n")


def to_addresses(addresses: Sequence[str], subject: str, text: str) -> None:
    """The same mail to each address, one by one, once the transaction is committed."""
    mails = [EmailMessage(f"[Gatehouse] {subject}", text, settings.DEFAULT_FROM_EMAIL, [address]) for address in addresses]
    if mails:
        transaction.on_commit(lambda: _send_aside(mails))


def _send_aside(mails: list[EmailMessage]) -> None:
    if settings.MAIL_IN_THREAD:
        threading.Thread(target=_send, args=(mails,), name="mails").start()
    else:
        _send(mails)


def _send(mails: list[EmailMessage]) -> None:
    try:
        get_connection().send_messages(mails)
    except (OSError, SMTPException) as failed:
        log.error("A mail was not sent (%s): %s", mails[0].subject, failed)
