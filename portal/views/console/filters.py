"""The criteria of the sessions' list in words: what can be chosen, and what is chosen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from identity.listing import FACTORS, Criteria, span
from identity.models import Session
from portal.views.show import badge
from tenants.models import Membership

_OLDER = ("1h", "8h", "1d", "7d", "14d")
_IDLE = ("15m", "1h", "8h", "1d", "7d")


@dataclass(frozen=True, slots=True)
class Select:
    """One list to choose from."""

    name: str
    label: str
    anything: str  # what it says while nothing is chosen
    options: list[tuple[str, str]]
    chosen: str


@dataclass(frozen=True, slots=True)
class Token:
    """What is asked for now; its address is the list without it."""

    label: str
    url: str


def selects(criteria: Criteria, *, ended: bool) -> list[Select]:
    """What can be asked of live sessions, or of ended ones."""
    factor = Select("factor", _("Factor"), _("Any factor"), [(each, _factor(each)) for each in FACTORS], criteria.factor)
    device = Select("device", _("Device"), _("Any device"), list(_devices().items()), criteria.device)
    if ended:
        reasons = [(each.value, str(each.label)) for each in Session.Reason if each is not Session.Reason.PROBE]
        return [Select("ended", _("Why it ended"), _("Any reason"), reasons, criteria.ended), factor, device]
    return [
        factor,
        Select("older", _("Signed in"), _("Signed in any time"), _spans(_OLDER, criteria.older, _older), criteria.older),
        Select("idle", _("Last seen"), _("Seen any time"), _spans(_IDLE, criteria.idle, _idle), criteria.idle),
        device,
        Select("role", _("Role"), _("Any role"), [(each.value, str(each.label)) for each in Membership.Role], criteria.role),
    ]


def tokens(criteria: Criteria, address: Callable[[Criteria], str]) -> list[Token]:
    """What is asked for, each with the address of the list without it."""
    words = {
        "q": criteria.q,
        "person": _("Person: %(name)s") % {"name": criteria.person},
        "factor": _factor(criteria.factor),
        "older": _older(criteria.older),
        "idle": _idle(criteria.idle),
        "device": _devices().get(criteria.device, ""),
        "role": _("Role: %(role)s") % {"role": dict(Membership.Role.choices).get(criteria.role, "")},
        "ended": dict(Session.Reason.choices).get(criteria.ended, ""),
    }
    return [Token(str(words[name]), address(replace(criteria, **{name: ""}))) for name in criteria.as_query()]


def in_words(criteria: Criteria) -> str:
    """“Password only, Not seen for 1 hour”."""
    return ", ".join(token.label for token in tokens(criteria, lambda less: ""))


def _factor(value: str) -> str:
    return badge([value]).text


def _devices() -> dict[str, str]:
    return {"computer": _("Computer"), "phone": _("Phone"), "tablet": _("Tablet"), "other": _("Other device")}


def _spans(usual: tuple[str, ...], chosen: str, label: Callable[[str], str]) -> list[tuple[str, str]]:
    """The usual ones, and the one in the address, whatever it is."""
    every = sorted({*usual, chosen} - {""}, key=lambda text: span(text) or timedelta())
    return [(each, label(each)) for each in every]


def _older(text: str) -> str:
    return _("Signed in over %(span)s ago") % {"span": _long(text)}


def _idle(text: str) -> str:
    return _("Not seen for %(span)s") % {"span": _long(text)}


def _long(text: str) -> str:
    n = int(text[:-1] or 0)
    match text[-1:]:
        case "m":
            return ngettext("%(n)d minute", "%(n)d minutes", n) % {"n": n}
        case "h":
            return ngettext("%(n)d hour", "%(n)d hours", n) % {"n": n}
    return ngettext("%(n)d day", "%(n)d days", n) % {"n": n}
