"""Mails: a queue in the database, and a worker that sends them. No request waits for a mail server. ASVS 6.3.7.

`post` writes a mail in the caller's transaction, so that cause and notice are one; `deliver` (a chore of the server, and
`manage.py mail send`) sends what is due, tries again after a while, and gives up with an event. Addresses in a mail are built
from the settings and the tenant's record, never from what a request claims.
"""

import json
import logging
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from smtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template import Context, Engine
from django.utils import timezone, translation

from identity import clock, crypto, events
from identity.devices import device
from identity.models import Mail, Session, User
from tenants import policy
from tenants.models import Membership, Tenant
from tenants.text import clean

log = logging.getLogger("gatehouse.mails")
AGAIN = [timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=6)]
TAKEN = timedelta(minutes=10)  # so long a worker has a mail for itself: longer than a slow server takes; after that it died
BATCH = 20
MOST_TOLD = 25  # people, by one end: each takes 4 ms of its transaction, and an end of more is an announcement's business
# A mail is not worth sending when its link is over.
OVER_AFTER = {"reset": policy.LINK, "locked": policy.LINK, "verify": policy.VERIFY_LINK, "invitation": policy.INVITATION}
HOUSE = ("Gatehouse", "#1f5a48")


# --- Writing ------------------------------------------------------------------------------------------------------


def post(
    kind: str,
    *,
    to: str,
    user: User | None = None,
    tenant: Tenant | None = None,
    coalesce: str = "",
    within: timedelta | None = None,
    language: str = "",
    **context: Any,
) -> Mail | None:
    """Queue one mail, in the caller's transaction. None if a mail of the same `coalesce` key was queued within that time.

    The text is templates/mails/<kind>.txt, whose first line is the subject, and its HTML twin, in the person's language (else in
    the given one), time zone and place. Coalescing is exact for a caller that holds the person; others who post at the same
    moment may both do so.
    """
    if coalesce and within and was_queued(coalesce, within):
        return None
    subject, text, html = render(kind, to=to, user=user, brand=tenant or _only_place(user), language=language, **context)
    now = clock.now()
    with transaction.atomic():  # nobody sees it before its text is in it
        mail = Mail(kind=kind, to=to, user=user, tenant=tenant, subject=subject, coalesce=coalesce, created_at=now, due_at=now)
        mail.save()
        mail.body = crypto.encrypt(json.dumps({"text": text, "html": html}), place(mail.pk))
        mail.save(update_fields=["body"])
    return mail


def render(
    kind: str, *, to: str, user: User | None, brand: Tenant | None, language: str = "", agent: str | None = None, **context: Any
) -> tuple[str, str, str]:
    """Subject, text and HTML of a mail, in the person's language and time zone.

    A name greets only the person whose address is proven: a stranger's name must not speak to whom he does not know.
    """
    greeted = user.display_name if user and user.email_verified_at and to == user.email else ""
    house, colour = (_line(brand.name), brand.colour) if brand else HOUSE
    look = {"house": house, "sign": house[:1].upper(), "colour": colour, "on_colour": _readable_on(colour)}
    shown = {"person": user, "greeted": greeted, "brand": brand, "portal_url": settings.PORTAL_URL, **look}
    shown |= {name: _line(value) if isinstance(value, str) else value for name, value in context.items()}
    spoken = (user.speaks if user else "") or language or settings.LANGUAGE_CODE
    with translation.override(spoken), timezone.override(user.zone if user else None):
        if agent is not None:
            shown["browser"] = device(agent).label
        subject, _newline, rest = _text(f"mails/{kind}.txt", shown).partition("\n")
        subject = clean(subject.strip(), 200)
        text = _text("mails/_mail.txt", {**shown, "text": rest.strip()})
        html = Engine.get_default().get_template(f"mails/{kind}.html").render(Context({**shown, "subject": subject}))
    return subject, text + "\n", html


def _text(template: str, shown: dict[str, Any]) -> str:
    """A plain text: nothing is escaped, and of empty lines there is one at a time."""
    made = Engine.get_default().get_template(template).render(Context(shown, autoescape=False))
    return re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", made.strip())


def _line(text: str) -> str:
    """In one line: what has a line end in it could write lines of a mail."""
    return " ".join(text.split())


def _readable_on(colour: str) -> str:
    """Black or white, whichever stands out more from a colour (WCAG 2 relative luminance; at least 4.5 to 1)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def _only_place(user: User | None) -> Tenant | None:
    """Who belongs to one tenant only knows the house by that tenant's name and colour."""
    if user is None or user.is_superuser:
        return None
    mine = list(Membership.objects.filter(user=user, blocked_at=None, tenant__status=Tenant.Status.ACTIVE).select_related("tenant")[:2])
    return mine[0].tenant if len(mine) == 1 else None


def circumstances(request: HttpRequest | None) -> dict[str, Any]:
    """When and from where: what every warning says."""
    if request is None:
        return {"at": clock.now()}
    return {"at": clock.now(), "address": events.address(request), "agent": events.user_agent(request)}


def was_queued(coalesce: str, within: timedelta) -> bool:
    """Was a mail of this key queued lately?"""
    return Mail.objects.filter(coalesce=coalesce, created_at__gt=clock.now() - within).exists()


def are_sent() -> bool:
    """Does anything become of a mail? Not before an operator has set EMAIL_URL; the demo shows them on a page."""
    return not settings.MAIL_OFF


def tell(kind: str, user: User, **more: Any) -> Mail | None:
    """Queue a mail to a person's proven address; nothing to one that nobody has proven to be his."""
    return post(kind, to=user.email, user=user, **more) if user.email_verified_at and user.email else None


def password_changed(user: User, *, request: HttpRequest | None) -> None:
    """Tell a person that the password is a new one. ASVS 6.3.7."""
    tell("password_changed", user, coalesce=f"password:{user.pk}", within=timedelta(minutes=10), **circumstances(request))


def factors_changed(user: User, what: str, *, request: HttpRequest | None) -> None:
    """Tell a person that the second factor changed: "enrolled", "removed", "reset", or "codes" made anew. ASVS 6.3.7."""
    tell("factors_changed", user, what=what, **circumstances(request))


def ended(rows: Iterable[Session], *, by: User | None, note: str) -> None:
    """Tell people that somebody else ended sessions of theirs; nobody where it was so many that it is no person's matter."""
    own: dict[int, list[Session]] = {}
    for row in rows:
        if by is None or row.user_id != by.pk:
            own.setdefault(row.user_id, []).append(row)
    if not 0 < len(own) <= MOST_TOLD:
        return
    tenants = Tenant.objects.in_bulk({row.tenant_id for each in own.values() for row in each if row.tenant_id})
    for user in User.objects.filter(pk__in=own, is_active=True).exclude(email_verified_at=None).order_by("pk"):
        tell(
            "ended",
            user,
            tenant=tenants[next(iter(places))] if len(places := {row.tenant_id for row in own[user.pk] if row.tenant_id}) == 1 else None,
            coalesce=f"ended:{user.pk}",
            within=timedelta(minutes=10),
            at=own[user.pk][0].ended_at,
            by=by.get_full_name_with_username() if by else "",
            note=note,
            reason=own[user.pk][0].end_reason,
            ended=[(tenants[row.tenant_id].name if row.tenant_id else "", device(row.user_agent)) for row in own[user.pk]],
        )


def to_admins(kind: str, tenant: Tenant | None, **more: Any) -> None:
    """To the owners and admins of a tenant; without one, to the operators of the platform. A `coalesce` key is each person's own."""
    if tenant is None:
        people = User.objects.filter(is_superuser=True, is_active=True)
    else:
        members = Membership.objects.filter(tenant=tenant, role__in=["admin", "owner"], blocked_at=None).values("user")
        people = User.objects.filter(pk__in=members, is_active=True)
    key = more.pop("coalesce", "")
    for person in people.exclude(email_verified_at=None).order_by("pk"):
        tell(kind, person, tenant=tenant, coalesce=f"{key}:{person.pk}" if key else "", **more)


def place(pk: int) -> str:
    """What a queued mail's text is bound to."""
    return f"mail:{pk}"


# --- Sending ------------------------------------------------------------------------------------------------------


def deliver(limit: int = BATCH) -> int:
    """Send what is due; returns how many mails left. Several workers may do so at once: each mail is one's at a time."""
    sent = 0
    for _n in range(limit):
        mail = _claim()
        if mail is None:
            break
        if mail.tries > len(AGAIN) + 1:  # the last try has noted nothing
            _give_up(mail, "its worker died each time", "worker died")
            continue
        try:
            _send(mail)
        except crypto.Undecipherable:
            _give_up(mail, "its text cannot be decrypted: the key is gone", "no key")
        except NoServer:
            _settle(mail, due_at=None, failed_at=clock.now(), error="there is no mail server: EMAIL_URL is not set")
        except (OSError, SMTPException) as failed:
            _again(mail, failed)
        except ValueError as unfit:  # an address or a header that no server could take: the next try would be the same
            _give_up(mail, f"{type(unfit).__name__}: {unfit}", type(unfit).__name__)
        else:
            kept = {} if settings.KEEP_MAILS else {"body": ""}
            Mail.objects.filter(pk=mail.pk).update(sent_at=clock.now(), due_at=None, error="", **kept)
            sent += 1
    return sent


class NoServer(Exception):
    """The platform has no mail server."""


def waiting() -> QuerySet[Mail]:
    """The mails in the queue, whether they are due or wait for another try."""
    return Mail.objects.filter(due_at__isnull=False).exclude(to="")


def due() -> QuerySet[Mail]:
    """The mails that wait for nothing but a worker."""
    return waiting().filter(due_at__lte=clock.now())


def failed() -> QuerySet[Mail]:
    """The mails that were given up and can be tried again."""
    return Mail.objects.filter(failed_at__isnull=False).exclude(to="").exclude(body="")


def _claim() -> Mail | None:
    """Take one mail that is due, by moving its time on in a conditional UPDATE, so that nobody else has it."""
    while found := list(due().select_related("tenant", "user").order_by("due_at", "pk")[:BATCH]):
        for mail in found:
            until = clock.now() + TAKEN
            if Mail.objects.filter(pk=mail.pk, due_at=mail.due_at).update(due_at=until, tries=mail.tries + 1):
                mail.due_at, mail.tries = until, mail.tries + 1
                return mail
    return None


def _send(mail: Mail) -> None:
    if settings.MAIL_OFF:
        raise NoServer
    body = json.loads(crypto.decrypt(mail.body, place(mail.pk)))
    headers = {
        "Auto-Submitted": "auto-generated",  # RFC 3834: nobody's holiday notice answers
        "Message-ID": f"<{mail.pk}.{int(mail.created_at.timestamp())}@{settings.PORTAL_HOST}>",  # a second copy is known as one
    }
    message = EmailMultiAlternatives(mail.subject, body["text"], settings.DEFAULT_FROM_EMAIL, [mail.to], headers=headers)
    message.attach_alternative(body["html"], "text/html")
    message.send()


def _settle(mail: Mail, **fields: Any) -> bool:
    """Write what became of a try, unless it took so long that the mail is somebody else's by now."""
    return bool(Mail.objects.filter(pk=mail.pk, due_at=mail.due_at).update(**fields))


def _again(mail: Mail, failed: Exception) -> None:
    """Note a failed try and when the next one is; no next one for an address that the server knows nothing of, or a link that is over."""
    code, said = _answer(failed)
    error = clean(f"{type(failed).__name__}: {said}".replace(mail.to, "…"))
    nobody = isinstance(failed, SMTPRecipientsRefused) and code >= 500
    if nobody or mail.tries > len(AGAIN) or clock.now() + AGAIN[mail.tries - 1] > _worthless_at(mail):
        _give_up(mail, error, f"{type(failed).__name__} {code or ''}".strip())
        return
    _settle(mail, due_at=clock.now() + AGAIN[mail.tries - 1], error=error)
    log.warning("Mail %s (%s) was not taken, and is tried again: %s", mail.pk, mail.kind, error)


def _answer(failed: Exception) -> tuple[int, str]:
    """The server's code (0: none) and words."""
    said: str | bytes
    if isinstance(failed, SMTPRecipientsRefused):
        code, said = next(iter(failed.recipients.values()))
    elif isinstance(failed, SMTPResponseException):
        code, said = failed.smtp_code, failed.smtp_error
    else:
        return 0, str(failed)
    return code, f"{code} {said if isinstance(said, str) else said.decode(errors='replace')}"


def _worthless_at(mail: Mail) -> datetime:
    return mail.created_at + OVER_AFTER.get(mail.kind, timedelta(days=365))


def _give_up(mail: Mail, error: str, short: str) -> None:
    """Its text stays, encrypted, for `mail retry`; the event has no address."""
    with transaction.atomic():
        if not _settle(mail, due_at=None, failed_at=clock.now(), error=clean(error.replace(mail.to, "…"))):
            return
        events.record("mail_failed", tenant=mail.tenant, subject=mail.user, mail=mail.kind, error=short, tries=mail.tries)
    log.error("Mail %s (%s) is given up: %s. Again: manage.py mail retry %s", mail.pk, mail.kind, error.replace(mail.to, "…"), mail.pk)


def retry(which: QuerySet[Mail]) -> int:
    """Put mails that were given up (see `failed`) back into the queue, with all their tries. Returns how many."""
    return which.update(failed_at=None, due_at=clock.now(), tries=0)


def drop_all(error: str) -> int:
    """Send nothing of what waits, nor of what was given up: it may have left before, and its links are over. Returns how many waited."""
    with transaction.atomic():
        Mail.objects.filter(to="").delete()
        Mail.objects.filter(failed_at__isnull=False).update(body="")
        return Mail.objects.filter(due_at__isnull=False).update(due_at=None, failed_at=clock.now(), body="", error=error)


def text_of(mail: Mail) -> dict[str, str]:
    """Text and HTML of a mail that is still kept. Raises crypto.Undecipherable."""
    body: dict[str, str] = json.loads(crypto.decrypt(mail.body, place(mail.pk)))
    return body


def old() -> QuerySet[Mail]:
    """What `prune` deletes: mails that left, or were given up, long enough ago."""
    before = clock.now() - policy.KEEP_MAILS
    return Mail.objects.filter(Q(sent_at__lt=before) | Q(failed_at__lt=before))
