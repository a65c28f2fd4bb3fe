"""`manage.py lockout`: who is locked out, since when, until when and why; and opening it before its time."""

import ipaddress
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.core.management import CommandError, CommandParser
from django.db.models import Count

from identity import clock, ledger
from identity.devices import device
from identity.ledger import Kind, Lockout
from identity.management.output import COMMAND_LINE, Answer, VerbCommand, at_most, change, count, table, tenant_named
from identity.models import Bucket, User
from tenants import policy
from tenants.text import clean

LISTED = 100
FROM = 10  # addresses and people, at most, that explain names
NOBODY = "a name that nobody has"
# What --kind takes: the kinds of bucket, and whether there is an account behind it.
KINDS: dict[str, tuple[Kind, bool | None]] = {
    "person": (Kind.PERSON, True),
    "device": (Kind.DEVICE, None),
    "factor": (Kind.FACTOR, None),
    "address": (Kind.ADDRESS, None),
    "unknown": (Kind.PERSON, False),
}
WHAT = {
    Kind.PERSON: "password, browsers that are not known",
    Kind.DEVICE: "password, one known browser",
    Kind.FACTOR: "second factor",
    Kind.ADDRESS: "everything, but known browsers",
}
SPARED = {
    Kind.PERSON: "Known browsers are not affected.",
    Kind.DEVICE: "Other browsers are not affected.",
    Kind.FACTOR: "The password alone opens nothing meanwhile.",
    Kind.ADDRESS: "Known browsers pass.",
}
ANSWERS = {Kind.PERSON: "wrong password", Kind.DEVICE: "wrong password", Kind.FACTOR: "wrong code", Kind.ADDRESS: "wrong answer"}


class Command(VerbCommand):
    help = "List who is locked out, explain why, and release somebody before the time."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)
        listing = self.verb(verbs.add_parser("list", help="what is locked now, the latest first"), self.listing)
        listing.add_argument("--tenant", metavar="SLUG", help="members of this tenant only")
        listing.add_argument("--kind", choices=KINDS, help="one kind only; unknown: names that nobody has")
        listing.add_argument("--limit", type=at_most, default=LISTED, metavar="N", help=f"at most so many ({LISTED}); 0: all")

        explain = self.verb(verbs.add_parser("explain", help="everything that is counted for one name or address"), self.explain)
        explain.add_argument("name", metavar="NAME", help="a user name, an address of a person, or where it comes from: 203.0.113.7")

        release = self.verb(verbs.add_parser("release", help="open it now, and forget the wrong answers"), self.release, changes=True)
        release.add_argument("name", metavar="NAME", help="as for explain")
        release.add_argument("--reason", metavar="TEXT", required=True, help="it stays in the log")

    # --- list -------------------------------------------------------------------------------------------------------

    def listing(self, *, tenant: str | None, kind: str | None, limit: int | None, **_: Any) -> Answer:
        place = tenant_named(tenant) if tenant else None
        which, of_people = KINDS[kind] if kind else (None, None)
        found = ledger.locked(
            [which] if which else [], tenant_id=place.pk if place else None, of_people=of_people, limit=limit + 1 if limit else None
        )
        shown, more = found[:limit], bool(limit) and len(found) > (limit or 0)
        rows = [[who(b), WHAT[Kind(b.kind)], b.locked_at, b.locked_until, why(b), b.ip] for b in (each.bucket for each in shown)]
        lines = table(("WHO", "WHAT", "SINCE (UTC)", "UNTIL (UTC)", "WHY", "LAST FROM"), rows)
        if not rows:
            lines = ["Nobody is locked out. Whoever fails too often appears here, with the reason and the time it ends."]
        if more:
            lines.append(f"The latest {len(shown)}. More with --limit, fewer with --tenant or --kind.")
        return Answer(lines, {"lockouts": [described(each) for each in shown], "more": more})

    # --- explain ----------------------------------------------------------------------------------------------------

    def explain(self, *, name: str, **_: Any) -> Answer:
        person = User.objects.named(name)
        found = ledger.explain(name)
        by_kind = {each.bucket.kind: each for each in reversed(found)}
        main = by_kind.get(Kind.ADDRESS) or by_kind.get(Kind.PERSON)  # who writes an address means it, whoever typed it as a name
        came_from = addresses_of(person) if person else []
        tried = [whom for each in found if each.bucket.network for whom in people_at(each.bucket)]
        called = person.username if person else clean(name)
        lines = [sentence(each, called) for each in found]
        if not found:
            subject = f"The address {called}" if is_network(name) else called if person else f"“{called}”, {NOBODY},"
            lines = [f"{subject} is not locked out: no wrong answer counts."]
        if came_from:
            lines.append(f"Wrong answers in the last day came from {listed(came_from)}.")
        if tried:
            lines.append(f"In the last day the wrong answers from there were for {listed(tried)}.")
        lines += shut_addresses(address for address, _n in came_from)
        if any(each.is_locked for each in found):
            lines.append(f"To open it now: manage.py lockout release {called} --reason TEXT")
        data = {
            "name": called,
            "known": person is not None,
            "locked": any(each.is_locked for each in found),
            "failed": main.bucket.failed if main else 0,
            "flying": main.bucket.flying if main else 0,
            "until": main.bucket.locked_until if main and main.is_locked else None,
            "limit": main.limit if main else ledger.tries(person),
            "buckets": [described(each) for each in found],
            "came_from": [{"address": address, "failed": n} for address, n in came_from],
        }
        return Answer(lines, data)

    # --- release ----------------------------------------------------------------------------------------------------

    def release(self, *, name: str, reason: str, **_: Any) -> Answer:
        text = clean(reason, 200).strip()
        if not text:
            raise CommandError('Say why: it stays in the log. --reason "Called from the own desk"')
        person = User.objects.named(name)
        found = ledger.explain(name)
        called = person.username if person else clean(name)
        if not person and not found:
            raise CommandError(f"Nothing is counted for “{called}”, and nobody has that name. What is locked: manage.py lockout list")
        before = [described(each) for each in found if each.is_locked or each.bucket.failed]
        done = ledger.release([each.bucket.pk for each in found], by=None, reason=text, source=COMMAND_LINE)
        if not done:
            return change(f"{called} is not locked out: there was nothing to release.", before=[], after=[], changed=False)
        lines = [f"Released {called}: {'; '.join(WHAT[Kind(row.kind)] for row in done)}."]
        warnings = shut_addresses(address for address, _n in addresses_of(person)) if person else []
        return change(*lines, before=before, after=[], released=len(done), warnings=warnings)


def is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return True


# --- In words -------------------------------------------------------------------------------------------------------


def who(row: Bucket) -> str:
    return row.user.username if row.user else row.network or NOBODY


def why(row: Bucket) -> str:
    text = count(row.failed, ANSWERS[Kind(row.kind)])
    return f"{text}, {row.refused} more kept out" if row.refused else text


def sentence(lockout: Lockout, called: str) -> str:
    """One bucket, whole: what is locked or not, since when, until when, why, from where."""
    row, kind = lockout.bucket, Kind(lockout.bucket.kind)
    wrong = count(row.failed, ANSWERS[kind])
    last = f", the last from {row.ip}" if row.ip and row.failed and kind != Kind.ADDRESS else ""
    if not lockout.is_locked:
        checked = f"; {row.flying} being checked right now" if row.flying else ""
        return f"{subject(row, called)} not {state(row)}: {row.failed} of {count(lockout.limit, ANSWERS[kind])}{last}{checked}."
    assert row.locked_at
    assert row.locked_until
    kept_out = f"; {count(row.refused, 'more attempt was', 'more attempts were')} kept out" if row.refused else ""
    times = f"since {at(row.locked_at)} until {at(row.locked_until)}"
    spared = SPARED[kind] if row.user or row.network else "Nobody is affected."
    return f"{subject(row, called)} {state(row)}, {times}: {wrong}{last}{kept_out}. {spared}"


def subject(row: Bucket, called: str) -> str:
    if row.kind == Kind.ADDRESS:
        return f"The {'network' if '/' in row.network else 'address'} {row.network} is"
    return f"{called} is" if row.user else f"“{called}”, {NOBODY}, is"


def state(row: Bucket) -> str:
    match row.kind:
        case Kind.ADDRESS:
            return "shut"
        case Kind.FACTOR:
            return "locked out of the second factor"
        case Kind.DEVICE:
            browser = f" ({device(row.device.user_agent).label})" if row.device else ""
            return f"locked out on one known browser{browser}"
    return "locked out on browsers that are not known" if row.user else "locked, like a name that somebody has"


def at(moment: datetime) -> str:
    """“14:32 UTC”, with the day where it is another one."""
    return f"{moment:%H:%M:%S} UTC" if moment.date() == clock.now().date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def described(lockout: Lockout) -> dict[str, Any]:
    row = lockout.bucket
    return {
        "kind": "unknown" if row.kind == Kind.PERSON and not row.user else row.kind,
        "username": row.user.username if row.user else None,
        "network": row.network or None,
        "browser": device(row.device.user_agent).label if row.device else None,
        "locked": lockout.is_locked,
        "since": row.locked_at,
        "until": row.locked_until if lockout.is_locked else None,
        "failed": row.failed,
        "flying": row.flying,
        "limit": lockout.limit,
        "kept_out": row.refused,
        "first_failure": row.started_at,
        "last_from": row.ip,
    }


# --- Lately ---------------------------------------------------------------------------------------------------------


def addresses_of(person: User) -> list[tuple[str, int]]:
    """Where this person's wrong answers came from in the last day, the most first."""
    told = ledger.failures(policy.FORGOTTEN).filter(subject=person, ip__isnull=False)
    return list(told.order_by().values_list("ip").annotate(n=Count("pk")).order_by("-n", "ip")[:FROM])


def people_at(row: Bucket) -> list[tuple[str, int]]:
    """Whom the wrong answers from there were for; of a network: those from the address that was last."""
    if not row.ip:
        return []
    told = ledger.failures(policy.FORGOTTEN).filter(ip=row.ip).order_by()
    counted = told.values_list("subject__username").annotate(n=Count("pk")).order_by("-n", "subject__username")
    return [(name or "names that nobody has", n) for name, n in counted[:FROM]]


def listed(pairs: list[tuple[str, int]]) -> str:
    return ", ".join(f"{what} ({n})" for what, n in pairs)


def shut_addresses(addresses: Iterable[str]) -> list[str]:
    """What else keeps somebody out: the addresses that are shut themselves."""
    found = {each.bucket.network: each.bucket for address in addresses for each in ledger.explain(address) if each.bucket.network}
    return [
        f"The address {row.network} is shut until {at(row.locked_until)}: manage.py lockout explain {row.network}"
        for row in found.values()
        if row.locked_at and row.locked_until
    ]
