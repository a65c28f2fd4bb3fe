"""After a restore: what was good when the copy was taken, and may have been used or ended since, stays dead.

A copy knows nothing of what happened after it. So nothing that opens a door by itself comes back with it: sessions, tickets,
links, invitations, trusted browsers, half-way sign-ins, codes of an authenticator, and mails that wait with such a link in them.
Passwords, authenticators and unused recovery codes do come back, as they were; a code that was used since is good once more.
"""

from dataclasses import asdict, dataclass

from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

from identity import events, factors, invitations, known, links, mails, sessions, tickets

NOTE = "Restored from a backup"


@dataclass(frozen=True, slots=True)
class Voided:
    sessions: int
    tickets: int
    links: int
    invitations: int
    trusted_browsers: int
    enrolments: int  # authenticators that were being set up
    mails: int
    recovery_codes: int


def unknown_migrations() -> list[str]:
    """What the database has been through and this release does not know: a newer release wrote it."""
    loader = MigrationLoader(connection)
    ours = {app for app, _name in loader.disk_migrations}
    return sorted(f"{app}.{name}" for app, name in loader.applied_migrations if app in ours and (app, name) not in loader.disk_migrations)


def void_everything(*, copy: str, recovery_codes: bool = False) -> Voided:
    """Make everything from before worthless; nobody else uses the database meanwhile. Safe to repeat.

    copy: the name of the backup, for the event. recovery_codes: void these, too; whoever needs them makes new ones.
    """
    with transaction.atomic():
        sessions.stamp_everything()  # in force from here on; the rows are marked below
        done = {
            "tickets": tickets.void_all(),
            "links": links.void_all(),
            "invitations": invitations.void_all(),
            "trusted_browsers": known.trust_none(),
            "enrolments": factors.spend_codes(),
            "mails": mails.drop_all(NOTE),
            "recovery_codes": factors.void_recovery_codes() if recovery_codes else 0,
        }
    voided = Voided(sessions=sessions.end_all(note=NOTE), **done)
    events.record("restored", copy=copy, **asdict(voided), source=events.COMMAND_LINE)
    return voided
