"""User names: change one. Sessions stay, the old name is free at once, and the log keeps ids only."""

from django.db import IntegrityError, transaction
from django.http import HttpRequest

from identity import clock, events, mails, sessions
from identity.models import FormerName, User


class Taken(Exception):
    """Somebody else has this name."""


def change(user: User, username: str, *, request: HttpRequest) -> User:
    """Give a person another user name, which is checked already. Raises Taken; the same name is no change.

    The event names the row that keeps the name from before: it goes with the account, and the event can stay.
    """
    try:
        with transaction.atomic():
            person = sessions.hold_person(user)
            if person.username == username:
                return person
            former = FormerName.objects.create(user=person, username=person.username, until=clock.now())
            person.username = username
            person.save(update_fields=["username"])
            before, after = {"former_name": former.pk}, {"former_name": None}
            events.record("username_changed", request=request, actor=person, subject=person, before=before, after=after)
            mails.tell("username_changed", person, old=former.username, new=person.username, **mails.circumstances(request))
    except IntegrityError:
        raise Taken from None
    return person
