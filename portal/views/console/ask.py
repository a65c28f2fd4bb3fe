"""What an operator is asked before something happens: in the dialog, or without a script as a page."""

from dataclasses import dataclass, field

from django.http import HttpResponse
from django.shortcuts import render

from portal.access import PortalRequest
from portal.forms import PlainForm
from portal.views.console import frame


@dataclass(frozen=True, slots=True)
class Question:
    """title, lead and lines say what will happen; keep and do are the two ways on."""

    title: str
    lead: str
    keep: str
    do: str
    lines: list[str] = field(default_factory=list)
    is_final: bool = True


def answer(
    request: PortalRequest, current: str, question: Question, form: PlainForm, *, back: str, **hidden: str | list[str]
) -> HttpResponse:
    """Ask it. hidden: what the form carries along besides its fields; current: the page of the navigation."""
    carried = [(name, value) for name, given in hidden.items() for value in ([given] if isinstance(given, str) else given)]
    wrong = next((each.name for each in form if each.errors), "")
    context = {
        **frame.of_platform(current), "question": question, "form": form, "action": request.path, "back_url": back, "carried": carried,
        "wrong": wrong,
    }  # fmt: skip
    return render(request, "console/platform/_ask.html" if request.htmx else "console/platform/ask.html", context)
