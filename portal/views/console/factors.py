"""The reset of a second factor, by an operator, for somebody who lost every one."""

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from identity import factors, known, ledger, mails
from identity.models import Event, Session, User
from portal.access import PortalRequest, operator
from portal.answers import see_other
from portal.console_forms import ResetFactorsForm
from portal.stepup import question
from portal.views.console import frame
from tenants.text import clean


@require_http_methods(["GET", "HEAD", "POST"])
@operator
def factors_reset(request: PortalRequest) -> HttpResponse:
    """For somebody who lost every second factor: a fresh proof, the name and how one knows who asks, what will happen, then the deed."""
    if asked := question(request, _("You are about to take somebody’s second factor away.")):
        return asked
    form = ResetFactorsForm(request.user, request.POST or None, initial={"username": request.GET.get("username", "")[:320]})
    if request.method != "POST" or not form.is_valid():
        return render(request, "console/platform/factors.html", {**frame.of_platform("factors"), "form": form})
    person, reason = form.cleaned_data["username"], clean(form.cleaned_data["reason"], 200)
    if "sure" not in request.POST:
        return render(
            request, "console/platform/factors_confirm.html", {**frame.of_platform("factors"), "reason": reason, **_at_stake(person)}
        )
    factors.reset(person, by=request.user, reason=reason, request=request)
    event = Event.objects.filter(kind="factors_reset", actor=request.user, subject=person).latest("pk")
    return see_other(f"{reverse('platform_factors_done')}?event={event.pk}")


def _at_stake(person: User) -> dict[str, Any]:
    """What a reset takes away from this person."""
    return {
        "person": person,
        "authenticators": len(factors.authenticators(person)),
        "codes": factors.codes_left(person),
        "browsers": len(known.trusted(person)),
        "live": Session.objects.filter(user=person, ended_at=None).count(),
        "is_told": bool(person.email and person.email_verified_at and mails.are_sent()),
    }


@require_safe
@operator
def factors_done(request: PortalRequest) -> HttpResponse:
    """What was done, and what comes next; a page of its own, so that loading it again does nothing again."""
    number = request.GET.get("event", "")
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    event = get_object_or_404(Event.objects.select_related("actor", "subject"), pk=pk, kind="factors_reset")
    if event.subject is None:  # deleted since
        raise Http404
    locked = any(each.is_locked for each in ledger.explain(event.subject.username))
    context = {**frame.of_platform("factors"), "event": event, "person": event.subject, "locked": locked}
    return render(request, "console/platform/factors_done.html", context)
