"""`manage.py invite`: let people into a tenant by mail, see who has not come yet, and take an invitation back."""

from typing import Any

from django.core.management import CommandError, CommandParser

from identity import clock, invitations
from identity.invitations import Result
from identity.management.output import Answer, VerbCommand, change, count, table, tenant_named
from identity.models import fold
from tenants.models import Invitation, Membership
from tenants.text import clean

VERBS = ("send", "list", "revoke")
SAID = {
    Result.SENT: "invited",
    Result.AGAIN: "invited again; the link from before is worthless",
    Result.JUST_NOW: "invited a moment ago, or many times in the last hour; nothing more was sent",
    Result.MEMBER: "belongs to it already",
    Result.MALFORMED: "is no complete address",
}


class Command(VerbCommand):
    help = "Invite people to a tenant by mail: invite SLUG ADDRESS…; invite list SLUG; invite revoke SLUG ADDRESS…"

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.answer, changes=True)
        parser.add_argument("words", nargs="+", metavar="[send|list|revoke] SLUG ADDRESS", help="“send” may be left out")
        parser.add_argument("--role", choices=Membership.Role.values, default=Membership.Role.MEMBER.value)

    def answer(self, *, words: list[str], role: str, **_: Any) -> Answer:
        verb, *rest = words if words[0] in VERBS else ["send", *words]
        if not rest or (verb == "list") != (len(rest) == 1):
            raise CommandError(
                "Say it like this: manage.py invite SLUG ADDRESS…, manage.py invite list SLUG, or manage.py invite revoke SLUG ADDRESS…"
            )
        slug, *addresses = rest
        if verb == "list":
            return self._list(slug)
        return self._send(slug, addresses, role) if verb == "send" else self._revoke(slug, addresses)

    @staticmethod
    def _send(slug: str, addresses: list[str], role: str) -> Answer:
        tenant = tenant_named(slug, lock=True)
        if tenant.rules.sign_up == "closed":
            raise CommandError(f"{tenant.name} takes nobody in. Cure: manage.py tenant set {slug} --policy sign_up=invited")
        wanted = invitations.addresses_in("\n".join(addresses))
        done = [invitations.invite(tenant, each, role) for each in wanted]
        lines = [f"{clean(line.address)}: {SAID[line.result]}" for line in done]
        wrong = [line for line in done if line.result is Result.MALFORMED]
        told = {"invitations": [{"address": line.address, "result": line.result.value} for line in done]}
        changed = any(line.result in {Result.SENT, Result.AGAIN} for line in done)
        answer = change(*lines, after=told["invitations"], changed=changed)
        if wrong:
            answer.error = f"{count(len(wrong), 'address', 'addresses')} of {len(done)} not invited: write each as name@example.com"
        return answer

    @staticmethod
    def _list(slug: str) -> Answer:
        tenant = tenant_named(slug)
        rows = list(Invitation.objects.filter(tenant=tenant, accepted_at=None, revoked_at=None).select_related("invited_by"))
        backed = invitations.backed(rows)
        listed = [
            {
                "address": each.email,
                "role": each.role,
                "invited_by": each.invited_by.username if each.invited_by else None,
                "sent_at": each.sent_at,
                "expires_at": each.expires_at,
                "open": each.expires_at > clock.now() and each.pk in backed,
            }
            for each in rows
        ]
        header = ("ADDRESS", "ROLE", "BY", "SENT (UTC)", "GOOD UNTIL (UTC)", "OPEN")
        cells = [[i["address"], i["role"], i["invited_by"], i["sent_at"], i["expires_at"], i["open"]] for i in listed]
        lines = table(header, cells) if cells else [f"No invitation to {tenant.name} is open: manage.py invite {slug} ADDRESS"]
        return Answer(lines, {"tenant": slug, "invitations": listed})

    @staticmethod
    def _revoke(slug: str, addresses: list[str]) -> Answer:
        tenant = tenant_named(slug, lock=True)
        lines, revoked = [], []
        for address in invitations.addresses_in("\n".join(addresses)):
            rows = Invitation.objects.filter(tenant=tenant, email_key=fold(address), accepted_at=None, revoked_at=None)
            found = rows.select_related("tenant").first()
            if found is None or not invitations.revoke(found):
                raise CommandError(
                    f"No invitation of {clean(address)} to {tenant.name} is open. Those there are: manage.py invite list {slug}"
                )
            lines.append(f"{found.email}: taken back; its link opens nothing")
            revoked.append({"address": found.email, "role": found.role})
        return change(*lines, before=revoked)
