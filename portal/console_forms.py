"""The forms of the consoles, of tenants and of the platform; a tenant's settings have theirs in `portal.settings_forms`."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from identity.factors import has_factor
from identity.invitations import AT_ONCE, addresses_in, is_address
from identity.models import User
from identity.networks import within
from portal.forms import PlainForm
from tenants import hosts
from tenants.models import Group, Membership, Tenant


class ResetFactorsForm(PlainForm):
    """Whose second factor an operator takes away, and how one knows that it is this person who asks."""

    username = forms.CharField(
        label=_("Name or e-mail"),
        max_length=320,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=200,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off"}),
        help_text=_("How you know that it is this person who asks. It stays in the log."),
    )

    def __init__(self, operator: User, *args: Any, **kwargs: Any) -> None:
        self.operator = operator
        super().__init__(*args, **kwargs)

    def clean_username(self) -> User:
        person = User.objects.named(self.cleaned_data["username"])
        if person is None:
            raise ValidationError(gettext("Nobody has that name or verified address. Check how it is written."))
        if person == self.operator:
            raise ValidationError(gettext("Your own second factor is changed under your account, not here."))
        if not has_factor(person):
            raise ValidationError(gettext("%(name)s has no second factor: there is nothing to take away.") % {"name": person.display_name})
        return person


class EndForm(PlainForm):
    reason = forms.CharField(label=_("Reason"), max_length=200)


class ReasonForm(PlainForm):
    """Why an operator does something. told: whoever is signed out by it reads this, too."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=200,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off"}),
        error_messages={"required": _("Say why: it stays in the log.")},
    )

    def __init__(self, *args: Any, told: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        told_text = gettext("Whoever is signed out reads this, and it stays in the log.")
        self.fields["reason"].help_text = told_text if told else gettext("It stays in the log, with your name.")


class DeleteTenantForm(ReasonForm):
    """To delete a tenant one types its slug."""

    field_order = ("confirm", "reason")
    confirm = forms.CharField(
        label=_("Its slug"),
        max_length=63,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    def __init__(self, tenant: Tenant, *args: Any, **kwargs: Any) -> None:
        self.tenant = tenant
        super().__init__(*args, told=False, **kwargs)
        self.fields["confirm"].help_text = gettext("To make sure that you mean it, type “%(slug)s”.") % {"slug": tenant.slug}

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed != self.tenant.slug:
            raise ValidationError(gettext("That is not its slug. Type “%(slug)s” to go on.") % {"slug": self.tenant.slug})
        return typed


class NewTenantForm(PlainForm):
    """A tenant, and who is to run it."""

    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off"}),
        help_text=_("What people read. It can be changed later."),
    )
    slug = forms.CharField(
        label=_("Slug"),
        max_length=63,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    owner = forms.CharField(
        label=_("E-mail of its owner"),
        max_length=254,
        widget=forms.EmailInput(attrs={"class": "input", "autocomplete": "off"}),
        help_text=_("Gets an invitation that is good for 7 days, and runs the place from then on."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["slug"].help_text = gettext("Its label in %(host)s, for good: lower-case letters, digits and hyphens.") % {
            "host": f"….{settings.TENANT_DOMAIN}"
        }

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"].lower()
        if Tenant.objects.filter(slug=slug).exists():
            raise ValidationError(gettext("There is a tenant with that slug already. Choose another."))
        return slug

    def clean_owner(self) -> str:
        address: str = self.cleaned_data["owner"].strip()
        if not is_address(address):
            raise ValidationError(gettext("Write the address as name@example.com."))
        return address

    def explain(self, wrong: ValidationError) -> None:
        """What the tenant's own checks found, next to the field that it is about."""
        for name, errors in wrong.error_dict.items():
            self.add_error(name if name in self.fields else "slug", errors)


class EndAllForm(EndForm):
    """The end of many takes their number, typed; `shown` is the number that the page had named."""

    number = forms.CharField(max_length=20)
    shown = forms.IntegerField(min_value=0)

    def clean_number(self) -> int:
        digits = "".join(each for each in self.cleaned_data["number"] if each.isdecimal())  # people type "1,284" and "1 284"
        return int(digits) if digits else -1


class InviteForm(PlainForm):
    """Addresses as people paste them, and what they are invited as: never more than the inviter is."""

    addresses = forms.CharField(
        label=_("E-mail addresses"),
        max_length=20_000,
        widget=forms.Textarea(attrs={"class": "input", "rows": 5, "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
        help_text=_("One or many, separated by lines, commas or spaces."),
    )
    role = forms.ChoiceField(label=_("Role"), widget=forms.Select(attrs={"class": "input select"}))

    def __init__(self, roles: list[tuple[str, Any]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        role: forms.ChoiceField = self.fields["role"]  # type: ignore[assignment]
        role.choices = roles

    def clean_addresses(self) -> list[str]:
        found = addresses_in(self.cleaned_data["addresses"])
        if len(found) > AT_ONCE:
            raise ValidationError(
                gettext("These are %(n)d addresses. Invite at most %(limit)d at once.") % {"n": len(found), "limit": AT_ONCE}
            )
        if not found:
            raise ValidationError(gettext("There is no address in this."))
        return found


def _when(**attrs: str) -> forms.DateTimeInput:
    return forms.DateTimeInput(format="%Y-%m-%dT%H:%M", attrs={"class": "input", "type": "datetime-local", **attrs})


class _Moment(forms.DateTimeField):
    """In UTC, which databases compare by. The first and the last hours of all are no time there, or none in the person's zone."""

    def to_python(self, value: Any) -> datetime | None:
        at = super().to_python(value)
        try:
            return timezone.localtime(at).astimezone(UTC) if at else None
        except OverflowError:
            raise ValidationError(self.error_messages["invalid"]) from None


class EventsForm(PlainForm):
    """What of a tenant's log is looked for. Times are in the person's zone."""

    kind = forms.RegexField(r"\A[a-z_]{1,40}\Z", required=False)
    person = forms.CharField(label=_("Name or e-mail"), required=False, widget=forms.TextInput(attrs={"class": "input", "type": "search"}))
    since = forms.ChoiceField(choices=[("hour", ""), ("day", ""), ("week", "")], required=False)
    address = forms.CharField(
        label=_("Address"),
        required=False,
        help_text=_("Whole, or its beginning, such as 203.0.113."),
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds_of_time = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"]
        for name, label in (("from", _("From")), ("to", _("Until"))):  # one of them is a word of Python
            self.fields[name] = _Moment(label=label, required=False, input_formats=kinds_of_time, widget=_when())

    def clean_person(self) -> str:
        return " ".join(self.cleaned_data["person"].split())[:100]

    def clean_address(self) -> str:
        address: str = self.cleaned_data["address"]
        if address and within(address) is None:
            raise ValidationError(gettext("This is no address, nor the beginning of one. Type it such as 203.0.113. or 2001:db8:"))
        return address


class GroupForm(PlainForm):
    name = forms.CharField(
        label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "spellcheck": "false"})
    )


EVERYONE, SOME = "everyone", "some"


class AppForm(PlainForm):
    """An app of a tenant: where it is, and who may enter. Whether the host fits, `tenants.models.App` decides."""

    name = forms.CharField(label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off"}))
    host = forms.CharField(
        label=_("Host"),
        max_length=253,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    who = forms.ChoiceField(label=_("Who may enter"), choices=[(EVERYONE, _("Every member")), (SOME, _("Only these"))])
    roles = forms.MultipleChoiceField(label=_("Roles"), choices=Membership.Role.choices, required=False)
    groups = forms.ModelMultipleChoiceField(label=_("Groups"), queryset=Group.objects.none(), required=False)
    second_factor = forms.BooleanField(label=_("Only with a second factor"), required=False)
    public_paths = forms.CharField(
        label=_("Public paths"),
        required=False,
        max_length=10_200,
        widget=forms.Textarea(attrs={"class": "input", "rows": 3, "autocapitalize": "none", "spellcheck": "false"}),
        help_text=_("Open to everybody, signed in or not, such as webhooks: one beginning of a path in a line, such as /webhooks/."),
    )

    def __init__(self, tenant: Tenant, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        groups: forms.ModelMultipleChoiceField[Group] = self.fields["groups"]  # type: ignore[assignment]
        groups.queryset = self.offered = tenant.groups.all()
        self.fields["host"].help_text = gettext("Inside %(domain)s, such as wiki.%(domain)s.") % {"domain": tenant.cookie_domain}

    def clean_host(self) -> str:
        try:
            return hosts.normalise(self.cleaned_data["host"])
        except hosts.BadHost as bad:
            raise ValidationError(str(bad)) from None

    def clean_public_paths(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["public_paths"].splitlines() if line.strip()]

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = self.cleaned_data
        if given.get("who") == EVERYONE:
            given["roles"], given["groups"] = [], []
        elif not given.get("roles") and not given.get("groups") and not {"roles", "groups"} & self.errors.keys():
            self.add_error("who", gettext("Tick a role or a group, or choose every member."))
        return given

    def explain(self, wrong: ValidationError) -> None:
        """What the app itself has against it, beside its field; what is no field's is the host's."""
        named = wrong.error_dict if hasattr(wrong, "error_dict") else {NON_FIELD_ERRORS: wrong.error_list}
        for name, errors in named.items():
            self.add_error(name if name in self.fields else "host", errors)
