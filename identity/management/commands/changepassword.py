"""`manage.py changepassword NAME`: Django's command, except that a new password ends every session, as it does everywhere."""

import getpass
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser

from identity import sessions
from identity.models import User


class Command(BaseCommand):
    help = "Set a person's password by hand. Better: manage.py user link NAME, so that nobody else knows it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.named(options["username"])
        if user is None:
            raise CommandError(f"There is no “{options['username']}”. See: manage.py user list")
        try:
            password, again = getpass.getpass("New password: "), getpass.getpass("Again: ")
        except EOFError:
            raise CommandError(f"No terminal to type it in. Use a one-time link: manage.py user link {user.username}") from None
        if password != again:
            raise CommandError("The two differ. Nothing was changed.")
        try:
            validate_password(password, user)
            sessions.change_password(user, password, by=None, request=None)
        except ValidationError as weak:
            raise CommandError(" ".join(weak.messages)) from None
        except sessions.StaleProof:
            raise CommandError(f"{user.username} is deactivated, or changed in this moment. Nothing was changed.") from None
        self.stdout.write(f"The password of {user.username} is changed, and every session ended.")
