"""`manage.py tenant`: organisations, their look and limits, their hosts and apps."""

import re
from argparse import ArgumentParser
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import CommandError, CommandParser
from django.db.models import Count

from identity import app_rules, clock, hosting, mass, members, panic, platform, simulation, tenancy
from identity.app_rules import Wanted
from identity.management.output import (
    COMMAND_LINE,
    NO_TENANTS,
    Answer,
    VerbCommand,
    change,
    count,
    facts,
    note,
    person_named,
    table,
    tenant_named,
)
from identity.models import Session
from identity.simulation import Forecast
from tenants import hosts, logos
from tenants.models import App, Host, Membership, Tenant
from tenants.policy import KNOWN_TIMES, SECOND_FACTOR, SIGN_UP, TRIES_UNKNOWN, TRUSTED_BROWSER, Policy
from tenants.text import clean

NOT_ENFORCED = "The rules of apps are stored and not yet enforced."
HOST_VERBS = ("add", "remove", "list")
# What --policy takes. Durations are in seconds; the rest is said in words by `tenant show`.
POLICIES = (
    "idle=28800, absolute=86400 (seconds)",
    "remembered=yes: a remembered portal session may keep a session here as long",
    f"second_factor={'|'.join(SECOND_FACTOR)}: who must have one",
    "grace_days=14: how long they may do without",
    "trusted_browsers=no: none stands in for the code",
    f"tries={TRIES_UNKNOWN}: wrong passwords until a lock, or fewer",
    "password_length=12; password_length_alone=12 for who is not asked for a second factor",
    f"sign_up={'|'.join(SIGN_UP)}: who becomes a member",
    "sign_up_domains=acme.example,acme.org: of addresses, for sign_up=domain",
    "approval=yes: who comes without an invitation waits for an admin",
)


class Command(VerbCommand):
    help = "Add, show, change, suspend and resume, freeze and unfreeze tenants, with their hosts and apps."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(metavar="VERB", required=True)

        add = self.verb(verbs.add_parser("add", help="a new tenant"), self.add, changes=True)
        add.add_argument("slug", help="its label in SLUG.example.com, for good")
        add.add_argument("name", help="what people read")
        add.add_argument("--colour", metavar="#RRGGBB")
        add.add_argument("--support", metavar="CONTACT", help="an address, a number or a page")
        add.add_argument("--owner", metavar="USERNAME", help="make this person its first owner")

        self.verb(verbs.add_parser("list", help="all tenants"), self.listing)
        self._slug(self.verb(verbs.add_parser("show", help="everything about one tenant"), self.show))

        alter = self.verb(verbs.add_parser("set", help="change its look, cookie domain or limits"), self.alter, changes=True)
        self._slug(alter)
        alter.add_argument("--name")
        alter.add_argument("--colour", metavar="#RRGGBB")
        alter.add_argument("--support", metavar="CONTACT", help="an address, a number or a page")
        alter.add_argument("--note", metavar="TEXT", help="a line on its sign-in page")
        alter.add_argument("--logo", metavar="FILE", help="PNG, JPEG, WebP or GIF, at most 2 MB; “none” removes it")
        alter.add_argument("--cookie-domain", metavar="DOMAIN", help="where its session cookie is good")
        alter.add_argument("--home-public", choices=["yes", "no"], help="may a guest see its home page?")
        alter.add_argument(
            "--policy", metavar="NAME=VALUE", action="extend", nargs="+", help=f"NAME=default, or one of: {'; '.join(POLICIES)}"
        )

        suspend = self.verb(verbs.add_parser("suspend", help="close it and end its sessions"), self.suspend, changes=True, in_steps=True)
        self._slug(suspend)
        suspend.add_argument("--reason", metavar="TEXT", default="", help="what its people are told")
        self._slug(self.verb(verbs.add_parser("resume", help="open it again"), self.resume, changes=True))
        delete = verbs.add_parser("delete", help="a suspended one, with everything in it, for good")
        self._slug(self.verb(delete, self.delete, changes=True, in_steps=True))
        delete.add_argument("--reason", metavar="TEXT", default="", help="it stays in the log")

        freeze = self.verb(verbs.add_parser("freeze", help="let nobody new in; who is in goes on"), self.freeze, changes=True)
        self._slug(freeze)
        freeze.add_argument("--reason", metavar="TEXT", default="", help="what its admins read, and the log keeps")
        unfreeze = self.verb(verbs.add_parser("unfreeze", help="let people in again"), self.unfreeze, changes=True)
        self._slug(unfreeze)
        unfreeze.add_argument("--reason", metavar="TEXT", default="", help="what the log keeps")

        host = self.verb(verbs.add_parser("host", help="its further hosts"), self.host, changes=True)
        host.add_argument("words", nargs="+", metavar="add|remove|list SLUG HOST", help="“add” may be left out")
        host.add_argument("--cookie-domain", metavar="DOMAIN", default="", help="where the tenant's own does not cover the host")

        apps = verbs.add_parser("app", help="its apps, behind a proxy that asks the gate").add_subparsers(metavar="VERB", required=True)
        add_app = self.verb(apps.add_parser("add", help="a new app"), self.add_app, changes=True)
        self._slug(add_app)
        add_app.add_argument("name", help="what people read")
        add_app.add_argument("host", help="a host inside the tenant's cookie domain")
        add_app.add_argument("--role", action="append", choices=Membership.Role.values, help="who may enter; without: every member")
        add_app.add_argument("--second-factor", action="store_true", help="only with a second factor")
        add_app.add_argument("--public-path", action="append", metavar="/PATH", help="open to everybody, such as a webhook")
        remove_app = self.verb(apps.add_parser("remove", help="remove an app"), self.remove_app, changes=True)
        self._slug(remove_app)
        remove_app.add_argument("host", help="its host")
        self._slug(self.verb(apps.add_parser("list", help="its apps"), self.list_apps))

    @staticmethod
    def _slug(parser: ArgumentParser) -> None:
        parser.add_argument("slug", metavar="SLUG")

    # --- The tenant -------------------------------------------------------------------------------------------------

    def add(self, *, slug: str, name: str, colour: str | None, support: str | None, owner: str | None, **_: Any) -> Answer:
        if Tenant.objects.filter(slug=slug).exists():
            raise CommandError(f"There is a tenant “{slug}” already. Look at it: manage.py tenant show {slug}")
        first = person_named(owner) if owner else None
        tenant = Tenant(slug=slug, name=name, support_contact=support or "")
        tenant.colour = colour.lower() if colour else tenant.colour
        platform.add(tenant)
        after = tenancy.described(tenant)
        lines = [f"Added {tenant.name}: {tenant.home_url}"]
        if first:
            Membership.objects.create(tenant=tenant, user=first, role=Membership.Role.OWNER)
            note("member_added", tenant=tenant, subject=first, before=None, after={"role": "owner"})
            lines.append(f"{first.username} is its owner.")
        else:
            lines.append(f"Nobody belongs to it yet: manage.py member add {slug} USERNAME --role owner")
        return change(*lines, after=after)

    def listing(self, **_: Any) -> Answer:
        tenants = list(Tenant.objects.annotate(people=Count("memberships")).order_by("slug"))
        listed = [
            {
                "slug": tenant.slug,
                "name": tenant.name,
                "status": tenant.status,
                "url": tenant.home_url,
                "members": tenant.people,
                "live_sessions": Session.objects.standing_at(tenant).count(),
            }
            for tenant in tenants
        ]
        header = ("SLUG", "NAME", "STATUS", "MEMBERS", "LIVE", "ADDRESS")
        rows = [[t["slug"], t["name"], t["status"], t["members"], t["live_sessions"], t["url"]] for t in listed]
        return Answer(table(header, rows) if rows else [NO_TENANTS], {"tenants": listed})

    def show(self, *, slug: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        known = tenancy.described(tenant)
        people = Membership.objects.filter(tenant=tenant)
        owners = list(people.filter(role=Membership.Role.OWNER).order_by("user__username").values_list("user__username", flat=True))
        known |= {
            "created_at": tenant.created_at,
            "valid_from": tenant.valid_from,
            "owners": owners,
            "members": people.count(),
            "live_sessions": Session.objects.standing_at(tenant).count(),
            "frozen_at": tenant.frozen_at,
            "proof_demanded_at": tenant.proof_demanded_at,
            "hosts": [hosting.facts(host) for host in tenant.hosts.all()],
            "apps": [app_rules.facts(app) for app in tenant.apps.all()],
        }
        lines = facts(
            [
                ("Name", tenant.name),
                ("Status", tenant.get_status_display()),
                *[(_IN_FORCE[each.kind], in_force_line(each)) for each in panic.in_force(tenant)],
                ("Address", tenant.home_url),
                ("Cookie domain", tenant.cookie_domain),
                ("Colour", tenant.colour),
                ("Logo", tenant.logo_id is not None),
                ("Support", tenant.support_contact or "none: people are told nothing. manage.py tenant set --support"),
                ("Sign-in note", tenant.sign_in_note or "none"),
                ("Home is public", tenant.home_is_public),
                *[(f"Policy {name.replace('_', ' ')}", text) for name, text in policy_words(tenant).items()],
                ("Owners", ", ".join(owners) or f"none yet: manage.py member add {slug} USERNAME --role owner"),
                ("Members", known["members"]),
                ("Live sessions", known["live_sessions"]),
                *[("Host", host_line(host)) for host in tenant.hosts.all()],
                *[("App", app_line(app)) for app in tenant.apps.all()],
            ]
        )
        return Answer([*lines, NOT_ENFORCED] if known["apps"] else lines, {"tenant": known})

    def alter(
        self,
        *,
        slug: str,
        name: str | None,
        colour: str | None,
        support: str | None,
        note: str | None,
        logo: str | None,
        cookie_domain: str | None,
        home_public: str | None,
        policy: list[str] | None,
        **_: Any,
    ) -> Answer:
        wanted: dict[str, Any] = {
            "name": name,
            "colour": colour.lower() if colour else colour,
            "support_contact": support,
            "sign_in_note": note,
            "cookie_domain": canonical(cookie_domain) if cookie_domain else None,
            "home_is_public": {"yes": True, "no": False}.get(home_public or ""),
        }
        wanted = {field: value for field, value in wanted.items() if value is not None}
        if not (wanted or policy or logo):
            raise CommandError(f"Say what to set, such as: manage.py tenant set {slug} --support it@example.com (see --help)")
        tenant = tenant_named(slug, lock=True)
        if policy:
            wanted["policy"] = changed_policy(tenant.policy, policy)
        if logo:
            wanted["logo"] = picture(logo)
        done = tenancy.change(tenant, wanted)
        if "cookie_domain" in wanted:
            hosting.still_fits(done.tenant)
        return self._say_set(done)

    @staticmethod
    def _say_set(done: tenancy.Change) -> Answer:
        tenant = done.tenant
        states: dict[str, Any] = {"before": done.before, "after": done.after}
        ended = done.did.sessions if done.did else 0
        if not done.is_one:
            return change(f"{tenant.name} is like that already.", changed=False, ended=0, **states)
        lines = [
            f"{tenant.slug}: {label} {old} → {new}"
            for (label, old), (_label, new) in zip(_flat(done.before), _flat(done.after), strict=True)
            if old != new
        ]
        if done.did:
            lines += ended_lines(done.did)
        warnings = policy_warnings(tenant, done.before["policy"], done.after["policy"]) if done.did else []
        if "cookie_domain" in done.after:
            warnings.append("Who is signed in keeps the cookie of the old domain until the session is over.")
        return change(*lines, warnings=warnings, ended=ended, **states)

    def suspend(self, *, slug: str, reason: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        try:
            done = platform.suspend(tenant, reason=clean(reason, 200))
        except platform.BeingDeleted:
            raise _is_being_deleted(tenant) from None
        mass.carry_on()
        lines = [
            f"{tenant.name} is suspended{'' if done.is_one else ' already'}; {count(done.ended, 'session')} ended.",
            f"To open it again: manage.py tenant resume {slug}",
        ]
        return change(*lines, before=done.before, after=done.after, changed=done.is_one or done.ended > 0, ended=done.ended)

    def resume(self, *, slug: str, **_: Any) -> Answer:
        tenant = tenant_named(slug, lock=True)
        try:
            done = platform.resume(tenant)
        except platform.BeingDeleted:
            raise _is_being_deleted(tenant) from None
        said = "is active again. Its people prove themselves anew when they come back." if done.is_one else "is active already."
        return change(f"{tenant.name} {said}", before=done.before, after=done.after, changed=done.is_one)

    def delete(self, *, slug: str, reason: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        contents = platform.contents(tenant)
        try:
            platform.delete(tenant, reason=clean(reason, 200))
        except platform.NotSuspended:
            raise CommandError(f"{tenant.name} is active. First: manage.py tenant suspend {slug} --reason TEXT") from None
        while Tenant.objects.filter(pk=tenant.pk).exists():
            platform.carry_on()
        lines = [f"{tenant.name} is deleted, with {count(contents['members'], 'membership')} and {count(contents['sessions'], 'session')}."]
        return change(
            *lines,
            "The accounts of its people stay, and so does the log.",
            before={"slug": slug, "status": tenant.status, **contents},
            after=None,
        )

    def freeze(self, *, slug: str, reason: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        before = tenant.frozen_at
        changed = panic.freeze(tenant, by=members.COMMAND_LINE, note=clean(reason, 200))
        live = Session.objects.standing_at(tenant).count()
        lines = [
            f"{tenant.name} is frozen{'' if changed else ' already'}: nobody new comes in but its admins, with a second factor.",
            f"Live sessions, which go on: {live}. To end them: manage.py session end --tenant {slug} --reason TEXT",
            f"To open it again: manage.py tenant unfreeze {slug}",
        ]
        return change(*lines, before={"frozen_at": before}, after={"frozen_at": tenant.frozen_at}, changed=changed)

    def unfreeze(self, *, slug: str, reason: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        states: dict[str, Any] = {"before": {"frozen_at": tenant.frozen_at}, "after": {"frozen_at": None}}
        if not panic.lift_freeze(tenant, by=members.COMMAND_LINE, note=clean(reason, 200)):
            return change(f"{tenant.name} is not frozen.", changed=False, **states)
        return change(f"{tenant.name} is open again.", **states)

    # --- Hosts ------------------------------------------------------------------------------------------------------

    def host(self, *, words: list[str], cookie_domain: str, **_: Any) -> Answer:
        """`host add SLUG HOST`, or as the error texts have it: `host SLUG HOST`."""
        verb, *rest = words if words[0] in HOST_VERBS else ["add", *words]
        if len(rest) != (1 if verb == "list" else 2):
            raise CommandError("Say it like this: manage.py tenant host add SLUG HOST, host remove SLUG HOST, or host list SLUG")
        if verb == "list":
            return self._list_hosts(tenant_named(rest[0]))
        tenant, name = tenant_named(rest[0], lock=True), canonical(rest[1])
        return self._add_host(tenant, name, cookie_domain) if verb == "add" else self._remove_host(tenant, name)

    @staticmethod
    def _add_host(tenant: Tenant, name: str, cookie_domain: str) -> Answer:
        """Good at once: whoever has the command line is an operator, and this is his approval."""
        done = hosting.settle(tenant, name, canonical(cookie_domain) if cookie_domain else "", approved=True)
        if not done.is_one:
            return change(f"{name} is a host of {tenant.name} already.", before=done.before, after=done.after, changed=False)
        lines = [f"{tenant.name} answers at {hosts.origin(name)}/ with the cookie domain {done.host.cookie_domain}."]
        lines += [f"{count(done.ended, 'session')} ended: its cookie is at the old domain."] if done.ended else []
        lines.append("Its name has to lead to this portal (DNS), and its certificate has to name it.")
        return change(*lines, before=done.before, after=done.after, ended=done.ended)

    @staticmethod
    def _remove_host(tenant: Tenant, name: str) -> Answer:
        host = Host.objects.filter(tenant=tenant, name=name).first()
        if host is None:
            raise CommandError(f"{tenant.name} has no further host {name}. Those it has: manage.py tenant host list {tenant.slug}")
        done = hosting.remove(host)
        lines = [f"{tenant.name} no longer answers at {name}."]
        lines += [f"{count(done.ended, 'session')} ended, opened there."] if done.ended else []
        return change(*lines, before=done.before, ended=done.ended)

    @staticmethod
    def _list_hosts(tenant: Tenant) -> Answer:
        further = list(tenant.hosts.all())
        rows = [[host.name, host.cookie_domain, host.approved_at or "not approved"] for host in further]
        lines = [f"{tenant.name} answers at {tenant.home_url}"]
        lines += (
            table(("HOST", "COOKIE DOMAIN", "APPROVED (UTC)"), rows)
            if rows
            else [f"No further hosts yet: manage.py tenant host add {tenant.slug} HOST"]
        )
        return Answer(lines, {"own": tenant.hostname, "hosts": [hosting.facts(host) for host in further]})

    # --- Apps -------------------------------------------------------------------------------------------------------

    def add_app(
        self,
        *,
        slug: str,
        name: str,
        host: str,
        role: list[str] | None,
        second_factor: bool,
        public_path: list[str] | None,
        **_: Any,
    ) -> Answer:
        tenant = tenant_named(slug, lock=True)
        wanted = Wanted(name, canonical(host), role or [], second_factor=second_factor, public_paths=public_path or [])
        app = app_rules.add(tenant, wanted)
        after = app_rules.facts(app)
        return change(f"Added {app_line(app)}", NOT_ENFORCED, after=after)

    def remove_app(self, *, slug: str, host: str, **_: Any) -> Answer:
        tenant, name = tenant_named(slug, lock=True), canonical(host)
        app = App.objects.filter(tenant=tenant, host=name).first()
        if app is None:
            raise CommandError(f"{tenant.name} has no app at {name}. Those it has: manage.py tenant app list {slug}")
        before = app_rules.facts(app)
        app_rules.remove(app)
        return change(f"Removed {before['name']} at {name}.", before=before)

    def list_apps(self, *, slug: str, **_: Any) -> Answer:
        tenant = tenant_named(slug)
        apps = list(tenant.apps.all())
        header = ("NAME", "HOST", "WHO", "SECOND FACTOR", "PUBLIC PATHS")
        rows = [
            [
                app.name,
                app.host,
                ", ".join([*app.roles, *map(str, app.groups.all())]) or "every member",
                app.second_factor,
                " ".join(app.public_paths),
            ]
            for app in apps
        ]
        lines = [*table(header, rows), NOT_ENFORCED] if rows else [f"No apps yet: manage.py tenant app add {slug} NAME HOST"]
        return Answer(lines, {"apps": [app_rules.facts(app) for app in apps], "enforced": False})


# --- In words -------------------------------------------------------------------------------------------------------


def _is_being_deleted(tenant: Tenant) -> CommandError:
    return CommandError(f"{tenant.name} is being deleted, and nothing brings it back.")


_IN_FORCE = {panic.FROZEN: "Frozen", panic.DEMANDED: "Proof demanded"}


def in_force_line(each: panic.InForce) -> str:
    """Since when, by whom and why."""
    who = each.by.username if each.by else COMMAND_LINE
    return f"since {each.since.astimezone(UTC):%Y-%m-%d %H:%M}, by {who}" + (f": {each.note}" if each.note else "")


def policy_words(tenant: Tenant) -> dict[str, str]:
    """What a tenant asks of its people, as `tenant show` says it."""
    rules = tenant.rules
    return {
        "idle": _hours(rules.idle),
        "absolute": _hours(rules.absolute),
        "remembered": "yes" if rules.remembered else "no",
        "second_factor": _second_factor(tenant),
        "grace_days": count(rules.grace_days, "day"),
        "trusted_browsers": f"yes, in place of a code for {TRUSTED_BROWSER.days} days" if rules.trusted_browsers else "no",
        "tries": f"{count(rules.tries, 'wrong password')} lock an account, {KNOWN_TIMES * rules.tries} on a known browser",
        "password_length": f"{rules.password_length} characters at least",
        "password_length_alone": f"{rules.shortest_password(factor_asked=False)} for who is not asked for a second factor",
        "sign_up": _sign_up(rules),
        "sign_up_domains": ", ".join(sorted(rules.domains)) or "none",
        "approval": "yes: who comes without an invitation waits for an admin" if rules.approval else "no",
    }


def _sign_up(rules: Policy) -> str:
    match rules.sign_up:
        case "closed":
            return "closed: nobody becomes a member but by manage.py member add"
        case "invited":
            return "who is invited becomes a member"
        case "domain":
            return f"who is invited, or has an address of {', '.join(sorted(rules.domains))}, becomes a member"
    return "everybody with a proven address becomes a member"


def _second_factor(tenant: Tenant) -> str:
    rules = tenant.rules
    if rules.second_factor == "off":
        return "off: who has one is asked for it, nobody must have one"
    must = f"{'everyone' if rules.second_factor == 'everyone' else 'admins and owners'} must have one"
    if due := simulation.due_day(tenant):
        must += f", since {day(due)}" if due <= clock.now() else f", from {day(due)} on"
    return must


def day(moment: datetime) -> str:
    """“5 December”, with the year where it is another one."""
    return f"{moment.day} {moment:%B}{'' if moment.year == clock.now().year else f' {moment.year}'}"


def ended_lines(did: Forecast) -> list[str]:
    """What a change of the policy ended, and why."""
    lines = []
    if did.unproven:
        lines.append(f"{count(did.unproven, 'session')} ended: a second factor is asked for on the way back in.")
    if did.idle:
        lines.append(f"{count(did.idle, 'session')} ended: unused for longer than that.")
    if did.old:
        lines.append(f"{count(did.old, 'session')} ended: open for longer than that.")
    return lines


def policy_warnings(tenant: Tenant, was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a change of the policy does to whom."""
    names = {name for name in now if was[name] != now[name]}
    warnings = []
    if now["idle"] > was["idle"] or now["absolute"] > was["absolute"] or now["remembered"] > was["remembered"]:
        warnings.append("Sessions that are open keep the shorter limit until the next sign-in.")
    if names & {"second_factor", "grace_days"}:
        warnings += factor_warnings(tenant)
    if names & {"password_length", "password_length_alone"}:
        warnings.append("Passwords that are set stay good. The new length is asked of the next ones.")
    if names & {"sign_up", "sign_up_domains", "approval"}:
        warnings += sign_up_warnings(tenant)
    return warnings


def sign_up_warnings(tenant: Tenant) -> list[str]:
    """Who comes in by himself from now on, and what becomes of those who are invited or wait."""
    rules = tenant.rules
    if rules.sign_up == "closed":
        waiting = simulation.open_invitations(tenant)
        return [f"{count(waiting, 'invitation')} opens nothing while it is closed."] if waiting else []
    if rules.sign_up in {"open", "domain"} and not rules.approval:
        who = "Everybody" if rules.sign_up == "open" else f"Everybody with an address of {', '.join(sorted(rules.domains))}"
        return [f"{who} who proves an address becomes a member, without asking you. To be asked: --policy approval=yes"]
    return []


def factor_warnings(tenant: Tenant) -> list[str]:
    """Who has no second factor where one is asked for, and what comes of it."""
    rules = tenant.rules
    if rules.second_factor == "off":
        return ["Who has a second factor is asked for it as before. Who has none is not asked to set one up."]
    people = simulation.people_asked(tenant)
    without, total = simulation.without_factor(people).count(), people.count()
    if not without:
        return []
    who = count(total, "member") if rules.second_factor == "everyone" else count(total, "admin and owner", "admins and owners")
    due = simulation.due_day(tenant)
    when = f"from {day(due)}" if due and due > clock.now() else "from now on"
    return [f"{without} of {who} {'has' if without == 1 else 'have'} no second factor: {when} they set one up on the way in."]


def host_line(host: Host) -> str:
    return f"{host.name} (cookie domain {host.cookie_domain}{'' if host.approved_at else ', not approved'})"


def app_line(app: App) -> str:
    who = [*app.roles, *(f"the group {group}" for group in app.groups.all())]
    rules = ["only " + ", ".join(who)] if who else []
    rules += ["with a second factor"] if app.second_factor else []
    rules += ["open to all: " + " ".join(app.public_paths)] if app.public_paths else []
    return f"{app.name} at {app.host}{' (' + '; '.join(rules) + ')' if rules else ''}"


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values in words, those of the policy one by one."""
    policy = values.get("policy", {})
    flat = [(name.replace("_", " "), _shown(value)) for name, value in values.items() if name not in {"policy", "factor_since"}]
    durations = {field.name for field in fields(Policy) if isinstance(field.default, timedelta)}
    return flat + [
        (f"policy {name.replace('_', ' ')}", _hours(timedelta(seconds=value)) if name in durations else _shown(value))
        for name, value in policy.items()
    ]


def _hours(duration: timedelta) -> str:
    hours, rest = divmod(int(duration.total_seconds()), 3600)
    return f"{hours} h" if not rest else f"{int(duration.total_seconds())} s"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in {"", None} else str(value)


# --- Reading what was typed -----------------------------------------------------------------------------------------


def canonical(host: str) -> str:
    try:
        return hosts.normalise(host)
    except hosts.BadHost as bad:
        raise CommandError(str(bad)) from None


def picture(path: str) -> bytes | None:
    """The logo in a file, as it is kept; “none”: none."""
    if path == "none":
        return None
    try:
        with Path(path).open("rb") as file:
            return logos.encode(file.read(logos.LARGEST_FILE + 1))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}. Give the path of a picture, or “none”.") from None
    except logos.BadLogo as bad:
        raise CommandError(f"{path}: {bad}") from None


def changed_policy(stored: dict[str, Any], wishes: list[str]) -> dict[str, Any]:
    """The stored policy with NAME=VALUE wishes applied; “default” takes a value back to the platform's. Raises ValidationError."""
    policy = dict(stored)
    for wish in wishes:
        name, equals, text = wish.partition("=")
        if not equals:
            raise CommandError(f"“{clean(wish)}” is no policy. Write NAME=VALUE, such as idle=3600.")
        if text == "default" and name in Policy.__dataclass_fields__:
            policy.pop(name, None)
        elif re.fullmatch(r"\d{1,9}", text):
            policy[name] = int(text)
        else:
            policy[name] = {"yes": True, "true": True, "no": False, "false": False}.get(text, text)
    try:
        Policy.of(policy)
    except ValueError as wrong:
        raise ValidationError(str(wrong)) from None
    return policy
