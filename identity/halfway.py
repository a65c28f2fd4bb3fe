"""The half-way state: the password was right, a code is due. A signed, host-only cookie that opens nothing but the code page.

It is good for five minutes, in the browser that typed the password, while password, factors and account stay as they were.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.utils.crypto import constant_time_compare

from identity import clock, crypto
from identity.models import User
from tenants import policy

_SALT = "identity.halfway"


@dataclass(frozen=True, slots=True)
class HalfWay:
    """One sign-in that waits for its code."""

    person: User
    since: datetime  # when the password was proven, by the database's clock
    remember: bool
    text: str  # as it travels

    @classmethod
    def begin(cls, person: User, *, remember: bool, since: datetime | None = None) -> "HalfWay":
        since = since or clock.now()
        micros = int(since.timestamp() * 1_000_000)
        text = signing.dumps([person.pk, person.get_session_auth_hash(), micros, remember], salt=_SALT)
        return cls(person, since, remember, text)

    @classmethod
    def of(cls, request: HttpRequest) -> "HalfWay | None":
        """The state that this browser is in, or None if it has none that is good."""
        text = request.COOKIES.get(settings.HALF_WAY_COOKIE_NAME, "")
        if not text or len(text) > 1000:
            return None
        try:
            pk, proof, micros, remember = signing.loads(text, salt=_SALT, max_age=policy.HALF_WAY)
        except (signing.BadSignature, ValueError):
            return None
        person = User.objects.filter(pk=pk, is_active=True).first()
        since = datetime.fromtimestamp(micros / 1_000_000, UTC)
        if person is None or person.valid_from >= since:
            return None
        good = [person.get_session_auth_hash(), *person.get_session_auth_fallback_hash()]
        if not any(constant_time_compare(proof, each) for each in good):
            return None
        return cls(person, since, remember, text)

    @property
    def mark(self) -> str:
        """What the form carries, so that a tab which began for one person does not go on for another."""
        return crypto.digest(self.text)[:16]

    @property
    def expires_at(self) -> datetime:
        return self.since + policy.HALF_WAY

    def write(self, response: HttpResponseBase) -> None:
        response.set_cookie(
            settings.HALF_WAY_COOKIE_NAME, self.text, max_age=policy.HALF_WAY, secure=settings.SECURE, httponly=True, samesite="Lax"
        )


def leave(response: HttpResponseBase) -> None:
    """Forget the state: signed in, or cancelled."""
    response.delete_cookie(settings.HALF_WAY_COOKIE_NAME, samesite="Lax")
    response.cookies[settings.HALF_WAY_COOKIE_NAME]["secure"] = settings.SECURE
