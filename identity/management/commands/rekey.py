"""`manage.py rekey`: after a new first key in ENCRYPTION_KEYS, move what is encrypted to it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandParser
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Substr

from identity import crypto, factors, mails, store
from identity.management.output import Answer, VerbCommand, change, count, note
from identity.models import Mail, Session, TotpDevice

BATCH = 200
ROUNDS = 3  # a portal that still runs with the old order of keys writes old ciphertexts meanwhile
NAMED = 20  # that many ids of what cannot be decrypted
MACS = (
    "Events and seals keep the key that they were made under: an old key stays in ENCRYPTION_KEYS, behind the first, for as long as "
    "its events are to be verified. manage.py event verify names a key that is missing."
)


@dataclass(frozen=True, slots=True)
class Source:
    """A column of ciphertexts."""

    one: str
    rows: Callable[[], QuerySet[Any]]
    column: str
    place: Callable[[Any], str]  # what the ciphertext of the row with this id is bound to
    lost: str  # what follows where some cannot be decrypted


SOURCES = (
    # An ended session has lost its data.
    Source("session", lambda: Session.objects.filter(ended_at=None), "session_data", store.place, "They count as ended."),
    Source("authenticator", TotpDevice.objects.all, "secret", factors.place, "They accept no code: manage.py user reset-factors"),
    Source("mail", Mail.objects.all, "body", mails.place, "They are not sent."),  # one that was sent has lost its text
)


class Command(VerbCommand):
    help = "Encrypt sessions, authenticators and mails anew under the first key of ENCRYPTION_KEYS, and say which keys are in use."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.rekey, changes=True, in_steps=True)

    def rekey(self, *, dry_run: bool, **_: Any) -> Answer:
        current, before = crypto.current_key_id(), in_use()
        moved, lost = Counter[str](), set[tuple[Source, Any]]()
        for source in SOURCES:
            for _round in range(ROUNDS):
                done, unreadable, missed = self._round(source, current, dry_run=dry_run)
                moved[source.one] += done
                lost |= {(source, pk) for pk in unreadable}
                if not missed:
                    break
        after = in_use()
        lost = {(source, pk) for source, pk in lost if encrypted(source).filter(pk=pk).exists()}
        total = moved.total()
        if total:
            note("rekeyed", moved=total, before=before, after=after)
        what = " and ".join(count(n, one) for one, n in moved.items() if n)
        lines = [f"{what} moved to key {current}." if total else f"Nothing to move: all is under key {current}."]
        lines += [f"Key {key}: {count(n, 'ciphertext')} of sessions, authenticators and mails" for key, n in sorted(after.items())]
        warnings = [warning for source in SOURCES if (warning := lost_line(source, [pk for each, pk in lost if each is source]))]
        found = {"current": current, "moved": total, "undecipherable": sorted(str(pk) for _source, pk in lost)}
        answer = change(*lines, before=before, after=after, changed=total > 0, warnings=warnings, **found)
        if dry_run:
            return answer
        if sum(n for key, n in after.items() if key != current) > len(lost):
            answer.error = (
                "An old key is still being written with. Restart the portal with the new ENCRYPTION_KEYS, then run manage.py rekey again; "
                "keep the old key until then."
            )
        else:
            answer.lines += [f"No session, authenticator or mail needs another key than {current} any more.", MACS]
        return answer

    @staticmethod
    def _round(source: Source, current: str, *, dry_run: bool) -> tuple[int, set[Any], int]:
        """Once through all rows in batches: how many moved, which cannot be read, how many changed under our hands."""
        moved, missed = 0, 0
        unreadable: set[Any] = set()
        old = encrypted(source).exclude(**{f"{source.column}__startswith": f"{current}."}).order_by("pk")
        seen = Q()
        while rows := list(old.filter(seen).values_list("pk", source.column)[:BATCH]):
            seen = Q(pk__gt=rows[-1][0])
            fresh = []
            for pk, text in rows:
                place = source.place(pk)
                try:
                    fresh.append((pk, text, crypto.encrypt(crypto.decrypt(text, place), place)))
                except crypto.Undecipherable:
                    unreadable.add(pk)
            with transaction.atomic():
                for pk, text, new in fresh:
                    # The old ciphertext stands in the WHERE: a write that came in between is not lost, and is met again.
                    same = encrypted(source).filter(**{"pk": pk, source.column: text})
                    done = 1 if dry_run else same.update(**{source.column: new})
                    moved, missed = moved + done, missed + (not done)
        return moved, unreadable, missed


def encrypted(source: Source) -> QuerySet[Any]:
    return source.rows().exclude(**{source.column: ""})


def in_use() -> dict[str, int]:
    """Key ids, and how many ciphertexts there are under each."""
    found = Counter[str]()
    for source in SOURCES:
        keys = encrypted(source).order_by().annotate(key=Substr(source.column, 1, 8)).values_list("key").annotate(n=Count("pk"))
        found.update(dict(keys))
    return dict(found)


def lost_line(source: Source, ids: list[Any]) -> str:
    shown = ", ".join(sorted(map(str, ids))[:NAMED])
    return f"{count(len(ids), source.one)} cannot be decrypted: {shown}. {source.lost}" if ids else ""
