"""Groups of a tenant's members: the verbs. Each holds the tenant, is one transaction, and writes an event."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from identity import events, members
from identity.members import Actor
from identity.models import User
from tenants.models import App, Group, Membership, Tenant, group_key


class Gone(Exception):
    """Somebody removed the group meanwhile."""


class StillNeeded(Exception):
    """Some apps let in this group and nobody else: without it they would be open to every member."""

    def __init__(self, apps: list[App]) -> None:
        super().__init__(", ".join(app.name for app in apps))
        self.apps = apps


def add(tenant: Tenant, name: str, *, by: Actor = members.COMMAND_LINE) -> Group:
    """A new group. Raises ValidationError if the name is none, or taken."""
    with transaction.atomic():
        members.hold(tenant)
        group = _named(Group(tenant=tenant), name)
        group.save()
        _note("group_added", group, by, before=None, after={"name": group.name})
    return group


def rename(group: Group, name: str, *, by: Actor = members.COMMAND_LINE) -> bool:
    """False if that is its name. Raises ValidationError and Gone."""
    with transaction.atomic():
        _hold(group)
        before = group.name
        if _named(group, name).name == before:
            return False
        group.save(update_fields=["name", "name_key"])
        _note("group_renamed", group, by, before={"name": before}, after={"name": group.name})
    return True


def remove(group: Group, *, by: Actor = members.COMMAND_LINE) -> None:
    """Delete a group; apps that let it in let it in no longer. Raises Gone, and StillNeeded where an app would then be open to all."""
    with transaction.atomic():
        _hold(group)
        if alone := alone_in(group):
            raise StillNeeded(alone)
        apps = list(group.apps.values_list("host", flat=True))
        _note("group_removed", group, by, before={"name": group.name, "members": group.members.count(), "apps": apps}, after=None)
        group.delete()


def alone_in(group: Group) -> list[App]:
    """The apps that let in this group and nobody else."""
    return [app for app in group.apps.all() if not app.roles and app.groups.count() == 1]


def put(group: Group, person: User, *, by: Actor = members.COMMAND_LINE) -> bool:
    """Make a member of the tenant one of the group; False if so already. Raises members.NoMember and Gone."""
    return _move(group, person, by, into=True)


def take(group: Group, person: User, *, by: Actor = members.COMMAND_LINE) -> bool:
    """The other way round; False if not in the group. Raises members.NoMember and Gone."""
    return _move(group, person, by, into=False)


def _move(group: Group, person: User, by: Actor, *, into: bool) -> bool:
    with transaction.atomic():
        _hold(group)
        membership = Membership.objects.filter(tenant=group.tenant, user=person).first()
        if membership is None:
            raise members.NoMember
        if group.members.filter(pk=membership.pk).exists() == into:
            return False
        (group.members.add if into else group.members.remove)(membership)
        _note("group_member_added" if into else "group_member_removed", group, by, subject=person, group=group.name)
    return True


def _hold(group: Group) -> None:
    members.hold(group.tenant)
    if not Group.objects.filter(pk=group.pk).exists():
        raise Gone


def _named(group: Group, name: str) -> Group:
    group.name = " ".join(name.split())
    group.clean_fields(exclude=["tenant", "name_key"])
    if Group.objects.filter(tenant=group.tenant, name_key=group_key(group.name)).exclude(pk=group.pk).exists():
        raise ValidationError({"name": _("There is a group of this name already.")})
    return group


def _note(kind: str, of: Group, by: Actor, **data: Any) -> None:
    events.record(kind, request=by.request, tenant=of.tenant, actor=by.user, group_id=of.pk, **data, **by.source)
