"""`manage.py demo`: the whole product on this machine, with tenants and people to try it on."""

import os
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.db import transaction
from django.utils import timezone

from identity import factors
from identity.models import TotpDevice, User
from tenants.models import App, Membership, Tenant
from tenants.text import clean

TENANTS = [
    ("acme", "Acme", "#0d5f7a", "it@acme.example", [("Wiki", "wiki"), ("Tickets", "tickets")]),
    ("globex", "Globex", "#f0b429", "help@globex.example", [("Board", "board"), ("Billing", "billing")]),
]
PEOPLE = [
    ("alice", "Alice", "Keller", {"acme": "member"}),
    ("bob", "Bob", "Marsh", {"acme": "admin"}),
    ("carol", "Carol", "Wren", {"globex": "member"}),
    ("dave", "Dave", "Vance", {"acme": "member", "globex": "member"}),
    ("erin", "Erin", "Quist", {}),
    ("olivia", "Olivia", "Grant", {"acme": "owner", "globex": "owner"}),
]
ROLES = {
    "alice": "member of Acme",
    "bob": "admin of Acme",
    "carol": "member of Globex",
    "dave": "member of both",
    "erin": "operator",
    "olivia": "owner of both",
}
CODE_HINT = ", with a code: .venv/bin/python manage.py demo code erin"


class Command(BaseCommand):
    help = "Serve Gatehouse on this machine with demo tenants and people (what `make run` does)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            nargs="?",
            default="run",
            choices=["run", "seed", "code"],
            help="run (default); seed: only the data; code NAME: what the authenticator of that person shows",
        )
        parser.add_argument("name", nargs="?", default="", help="whose code")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "code":
            self.stdout.write(self._code(options["name"]))
            return
        if options["action"] == "run":
            self._check_port()
        call_command("migrate", verbosity=0)
        seeded = self._seed()
        if options["action"] == "seed":
            self.stdout.write("Seeded." if seeded else "Nothing seeded: the database is not empty.")
            return
        call_command("collectstatic", interactive=False, verbosity=0)
        (settings.VAR / "port").write_text(str(settings.PORT))  # for commands in another window
        self._tell(seeded)
        self._serve()

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", settings.PORT))
            except OSError:
                raise CommandError(
                    f"Something listens on port {settings.PORT} already. Stop it, or take another: make run PORT={settings.PORT + 1}"
                ) from None

    def _code(self, name: str) -> str:
        """What the person's authenticator shows: in the demo there is no phone at hand. Each call has a code that was not used yet."""
        if not settings.ON_LOCALHOST:
            raise CommandError(
                "Only the demo, on localhost, tells a code. Who lost the phone: manage.py user reset-factors NAME --reason TEXT"
            )
        person = User.objects.named(name)
        if not name:
            raise CommandError("Whose code? In the demo erin has an authenticator: manage.py demo code erin")
        device = TotpDevice.objects.filter(user=person, confirmed=True).first() if person else None
        if device is None:
            raise CommandError(f"“{clean(name)}” has no authenticator. In the demo erin has one: manage.py demo code erin")
        return factors.code_now(device)

    def _seed(self) -> bool:
        """Demo data, into an empty database of a portal on localhost only."""
        if User.objects.exists() or Tenant.objects.exists():
            return False
        if not settings.ON_LOCALHOST:
            raise CommandError(
                f"The demo runs on localhost only, and PORTAL_URL is {settings.PORTAL_URL}. "
                "Nothing was created. For a first operator: manage.py operator link"
            )
        with transaction.atomic():
            seed(settings.DEMO_PASSWORD)
        return True

    def _tell(self, seeded: bool) -> None:
        say = self.stdout.write
        say("")
        say(f"  Gatehouse   {settings.PORTAL_URL}/")
        for tenant in Tenant.objects.order_by("name")[:10]:
            say(f"  {tenant.name[:11]:<11} {tenant.home_url}")
        say("")
        if User.objects.filter(username__in=ROLES).count() == len(ROLES):
            say(f"  Password of everybody: {settings.DEMO_PASSWORD}" if seeded else "  The data of the last run is kept, passwords too.")
            for name, role in ROLES.items():
                say(f"    {name:<8} {role}{CODE_HINT if name == 'erin' else ''}")
            say("")
        if settings.KEEP_MAILS:
            say(f"  Mails stay on this machine: {settings.PORTAL_URL}/outbox/")
        names = " ".join(urlsplit(url).hostname or "" for url in [settings.PORTAL_URL, *(t.home_url for t in Tenant.objects.all()[:10])])
        say(f"  Safari does not find these names by itself; this line in /etc/hosts helps:  127.0.0.1 {names}")
        say("  Stop with Ctrl-C.")
        say("")
        self.stdout.flush()

    def _serve(self) -> None:
        """The same server as in production (deploy/gatehouse.service), on a port instead of a socket."""
        sys.stdout.flush()
        os.chdir(settings.BASE_DIR)
        command = [
            sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(settings.PORT),
            "--workers", "1", "--blocking-threads", "8", "--no-ws", "--no-log", "--workers-kill-timeout", "2", "portal.wsgi:application",
        ]  # fmt: skip
        os.execv(sys.executable, command)  # noqa: S606  (no shell)


def seed(password: str) -> None:
    """The demo's tenants, apps, people and memberships; everybody's address counts as verified."""
    places = {}
    for slug, name, colour, contact, apps in TENANTS:
        tenant = Tenant(slug=slug, name=name, colour=colour, support_contact=contact)
        tenant.full_clean()
        tenant.save()
        places[slug] = tenant
        for app_name, label in apps:
            app = App(tenant=tenant, name=app_name, host=f"{label}.{tenant.hostname}")
            app.full_clean()
            app.save()
    hashed = make_password(password)
    for username, first, last, roles in PEOPLE:
        home = next(iter(roles), "gatehouse")
        user = User(
            username=username,
            first_name=first,
            last_name=last,
            email=f"{username}@{home}.example",
            email_verified_at=timezone.now(),
            password=hashed,
            is_superuser=username == "erin",
            is_staff=username == "erin",
        )
        user.full_clean()
        user.save()
        for slug, role in roles.items():
            Membership.objects.create(tenant=places[slug], user=user, role=role)
        if user.is_superuser:  # operators always have a second factor: manage.py demo code erin
            TotpDevice.objects.filter(pk=factors.enrolment(user).pk).update(confirmed=True, name="Erin’s phone")
