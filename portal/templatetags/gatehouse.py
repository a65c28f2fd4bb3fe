"""What templates need beyond Django: our drawings, times in words, and a form control that names its hints."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext, ngettext

register = template.Library()

# Every drawing is a constant of this module: nothing from outside ever reaches mark_safe.
ICONS = {
    "apps": '<path d="M3 3h5.5v5.5H3zM11.5 3H17v5.5h-5.5zM3 11.5h5.5V17H3zM14.2 11.5V17M11.5 14.2H17"/>',
    "arrow": '<path d="M4 10h12M11.5 5.5 16 10l-4.5 4.5"/>',
    "check": '<path d="m4 10.5 4 4 8-9"/>',
    "clock": '<circle cx="10" cy="10" r="7"/><path d="M10 6v4.3l2.8 1.7"/>',
    "cross": '<path d="m5.5 5.5 9 9M14.5 5.5l-9 9"/>',
    "download": '<path d="M10 3v9.5M6 9l4 4 4-4M3.5 16.5h13"/>',
    "events": '<path d="M3 5h2M8 5h9M3 10h2M8 10h9M3 15h2M8 15h9"/>',
    "freeze": '<path d="M10 2.5v15M3.5 6.2l13 7.6M16.5 6.2l-13 7.6M8 4l2 2 2-2M8 16l2-2 2 2"/>',
    "groups": (
        '<circle cx="6" cy="6" r="2.5"/><circle cx="14" cy="6" r="2.5"/><circle cx="10" cy="14" r="2.5"/>'
        '<path d="M8.5 6h3M7.2 8.2l1.6 3.6M12.8 8.2l-1.6 3.6"/>'
    ),
    "laptop": '<rect x="4" y="4.5" width="12" height="8.5" rx="1"/><path d="M2 16h16"/>',
    "lock": '<rect x="4" y="9" width="12" height="8.5" rx="1.5"/><path d="M6.5 9V6.5a3.5 3.5 0 0 1 7 0V9M10 12.5v1.8"/>',
    "menu": '<path d="M3 6h14M3 10h14M3 14h14"/>',
    "overview": '<path d="M3 16.5h14M5 16.5v-5M9 16.5v-9M13 16.5v-7M16 16.5V4"/>',
    "people": (
        '<circle cx="7.5" cy="6.5" r="3"/><path d="M2 17c0-3.3 2.3-5.5 5.5-5.5S13 13.7 13 17M13 3.8a3 3 0 0 1 0 5.4M14.5 11.9'
        'c2.2.7 3.5 2.6 3.5 5.1"/>'
    ),
    "phone": '<rect x="6" y="2.5" width="8" height="15" rx="1.8"/><path d="M9.3 15h1.4"/>',
    "search": '<circle cx="9" cy="9" r="5"/><path d="m13 13 4 4"/>',
    "sessions": (
        '<circle cx="5.5" cy="4.5" r="2"/><path d="M5.5 6.5v8a2 2 0 0 0 2 2H11M5.5 10h5.5"/>'
        '<circle cx="13" cy="10" r="2"/><circle cx="13" cy="16.2" r="2"/>'
    ),
    "settings": '<path d="M3 6h7M14 6h3M3 14h3M10 14h7"/><circle cx="12" cy="6" r="2"/><circle cx="8" cy="14" r="2"/>',
    "shield": '<path d="M10 2.5 4 4.8v4.7c0 3.8 2.4 6.6 6 8 3.6-1.4 6-4.2 6-8V4.8z"/>',
    "tablet": '<rect x="4" y="3" width="12" height="14" rx="1.5"/><path d="M9.3 14.5h1.4"/>',
    "tenants": '<path d="M3 17V8.5a4 4 0 0 1 8 0V17zM11 17h6v-5.5a3 3 0 0 0-6-.5"/>',
    "warn": '<path d="M10 3.5 2.5 16.5h15zM10 8.5v3.5M10 14.4v.1"/>',
}
GATE = "M1 26V11a10 10 0 0 1 20 0v15h-5.5V11.5a4.5 4.5 0 0 0-9 0V26z"
VAULT = (
    '<path class="v1" d="M-35 860V395a235 235 0 0 1 470 0V860z"/>'
    '<path class="v2" d="M25 800V415a175 175 0 0 1 350 0V800z"/>'
    '<path class="v3" d="M78 745V442a122 122 0 0 1 244 0V745z"/>'
    '<path class="v4" d="M122 700V478a78 78 0 0 1 156 0V700z"/>'
    '<path class="light" d="M154 665V511a46 46 0 0 1 92 0V665z"/>'
    '<path class="floor" d="M154 665 20 860h360L246 665z"/>'
    '<path class="floor is-near" d="M154 665 104 860h192L246 665z"/>'
)
SHUT = (
    '<path class="seam" d="M200 466v199"/>'
    '<path class="gleam" d="M154 662.5h92v2.5h-92zM205 572a2.5 2.5 0 1 1 4 2v7h-3v-7a2.5 2.5 0 0 1-1-2z"/>'
)


@register.simple_tag
def icon(name: str, small: bool = False) -> SafeString:
    """A line drawing of 20 units that says nothing to a screen reader; an unknown name is a mistake of the page."""
    return format_html(
        '<svg class="icon{}" viewBox="0 0 20 20" aria-hidden="true">{}</svg>',
        " is-small" if small else "",
        mark_safe(ICONS[name]),  # noqa: S308
    )


@register.simple_tag
def gate(css_class: str = "gate") -> SafeString:
    """The sign of the house."""
    return format_html(
        '<svg class="{}" viewBox="0 0 22 27" aria-hidden="true"><path fill="currentColor" fill-rule="evenodd" d="{}"/></svg>',
        css_class,
        GATE,
    )


@register.simple_tag
def vault(shut: bool = False) -> SafeString:
    """The passage of the sign-in pages: lit for the expected, shut for the refused."""
    return format_html(
        '<svg class="vault{}" viewBox="0 0 400 800" preserveAspectRatio="xMidYMax slice" aria-hidden="true">{}</svg>',
        " is-shut" if shut else "",
        mark_safe(VAULT + SHUT if shut else VAULT),  # noqa: S308
    )


@register.filter(expects_localtime=True)
def when(value: datetime | None) -> str:
    """Near times relative, far ones short: just now, 5 minutes ago, today 09:12, yesterday 18:04, 14 Nov."""
    if value is None:
        return gettext("never")
    now = timezone.localtime(timezone=value.tzinfo)
    distance = value - now
    minutes = round(abs(distance) / timedelta(minutes=1))
    if minutes < 1:
        return gettext("just now") if distance <= timedelta() else gettext("in a moment")
    if minutes < 60:
        if distance > timedelta():
            return ngettext("in %(n)d minute", "in %(n)d minutes", minutes) % {"n": minutes}
        return ngettext("%(n)d minute ago", "%(n)d minutes ago", minutes) % {"n": minutes}
    clock = date_format(value, "H:i")
    match (value.date() - now.date()).days:
        case 0:
            return gettext("today %(clock)s") % {"clock": clock}
        case -1:
            return gettext("yesterday %(clock)s") % {"clock": clock}
        case 1:
            return gettext("tomorrow %(clock)s") % {"clock": clock}
    # Translators: Django's date format for a day of this year, then of another year.
    return date_format(value, gettext("j M") if value.year == now.year else gettext("j M Y"))


@register.filter(expects_localtime=True)
def exact(value: datetime, digits: int = 0) -> str:
    """The time of day for records, to the second or with `digits` (up to 6) behind it."""
    fraction = f"{value.microsecond:06d}"[:digits]
    return f"{value:%H:%M:%S}" + (f".{fraction}" if fraction else "")


@register.simple_tag
def moment(value: datetime | None) -> SafeString:
    """A <time> in words; the pointer finds the whole date, a machine the ISO form."""
    local = timezone.localtime(value) if value else None
    if local is None:
        return format_html("{}", when(None))
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        f"{date_format(local, 'DATE_FORMAT')}, {exact(local)}",
        when(local),
    )


@register.simple_tag
def control(field: BoundField, hint: str = "", errors: Sequence[str] = (), focus: bool = False) -> SafeString:
    """The widget of a field. It names hints and errors that the page brings along, and the page alone says where the focus goes."""
    described = [f"{field.auto_id}_error"] if errors or field.errors else []
    if hint or field.help_text:
        described.append(f"{field.auto_id}_helptext")
    attrs: dict[str, str | bool] = {"autofocus": bool(focus)}
    if described:
        attrs["aria-describedby"] = " ".join(described)
    if errors:
        attrs["aria-invalid"] = "true"
    return field.as_widget(attrs=attrs)
