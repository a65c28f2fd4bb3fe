"""Checking a password. Everything that does so passes through `prove`."""

import hashlib
from typing import Any

from axes.utils import reset
from django.contrib.auth import authenticate
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from identity.models import User, fold

LONGEST_PASSWORD = 4096  # characters; longer ones are refused before anything is hashed (ASVS 6.2.9)


class NameOrMail(ModelBackend):
    """Sign-in by user name or verified e-mail. Unknown and inactive people cost as much as known ones."""

    @sensitive_variables("password")
    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if not username or password is None or len(password) > LONGEST_PASSWORD:
            return None
        if request is not None:
            request.cost_a_hash = True  # type: ignore[attr-defined]
        user = User.objects.named(username)
        if user is None or not user.has_usable_password():
            User().set_password(password)
            return None
        if user.check_password(password) and self.user_can_authenticate(user):
            return user
        return None

    def get_user(self, user_id: int) -> User | None:
        user = User.objects.filter(pk=user_id).first()
        return user if user and self.user_can_authenticate(user) else None


@sensitive_variables("password")
def prove(request: HttpRequest, username: str, password: str) -> User | None:
    """The person, if the password is right and the limit is not reached; the same None for every other case.

    axes gets a request without fields, since it stores what it gets. An attempt that the limit refused costs one hash as
    well, so that a locked account does not answer faster than an open one.
    """
    asked = HttpRequest()
    asked.method, asked.path, asked.path_info, asked.META = "POST", request.path, request.path_info, request.META
    user = authenticate(asked, username=username, password=password)
    if user is None and not getattr(asked, "cost_a_hash", False) and len(password) <= LONGEST_PASSWORD:
        User().set_password(password)
    assert user is None or isinstance(user, User)
    return user


def release(user: User) -> None:
    """Forget a person's failed attempts: somebody has just proven by a one-time link what the attempts could not."""
    reset(username=_bucket(f"user:{user.pk}"))


def _bucket(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()[:32]


def bucket_name(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """What axes counts by: the person, however the name is spelled, as a digest (people type passwords into name fields)."""
    typed = str((credentials or {}).get("username") or "")
    user = User.objects.named(typed)
    return _bucket(f"user:{user.pk}" if user else f"name:{fold(typed)}")


def client_address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "")


def client_name(*args: Any, **kwargs: Any) -> str:
    """Axes's description of a client in log lines; ours carry the request id instead."""
    return "a client"
