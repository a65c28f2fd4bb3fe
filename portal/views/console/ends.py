"""Ending sessions from the console: named ones, all of a person, everything that matches, everything there is."""

import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from identity import events, mass, members, sessions
from identity.devices import device
from identity.listing import Criteria
from identity.models import Event, Session
from portal.access import ConsoleRequest, actor_of, console, portal_row, step_up
from portal.answers import leave_for, see_other
from portal.console_forms import EndAllForm, EndForm
from portal.stepup import question
from portal.views.account import chosen
from portal.views.console import filters, frame
from portal.views.console.sessions import list_context
from portal.views.show import Row
from tenants.models import Membership, Tenant
from tenants.text import clean

Reason = Session.Reason


@dataclass(frozen=True, slots=True)
class Proof:
    """What an end leaves behind: when it was committed, how long it took, and the event that names it."""

    text: str
    committed: datetime
    took_ms: int | None
    event_ref: str


# --- Named ones ---------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def sessions_end(request: ConsoleRequest) -> HttpResponse:
    """End the named sessions of this tenant. With a reason at once, without one after a confirmation.

    Ended ids are ignored; one id that is not of this tenant is a 404 and nothing changes. Where they are one person's, `all`
    ends whatever the person has open here, and `block` keeps him out, too.
    """
    tenant = request.console_tenant
    back = _page_behind(request, tenant)
    if request.method != "POST":  # a phone that loads a dropped confirmation again
        return redirect(back)
    only = request.POST.get("only")
    ids = chosen([only] if only else request.POST.getlist("ids"))
    which = Session.objects.filter(tenant=tenant, pk__in=ids)
    named = list(which.select_related("user"))
    if len(named) != len(set(ids)):
        events.record("foreign_session", request=request, tenant=tenant, actor=request.user, ids=[str(pk) for pk in ids][:20])
        raise Http404
    live = [row for row in named if row.ended_at is None]
    if not live:
        return _nothing_to_end(request, named, back)
    people = len({row.user_id for row in live})
    if people > 1 and (asked := question(request, _("You are about to end sessions of %(n)d people.") % {"n": people})):
        return asked
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, tenant, live, form, back)
    blocked = live[0].user if "block" in request.POST and _may_block(request, live) else None
    started = time.perf_counter()
    note = clean(form.cleaned_data["reason"], 200)
    if blocked:  # ends what the person has here, named or not
        try:
            done = members.block(tenant, blocked, by=actor_of(request), note=note).ended
        except (members.NoMember, members.NotAllowed, members.LastOwner):  # it was looked at before the tenant was held
            messages.warning(request, _("That was changed meanwhile by somebody else. Here is how it is now."))
            return leave_for(request, back)
    elif people == 1 and "all" in request.POST:
        done = sessions.end_here(live[0].user, tenant, by=request.user, reason=_reason(request), note=note, request=request)
    else:
        done = sessions.end(which, by=request.user, reason=_reason(request), note=note, request=request)
    took = _ms_since(started)
    text = _over(done, already=len({row.pk for row in named} - {row.pk for row in done}))
    if blocked:
        text += " " + _("%(name)s is blocked here until you lift it, under People.") % {"name": blocked.display_name}
    if not request.htmx:
        messages.success(request, f"{text} {_committed(done[0].ended_at if done else None, took)}".strip())
        return see_other(back)
    found = Event.objects.filter(session__in=[row.pk for row in done], kind="session_ended")
    event = found.select_related("tenant").order_by("-pk").first()
    committed = done[0].ended_at if done else None
    proof = Proof(text, committed or timezone.now(), took, event.reference if event else "")
    if len(done) > len(named):  # more than the page may show: the list as it is now
        return render(request, "console/sessions/_all_ended.html", {**list_context(request, request.POST), "proof": proof})
    return _swap(request, named, proof)


def _page_behind(request: ConsoleRequest, tenant: Tenant) -> str:
    """The page of one session, where the form stood there; else the list as it was."""
    shown = Session.objects.filter(tenant=tenant, pk__in=chosen(request.POST.getlist("from")[:1])).first()
    return reverse("console_session", args=[tenant.slug, shown.pk]) if shown else _list_address(tenant, Criteria.of(request.POST))


def _list_address(tenant: Tenant, criteria: Criteria) -> str:
    here = reverse("console_sessions", args=[tenant.slug])
    return f"{here}?{urlencode(criteria.as_query())}" if criteria else here


def _reason(request: ConsoleRequest) -> Session.Reason:
    return Reason.BY_ADMIN if request.membership and request.membership.may_administer else Reason.BY_OPERATOR


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _committed(at: datetime | None, took: int) -> str:
    """What the proof says, in a line of text."""
    if at is None:
        return ""
    at_text = f"{timezone.localtime(at):%H:%M:%S.%f}"[:-3]
    return _("Committed %(at)s, after %(ms)d ms.") % {"at": at_text, "ms": took}


def _may_block(request: ConsoleRequest, live: list[Session]) -> bool:
    """Is it one person, who is a member, not oneself, and none that this admin may not touch, nor the last owner?"""
    people = {row.user_id for row in live}
    theirs = Membership.objects.filter(tenant=request.console_tenant, user__in=people, blocked_at=None).first()
    if len(people) != 1 or theirs is None or theirs.user_id == request.user.pk or not actor_of(request).may_touch(theirs.role):
        return False
    return [owner.pk for owner in members.acting_owners(request.console_tenant)] != [theirs.user_id]


def _swap(request: ConsoleRequest, named: list[Session], proof: Proof) -> HttpResponse:
    """The rows as they are now, the proof, and the counts, each for its place on the page."""
    tenant = request.console_tenant
    rows = Session.objects.filter(pk__in=[row.pk for row in named]).select_related("user", "ended_by")
    criteria = Criteria.of(request.POST)
    total = Criteria().of_live(tenant).count()
    context = {
        "tenant": tenant,
        "rows": [Row.of(row, fresh=True) for row in rows],
        "proof": proof,
        "state": "live",
        "tokens": bool(criteria),
        "total": total,
        "matching": criteria.of_live(tenant).count() if criteria else total,
    }
    return render(request, "console/sessions/_ended.html", context)


def _nothing_to_end(request: ConsoleRequest, named: list[Session], back: str) -> HttpResponse:
    """Somebody else was first, or nothing was ticked."""
    if request.htmx and named:
        newest = max(row.ended_at or timezone.now() for row in named)
        text = ngettext("That session was over already.", "Those sessions were over already.", len(named))
        return _swap(request, named, Proof(text, newest, None, ""))
    messages.info(request, _("These sessions were over already.") if named else _("Tick the sessions to end first."))
    return leave_for(request, back)


def _confirm(request: ConsoleRequest, tenant: Tenant, live: list[Session], form: EndForm, back: str) -> HttpResponse:
    people = {row.user_id: row.user for row in live}
    n = len(live)
    here = 0
    if len(people) == 1:
        name = live[0].user.display_name
        title = ngettext("End this session of %(name)s?", "End %(n)d sessions of %(name)s?", n) % {"n": n, "name": name}
        here = Session.objects.alive_at(tenant).filter(user=live[0].user).count()
    else:
        name = _("Everyone named here")
        title = _("End %(n)d sessions of %(people)d people?") % {"n": n, "people": len(people)}
    lead = _("%(name)s is signed out of %(tenant)s at once, in every app and every open tab, and told who did it and why.") % {
        "name": name,
        "tenant": tenant.name,
    }
    if any(row.parent_id == portal_row(request).pk for row in live):
        lead = _("Your own session in this browser is among them: the console asks for your password again.")
    sample = [_line(row, named=len(people) > 1) for row in live[:10]]
    context = {
        **frame.of_tenant(request, "sessions"),
        "title": title,
        "lead": lead,
        "count": n,
        "people": name,
        "sample": sample,
        "more": n - len(sample),
        "ids": [str(row.pk) for row in live],
        "all_here": here if here > n else 0,
        "wants_all": "all" in request.POST,
        "reason": form.data.get("reason", "") if form.is_bound else "",
        "error": _say_why() if form.is_bound else "",
        "back_url": back,
        "asked": Criteria.of(request.POST).as_query().items(),
        "from_id": request.POST.get("from", "")[:36],
        "may_block": _may_block(request, live),
        "wants_block": "block" in request.POST,
    }
    return render(request, "console/sessions/_end.html" if request.htmx else "console/sessions/end.html", context)


def _say_why() -> str:
    return _("Say why: the person reads it, and it stays in the log.")


def _line(row: Session, *, named: bool) -> dict[str, Any]:
    label = device(row.user_agent).label
    return {
        "device": f"{row.user.display_name}: {label}" if named else label,
        "address": row.ip or "",
        "seen": row.last_seen_at,
    }


def _over(done: list[Session], *, already: int) -> str:
    names = {row.user.display_name for row in done}
    n = len(done)
    if len(names) == 1:
        text = ngettext("%(n)d session of %(name)s is over.", "%(n)d sessions of %(name)s are over.", n) % {"n": n, "name": names.pop()}
    else:
        text = ngettext("%(n)d session is over.", "%(n)d sessions are over.", n) % {"n": n}
    if already:
        text += " " + ngettext("%(n)d more was over already.", "%(n)d more were over already.", already) % {"n": already}
    return text


# --- Everything that matches, everything there is -----------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def sessions_end_all(request: ConsoleRequest) -> HttpResponse:
    """End everything that matches the criteria, or with `scope=tenant` everything of the tenant, after a fresh proof, a preview,
    the number typed and a reason. The browser that asks stays signed in unless `own` is ticked.
    """
    tenant = request.console_tenant
    whole = request.POST.get("scope") == "tenant"
    criteria = Criteria() if whole else replace(Criteria.of(request.POST), ended="")
    back = _list_address(tenant, criteria)
    if request.method != "POST":
        return redirect(back)
    if not whole and not criteria:  # a slip of a script must not end everything
        messages.info(request, _("Filter the sessions first, then end what matches."))
        return leave_for(request, back)
    portal = portal_row(request)
    if asked := question(request, _("You are about to end many sessions at once.")):
        return asked
    spared = None if "own" in request.POST else portal
    count = mass.meant(tenant, criteria, spare=portal).count()
    own = criteria.of_live(tenant).filter(parent=portal).count()
    if not count:
        text = _("Only your own session in this browser matches.") if own else _("Nothing is left to end: no live session matches.")
        messages.info(request, text)
        return leave_for(request, back)
    form = EndAllForm(request.POST if "number" in request.POST else None)
    errors = _errors(form, count) if form.is_bound else {}
    if errors or not form.is_bound:
        return _preview(request, criteria, count, own, errors, back)
    how: dict[str, Any] = {
        "expected": count if spared else count + own,
        "by": request.user,
        "reason": _reason(request),
        "note": clean(form.cleaned_data["reason"], 200),
        "spare": spared,
        "request": request,
    }
    started = time.perf_counter()
    try:
        outcome = mass.end_tenant(tenant, **how) if whole else mass.end_matching(tenant, criteria, **how)
    except sessions.StaleProof:
        return step_up(request)
    return _all_over(request, criteria, outcome, whole=whole, took=_ms_since(started), back=back)


def _errors(form: EndAllForm, count: int) -> dict[str, str]:
    """What has to be said beside the fields; nothing if the end may go on."""
    valid, errors = form.is_valid(), {}
    typed, shown = form.cleaned_data.get("number", -1), form.cleaned_data.get("shown", -1)
    if _has_changed(shown, count):
        errors["number"] = _("There are %(n)d now, it was %(shown)d. Look again, then type the new number.") % {"n": count, "shown": shown}
    elif typed != shown:
        errors["number"] = _("Type %(n)d, so that it is certain that you mean all of them.") % {"n": count}
    if not valid and "reason" in form.errors:
        errors["reason"] = _say_why()
    return errors


def _has_changed(shown: int, count: int) -> bool:
    """Among thousands somebody comes and goes at every moment: there, one in a hundred is no other number."""
    return abs(count - shown) > (shown // 100 if shown > mass.DIRECTLY else 0)


def _preview(request: ConsoleRequest, criteria: Criteria, count: int, own: int, errors: dict[str, str], back: str) -> HttpResponse:
    tenant = request.console_tenant
    rows = mass.meant(tenant, criteria, spare=portal_row(request))
    sample = rows.select_related("user").order_by("-last_seen_at", "-pk")[:10]
    context = {
        **frame.of_tenant(request, "sessions"),
        "count": count,
        "own": own,
        "whole": not criteria,
        "by_batches": bool(criteria) and count > mass.DIRECTLY,
        "what": filters.in_words(criteria),
        "asked": criteria.as_query().items(),
        "sample": [_line(row, named=True) for row in sample],
        "more": max(count - 10, 0),
        "errors": errors,
        "reason": request.POST.get("reason", "")[:200],
        "wants_own": "own" in request.POST,
        "back_url": back,
    }
    return render(request, "console/sessions/_end_all.html" if request.htmx else "console/sessions/end_all.html", context)


def _all_over(request: ConsoleRequest, criteria: Criteria, outcome: mass.Asked, *, whole: bool, took: int, back: str) -> HttpResponse:
    n = outcome.mass.expected if outcome.mass else len(outcome.done)
    if whole:
        said = {"n": n, "tenant": request.console_tenant.name}
        text = ngettext("%(n)d session of %(tenant)s is over.", "%(n)d sessions of %(tenant)s are over.", n) % said
    elif outcome.mass:
        text = ngettext("%(n)d session is being ended.", "%(n)d sessions are being ended.", n) % {"n": n}
    else:
        text = _over(outcome.done, already=0)
    if not request.htmx:
        messages.success(request, f"{text} {_committed(outcome.at, took)}")
        return see_other(back)
    context = {**list_context(request, criteria.as_query()), "proof": Proof(text, outcome.at, took, outcome.event.reference)}
    return render(request, "console/sessions/_all_ended.html", context)
