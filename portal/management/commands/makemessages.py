"""`manage.py makemessages` (`make texts`): Django's, which also knows what our modules call `gettext_lazy`."""

from django.core.management.commands import makemessages


class Command(makemessages.Command):
    xgettext_options: list[str] = [*makemessages.Command.xgettext_options, "--keyword=lazy"]
