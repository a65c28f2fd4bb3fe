"""`manage.py rekey`: after a new first key in ENCRYPTION_KEYS, move the data of live sessions to it."""

from typing import Any
from uuid import UUID

from django.core.management import CommandParser
from django.db import transaction
from django.db.models import Count
from django.db.models.functions import Substr

from identity import crypto
from identity.management.output import Answer, VerbCommand, change, count, note
from identity.models import Session, SessionQuerySet
from identity.store import place

BATCH = 200
ROUNDS = 3  # a portal that still runs with the old order of keys writes old ciphertexts meanwhile
NAMED = 20  # that many ids of sessions that cannot be decrypted


class Command(VerbCommand):
    help = "Encrypt the data of live sessions anew under the first key of ENCRYPTION_KEYS, and say which keys are in use."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.rekey, changes=True, in_steps=True)

    def rekey(self, *, dry_run: bool, **_: Any) -> Answer:
        current = crypto.current_key_id()
        before = in_use()
        moved, lost = 0, set[UUID]()
        for _round in range(ROUNDS):
            now_moved, unreadable, missed = self._round(current, dry_run=dry_run)
            moved, lost = moved + now_moved, lost | unreadable
            if not missed:
                break
        after = in_use()
        lost_now = {str(pk) for pk in Session.objects.filter(pk__in=lost, ended_at=None).values_list("pk", flat=True)}
        if moved:
            note("rekeyed", moved=moved, before=before, after=after)
        lines = [f"{count(moved, 'session')} moved to key {current}." if moved else f"No session to move: all are under key {current}."]
        lines += [f"Key {key}: {count(n, 'live session')}" for key, n in sorted(after.items())]
        warnings = []
        if lost_now:
            shown = ", ".join(sorted(lost_now)[:NAMED])
            warnings.append(f"{count(len(lost_now), 'session')} cannot be decrypted and count as ended: {shown}")
        found = {"current": current, "moved": moved, "undecipherable": sorted(lost_now)}
        answer = change(*lines, before=before, after=after, changed=moved > 0, warnings=warnings, **found)
        if dry_run:
            return answer
        if sum(n for key, n in after.items() if key != current) > len(lost_now):
            answer.error = (
                "An old key is still being written with. Restart the portal with the new ENCRYPTION_KEYS, then run manage.py rekey again; "
                "keep the old key until then."
            )
        else:
            answer.lines.append(f"No session needs another key than {current} any more.")
        return answer

    @staticmethod
    def _round(current: str, *, dry_run: bool) -> tuple[int, set[UUID], int]:
        """Once through all rows in batches: how many moved, which cannot be read, how many changed under our hands."""
        moved, missed = 0, 0
        unreadable: set[UUID] = set()
        old = encrypted().exclude(session_data__startswith=f"{current}.").order_by("pk")
        last = UUID(int=0)
        while rows := list(old.filter(pk__gt=last).values_list("pk", "session_data")[:BATCH]):
            last = rows[-1][0]
            fresh = []
            for pk, text in rows:
                try:
                    fresh.append((pk, text, crypto.encrypt(crypto.decrypt(text, place(pk)), place(pk))))
                except crypto.Undecipherable:
                    unreadable.add(pk)
            with transaction.atomic():
                for pk, text, new in fresh:
                    # The old ciphertext stands in the WHERE: a write that came in between is not lost, and is met again.
                    done = 1 if dry_run else encrypted().filter(pk=pk, session_data=text).update(session_data=new)
                    moved, missed = moved + done, missed + (not done)
        return moved, unreadable, missed


def encrypted() -> SessionQuerySet:
    """The rows that hold a ciphertext: an ended one has lost its data."""
    return Session.objects.filter(ended_at=None).exclude(session_data="")


def in_use() -> dict[str, int]:
    """Key ids, and how many live sessions are encrypted under each."""
    keys = encrypted().order_by().annotate(key=Substr("session_data", 1, 8)).values_list("key").annotate(n=Count("pk"))
    return dict(keys)
