"""Sessions in words, the same on every page that shows one."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from identity.devices import device
from identity.models import CODE, RECOVERY, TRUSTED, Session
from portal.templatetags.gatehouse import when


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    kind: str


def badge(methods: list[str]) -> Badge:
    """How somebody proved himself. Password only is the weak one."""
    if CODE in methods:
        return Badge(_("Password + code"), "good")
    if RECOVERY in methods:
        return Badge(_("Recovery code"), "warn")
    if TRUSTED in methods:
        return Badge(_("Trusted browser"), "brand")
    return Badge(_("Password only"), "weak")


@dataclass(frozen=True, slots=True)
class Row:
    """One session in the console's list."""

    id: str
    ended: bool
    fresh: bool
    name: str
    username: str
    email: str
    icon: str
    device: str
    address: str
    badge: Badge
    signed_in: datetime
    seen: datetime
    expires: datetime
    end_text: str
    end_note: str
    here: bool  # of the browser that looks at the list

    @classmethod
    def of(cls, session: Session, *, fresh: bool = False, portal: Session | None = None) -> "Row":
        browser = device(session.user_agent)
        return cls(
            id=str(session.id),
            ended=session.ended_at is not None,
            fresh=fresh,
            name=session.user.display_name,
            username=session.user.username,
            email=session.user.email,
            icon=browser.icon,
            device=browser.label,
            address=session.ip or "",
            badge=badge(session.methods),
            signed_in=session.created_at,
            seen=session.last_seen_at,
            expires=min(session.expires_at, session.idle_expires_at),
            end_text=f"{end_text(session)}, {when(session.ended_at)}" if session.ended_at else "",
            end_note=session.end_note,
            here=portal is not None and session.parent_id == portal.pk,
        )


def end_text(session: Session) -> str:
    """“Ended by bob”, “Idle for too long”: why a session is over, without the time."""
    who = session.ended_by.username if session.ended_by else ""
    reason = session.end_reason
    if reason == Session.Reason.SIGNED_OUT and who:
        return _("Signed out by %(who)s") % {"who": who}
    if reason in {Session.Reason.BY_ADMIN, Session.Reason.BY_OPERATOR, Session.Reason.BY_PERSON} and who:
        return _("Ended by %(who)s") % {"who": who}
    return str(session.get_end_reason_display())
