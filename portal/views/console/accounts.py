"""The platform's accounts: finding one, looking at it, closing it, ending its sessions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from identity import events, factors, known, leaving, ledger, mails, platform, sessions
from identity.devices import device
from identity.models import Session, TotpDevice, User, fold
from portal.access import PortalRequest, operator, portal_row
from portal.answers import leave_for
from portal.console_forms import ReasonForm
from portal.paging import Order, link, page_of
from portal.stepup import question
from portal.views.account import chosen, tree_of
from portal.views.console import ask, frame
from portal.views.console.lockouts import what, why
from portal.views.console.tenants import by
from portal.views.show import Badge
from tenants.models import Membership
from tenants.text import clean

ORDERS = {"name": Order("name_key", descending=False, is_time=False), "new": Order("pk", descending=True, is_time=False)}
_FACTOR = TotpDevice.objects.filter(user=OuterRef("pk"), confirmed=True)
FILTERS: dict[str, tuple[Any, Any]] = {
    "": (lazy("All"), Q()),
    "operators": (lazy("Operators"), Q(is_superuser=True)),
    "deactivated": (lazy("Deactivated"), Q(is_active=False)),
    "password": (lazy("No second factor"), ~Exists(_FACTOR)),
    "leaving": (lazy("To be deleted"), Q(delete_at__isnull=False)),
}


# --- The list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    person: User
    states: list[Badge]
    places: int
    live: int
    has_factor: bool
    since: datetime


@require_safe
@gzip_page
@operator
def page(request: PortalRequest) -> HttpResponse:
    """All accounts: search, filter, sort, keyset pages, exact count; the whole state is in the URL."""
    get = request.GET
    q, which = " ".join(get.get("q", "").split())[:100], get.get("which", "") if get.get("which") in FILTERS else ""
    sort = get.get("sort", "") if get.get("sort") in ORDERS else "name"
    matching = User.objects.filter(FILTERS[which][1])
    if q:
        matching = matching.filter(search_text__contains=fold(q))
    found = page_of(matching, ORDERS[sort], after=get.get("after", ""), before=get.get("before", ""))
    here = reverse("platform_accounts")
    kept = {"q": q, "which": which, "sort": sort if sort != "name" else ""}
    total = User.objects.count()
    context = {
        **frame.of_platform("accounts", total),
        "rows": _rows(found.rows),
        "page": found.links(here, **kept),
        "total": total,
        "matching": matching.count() if q or which else total,
        "q": q,
        "which": which,
        "filters": [{"name": name, "label": label, "url": link(here, **{**kept, "which": name})} for name, (label, _q) in FILTERS.items()],
        "sort": sort,
        "sort_dir": "descending" if ORDERS[sort].descending else "ascending",
        "sort_urls": {name: link(here, **{**kept, "sort": name if name != "name" else ""}) for name in ORDERS},
        "tokens": [{"label": q, "url": link(here, **{**kept, "q": ""})}] if q else [],
        "all_url": here,
    }
    part = request.htmx and request.htmx.target == "accounts"
    return render(request, "console/platform/_accounts.html" if part else "console/platform/accounts.html", context)


def _rows(people: list[User]) -> list[Row]:
    places = dict(Membership.objects.filter(user__in=people).order_by().values_list("user").annotate(Count("pk")))
    live = _count_by_person(Session.objects.alive_at_portal().filter(user__in=people))
    enrolled = set(TotpDevice.objects.filter(user__in=people, confirmed=True).values_list("user_id", flat=True))
    return [
        Row(each, states_of(each), places.get(each.pk, 0), live.get(each.pk, 0), each.pk in enrolled, each.date_joined) for each in people
    ]


def _count_by_person(rows: QuerySet[Session]) -> dict[int, int]:
    return dict(rows.order_by().values_list("user").annotate(Count("pk")))


def states_of(person: User) -> list[Badge]:
    """What is out of the ordinary about an account."""
    found = [Badge(_("Operator"), "brand")] if person.is_superuser else []
    if not person.is_active:
        found.append(Badge(_("Deactivated"), "bad"))
    if person.delete_at:
        found.append(Badge(_("To be deleted"), "warn"))
    return found


# --- One ----------------------------------------------------------------------------------------------------------


@require_safe
@operator
def account(request: PortalRequest, pk: int) -> HttpResponse:
    """Facts, places, factors (counts, never secrets), sessions and lockouts of one account, and what an operator may do about it."""
    person = _person(pk)
    knots = tree_of(person, portal_row(request))
    context = {
        **frame.of_platform("accounts"),
        "person": person,
        "states": states_of(person),
        "is_me": person.pk == request.user.pk,
        "memberships": Membership.objects.filter(user=person).select_related("tenant").order_by("tenant__name"),
        "authenticators": len(factors.authenticators(person)),
        "codes": factors.codes_left(person),
        "browsers": len(known.trusted(person)),
        "knots": knots,
        "brands": list({branch.tenant.pk: branch.tenant for knot in knots for branch in knot.branches}.values()),
        "locks": [{"what": what(each.bucket), "why": why(each.bucket), "until": each.bucket.locked_until} for each in _locks(person)],
        "can_be_sent_a_link": platform.can_be_sent_a_link(person) and mails.are_sent(),
    }
    return render(request, "console/platform/account.html", context)


def _person(pk: int) -> User:
    return get_object_or_404(User, pk=pk if pk < 1 << 63 else 0)


def _locks(person: User) -> list[ledger.Lockout]:
    return [each for each in ledger.explain(person.username) if each.is_locked]


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def act(request: PortalRequest, pk: int) -> HttpResponse:
    """One verb for one account. With a reason at once, without one after a confirmation; the link by mail needs neither."""
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect("platform_account", pk)
    person = _person(pk)
    verb = VERBS.get("end" if "end" in request.POST else request.POST.get("verb", ""))
    if verb is None:
        raise Http404
    try:
        return verb(request, person)
    except platform.Oneself:
        return _said(request, person, _("This is your own account: another operator closes it, not you."), good=False)
    except leaving.LastOperator:
        text = _("%(name)s is the last operator who can act. Make somebody else one first: manage.py operator grant NAME")
        return _said(request, person, text % {"name": person.display_name}, good=False)


def _deactivate(request: PortalRequest, person: User) -> HttpResponse:
    if person.pk == request.user.pk:
        raise platform.Oneself
    if leaving.is_last_operator(person):
        raise leaving.LastOperator
    if asked := question(request, _("You are about to close the account of %(name)s.") % {"name": person.display_name}):
        return asked
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        live = Session.objects.filter(user=person, ended_at=None).count()
        alone = [_("%(place)s has no other owner who can act") % {"place": place.name} for place in leaving.owned_alone(person)]
        return _ask(
            request,
            person,
            form,
            title=_("Deactivate %(name)s?") % {"name": person.display_name},
            lead=_("Nobody signs in with this account until you activate it again. Memberships and second factors stay."),
            lines=[ngettext("%(n)d session ends", "%(n)d sessions end", live) % {"n": live}, *alone],
            keep=_("Keep it open"),
            do=_("Deactivate %(name)s") % {"name": person.display_name},
        )
    done = platform.deactivate(person, reason=_reason(form), by=by(request))
    text = ngettext("%(name)s is deactivated; %(n)d session ended.", "%(name)s is deactivated; %(n)d sessions ended.", done.ended)
    return _said(request, person, text % {"name": person.display_name, "n": done.ended})


def _activate(request: PortalRequest, person: User) -> HttpResponse:
    form = ReasonForm(request.POST if "reason" in request.POST else None, told=False)
    if not form.is_valid():
        return _ask(
            request,
            person,
            form,
            title=_("Activate %(name)s again?") % {"name": person.display_name},
            lead=_("The account opens with the password and the second factor it had, in every place it belongs to."),
            keep=_("Keep it closed"),
            do=_("Activate %(name)s") % {"name": person.display_name},
            is_final=False,
        )
    platform.activate(person, reason=_reason(form), by=by(request))
    return _said(request, person, _("%(name)s is active again, and signs in anew.") % {"name": person.display_name})


def _end(request: PortalRequest, person: User) -> HttpResponse:
    """One tree, or one branch of it."""
    ids = chosen(request.POST.getlist("end"))
    which = Session.objects.filter(user=person, pk__in=ids)
    if which.count() != len(set(ids)):
        events.record("foreign_session", request=request, actor=request.user, subject=person, ids=[str(pk) for pk in ids][:20])
        raise Http404
    live = list(which.filter(ended_at=None).select_related("tenant"))
    if not live:
        return _said(request, person, _("That session was over already."))
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        lead = _("It is over at once, with the places it has open. %(name)s is told who did it and why.")
        if all(row.tenant for row in live):
            lead = _("It is over at once, in every tab; the browser stays signed in at the portal. %(name)s is told who did it and why.")
        below = Session.objects.filter(parent__in=[row.pk for row in live], ended_at=None).select_related("tenant")
        return _ask(
            request,
            person,
            form,
            end=[str(pk) for pk in ids],
            title=_("End this session of %(name)s?") % {"name": person.display_name},
            lead=_own(request, live) or lead % {"name": person.display_name},
            lines=[_line(row) for row in [*live, *below]],
            keep=_("Keep it"),
            do=_("End session"),
        )
    done = sessions.end(which, by=request.user, reason=Session.Reason.BY_OPERATOR, note=_reason(form), request=request)
    return _over(request, person, done)


def _end_all(request: PortalRequest, person: User) -> HttpResponse:
    live = list(Session.objects.filter(user=person, ended_at=None).select_related("tenant").order_by("-last_seen_at"))
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _ask(
            request,
            person,
            form,
            title=_("End every session of %(name)s?") % {"name": person.display_name},
            lead=_own(request, live)
            or _("%(name)s is signed out at once, in every browser and every place, and proves everything anew on the way back.")
            % {"name": person.display_name},
            lines=[_line(row) for row in live[:20]],
            keep=_("Keep them"),
            do=ngettext("End session", "End %(n)d sessions", len(live)) % {"n": len(live)},
        )
    note = _reason(form)
    done = sessions.end_everywhere(person, by=request.user, reason=Session.Reason.BY_OPERATOR, note=note, request=request)
    return _over(request, person, done)


def _own(request: PortalRequest, live: list[Session]) -> str:
    here = portal_row(request).pk
    return _("Your own session in this browser is among them: you sign in again.") if any(row.pk == here for row in live) else ""


def _line(row: Session) -> str:
    place = row.tenant.name if row.tenant else _("Portal")
    return f"{place}: {device(row.user_agent).label}" + (f", {row.ip}" if row.ip else "")


def _over(request: PortalRequest, person: User, done: list[Session]) -> HttpResponse:
    text = ngettext("%(n)d session of %(name)s is over.", "%(n)d sessions of %(name)s are over.", len(done))
    return _said(request, person, text % {"n": len(done), "name": person.display_name})


def _send_link(request: PortalRequest, person: User) -> HttpResponse:
    try:
        sent = platform.send_password_link(person, by=by(request))
    except platform.Unreachable:
        text = _("No link was sent: the account is closed, or nobody has proven its address. Hand one over: manage.py user link %(name)s")
        return _said(request, person, text % {"name": person.username}, good=False)
    text = _("The link is on its way to %(address)s.") if sent else _("A link went to %(address)s a moment ago; nothing more was sent.")
    return _said(request, person, text % {"address": person.email})


VERBS = {"deactivate": _deactivate, "activate": _activate, "end": _end, "end_all": _end_all, "link": _send_link}


def _ask(request: PortalRequest, person: User, form: ReasonForm, *, end: list[str] | None = None, **words: Any) -> HttpResponse:
    back = reverse("platform_account", args=[person.pk])
    hidden: dict[str, Any] = {"end": end} if end else {"verb": request.POST["verb"]}
    return ask.answer(request, "accounts", ask.Question(**words), form, back=back, **hidden)


def _reason(form: ReasonForm) -> str:
    return clean(form.cleaned_data["reason"], 200)


def _said(request: PortalRequest, person: User, text: str, *, good: bool = True) -> HttpResponse:
    (messages.success if good else messages.warning)(request, text)
    return leave_for(request, reverse("platform_account", args=[person.pk]))
