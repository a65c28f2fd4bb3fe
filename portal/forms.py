"""Every field that a person can fill in. Passwords are taken as they are typed: no strip, no cut (ASVS 6.2.8)."""

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from identity.backends import LONGEST_PASSWORD
from identity.models import User


class PlainForm(forms.Form):
    """Ids equal names, so that pages, scripts and password managers find the same field everywhere."""

    use_required_attribute = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("auto_id", "%s")
        super().__init__(*args, **kwargs)


def _password_field(autocomplete: str, label: Any, *, autofocus: bool = False) -> forms.CharField:
    attrs = {"class": "input", "autocomplete": autocomplete, "maxlength": str(LONGEST_PASSWORD)}
    if autofocus:
        attrs["autofocus"] = ""
    return forms.CharField(label=label, strip=False, max_length=LONGEST_PASSWORD, widget=forms.PasswordInput(attrs=attrs))


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


class StepUpForm(PlainForm):
    password = _password_field("current-password", _("Password"), autofocus=True)
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
        self.fields["password"].help_text = _("Eight characters or more. Three words are a good one.")

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
        self.fields["new_password1"].help_text = _("Eight characters or more. Three words are a good one.")

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
        self.fields["password"].help_text = _("Eight characters or more. Three words are a good one.")

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, self.user)
        return password


class EndForm(PlainForm):
    reason = forms.CharField(label=_("Reason"), max_length=200)
