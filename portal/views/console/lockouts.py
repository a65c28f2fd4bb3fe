"""Who is locked out: a page of each tenant's console, and of the platform's. Who sees and does what: the design, section 6.

A tenant's admins see that a member is locked, of what kind and until when, and no address; they release whom nobody else has a
say in. Operators see everything that the ledger has, and release it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from identity import events, ledger
from identity.devices import device
from identity.ledger import Kind, Lockout
from identity.models import Bucket, Event, User, fold
from portal.access import ConsoleRequest, PortalRequest, console, operator
from portal.answers import leave_for, see_other
from portal.console_forms import EndForm
from portal.views.console import frame
from tenants.models import Membership, Tenant
from tenants.text import clean

LISTED = 200
OF_PEOPLE = (Kind.PERSON, Kind.DEVICE, Kind.FACTOR)
# The parts of the platform's list: the kinds of bucket, and whether there is an account behind them.
PARTS: dict[str, tuple[Sequence[str], bool | None]] = {
    "": ((), None),
    "people": (OF_PEOPLE, True),
    "unknown": ((Kind.PERSON,), False),
    "addresses": ((Kind.ADDRESS,), None),
}


@dataclass(frozen=True, slots=True)
class Row:
    """What a list shows of one person at a tenant, or of one bucket on the platform."""

    id: str
    name: str
    detail: str
    what: list[str]
    since: datetime | None
    until: datetime | None
    may_release: bool = True
    why: str = ""  # this and what follows is for operators
    address: str = ""


# --- A tenant's -------------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def of_tenant(request: ConsoleRequest) -> HttpResponse:
    """The members who are locked out. A POST releases one: with a reason at once, without one after a confirmation."""
    tenant = request.console_tenant
    if request.method != "POST":
        return _page(request, _members(request))
    person = User.objects.filter(name_key=fold(request.POST.get("id", "")), memberships__tenant=tenant).first()
    if person is None or not (request.user.is_superuser or _is_wholly_of(tenant, person)):
        events.record("foreign_lockout", request=request, tenant=tenant, actor=request.user, subject=person)
        raise Http404
    row = next((each for each in _members(request)["rows"] if each.id == person.username), None)
    if row is None:
        return _nothing_to_release(request, person.display_name)
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, row, form)
    note = clean(form.cleaned_data["reason"], 200)
    ledger.release_person(person, by=request.user, reason=note, request=request, tenant=tenant)
    return _released(request, person.display_name, _members)


def _is_wholly_of(tenant: Tenant, person: User) -> bool:
    """Has nobody but this tenant a say in the account? Then its admins may act on it (design, section 1)."""
    return not person.is_superuser and not Membership.objects.filter(user=person).exclude(tenant=tenant).exists()


def _members(request: ConsoleRequest) -> dict[str, Any]:
    """The context of a tenant's list: one row for each person."""
    tenant = request.console_tenant
    found = ledger.locked(OF_PEOPLE, tenant_id=tenant.pk, limit=LISTED + 1)
    locks: dict[User, list[Bucket]] = {}
    for each in found[:LISTED]:
        assert each.bucket.user
        locks.setdefault(each.bucket.user, []).append(each.bucket)
    shared = set(Membership.objects.filter(user__in=locks).exclude(tenant=tenant).values_list("user", flat=True))
    sees_all = request.user.is_superuser
    rows = [
        _of_person(person, buckets, sees_all=sees_all, may_release=sees_all or not (person.pk in shared or person.is_superuser))
        for person, buckets in locks.items()
    ]
    return {
        **frame.of_tenant(request, "lockouts", len(rows)),
        "action": reverse("console_lockouts", args=[tenant.slug]),
        "sees_all": sees_all,
        "rows": rows,
        "more": len(found) > LISTED,
    }


def _of_person(person: User, buckets: list[Bucket], *, sees_all: bool, may_release: bool) -> Row:
    return Row(
        id=person.username,
        name=person.display_name,
        detail=person.email or person.username,
        # Of somebody who belongs elsewhere too, an admin learns that he is locked out, and not that a factor exists.
        what=[what(each) for each in buckets] if sees_all or may_release else [_("Sign-in")],
        since=min(each.locked_at for each in buckets if each.locked_at),
        until=max(each.locked_until for each in buckets if each.locked_until),
        may_release=may_release,
        why="; ".join(why(each) for each in buckets) if sees_all or may_release else "",
        address=buckets[0].ip or "" if sees_all else "",
    )


# --- The platform's ---------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def of_platform(request: PortalRequest) -> HttpResponse:
    """Everything that is locked, or with ?q= everything that is counted for one name or address. A POST releases one of it."""
    if request.method != "POST":
        return _page(request, _everything(request))
    pk = request.POST.get("id", "")
    bucket = get_object_or_404(
        Bucket.objects.select_related("user", "device"), pk=pk if pk.isascii() and pk.isdigit() and len(pk) < 19 else 0
    )
    row = _of_bucket(Lockout(bucket))
    if not (bucket.failed or bucket.locked_at):
        return _nothing_to_release(request, row.name)
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, row, form)
    done = ledger.release([bucket.pk], by=request.user, reason=clean(form.cleaned_data["reason"], 200), request=request)
    return _released(request, row.name, _everything) if done else _nothing_to_release(request, row.name)


def _everything(request: PortalRequest) -> dict[str, Any]:
    given = request.POST if request.method == "POST" else request.GET
    q, part = " ".join(given.get("q", "").split())[:200], given.get("part", "")
    kinds, of_people = PARTS.get(part, PARTS[""])
    found = ledger.explain(q) if q else ledger.locked(kinds, of_people=of_people, limit=LISTED + 1)
    here = reverse("platform_lockouts")
    labels = {"": _("All"), "people": _("People"), "unknown": _("Unknown"), "addresses": _("Addresses")}
    return {
        **frame.of_platform("lockouts", None if q or part else len(found[:LISTED])),
        "action": here,
        "sees_all": True,
        "rows": [_of_bucket(each) for each in found[:LISTED]],
        "more": len(found) > LISTED,
        "q": q,
        "part": part if part in PARTS else "",
        "parts": [
            {"label": label, "url": f"{here}?part={name}" if name else here, "current": name == part} for name, label in labels.items()
        ],
    }


def _of_bucket(lockout: Lockout) -> Row:
    row = lockout.bucket
    return Row(
        id=str(row.pk),
        name=row.user.display_name if row.user else row.network or _("A name that nobody has"),
        detail=row.user.username if row.user else "",
        what=[what(row)],
        since=row.locked_at,
        until=row.locked_until if lockout.is_locked else None,
        may_release=bool(row.failed or lockout.is_locked),
        why=why(row) if lockout.is_locked else _("%(failed)d of %(limit)d wrong answers") % {"failed": row.failed, "limit": lockout.limit},
        address="" if row.network else row.ip or "",
    )


# --- Both: in words, the page, the release ------------------------------------------------------------------------------


def what(row: Bucket) -> str:
    """What is locked, in plain words."""
    match row.kind:
        case Kind.ADDRESS:
            return _("Whatever comes from there, except in known browsers")
        case Kind.FACTOR:
            return _("Second factor")
        case Kind.DEVICE:
            return _("Password, on one known browser")
    return _("Password, on browsers that are not known")


def why(row: Bucket) -> str:
    """“5 wrong passwords, 12 more tries kept out”; with the browser where it is one."""
    if row.kind == Kind.FACTOR:
        text = ngettext("%(n)d wrong code", "%(n)d wrong codes", row.failed)
    elif row.kind == Kind.ADDRESS:
        text = ngettext("%(n)d wrong answer", "%(n)d wrong answers", row.failed)
    else:
        text = ngettext("%(n)d wrong password", "%(n)d wrong passwords", row.failed)
    text %= {"n": row.failed}
    if row.refused:
        text += ngettext(", %(n)d more try kept out", ", %(n)d more tries kept out", row.refused) % {"n": row.refused}
    return f"{device(row.device.user_agent).label}: {text}" if row.device else text


def _page(request: PortalRequest, context: dict[str, Any]) -> HttpResponse:
    return render(request, "console/lockouts/lockouts.html", context)


def _confirm(request: Any, row: Row, form: EndForm) -> HttpResponse:
    """Asks for the reason, in the dialog or as a page."""
    context = {
        **(frame.of_tenant(request, "lockouts") if hasattr(request, "console_tenant") else frame.of_platform("lockouts")),
        "action": request.path,
        "row": row,
        "title": _("Release %(name)s?") % {"name": row.name},
        "reason": form.data.get("reason", "") if form.is_bound else "",
        "error": _("Say why: it stays in the log.") if form.is_bound else "",
        "q": request.POST.get("q", "")[:200],
        "part": request.POST.get("part", "")[:20],
    }
    return render(request, "console/lockouts/_release.html" if request.htmx else "console/lockouts/release.html", context)


def _released(request: Any, name: str, listed: Callable[[Any], dict[str, Any]]) -> HttpResponse:
    """Say that it is done; the list as it is now."""
    event = Event.objects.filter(kind="lockout_released", actor=request.user).select_related("tenant").order_by("-pk").first()
    text = _("%(name)s may try again at once. Event %(event)s.") % {"name": name, "event": event.reference if event else ""}
    if request.htmx:
        return render(request, "console/lockouts/_released.html", {**listed(request), "text": text, "is_good": True})
    messages.success(request, text)
    return see_other(request.path)


def _nothing_to_release(request: PortalRequest, name: str) -> HttpResponse:
    """Time, or somebody else, was first."""
    text = _("%(name)s is not locked out any more.") % {"name": name}
    messages.info(request, text)
    return leave_for(request, request.path)
