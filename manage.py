#!/usr/bin/env python
"""Gatehouse's command line: `manage.py help` lists what it can do."""

import os
import sys


def overview() -> None:
    """Our own commands, each with what it is for; Django's are for those who work on the code."""
    import django
    from django.conf import settings
    from django.core.management import get_commands, load_command_class

    django.setup()
    print(f"Usage: {settings.COMMAND} COMMAND …; each has --help\n")  # noqa: T201
    left_out = {"changepassword", *(["demo"] if settings.COMMAND == "gatehouse" else [])}
    for name in sorted(name for name, app in get_commands().items() if app == "identity" and name not in left_out):
        said = load_command_class("identity", name).help.partition(" Exit code")[0]
        print(f"  {name:<10} {said}")  # noqa: T201
    print(f"\nAll there are, Django's among them: {settings.COMMAND} help --commands")  # noqa: T201


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed for this Python. Use the one that `make run` made: .venv/bin/python manage.py …")
    if "PORTAL_URL" not in os.environ and sys.stderr.isatty() and sys.argv[1:2] != ["demo"]:
        print("Demo settings, since PORTAL_URL is not set: the database is the demo's.", file=sys.stderr)  # noqa: T201
    try:
        if sys.argv[1:] in ([], ["help"], ["--help"], ["-h"]):
            overview()
        else:
            execute_from_command_line(sys.argv)
    except ImproperlyConfigured as wrong:  # says what to do; where in the code it was found helps nobody
        if "--traceback" in sys.argv:
            raise
        installed = os.path.exists(os.path.join(os.path.dirname(os.path.realpath(__file__)), "release"))
        where = "Settings stand in /etc/gatehouse/gatehouse.env, secrets in /etc/gatehouse/credentials."
        sys.exit(f"{wrong}\n{where}" if installed else f"{wrong}")


if __name__ == "__main__":
    main()
