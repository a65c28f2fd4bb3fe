"""The second factor of one's own account: authenticators, recovery codes, trusted browsers."""

import re
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any
from urllib.parse import quote
from uuid import UUID

import segno
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods

from identity import clock, factors, known, sessions
from identity.devices import device as browser_of
from identity.middleware import interrupted
from identity.models import RecoveryCode, Session, TotpDevice, User
from portal.access import PortalRequest, portal_next, portal_row, signed_in
from portal.forms import EnrolForm
from portal.stepup import proven
from portal.views.login import bound_for
from tenants import policy
from tenants.models import Membership, Tenant
from tenants.text import clean

QUIET_ZONE = 4  # modules of white around a QR code (ISO/IEC 18004)
_SHOWN_CODE = re.compile(r"[a-z2-7]{4}(?:-[a-z2-7]{4}){3}")


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a person was going when a second factor was asked for; empty for who came by himself."""

    url: str = ""
    tenant: Tenant | None = None
    to_console: bool = False

    @classmethod
    def of(cls, request: PortalRequest) -> "Onward":
        url = portal_next(request.POST.get("next", "") or request.GET.get("next", ""))
        if url.startswith("/console/"):
            slug = url.split("/")[2]
            mine = Membership.objects.filter(user=request.user, tenant__slug=slug).select_related("tenant").first()
            return cls(url, mine.tenant if mine else None, to_console=True)
        return cls(url, bound_for(url)[0])

    @property
    def label(self) -> str:
        if self.to_console:
            return _("Continue to the console")
        return _("Continue to %(tenant)s") % {"tenant": self.tenant.name} if self.tenant else _("Continue")

    @property
    def query(self) -> str:
        return f"?next={quote(self.url, safe='')}" if self.url else ""

    def back_to_list(self) -> HttpResponse:
        return redirect(f"{reverse('two_factor')}{self.query}")


# --- Who asks for it ----------------------------------------------------------------------------------------------


def _reasons(user: User) -> list[str]:
    """Who asks this person for a second factor, and from when on, as sentences; the operator's duty first."""
    found = [_("Operators always have a second factor.")] if user.is_superuser else []
    for membership in Membership.objects.filter(user=user, blocked_at=None).select_related("tenant").order_by("tenant__name"):
        found += _asks(membership.tenant, membership)
    return found


def _asks(tenant: Tenant, membership: Membership | None) -> list[str]:
    due = tenant.factor_due(membership) if membership else None
    if due is None:
        return []
    if tenant.proof_demanded_at:
        return [_("%(tenant)s asks everybody for a second factor, for now.") % {"tenant": tenant.name}]
    if due > clock.now():
        day = date_format(timezone.localtime(due), "j F")
        return [_("%(tenant)s asks for a second factor from %(day)s on.") % {"tenant": tenant.name, "day": day}]
    return [_("%(tenant)s asks for a second factor.") % {"tenant": tenant.name}]


def _reason(user: User, onward: Onward) -> str:
    """Why somebody who was going elsewhere is here."""
    if user.is_superuser and onward.to_console:
        return _reasons(user)[0]
    if onward.tenant is None:
        return ""
    membership = Membership.objects.filter(user=user, tenant=onward.tenant).first()
    return next(iter(_asks(onward.tenant, membership)), "")


# --- The list -----------------------------------------------------------------------------------------------------


@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: PortalRequest) -> HttpResponseBase:
    """What stands in front of this account besides the password. Who has nothing yet sets the first authenticator up, right here."""
    if not factors.has_factor(request.user):
        return add(request)
    onward = Onward.of(request)
    if request.method == "POST":  # the form for the first one, sent again or from another tab
        return _is_on(request, _named_in(request), onward) or onward.back_to_list()
    codes = list(RecoveryCode.objects.filter(user=request.user))
    authenticators = factors.authenticators(request.user)
    context = {
        "here": "two_factor",
        "onward": onward,
        "authenticators": authenticators,
        "full": len(authenticators) >= factors.MOST,
        "reasons": _reasons(request.user),
        "codes": codes,
        "left": sum(code.used_at is None for code in codes),
        "browsers": _trusted(request),
        "strict": _strict(request.user),
        "trust_days": policy.TRUSTED_BROWSER.days,
        "is_operator": request.user.is_superuser,
    }
    return render(request, "two_factor/overview.html", context)


def _trusted(request: PortalRequest) -> list[dict[str, Any]]:
    here = known.device_of(request, request.user)
    return [
        {
            "id": row.pk,
            "icon": (found := browser_of(row.user_agent)).icon,
            "label": found.label,
            "address": row.ip or "",
            "since": row.trusted_until - policy.TRUSTED_BROWSER if row.trusted_until else None,
            "until": row.trusted_until,
            "here": here is not None and row.pk == here.pk,
        }
        for row in known.trusted(request.user)
    ]


def _strict(user: User) -> list[str]:
    """The places that ask this person for a code in trusted browsers, too."""
    mine = Membership.objects.filter(user=user, blocked_at=None).select_related("tenant").order_by("tenant__name")
    return [
        each.tenant.name
        for each in mine
        if each.tenant.proof_demanded_at or (each.tenant.factor_due(each) and not each.tenant.rules.trusted_browsers)
    ]


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def revoke(request: PortalRequest) -> HttpResponse:
    """Trust a browser no longer. Asks for no proof: it only shuts a door."""
    pk = request.POST.get("id", "")
    if request.method == "POST":
        if not re.fullmatch(r"[0-9]{1,18}", pk):
            raise Http404
        if known.revoke(request.user, int(pk), request=request):
            messages.success(request, _("That browser is no longer trusted: the next sign-in there asks for a code."))
        else:
            messages.info(request, _("That browser was not trusted any more."))
    return redirect("two_factor")


# --- One more authenticator ---------------------------------------------------------------------------------------


@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
@proven
def add(request: PortalRequest) -> HttpResponse:
    """Show a new key, and take the first code of the authenticator that has got it. A wrong code leaves the key as it is."""
    onward = Onward.of(request)
    if request.method == "POST" and (over := _is_on(request, _named_in(request), onward)):
        return over
    if "again" in request.POST:
        factors.start_over(request.user, portal_row(request))
        return redirect(f"{request.path}{onward.query}")
    try:
        device = factors.enrolment(request.user, portal_row(request))
    except factors.TooMany:
        messages.info(request, _("You have %(n)d authenticators, and that is the most. Remove one first.") % {"n": factors.MOST})
        return redirect("two_factor")
    form = EnrolForm(request.POST or None, initial=_initial(request, device, onward))
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["device"] not in {"", str(device.pk)}:
            form = EnrolForm(initial=_initial(request, device, onward))
            form.notice = _("The key that this page has shown before is no longer good. This is a new one: scan it again.")
        elif (answer := _try(request, device, form, onward)) is not None:
            return answer
    return render(request, "two_factor/enrol.html", _enrolment(request, device, form, onward))


def _initial(request: PortalRequest, device: TotpDevice, onward: Onward) -> dict[str, str]:
    return {"name": _free_name(request.user), "device": str(device.pk), "next": onward.url}


def _free_name(user: User) -> str:
    """“Phone”, or “Phone 2” if there is one already."""
    taken = {device.name for device in factors.authenticators(user)}
    phone = _("Phone")
    return next(name for n in count(1) if (name := phone if n == 1 else f"{phone} {n}") not in taken)


def _named_in(request: PortalRequest) -> TotpDevice | None:
    """The authenticator that a form was about, if it is one of this person's."""
    try:
        pk = UUID(request.POST.get("device", ""))
    except ValueError:
        return None
    return TotpDevice.objects.filter(user=request.user, pk=pk).first()


def _is_on(request: PortalRequest, device: TotpDevice | None, onward: Onward) -> HttpResponse | None:
    """The calm answer to a form that was sent twice, or from a second tab: it is on, and where its recovery codes are."""
    if device is None or not device.confirmed:
        return None
    text = _("“%(name)s” is on already. The recovery codes were shown once; if they are not at hand, make new ones.")
    messages.info(request, text % {"name": device.name})
    return onward.back_to_list()


@sensitive_variables("form")
def _try(request: PortalRequest, device: TotpDevice, form: EnrolForm, onward: Onward) -> HttpResponse | None:
    """Turn the authenticator on; None if the code was not right, which the form then says."""
    name = " ".join(clean(form.cleaned_data["name"], 40).split()) or _free_name(request.user)
    others = _others(request)
    try:
        checked = factors.confirm(request, device, name, form.cleaned_data["code"], spare=portal_row(request))
    except sessions.StaleProof:
        return _is_on(request, _again(device), onward) or interrupted(request)
    if not checked.method:
        if over := _is_on(request, _again(device), onward):  # a second tab used this very code
            return over
        form.explain(checked)
        return None
    request.session.rotate(grace=False)
    if checked.codes:
        return _show(request, list(checked.codes), onward, turned_on=name, others=others)
    text = _("“%(name)s” is on. Every other browser was signed out; your recovery codes stay as they are.")
    messages.success(request, text % {"name": name})
    return onward.back_to_list()


def _others(request: PortalRequest) -> int:
    """How many other browsers of this person a change of factors signs out."""
    return Session.objects.alive_at_portal().filter(user=request.user).exclude(pk=portal_row(request).pk).count()


def _again(device: TotpDevice) -> TotpDevice | None:
    return TotpDevice.objects.filter(pk=device.pk).first()


def _enrolment(request: PortalRequest, device: TotpDevice, form: EnrolForm, onward: Onward) -> dict[str, Any]:
    key, address = factors.text_key(device), factors.otpauth_url(device)
    return {
        "here": "two_factor",
        "brand": None if onward.to_console else onward.tenant,
        "form": form,
        "onward": onward,
        "reason": _reason(request.user, onward),
        "key_groups": re.findall("....", key),
        "address": address,
        "qr": _qr(address),
        "first": not factors.has_factor(request.user),
        "others": _others(request),
    }


def _qr(text: str) -> dict[str, Any]:
    """A QR code as one SVG path, a rectangle for each run of dark modules, and the side of its square in modules."""
    code = segno.make(text, micro=False)
    path = ""
    for y, row in enumerate(code.matrix_iter(border=QUIET_ZONE)):
        x = 0
        for dark, run in groupby(row):
            width = len(list(run))
            path += f"M{x} {y}h{width}v1h-{width}z" if dark else ""
            x += width
    return {"side": code.symbol_size(border=QUIET_ZONE)[0], "path": path}


# --- One authenticator less ---------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def remove(request: PortalRequest, pk: UUID) -> HttpResponse:
    """GET says what will happen, POST does it."""
    device = TotpDevice.objects.filter(user=request.user, pk=pk, confirmed=True).first()
    if device is None:
        return _gone(request)
    if request.method == "POST":
        try:
            factors.drop(request.user, device, request=request, spare=portal_row(request))
        except sessions.StaleProof:
            return _gone(request) if _again(device) is None else interrupted(request)
        request.session.rotate(grace=False)
        messages.success(request, _("“%(name)s” is removed. Every other browser was signed out.") % {"name": device.name})
        return redirect("two_factor")
    last = len(factors.authenticators(request.user)) == 1
    context = {
        "here": "two_factor",
        "device": device,
        "last": last,
        "reasons": _reasons(request.user) if last else [],
        "others": _others(request),
    }
    return render(request, "two_factor/remove.html", context)


def _gone(request: PortalRequest) -> HttpResponse:
    messages.info(request, _("That authenticator is not there any more."))
    return redirect("two_factor")


# --- Recovery codes -----------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def new_codes(request: PortalRequest) -> HttpResponse:
    """GET says what becomes of the old ones, POST answers with ten new ones: here and nowhere else."""
    if not factors.has_factor(request.user):
        return redirect("two_factor")
    newest = request.POST.get("newest", "")
    if request.method == "POST" and re.fullmatch(r"[0-9]{1,18}", newest):
        try:
            codes = factors.make_recovery_codes(request.user, request=request, newest=int(newest), spare=portal_row(request))
        except sessions.StaleProof:
            return interrupted(request)
        if codes:
            return _show(request, codes, Onward.of(request))
        messages.info(request, _("New codes were made already, by this form or in another tab. Codes are shown once."))
    rows = RecoveryCode.objects.filter(user=request.user)
    context = {
        "here": "two_factor",
        "newest": factors.newest_recovery_code(request.user),
        "left": rows.filter(used_at=None).count(),
    }
    return render(request, "two_factor/new_codes.html", context)


@sensitive_variables("codes")
def _show(request: PortalRequest, codes: list[str], onward: Onward, *, turned_on: str = "", others: int = 0) -> HttpResponse:
    context = {
        "here": "two_factor",
        "brand": None if onward.to_console else onward.tenant,
        "codes": codes,
        "onward": onward,
        "turned_on": turned_on,
        "others": others,
        "made": clock.now(),
    }
    return render(request, "two_factor/codes.html", context)


_FILE = lazy("""Gatehouse: recovery codes of %(name)s at %(host)s
%(day)s

Each code works once, in place of the six digits. Keep them where your phone is not.
New codes make these worthless.

%(codes)s
""")


@sensitive_post_parameters("codes")
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def codes_file(request: PortalRequest) -> HttpResponse:
    """The codes that a page shows, given back as a file: we keep only hashes, so the page itself brings them."""
    if request.method != "POST":
        return redirect("two_factor")
    codes = request.POST.getlist("codes")
    if len(codes) > factors.RECOVERY_CODES or not codes or not all(_SHOWN_CODE.fullmatch(code) for code in codes):
        raise Http404
    lines = "\n".join(f"{n:>2}  {code}" for n, code in enumerate(codes, start=1))
    name = request.user.username
    day = date_format(timezone.localdate(), "DATE_FORMAT")
    text = str(_FILE) % {"name": name, "host": settings.PORTAL_HOST, "day": day, "codes": lines}
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=f"gatehouse-recovery-codes-{name}.txt")
    return response
