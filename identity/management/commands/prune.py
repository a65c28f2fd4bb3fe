"""`manage.py prune`: what ran out is marked as ended, what was kept long enough goes. Safe to run at any time, such as daily."""

from dataclasses import asdict
from typing import Any

from django.core.management import CommandParser

from identity import alarm, leaving, mass, pruning
from identity.management import probe
from identity.management.output import Answer, VerbCommand, change, note
from tenants import policy

# What became of them, where it is not “3 old events deleted”.
DONE = {
    "lapsed": "sessions marked as ended",
    "attempts": "old counts of attempts deleted",
    "browsers": "browsers forgotten that were revoked or not seen for long",
    "probes": "leftovers of an isolation check removed",
}


class Command(VerbCommand):
    help = "Mark lapsed sessions as ended; delete ended sessions, events, tickets and counts of attempts that were kept long enough."

    def add_arguments(self, parser: CommandParser) -> None:
        self.verb(parser, self.prune, changes=True, in_steps=True)

    def prune(self, *, dry_run: bool, **_: Any) -> Answer:
        gone = {**asdict(pruning.prune(dry_run=dry_run)), "probes": probe.sweep(dry_run=dry_run)}
        changed = any(gone.values())
        if changed and not dry_run:
            note("pruned", **gone)
        if not dry_run:
            alarm.watch()
            mass.carry_on()
            mass.forget_old()
            leaving.carry_out_due()
        kept = f"Ended sessions are kept {policy.KEEP_ENDED.days} days, events {policy.KEEP_EVENTS.days}."
        done = [f"{n} {DONE.get(name, f'old {name} deleted')}" for name, n in gone.items() if n]
        return change(f"{', '.join(done) or 'Nothing to prune'}. {kept}", changed=changed, **gone)
