"""The apps of a tenant, and who may enter them: the verbs that the console and `manage.py tenant app` share.

Each holds the tenant, is one transaction, and writes an event with before and after. The rules are stored, not yet enforced.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from identity import events, members
from identity.members import Actor
from tenants.models import App, Group, Tenant


class Gone(Exception):
    """Somebody removed the app, or a group that it is to let in, meanwhile."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An app as somebody wants it. Neither roles nor groups: every member may enter."""

    name: str
    host: str
    roles: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    second_factor: bool = False
    public_paths: list[str] = field(default_factory=list)


def facts(app: App) -> dict[str, Any]:
    """For scripts, and for events as before and after."""
    return {
        "name": app.name,
        "host": app.host,
        "url": app.url,
        "roles": app.roles,
        "groups": list(app.groups.values_list("name", flat=True)),
        "second_factor": app.second_factor,
        "public_paths": app.public_paths,
    }


def add(tenant: Tenant, wanted: Wanted, *, by: Actor = members.COMMAND_LINE) -> App:
    """A new app. Raises ValidationError with the cure, and Gone."""
    with transaction.atomic():
        members.hold(tenant)
        app = App(tenant=tenant)
        _write(app, wanted)
        _note("app_added", app, by, before=None, after=facts(app))
    return app


def change(app: App, wanted: Wanted, *, by: Actor = members.COMMAND_LINE) -> bool:
    """False if it was so already. Raises ValidationError with the cure, and Gone."""
    with transaction.atomic():
        before = facts(_hold(app))
        _write(app, wanted)
        after = facts(app)
        if before != after:
            _note("app_changed", app, by, before=before, after=after)
    return before != after


def remove(app: App, *, by: Actor = members.COMMAND_LINE) -> None:
    """Delete an app: its host answers with no page of ours any more. Raises Gone."""
    with transaction.atomic():
        _hold(app)
        _note("app_removed", app, by, before=facts(app), after=None)
        app.delete()


def _hold(app: App) -> App:
    """The app as it is now."""
    members.hold(app.tenant)
    held = App.objects.filter(pk=app.pk).first()
    if held is None:
        raise Gone
    return held


def _write(app: App, wanted: Wanted) -> None:
    if Group.objects.filter(pk__in=[group.pk for group in wanted.groups]).count() != len(wanted.groups):
        raise Gone
    assert all(group.tenant_id == app.tenant_id for group in wanted.groups)
    app.name, app.host, app.second_factor = " ".join(wanted.name.split()), wanted.host, wanted.second_factor
    app.roles, app.public_paths = sorted(set(wanted.roles)), list(dict.fromkeys(wanted.public_paths))
    app.full_clean()
    app.save()
    app.groups.set(wanted.groups)


def _note(kind: str, app: App, by: Actor, **data: Any) -> None:
    events.record(kind, request=by.request, tenant=app.tenant, actor=by.user, **data, **by.source)
