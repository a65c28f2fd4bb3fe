"""Second factors: authenticator apps (TOTP, RFC 6238) and recovery codes. Enrol, confirm, prove, drop, reset.

The algorithm is django-otp's; what it leaves to the caller is done here: seeds are encrypted, a code is six ASCII digits and
good once, by compare-and-set on its time step, however many requests bring it at the same moment. ASVS 6.5.1, 6.5.3, 6.5.5.
"""

import base64
import hmac
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import argon2
from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables
from django_otp.oath import TOTP

from identity import clock, crypto, events, flight, known, ledger, mails, sessions
from identity.hashers import Argon2id
from identity.models import CODE, RECOVERY, RecoveryCode, Session, TotpDevice, User

SEED_BYTES = 20  # 160 bits, what RFC 4226 recommends and every app takes
STEP = 30  # seconds
TOLERANCE = 1  # steps before and after: a phone's clock is not ours (RFC 6238 section 5.2)
RECOVERY_CODES = 10
RECOVERY_BYTES = 10  # 80 bits, sixteen letters and digits
MOST = 8  # authenticators of one person

_DIGITS = re.compile(r"[0-9]{6}")
_RECOVERY = re.compile(r"[A-Z2-7]{16}")
# What people read wrong: none of 0, 1, 8 is in the alphabet (RFC 4648 section 6).
_MISREAD = str.maketrans("018", "OIB")


class TooMany(Exception):
    """The person has as many authenticators as one may have."""


# --- Authenticators -----------------------------------------------------------------------------------------------


def authenticators(user: User) -> list[TotpDevice]:
    """The confirmed ones, oldest first."""
    return list(TotpDevice.objects.filter(user=user, confirmed=True))


def has_factor(user: User) -> bool:
    """Is a code asked from this person?"""
    return TotpDevice.objects.filter(user=user, confirmed=True).exists()


def enrolment(user: User, portal: Session | None = None) -> TotpDevice:
    """The authenticator that this person is setting up in this portal session, made if there is none.

    It counts for nothing before `confirm`, and no other session ever sees its key: who has only found out the password would
    keep it until the owner turns it on. One whose key can no longer be read is thrown away. Raises TooMany.
    """
    if TotpDevice.objects.filter(user=user, confirmed=True).count() >= MOST:
        raise TooMany
    device = TotpDevice(user=user, session=portal, name="", confirmed=False, created_at=clock.now())
    device.secret = crypto.encrypt(base64.b32encode(secrets.token_bytes(SEED_BYTES)).decode(), place(device.pk))
    TotpDevice.objects.bulk_create([device], ignore_conflicts=True)  # two tabs agree on one
    agreed = TotpDevice.objects.filter(user=user, session=portal, confirmed=False).first()
    if agreed is None:  # another tab has just confirmed it
        return enrolment(user, portal)
    try:
        text_key(agreed)
    except crypto.Undecipherable:
        start_over(user, portal)
        return enrolment(user, portal)
    return agreed


def start_over(user: User, portal: Session | None) -> None:
    """Throw this session's unconfirmed authenticator away: the next `enrolment` has a new key."""
    TotpDevice.objects.filter(user=user, session=portal, confirmed=False).delete()


def text_key(device: TotpDevice) -> str:
    """The seed in base32, as people type it. Only its owner sees it, while it is being set up."""
    return crypto.decrypt(device.secret, place(device.pk))


def otpauth_url(device: TotpDevice) -> str:
    """What the QR code says (the format that Google Authenticator has made common)."""
    issuer = f"Gatehouse {settings.PORTAL_HOST}"
    query = urlencode({"secret": text_key(device), "issuer": issuer, "algorithm": "SHA1", "digits": 6, "period": STEP}, quote_via=quote)
    return f"otpauth://totp/{quote(issuer)}:{quote(device.user.username)}?{query}"


def accepts(device: TotpDevice, token: str) -> bool:
    """Is this the authenticator's code, for the first time? Must be called under a reservation of the ledger."""
    flight.demand()
    if not _DIGITS.fullmatch(token):
        return False
    try:
        seed = base64.b32decode(text_key(device))
    except crypto.Undecipherable:
        events.record("factor_unreadable", subject=device.user, authenticator=device.name)
        return False
    now = clock.now()
    totp = TOTP(seed, step=STEP)
    totp.time = now.timestamp()
    if not totp.verify(int(token), tolerance=TOLERANCE, min_t=device.last_step + 1):
        return False
    step = totp.t()  # with the drift that `verify` has found
    # Of parallel requests with one code, one moves the step on (facts: an unlocked row takes it up to eight times).
    return bool(TotpDevice.objects.filter(pk=device.pk, last_step__lt=step).update(last_step=step, last_used_at=now))


def code_now(device: TotpDevice) -> str:
    """The code that the app shows, or the next one if that was used already: for the demo and for tests."""
    seed, now = base64.b32decode(text_key(device)), clock.now().timestamp()
    used = TotpDevice.objects.values_list("last_step", flat=True).get(pk=device.pk)
    totp = TOTP(seed, step=STEP)
    totp.time = max(now, float((used + 1) * STEP))
    return f"{totp.token():06d}"


def place(pk: uuid.UUID) -> str:
    """What the encrypted seed of this authenticator is bound to."""
    return f"totp:{pk}"


def spend_codes() -> int:
    """No code that any authenticator has shown is good, up to the one that a fast phone shows now; what is being set up is dropped.

    Returns how many were being set up.
    """
    step = int(clock.now().timestamp()) // STEP + TOLERANCE
    TotpDevice.objects.filter(last_step__lt=step).update(last_step=step)
    return TotpDevice.objects.filter(confirmed=False).delete()[0]


# --- Recovery codes -----------------------------------------------------------------------------------------------


def newest_recovery_code(user: User) -> int:
    """Which set of codes is the present one; 0: there is none."""
    return RecoveryCode.objects.filter(user=user).aggregate(newest=Max("pk"))["newest"] or 0


def make_recovery_codes(
    user: User, *, request: HttpRequest | None = None, newest: int | None = None, spare: Session | None = None
) -> list[str]:
    """Ten new codes, as people read them; the old ones are worthless. Shown once: only their hashes stay. ASVS 6.5.2, 6.5.4.

    newest: the last set that the person has seen; if there is a newer one by now (a form sent twice), none are made.
    spare: the portal session that asks. Raises sessions.StaleProof if it ended, or the last authenticator is gone.
    """
    codes = _new_codes()
    with transaction.atomic():
        sessions.hold_person(user)
        if spare and not (has_factor(user) and Session.objects.alive_at_portal().filter(pk=spare.pk).exists()):
            raise sessions.StaleProof
        if newest is not None and newest != newest_recovery_code(user):
            return []
        _keep(user, codes, request)
        if newest:  # in place of a set that there was
            mails.factors_changed(user, "codes", request=request)
    return [_readable(raw) for raw, _encoded in codes]


def _new_codes() -> list[tuple[str, str]]:
    """Ten codes and what is stored of each. Hashed before the transaction: nobody waits for that."""
    raw = [base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    salt = Argon2id().salt()
    return [(code, Argon2id().encode(code, salt)) for code in raw]


def _keep(user: User, codes: list[tuple[str, str]], request: HttpRequest | None) -> None:
    now = clock.now()
    RecoveryCode.objects.filter(user=user).delete()
    RecoveryCode.objects.bulk_create([RecoveryCode(user=user, encoded=encoded, made_at=now) for _raw, encoded in codes])
    events.record("recovery_codes_made", request=request, actor=user, subject=user)


def _readable(code: str) -> str:
    return "-".join(re.findall("....", code)).lower()


def codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(user=user, used_at=None).count()


def void_recovery_codes() -> int:
    """Make everybody's unused recovery codes worthless; returns how many there were. Whoever needs some makes new ones."""
    return RecoveryCode.objects.filter(used_at=None).update(used_at=clock.now())


def _take_recovery_code(user: User, code: str) -> bool:
    """Use a recovery code up: one hash, then one conditional UPDATE. Must be called under a reservation of the ledger."""
    flight.demand()
    rows = list(RecoveryCode.objects.filter(user=user, used_at=None))
    if not rows:
        return False
    typed = _hashed_like(code, rows[0].encoded)
    hit = next((row for row in rows if hmac.compare_digest(row.encoded, typed)), None)
    return bool(hit and RecoveryCode.objects.filter(pk=hit.pk, used_at=None).update(used_at=clock.now()))


def _hashed_like(code: str, encoded: str) -> str:
    """The code under the salt and the parameters of a stored one; all of a set share them."""
    algorithm, rest = encoded.split("$", 1)
    _, variety, version, params, salt, hashed = f"${rest}".split("$")
    known_as = argon2.extract_parameters(f"${variety}${version}${params}${salt}${hashed}")
    raw = argon2.low_level.hash_secret(
        code.encode(),
        base64.b64decode(salt + "=" * (-len(salt) % 4)),
        time_cost=known_as.time_cost,
        memory_cost=known_as.memory_cost,
        parallelism=known_as.parallelism,
        hash_len=known_as.hash_len,
        type=known_as.type,
    )
    return algorithm + raw.decode()


# --- Proving ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a typed code: the method that it proved, or nothing, and until when no further one is looked at."""

    method: str = ""
    locked_until: datetime | None = None
    malformed: bool = False  # it has neither form: nothing was checked, nothing counted
    codes: tuple[str, ...] = ()  # the recovery codes that came with a first authenticator, to be shown once


@sensitive_variables("typed", "code")
def prove(request: HttpRequest, user: User, typed: str, *, what: str = "code") -> Checked:
    """Check an authenticator's code or a recovery code, through the ledger. Raises ledger.AddressFull.

    Spaces and hyphens, which people type, do not matter; digits of other scripts are no digits.
    """
    code = re.sub(r"[\s-]", "", typed)[:64].upper()
    by_app = _DIGITS.fullmatch(code) is not None
    if not by_app and not _RECOVERY.fullmatch(code := code.translate(_MISREAD)):
        return Checked(malformed=True)
    attempt = ledger.for_code(request, user, what=what)
    if attempt.refused:
        attempt.note_refused()
        return Checked(locked_until=attempt.until or clock.now())
    with attempt.flight():
        if by_app:
            right = any(device.verify_token(code) for device in authenticators(user))
        else:
            right = _take_recovery_code(user, code)
    if not right:
        attempt.wrong()
        return Checked(locked_until=attempt.until)
    attempt.right()
    if not by_app:
        left = codes_left(user)
        events.record("recovery_code_used", request=request, actor=user, subject=user, left=left)
    return Checked(CODE if by_app else RECOVERY)


@sensitive_variables("typed")
def confirm(request: HttpRequest, device: TotpDevice, name: str, typed: str, *, spare: Session) -> Checked:
    """Turn an authenticator on with the first code it shows; a person's first one comes with ten recovery codes.

    `spare`, in which it was set up, and its tree stay; every other session of the person ends. Raises sessions.StaleProof if
    `spare` ended or the person changed meanwhile. ASVS 7.4.3.
    """
    user = device.user
    code = re.sub(r"[\s-]", "", typed)
    if not _DIGITS.fullmatch(code):
        return Checked(malformed=True)
    attempt = ledger.for_code(request, user, what="enrolment")
    if attempt.refused:
        attempt.note_refused()
        return Checked(locked_until=attempt.until or clock.now())
    with attempt.flight():
        right = device.verify_token(code)
    if not right:
        attempt.wrong()
        return Checked(locked_until=attempt.until)
    attempt.right()
    codes = [] if has_factor(user) else _new_codes()
    with transaction.atomic():
        sessions.hold_person(user)
        first = not has_factor(user)
        mine = TotpDevice.objects.filter(pk=device.pk, session=spare, confirmed=False)
        if bool(codes) != first or not mine.update(confirmed=True, name=name, session=None, created_at=clock.now()):
            raise sessions.StaleProof
        _changed(user, spare=spare, by=user, request=request)
        sessions.add_method(spare, CODE)
        events.record("factor_enrolled", request=request, actor=user, subject=user, name=name)
        if first:  # whatever codes there were are somebody else's
            _keep(user, codes, request)
        mails.factors_changed(user, "enrolled", request=request)
    return Checked(CODE, codes=tuple(_readable(raw) for raw, _encoded in codes))


def drop(user: User, device: TotpDevice, *, request: HttpRequest, spare: Session) -> None:
    """Remove one authenticator; with the last one the recovery codes go, too. Raises sessions.StaleProof."""
    with transaction.atomic():
        sessions.hold_person(user)
        if not TotpDevice.objects.filter(pk=device.pk, user=user, confirmed=True).delete()[0]:
            raise sessions.StaleProof
        _changed(user, spare=spare, by=user, request=request)
        if not has_factor(user):
            RecoveryCode.objects.filter(user=user).delete()
            sessions.lose_factor(spare, request=request)
        events.record("factor_removed", request=request, actor=user, subject=user, name=device.name)
        mails.factors_changed(user, "removed", request=request)


def reset(user: User, *, by: User | None, reason: str, request: HttpRequest | None = None, source: str = "") -> int:
    """Take every factor away, as an operator does for somebody who lost them all; ends all sessions. Returns how many there were.

    The password stays, and what asks for a factor asks for a new one on the way in. ASVS 6.4.4.
    """
    with transaction.atomic():
        sessions.hold_person(user)
        gone = TotpDevice.objects.filter(user=user, confirmed=True).count()
        TotpDevice.objects.filter(user=user).delete()
        RecoveryCode.objects.filter(user=user).delete()
        _changed(user, spare=None, by=by, request=request)
        more: dict[str, Any] = {"source": source} if source else {}
        events.record("factors_reset", request=request, actor=by, subject=user, reason=reason, before={"authenticators": gone}, **more)
        mails.factors_changed(user, "reset", request=None)  # where an operator sat is not for the mail
    return gone


def _changed(user: User, *, spare: Session | None, by: User | None, request: HttpRequest | None) -> None:
    known.forget_all(user)
    TotpDevice.objects.filter(user=user, confirmed=False).delete()
    sessions.end_others(user, spare=spare, by=by, reason=Session.Reason.FACTORS, request=request)
