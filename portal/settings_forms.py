"""What an owner fills in about a tenant: look, policy, sign-up and hosts. Limits and units stand next to their fields."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from portal.forms import PlainForm
from tenants import hosts, logos
from tenants.models import Host, Tenant, _plain, _valid_colour, check_cookie_domain
from tenants.policy import PORTAL_ABSOLUTE, PORTAL_IDLE, SHORTEST_IDLE, TRIES_UNKNOWN, Policy

_PLAIN = {"class": "input", "autocomplete": "off"}


# --- Look ---------------------------------------------------------------------------------------------------------


class LookForm(PlainForm):
    """Name, colour, logo and texts, as `tenancy.change` takes them."""

    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        validators=[_plain],
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "organization"}),
    )
    colour = forms.CharField(
        label=_("Colour"),
        max_length=7,
        help_text=_("A # and six hex digits. Pages lighten or darken it where a text needs it: every colour can be read."),
        widget=forms.TextInput(attrs={**_PLAIN, "spellcheck": "false", "data-colours": "preview"}),
    )
    picked = forms.CharField(
        label=_("Pick the colour"),
        required=False,
        widget=forms.TextInput(attrs={"type": "color", "data-picks": "colour"}),
    )
    logo = forms.FileField(
        label=_("Logo"),
        required=False,
        help_text=_(
            "PNG, JPEG, WebP or GIF, at most 2 MB. It is drawn anew at 512 pixels; an SVG is not taken, because it can hold scripts."
        ),
        widget=forms.FileInput(attrs={"class": "input", "accept": "image/png,image/jpeg,image/webp,image/gif"}),
    )
    remove_logo = forms.BooleanField(label=_("Remove the logo"), required=False)
    sign_in_note = forms.CharField(
        label=_("Text on the sign-in page"),
        max_length=300,
        required=False,
        validators=[_plain],
        help_text=_("At most 300 characters. Everybody who comes to the sign-in page reads it."),
        widget=forms.Textarea(attrs={"class": "input", "rows": "3"}),
    )
    support_contact = forms.CharField(
        label=_("Support contact"),
        max_length=200,
        required=False,
        validators=[_plain],
        help_text=_("An address, a number or a page (https://…). It stands on every page that refuses somebody."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    home_is_public = forms.BooleanField(
        label=_("The home page is public"),
        required=False,
        help_text=_("Guests see a welcome page there without signing in."),
    )

    @classmethod
    def initial_of(cls, tenant: Tenant) -> dict[str, Any]:
        names = ("name", "colour", "sign_in_note", "support_contact", "home_is_public")
        return {**{name: getattr(tenant, name) for name in names}, "picked": tenant.colour}

    def clean(self) -> dict[str, Any]:
        """Who used the picker has left the text as it was, and the other way round: what was changed counts."""
        data = super().clean() or {}
        picked, was = data.get("picked", "").lower(), self.initial.get("colour")
        if picked and picked != was and data.get("colour") == was:
            data["colour"] = picked
        return data

    def clean_colour(self) -> str:
        colour: str = self.cleaned_data["colour"].strip().lower()
        colour = colour if colour.startswith("#") else f"#{colour}"
        _valid_colour(colour)
        return colour

    def clean_picked(self) -> str:
        picked: str = self.cleaned_data["picked"].lower()
        return picked if re.fullmatch(r"#[0-9a-f]{6}", picked) else ""

    def clean_sign_in_note(self) -> str:
        return " ".join(self.cleaned_data["sign_in_note"].split())

    def clean_logo(self) -> bytes | None:
        """Our own drawing of the picture."""
        file = self.cleaned_data["logo"]
        if not file:
            return None
        try:
            return logos.encode(file.read(logos.LARGEST_FILE + 1))
        except logos.BadLogo as bad:
            raise ValidationError(str(bad)) from None

    @property
    def wanted(self) -> dict[str, Any]:
        names = ("name", "colour", "sign_in_note", "support_contact", "home_is_public")
        wanted: dict[str, Any] = {name: self.cleaned_data[name] for name in names}
        if self.cleaned_data["logo"]:
            wanted["logo"] = self.cleaned_data["logo"]
        elif self.cleaned_data["remove_logo"]:
            wanted["logo"] = None
        return wanted


# --- Policy -------------------------------------------------------------------------------------------------------

MINUTES, HOURS = "minutes", "hours"


class DurationWidget(forms.MultiWidget):
    """A number and its unit."""

    def __init__(self) -> None:
        number = forms.NumberInput(attrs={"class": "input is-short", "inputmode": "numeric", "min": "1", "step": "1"})
        unit = forms.Select(attrs={"class": "select", "aria-label": _("Unit")}, choices=[(MINUTES, _("minutes")), (HOURS, _("hours"))])
        super().__init__([number, unit])

    def decompress(self, value: timedelta | None) -> list[Any]:
        minutes = int(value.total_seconds() // 60) if value else 0
        return [minutes // 60, HOURS] if minutes and minutes % 60 == 0 else [minutes, MINUTES]

    def id_for_label(self, id_: str, index: Any = None) -> str:
        return f"{id_}_0"


class DurationField(forms.MultiValueField):
    """A time limit between two others."""

    def __init__(self, shortest: timedelta, longest: timedelta, **kwargs: Any) -> None:
        self.shortest, self.longest = shortest, longest
        number = forms.IntegerField(min_value=1, max_value=100_000)
        unit = forms.ChoiceField(choices=[(MINUTES, ""), (HOURS, "")])
        super().__init__([number, unit], widget=DurationWidget(), require_all_fields=True, **kwargs)

    def compress(self, values: list[Any]) -> timedelta | None:
        if not values:
            return None
        number, unit = values
        limit = timedelta(hours=number) if unit == HOURS else timedelta(minutes=number)
        if not self.shortest <= limit <= self.longest:
            text = gettext("From %(shortest)s to %(longest)s. Choose a limit between them.")
            raise ValidationError(text % {"shortest": in_words(self.shortest), "longest": in_words(self.longest)})
        return limit


def in_words(limit: timedelta) -> str:
    """“30 minutes”, “8 hours”, “14 days”."""
    minutes = int(limit.total_seconds() // 60)
    if minutes % (24 * 60) == 0 and minutes > 24 * 60:
        return ngettext("%(n)d day", "%(n)d days", minutes // 1440) % {"n": minutes // 1440}
    if minutes % 60 == 0:
        return ngettext("%(n)d hour", "%(n)d hours", minutes // 60) % {"n": minutes // 60}
    return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}


def _number(label: Any, low: int, high: int, hint: Any) -> forms.IntegerField:
    widget = forms.NumberInput(attrs={"class": "input is-short", "inputmode": "numeric"})
    return forms.IntegerField(label=label, min_value=low, max_value=high, help_text=hint, widget=widget)


class PolicyForm(PlainForm):
    """What a tenant asks of its people, but for who becomes one of them."""

    idle = DurationField(
        SHORTEST_IDLE,
        PORTAL_IDLE,
        label=_("Idle limit"),
        help_text=_("A session that is unused for so long ends. From 5 minutes to 8 hours."),
    )
    absolute = DurationField(
        SHORTEST_IDLE,
        PORTAL_ABSOLUTE,
        label=_("Absolute limit"),
        help_text=_("However busy, a session ends this long after the sign-in. From 5 minutes to 24 hours."),
    )
    remembered = forms.BooleanField(
        label=_("Stay signed in where people ask for it"),
        required=False,
        help_text=_("For those who tick “Keep me signed in”: 14 days unused and 30 days in all, in place of the two limits above."),
    )
    second_factor = forms.ChoiceField(
        label=_("Second factor"),
        choices=[("off", _("Nobody")), ("admins", _("Admins")), ("everyone", _("Everyone"))],
        help_text=_("Who must have an authenticator app. Whoever has one is asked for it in any case."),
        widget=forms.RadioSelect,
    )
    grace_days = _number(
        _("Days of grace"),
        0,
        365,
        _("How long people may do without it, from today or from the day they join. 0 to 365; 0 means with the next sign-in."),
    )
    trusted_browsers = forms.BooleanField(
        label=_("A trusted browser stands in for the code"),
        required=False,
        help_text=_("For 30 days, where a person has given a code and asked to be trusted."),
    )
    tries = _number(
        _("Wrong passwords until a lock"),
        1,
        TRIES_UNKNOWN,
        _("1 to 5. Then the account waits a minute, doubling to an hour. A known browser has twice as many."),
    )
    password_length = _number(_("Shortest password"), 8, 64, _("8 to 64 characters. Passwords that are set stay good."))
    password_length_alone = _number(
        _("Shortest password without a second factor"), 8, 64, _("8 to 64 characters, for people of whom no second factor is asked.")
    )

    @classmethod
    def initial_of(cls, rules: Policy) -> dict[str, Any]:
        shown = {name: getattr(rules, name) for name in cls.base_fields}
        return {**shown, "idle": min(rules.idle, PORTAL_IDLE), "absolute": min(rules.absolute, PORTAL_ABSOLUTE)}

    def policy(self, rules: Policy) -> dict[str, Any]:
        """The tenant's whole policy with these values in it, as it is stored."""
        return replace(rules, **self.cleaned_data).stored


# --- Sign-up ------------------------------------------------------------------------------------------------------


class SignUpPolicyForm(PlainForm):
    """Who becomes a member."""

    sign_up = forms.ChoiceField(
        label=_("Who becomes a member"),
        choices=[
            ("closed", _("Nobody")),
            ("invited", _("Who is invited")),
            ("domain", _("Who has an address of ours")),
            ("open", _("Everybody")),
        ],
        widget=forms.RadioSelect,
    )
    sign_up_domains = forms.CharField(
        label=_("Domains of addresses"),
        required=False,
        max_length=1000,
        help_text=_("Behind the @, separated by commas: acme.example, acme.org. A domain counts by itself, not what is below it."),
        widget=forms.TextInput(attrs={**_PLAIN, "autocapitalize": "none", "spellcheck": "false"}),
    )
    approval = forms.BooleanField(
        label=_("An admin approves each of them"),
        required=False,
        help_text=_("Who comes without an invitation waits in the list of people until somebody decides."),
    )

    def clean_sign_up_domains(self) -> str:
        parts = [part.strip().removeprefix("@") for part in self.cleaned_data["sign_up_domains"].split(",") if part.strip()]
        try:
            return ",".join(dict.fromkeys(hosts.normalise(part) for part in parts))
        except hosts.BadHost as bad:
            raise ValidationError(gettext("%(why)s Write domains only, such as acme.example.") % {"why": bad}) from None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        domains = data.get("sign_up_domains", "")
        if data.get("sign_up") == "domain" and not domains and "sign_up_domains" not in self.errors:
            self.add_error("sign_up_domains", _("Say which domains, or choose otherwise above."))
        public = [domain for domain in domains.split(",") if domain and hosts.is_public_suffix(domain)]
        if public:
            text = gettext("Strangers can get an address at %(domain)s. Name domains that are yours alone.")
            self.add_error("sign_up_domains", text % {"domain": public[0]})
        return data


# --- Hosts --------------------------------------------------------------------------------------------------------


def _host_field(label: Any, hint: Any, *, required: bool = True) -> forms.CharField:
    attrs = {**_PLAIN, "inputmode": "url", "autocapitalize": "none", "spellcheck": "false"}
    return forms.CharField(label=label, max_length=260, required=required, help_text=hint, widget=forms.TextInput(attrs=attrs))


def _canonical(typed: str) -> str:
    """The host in what was typed or pasted, be it a whole address."""
    try:
        return hosts.normalise(re.sub(r"^[a-z]+://", "", typed.strip(), flags=re.IGNORECASE).partition("/")[0])
    except hosts.BadHost as bad:
        raise ValidationError(str(bad)) from None


class HostForm(PlainForm):
    """A new host, checked as the model checks it; a refusal says how to mend it."""

    name = _host_field(_("Host"), _("Such as id.acme.org. Its name has to lead to this portal, and the certificate has to name it."))
    cookie_domain = _host_field(
        _("Cookie domain"),
        _("Leave it empty for the host alone. A wider one, such as acme.org, is for apps beside it: all of them receive the cookie."),
        required=False,
    )

    def __init__(self, tenant: Tenant, *args: Any, **kwargs: Any) -> None:
        self.tenant = tenant
        super().__init__(*args, **kwargs)

    def clean_name(self) -> str:
        name = _canonical(self.cleaned_data["name"])
        if Host.objects.filter(tenant=self.tenant, name=name).exists():
            raise ValidationError(gettext("%(host)s is listed already.") % {"host": name})
        return name

    def clean_cookie_domain(self) -> str:
        typed = self.cleaned_data["cookie_domain"].removeprefix(".")
        return _canonical(typed) if typed else ""

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "name" in data and "cookie_domain" in data:
            try:
                Host(tenant=self.tenant, name=data["name"], cookie_domain=data["cookie_domain"]).clean()
            except ValidationError as wrong:
                named = hasattr(wrong, "error_dict")
                self.add_error("cookie_domain" if named else "name", ValidationError(wrong.messages))
        return data


class DomainForm(PlainForm):
    """Another cookie domain for a host."""

    cookie_domain = _host_field(_("New cookie domain"), _("The host itself, or a domain above it that is yours alone."))

    def __init__(self, host: Host, *args: Any, **kwargs: Any) -> None:
        self.host = host
        super().__init__(*args, **kwargs)

    def clean_cookie_domain(self) -> str:
        domain = _canonical(self.cleaned_data["cookie_domain"].removeprefix("."))
        if domain == self.host.cookie_domain:
            raise ValidationError(gettext("That is the cookie domain it has. Choose another one."))
        if domain != self.host.tenant.cookie_domain:
            try:
                check_cookie_domain(domain, self.host.tenant, self.host.name)
            except ValidationError as wrong:
                raise ValidationError(wrong.messages) from None  # without the name of the model's field
        return domain
