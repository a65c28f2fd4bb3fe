"""The people of a tenant: members, who is invited, who waits; and what an admin may do about each."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, Max, OuterRef, QuerySet, Value
from django.db.models.functions import Concat
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from identity import clock, events, invitations, journal, members, sessions
from identity.devices import device
from identity.invitations import Result
from identity.models import Event, Session, TotpDevice, User, fold
from portal.access import ConsoleRequest, actor_of, console
from portal.answers import leave_for
from portal.console_forms import EndForm, InviteForm
from portal.paging import Order, page_of
from portal.stepup import question
from portal.views.console import events as log
from portal.views.console import frame
from portal.views.show import Row as SessionRow
from tenants.models import Group, Invitation, JoinRequest, Membership
from tenants.text import clean

Role = Membership.Role
BY_NAME = Order("user__name_key", descending=False, is_time=False)
# The same by no index: along the one of names, PostgreSQL would walk past everybody to meet the few admins.
BY_NAME_OF_FEW = Order("sorted_name", descending=False, is_time=False)
NEWEST = Order("pk", descending=True, is_time=False)
OLDEST = Order("pk", descending=False, is_time=False)
STATES = {"members": lazy("Members"), "blocked": lazy("Blocked"), "invited": lazy("Invited"), "waiting": lazy("Waiting")}
OF_MEMBERS = ("members", "blocked")  # the states whose rows are memberships
FACTORS = {"none": lazy("Without a second factor"), "some": lazy("With a second factor")}
ROLE_FIELD = "only_role"  # how a form carries the filter “role” along: there, “role” is a verb


# --- The list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list: a member, an invitation, or somebody who waits."""

    id: str
    name: str
    detail: str
    role: str
    since: datetime
    until: datetime | None = None
    is_over: bool = False  # an invitation whose time is up, or whose inviter may not invite any more
    groups: str = ""
    has_factor: bool = False
    seen: datetime | None = None
    is_live: bool = False
    state: str = ""  # "blocked", "deactivated", "active"
    is_me: bool = False
    may_manage: bool = False


@require_safe
@gzip_page
@console
def page(request: ConsoleRequest) -> HttpResponse:
    """Members, who is invited, who waits: search, filters, keyset pages, exact counts; the whole state is in the URL."""
    context = _list(request, _asked(request.GET), request.GET)
    part = request.htmx and request.htmx.target == "people"
    return render(request, "console/people/_people.html" if part else "console/people/people.html", context)


def _asked(given: Any, role: str = "role") -> dict[str, str]:
    """What is listed: by state, words, role, factor and group; what makes no sense is left out."""
    state, group = given.get("state", ""), given.get("group", "")
    asked = {"state": state if state in STATES and state != "members" else "", "q": " ".join(given.get("q", "").split())[:100]}
    if state not in {"invited", "waiting"}:
        asked["role"] = given.get(role, "") if given.get(role) in Role.values else ""
        asked["factor"] = given.get("factor", "") if given.get("factor") in FACTORS else ""
        asked["group"] = group if group.isascii() and group.isdigit() and len(group) < 19 else ""
    return {name: value for name, value in asked.items() if value}


def _list(request: ConsoleRequest, asked: dict[str, str], given: Any) -> dict[str, Any]:
    """asked: as `_asked` has it; given: where the page's cursor stands."""
    tenant = request.console_tenant
    state = asked.get("state", "members")
    members_here = Membership.objects.filter(tenant=tenant).select_related("user").prefetch_related("groups")
    everything: dict[str, QuerySet[Any]] = {
        "members": members_here,
        "blocked": members_here.filter(blocked_at__isnull=False),
        "invited": Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None).select_related("invited_by"),
        "waiting": JoinRequest.objects.filter(tenant=tenant).select_related("user"),
    }
    totals = {name: rows.count() for name, rows in everything.items()}
    groups = list(tenant.groups.all()) if state in OF_MEMBERS else []
    tokens = _tokens(asked, groups)
    matching = _matching(everything[state], asked)
    order = {"invited": NEWEST, "waiting": OLDEST}.get(state, BY_NAME)
    listed = matching
    if asked.get("role", Role.MEMBER) != Role.MEMBER:
        listed, order = matching.annotate(sorted_name=Concat("user__name_key", Value(""))), BY_NAME_OF_FEW
    found = page_of(listed, order, after=given.get("after", ""), before=given.get("before", ""))
    return {
        **frame.of_tenant(request, "people", totals["members"]),
        "state": state,
        "asked": asked,
        "role_field": ROLE_FIELD,
        "tabs": [
            {"name": name, "label": label, "count": totals[name], "url": _address(request, {"state": name} if name != "members" else {})}
            for name, label in STATES.items()
        ],
        "roles": Role.choices if state in OF_MEMBERS else [],
        "factors": FACTORS.items(),
        "groups": [{"value": str(each.pk), "label": each.name} for each in groups],
        "rows": _rows(request, state, found.rows),
        "total": totals[state],
        "matching": matching.count() if tokens else totals[state],
        "tokens": [{"label": label, "url": _address(request, {**asked, name: ""})} for name, label in tokens.items()],
        "chosen": len(asked.keys() - {"q", "state"}),
        "all_url": _address(request, {"state": asked.get("state", "")}),
        "page": {
            "newer_url": _address(request, {**asked, "before": found.newer}) if found.newer else "",
            "older_url": _address(request, {**asked, "after": found.older}) if found.older else "",
            "count_here": len(found.rows),
        },
    }


def _matching(rows: QuerySet[Any], asked: dict[str, str]) -> QuerySet[Any]:
    if "q" in asked:
        searched = "email_key__contains" if asked.get("state") == "invited" else "user__search_text__contains"
        rows = rows.filter(**{searched: fold(asked["q"])})
    if "role" in asked:
        rows = rows.filter(role=asked["role"])
    if "factor" in asked:
        enrolled = Exists(TotpDevice.objects.filter(user=OuterRef("user"), confirmed=True))
        rows = rows.filter(enrolled if asked["factor"] == "some" else ~enrolled)
    if "group" in asked:  # one of elsewhere has no members here
        rows = rows.filter(groups=int(asked["group"]))
    return rows


def _tokens(asked: dict[str, str], groups: list[Group]) -> dict[str, Any]:
    """Each filter in words."""
    names = {str(each.pk): each.name for each in groups}
    labels: dict[str, Any] = {"q": asked.get("q")}
    if "role" in asked:
        labels["role"] = Role(asked["role"]).label
    if "factor" in asked:
        labels["factor"] = FACTORS[asked["factor"]]
    if "group" in asked:
        labels["group"] = _("In %(group)s") % {"group": names.get(asked["group"], _("a group that is no more"))}
    return {name: label for name, label in labels.items() if label}


def _address(request: ConsoleRequest, asked: dict[str, str]) -> str:
    here, kept = reverse("console_people", args=[request.console_tenant.slug]), {name: value for name, value in asked.items() if value}
    return f"{here}?{urlencode(kept)}" if kept else here


def _rows(request: ConsoleRequest, state: str, found: list[Any]) -> list[Row]:
    if state in OF_MEMBERS:
        return _members(request, found)
    if state == "invited":
        by, backed = actor_of(request), invitations.backed(found)
        return [
            Row(
                id=str(each.pk),
                name=each.email,
                detail=_("invited by %(who)s") % {"who": each.invited_by.display_name} if each.invited_by else _("invited by an operator"),
                role=each.get_role_display(),
                since=each.sent_at,
                until=each.expires_at,
                is_over=each.expires_at <= clock.now() or each.pk not in backed,
                may_manage=by.may_touch(each.role),
            )
            for each in found
        ]
    return [
        Row(
            id=each.user.username,
            name=each.user.display_name,
            detail=_reached_at(each.user),
            role=str(Role.MEMBER.label),
            since=each.created_at,
            may_manage=True,
        )
        for each in found
    ]


def _members(request: ConsoleRequest, found: list[Membership]) -> list[Row]:
    tenant, by = request.console_tenant, actor_of(request)
    people = [each.user_id for each in found]
    enrolled = set(TotpDevice.objects.filter(user__in=people, confirmed=True).values_list("user_id", flat=True))
    seen = dict(
        Session.objects.filter(tenant=tenant, user__in=people)
        .exclude(end_reason=Session.Reason.PROBE)
        .order_by()
        .values_list("user_id")
        .annotate(Max("last_seen_at"))
    )
    live = set(Session.objects.alive_at(tenant).filter(user__in=people).order_by().values_list("user_id", flat=True))
    return [
        Row(
            id=each.user.username,
            name=each.user.display_name,
            detail=_reached_at(each.user),
            role=each.get_role_display(),
            since=each.created_at,
            groups=", ".join(group.name for group in each.groups.all()),
            has_factor=each.user_id in enrolled,
            seen=seen.get(each.user_id),
            is_live=each.user_id in live,
            state=members.state(each)["state"],
            is_me=each.user_id == request.user.pk,
            may_manage=by.may_touch(each.role),
        )
        for each in found
    ]


def _reached_at(person: User) -> str:
    """An address that nobody has proven to be this person's is not shown as if it were."""
    return person.email if person.email_verified_at and person.email else person.username


# --- One of them --------------------------------------------------------------------------------------------------

NEWEST_EVENTS, NEWEST_SESSIONS = 10, 10


@require_safe
@console
def person(request: ConsoleRequest, username: str) -> HttpResponse:
    """One member: role, groups, sessions here, the newest events here, and what may be done."""
    tenant, membership = request.console_tenant, _membership(request, username)
    them = membership.user
    live = Session.objects.alive_at(tenant).filter(user=them).select_related("user", "ended_by")
    rows = journal.matching(tenant, journal.Criteria(people=(them.pk,))).order_by("-pk")[:NEWEST_EVENTS]
    context = {
        "row": _members(request, [membership])[0],
        "person": them,
        "them": membership,
        "groups": list(membership.groups.all()),
        "live": live.count(),
        "sessions": [SessionRow.of(row) for row in live.order_by("-last_seen_at")[:NEWEST_SESSIONS]],
        "events": [log.row_of(tenant, entry) for entry in journal.entries(tenant, list(rows))],
        "action": reverse("console_people_act", args=[tenant.slug]),
    }
    return render(request, "console/people/person.html", {**frame.of_tenant(request, "people"), **context})


# --- Inviting -----------------------------------------------------------------------------------------------------

SAID: dict[Result, Any] = {
    Result.SENT: lazy("The invitation is on its way."),
    Result.AGAIN: lazy("Invited again: the newest mail counts, the link from before is worthless."),
    Result.JUST_NOW: lazy("Invited a moment ago, or many times in the last hour; nothing more was sent."),
    Result.MEMBER: lazy("Belongs to this place already."),
    Result.MALFORMED: lazy("This is no complete address. Correct it below and send it again."),
    Result.ABOVE: lazy("An owner has invited this address with a higher role. Only an owner changes that."),
    Result.CLOSED: lazy("This place takes nobody in at present. An operator can change that."),
}


@require_http_methods(["GET", "HEAD", "POST"])
@console
def invite(request: ConsoleRequest) -> HttpResponse:
    """One address or a pasted list: each has its own result, and what was no address can be corrected."""
    by = actor_of(request)
    roles = [(value, label) for value, label in Role.choices if by.may_touch(value)]
    form = InviteForm(roles, request.POST or None, initial={"role": Role.MEMBER.value})
    context: dict[str, Any] = {**frame.of_tenant(request, "people"), "is_closed": request.console_tenant.rules.sign_up == "closed"}
    if request.method == "POST" and form.is_valid():
        role = form.cleaned_data["role"]
        lines = [invitations.invite(request.console_tenant, each, role, by=by) for each in form.cleaned_data["addresses"]]
        sent = sum(line.result in {Result.SENT, Result.AGAIN} for line in lines)
        context["lines"] = [{"address": line.address[:254], "text": SAID[line.result], "is_good": line.is_good} for line in lines]
        context["sum"] = (
            ngettext("%(n)d invitation sent", "%(n)d invitations sent", sent) % {"n": sent} if sent else _("No invitation was sent")
        )
        wrong = "\n".join(line.address for line in lines if line.result is Result.MALFORMED)
        form = InviteForm(roles, initial={"role": role, "addresses": wrong})
    return render(request, "console/people/invite.html", {**context, "form": form})


# --- Acting -------------------------------------------------------------------------------------------------------


@require_POST
@console
def act(request: ConsoleRequest) -> HttpResponse:
    """One verb for one person or invitation: the name of the button says which verb, its value for whom. A foreign id is a 404."""
    verb = next((name for name in VERBS if name in request.POST), None)
    if verb is None:
        raise Http404
    try:
        return VERBS[verb](request, request.POST[verb])
    except members.NotAllowed:
        raise PermissionDenied from None
    except members.LastOwner:
        return _done(request, _("This is the last owner. Make somebody else an owner first."), good=False)
    except members.NoMember:
        return _done(request, _("That was changed meanwhile by somebody else. Here is how it is now."), good=False)


def _membership(request: ConsoleRequest, name: str) -> Membership:
    tenant = request.console_tenant
    found = Membership.objects.filter(tenant=tenant, user__name_key=fold(name)).select_related("user").first()
    if found is None:
        raise _foreign(request, name)
    found.tenant = tenant
    return found


def _foreign(request: ConsoleRequest, named: str) -> Http404:
    """Somebody named what is not of this tenant: noted by number, and answered as if it did not exist."""
    person = User.objects.filter(name_key=fold(named)).first()
    events.record("foreign_person", request=request, tenant=request.console_tenant, actor=request.user, named=person.pk if person else None)
    return Http404()


def _manage(request: ConsoleRequest, name: str) -> HttpResponse:
    """What may be done about a member, to choose from."""
    membership, by = _membership(request, name), actor_of(request)
    if not by.may_touch(membership.role):
        raise members.NotAllowed
    context = {
        "person": membership.user,
        "them": membership,
        "is_me": membership.user_id == request.user.pk,
        "roles": Role.choices if by.may_change_roles else [],
    }
    return _ask(request, "manage", context)


def _end(request: ConsoleRequest, name: str) -> HttpResponse:
    """Every session of a member here; the way back in stays open."""
    membership = _membership(request, name)
    person, tenant = membership.user, request.console_tenant
    live = Session.objects.alive_at(tenant).filter(user=person)
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        sample = [{"device": device(row.user_agent).label, "address": row.ip or "", "seen": row.last_seen_at} for row in live[:10]]
        n = live.count()
        context = {"person": person, "n": n, "sample": sample, "more": n - len(sample), "is_me": person.pk == request.user.pk}
        return _ask(request, "end", {**context, **_typed(form)})
    reason = Session.Reason.BY_ADMIN if request.membership and request.membership.may_administer else Session.Reason.BY_OPERATOR
    note = clean(form.cleaned_data["reason"], 200)
    done = sessions.end_here(person, tenant, by=request.user, reason=reason, note=note, request=request)
    return _done(request, f"{person.display_name}: {_over(done)}")


def _role(request: ConsoleRequest, name: str) -> HttpResponse:
    membership, by, role = _membership(request, name), actor_of(request), request.POST.get("to", "")
    if role not in Role.values:
        raise Http404
    if not by.may_change_roles:
        raise members.NotAllowed
    person, label = membership.user, Role(role).label
    if asked := question(request, _("You are about to change the role of %(name)s.") % {"name": person.display_name}):
        return asked
    done = members.change_role(request.console_tenant, person, role, by=by)
    said = {"name": person.display_name, "role": label}
    if not done.is_one:
        return _done(request, _("%(name)s has that role already: %(role)s.") % said)
    text = _("The role of %(name)s is now: %(role)s. It holds with the next click.") % said
    if done.ended:
        n = len(done.ended)
        text += " " + ngettext("%(n)d session without a second factor is over.", "%(n)d sessions without a second factor are over.", n) % {
            "n": n
        }
    return _done(request, text)


def _block(request: ConsoleRequest, name: str) -> HttpResponse:
    membership, by = _membership(request, name), actor_of(request)
    if not by.may_touch(membership.role) or membership.user_id == request.user.pk:
        raise members.NotAllowed
    form = EndForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return _ask(request, "block", {"person": membership.user, **_typed(form)})
    person = membership.user
    done = members.block(request.console_tenant, person, by=by, note=clean(form.cleaned_data["reason"], 200))
    if not done.is_one:
        return _done(request, _("%(name)s is blocked here already.") % {"name": person.display_name})
    return _done(request, _("%(name)s is blocked here until you lift it.") % {"name": person.display_name} + " " + _over(done.ended))


def _unblock(request: ConsoleRequest, name: str) -> HttpResponse:
    person = _membership(request, name).user
    members.unblock(request.console_tenant, person, by=actor_of(request))
    return _done(request, _("%(name)s may come in again, with a fresh proof.") % {"name": person.display_name})


def _remove(request: ConsoleRequest, name: str) -> HttpResponse:
    membership, by = _membership(request, name), actor_of(request)
    if not by.may_touch(membership.role):
        raise members.NotAllowed
    form = EndForm(request.POST if "reason" in request.POST else None)
    person = membership.user
    if not form.is_valid():
        return _ask(request, "remove", {"person": person, "is_me": person.pk == request.user.pk, **_typed(form)})
    done = members.remove(request.console_tenant, person, by=by, note=clean(form.cleaned_data["reason"], 200))
    named = {"name": person.display_name, "tenant": request.console_tenant.name}
    text = _("%(name)s does not belong to %(tenant)s any more.") % named + " " + _over(done.ended)
    if person.pk == request.user.pk and not request.user.is_superuser:  # the console is no longer this person's
        messages.success(request, text)
        back = f"{reverse('home')}?places=1"
        return leave_for(request, back)
    return _done(request, text)


def _typed(form: EndForm) -> dict[str, str]:
    """What was typed as the reason, and what is wrong with it."""
    error = _("Say why: the person reads it, and it stays in the log.") if form.is_bound else ""
    return {"reason": form.data.get("reason", "") if form.is_bound else "", "error": error}


def _over(ended: list[Session]) -> str:
    n = len(ended)
    return ngettext("%(n)d session is over.", "%(n)d sessions are over.", n) % {"n": n} if n else _("No session was open here.")


def _resend(request: ConsoleRequest, number: str) -> HttpResponse:
    invitation = _invitation(request, number)
    line = invitations.resend(invitation, by=actor_of(request))
    if line is None:
        return _gone(request)
    return _done(request, f"{invitation.email}: {SAID[line.result]}", good=line.is_good)


def _revoke(request: ConsoleRequest, number: str) -> HttpResponse:
    invitation = _invitation(request, number)
    if not invitations.revoke(invitation, by=actor_of(request)):
        return _gone(request)
    return _done(request, _("The invitation of %(address)s is taken back; its link opens nothing.") % {"address": invitation.email})


def _invitation(request: ConsoleRequest, number: str) -> Invitation:
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    found = Invitation.objects.filter(tenant=request.console_tenant, pk=pk).first()
    if found is None:
        events.record("foreign_person", request=request, tenant=request.console_tenant, actor=request.user, invitation=pk)
        raise Http404
    found.tenant = request.console_tenant
    return found


def _gone(request: ConsoleRequest) -> HttpResponse:
    return _done(request, _("That invitation was accepted or taken back meanwhile."), good=False)


def _approve(request: ConsoleRequest, name: str) -> HttpResponse:
    return _decide(request, name, invitations.approve, _("%(name)s belongs to %(tenant)s now, and is told by mail."))


def _decline(request: ConsoleRequest, name: str) -> HttpResponse:
    return _decide(request, name, invitations.decline, _("%(name)s was not let in, and may ask again."))


def _decide(request: ConsoleRequest, name: str, verb: Callable[..., bool], text: str) -> HttpResponse:
    tenant = request.console_tenant
    waiting = JoinRequest.objects.filter(tenant=tenant, user__name_key=fold(name)).select_related("user").first()
    if waiting is None:
        # A double click, or another admin was first; a name that never waited here is foreign.
        person = User.objects.filter(name_key=fold(name)).first()
        decided = Event.objects.filter(tenant=tenant, subject=person, kind__in=["joined", "join_declined"]) if person else None
        if decided is None or not decided.exists():
            raise _foreign(request, name)
        return _done(request, _("That was decided already."), good=False)
    waiting.tenant = tenant
    if not verb(waiting, by=actor_of(request)):
        return _done(request, _("That was decided already."), good=False)
    return _done(request, text % {"name": waiting.user.display_name, "tenant": tenant.name})


VERBS: dict[str, Callable[[ConsoleRequest, str], HttpResponse]] = {
    "manage": _manage,
    "end": _end,
    "role": _role,
    "block": _block,
    "unblock": _unblock,
    "remove": _remove,
    "resend": _resend,
    "revoke": _revoke,
    "approve": _approve,
    "decline": _decline,
}


def _ask(request: ConsoleRequest, what: str, context: dict[str, Any]) -> HttpResponse:
    """A dialog, or the same as a page. It carries the list's state along."""
    around = {
        **frame.of_tenant(request, "people"),
        "what": what,
        "action": reverse("console_people_act", args=[request.console_tenant.slug]),
    }
    asked = _asked(request.POST, ROLE_FIELD)
    kept = {
        "asked": asked,
        "role_field": ROLE_FIELD,
        "on_page": request.POST.get("on_page", "")[:1],
        "back_url": _back(request, context["person"]),
    }
    return render(
        request, f"console/people/_person_{what}.html" if request.htmx else "console/people/person_ask.html", {**around, **kept, **context}
    )


def _back(request: ConsoleRequest, person: User | None = None) -> str:
    """The list as it was, or the page of the person whose button was pressed there."""
    tenant = request.console_tenant
    if "on_page" in request.POST and person and Membership.objects.filter(tenant=tenant, user=person).exists():
        return reverse("console_person", args=[tenant.slug, person.username])
    return _address(request, _asked(request.POST, ROLE_FIELD))


def _done(request: ConsoleRequest, text: str, *, good: bool = True) -> HttpResponse:
    """Say it; the list, or the page of the person, as it is now."""
    if request.htmx and "on_page" not in request.POST:
        context = {**_list(request, _asked(request.POST, ROLE_FIELD), request.POST), "text": text, "is_good": good}
        return render(request, "console/people/_people_done.html", context)
    (messages.success if good else messages.warning)(request, text)
    verb = next(name for name in VERBS if name in request.POST)
    return leave_for(request, _back(request, User.objects.filter(name_key=fold(request.POST[verb])).first()))
