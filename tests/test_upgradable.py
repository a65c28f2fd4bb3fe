"""Which migrations may be applied while the release before goes on serving."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from portal.management.commands.upgradable import obstacles


def schema() -> ProjectState:
    """One table that the release before works with."""
    state = ProjectState()
    fields: list[tuple[str, models.Field[Any, Any]]] = [
        ("id", models.BigAutoField(primary_key=True)),
        ("name", models.CharField(max_length=20)),
        ("note", models.TextField(null=True)),
    ]
    state.add_model(ModelState("tenants", "Door", fields))
    return state


def found(*steps: Operation, vouched: str = "", on: ProjectState | None = None) -> list[str]:
    class Next(Migration):
        operations = list(steps)
        safe = vouched

    return list(obstacles([Next("0009_next", "tenants")], on or schema()))


@pytest.mark.parametrize(
    "operation",
    [
        migrations.AddField("door", "colour", models.CharField(max_length=9, null=True)),
        migrations.AddField("door", "colour", models.CharField(max_length=9, db_default="blue")),
        migrations.AlterField("door", "name", models.CharField(max_length=40)),
        migrations.AlterField("door", "name", models.CharField(max_length=20, help_text="said anew")),
        migrations.CreateModel("Key", [("id", models.BigAutoField(primary_key=True))]),
    ],
    ids=lambda operation: operation.describe(),
)
def test_what_the_release_before_does_not_notice_may_be_applied(operation: Operation) -> None:
    assert found(operation) == []


def test_an_index_may_go() -> None:
    state = schema()
    state.models["tenants", "door"].options["indexes"] = [models.Index(fields=["name"], name="some_index")]
    assert found(migrations.RemoveIndex("door", "some_index"), on=state) == []


@pytest.mark.parametrize(
    "operation",
    [
        migrations.RemoveField("door", "name"),
        migrations.RenameField("door", "name", "title"),
        migrations.RenameModel("Door", "Gate"),
        migrations.DeleteModel("Door"),
        migrations.AlterModelTable("door", "gate"),
        migrations.AddField("door", "colour", models.CharField(max_length=9, default="blue")),
        migrations.AlterField("door", "note", models.TextField()),
        migrations.AlterField("door", "name", models.CharField(max_length=10)),
        migrations.AlterField("door", "name", models.CharField(max_length=20, unique=True)),
        migrations.AlterField("door", "name", models.IntegerField()),
        migrations.AddConstraint("door", models.UniqueConstraint(fields=["name"], name="one_name")),
        migrations.RunSQL("SELECT 1"),
        migrations.RunPython(migrations.RunPython.noop),
    ],
    ids=lambda operation: operation.describe(),
)
def test_what_breaks_the_release_before_or_locks_its_tables_is_refused(operation: Operation) -> None:
    (line,) = found(operation)
    assert line.startswith("  tenants.0009_next: ")


def test_an_index_on_a_table_in_use_is_made_without_keeping_writers_out() -> None:
    index = migrations.AddIndex("door", models.Index(fields=["name"], name="by_name"))
    assert bool(found(index)) == (connection.vendor == "postgresql")


def test_a_table_that_nobody_uses_yet_may_get_anything() -> None:
    key = migrations.CreateModel("Key", [("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())])
    constraint = migrations.AddConstraint("key", models.UniqueConstraint(fields=["name"], name="one_key"))
    assert found(key, constraint) == []


def test_whoever_wrote_a_migration_may_vouch_for_it() -> None:
    assert found(migrations.RunSQL("SELECT 1"), vouched="reads one row") == []


@pytest.mark.django_db
def test_the_command_says_that_nothing_waits(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("upgradable")
    assert capsys.readouterr().out == "No migration waits.\n"
