"""E-mail addresses: prove one, change it, take it back. An address that nobody has proven is matched by nothing. ASVS 6.3.7."""

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from identity import asked, clock, crypto, events, leaving, links, mails, sessions
from identity.models import Link, Mail, Session, User, fold
from tenants import hosts
from tenants.models import Tenant

ASKED = "address"  # the kind of a row that waits for the worker
MOST, WITHIN = 5, timedelta(hours=1)  # mails to one address that somebody says is his
MOST_OF_MAILBOX = 20  # the same for all addresses that differ behind a plus sign: they are one person's mail
MOST_OF_ONE = 10  # the same for one account: nobody writes to a list of strangers through us
PAUSE = timedelta(seconds=30)  # between two of them for one account: a double click is one mail
_looks_right = EmailValidator(_("That is no e-mail address. It looks like name@example.com."))


class Taken(Exception):
    """Somebody else has proven this address to be his, before."""


def checked(text: str) -> str:
    """An address as it is stored and mailed to: the domain as DNS knows it. Raises ValidationError.

    The part before the @ is ASCII: a letter that only looks like another one would be another mailbox, and compare equal. It is
    not in quotes, in which another address could stand.
    """
    _looks_right(text)
    local, _at, domain = text.strip().rpartition("@")
    if '"' in local:
        raise ValidationError(_looks_right.message, code="invalid")
    if not local.isascii():
        raise ValidationError(_("Before the @ an address has letters from a to z, digits and signs only."), code="invalid")
    try:
        address = f"{local}@{hosts.normalise(domain)}"
    except hosts.BadHost:
        raise ValidationError(_looks_right.message, code="invalid") from None
    if len(address) > 254:
        raise ValidationError(_("An address has at most 254 characters."), code="too_long")
    return address


# --- Proving ------------------------------------------------------------------------------------------------------


def ask_to_prove(user: User, address: str, *, request: HttpRequest, tenant: Tenant | None = None, next_path: str = "") -> bool:
    """Have a link mailed to an address that a person says is his. Nothing changes before it is followed. In the caller's transaction.

    False: one was mailed a moment ago, or too many lately. Whether somebody else has proven the address is found out after the
    answer. ASVS 6.3.8.
    """
    now = clock.now()
    lately = Link.objects.filter(user=user, purpose=Link.Purpose.VERIFY, made_at__gt=now - WITHIN)
    if lately.filter(made_at__gt=now - PAUSE, data__email=address).exists() or lately.count() >= MOST_OF_ONE:
        return False
    asked.drop(ASKED, user)  # one question at a time: the latest counts
    source = {"ip": events.address(request), "agent": events.user_agent(request)}
    asked.note(ASKED, user=user, tenant=tenant, email=address, next=next_path, **source)
    return True


def answer_asked(limit: int = 50) -> int:
    """The worker's part: mail the links. Returns how many mails were queued."""
    return asked.answer(ASKED, _answer, limit)


def _answer(row: Mail, said: dict[str, Any]) -> bool:
    """The link to the address; or, where somebody else has proven it, a word to its owner, by whom nobody is told that he exists."""
    address, now = str(said["email"]), clock.now()
    assert row.user is not None
    user = sessions.hold_person(row.user)
    if not user.is_active or address != (user.new_email or user.email) or (address == user.email and user.email_verified_at):
        return False  # he has thought better of it meanwhile
    mailbox = f"prove:{_mailbox(address)}:"
    key = f"{mailbox}{crypto.digest(fold(address))[:40]}"
    lately = Mail.objects.filter(created_at__gt=now - WITHIN)
    if lately.filter(coalesce=key).count() >= MOST or lately.filter(coalesce__startswith=mailbox).count() >= MOST_OF_MAILBOX:
        return False
    links.void(user, Link.Purpose.VERIFY)
    link = links.make(Link.Purpose.VERIFY, user, email=address, next=said["next"])
    told = {"tenant": row.tenant, "coalesce": key, "at": row.created_at, "address": said["ip"], "agent": said["agent"]}
    # Neither mail says the account's name: strangers choose it, and it would be theirs to write to anybody.
    if owner := User.objects.filter(email_key=fold(address)).exclude(pk=user.pk).first():
        mails.post("taken", to=owner.email, user=owner, deactivated=not owner.is_active, **told)
    else:
        mails.post("verify", to=address, user=user, link=link, new=address, **told)
    return True


def _mailbox(address: str) -> str:
    local, _at, domain = fold(address).rpartition("@")
    return crypto.digest(f"{local.partition('+')[0]}@{domain}")[:40]


def ask_to_change(user: User, address: str, *, request: HttpRequest) -> bool:
    """Begin a change: the new address gets the link, the present one is told. False: a link was mailed a moment ago."""
    with transaction.atomic():
        user = sessions.hold_person(user)
        is_new = fold(address) != fold(user.new_email)
        user.new_email = address
        user.save(update_fields=["new_email"])
        if is_new:
            mails.tell("email_asked", user, coalesce=f"email_asked:{user.pk}", within=WITHIN, new=address, **mails.circumstances(request))
            events.record("email_change_asked", request=request, actor=user, subject=user)
        return ask_to_prove(user, address, request=request)


def ask_again(user: User, *, request: HttpRequest, tenant: Tenant | None = None, next_path: str = "") -> bool:
    """Have the link mailed anew, to the address that waits to be proven. False: none waits, or one was mailed a moment ago."""
    with transaction.atomic():
        user = sessions.hold_person(user)
        address = waiting(user)
        return bool(address) and ask_to_prove(user, address, request=request, tenant=tenant, next_path=next_path)


def waiting(user: User) -> str:
    """The address that a person has yet to prove; "" if there is none."""
    return user.new_email or ("" if user.email_verified_at else user.email)


def forget_change(user: User, *, request: HttpRequest) -> bool:
    """The change that waits will not be: its link is worthless. False if none waits."""
    with transaction.atomic():
        user = sessions.hold_person(user)
        if not user.new_email:
            return False
        user.new_email = ""
        user.save(update_fields=["new_email"])
        links.void(user, Link.Purpose.VERIFY)
        events.record("email_change_dropped", request=request, actor=user, subject=user)
    return True


def prove(link: Link, *, request: HttpRequest) -> User:
    """Follow such a link, in one transaction: the address is the person's from now on. Raises Taken, or sessions.StaleProof.

    Where another proven address stood, that one is told, and may take itself back within seven days.
    """
    address = str(link.data["email"])
    try:
        with transaction.atomic():
            assert link.user is not None
            user = sessions.hold_person(link.user)
            if address not in {user.email, user.new_email} or not links.take(link):
                raise sessions.StaleProof
            old = user.email if user.email_verified_at and fold(user.email) != fold(address) else ""
            user.email, user.new_email, user.email_verified_at = address, "", clock.now()
            user.save(update_fields=["email", "new_email", "email_verified_at"])
            if old:
                links.void(user, Link.Purpose.PASSWORD)
                back = links.make(Link.Purpose.TAKE_BACK, user, email=old)
                mails.post("email_changed", to=old, user=user, link=back, new=address, **mails.circumstances(request))
            events.record("email_changed" if old else "email_proven", request=request, actor=user, subject=user)
    except IntegrityError:
        raise Taken from None
    return user


def is_proven_by(link: Link) -> bool:
    """Has this link done its work, so that following it again is no failure? For the second click of a double click."""
    user = link.user
    return bool(user and user.is_active and user.email_verified_at and fold(user.email) == fold(str(link.data["email"])))


# --- Taking back ----------------------------------------------------------------------------------------------------


def take_back(link: Link, *, request: HttpRequest) -> User:
    """The owner of the address from before undoes a change: it is the account's again, every session ends, a new password is due.

    Raises Taken, or sessions.StaleProof.
    """
    try:
        with transaction.atomic():
            assert link.user is not None
            user = sessions.hold_person(link.user)
            if not links.take(link):
                raise sessions.StaleProof
            put_back(user, link, request=request)
            sessions.end_everywhere(user, by=user, reason=Session.Reason.BY_MAIL, request=request)
            sessions.withdraw_password(user)  # whoever changed the address knew it
            mail_reset(user)
    except IntegrityError:
        raise Taken from None
    return user


def put_back(user: User, link: Link, *, request: HttpRequest) -> None:
    """The address that this link was mailed to is the account's again; nothing where it still is. The caller holds the person.

    Who changed it may have changed it twice, have been warned there, and have asked to delete the account: links that were mailed
    to addresses from after this one are worthless, and the account stays. The address that has to go is told, since whoever
    reads the one from before may be the thief. IntegrityError where somebody else has proven the address meanwhile.
    """
    address = str(link.data["email"])
    links.void(user, Link.Purpose.PASSWORD, Link.Purpose.VERIFY)
    ways_back = Link.objects.filter(user=user, purpose__in=links.OUTLIVES_A_PASSWORD, used_at=None, made_at__gt=link.made_at)
    ways_back.exclude(purpose=Link.Purpose.NOT_ME, data__email=address).update(used_at=clock.now())
    leaving.undo(user, by=user, request=request)
    changed = not user.email_verified_at or fold(user.email) != fold(address)
    gone = user.email if changed and user.email_verified_at else ""
    if changed or user.new_email:
        user.email, user.new_email, user.email_verified_at = address, "", clock.now()
        user.save(update_fields=["email", "new_email", "email_verified_at"])
    if gone:  # without when and where: that is nothing for a thief
        mails.post("email_taken_back", to=gone, user=user)
    if changed:
        events.record("email_taken_back", request=request, actor=user, subject=user)


def mail_reset(user: User, *, tenant: Tenant | None = None, **more: Any) -> None:
    """Mail the link with which a person sets a new password; the ones from before are worthless."""
    links.void(user, Link.Purpose.PASSWORD)
    link = links.make(Link.Purpose.PASSWORD, user, **({"tenant": tenant.pk} if tenant else {}))
    mails.tell("reset", user, tenant=tenant, link=link, name=user.username, **more)
