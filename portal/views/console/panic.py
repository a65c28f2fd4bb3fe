"""Emergency: freeze sign-ins, end everything, demand a fresh proof of everybody; and lifting what is in force."""

from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from identity import factors, figures, panic, sessions
from identity.middleware import page_behind
from portal.access import ConsoleRequest, actor_of, console, portal_row
from portal.answers import leave_for, see_other
from portal.console_forms import EndForm
from portal.stepup import question
from portal.templatetags.gatehouse import exact
from portal.views.console import frame
from tenants.text import clean

FREEZE, END, DEMAND = "freeze", "end", "demand"
ABOUT_TO = {
    FREEZE: lazy("You are about to freeze sign-ins."),
    END: lazy("You are about to end every session here."),
    DEMAND: lazy("You are about to end every session here, and to demand a fresh proof of everybody."),
}


@dataclass(frozen=True, slots=True)
class Switch:
    """One of the three, in plain words."""

    name: str
    icon: str
    title: str
    question: str
    effects: list[str]
    button: str
    way_out: str
    is_on: bool = False


@require_http_methods(["GET", "HEAD", "POST"])
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """What each switch would do now. A POST throws one, after a fresh proof and with a reason, or lifts one at once."""
    if request.method != "POST":
        context = {**frame.of_tenant(request, "panic"), "switches": list(_switches(request).values())}
        return render(request, "console/panic/panic.html", context)
    if "lift" in request.POST:
        return _lift(request, request.POST["lift"])
    what = request.POST.get("do", "")
    if what not in ABOUT_TO:
        raise Http404
    if asked := question(request, str(ABOUT_TO[what])):
        return asked
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _confirm(request, what, form)
    return _throw(request, what, clean(form.cleaned_data["reason"], 200))


# --- In plain words ---------------------------------------------------------------------------------------------------


def _switches(request: ConsoleRequest) -> dict[str, Switch]:
    tenant = request.console_tenant
    live, people = figures.live(tenant), figures.factors(tenant)
    place = {"tenant": tenant.name}
    ends = _("Nobody is signed in at %(tenant)s now.") % place
    goes_on = ends
    if live.sessions:
        counted = {"n": live.sessions, "people": live.people, **place}
        ends = ngettext(
            "%(n)d session ends at once, in every app and every open tab.",
            "%(n)d sessions of %(people)d people end at once, in every app and every open tab.",
            live.sessions,
        )
        goes_on = ngettext("%(n)d session that is open goes on.", "%(n)d sessions of %(people)d people that are open go on.", live.sessions)
        ends, goes_on = ends % counted, goes_on % counted
    own = _("Of them your own in this browser stays, unless you say otherwise.")
    back = _("Everybody may sign in again at once, with a fresh proof. To prevent that, freeze sign-ins before.")
    if tenant.frozen_at:
        back = _("Until the freeze is lifted nobody comes back but admins with a second factor.")
    without = _("Everybody here has a second factor.")
    if people.without:
        without = _("%(without)d of %(members)d people have no second factor yet: whoever has the password sets one up on the way in.") % {
            "without": people.without,
            "members": people.members,
        }
    mine = _("You have no second factor: your own session ends too, and this console opens again once you have set one up.")
    if factors.has_factor(request.user):
        mine = _("Your own in this browser stays: you type your second factor before.")
    return {
        FREEZE: Switch(
            FREEZE,
            "freeze",
            _("Freeze sign-ins"),
            _("Freeze sign-ins at %(tenant)s?") % place,
            [
                _("Nobody new comes in. Members who try are told that it is closed for now, and whom to ask."),
                goes_on,
                _("Admins and owners come in with a second factor that they type. This console stays open."),
            ],
            _("Freeze sign-ins"),
            _("Leave it open"),
            tenant.frozen_at is not None,
        ),
        END: Switch(
            END,
            "cross",
            _("End every session"),
            _("End every session at %(tenant)s?") % place,
            [ends, own, back],
            _("End every session"),
            _("Keep them"),
        ),
        DEMAND: Switch(
            DEMAND,
            "shield",
            _("Demand a fresh proof of everybody"),
            _("Demand a fresh proof of everybody at %(tenant)s?") % place,
            [
                ends,
                _("Until you lift it, everybody types a second factor to come back, in trusted browsers too."),
                without,
                mine,
            ],
            _("Demand a fresh proof"),
            _("Leave it so"),
            tenant.proof_demanded_at is not None,
        ),
    }


def _confirm(request: ConsoleRequest, what: str, form: EndForm) -> HttpResponse:
    context = {
        **frame.of_tenant(request, "panic"),
        "switch": _switches(request)[what],
        "may_spare": what == END,
        "reason": form.data.get("reason", "") if form.is_bound else "",
        "error": _("Say why: the other admins read it, and it stays in the log.") if form.is_bound else "",
        "own": "own" in request.POST,
    }
    return render(request, "console/panic/_confirm.html" if request.htmx else "console/panic/confirm.html", context)


# --- The deed ---------------------------------------------------------------------------------------------------------


def _throw(request: ConsoleRequest, what: str, note: str) -> HttpResponse:
    tenant, by = request.console_tenant, actor_of(request)
    here = reverse("console_panic", args=[tenant.slug])
    if what == FREEZE:
        done = panic.freeze(tenant, by=by, note=note)
        text = _("Sign-ins are frozen. Nobody new comes in until it is lifted.")
        messages.success(request, text if done else _("Sign-ins were frozen already."))
        return leave_for(request, here)
    spare = None if what == END and "own" in request.POST else portal_row(request)
    verb = panic.end_everything if what == END else panic.demand_proof
    before = figures.live(tenant).sessions
    try:
        verb(tenant, by=by, note=note, spare=spare)
    except sessions.StaleProof:  # another admin was first, and this session is among what ended
        messages.warning(request, _("Somebody else ended every session at this moment, yours too. Nothing more was done."))
        return leave_for(request, here)
    ended = max(before - figures.live(tenant).sessions, 0)
    text = ngettext("%(n)d session is over.", "%(n)d sessions are over.", ended) % {"n": ended}
    if what == DEMAND:
        text = _("Everybody proves a second factor anew.") + " " + text
    messages.success(request, text + " " + _("In force since %(time)s.") % {"time": exact(timezone.localtime(tenant.valid_from), 3)})
    return leave_for(request, here)


def _lift(request: ConsoleRequest, what: str) -> HttpResponse:
    """One click, from the banner of whatever page: no proof is asked for, since it opens what the policy opens."""
    tenant, by = request.console_tenant, actor_of(request)
    if what == FREEZE:
        done, text = panic.lift_freeze(tenant, by=by), _("The freeze is lifted: people come in again.")
    elif what == DEMAND:
        done, text = panic.lift_demand(tenant, by=by), _("No fresh proof is demanded any more.")
    else:
        raise Http404
    messages.success(request, text) if done else messages.info(request, _("It was lifted already."))
    back, home = page_behind(request), reverse("console", args=[tenant.slug])
    return see_other(back if back.startswith(home) else reverse("console_panic", args=[tenant.slug]))
