"""Invitations, as the invited see them: the page behind the mailed link, and the list on My places."""

from typing import Any
from urllib.parse import quote

from django.contrib import auth, messages
from django.db import IntegrityError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from identity import clock, invitations, sessions
from identity.invitations import State
from identity.middleware import SessionRequest
from identity.models import PASSWORD, Session, User
from portal.access import PortalRequest, signed_in
from portal.answers import see_other
from portal.forms import InvitedForm
from portal.views.login import complete, let_through
from tenants import hosts
from tenants.models import Invitation, Membership, Tenant


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: SessionRequest, token: str) -> HttpResponse:
    """Opening it changes nothing: a mail scanner opens every link. A POST accepts, signs up, or signs somebody else out."""
    invitation = invitations.seen(request, token)
    if invitation is None:
        return render(request, "invitation/unknown.html", status=404)
    person = request.user if isinstance(request.user, User) else None
    if request.method == "POST" and "switch" in request.POST:
        return _switch(request)
    if told := _closed(request, invitation, person):
        return told
    if person:
        return _accept(request, invitation, person)
    return _sign_up(request, invitation)


def _accept(request: SessionRequest, invitation: Invitation, person: User) -> HttpResponse:
    """Signed in: one button; or the question which account is meant, where the invitation went to another address."""
    if request.method == "POST" and "accept" in request.POST:
        if invitations.accept(invitation, person, request=request, by_link=True):
            return _into(invitation.tenant)
        return redirect(request.path)  # decided meanwhile: the page says what it was
    is_mine = invitations.fits(invitation, person)
    return _page(request, "invitation/accept.html", invitation, {"is_mine": is_mine, "person": person})


def _sign_up(request: SessionRequest, invitation: Invitation) -> HttpResponse:
    """Signed out: make an account, whose address the link proves, or sign in and come back here."""
    has_account = User.objects.filter(email_key=invitation.email_key).exists()
    form = InvitedForm(invitation.email, request.POST if "username" in request.POST else None)
    if not has_account and form.is_bound and form.is_valid():
        user = form.instance
        user.set_password(form.cleaned_data["password"])  # hashed before the transaction
        try:
            if not invitations.sign_up(invitation, user, request=request):
                return redirect(request.path)
        except IntegrityError:
            has_account = User.objects.filter(email_key=invitation.email_key).exists()  # proven in this very moment
            if not has_account:
                form.add_error("username", _("That name is already in use. Choose another."))
        else:
            complete(request, user, methods=[PASSWORD], remember=False, since=clock.now())
            return _into(invitation.tenant)
    context = {"form": form, "has_account": has_account, "login_url": f"{reverse('login')}?next={quote(request.path, safe='')}"}
    return _page(request, "invitation/sign_up.html", invitation, context)


def _switch(request: SessionRequest) -> HttpResponse:
    """Sign out whoever is signed in here, and show the page again."""
    row = request.session.row
    if row is not None:
        root = row.parent_id or row.pk
        sessions.end(Session.objects.filter(pk=root), by=row.user, reason=Session.Reason.SIGNED_OUT, request=request)
        auth.logout(request)
    return see_other(request.path)


def _into(tenant: Tenant) -> HttpResponse:
    """Into the place, by the hand-off; past the page that says why an earlier session there is over."""
    return see_other(f"{hosts.origin(tenant.hostname)}/_portal/start?again=1")


def _page(request: SessionRequest, template: str, invitation: Invitation, context: dict[str, Any]) -> HttpResponse:
    tenant = invitation.tenant
    shown = {"brand": tenant, "tenant": tenant, "invitation": invitation, "inviter": _inviter(invitation), **context}
    return let_through(render(request, template, shown), tenant, None)


def _inviter(invitation: Invitation) -> str:
    return invitation.invited_by.display_name if invitation.invited_by else _("the people of %(tenant)s") % {"tenant": invitation.tenant}


def _closed(request: SessionRequest, invitation: Invitation, person: User | None) -> HttpResponse | None:
    """The page for an invitation that lets nobody in, or not this person: what happened, and what to do. None if it is open."""
    tenant = invitation.tenant
    names = {"tenant": tenant.name, "inviter": _inviter(invitation)}
    membership = Membership.objects.filter(tenant=tenant, user=person).first() if person else None
    state = invitations.state(invitation)
    home = {"label": _("Open %(tenant)s") % names, "url": tenant.home_url}
    if membership and tenant.is_active:
        if membership.blocked_at:
            title = _("Your way into %(tenant)s is blocked") % names
            lead = _("You belong to %(tenant)s, but its admins blocked this account there. An invitation does not open it again.") % names
            return _told(request, tenant, title, lead, status=403)
        title = _("You belong to %(tenant)s already") % names
        lead = _("You are signed in as %(name)s, and there is nothing to accept.") % {"name": person.username if person else ""}
        return _told(request, tenant, title, lead, door=home, status=200)
    if state is State.OPEN:
        return None
    if state is State.ACCEPTED:
        title = _("This invitation was used already")
        lead = _("It lets one person in, once. If that was you, sign in; if not, ask %(inviter)s for one of your own.") % names
        return _told(request, tenant, title, lead, door=home)
    if state is State.REVOKED:
        title = _("This invitation was taken back")
        lead = _("The people who run %(tenant)s took it back, and nothing has changed. Ask %(inviter)s if you think that is wrong.") % names
    elif state is State.EXPIRED:
        day = date_format(localtime(invitation.expires_at), "DATE_FORMAT")
        title = _("This invitation ended on %(day)s") % {"day": day}
        lead = _("Ask %(inviter)s for a new one; nothing was lost.") % names
    elif state is State.UNBACKED:
        title = _("This invitation does not count any more")
        lead = _("Whoever sent it may not invite people to %(tenant)s any more. Ask somebody else there for a new one.") % names
    elif state is State.SUSPENDED:
        title = _("%(tenant)s is suspended") % names
        lead = _("An operator of this portal suspended %(tenant)s. Nobody can enter until it is resumed; this link works then.") % names
    else:
        title = _("%(tenant)s takes nobody in at present") % names
        lead = _("Its people closed it to new members after you were invited. Ask %(inviter)s whether it opens again.")
        lead %= names
    return _told(request, tenant, title, lead)


def _told(
    request: SessionRequest, tenant: Tenant, title: str, lead: str, *, door: dict[str, str] | None = None, status: int = 410
) -> HttpResponse:
    context = {"brand": tenant, "tenant": tenant, "title": title, "lead": lead, "door": door}
    return render(request, "invitation/told.html", context, status=status)


@require_POST
@signed_in
def accept_mine(request: PortalRequest) -> HttpResponse:
    """Accept one that waits on My places: it went to an address that this person has proven, so no link is needed."""
    mine = {str(each.pk): each for each in invitations.open_for(User.objects.get(pk=request.user.pk))}
    invitation = mine.get(request.POST.get("id", ""))
    if invitation is None:
        settled = (
            Invitation.objects.filter(pk=_number(request.POST.get("id", "")), accepted_by=request.user).select_related("tenant").first()
        )
        if settled is None:
            raise Http404
        return _into(settled.tenant)  # a double click: the first one did it
    if invitations.accept(invitation, request.user, request=request) is None:
        messages.info(request, _("That invitation is not open any more."))
        return see_other(f"{reverse('home')}?places=1")
    return _into(invitation.tenant)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
