"""Every field that a person can fill in. Passwords are taken as they are typed: no strip, no cut (ASVS 6.2.8)."""

import math
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from identity import passwords
from identity.backends import LONGEST_PASSWORD
from identity.factors import Checked, has_factor
from identity.models import User


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)
        self.fields["email"].required = True
        self.fields["username"].help_text = _("Letters, digits and . + - _")
        self.fields["password"].help_text = passwords.hint()

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if password := self.cleaned_data.get("password"):
            _check_new_password(password, self.instance, "password", self)  # after the names are known, to compare with them

    def create(self) -> User | None:
        """The new person; None, with the error in the form, if somebody took the name or address in this very moment."""
        self.instance.set_password(self.cleaned_data["password"])
        try:
            with transaction.atomic():
                self.instance.save(force_insert=True)
        except IntegrityError:
            self.add_error(None, _("That name or address is already in use. Choose another, or sign in."))
            return None
        person: User = self.instance
        return person


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
        self.fields["birth_date"].help_text = _("Only you see it.")

    def clean_birth_date(self) -> Any:
        born = self.cleaned_data["birth_date"]
        if born and not (born.year >= 1900 and born <= timezone.localdate()):
            raise ValidationError(_("That is not a date somebody alive was born on."))
        return born


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
