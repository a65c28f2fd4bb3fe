"""One's own profile: who one is, language and clock, which mails come, and the user name."""

from copy import copy

from django.contrib import messages
from django.forms import ModelForm
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from identity import events, names
from identity.models import User
from portal.access import PortalRequest, signed_in
from portal.forms import MailsForm, ProfileForm, UserNameForm, WaysForm, zones
from portal.languages import speak_as
from portal.stepup import proven

# The page has several small forms; `part` says which one was sent.
FORMS: "dict[str, type[ModelForm[User]]]" = {"about": ProfileForm, "ways": WaysForm, "mails": MailsForm}


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: PortalRequest) -> HttpResponse:
    sent = request.POST.get("part", "about") if request.method == "POST" else ""
    person = User.objects.get(pk=request.user.pk)
    # A form writes into its person before it knows whether that is right: each has a copy.
    forms = {part: form(request.POST if part == sent else None, instance=copy(person)) for part, form in FORMS.items()}
    if sent in forms and forms[sent].is_valid():
        _save(request, forms[sent])
        return redirect("profile")
    facts = [
        {"label": _("User name"), "text": person.username, "url": reverse("username_change")},
        {"label": _("E-mail"), "text": person.email or _("none yet"), "url": reverse("email")},
        {"label": _("Address verified"), "text": _("yes") if person.email_verified_at else _("not yet")},
    ]
    context = {"here": "profile", "person": person, "forms": forms, "facts": facts, "zones": zones()}
    return render(request, "account/profile.html", context)


def _save(request: PortalRequest, form: "ModelForm[User]") -> None:
    changed, person = form.changed_data, form.instance
    if changed:
        # Only what the person changed: a password change or an end that came meanwhile stays.
        person.save(update_fields=changed)
        events.record("profile_changed", request=request, actor=request.user, subject=request.user, fields=changed)
    speak_as(person)  # “Saved.” in the language that was chosen just now
    messages.success(request, _("Saved."))


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def username_change(request: PortalRequest) -> HttpResponse:
    """Another user name; the old one is free at once. Sessions stay, since nobody's rights have changed."""
    person = User.objects.get(pk=request.user.pk)
    form = UserNameForm(request.POST or None, instance=person, initial={"username": ""})
    if request.method == "POST" and form.is_valid():
        try:
            person = names.change(request.user, form.cleaned_data["username"], request=request)
        except names.Taken:
            form.add_error("username", _("That name is already in use. Choose another."))
        else:
            messages.success(request, _("Your user name is %(name)s now. Sign in with it from now on.") % {"name": person.username})
            return redirect("profile")
    return render(request, "account/username.html", {"here": "profile", "form": form})
