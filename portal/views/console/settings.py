"""What a tenant looks like, what it asks of its people, and who becomes one of them. Owners change it, admins look."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format, localize
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe

from identity import members, simulation, tenancy
from identity.simulation import Forecast, Seen
from portal.access import ConsoleRequest, actor_of, console
from portal.answers import see_other
from portal.settings_forms import LookForm, PolicyForm, SignUpPolicyForm, in_words
from portal.stepup import question
from portal.views.console import frame
from tenants.models import Tenant
from tenants.policy import Policy

SECTIONS = (
    ("settings", lazy("All")),
    ("settings_look", lazy("Look")),
    ("settings_policy", lazy("Policy")),
    ("settings_sign_up", lazy("Sign-up")),
    ("settings_hosts", lazy("Hosts")),
)


def around(request: ConsoleRequest, section: str) -> dict[str, Any]:
    """The context of each of these pages: the sections, and whether this person may change anything."""
    may_change = actor_of(request).may_change_settings
    sections = [
        {"label": label, "url": reverse(f"console_{name}", args=[request.console_tenant.slug]), "current": name == section}
        for name, label in SECTIONS
    ]
    owners = [] if may_change else [owner.display_name for owner in members.acting_owners(request.console_tenant)]
    return {**frame.of_tenant(request, "settings"), "sections": sections, "may_change": may_change, "owners": owners}


def only_owners(request: ConsoleRequest) -> None:
    if request.method == "POST" and not actor_of(request).may_change_settings:
        raise PermissionDenied


def shown(form: forms.Form, *, may_change: bool) -> forms.Form:
    """The form; for who only looks, with fields that cannot be filled in."""
    for field in form.fields.values():
        field.disabled = not may_change
    return form


@require_safe
@console
def overview(request: ConsoleRequest) -> HttpResponse:
    """All that is set, at a glance."""
    tenant = request.console_tenant
    rules = tenant.rules
    waiting = tenant.hosts.filter(approved_at=None).count()
    context = {
        "policy_lines": [
            (label, in_policy_words(name, getattr(rules, name)))
            for name, label in POLICY_LABELS.items()
            if name != "grace_days" or rules.second_factor != "off"
        ],
        "factor_due": simulation.due_day(tenant),
        "sign_up": SIGN_UP[rules.sign_up][0],
        "sign_up_means": _means(tenant, rules.sign_up),
        "further": tenant.hosts.count() - waiting,
        "waiting": waiting,
    }
    return render(request, "console/settings/overview.html", {**around(request, "settings"), **context})


# --- Look ---------------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@console
def look(request: ConsoleRequest) -> HttpResponse:
    """Name, logo, colour and texts. “preview” draws the page with what was typed and saves nothing."""
    only_owners(request)
    tenant = request.console_tenant
    context = around(request, "settings_look")
    form = LookForm(request.POST or None, request.FILES or None, initial=LookForm.initial_of(tenant))
    drawn = {"name": tenant.name, "colour": tenant.colour, "note": tenant.sign_in_note}
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if "preview" not in request.POST:
            return _saved(request, tenancy.change(tenant, form.wanted, by=actor_of(request)), "console_settings_look")
        drawn = {"name": data["name"], "colour": data["colour"], "note": data["sign_in_note"]}
        form.data = {**request.POST.dict(), "colour": data["colour"], "picked": data["colour"]}
        context["is_preview"] = True
        context["lost_logo"] = bool(request.FILES)
    css = f"{reverse('console_settings_look_css', args=[tenant.slug])}?{urlencode({'colour': drawn['colour'][1:]})}"
    context |= {"form": shown(form, may_change=context["may_change"]), "drawn": drawn, "brands": [{"css_url": css}]}
    return render(request, "console/settings/look.html", context, status=422 if form.errors else 200)


@require_safe
@console
def look_css(request: ConsoleRequest) -> HttpResponse:
    """The rule of a colour that is only tried out, for the elements of the preview."""
    colour = request.GET.get("colour", "").lower()
    if len(colour) != 6 or not all(char in "0123456789abcdef" for char in colour):
        raise Http404
    return HttpResponse(f'[data-brand="preview"] {{ --brand: #{colour}; }}\n', content_type="text/css; charset=utf-8")


def _saved(request: ConsoleRequest, done: tenancy.Change, page: str) -> HttpResponse:
    if done.is_one:
        messages.success(request, _("Saved. It holds from now on."))
    else:
        messages.info(request, _("It was like that already. Nothing has changed."))
    return see_other(reverse(page, args=[request.console_tenant.slug]))


# --- Policy -------------------------------------------------------------------------------------------------------

POLICY_LABELS: dict[str, Any] = {name: field.label for name, field in PolicyForm.base_fields.items()}


@require_http_methods(["GET", "HEAD", "POST"])
@console
def policy(request: ConsoleRequest) -> HttpResponse:
    """First the forecast, which changes nothing; then, with what was seen, the save."""
    only_owners(request)
    tenant = request.console_tenant
    context = around(request, "settings_policy")
    before = tenant.rules
    form = PolicyForm(request.POST or None, initial=PolicyForm.initial_of(before))
    if request.method == "POST" and form.is_valid():
        imagined = tenancy.imagine(tenant, form.policy(before))
        foreseen = simulation.forecast(imagined)
        if seen := Seen.read(request.POST.get("seen", "")):
            if _is_grave(before, imagined.rules, foreseen) and (asked := question(request, _why(foreseen))):
                return asked
            try:
                return _policy_saved(request, tenancy.change(tenant, {"policy": imagined.policy}, by=actor_of(request), seen=seen))
            except tenancy.Outdated:
                context["outdated"] = True
        context |= _story(before, imagined, foreseen)
    context["form"] = shown(form, may_change=context["may_change"])
    context["lines"] = [
        {"field": form[name], "was": was if (was := context.get("was", {}).get(name)) else "", "kind": _kind(field)}
        for name, field in form.fields.items()
    ]
    template = "console/settings/_forecast_live.html" if request.htmx else "console/settings/policy.html"
    return render(request, template, context, status=422 if form.errors and not request.htmx else 200)


def _kind(field: forms.Field) -> str:
    if isinstance(field, forms.BooleanField):
        return "tick"
    return "segments" if isinstance(field, forms.ChoiceField) else "field"


def _is_grave(before: Policy, after: Policy, foreseen: Forecast) -> bool:
    """Does it let more pass than before, or end several people's sessions? ASVS 7.5.3."""
    return after.is_weaker_than(before) or foreseen.people > 1


def _why(foreseen: Forecast) -> str:
    if foreseen.people > 1:
        return _ends_words(foreseen, _("You are about to end %(sessions)s of %(people)s."))
    return _("You are about to ask less of people than before.")


def _ends_words(foreseen: Forecast, text: str) -> str:
    sessions = ngettext("%(n)s session", "%(n)s sessions", foreseen.sessions) % {"n": localize(foreseen.sessions)}
    people = ngettext("%(n)s person", "%(n)s people", foreseen.people) % {"n": localize(foreseen.people)}
    return text % {"sessions": sessions, "people": people}


def _policy_saved(request: ConsoleRequest, done: tenancy.Change) -> HttpResponse:
    if done.did and done.did.sessions:
        messages.success(request, _ends_words(done.did, _("Saved. %(sessions)s of %(people)s are over.")))
        return see_other(reverse("console_settings_policy", args=[request.console_tenant.slug]))
    return _saved(request, done, "console_settings_policy")


def _story(before: Policy, imagined: Tenant, foreseen: Forecast) -> dict[str, Any]:
    """The forecast as the page tells it: what changes, what would happen, and the mark that the save brings back."""
    after = imagined.rules
    names = [name for name in POLICY_LABELS if getattr(before, name) != getattr(after, name)]
    was = {name: in_policy_words(name, getattr(before, name)) for name in names}
    return {
        "forecast": foreseen,
        "headline": _headline(foreseen),
        "effects": _effects(before, after, foreseen) if names else [],
        "was": was,
        "changes": [{"label": POLICY_LABELS[name], "was": was[name], "now": in_policy_words(name, getattr(after, name))} for name in names],
        "seen": Seen.of(tenancy.policy_values(before), tenancy.policy_values(after), foreseen) if names else "",
        "ends": bool(names and foreseen.sessions),
        "share": round(100 * foreseen.sessions / foreseen.live) if foreseen.live else 0,
    }


def _headline(foreseen: Forecast) -> str:
    return _ends_words(foreseen, _("%(sessions)s of %(people)s would end now.")) if foreseen.sessions else _("No session would end.")


@dataclass(frozen=True, slots=True)
class Effect:
    icon: str
    text: str
    detail: str = ""


def _effects(before: Policy, after: Policy, foreseen: Forecast) -> list[Effect]:
    """What would happen and why, one sentence each."""
    told: list[Effect] = []
    if n := foreseen.idle:
        text = ngettext("%(n)s session is unused for longer than that.", "%(n)s sessions are unused for longer than that.", n)
        told.append(Effect("clock", text % {"n": localize(n)}))
    if n := foreseen.old:
        text = ngettext("%(n)s session is open for longer than that.", "%(n)s sessions are open for longer than that.", n)
        told.append(Effect("clock", text % {"n": localize(n)}))
    if n := foreseen.unproven:
        text = ngettext(
            "%(n)s session was opened without the second factor that is asked for.",
            "%(n)s sessions were opened without the second factor that is asked for.",
            n,
        )
        told.append(Effect("shield", text % {"n": localize(n)}))
    if (after.second_factor, after.grace_days) != (before.second_factor, before.grace_days):
        told += _factor_effects(after, foreseen)
    if before.trusted_browsers > after.trusted_browsers:
        told.append(Effect("laptop", _("Trusted browsers are asked for a code again.")))
    if after.idle > before.idle or after.absolute > before.absolute or after.remembered > before.remembered:
        told.append(Effect("clock", _("Sessions that are open keep the shorter limit until the next sign-in.")))
    if (after.password_length, after.password_length_alone) != (before.password_length, before.password_length_alone):
        told.append(Effect("lock", _("Passwords that are set stay good. The new length is asked of the next ones.")))
    if after.tries != before.tries:
        told.append(Effect("lock", _("Nobody is locked out by this: it counts from the next wrong password on.")))
    return told


def _factor_effects(after: Policy, foreseen: Forecast) -> list[Effect]:
    if after.second_factor == "off":
        return [Effect("shield", _("Nobody has to set one up any more. Whoever has one is asked for it as before."))]
    if not foreseen.without:
        return [Effect("shield", _("Everybody of whom it is asked has a second factor already."))]
    later = foreseen.due is not None and foreseen.due > timezone.now()
    by = _("must set one up by %(day)s") % {"day": _day(foreseen)} if later else _("set one up with the next sign-in")
    n, detail = foreseen.without, ""
    people = ngettext("%(n)s person has no second factor", "%(n)s people have no second factor", n)
    if after.second_factor == "admins":
        people = ngettext("%(n)s admin or owner has no second factor", "%(n)s admins and owners have no second factor", n)
    elif few := foreseen.admins_without:
        detail = ngettext("%(n)s of them is an admin or owner.", "%(n)s of them are admins or owners.", few) % {"n": localize(few)}
    text = _("%(people)s and %(by)s.") % {"people": people % {"n": localize(n)}, "by": by}
    return [Effect("people", text, detail)]


def _day(foreseen: Forecast) -> str:
    assert foreseen.due is not None
    due = timezone.localtime(foreseen.due)
    # Translators: Django's date format for a day of this year, then of another year.
    return date_format(due, _("j F") if due.year == timezone.localtime().year else _("j F Y"))


def in_policy_words(name: str, value: Any) -> str:
    """A value of the policy as a person says it."""
    if isinstance(value, timedelta):
        return in_words(value)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if name == "second_factor":
        return str(dict(PolicyForm.base_fields[name].choices)[value])  # type: ignore[attr-defined]
    if name == "grace_days":
        return ngettext("%(n)d day", "%(n)d days", value) % {"n": value}
    if name in {"password_length", "password_length_alone"}:
        return ngettext("%(n)d character", "%(n)d characters", value) % {"n": value}
    return str(value)


# --- Sign-up ------------------------------------------------------------------------------------------------------

# What is chosen, in a word, and what it means for a stranger.
SIGN_UP: dict[str, tuple[Any, Any]] = {
    "closed": (lazy("Nobody"), lazy("Strangers find no way in. Open invitations open nothing. Operators add people by hand.")),
    "invited": (lazy("Who is invited"), lazy("Strangers find no way in: an admin invites each person by mail.")),
    "domain": (
        lazy("Who has an address of ours"),
        lazy("Whoever proves an address at these domains comes in without asking. Other strangers find no way in but an invitation."),
    ),
    "open": (
        lazy("Everybody"),
        lazy("Any stranger who proves an address comes in without asking, and may use what is open to members."),
    ),
}


def _means(tenant: Tenant, choice: str) -> str:
    text = str(SIGN_UP[choice][1])
    invitations = simulation.open_invitations(tenant) if choice == "closed" else 0
    if invitations:
        text += " " + ngettext("%(n)d is open now.", "%(n)d are open now.", invitations) % {"n": invitations}
    return text


@require_http_methods(["GET", "HEAD", "POST"])
@console
def sign_up(request: ConsoleRequest) -> HttpResponse:
    """Who becomes a member. Letting more people in takes a fresh proof."""
    only_owners(request)
    tenant = request.console_tenant
    context = around(request, "settings_sign_up")
    rules = tenant.rules
    names = ("sign_up", "sign_up_domains", "approval")
    form = SignUpPolicyForm(request.POST or None, initial={name: getattr(rules, name) for name in names})
    if request.method == "POST" and form.is_valid():
        if replace(rules, **form.cleaned_data).is_weaker_than(rules) and (
            asked := question(request, _("You are about to let more people in."))
        ):
            return asked
        return _saved(request, tenancy.change(tenant, {"rules": form.cleaned_data}, by=actor_of(request)), "console_settings_sign_up")
    form = shown(form, may_change=context["may_change"])  # type: ignore[assignment]
    context["form"] = form
    context["options"] = [{"radio": radio, "hint": _means(tenant, str(radio.data["value"]))} for radio in form["sign_up"]]
    context["join_requests"] = tenant.join_requests.count()
    return render(request, "console/settings/sign_up.html", context, status=422 if form.errors else 200)
