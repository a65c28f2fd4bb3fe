"""One's own activity: what the audit log has about a person, in words for that person. A kind without words shows nothing of its inside."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as lazy
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from identity.devices import device
from identity.events import COMMAND_LINE
from identity.models import Event, Session, User
from portal.access import PortalRequest, signed_in
from portal.paging import Order, page_of
from portal.views.show import badge
from tenants.models import Membership

Reason = Session.Reason
NEWEST = Order("pk", descending=True, is_time=False)

# What a kind of event is called, for the person whom it is about. %(who)s: whoever did it; a place: a tenant's name, or Gatehouse.
WORDS: dict[str, Any] = {
    "sign_in": lazy("Signed in."),
    "sign_in_failed": lazy("Somebody typed a wrong password for your account."),
    "code_failed": lazy("A wrong code was typed, after the right password."),
    "branch_opened": lazy("Opened %(place)s."),
    "step_up": lazy("Confirmed that it is you."),
    "step_up_failed": lazy("A wrong password or code was typed where Gatehouse asked to confirm that it is you."),
    "admission_refused": lazy("A place was not open to you."),
    "hand_off_refused": lazy("The way to %(place)s did not open: its link was too old, used before, or of another browser."),
    "password_changed": lazy("The password was changed."),
    "password_change": lazy("Confirmed that it is you, to change the password."),
    "password_change_failed": lazy("A wrong current password was typed where the password can be changed."),
    "locked_out": lazy("Signing in %(bucket)s was stopped until %(until)s, after several wrong tries."),
    "lockout_released": lazy("Signing in %(bucket)s was opened again before its time."),
    "factor_enrolled": lazy("The authenticator “%(name)s” was set up."),
    "factor_removed": lazy("The authenticator “%(name)s” was removed."),
    "factors_reset": lazy("Every second factor of your account was removed."),
    "factor_unreadable": lazy("The authenticator “%(authenticator)s” could not be used: what is stored of it cannot be read."),
    "enrolment_failed": lazy("A wrong code was typed while an authenticator was being set up."),
    "recovery_codes_made": lazy("Recovery codes were made; any earlier ones are worthless."),
    "recovery_code_used": lazy("A recovery code was used."),
    "browser_trusted": lazy("A browser was trusted: it needs no code until %(until)s."),
    "trust_revoked": lazy("No browser is trusted any more: each needs a code again."),
    "device_new": lazy("Signed in with a browser that was not known before."),
    "profile_changed": lazy("The profile was changed."),
    "username_changed": lazy("The user name was changed."),
    "data_exported": lazy("Everything about you was downloaded as a file."),
    "deletion_asked": lazy("The account was closed, to be deleted seven days later."),
    "deletion_undone": lazy("The account stays: it is not deleted."),
    "account_deleted": lazy("The account was deleted."),
    "member_left": lazy("You left %(place)s."),
    "signed_up": lazy("The account was made."),
    "email_proven": lazy("You proved that the e-mail address is yours."),
    "email_change_asked": lazy("Another e-mail address was asked for."),
    "email_change_dropped": lazy("The change of the e-mail address was dropped."),
    "email_changed": lazy("The e-mail address was changed."),
    "email_taken_back": lazy("The e-mail address from before was taken back."),
    "user_added": lazy("The account was made."),
    "user_activated": lazy("The account was opened again."),
    "user_deactivated": lazy("The account was closed."),
    "password_link_made": lazy("A link was made with which you can set a password."),
    "operator_granted": lazy("You became an operator."),
    "operator_revoked": lazy("You are an operator no longer."),
    "member_added": lazy("You belong to %(place)s now, as %(role)s."),
    "member_removed": lazy("You belong to %(place)s no longer."),
    "member_role_changed": lazy("Your role at %(place)s is %(role)s now."),
    "member_blocked": lazy("You were blocked at %(place)s."),
    "member_unblocked": lazy("You may enter %(place)s again."),
    "group_member_added": lazy("You were put into a group at %(place)s."),
    "group_member_removed": lazy("You were taken out of a group at %(place)s."),
    "invited": lazy("You invited somebody to %(place)s."),
    "invitation_revoked": lazy("You took back an invitation to %(place)s."),
    "invitation_failed": lazy("A link of an invitation was tried that opens nothing."),
    "joined": lazy("You belong to %(place)s now, as %(role)s."),
    "join_asked": lazy("You asked to belong to %(place)s."),
    "join_declined": lazy("You were not let into %(place)s."),
    "foreign_person": lazy("You named somebody who is not of %(place)s. Nothing was changed."),
    "sessions_ended": lazy("Sessions of yours were ended."),
    "not_me": lazy("You told us that a sign-in was somebody else's: it was ended, and the password is worthless."),
    "not_me_told": lazy("The people who run %(place)s were told that a sign-in was somebody else's."),
    "mail_failed": lazy("A mail to you could not be delivered."),
    "app_added": lazy("You added an app at %(place)s."),
    "app_changed": lazy("You changed an app of %(place)s."),
    "app_removed": lazy("You removed an app of %(place)s."),
    "group_added": lazy("You added a group at %(place)s."),
    "group_renamed": lazy("You renamed a group of %(place)s."),
    "group_removed": lazy("You removed a group of %(place)s."),
    "events_exported": lazy("You took a copy of the log of %(place)s."),
    "foreign_app": lazy("You named an app that is not of %(place)s. Nothing was changed."),
    "foreign_group": lazy("You named a group that is not of %(place)s. Nothing was changed."),
    "foreign_event": lazy("You asked for an event that is not of %(place)s. Nothing was shown."),
    "session_reported": lazy("Somebody who runs %(place)s reported a session of yours as compromised."),
    "foreign_session": lazy("You named a session that is not of %(place)s. Nothing was ended."),
    "tenant_frozen": lazy("You froze sign-ins at %(place)s."),
    "tenant_unfrozen": lazy("You lifted the freeze of %(place)s."),
    "everything_ended": lazy("You ended every session at %(place)s."),
    "proof_demanded": lazy("You asked everybody at %(place)s for a fresh proof."),
    "demand_lifted": lazy("You no longer ask everybody at %(place)s for a fresh proof."),
}
BY_ME = {
    "foreign_host": lazy("You named a host that is not of %(place)s. Nothing was changed."),
    "foreign_lockout": lazy("You named somebody who is not locked out of %(place)s. Nobody was let in."),
    "member_removed": lazy("You removed somebody from %(place)s."),
    "member_role_changed": lazy("You changed the role of somebody at %(place)s."),
    "member_blocked": lazy("You blocked somebody at %(place)s."),
    "member_unblocked": lazy("You lifted a block of somebody at %(place)s."),
    "group_member_added": lazy("You put somebody into a group at %(place)s."),
    "group_member_removed": lazy("You took somebody out of a group at %(place)s."),
    "joined": lazy("You let somebody into %(place)s."),
    "join_declined": lazy("You did not let somebody into %(place)s."),
    "session_ended": lazy("You ended a session of somebody else at %(place)s."),
    "mass_end_asked": lazy("You ended many sessions at %(place)s at once."),
    "session_reported": lazy("You reported a session at %(place)s as compromised."),
    "lockout_released": lazy("You let somebody else sign in again."),
    "factors_reset": lazy("You removed somebody else's second factors."),
    "password_changed": lazy("You set somebody else's password."),
}
ENDS: dict[str, Any] = {
    Reason.SIGNED_OUT: lazy("Signed out of %(place)s."),
    Reason.BY_PERSON: lazy("You ended a session of yours at %(place)s."),
    Reason.BY_MAIL: lazy("Your session at %(place)s ended by a link that was mailed to you."),
    Reason.BY_ADMIN: lazy("%(who)s ended your session at %(place)s."),
    Reason.BY_OPERATOR: lazy("%(who)s ended your session at %(place)s."),
    Reason.PASSWORD: lazy("Your session at %(place)s ended: the password was changed."),
    Reason.FACTORS: lazy("Your session at %(place)s ended: the second factor was changed."),
    Reason.POLICY: lazy("Your session at %(place)s ended: a second factor is asked for there now."),
    Reason.DEACTIVATED: lazy("Your session at %(place)s ended: the account was closed."),
    Reason.DELETED: lazy("Your session at %(place)s ended: the account is to be deleted."),
    Reason.BLOCKED: lazy("Your session at %(place)s ended: you were blocked there."),
    Reason.REMOVED: lazy("Your session at %(place)s ended: you belong to it no longer."),
    Reason.SUSPENDED: lazy("Your session at %(place)s ended: the place was suspended."),
    Reason.HOST: lazy("Your session at %(place)s ended: the address at which it was opened was changed or removed."),
    Reason.REPLACED: lazy("Your session at %(place)s ended: somebody else signed in with the same browser."),
    Reason.IDLE: lazy("Your session at %(place)s ended after a long pause."),
    Reason.EXPIRED: lazy("Your session at %(place)s ended: it had reached its time limit."),
}
REFUSALS = {
    "blocked": lazy("%(place)s did not open: you are blocked there."),
    "suspended": lazy("%(place)s did not open: it is suspended."),
    "frozen": lazy("%(place)s did not open: sign-ins were frozen there."),
}
BUCKETS = {
    "person": lazy("from browsers that are not known"),
    "device": lazy("from a browser of yours"),
    "factor": lazy("with a second factor"),
}
ROLES: dict[str, Any] = dict(Membership.Role.choices)
# Where the reason stands that a person reads.
NOTES = {"session_ended": "note", "sessions_ended": "reason", "factors_reset": "reason", "lockout_released": "reason"}
NOTES |= {"member_blocked": "reason", "member_removed": "reason"}
NOTES |= dict.fromkeys(("tenant_frozen", "everything_ended", "proof_demanded"), "note")
NOT_FOR_THE_SUBJECT = {"foreign_lockout"}  # an admin reached for somebody of another tenant, and got nothing
DEVICE_IS_OF = {"session_ended"}  # it is the session's device that matters, not that of whoever ended it


@dataclass(slots=True)
class Line:
    at: datetime
    text: str
    note: str
    details: list[str]
    address: str
    times: int = 1
    first: datetime | None = None  # of several that say the same


@dataclass(slots=True)
class Day:
    name: str
    lines: list[Line] = field(default_factory=list)


@require_safe
@signed_in
def page(request: PortalRequest) -> HttpResponse:
    me = request.user
    rows = Event.objects.select_related("tenant", "actor")
    found = page_of(
        rows.filter(subject=me.pk).exclude(kind__in=NOT_FOR_THE_SUBJECT),
        NEWEST,
        also=rows.filter(actor=me.pk).exclude(subject=me.pk),
        after=request.GET.get("after", ""),
        before=request.GET.get("before", ""),
    )
    here = reverse("activity")
    context = {
        "here": "activity",
        "days": _days(_lines(found.rows, me)),
        "newer_url": f"{here}?before={found.newer}" if found.newer else "",
        "older_url": f"{here}?after={found.older}" if found.older else "",
    }
    return render(request, "account/activity.html", context)


def _days(lines: Iterable[Line]) -> list[Day]:
    """The lines by days; one after another that say the same are one line."""
    days: dict[date, Day] = {}
    for line in lines:
        day = days.setdefault(line.at.date(), Day(_day(line.at)))
        last = day.lines[-1] if day.lines else None
        if last and (last.text, last.note, last.details, last.address) == (line.text, line.note, line.details, line.address):
            last.times, last.first = last.times + 1, line.at
        else:
            day.lines.append(line)
    return list(days.values())


def _day(at: datetime) -> str:
    today = timezone.localdate()
    if at.date() in {today, today - timedelta(days=1)}:
        return _("Today") if at.date() == today else _("Yesterday")
    # Translators: Django's date format for a day of this year, then of another year.
    return date_format(at, _("l, j F") if at.year == today.year else _("l, j F Y"))


def _lines(rows: list[Event], me: User) -> list[Line]:
    ended = [row.session for row in rows if row.kind in DEVICE_IS_OF and row.subject_id == me.pk]
    sessions = Session.objects.filter(user=me.pk).in_bulk([each for each in ended if each])
    return [_line(row, me, sessions) for row in rows]


def _line(event: Event, me: User, sessions: dict[UUID, Session]) -> Line:
    said = {name: value for name, value in event.data.items() if isinstance(value, str)} if isinstance(event.data, dict) else {}
    about_me = event.subject_id in {me.pk, None}
    words = _words(event, said, me) if about_me else BY_ME.get(event.kind)
    text = str(words or _("Something else was noted about your account (%(reference)s).")) % _values(event, said)
    session = sessions.get(event.session) if event.session and event.kind in DEVICE_IS_OF else None
    # What somebody else wrote as a reason; what the program notes beside one's own doing says no more than the line.
    note = said.get(NOTES.get(event.kind, ""), "") if about_me and event.actor_id != me.pk else ""
    by = [] if "%(who)s" in str(words) else _by(event, said, me)
    # With which browser and from where: if it was this person, or nobody knows who. Never an admin's.
    source = session or (event if event.actor_id in {me.pk, None} else None)
    browser = [device(source.user_agent).label] if source and source.user_agent else []
    address = source.ip or "" if source else ""
    return Line(timezone.localtime(event.at), text, note, by + _how(event) + browser, address)


def _words(event: Event, said: dict[str, str], me: User) -> Any:
    if event.kind == "session_ended":
        reason = said.get("reason", "")
        if reason in {Reason.BY_ADMIN, Reason.BY_OPERATOR} and event.actor_id == me.pk:
            reason = Reason.BY_PERSON
        return ENDS.get(reason, lazy("Your session at %(place)s ended."))
    if event.kind == "admission_refused" and event.tenant:
        return REFUSALS.get(said.get("verdict", ""), WORDS[event.kind])
    return WORDS.get(event.kind)


def _values(event: Event, said: dict[str, str]) -> dict[str, Any]:
    """What the words may name; each is there, whatever the event has."""
    data = event.data if isinstance(event.data, dict) else {}
    after = data.get("after")
    role = after.get("role") if isinstance(after, dict) else None
    return {
        "reference": event.reference,
        "place": event.tenant.name if event.tenant else _("a place that is no more") if event.tenant_id else "Gatehouse",
        "who": event.actor.display_name if event.actor else _("An admin") if said.get("reason") == Reason.BY_ADMIN else _("An operator"),
        "role": str(ROLES.get(role, _("member")) if isinstance(role, str) else _("member")).lower(),
        "name": said.get("name") or _("without a name"),
        "authenticator": said.get("authenticator") or _("without a name"),
        "bucket": BUCKETS.get(said.get("bucket", ""), _("with this account")),
        "until": _until(said.get("until", ""), event.at),
    }


def _until(text: str, since: datetime) -> str:
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        return _("later")
    local = timezone.localtime(at)
    return f"{local:%H:%M}" if local.date() == timezone.localtime(since).date() else date_format(local, _("j F Y"))


def _by(event: Event, said: dict[str, str], me: User) -> list[str]:
    """By whom, where the words do not say so."""
    if event.actor and event.actor_id != me.pk:
        return [_("by %(who)s") % {"who": event.actor.display_name}]
    return [_("by an operator")] if said.get("source") == COMMAND_LINE else []


def _how(event: Event) -> list[str]:
    """How a sign-in was proven; how many recovery codes are left."""
    data = event.data if isinstance(event.data, dict) else {}
    methods, left = data.get("methods"), data.get("left")
    if event.kind == "sign_in" and isinstance(methods, list):
        return [badge(methods).text]
    if event.kind == "recovery_code_used" and isinstance(left, int):
        return [ngettext("%(n)d is left", "%(n)d are left", left) % {"n": left}]
    return []
