"""Every field that a person can fill in. Passwords are taken as they are typed: no strip, no cut (ASVS 6.2.8)."""

import math
from functools import cache
from typing import Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from identity import passwords
from identity.addresses import checked
from identity.backends import LONGEST_PASSWORD
from identity.factors import Checked
from identity.models import User, fold
from tenants.models import Tenant


class PlainForm(forms.Form):
    """Ids equal names, so that pages, scripts and password managers find the same field everywhere."""

    use_required_attribute = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)


def _password_field(autocomplete: str, label: Any, *, autofocus: bool = False) -> forms.CharField:
    """No maxlength in the page, because a browser cuts what is pasted without a word; no spelling help for a shown password.

    Such help corrects, capitalises, and in some browsers sends what is typed elsewhere.
    """
    attrs = {"class": "input", "autocomplete": autocomplete, "autocapitalize": "none", "autocorrect": "off", "spellcheck": "false"}
    if autofocus:
        attrs["autofocus"] = ""
    limit = MaxLengthValidator(LONGEST_PASSWORD, passwords.TOO_LONG)
    return forms.CharField(label=label, strip=False, validators=[limit], widget=forms.PasswordInput(attrs=attrs))


class SignInForm(PlainForm):
    username = forms.CharField(
        label=_("Name or e-mail"),
        max_length=320,
        widget=forms.TextInput(
            attrs={"class": "input", "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": ""}
        ),
    )
    password = _password_field("current-password", _("Password"))
    remember = forms.BooleanField(required=False)
    next = forms.CharField(required=False, max_length=8000, widget=forms.HiddenInput)


class EitherInput(forms.TextInput):
    """One of two fields of which a person fills one: a browser insists on neither."""

    def use_required_attribute(self, initial: Any) -> bool:
        return False


def _code_field(label: Any, *, autofocus: bool = False, widget: type[forms.TextInput] = forms.TextInput) -> forms.CharField:
    attrs = {
        "class": "input is-code",
        "autocomplete": "one-time-code",
        "inputmode": "numeric",
        "autocapitalize": "none",
        "spellcheck": "false",
    }
    if autofocus:
        attrs["autofocus"] = ""
    return forms.CharField(label=label, max_length=64, widget=widget(attrs=attrs))


def _recovery_field(label: Any, *, widget: type[forms.TextInput] = forms.TextInput) -> forms.CharField:
    """For letters and digits: a phone's keypad of figures would be in the way."""
    attrs = {"class": "input is-recovery", "autocomplete": "off", "autocapitalize": "none", "autocorrect": "off", "spellcheck": "false"}
    return forms.CharField(label=label, max_length=64, widget=widget(attrs=attrs))


class CodeFields(PlainForm):
    """A form that has a `code`: an authenticator's or a recovery code."""

    notice = ""

    def explain(self, checked: Checked, field: str = "code") -> None:
        """Say why the code in this field was not taken, and what to do."""
        six = not checked.malformed and len(self.cleaned_data[field].strip()) < 16
        if six:  # the next one is typed into an empty field
            self.data = {name: self.data[name] for name in self.data if name != self.add_prefix(field)}
        if checked.locked_until:
            minutes = max(1, math.ceil((checked.locked_until - timezone.now()).total_seconds() / 60))
            text = ngettext(
                "Too many wrong codes. Wait %(n)d minute before the next try.",
                "Too many wrong codes. Wait %(n)d minutes before the next try.",
                minutes,
            ) % {"n": minutes}
        elif checked.malformed:
            text = gettext("A code has six digits. A recovery code has sixteen letters and digits.")
        elif six:
            text = gettext("That code is not right, or it was used already. Wait for the next one. Does the phone set its clock by itself?")
        else:
            text = gettext("That recovery code is not right, or it was used already. Take another one of the newest ten.")
        self.add_error(field, text)


class CodeForm(CodeFields):
    """The second step of a sign-in."""

    code = _code_field(_("Code"), autofocus=True)
    trust = forms.BooleanField(required=False)
    mark = forms.CharField(required=False, max_length=16, widget=forms.HiddenInput)
    next = forms.CharField(required=False, max_length=8000, widget=forms.HiddenInput)

    def __init__(self, *args: Any, lost: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if lost:
            self.fields["code"] = _recovery_field(_("Recovery code"))


class StepUpForm(CodeFields):
    password = _password_field("current-password", _("Password"), autofocus=True)
    code = _code_field(_("Code"), widget=EitherInput)
    recovery = _recovery_field(_("Recovery code"), widget=EitherInput)
    next = forms.CharField(required=False, max_length=8000, widget=forms.HiddenInput)

    def __init__(self, *args: Any, asks_code: bool, **kwargs: Any) -> None:
        self.asks_code = asks_code
        super().__init__(*args, **kwargs)
        if not asks_code:
            del self.fields["code"], self.fields["recovery"]
            return
        self.code_field = "recovery" if self.data.get(self.add_prefix("recovery")) else "code"
        self.fields["code"].required = self.code_field == "code"
        self.fields["recovery"].required = False


class EnrolForm(CodeFields):
    """The first code that a new authenticator shows, and what the person calls it."""

    code = _code_field(_("Six digits"), autofocus=True)
    name = forms.CharField(
        label=_("Name for this authenticator"),
        required=False,
        max_length=40,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off"}),
    )
    device = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)
    next = forms.CharField(required=False, max_length=8000, widget=forms.HiddenInput)


def _check_new_password(password: str, user: User, field: str, form: forms.BaseForm) -> None:
    try:
        validate_password(password, user)
    except ValidationError as weak:
        form.add_error(field, weak)


class SignUpForm(forms.ModelForm):  # type: ignore[type-arg]
    password = _password_field("new-password", _("Password"))

    class Meta:
        model = User
        fields = ("username", "email")
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "username": forms.TextInput(
                attrs={"class": "input", "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": ""}
            ),
            "email": forms.EmailInput(attrs={"class": "input", "autocomplete": "email"}),
        }

    def __init__(self, *args: Any, tenant: Tenant | None = None, **kwargs: Any) -> None:
        self.tenant = tenant
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.fields["email"].required = True
        self.fields["email"].label = _("E-mail address")
        self.fields["email"].help_text = _("You get a mail with a link that proves it is yours.")
        self.fields["username"].help_text = _("Letters, digits and . + - _")
        self.fields["password"].help_text = passwords.hint()

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if password := self.cleaned_data.get("password"):
            _check_new_password(password, self.instance, "password", self)  # after the names are known, to compare with them

    def clean_email(self) -> str:
        address = checked(self.cleaned_data["email"])
        if self.tenant and self.tenant.rules.sign_up == "domain" and not self.tenant.rules.lets_in(address):
            text = gettext("%(tenant)s takes addresses at %(domains)s only. Use one of these, or ask its people for an invitation.")
            raise ValidationError(text % {"tenant": self.tenant.name, "domains": ", ".join(sorted(self.tenant.rules.domains))})
        return address

    def person(self) -> User:
        """The new person, with the password hashed, not saved yet."""
        person: User = self.instance
        person.set_password(self.cleaned_data["password"])
        return person

    def explain_taken(self) -> None:
        self.add_error("username", _("That name is already in use. Choose another."))


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = ("first_name", "last_name", "bio", "birth_date")
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "first_name": forms.TextInput(attrs={"class": "input", "autocomplete": "given-name"}),
            "last_name": forms.TextInput(attrs={"class": "input", "autocomplete": "family-name"}),
            "bio": forms.Textarea(attrs={"class": "input", "rows": "4"}),
            "birth_date": forms.DateInput(attrs={"class": "input", "type": "date", "autocomplete": "bday"}, format="%Y-%m-%d"),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.fields["bio"].label = _("A few words about you")
        self.fields["birth_date"].help_text = _("Only you see it.")

    def clean_birth_date(self) -> Any:
        born = self.cleaned_data["birth_date"]
        if born and not (born.year >= 1900 and born <= timezone.localdate()):
            raise ValidationError(_("That is not a date somebody alive was born on."))
        return born


class TimeZoneInput(forms.TextInput):
    """A field that is searched by typing any part of a name: the browser's own list, without a script."""

    def __init__(self) -> None:
        super().__init__(attrs={"class": "input", "list": "zones", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"})


class WaysForm(forms.ModelForm):  # type: ignore[type-arg]
    """The language and the clock of the pages and mails."""

    language = forms.ChoiceField(label=_("Language"), required=False, widget=forms.Select(attrs={"class": "input select"}))
    time_zone = forms.CharField(label=_("Time zone"), required=False, max_length=64, widget=TimeZoneInput)

    class Meta:
        model = User
        fields = ("language", "time_zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        language: forms.ChoiceField = self.fields["language"]  # type: ignore[assignment]
        language.choices = [("", gettext("As the browser asks")), *settings.LANGUAGES]
        self.fields["time_zone"].help_text = _("Type the large city whose clock you use, such as Berlin. Without one, times are in UTC.")

    def clean_time_zone(self) -> str:
        typed: str = self.cleaned_data["time_zone"]
        found = zone_named(typed)
        if found is None:
            raise ValidationError(gettext("There is no time zone of that name. Type a large city near you, such as Berlin."))
        return found


@cache
def zones() -> list[str]:
    """The time zones by place, as people know them."""
    areas = {"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
    return sorted(name for name in available_timezones() if name.partition("/")[0] in areas and "/" in name)


def zone_named(typed: str) -> str | None:
    """The zone that somebody means by “Europe/Berlin”, “europe/berlin” or “Berlin”; "" for nothing, None if there is none such."""
    wanted = "_".join(typed.split()).casefold()
    if wanted in {"", "utc"}:
        return ""
    whole = {name.casefold(): name for name in zones()}
    cities = [name for name in zones() if name.rpartition("/")[2].casefold() == wanted]
    return whole.get(wanted) or (cities[0] if len(cities) == 1 else None)


class MailsForm(forms.ModelForm):  # type: ignore[type-arg]
    """The warnings that a person may do without."""

    class Meta:
        model = User
        fields = ("mail_new_device",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.fields["mail_new_device"].label = _("Mail me when somebody signs in with a browser that was not used before")


class UserNameForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = ("username",)
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "username": forms.TextInput(
                attrs={"class": "input", "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("New user name")
        self.fields["username"].help_text = _("Letters, digits and . + - _")

    def validate_unique(self) -> None:
        """The model's `clean` has said it, by the folded name."""


class DeleteForm(PlainForm):
    """To delete an account one types its name."""

    confirm = forms.CharField(
        label=_("Your user name"),
        max_length=150,
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed != self.user.username:
            raise ValidationError(gettext("That is not your user name. Type “%(name)s” to go on.") % {"name": self.user.username})
        return typed


class PasswordForm(PlainForm):
    """A new password, typed twice; with the current one where the person is signed in."""

    old_password = _password_field("current-password", _("Current password"), autofocus=True)
    new_password1 = _password_field("new-password", _("New password"))
    new_password2 = _password_field("new-password", _("New password again"))

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].help_text = passwords.hint(user)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        first, second = data.get("new_password1"), data.get("new_password2")
        if first and first == data.get("old_password"):
            self.add_error("new_password1", _("That is the password you have. Choose another."))
        if first and second and first != second:
            self.add_error("new_password2", _("The two new passwords differ. Type the same one twice."))
        if first:
            _check_new_password(first, self.user, "new_password1", self)
        return data


class NewPasswordForm(PlainForm):
    """A first or new password behind a one-time link."""

    password = _password_field("new-password", _("New password"), autofocus=True)

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = passwords.hint(user)

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, self.user)
        return password


class ForgotForm(PlainForm):
    """Whose password is forgotten. Nothing is looked up here, so nothing can be told."""

    username = forms.CharField(
        label=_("Name or e-mail"),
        max_length=320,
        widget=forms.TextInput(
            attrs={"class": "input", "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": ""}
        ),
    )
    next = forms.CharField(required=False, max_length=8000, widget=forms.HiddenInput)


class EmailForm(PlainForm):
    """The address that an account is to have."""

    email = forms.EmailField(
        label=_("New address"), max_length=254, widget=forms.EmailInput(attrs={"class": "input", "autocomplete": "email"})
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)
        self.fields["email"].help_text = _("You get a mail there with a link that proves it is yours.")

    def clean_email(self) -> str:
        address = checked(self.cleaned_data["email"])
        if self.user.email_verified_at and fold(address) == fold(self.user.email):
            raise ValidationError(gettext("That is the address you have, and it is proven. Type another one."))
        return address


class InvitedForm(forms.ModelForm):  # type: ignore[type-arg]
    """An account for whoever holds the link of an invitation: its address came by mail and is not asked for."""

    password = _password_field("new-password", _("Password"))

    class Meta:
        model = User
        fields = ("username",)
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "username": forms.TextInput(
                attrs={"class": "input", "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": ""}
            ),
        }

    def __init__(self, address: str, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.instance.email = address
        self.fields["username"].help_text = _("Letters, digits and . + - _")
        self.fields["password"].help_text = passwords.hint()

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if password := self.cleaned_data.get("password"):
            _check_new_password(password, self.instance, "password", self)
