"""What stands behind the links of warnings. Opening one changes nothing, since mail scanners open every link; a button confirms."""

from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from identity import addresses, links, sessions, warnings
from identity.devices import device
from identity.middleware import SessionRequest
from identity.models import Link, Session
from portal.views.login import only_tenant


@require_http_methods(["GET", "HEAD", "POST"])
def not_me(request: SessionRequest, token: str) -> HttpResponse:
    """“This was not me”: ends the session that the mail was about, takes its browser and the password away, mails a new start."""
    link = links.seen(request, token, Link.Purpose.NOT_ME)
    if link is None or link.user is None:
        return _over(request, "link/not_me_over.html")
    brand = only_tenant(link.user)
    row = Session.objects.filter(pk=link.data["session"], user=link.user).first()
    if request.method != "POST":
        browser = device(row.user_agent).label if row else ""
        return render(request, "link/not_me.html", {"brand": brand, "person": link.user, "row": row, "browser": browser})
    try:
        warnings.not_me(link, request=request)
    except sessions.StaleProof:
        return _over(request, "link/not_me_over.html")
    except addresses.Taken:
        return render(request, "link/not_me_taken.html", {"brand": brand}, status=409)
    if request.session.row is not None and str(request.session.row.pk) == link.data["session"]:
        request.session.forget()  # it was this very browser
        request.user = AnonymousUser()
    return render(request, "link/not_me_done.html", {"brand": brand, "address": link.data["email"]})


@require_http_methods(["GET", "HEAD", "POST"])
def unlock(request: SessionRequest, token: str) -> HttpResponse:
    """Open an account that too many wrong answers have locked. It signs nobody in."""
    link = links.seen(request, token, Link.Purpose.UNLOCK)
    if link is None or link.user is None:
        return _over(request, "link/unlock_over.html")
    brand = only_tenant(link.user)
    if request.method != "POST":
        return render(request, "link/unlock.html", {"brand": brand, "person": link.user})
    try:
        warnings.unlock(link, request=request)
    except sessions.StaleProof:
        return _over(request, "link/unlock_over.html")
    return render(request, "link/unlock_done.html", {"brand": brand})


def _over(request: SessionRequest, template: str) -> HttpResponse:
    """Used, late or unknown: one page for all three, which is right for the second click of a double click, too."""
    return render(request, template, status=404)
