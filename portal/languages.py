"""Which language, and whose clock: the person's choice, else the browser's, else English and UTC."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers

from identity.middleware import SessionRequest
from identity.models import User

Answer = Callable[[HttpRequest], HttpResponse]


class GuestMiddleware:
    """Before anybody is known: what this browser has chosen, or asks for. Errors of the layers below speak it, too."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with translation.override(translation.get_language_from_request(request)), timezone.override(None):  # Django's clock: UTC
            response = self.get_response(request)
            if response.get("Content-Type", "").startswith("text/html"):
                response.headers.setdefault("Content-Language", translation.get_language() or settings.LANGUAGE_CODE)
                patch_vary_headers(response, ("Accept-Language",))
            return response


class PersonMiddleware:
    """Behind the session: what this person has chosen for the account. It came with the session, so nothing is asked for it."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: SessionRequest) -> HttpResponse:
        if request.session.row is not None:
            speak_as(request.session.row.user)
        return self.get_response(request)


def speak_as(user: User) -> None:
    """For the rest of this request; GuestMiddleware puts everything back."""
    if user.speaks:
        translation.activate(user.speaks)
    timezone.activate(user.zone)
