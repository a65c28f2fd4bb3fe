"""Step-up: a fresh proof with every factor, asked before what is dangerous is shown. Nothing typed or ticked is lost. ASVS 7.5.1, 7.5.3.

A page is left and come back to; a POST is answered by the question in its place, which carries what was posted along and goes
on with it once it is answered.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from identity import factors, sessions
from identity.backends import prove
from identity.middleware import page_behind
from identity.models import PASSWORD
from portal.access import PortalRequest, portal_row, signed_in, step_up
from portal.forms import StepUpForm
from tenants.models import Tenant

P = ParamSpec("P")
PREFIX = "proof"  # of the fields of a question that rides on another form
_NOT_CARRIED = {"csrfmiddlewaretoken"}


def proven(view: Callable[Concatenate[PortalRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Signed in, with a fresh proof: for pages that change secrets."""

    @wraps(view)
    def ask(request: PortalRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        return question(request) or view(request, *args, **kwargs)

    return signed_in(ask)  # type: ignore[arg-type]


def question(request: PortalRequest, why: str = "") -> HttpResponse | None:
    """None if the proof is fresh, or has just been given; else the answer that asks for it.

    why: what is about to happen, as a sentence.
    """
    if sessions.is_fresh(portal_row(request)):
        return None
    if request.method != "POST":
        return step_up(request)
    answered = f"{PREFIX}-password" in request.POST
    form = form_for(request, request.POST if answered else None, prefix=PREFIX)
    if answered and form.is_valid() and answer(request, form):
        return None
    carried = [
        (name, value)
        for name, values in request.POST.lists()
        for value in values
        if not name.startswith(f"{PREFIX}-") and name not in _NOT_CARRIED and "password" not in name
    ]
    tenant: Tenant | None = getattr(request, "console_tenant", None)
    context: dict[str, Any] = {"form": form, "brand": tenant, "tenant": tenant, "why": why, "carried": carried, "action": request.path}
    context["loses"] = any("password" in name and not name.startswith(f"{PREFIX}-") for name in request.POST)
    context["username"], context["back_url"] = request.user.username, page_behind(request)
    return render(request, "step_up/_dialog.html" if request.htmx else "step_up/step_up.html", context)


def form_for(request: PortalRequest, data: Any, **kwargs: Any) -> StepUpForm:
    """The question to this person: the password, and a code where there is an authenticator."""
    return StepUpForm(data, asks_code=factors.has_factor(request.user), **kwargs)


@sensitive_variables("data")
def answer(request: PortalRequest, form: StepUpForm) -> bool:
    """Check a valid form. True: the portal session carries the fresh proof, and has a new key. Raises ledger.AddressFull."""
    data = form.cleaned_data
    person = prove(request, request.user.username, data["password"], what="step_up")
    if person is None or person.pk != request.user.pk:
        form.add_error("password", _("That password is not right. After several failed attempts, wait a few minutes."))
        return False
    methods = [PASSWORD]
    if form.asks_code:
        checked = factors.prove(request, person, data[form.code_field], what="step_up")
        if not checked.method:
            form.explain(checked, form.code_field)
            return False
        methods.append(checked.method)
    if not sessions.prove_again(portal_row(request), request=request, methods=methods):
        raise UpdateError  # it ended while the secret was checked: what was asked for is not done
    request.session.rotate(grace=True)
    return True
