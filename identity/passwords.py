"""What a new password must be (AUTH_PASSWORD_VALIDATORS); what a password is when it is checked: every character as it came.

Only new passwords are looked at here: a policy that became stricter asks nobody for another password (ASVS 6.2.10).

There is no rule about kinds of characters (ASVS 6.2.5), and so no NumericPasswordValidator: sixteen digits from dice are a
good password. What is wrong with most short numbers is said by name instead: a date, a repetition, or on the list.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy

from identity.backends import LONGEST_PASSWORD
from identity.models import User
from tenants.models import Membership
from tenants.policy import Policy

TOO_LONG = lazy("A password has at most %(limit_value)d characters.")
Person = AbstractBaseUser | None  # None or unsaved: somebody who belongs to no tenant yet

# Words that a guesser tries first here, besides those of `context_words`. This list is the documentation (ASVS 6.1.2).
CONTEXT_WORDS = (
    "gatehouse", "portal", "identity", "tenant", "console", "session",
    "login", "signin", "signup", "account", "password", "welcome",
    "user", "member", "admin", "operator", "owner", "demo", "test",
)  # fmt: skip


def _memberships(person: Person) -> list[Membership]:
    if not isinstance(person, User) or person.pk is None:
        return []
    return list(Membership.objects.filter(user=person).select_related("tenant").order_by("tenant__name"))


# --- Length -------------------------------------------------------------------------------------------------------


def shortest(person: Person) -> tuple[int, str]:
    """The least number of characters, and the name of the tenant that asks for it ("": the platform).

    The strictest tenant counts, also one that is suspended or has blocked the person: either may open again.
    """
    length, asked_by = Policy.password_length, ""
    for membership in _memberships(person):
        tenant = membership.tenant
        asked = tenant.rules.shortest_password(factor_asked=tenant.factor_due_by_policy(membership) is not None)
        if asked > length:
            length, asked_by = asked, tenant.name
    return length, asked_by


def hint(person: Person = None) -> str:
    """The sentence under a field for a new password: true for this person."""
    length, asked_by = shortest(person)
    if asked_by:
        text = _("%(tenant)s asks for at least %(length)d characters. Three or four unrelated words are a good one.")
        return text % {"tenant": asked_by, "length": length}
    return _("At least %(length)d characters. Three unrelated words are a good one.") % {"length": length}


class LengthValidator:
    """From what the platform or the strictest tenant asks, to what is still hashed (ASVS 6.2.1, 6.2.9)."""

    def validate(self, password: str, user: Person = None) -> None:
        if len(password) > LONGEST_PASSWORD:
            raise ValidationError(TOO_LONG, "password_too_long", {"limit_value": LONGEST_PASSWORD})
        length, asked_by = shortest(user)
        if len(password) >= length:
            return
        params = {"length": length, "tenant": asked_by}
        if asked_by:
            raise ValidationError(_("%(tenant)s asks for at least %(length)d characters. Add another word."), "password_too_short", params)
        raise ValidationError(_("This is too short. A password has at least %(length)d characters."), "password_too_short", params)

    def get_help_text(self) -> str:
        return hint()


# --- Known and guessable ------------------------------------------------------------------------------------------

_LETTER = re.compile(r"[^\W\d_]")
_TAIL = re.compile(r"[\d!-/:-@\[-`{-~]{1,4}")
_REPEATED = re.compile(r"(.{1,4}?)\1+", re.DOTALL)
_DATES = ("%Y%m%d", "%d%m%Y", "%m%d%Y", "%y%m%d", "%d%m%y", "%m%d%y")


class KnownPasswordValidator(CommonPasswordValidator):
    """No password of the 20,000 most used in breaches (Django's list; ASVS 6.2.4, 6.2.12), nor what is as easy to guess.

    Case makes no difference. Nor do up to four digits or signs behind a word of the list ("Princess2024!" is the first that a
    cracking program makes of it): such a password is worth 14 bits for the word and about as much for the tail. It costs no
    good one: of random passwords of eight letters and digits one in two millions looks like this, of ten one in three hundred
    millions, and no phrase is on the list. There are some 2^18 dates, and a repeated piece is no better than the piece.
    """

    def validate(self, password: str, user: Person = None) -> None:
        if why := self._why(password.lower()):
            cure = _("Choose one that is nobody else's: three unrelated words are a good one.")
            raise ValidationError(f"{why} {cure}", code="password_too_common")

    def _why(self, password: str) -> str:
        if password.strip() in self.passwords:
            return _("This password is on a list of stolen ones, which is what guessers try first.")
        for end in range(1, 5):
            word, tail = password[:-end], password[-end:]
            if word in self.passwords and _LETTER.search(word) and _TAIL.fullmatch(tail):
                return _("This is a password from a list of stolen ones with a little added, which is what guessers try next.")
        if _REPEATED.fullmatch(password):
            return _("This is one short piece again and again, which guessers try early.")
        if _is_date(password):
            return _("This is a date, and there are so few of them that guessers try all.")
        return ""

    def get_help_text(self) -> str:
        return _("A password that is on a list of stolen ones is refused.")


def _is_date(password: str) -> bool:
    digits = re.sub(r"[-./ ]", "", password)
    if not re.fullmatch(r"[0-9]{6}|[0-9]{8}", digits):
        return False
    for form in _DATES:
        try:
            if 1900 <= datetime.strptime(digits, form).year < 2100:  # noqa: DTZ007  (a date of the calendar, no moment)
                return True
        except ValueError:
            continue
    return False


# --- Names at hand ------------------------------------------------------------------------------------------------

_MUCH_LETTERS, _MUCH_REST = 4, 9  # so many beside the words make a password more than these words


class ContextValidator:
    """No password that is little more than names at hand (ASVS 6.2.11): "acme-portal-2026" or "vance-1990" for dave of acme.

    Little more: beside the words at most three letters, and eight digits and signs (a date), runs of one character
    counted once. A word that is part of a longer password does no harm.
    """

    def validate(self, password: str, user: Person = None) -> None:
        words = context_words(user)
        folded = _fold(password)
        pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        found = list(dict.fromkeys(re.findall(pattern, folded)))
        rest = re.sub(r"(.)\1+", r"\1", re.sub(pattern, "", folded), flags=re.DOTALL)
        signs = re.findall(r"[\x00-\x40\[-`{-\x7f]", rest)  # ASCII without its letters
        if not found or len(rest) - len(signs) >= _MUCH_LETTERS or len(signs) >= _MUCH_REST:
            return
        text = _("This is little more than %(words)s, which guessers try first here. Add two unrelated words.")
        raise ValidationError(text, "password_at_hand", {"words": ", ".join(f"“{word}”" for word in found)})

    def get_help_text(self) -> str:
        return _("A password that is little more than names of this place or its owner is refused.")


def context_words(person: Person = None) -> set[str]:
    """CONTEXT_WORDS, the portal's and the tenants' domain, slug and name of the person's tenants, the person's names and address.

    Folded, whole and in parts. Words of one or two letters are left out: they are in everything, and alone too little.
    """
    names = [*settings.PORTAL_HOST.split("."), *settings.TENANT_DOMAIN.split(".")]
    for membership in _memberships(person):
        names += [membership.tenant.slug, membership.tenant.name]
    if isinstance(person, User):
        names += [person.username, person.first_name, person.last_name, person.email]
    return {word for word in (*CONTEXT_WORDS, *_parts(names)) if len(word) > 2}


def _parts(names: Iterable[str]) -> Iterable[str]:
    for name in map(_fold, names):
        parts = re.split(r"[\W_]+", name)
        yield from (name, "".join(parts), *parts)


def _fold(text: str) -> str:
    """For comparing only: what is hashed is the text as it came."""
    return unicodedata.normalize("NFKC", text).casefold()
