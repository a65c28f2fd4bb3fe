"""One's own account: places, password, sessions."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from identity import invitations, sessions
from identity.backends import prove
from identity.devices import device
from identity.middleware import interrupted
from identity.models import Session, User
from portal.access import PortalRequest, portal_row, signed_in
from portal.forms import PasswordForm
from portal.greeting import greeting
from portal.stepup import proven
from portal.views.login import only_tenant
from portal.views.show import Badge, badge, end_text
from tenants import hosts
from tenants.models import JoinRequest, Membership, Tenant


@require_safe
@signed_in
def home(request: PortalRequest) -> HttpResponse:
    """My places. Who belongs to one tenant only goes straight on to it, unless he asks for the list (?places)."""
    person = User.objects.get(pk=request.user.pk)
    invited = invitations.open_for(person)
    only = only_tenant(request.user)
    if only is not None and not invited and "places" not in request.GET:
        return redirect(only.home_url)
    mine = Membership.objects.filter(user=request.user).select_related("tenant").prefetch_related("tenant__apps")
    mine = mine.order_by("tenant__name")
    memberships = [each for each in mine if each.blocked_at is None and each.tenant.is_active]
    closed = [
        {
            "name": each.tenant.name,
            "why": _("suspended by an operator") if not each.tenant.is_active else _("blocked for you by its admins"),
        }
        for each in mine
        if each not in memberships
    ]
    branches = Session.objects.filter(parent=portal_row(request), ended_at=None).order_by("created_at")
    open_since = {branch.tenant_id: branch.created_at for branch in branches}
    places = [
        {
            "tenant": membership.tenant,
            "role": membership.get_role_display(),
            "open_since": open_since.get(membership.tenant_id),
            "apps": [app for app in membership.tenant.apps.all() if not app.roles or membership.role in app.roles],
            "console_url": f"/console/{membership.tenant.slug}/" if membership.may_administer else "",
        }
        for membership in memberships
    ]
    context = {
        "here": "places",
        "greeting": greeting(request.user, timezone.localtime()),
        "places": places,
        "unproven": "" if person.email_verified_at else person.email,
        "closed": closed,
        "invited": invited,
        "waiting": list(JoinRequest.objects.filter(user=request.user).select_related("tenant").order_by("tenant__name")),
        "brands": [membership.tenant for membership in memberships] + [each.tenant for each in invited],
        "devices": _devices(request),
        "is_operator": request.user.is_superuser,
        "console_url": "/console/" if request.user.is_superuser else "",
    }
    response = render(request, "home/places.html", context)
    # An invitation that is accepted here leads into its place: form-action is asked for every redirect that follows.
    response._csp_update = {"form-action": sorted({hosts.origin(each.tenant.hostname) for each in invited})}  # type: ignore[attr-defined]
    return response


def _devices(request: PortalRequest) -> list[dict[str, Any]]:
    mine = Session.objects.alive_at_portal().filter(user=request.user).order_by("-last_seen_at")[:5]
    here = portal_row(request).pk
    return [
        {
            "icon": (found := device(row.user_agent)).icon,
            "label": found.label,
            "detail": row.ip or "",
            "seen": row.last_seen_at,
            "here": row.pk == here,
        }
        for row in mine
    ]


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@proven
def password_change(request: PortalRequest) -> HttpResponse:
    """A new password ends every other session of this person; this browser's tree stays (ASVS 6.2.3, 7.4.3)."""
    answered = "proof-password" in request.POST and "old_password" not in request.POST  # passwords are never carried along
    form = PasswordForm(request.user, None if answered else request.POST or None)
    if answered:
        messages.info(request, _("Now type the passwords again: they were not carried along."))
    if request.method == "POST" and form.is_valid():
        person = prove(request, request.user.username, form.cleaned_data["old_password"], what="password_change")
        if person is not None and person.pk == request.user.pk:
            try:
                new = form.cleaned_data["new_password1"]
                sessions.change_password(person, new, by=person, request=request, spare=portal_row(request))
            except sessions.StaleProof:
                return interrupted(request)
            request.session.rotate(grace=False)
            return redirect("password_change_done")
        form.add_error("old_password", _("That is not your current password. After several failed attempts, wait a few minutes."))
    return render(request, "account/password.html", {"here": "profile", "form": form})


@require_safe
@signed_in
def password_change_done(request: PortalRequest) -> HttpResponse:
    """Only right after a change: an hour later, or without one, its words would not be true."""
    changed_at = User.objects.values_list("valid_from", flat=True).get(pk=request.user.pk)
    if timezone.now() - changed_at > timedelta(minutes=5):
        return redirect("password_change")
    return render(request, "account/password_done.html", {"here": "profile"})


# --- Own sessions -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Branch:
    id: str
    tenant: Tenant
    opened: datetime
    seen: datetime
    expires: datetime
    ended: bool
    ended_text: str


@dataclass(slots=True)
class Knot:
    """One browser that is signed in, with the places it has open."""

    id: str
    here: bool
    icon: str
    device: str
    address: str
    methods_badge: Badge
    signed_in: datetime
    seen: datetime
    expires: datetime
    persistent: bool
    branches: list[Branch] = field(default_factory=list)


@require_safe
@signed_in
def sessions_page(request: PortalRequest) -> HttpResponse:
    here = portal_row(request)
    knots = tree_of(request.user, here)
    brands = {branch.tenant.pk: branch.tenant for knot in knots for branch in knot.branches}
    context = {
        "here": "sessions",
        "knots": knots,
        "brands": list(brands.values()),
        "lately": _lately(request),
        "other_count": sum(not knot.here for knot in knots),
    }
    return render(request, "account/sessions.html", context)


def tree_of(person: User, here: Session) -> list[Knot]:
    """Where somebody is signed in, with what is open there and what ended in the last hour; first the browser that asks."""
    rows = list(Session.objects.alive_at_portal().filter(user=person).order_by("-last_seen_at"))
    rows.sort(key=lambda row: row.pk != here.pk)
    knots = {row.pk: _knot(row, here) for row in rows}
    hour_ago = timezone.now() - timedelta(hours=1)
    branches = Session.objects.filter(parent__in=knots).filter(Q(ended_at=None) | Q(ended_at__gt=hour_ago))
    alive = set(
        branches.filter(ended_at=None, expires_at__gt=timezone.now(), idle_expires_at__gt=timezone.now()).values_list("pk", flat=True)
    )
    for row in branches.select_related("tenant", "ended_by").order_by("tenant__name", "-created_at"):
        assert row.tenant is not None
        assert row.parent_id is not None
        if row.pk not in alive and row.ended_at is None:
            continue
        text = f"{end_text(row)}: “{row.end_note}”" if row.end_note else end_text(row)
        knots[row.parent_id].branches.append(
            Branch(
                id=str(row.pk),
                tenant=row.tenant,
                opened=row.created_at,
                seen=row.last_seen_at,
                expires=min(row.expires_at, row.idle_expires_at),
                ended=row.ended_at is not None,
                ended_text=text if row.ended_at else "",
            )
        )
    return list(knots.values())


def _knot(row: Session, here: Session) -> Knot:
    found = device(row.user_agent)
    return Knot(
        id=str(row.pk),
        here=row.pk == here.pk,
        icon=found.icon,
        device=found.label,
        address=row.ip or "",
        methods_badge=badge(row.methods),
        signed_in=row.created_at,
        seen=row.last_seen_at,
        expires=min(row.expires_at, row.idle_expires_at),
        persistent=row.persistent,
    )


def _lately(request: PortalRequest) -> list[dict[str, Any]]:
    """What ended in the last 30 days, newest first, with who and why."""
    since = timezone.now() - timedelta(days=30)
    rows = Session.objects.filter(user=request.user, ended_at__gt=since).exclude(end_reason=Session.Reason.PROBE)
    found = []
    for row in rows.select_related("tenant", "ended_by").order_by("-ended_at")[:20]:
        place = row.tenant.name if row.tenant else _("the portal")
        label = device(row.user_agent).label
        by = _("Ended by you") if row.ended_by_id == request.user.pk and row.end_reason == Session.Reason.BY_PERSON else end_text(row)
        text = _("%(place)s in %(device)s: %(why)s") % {"place": place, "device": label, "why": by[:1].lower() + by[1:]}
        detail = " · ".join(part for part in (f"“{row.end_note}”" if row.end_note else "", row.ip or "") if part)
        found.append({"when": row.ended_at, "text": text, "detail": detail})
    return found


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def sessions_end(request: PortalRequest) -> HttpResponse:
    """End one's own: one tree, one branch, or all others. Without `sure` it says first what will happen."""
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect("account_sessions")
    here = portal_row(request)
    own = Session.objects.filter(user=request.user)
    if request.POST.get("all_others"):
        which = own.filter(tenant=None).exclude(pk=here.pk)
    else:
        which = own.filter(pk__in=chosen(request.POST.getlist("ids")))
        if which.count() != len(set(request.POST.getlist("ids"))) or not request.POST.getlist("ids"):
            raise Http404
    live = list(which.filter(ended_at=None).select_related("tenant"))
    if not live:
        messages.info(request, _("That was over already."))
        return redirect("account_sessions")
    if not request.POST.get("sure"):
        return render(request, "account/end.html", _what_ends(request, live))
    named = len(live)
    done = sessions.end(which, by=request.user, reason=Session.Reason.BY_PERSON, request=request)
    messages.success(request, ngettext("%(n)d session ended.", "%(n)d sessions ended.", named) % {"n": named})
    if any(row.pk == here.pk for row in done):
        request.session.forget()
        return redirect("login")
    return redirect("account_sessions")


def _what_ends(request: PortalRequest, live: list[Session]) -> dict[str, Any]:
    n = len(live)
    here = any(row.pk == portal_row(request).pk for row in live)
    roots = [row.pk for row in live if row.tenant is None]
    below = Session.objects.filter(parent__in=roots, ended_at=None).exclude(pk__in=[row.pk for row in live]).select_related("tenant")
    open_places = sorted({str(row.tenant) for row in below})
    lead = _("It is over at once, in every tab. Coming back takes a fresh proof.")
    if open_places:
        lead = _("It is over at once, in every tab, with the places it has open: %(places)s.") % {"places": ", ".join(open_places)}
    sample = [
        {
            "device": f"{row.tenant.name}: {device(row.user_agent).label}" if row.tenant else device(row.user_agent).label,
            "address": row.ip or "",
            "seen": row.last_seen_at,
        }
        for row in live
    ]
    return {
        "here": "sessions",
        "title": _("End this session?") if n == 1 else _("End %(n)d sessions?") % {"n": n},
        "lead": _("You sign out of this browser, too.") if here else lead,
        "count": n,
        "sample": sample,
        "ids": [str(row.pk) for row in live],
        "all_others": bool(request.POST.get("all_others")),
        "back_url": "/account/sessions/",
    }


def chosen(texts: list[str]) -> list[UUID]:
    """Public ids as they came; one that is none is a 404."""
    try:
        return [UUID(text) for text in texts]
    except ValueError:
        raise Http404 from None
