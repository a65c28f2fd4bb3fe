"""The hand-off: how a portal session opens a branch on another host (design, section 5).

`start` on the tenant host binds a signed state to this browser; `issue` at the portal makes a ticket for it; `redeem` on the
tenant host takes the ticket with one UPDATE that has everything in its WHERE. ASVS 7.6.2, 9.2.
"""

import re
import secrets
import time
from dataclasses import dataclass

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase

from identity import clock, crypto, sessions
from identity.models import Event, Session, Ticket
from tenants import policy
from tenants.models import Tenant

_SALT = "identity.tickets.state"
_BROWSER = re.compile(r"(?P<browser>[A-Za-z0-9_-]{43})(?:\.(?P<finished>\d{1,12})\.(?P<starts>\d))?")


@dataclass(frozen=True, slots=True)
class Browser:
    """The start cookie: one random value a browser keeps, when its last hand-off finished, and how many starts followed at once."""

    value: str
    finished: int = 0  # seconds since 1970
    starts: int = 0

    @classmethod
    def of(cls, request: HttpRequest) -> "Browser | None":
        fits = _BROWSER.fullmatch(request.COOKIES.get(settings.START_COOKIE_NAME, ""))
        if not fits:
            return None
        return cls(fits["browser"], int(fits["finished"] or 0), int(fits["starts"] or 0))

    @classmethod
    def new(cls) -> "Browser":
        return cls(secrets.token_urlsafe(32))

    @property
    def digest(self) -> str:
        return crypto.digest(self.value)

    def started(self) -> "Browser":
        """After one more start. Those that follow a finish within 20 seconds mean that its cookie did not arrive."""
        recent = time.time() - self.finished < policy.LOOP_WINDOW.total_seconds()
        return Browser(self.value, self.finished, self.starts + 1) if recent else Browser(self.value)

    def has_finished(self) -> "Browser":
        recent = time.time() - self.finished < policy.LOOP_WINDOW.total_seconds()
        return Browser(self.value, int(time.time()), self.starts if recent else 0)

    @property
    def goes_in_circles(self) -> bool:
        return self.starts >= policy.LOOP_STARTS

    def write(self, response: HttpResponseBase) -> None:
        """Set the cookie, for as long as a remembered branch may live: it is what binds a branch to its browser."""
        text = f"{self.value}.{self.finished}.{min(self.starts, 9)}" if self.finished else self.value
        response.set_cookie(
            settings.START_COOKIE_NAME, text, max_age=policy.REMEMBERED_ABSOLUTE, secure=settings.SECURE, httponly=True, samesite="Lax"
        )


@dataclass(frozen=True, slots=True)
class State:
    """What a hand-off is for: signed by us, good for ten minutes, worthless in another browser."""

    tenant_id: int
    host: str
    next: str
    browser_digest: str
    text: str  # as it travels

    @classmethod
    def make(cls, tenant: Tenant, host: str, next_url: str, browser: Browser) -> "State":
        text = signing.dumps([tenant.pk, host, next_url, browser.digest], salt=_SALT, compress=True)
        return cls(tenant.pk, host, next_url, browser.digest, text)

    @classmethod
    def read(cls, text: str) -> "State | None":
        """The state, or None if it is not ours, too old or too long."""
        if not text or len(text) > 6000:
            return None
        try:
            tenant_id, host, next_url, browser = signing.loads(text, salt=_SALT, max_age=policy.STATE)
        except (signing.BadSignature, ValueError):
            return None
        return cls(tenant_id, host, next_url, browser, text)

    @property
    def digest(self) -> str:
        return crypto.digest(self.text)


def issue(portal: Session, tenant: Tenant, state: State) -> str:
    """A ticket for this portal session, tenant, host and state; returns the text that travels once, in one redirect."""
    text = secrets.token_urlsafe(32)
    Ticket.objects.create(
        digest=crypto.digest(text),
        tenant=tenant,
        host=state.host,
        portal=portal,
        state_digest=state.digest,
        expires_at=clock.now() + policy.TICKET,
    )
    return text


class Refused(Exception):
    """A ticket that opens nothing; the text names the reason for the event, the page says the same for all."""

    def __init__(self, reason: str, verdict: sessions.Verdict | None = None, *, opened: bool = False) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.opened = opened  # this browser holds the branch that the same ticket opened: nothing was lost


@dataclass(frozen=True, slots=True)
class Redeemed:
    branch: Session
    key: str  # what this browser's cookie says from now on


def redeem(
    text: str, state: State, browser: Browser, tenant: Tenant, host: str, *, held: dict[str, Session], request: HttpRequest
) -> Redeemed:
    """Take a ticket and open its branch, in one transaction; raises Refused and burns nothing if anything does not fit.

    held: the live branches behind the cookies that this browser presents here, by key. One that hangs on the ticket's portal
    session is this person's own and goes on; any other that is bound to this browser ends after the new one is open.
    """
    if state.tenant_id != tenant.pk or state.host != host:
        raise Refused("the state is for another host")
    if not secrets.compare_digest(state.browser_digest, browser.digest):
        raise Refused("another browser asked for it")
    try:
        with transaction.atomic():
            now = clock.now()
            match = Ticket.objects.filter(
                digest=crypto.digest(text), tenant=tenant, host=host, state_digest=state.digest, used_at=None, expires_at__gt=now
            )
            ticket = match.first()
            if ticket is None:
                raise Refused("the ticket is unknown, used or late", opened=_has_opened(text, state, held))
            sessions.lock_portal(ticket.portal_id)  # before the ticket, as an end does
            if not match.filter(pk=ticket.pk).update(used_at=now):
                raise Refused("the ticket is unknown, used or late")
            for key, branch in held.items():
                if branch.parent_id == ticket.portal_id:
                    sessions.bind(branch, browser.digest)
                    return Redeemed(branch, key)
            branch, key = sessions.open_branch(ticket.portal_id, tenant, request=request, host=host, browser=browser.digest)
    except sessions.NotAdmitted as refused:
        raise Refused(f"not admitted: {refused}", refused.verdict) from None
    for old in held.values():  # in a transaction of its own, since it locks another person's membership
        if browser.digest in old.browsers:
            _replace(old, branch, request)
    return Redeemed(branch, key)


def take_back(text: str, state: State, browser: Browser, tenant: Tenant, *, request: HttpRequest) -> bool:
    """Has this very request opened a branch before? Then that one ends: nobody ever got its key.

    nginx asks again, under the same id, what a worker that died has not answered. No browser can choose that id; and where a proxy
    lets it, it ends only what its own ticket has opened.
    """
    ticket = Ticket.objects.filter(digest=crypto.digest(text), tenant=tenant, state_digest=state.digest, used_at__isnull=False).first()
    if ticket is None or not secrets.compare_digest(state.browser_digest, browser.digest):
        return False
    lately = Event.objects.filter(tenant=tenant, kind="branch_opened", at__gt=clock.now() - policy.TICKET)
    event = lately.filter(request_id=getattr(request, "id", None)).select_related("subject").first()
    if event is None or event.session is None:
        return False
    opened = Session.objects.filter(pk=event.session, parent=ticket.portal_id)
    sessions.end(opened, by=event.subject, reason=sessions.Reason.SIGNED_OUT, request=request)
    return opened.exists()


def void_all() -> int:
    """Make every unused ticket worthless; returns how many there were."""
    return Ticket.objects.filter(used_at=None).update(used_at=clock.now())


def _has_opened(text: str, state: State, held: dict[str, Session]) -> bool:
    trees = {branch.parent_id for branch in held.values()}
    return Ticket.objects.filter(digest=crypto.digest(text), state_digest=state.digest, portal__in=trees).exists()


def _replace(old: Session, new: Session, request: HttpRequest) -> None:
    """The browser's other branch ends. The same person's counts as his own sign-out: he has just come in anew."""
    reason = sessions.Reason.SIGNED_OUT if old.user_id == new.user_id else sessions.Reason.REPLACED
    sessions.end(Session.objects.filter(pk=old.pk), by=new.user, reason=reason, request=request)
