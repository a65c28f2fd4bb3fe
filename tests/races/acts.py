"""What racers do: requests through the whole product as its server would call it, and the verbs that end sessions.

`prepare(name, args)` loads what a request would have loaded before it came to the point, and returns the point itself.
"""

import itertools
import json
import logging
import random
import secrets
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from identity.models import SessionQuerySet

Act = Callable[[], Any]
PASSWORD = "the old password of the races"
CSRF = "c" * 32


def set_up() -> None:
    """Django in this process, with a cheap hash (it is not what races), no limit on sign-ins, and a page that writes and rotates."""
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    django.setup()

    from django.conf import settings
    from django.core.signals import got_request_exception
    from django.urls import path

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    if os.environ.get("RACES_LIMITS") != "real":
        _let_everybody_try()
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "whitenoise" not in name]
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    got_request_exception.connect(_note_exception)

    from portal import tenant_urls, urls

    urls.urlpatterns.append(path("races/<slug:what>", _page))
    tenant_urls.urlpatterns.append(path("races/<slug:what>", _page))


def _let_everybody_try() -> None:
    """Nobody is locked out: most races are about sessions. Those of the ledger (`guesses`) run with RACES_LIMITS=real."""
    from identity import ledger
    from tenants import policy

    ledger.tries = lambda user: 15_000
    policy.TRIES_ADDRESS = 30_000


def tear_down(pool: ThreadPoolExecutor, threads: int) -> None:
    from django.db import connections

    together = threading.Barrier(threads)

    def close() -> None:
        together.wait(10)
        connections.close_all()

    for done in [pool.submit(close) for _thread in range(threads)]:
        done.result()
    if connections["default"].vendor == "postgresql":
        connections["default"].close_pool()  # type: ignore[attr-defined]


def prepare(name: str, args: dict[str, Any]) -> Act:
    from tests.races import answers  # built upon what is below

    act: Act = {**_ACTS, **answers.ACTS}[name](**args)
    return act


# --- Requests -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    status: int
    location: str
    cookies: dict[str, str]
    body: bytes
    headers: dict[str, str]


class Broken(Exception):
    """The product answered 5xx; the text is what it raised."""


_raised = threading.local()
_handler: list[Any] = []


def _note_exception(**kwargs: Any) -> None:
    _raised.text = traceback.format_exc()


def _page(request: "HttpRequest", what: str) -> "HttpResponse":
    """What no page of ours does by itself: write to the session, rotate its key as Django's own code does, or break after a check."""
    from django.http import HttpResponse

    from identity.backends import prove

    if what == "broken":
        prove(request, request.POST["username"], request.POST["password"])
        raise RuntimeError("something later in the request")
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    if what == "write":
        request.session["note"] = uuid.uuid4().hex
    else:
        request.session.cycle_key()
    return HttpResponse()


def ask(
    host: str, path: str, cookies: dict[str, str], form: dict[str, Any] | None = None, body: str = "", address: str = "127.0.0.1"
) -> Answer:
    """One request as the server would hand it over: GET, or POST of a form from our own page, or of JSON."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import RequestFactory

    if not _handler:
        _handler.append(WSGIHandler())
    authority = f"{host}:{settings.PORTAL_PORT}"
    headers = {"Host": authority, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"}
    factory = RequestFactory(headers=headers, SERVER_PORT=str(settings.PORTAL_PORT), REMOTE_ADDR=address)
    if form is not None or body:
        cookies = {**cookies, settings.CSRF_COOKIE_NAME: CSRF}
        kind = "application/json" if body else "application/x-www-form-urlencoded"
        text = body or urlencode({**(form or {}), "csrfmiddlewaretoken": CSRF}, doseq=True)
        request = factory.post(path, text, content_type=kind, headers={"Origin": f"http://{authority}"})
    else:
        request = factory.get(path)
    if cookies:
        request.environ["HTTP_COOKIE"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    _raised.text = ""
    told: list[Any] = []
    response = _handler[0](request.environ, lambda status, lines: told.extend([status, lines]))
    content = b"".join(response)
    response.close()
    status = int(told[0].split()[0])
    if status >= 500 or _raised.text:
        raise Broken(f"{status} at {host}{path}\n{_raised.text}")
    given: SimpleCookie = SimpleCookie()
    for name, value in told[1]:
        if name == "Set-Cookie":
            given.load(value)
    location = next((value for name, value in told[1] if name == "Location"), "")
    return Answer(status, location, {name: morsel.value for name, morsel in given.items()}, content, dict(told[1]))


@dataclass(slots=True)
class Try:
    """One of several requests of one act."""

    started: int
    finished: int
    passed: bool  # it was served as a signed-in request
    key: str = ""  # the session cookie that came with the answer


def _tries(once: Callable[[], tuple[bool, str]], most: int) -> list[Try]:
    """Ask again and again, until it is refused twice."""
    done: list[Try] = []
    while len(done) < most and not (len(done) > 1 and not done[-1].passed and not done[-2].passed):
        started = time.monotonic_ns()
        passed, key = once()
        done.append(Try(started, time.monotonic_ns(), passed, key))
    return done


def _cookie_at(host: str) -> str:
    from django.conf import settings

    return str(settings.SESSION_COOKIE_NAME if host == settings.PORTAL_HOST else settings.TENANT_COOKIE_NAME)


def _served(answer: Answer, *statuses: int) -> bool:
    """Signed in, or told to sign in; nothing else may come."""
    if answer.status in statuses:
        return True
    refused = answer.status == 401 or (answer.status == 302 and answer.location.startswith(("/login/", "/_portal/start")))
    if not refused:
        raise AssertionError(f"{answer.status} {answer.location} {answer.body[:300]!r}")
    return False


def read(host: str, key: str, most: int = 5) -> Act:
    """Look who is signed in, and a page, in turn."""
    from django.conf import settings

    at_portal = host == settings.PORTAL_HOST
    paths = itertools.cycle(["/api/v1/session" if at_portal else "/_portal/whoami", "/account/" if at_portal else "/"])
    return lambda: _tries(lambda: (_served(ask(host, next(paths), {_cookie_at(host): key}), 200), ""), most)


def write(host: str, key: str, most: int = 5) -> Act:
    return lambda: _tries(lambda: (_served(ask(host, "/races/write", {_cookie_at(host): key}), 200), ""), most)


def rotate(host: str, key: str, most: int = 5) -> Act:
    """A new key without grace, again and again, each time with the key that came last."""
    held = [key]

    def once() -> tuple[bool, str]:
        answer = ask(host, "/races/rotate", {_cookie_at(host): held[-1]})
        passed = _served(answer, 200)
        new = answer.cookies.get(_cookie_at(host), "")
        held.extend([new] if new else [])
        return passed, new

    return lambda: _tries(once, most)


def step_up(key: str, most: int = 3, password: str = PASSWORD) -> Act:
    """The password again, at the portal: proves anew and rotates the key."""
    from django.conf import settings

    held = [key]

    def once() -> tuple[bool, str]:
        answer = ask(settings.PORTAL_HOST, "/step-up/", {settings.SESSION_COOKIE_NAME: held[-1]}, form={"password": password})
        passed = _served(answer, 302, 200) and not answer.location.startswith("/login/")
        new = answer.cookies.get(settings.SESSION_COOKIE_NAME, "")
        held.extend([new] if new else [])
        return passed, new

    return lambda: _tries(once, most)


def finish(host: str, tickets: list[tuple[str, str, str]], key: str = "") -> Act:
    """Redeem these tickets (ticket, state, browser), one after the other."""
    left = iter(tickets)
    return lambda: _tries(lambda: _finish(host, *next(left), key=key), len(tickets))


def _finish(host: str, ticket: str, state: str, browser: str, key: str = "") -> tuple[bool, str]:
    from django.conf import settings

    cookies = {settings.START_COOKIE_NAME: browser, **({settings.TENANT_COOKIE_NAME: key} if key else {})}
    answer = ask(host, f"/_portal/finish?{urlencode({'ticket': ticket, 'state': state})}", cookies)
    assert answer.status in {302, 403}, answer
    return answer.status == 302, answer.cookies.get(settings.TENANT_COOKIE_NAME, "")


def walk(slug: str, key: str, most: int = 2, current: str = "", browser: str = "") -> Act:
    """The whole hand-off with this portal key: enter, finish; in a browser that may hold a branch there already."""
    from django.conf import settings

    from identity import tickets
    from tenants.models import Tenant

    tenant = Tenant.objects.get(slug=slug)

    def once() -> tuple[bool, str]:
        start = tickets.Browser(browser) if browser else tickets.Browser.new()
        state = tickets.State.make(tenant, tenant.hostname, "/", start).text
        answer = ask(settings.PORTAL_HOST, f"/enter/{slug}/?state={quote(state, safe='')}", {settings.SESSION_COOKIE_NAME: key})
        assert answer.status in {302, 403}, answer
        if "/_portal/finish?ticket=" not in answer.location:
            return False, ""
        ticket = answer.location.partition("ticket=")[2].partition("&")[0]
        return _finish(tenant.hostname, ticket, state, start.value, current)

    return lambda: _tries(once, most)


def sign_in(username: str, password: str = PASSWORD, most: int = 1) -> Act:
    from django.conf import settings

    body = json.dumps({"username": username, "password": password})

    def once() -> tuple[bool, str]:
        answer = ask(settings.PORTAL_HOST, "/api/v1/login", {}, body=body)
        assert answer.status in {200, 401}, answer
        return answer.status == 200, answer.cookies.get(settings.SESSION_COOKIE_NAME, "")

    return lambda: _tries(once, most)


# --- Ends -----------------------------------------------------------------------------------------------------------


def end(ids: list[str]) -> Act:
    """End by id; returns the ids that this very call ended."""
    from identity import sessions
    from identity.models import Session

    which = Session.objects.filter(pk__in=ids)
    return lambda: [str(row.pk) for row in sessions.end(which, by=None, reason=Session.Reason.BY_ADMIN, note="a race")]


def end_here(user: int, tenant: int) -> Act:
    from identity import sessions
    from identity.models import Session, User
    from tenants.models import Tenant

    person, place = User.objects.get(pk=user), Tenant.objects.get(pk=tenant)
    return lambda: len(sessions.end_here(person, place, by=None, reason=Session.Reason.BY_ADMIN))


def end_everywhere(user: int) -> Act:
    from identity import sessions
    from identity.models import Session, User

    person = User.objects.get(pk=user)
    return lambda: len(sessions.end_everywhere(person, by=person, reason=Session.Reason.BY_PERSON))


def end_tenant(tenant: int, suspend: bool = False) -> Act:
    """Everybody's sessions at a tenant; with `suspend` as an operator suspends it."""
    from identity import platform, sessions
    from identity.models import Session
    from tenants.models import Tenant

    place = Tenant.objects.get(pk=tenant)

    def act() -> int:
        if suspend:
            return platform.suspend(place).ended
        return sessions.end_tenant(place, by=None, reason=Session.Reason.SUSPENDED)

    return act


def change_password(user: int, spare: str = "", raw: str = "the new password of the races") -> Act:
    from identity import sessions
    from identity.models import Session, User

    person = User.objects.get(pk=user)
    row = Session.objects.select_related("user").get(pk=spare) if spare else None
    return lambda: sessions.change_password(person, raw, by=person, request=None, spare=row)


def block(user: int, tenant: int) -> Act:
    """What `manage.py member block` does: hold the tenant, block the membership, end the person's branches there, as one."""
    from django.db import transaction
    from django.utils import timezone

    from identity import sessions
    from identity.models import Session, User
    from tenants.models import Membership, Tenant

    person, place = User.objects.get(pk=user), Tenant.objects.get(pk=tenant)

    def act() -> int:
        with transaction.atomic():
            Tenant.objects.select_for_update(no_key=True).get(pk=place.pk)
            Membership.objects.filter(tenant=place, user=person).update(blocked_at=timezone.now())
            return len(sessions.end_here(person, place, by=None, reason=Session.Reason.BLOCKED))

    return act


def deactivate(user: int) -> Act:
    """Deactivate an account and end its sessions, as one."""
    from django.db import transaction

    from identity import sessions
    from identity.models import Session, User

    person = User.objects.get(pk=user)

    def act() -> int:
        with transaction.atomic():
            User.objects.filter(pk=person.pk).update(is_active=False)
            return len(sessions.end_everywhere(person, by=None, reason=Session.Reason.DEACTIVATED))

    return act


def nothing() -> Act:
    return lambda: None


# --- Invitations ------------------------------------------------------------------------------------------------------


def invite(tenant: int, address: str, role: str) -> Act:
    """Returns what became of it."""
    from identity import invitations
    from tenants.models import Tenant

    place = Tenant.objects.get(pk=tenant)
    return lambda: invitations.invite(place, address, role).result.value


def accept(invitation: int, user: int) -> Act:
    """By the link. Returns whether this person got in by it."""
    from django.test import RequestFactory

    from identity import invitations
    from identity.models import User
    from tenants.models import Invitation

    seen, person = Invitation.objects.select_related("tenant").get(pk=invitation), User.objects.get(pk=user)
    request = RequestFactory().post("/")
    return lambda: invitations.accept(seen, person, request=request, by_link=True) is not None


# --- On another database than the one who asks: the servers' ------------------------------------------------------------


def open_tree(username: str, slug: str) -> Act:
    """Sign somebody in and open a branch; returns both ids and keys."""
    from django.db import transaction

    from identity import sessions
    from identity.models import User
    from tenants.models import Tenant

    def act() -> dict[str, str]:
        person = User.objects.get(username=username)
        portal, key = sessions.sign_in(person, request=None, methods=["pwd"], remember=False)
        with transaction.atomic():
            branch, branch_key = sessions.open_branch(portal.pk, Tenant.objects.get(slug=slug), request=None)
        return {"portal": str(portal.pk), "key": key, "branch": str(branch.pk), "branch_key": branch_key}

    return act


# --- A bit of everything --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Browser:
    """What one racer's browser holds while it plays."""

    start: str  # the value of its start cookie
    portal: str = ""
    branches: dict[str, str] = field(default_factory=dict)


def medley(seed: int, seconds: float, users: list[tuple[int, str]], tenants: list[tuple[int, str]]) -> Act:
    """Random acts for some seconds, by few people at few tenants; returns how many of each. What breaks raises."""
    chance = random.Random(seed)

    def act() -> dict[str, int]:
        counts: dict[str, int] = {}
        until = time.monotonic() + seconds
        scene = _medley(chance, users, tenants)
        while time.monotonic() < until:
            name = next(scene)
            counts[name] = counts.get(name, 0) + 1
        return counts

    return act


def _medley(chance: random.Random, users: list[tuple[int, str]], tenants: list[tuple[int, str]]) -> Iterator[str]:
    from django.conf import settings
    from django.db import transaction
    from django.utils import timezone

    from identity import pruning, sessions
    from identity.models import Session
    from tenants.models import Membership, Tenant

    browser = _Browser(secrets.token_urlsafe(32))
    names = {"sign_in": 5, "walk": 8, "read": 5, "write": 4, "rotate": 3, "step_up": 3, "sign_out": 1, "others": 1}
    names |= {"end": 3, "end_here": 2, "end_everywhere": 1, "end_tenant": 1, "change_password": 1, "block": 1, "prune": 1}
    while True:
        name = chance.choices(list(names), list(names.values()))[0]
        user, username = chance.choice(users)
        tenant, slug = chance.choice(tenants)
        host = f"{slug}.{settings.TENANT_DOMAIN}"
        if name == "sign_in" or (name in {"walk", "step_up", "others", "sign_out"} and not browser.portal):
            browser.portal = sign_in(username)()[0].key
        elif name == "walk":
            done: list[Try] = walk(slug, browser.portal, most=1, current=browser.branches.get(slug, ""), browser=browser.start)()
            browser.branches[slug] = done[0].key or browser.branches.get(slug, "")
        elif name in {"read", "write", "rotate"}:
            at, key = chance.choice([(settings.PORTAL_HOST, browser.portal), (host, browser.branches.get(slug, ""))])
            done = {"read": read, "write": write, "rotate": rotate}[name](at, key, most=2)()
            if key and done[-1].key:
                if at == host:
                    browser.branches[slug] = done[-1].key
                else:
                    browser.portal = done[-1].key
        elif name == "step_up":
            done = step_up(browser.portal, most=1)()
            browser.portal = done[-1].key or browser.portal
        elif name == "others":
            cookies = {settings.SESSION_COOKIE_NAME: browser.portal}
            ask(settings.PORTAL_HOST, "/account/sessions/end", cookies, form={"all_others": "1", "sure": "1"})
        elif name == "sign_out":
            ask(settings.PORTAL_HOST, "/logout/", {settings.SESSION_COOKIE_NAME: browser.portal}, form={})
        elif name == "end":
            sessions.end(_some(chance), by=None, reason=chance.choice([Session.Reason.BY_ADMIN, Session.Reason.SIGNED_OUT]))
        elif name == "end_here":
            end_here(user, tenant)()
        elif name == "end_everywhere":
            end_everywhere(user)()
        elif name == "end_tenant":
            end_tenant(tenant, suspend=chance.random() < 0.5)()
            Tenant.objects.filter(pk=tenant).update(status=Tenant.Status.ACTIVE)
        elif name == "change_password":
            own = Session.objects.filter(user_id=user, tenant=None, ended_at=None).order_by("pk")
            spare = chance.choice([*own[:5], None])
            with suppress(sessions.StaleProof):  # another change was first
                change_password(user, spare=str(spare.pk) if spare else "", raw=PASSWORD)()
        elif name == "block":
            with transaction.atomic():
                block(user, tenant)()
            Membership.objects.filter(tenant_id=tenant, user_id=user).update(blocked_at=None)
        else:
            _age(timezone.now())
            pruning.prune()
        yield name


def _some(chance: random.Random) -> "SessionQuerySet":
    """A few of the sessions that are there, of any kind and anybody, as a ticked list in the console would be."""
    from identity.models import Session

    ids = list(Session.objects.filter(ended_at=None).order_by("pk").values_list("pk", flat=True)[:200])
    return Session.objects.filter(pk__in=chance.sample(ids, min(len(ids), chance.randint(1, 6))))


def _age(now: Any) -> None:
    """Let one session lapse, so that prune has something to do."""
    from identity.models import Session

    oldest = Session.objects.filter(ended_at=None).order_by("created_at").values_list("pk", flat=True).first()
    if oldest:
        Session.objects.filter(pk=oldest).update(idle_expires_at=now)


_ACTS: dict[str, Callable[..., Act]] = {
    act.__name__: act
    for act in (
        read, write, rotate, step_up, finish, walk, sign_in, end, end_here, end_everywhere, end_tenant, change_password, block, deactivate,
        nothing, open_tree, medley, invite, accept,
    )
}  # fmt: skip
