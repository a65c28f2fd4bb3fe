"""The kinds of events in a tenant's log, in plain words and in groups, for its admins. One's own activity has words of its own."""

import re
from typing import Any

from django.utils.translation import gettext_lazy as _

Words = dict[str, Any]

SESSIONS: Words = {
    "branch_opened": _("Session opened"),
    "session_ended": _("Session ended"),
    "sessions_ended": _("Sessions ended from the command line"),
    "mass_end_asked": _("End of many sessions asked for"),
    "everything_ended": _("Every session ended"),
    "session_reported": _("Session reported as compromised"),
    "admission_refused": _("Entry refused"),
    "hand_off_refused": _("Sign-in link refused"),
    "hand_off_loop": _("Sign-in went in circles"),
    "duplicate_cookie": _("Two session cookies at once"),
    "not_me_told": _("Sign-in reported as somebody else’s"),
}
PEOPLE: Words = {
    "member_added": _("Member added"),
    "member_role_changed": _("Role changed"),
    "member_blocked": _("Member blocked"),
    "member_unblocked": _("Block lifted"),
    "member_removed": _("Member removed"),
    "member_left": _("Member left"),
    "invited": _("Invitation sent"),
    "invitation_revoked": _("Invitation taken back"),
    "joined": _("Joined"),
    "join_asked": _("Asked to join"),
    "join_declined": _("Not let in"),
}
RULES: Words = {
    "app_added": _("App added"),
    "app_changed": _("App changed"),
    "app_removed": _("App removed"),
    "group_added": _("Group added"),
    "group_renamed": _("Group renamed"),
    "group_removed": _("Group removed"),
    "group_member_added": _("Put into a group"),
    "group_member_removed": _("Taken out of a group"),
}
SETTINGS: Words = {
    "tenant_added": _("Tenant made"),
    "tenant_changed": _("Settings changed"),
    "tenant_suspended": _("Tenant suspended"),
    "tenant_resumed": _("Tenant opened again"),
    "host_added": _("Host added"),
    "host_removed": _("Host removed"),
    "host_approved": _("Host approved"),
    "host_changed": _("Cookie domain of a host changed"),
    "host_not_proven": _("Host not proven"),
}
SECURITY: Words = {
    "tenant_frozen": _("Sign-ins frozen"),
    "tenant_unfrozen": _("Freeze lifted"),
    "proof_demanded": _("Fresh proof demanded of everybody"),
    "demand_lifted": _("Demand of a fresh proof lifted"),
    "alarm": _("Alarm: many failed sign-ins"),
    "lockout_released": _("Lockout released"),
    "foreign_session": _("Session of elsewhere named"),
    "foreign_person": _("Person of elsewhere named"),
    "foreign_lockout": _("Lockout of elsewhere named"),
    "foreign_event": _("Event of elsewhere named"),
    "foreign_app": _("App of elsewhere named"),
    "foreign_group": _("Group of elsewhere named"),
    "foreign_host": _("Host of elsewhere named"),
    "csrf_refused": _("Form from elsewhere refused"),
    "mail_failed": _("Mail not delivered"),
    "events_exported": _("Events exported"),
    "log_pruned": _("Old events deleted"),
    "log_verified": _("Log verified"),
}
# A group is asked for by its name, which is no kind's.
GROUPS: dict[str, tuple[Any, Words]] = {
    "sessions": (_("Sessions"), SESSIONS),
    "people": (_("People"), PEOPLE),
    "rules": (_("Apps and groups"), RULES),
    "settings": (_("Settings"), SETTINGS),
    "security": (_("Security and log"), SECURITY),
}
WORDS: Words = {kind: words for _label, group in GROUPS.values() for kind, words in group.items()}


def said(kind: str) -> str:
    """A kind in words; one without words by its own name."""
    return str(WORDS.get(kind) or kind.replace("_", " ").capitalize())


def meant(asked: str) -> tuple[str, ...]:
    """The kinds that a filter's value stands for: those of a group, or the one of this name; () if it stands for none."""
    if asked in GROUPS:
        return tuple(GROUPS[asked][1])
    return (asked,) if re.fullmatch(r"[a-z_]{1,40}", asked) else ()


def label(asked: str) -> str:
    """What a filter's value is called."""
    return str(GROUPS[asked][0]) if asked in GROUPS else said(asked)
