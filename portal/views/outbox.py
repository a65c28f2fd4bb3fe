"""The demo's outbox: what a mail server would have taken, on a page. Nowhere else is there such a page."""

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from identity import crypto, mails
from identity.models import Mail

SHOWN = 50
# A mail has styles of its own, and is not one of our pages: it runs nothing, loads nothing, and stands in an origin of its own.
_SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    _only_in_the_demo()
    rows = Mail.objects.exclude(to="").order_by("-pk")[:SHOWN]
    return render(request, "outbox/outbox.html", {"mails": [_shown(row) for row in rows]})


@require_safe
def html(request: HttpRequest, pk: int) -> HttpResponse:
    """One mail as a mail program would show it."""
    _only_in_the_demo()
    row = get_object_or_404(Mail.objects.exclude(to=""), pk=pk)
    try:
        text = mails.text_of(row)["html"]
    except crypto.Undecipherable:
        raise Http404 from None
    return HttpResponse(text, headers={"Content-Security-Policy": _SANDBOX})


def _only_in_the_demo() -> None:
    if not settings.KEEP_MAILS:
        raise Http404


def _shown(row: Mail) -> dict[str, Any]:
    try:
        text = mails.text_of(row)["text"]
    except crypto.Undecipherable:
        text = ""
    return {"pk": row.pk, "to": row.to, "subject": row.subject, "at": row.created_at, "text": text, "sent": row.sent_at is not None}
