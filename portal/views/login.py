"""Signing in, with a password and perhaps a code, and signing out."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from django.conf import settings
from django.contrib import auth, messages
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from identity import accounts, clock, factors, known, ledger, sessions, warnings
from identity.backends import prove
from identity.devices import device
from identity.halfway import HalfWay, leave
from identity.middleware import SessionRequest
from identity.models import PASSWORD, RECOVERY, TRUSTED, RecoveryCode, Session, User
from identity.tickets import State
from portal.access import leaving, portal_next
from portal.forms import CodeForm, SignInForm
from tenants import hosts, policy
from tenants.models import Membership, Tenant

BACKEND = "identity.backends.NameOrMail"
_SILENT = {Session.Reason.SIGNED_OUT, Session.Reason.REPLACED, Session.Reason.PROBE, Session.Reason.IDLE, Session.Reason.EXPIRED}


# --- Sign in ------------------------------------------------------------------------------------------------------


def bound_for(target: str) -> tuple[Tenant | None, State | None]:
    """The tenant and the state behind `next`, if it leads into a hand-off: for the brand, and for form-action."""
    path = urlsplit(target).path
    if not path.startswith("/enter/"):
        return None, None
    slug = path.removeprefix("/enter/").strip("/")
    tenant = Tenant.objects.filter(slug=slug).first()
    query = urlsplit(target).query
    state = State.read(query.removeprefix("state=")) if query.startswith("state=") else None
    return tenant, state if state and tenant and state.tenant_id == tenant.pk else None


def let_through(response: HttpResponse, tenant: Tenant | None, state: State | None) -> HttpResponse:
    """Chromium asks form-action for every redirect that follows a POST; without the target's origin the last one is blocked."""
    if tenant:
        targets = [hosts.origin(tenant.hostname)]
        if state:
            parts = urlsplit(state.next)
            targets += [hosts.origin(state.host), f"{parts.scheme}://{parts.netloc}"]
        response._csp_update = {"form-action": sorted(set(targets))}  # type: ignore[attr-defined]
    return response


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: SessionRequest) -> HttpResponse:
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, state = bound_for(target)
    if request.method == "POST":
        form = SignInForm(request.POST)
        if form.is_valid():
            outcome = sign_in(request, **credentials(form))
            if outcome.person:
                return _onward(request, target)
            if outcome.half_way:
                response = redirect(f"{reverse('login_code')}?{urlencode({'next': target})}" if target else "login_code")
                outcome.half_way.write(response)
                return response
            form.add_error(None, _("That name and password do not match."))
    else:
        if request.user.is_authenticated:
            return redirect(target or "home")
        if "again" not in request.GET and (page := reason_page(request, target)):
            return page
        form = SignInForm(initial={"next": target})
    context = {
        "form": form,
        "brand": tenant,
        "continue_to": tenant.name if tenant else "",
        "forgot_url": f"{reverse('password_forgot')}?{urlencode({'next': target})}" if target else reverse("password_forgot"),
        "signup_open": accounts.is_open(tenant),
        "remember_days": policy.REMEMBERED_ABSOLUTE.days,
        "late": "late" in request.GET,
    }
    return let_through(render(request, "login/login.html", context), tenant, state)


def credentials(form: SignInForm) -> dict[str, Any]:
    data = form.cleaned_data
    return {"username": data["username"], "password": data["password"], "remember": data["remember"]}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a name and a password: a person who is signed in, one who has to type a code, or neither."""

    person: User | None = None
    half_way: HalfWay | None = None


def sign_in(request: SessionRequest, *, username: str, password: str, remember: bool) -> Outcome:
    """Check the password; sign in whom it suffices for. The form's way in and the JSON one. Raises ledger.AddressFull."""
    since = clock.now()
    user = prove(request, username, password)
    if user is None:
        return Outcome()
    if not factors.has_factor(user):
        return Outcome(complete(request, user, methods=[PASSWORD], remember=remember, since=since))
    if known.is_trusted(request, user):
        return Outcome(complete(request, user, methods=[PASSWORD, TRUSTED], remember=remember, since=since))
    return Outcome(half_way=HalfWay.begin(user, remember=remember, since=since))


def complete(
    request: SessionRequest, user: User, *, methods: list[str], remember: bool, since: datetime, trust: bool = False
) -> User | None:
    """Open a portal session in this browser, after a proof with every factor that was due. None: the account changed meanwhile.

    Only here a person's wrong answers are forgotten and a browser becomes known: after a complete sign-in.
    """
    if request.session.row is not None:  # a browser holds one tree; the one from before ends
        request.session.flush()
    device = known.device_of(request, user)
    try:
        auth.login(request, user, backend=BACKEND)
        pk = uuid.uuid4()
        data = request.session.sealed_data(pk)
        with transaction.atomic():  # session and browser are one: a change of password or factors comes before both, or ends both
            sessions.hold_person(user)
            if TRUSTED in methods and not known.is_trusted(request, user):
                raise sessions.StaleProof
            row, key = sessions.sign_in(user, request=request, methods=methods, remember=remember, session_data=data, pk=pk, since=since)
            browser = known.remember(request, user, trust=trust)
    except sessions.StaleProof:
        request.session.forget()
        request.user = AnonymousUser()
        return None
    request.session.adopt(row, key)
    user.methods = tuple(methods)
    ledger.clear(user, device)
    if device is None:
        warnings.new_device(user, browser, row)
    return user


# --- The code -----------------------------------------------------------------------------------------------------


@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
def code(request: SessionRequest) -> HttpResponse:
    """The second step: a code of the authenticator, or a recovery code. Only who has just typed the password gets here."""
    target = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
    tenant, state = bound_for(target)
    half_way = HalfWay.of(request)
    if half_way is None or "cancel" in request.POST:
        return _back_to_login(request, target, late=half_way is None)
    lost = "lost" in request.GET
    form = CodeForm(request.POST or None, lost=lost, initial={"next": target, "mark": half_way.mark})
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["mark"] not in {"", half_way.mark}:
            form = CodeForm(lost=lost, initial={"next": target, "mark": half_way.mark})
            form.notice = _("Another tab of this browser has begun to sign %(name)s in. The code is asked for that account now.") % {
                "name": half_way.person.username
            }
        elif (page := _try_code(request, half_way, form, target)) is not None:
            return page
    return let_through(render(request, "login/code.html", _code_context(request, half_way, form, tenant)), tenant, state)


def _try_code(request: SessionRequest, half_way: HalfWay, form: CodeForm, target: str) -> HttpResponse | None:
    checked = factors.prove(request, half_way.person, form.cleaned_data["code"])
    if not checked.method:
        form.explain(checked)
        return None
    methods = [PASSWORD, checked.method]
    trust = form.cleaned_data["trust"] and known.may_trust(half_way.person, bound_for(target)[0])
    if not complete(request, half_way.person, methods=methods, remember=half_way.remember, trust=trust, since=half_way.since):
        return _back_to_login(request, target, late=True)
    if checked.method == RECOVERY:
        left = RecoveryCode.objects.filter(user=half_way.person, used_at=None).count()
        text = ngettext("%(n)d recovery code is left.", "%(n)d recovery codes are left.", left) % {"n": left}
        messages.warning(request, text + " " + _("You can make new ones under Two-factor."))
    response = _onward(request, target)
    leave(response)
    return response


def _code_context(request: SessionRequest, half_way: HalfWay, form: CodeForm, tenant: Tenant | None) -> dict[str, Any]:
    person = half_way.person
    place = tenant or only_tenant(person)  # whose rules hold, and who helps
    may_trust = known.may_trust(person, tenant)
    return {
        "form": form,
        "brand": tenant,
        "tenant": place,
        "person": person,
        "names": _(" or ").join(f"“{device.name}”" for device in factors.authenticators(person)),
        "expires_at": half_way.expires_at,
        "lost": "lost" in request.GET,
        "may_trust": may_trust,
        "trust_days": policy.TRUSTED_BROWSER.days,
    }


def _back_to_login(request: SessionRequest, target: str, *, late: bool) -> HttpResponse:
    """To the start again: cancelled, too late, or never begun."""
    if request.user.is_authenticated:
        messages.info(request, _("You are signed in as %(name)s in this browser already.") % {"name": request.user.username})
        return redirect(target or "home")
    query = {**({"next": target} if target else {}), **({"late": "1"} if late else {})}
    response = redirect(f"{reverse('login')}?{urlencode(query)}" if query else "login")
    leave(response)
    return response


def _onward(request: SessionRequest, target: str) -> HttpResponse:
    """On to `next`, or home. Who belongs to one tenant only goes straight there, by a page, since form-action allows no other host."""
    if page := leaving(request):
        return page
    if target not in {"", "/"}:
        return redirect(target)
    only = only_tenant(request.user)  # type: ignore[arg-type]
    if only is None:
        return redirect("home")
    response = render(request, "login/onward.html", {"brand": only, "target": only.home_url})
    response["Refresh"] = f"0;url={only.home_url}"
    return response


def only_tenant(user: User) -> Tenant | None:
    """The one active tenant of somebody who has no other and is no operator."""
    if user.is_superuser:
        return None
    mine = list(Membership.objects.filter(user=user).select_related("tenant")[:2])
    return mine[0].tenant if len(mine) == 1 and mine[0].blocked_at is None and mine[0].tenant.is_active else None


def reason_page(request: SessionRequest, target: str) -> HttpResponse | None:
    """The page that says why a session is over, for whoever comes with its cookie; None where there is nothing to say.

    It stays until the person signs in again: another tab of the same browser is told as well.
    """
    over = request.ended_session
    if not over or over.end_reason in _SILENT:
        return None
    place = over.tenant.name if over.tenant else "Gatehouse"
    own = over.ended_by_id == over.user_id
    lead = _LEADS.get(over.end_reason, over.get_end_reason_display())
    if own and over.end_reason in {Session.Reason.BY_ADMIN, Session.Reason.BY_OPERATOR}:
        lead = _("You ended this session yourself, from the console.")
    rows = [{"label": _("When"), "text": "", "when": over.ended_at}]
    if over.ended_by and not own:
        rows.insert(0, {"label": _("Ended by"), "text": _who(over.ended_by, over.tenant), "when": None})
    rows.append({"label": _("Session"), "text": device(over.user_agent).label, "when": None})
    rows.append({"label": _("Signed in"), "text": "", "when": over.created_at})
    elsewhere = []
    if over.tenant:
        others = Session.objects.filter(parent_id=over.parent_id, parent__ended_at=None, ended_at=None).exclude(tenant=over.tenant)
        elsewhere = list(others.order_by("tenant__name").values_list("tenant__name", flat=True).distinct())
    context = {
        "brand": over.tenant,
        "ended": {
            "title": _("You were signed out of %(place)s") % {"place": place},
            "lead": lead,
            "rows": rows,
            "note": over.end_note,
            "elsewhere": elsewhere,
        },
        "again_url": f"{request.path}?again=1&next={quote(target, safe='')}",
        "places_url": f"{settings.PORTAL_URL}/?places=1" if over.tenant else "",
    }
    return render(request, "login/ended.html", context, status=401)


def _who(person: User, tenant: Tenant | None) -> str:
    membership = Membership.objects.filter(user=person, tenant=tenant).first() if tenant else None
    if membership and membership.may_administer:
        return _("%(name)s, %(role)s of %(tenant)s") % {
            "name": person.display_name,
            "role": str(membership.get_role_display()).lower(),
            "tenant": tenant,
        }
    return _("%(name)s, operator") % {"name": person.display_name} if person.is_superuser else person.display_name


_LEADS: dict[str, Any] = {
    Session.Reason.BY_ADMIN: lazy("An administrator ended this session. It was in force at once, in every app."),
    Session.Reason.BY_OPERATOR: lazy("An operator of this portal ended this session. It was in force at once, everywhere."),
    Session.Reason.BY_PERSON: lazy("You ended this session from your list of sessions."),
    Session.Reason.BY_MAIL: lazy("A link that was mailed to the owner of the account ended this session."),
    Session.Reason.PASSWORD: lazy("The password of this account was changed, which ends every other session."),
    Session.Reason.FACTORS: lazy("The second factor of this account was changed, which ends every other session."),
    Session.Reason.POLICY: lazy("A second factor is asked for here now, and this session was opened without one."),
    Session.Reason.DEACTIVATED: lazy("This account was deactivated by an operator."),
    Session.Reason.DELETED: lazy("This account is to be deleted. Until then you can sign in and keep it."),
    Session.Reason.BLOCKED: lazy("Signing in here was blocked for this account by an administrator."),
    Session.Reason.REMOVED: lazy("This account is no longer a member here."),
    Session.Reason.SUSPENDED: lazy("This place was suspended by an operator."),
    Session.Reason.HOST: lazy("The address at which this session was opened was changed or removed. Sign in again to go on."),
}


# --- Sign out -----------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def logout(request: SessionRequest) -> HttpResponse:
    """On both kinds of host: GET shows one button, POST ends the whole tree and names what was signed out of."""
    row = request.session.row
    if row is None:
        return render(request, "logout/done.html", {"places": [], "again_url": reverse("login"), "brand": request.tenant})
    root = row.parent_id or row.pk
    open_branches = Session.objects.filter(parent_id=root, ended_at=None).select_related("tenant").order_by("tenant__name")
    places = list(dict.fromkeys(str(branch.tenant) for branch in open_branches))
    if request.method != "POST":
        context = {"places": places, "browser": device(row.user_agent).label, "brand": request.tenant}
        return render(request, "logout/logout.html", context)
    sessions.end(Session.objects.filter(pk=root), by=row.user, reason=Session.Reason.SIGNED_OUT, request=request)
    auth.logout(request)
    response = render(
        request, "logout/done.html", {"places": places, "again_url": reverse("login"), "brand": request.tenant, "signed_in": False}
    )
    if request.tenant is None:
        response["Clear-Site-Data"] = '"cache"'  # a tenant's host may hold a site that is not ours
    return response
