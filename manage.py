#!/usr/bin/env python
"""Gatehouse's command line: `manage.py help` lists what it can do."""

import os
import sys


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
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as wrong:  # says what to do; where in the code it was found helps nobody
        if "--traceback" in sys.argv:
            raise
        sys.exit(f"{wrong}")


if __name__ == "__main__":
    main()
