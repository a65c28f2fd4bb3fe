"""One session: what the same person has open here, where it was opened from, and what can be done about it."""

import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from identity import events, warnings
from identity.models import Session
from portal.access import ConsoleRequest, console, portal_row
from portal.answers import see_other
from portal.paging import link
from portal.templatetags.gatehouse import exact
from portal.views.console import frame
from portal.views.show import Row
from tenants.models import Membership

SHOWN = 50


@require_safe
@console
def session_page(request: ConsoleRequest, pk: uuid.UUID) -> HttpResponse:
    """The branches that a person has or had here, each under the sign-in that it hangs on."""
    row = _session(request, pk)
    tenant = request.console_tenant
    rows = Session.objects.filter(tenant=tenant, user=row.user).exclude(end_reason=Session.Reason.PROBE)
    latest = list(rows.select_related("user", "ended_by", "parent").order_by("-created_at", "-pk")[:SHOWN])
    if row.pk not in {each.pk for each in latest}:
        latest.append(row)
    live = set(Session.objects.alive_at(tenant).filter(user=row.user).values_list("pk", flat=True))
    context = {
        **frame.of_tenant(request, "sessions"),
        "person": row.user,
        "is_member": Membership.objects.filter(tenant=tenant, user=row.user).exists(),
        "row": Row.of(row, portal=portal_row(request)),
        "is_live": row.pk in live,
        "live_count": len(live),
        "live_ids": sorted(str(each) for each in live),
        "knots": _knots(request, row, latest, live),
        "more_url": link(reverse("console_sessions", args=[tenant.slug]), state="ended", person=row.user.username),
        "list_url": reverse("console_sessions", args=[tenant.slug]),
    }
    return render(request, "console/sessions/session.html", context)


def _session(request: ConsoleRequest, pk: uuid.UUID) -> Session:
    rows = Session.objects.filter(tenant=request.console_tenant, pk=pk).exclude(end_reason=Session.Reason.PROBE)
    row = rows.select_related("user", "ended_by", "parent", "tenant").first()
    if row is None:
        events.record("foreign_session", request=request, tenant=request.console_tenant, actor=request.user, ids=[str(pk)])
        raise Http404
    return row


def _knots(request: ConsoleRequest, chosen: Session, rows: list[Session], live: set[uuid.UUID]) -> list[dict[str, Any]]:
    """Branches by the sign-in that they hang on, that of the chosen one first. Of the sign-in itself a tenant sees device, address and
    time: whether and when it was seen since would tell of other tenants.
    """
    portal = portal_row(request)
    knots: dict[uuid.UUID | None, dict[str, Any]] = {chosen.parent_id: {}}
    for row in rows:
        assert row.parent is not None
        root = Row.of(row.parent) if row.parent_id else None
        knot = knots.setdefault(row.parent_id, {})
        knot.setdefault("root", root)
        knot.setdefault("here", row.parent_id == portal.pk)
        branch = {"row": Row.of(row, portal=portal), "live": row.pk in live, "chosen": row.pk == chosen.pk}
        knot.setdefault("branches", []).append(branch)
    return list(knots.values())


@require_POST
@console
def session_report(request: ConsoleRequest, pk: uuid.UUID) -> HttpResponse:
    """“This session may be in wrong hands”: its owner and the operators are told, at most once an hour."""
    row = _session(request, pk)
    try:
        mailed = warnings.report(row, by=request.user, request=request)
    except warnings.ReportedLately as lately:
        text = _("This session was reported at %(time)s; once an hour is enough.") % {"time": exact(lately.at)}
        messages.info(request, text)
    else:
        name = row.user.display_name
        if mailed:
            text = _("Reported. %(name)s gets a mail with a link that ends the sign-in and the password; the operators are told.")
        else:
            text = _("Reported to the operators. %(name)s has no proven e-mail address and could not be told.")
        messages.success(request, text % {"name": name})
    return see_other(reverse("console_session", args=[request.console_tenant.slug, row.pk]))
