"""Answers that send a browser on, as a page's form and as HTMX understand them."""

from typing import Any

from django.http import HttpResponse


def see_other(address: str) -> HttpResponse:
    """After a POST: look there, with a GET (RFC 9110 section 15.4.4)."""
    return HttpResponse(status=303, headers={"Location": address})


def leave_for(request: Any, address: str) -> HttpResponse:
    """The same, for the whole page, also where a part of it asked."""
    return HttpResponse(headers={"HX-Redirect": address}) if getattr(request, "htmx", False) else see_other(address)
