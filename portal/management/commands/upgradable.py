"""`manage.py upgradable`: may the migrations that wait be applied while the release before goes on serving? Asked by upgrade.sh.

The rule for whoever writes a migration: the release before works on with the new schema, and no table that may hold a
million rows is locked for longer than a second. What breaks this takes two releases: first stop using it, then remove it.
"""

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, models
from django.db.migrations import Migration
from django.db.migrations import operations as ops
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from identity.management.output import count

_GONE = "the release before still uses it; stop using it in one release, and remove it in the next"
_SLOW = "PostgreSQL lets nobody write to the table meanwhile; use AddIndexConcurrently"
_READS_ALL = "it reads every row under a lock; add it as NOT VALID, and validate it in a migration after it"
_UNKNOWN = 'nobody can tell what it does; if it is quick and the release before lives with it, say why in the Migration: safe = "…"'


class Command(BaseCommand):
    help = "May the migrations that wait be applied while the release before goes on serving?"

    def handle(self, **_: Any) -> None:
        executor = MigrationExecutor(connection)
        waiting = [migration for migration, _back in executor.migration_plan(executor.loader.graph.leaf_nodes())]
        if not executor.loader.applied_migrations:
            self.stdout.write("The database is empty: nobody is in the way.")
            return
        found = list(obstacles(waiting, executor.loader.project_state(list(executor.loader.applied_migrations))))
        if found:
            raise CommandError("\n".join(["These migrations would get in the way of the release that serves:", *found]))
        if not waiting:
            self.stdout.write("No migration waits.")
            return
        self.stdout.write(f"{count(len(waiting), 'migration waits', 'migrations wait')}; the release that serves can go on meanwhile.")


def obstacles(waiting: list[Migration], state: ProjectState) -> Iterator[str]:
    """A line for each operation that the release before would not survive. `state` is the schema that it works with."""
    new: set[tuple[str, str]] = set()  # tables that nobody uses yet
    for migration in waiting:
        vouched = bool(getattr(migration, "safe", ""))
        for operation in migration.operations:
            if isinstance(operation, ops.CreateModel):
                new.add((migration.app_label, operation.name_lower))
            table = (migration.app_label, getattr(operation, "model_name_lower", ""))
            reason = "" if vouched or table in new else _reason(operation, migration.app_label, state)
            if reason:
                yield f"  {migration.app_label}.{migration.name}: {operation.describe()}: {reason}"
            operation.state_forwards(migration.app_label, state)


def _reason(operation: Operation, app: str, state: ProjectState) -> str:
    match operation:
        case ops.RemoveField() | ops.DeleteModel() | ops.RenameField() | ops.RenameModel() | ops.AlterModelTable():
            return _GONE
        case ops.AddField(field=field):
            return _added(field)
        case ops.AlterField(field=field):
            return _altered(state.models[app, operation.model_name_lower].get_field(operation.name), field)
        case ops.AddIndex():
            return _SLOW if type(operation) is ops.AddIndex and connection.vendor == "postgresql" else ""
        case ops.AddConstraint():
            return _READS_ALL if type(operation) is ops.AddConstraint else ""
        case ops.RunPython() | ops.RunSQL() | ops.SeparateDatabaseAndState():
            return _UNKNOWN
    return ""


def _added(field: "models.Field[Any, Any]") -> str:
    """Whoever inserts without knowing the column must get through: Django's own default does not stay in the database."""
    if field.many_to_many or field.null or field.has_db_default() or field.generated:
        return ""
    return "the release before inserts rows without it; make it null=True or give it a db_default"


def _altered(old: "models.Field[Any, Any]", new: "models.Field[Any, Any]") -> str:
    if old.null and not new.null:
        return "the release before may still write NULL into it"
    same_keys = (old.unique, old.db_index) == (new.unique, new.db_index)  # type: ignore[attr-defined] # missing in the stubs
    if same_keys and (old.db_type(connection) == new.db_type(connection) or _longer(old, new)):
        return ""
    return "the table is written anew or read under a lock; add a column beside it instead"


def _longer(old: "models.Field[Any, Any]", new: "models.Field[Any, Any]") -> bool:
    """A longer varchar, or none at all, is a matter of the catalogue only."""
    if not isinstance(old, models.CharField) or not isinstance(new, models.CharField | models.TextField):
        return False
    return new.max_length is None or (old.max_length or 0) <= new.max_length
