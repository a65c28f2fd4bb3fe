"""`manage.py prune`: what ran out is marked as ended, what was kept long enough goes. Safe to run at any time, such as daily."""

from dataclasses import asdict
from typing import Any

from django.core.management import CommandParser

from identity import sessions
from identity.management import probe
from identity.management.output import Answer, VerbCommand, change, note
from tenants import policy


class Command(VerbCommand):
    help = "Mark lapsed sessions as ended; delete ended sessions, events and tickets that were kept long enough."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.prune, changes=True, in_steps=True)

    def prune(self, *, dry_run: bool, **_: Any) -> Answer:
        gone = {**asdict(sessions.prune(dry_run=dry_run)), "probes": probe.sweep(dry_run=dry_run)}
        changed = any(gone.values())
        if changed and not dry_run:
            note("pruned", **gone)
        kept = f"Ended sessions are kept {policy.KEEP_ENDED.days} days, events {policy.KEEP_EVENTS.days}."
        texts = {"lapsed": "marked as ended", "sessions": "old sessions deleted", "probes": "leftovers of an isolation check removed"}
        done = [f"{n} {texts.get(name, f'old {name} deleted')}" for name, n in gone.items() if n]
        return change(f"{', '.join(done) or 'Nothing to prune'}. {kept}", changed=changed, **gone)
