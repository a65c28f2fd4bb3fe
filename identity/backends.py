"""Checking a password. Everything that does so passes through `prove`."""

import secrets
from functools import cache
from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import check_password, make_password
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from identity.ledger import Attempt
from identity.models import User

LONGEST_PASSWORD = 4096  # characters; longer ones are refused before anything is hashed (ASVS 6.2.9)


class NameOrMail(ModelBackend):
    """Sign-in by user name or verified e-mail, under what axes's handler has reserved. Unknown people cost as much as known ones."""

    @sensitive_variables("password")
    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        attempt: Attempt | None = getattr(request, "attempt", None)
        if attempt is None or password is None:  # nothing reserved, nothing checked
            return None
        with attempt.flight():
            person = attempt.subject if attempt.subject and attempt.subject.has_usable_password() else None
            if person is None:
                spend_a_check(password)
            right = person is not None and person.check_password(password) and self.user_can_authenticate(person)
        if right:
            attempt.right()
            return person
        attempt.wrong()
        return None

    def get_user(self, user_id: int) -> User | None:
        user = User.objects.filter(pk=user_id).first()
        return user if user and self.user_can_authenticate(user) else None


@sensitive_variables("password")
def prove(request: HttpRequest, username: str, password: str, *, what: str = "sign_in") -> User | None:
    """The person, if the password is right and the ledger lets it be checked; the same None, after the same work, for every other case.

    what: the path, as the event of a failure names it. Raises ledger.AddressFull. axes gets a request without fields, so that
    there is nothing it could keep.
    """
    if len(password) > LONGEST_PASSWORD:
        return None
    asked = HttpRequest()
    asked.method, asked.path, asked.path_info, asked.META = "POST", request.path, request.path_info, request.META
    asked.COOKIES, asked.id, asked.what = request.COOKIES, getattr(request, "id", ""), what  # type: ignore[attr-defined]
    user = authenticate(asked, username=username, password=password)
    attempt: Attempt = asked.attempt  # type: ignore[attr-defined]
    if attempt.refused:
        spend_a_check(password)
        attempt.note_refused()
    assert user is None or isinstance(user, User)
    return user


@cache
def _nobody() -> str:
    return make_password(secrets.token_urlsafe(16))


def spend_a_check(password: str) -> None:
    """Do the work of one check, against a password that nobody has."""
    check_password(password, _nobody())


def client_address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "")


def client_name(*args: Any, **kwargs: Any) -> str:
    """Axes's description of a client in log lines; ours carry the request id instead."""
    return "a client"
