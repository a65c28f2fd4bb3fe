"""Taking one's data along, leaving for good, and coming back within seven days."""

import json

from django.contrib import auth, messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from identity import events, leaving
from identity.export import gather
from identity.management.output import plain
from identity.models import User
from portal.access import PortalRequest, present
from portal.forms import DeleteForm
from portal.stepup import proven
from tenants import policy
from tenants.models import Membership


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def export(request: PortalRequest) -> HttpResponse:
    """Everything about oneself as one JSON file. GET says what is in it."""
    if request.method != "POST":
        return render(request, "account/export.html", {"here": "profile"})
    person = User.objects.get(pk=request.user.pk)
    text = json.dumps(gather(person), default=plain, ensure_ascii=False, indent=2) + "\n"
    events.record("data_exported", request=request, actor=request.user, subject=request.user)
    name = f"gatehouse-{person.username}-{timezone.localdate():%Y-%m-%d}.json"
    disposition = content_disposition_header(as_attachment=True, filename=name)
    return HttpResponse(text, content_type="application/json; charset=utf-8", headers={"Content-Disposition": disposition or "attachment"})


@require_http_methods(["GET", "HEAD", "POST"])
@proven
def delete(request: PortalRequest) -> HttpResponse:
    """Ask for the end of one's account: every session ends now, the rest in seven days."""
    form = DeleteForm(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            person = leaving.ask(request.user, by=request.user, request=request)
        except (leaving.LastOwner, leaving.LastOperator):
            return redirect("account_delete")  # somebody else left meanwhile: the page says which place needs an owner
        auth.logout(request)
        return render(request, "account/leaving.html", {"at": person.delete_at, "email": person.email, "signed_in": False})
    context = {
        "here": "profile",
        "form": form,
        "alone": leaving.owned_alone(request.user),
        "last_operator": leaving.is_last_operator(request.user),
        "places": Membership.objects.filter(user=request.user).select_related("tenant").order_by("tenant__name"),
        "days": policy.DELETION.days,
    }
    return render(request, "account/delete.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@present
def keep(request: PortalRequest) -> HttpResponse:
    """The only page of an account that is to be deleted: it offers to keep it."""
    if request.user.delete_at is None:
        return redirect("home")
    if request.method == "POST":
        leaving.undo(request.user, by=request.user, request=request)
        messages.success(request, _("Your account stays, with everything in it."))
        return redirect("home")
    person = User.objects.get(pk=request.user.pk)  # the person of a session comes from plain SQL, whose times have no zone
    return render(request, "account/keep.html", {"at": person.delete_at})
