"""The JSON endpoints (design, section 5). Same sessions, same limits as the pages.

No CSRF token is asked: a browser's request must carry this host's own Origin, and one without Origin must come from no
browser (no Sec-Fetch-Site). Cross-origin reads stay impossible, since no CORS header is ever sent. ASVS 3.5.
"""

import json
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, JsonResponse, QueryDict
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_safe

from identity import accounts, clock, events, factors, known, sessions
from identity.halfway import HalfWay, leave
from identity.middleware import SessionRequest
from identity.models import PASSWORD, Session, User
from portal.forms import SignInForm, SignUpForm
from portal.views.errors import route
from portal.views.login import Outcome, complete, credentials, sign_in
from tenants import hosts
from tenants.text import is_plain, is_storable

JsonView = Callable[[SessionRequest, dict[str, Any]], JsonResponse]


class BadInput(ValueError):
    """What was sent has not the form that is asked; the text says which."""


def _fields(request: HttpRequest) -> dict[str, Any]:
    """The body as a flat object of strings and booleans: JSON, or form-encoded. Raises BadInput. ASVS 15.3.5, 15.3.7."""
    kind = (request.content_type or "").lower()
    if kind == "application/json":
        try:
            data = json.loads(request.body, object_pairs_hook=_once)
        except (ValueError, RecursionError) as wrong:
            raise BadInput("The body is not valid JSON.") from wrong
        if not isinstance(data, dict) or not all(isinstance(value, str | bool) for value in data.values()):
            raise BadInput("Send one object whose values are texts.")
        texts = [(name, value) for name, value in data.items() if isinstance(value, str)]
    elif kind in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        form: QueryDict = request.POST
        if any(len(values) > 1 for _name, values in form.lists()):
            raise BadInput("Send each field once.")
        data = dict(form.items())
        texts = [(name, str(value)) for name, value in data.items()]
    else:
        raise BadInput("Send application/json.")
    if not all(is_plain(text) or (name.endswith("password") and is_storable(text)) for name, text in texts):
        raise BadInput("A text has control characters in it.")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _same_origin(request: HttpRequest) -> bool:
    origin = request.headers.get("Origin")
    if origin is None:
        return "Sec-Fetch-Site" not in request.headers
    return origin == hosts.origin(request.host)  # type: ignore[attr-defined]


def endpoint(view: JsonView) -> Callable[..., JsonResponse]:
    """POST, own origin, well-formed fields; every refusal in JSON."""

    @csrf_exempt
    @wraps(view)
    def ask(request: SessionRequest) -> JsonResponse:
        if request.method != "POST":
            return JsonResponse({"error": "Method not allowed"}, status=405, headers={"Allow": "POST"})
        if not _same_origin(request):
            events.record_sparingly("csrf_refused", request=request, path=route(request), reason="foreign origin")
            return JsonResponse({"error": "Forbidden"}, status=403)
        try:
            return view(request, _fields(request))
        except (BadInput, MultiPartParserError) as wrong:
            return JsonResponse({"error": str(wrong)}, status=400)

    return ask


@endpoint
def signup(request: SessionRequest, data: dict[str, Any]) -> JsonResponse:
    if settings.SIGNUP != "open":
        return JsonResponse({"error": "Sign-up is closed"}, status=403)
    form = SignUpForm({name: data.get(name, "") for name in ("username", "email", "password")})
    if form.is_valid():
        try:
            accounts.sign_up(form.person(), request=request)
        except accounts.NameTaken:
            form.explain_taken()
        else:
            return JsonResponse({"message": "User created successfully"}, status=201)
    return JsonResponse({"error": "Invalid fields", "fields": form.errors.get_json_data()}, status=400)


@endpoint
@sensitive_variables("data", "form")
def login(request: SessionRequest, data: dict[str, Any]) -> JsonResponse:
    """Name and password, and in the same request or the next one the code, if there is a second factor."""
    remember = data.get("remember") in {True, "true", "on", "1"}
    half_way = HalfWay.of(request) if "code" in data and "password" not in data else None
    if half_way is None:
        form = SignInForm({"username": data.get("username", ""), "password": data.get("password", ""), "remember": remember})
        outcome = sign_in(request, **credentials(form)) if form.is_valid() else Outcome()
        if outcome.person:
            return JsonResponse({"message": "Login successful"})
        half_way = outcome.half_way
    if half_way is None:
        return JsonResponse({"error": "Invalid credentials"}, status=401)
    if not data.get("code"):
        response = JsonResponse({"error": "Code required"}, status=401)
        half_way.write(response)
        return response
    return _second_step(request, half_way, str(data["code"]), trust=data.get("trust") in {True, "true", "on", "1"})


def _second_step(request: SessionRequest, half_way: HalfWay, code: str, *, trust: bool) -> JsonResponse:
    checked = factors.prove(request, half_way.person, code)
    if checked.locked_until:
        seconds = max(1, math.ceil((checked.locked_until - clock.now()).total_seconds()))
        return JsonResponse({"error": "Too many attempts"}, status=429, headers={"Retry-After": str(seconds)})
    methods = [PASSWORD, checked.method]
    trust = trust and known.may_trust(half_way.person)
    if not checked.method or not complete(
        request, half_way.person, methods=methods, remember=half_way.remember, trust=trust, since=half_way.since
    ):
        return JsonResponse({"error": "Invalid credentials"}, status=401)
    response = JsonResponse({"message": "Login successful"})
    leave(response)
    return response


@endpoint
def logout(request: SessionRequest, data: dict[str, Any]) -> JsonResponse:
    row = request.session.row
    if row is None:
        return JsonResponse({"error": "Unauthorized"}, status=401)
    sessions.end(Session.objects.filter(pk=row.pk), by=row.user, reason=Session.Reason.SIGNED_OUT, request=request)
    auth.logout(request)
    return JsonResponse({"message": "Logout successful"})


@require_safe
def session(request: SessionRequest) -> JsonResponse:
    return who(request)


def who(request: SessionRequest) -> JsonResponse:
    """Who is signed in at this host: 200, or 401. One query, the middleware's. Reading it is no activity."""
    row = request.session.row
    if row is None:
        return JsonResponse({"error": "Unauthorized"}, status=401)
    user: User = row.user
    return JsonResponse(
        {
            "id": user.pk,
            "username": user.username,
            "name": user.get_full_name(),
            "email": user.email,
            "tenant": request.tenant.slug if request.tenant else None,
            "expires_at": min(row.expires_at, row.idle_expires_at).isoformat().replace("+00:00", "Z"),
        }
    )
