"""Good morning."""

from datetime import datetime

from django.utils.translation import gettext as _

from identity.models import User


def greeting(user: User, at: datetime) -> str:
    """A greeting for the hour of `at` (in the person's zone), with the first name where there is one."""
    name = user.first_name or user.username
    if at.hour < 5 or at.hour >= 18:
        return _("Good evening, %(name)s") % {"name": name}
    if at.hour < 12:
        return _("Good morning, %(name)s") % {"name": name}
    return _("Good afternoon, %(name)s") % {"name": name}
