"""Groups of a tenant: who may change them, what it means for apps, and that nothing of it reaches another tenant."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from identity import groups, members
from identity.members import Actor
from identity.models import Event, User
from tenants.models import App, Group, Membership, Tenant
from tests.phone import said
from tests.test_people import HTMX
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
PAGE = "/console/acme/groups/"


def page_of(group: Group) -> str:
    return portal_url(f"{PAGE}{group.pk}/")


def do(browser: Visitor, group: Group, verb: str, value: str = "1", **more: Any) -> Any:
    return browser.post(portal_url(f"{PAGE}{group.pk}/act"), {verb: value, **more})


def names(group: Group) -> list[str]:
    return sorted(group.members.values_list("user__username", flat=True))


def shown(browser: Visitor) -> list[str]:
    return re.findall(r'data-member="([^"]+)"', browser.page.content.decode())


def test_an_admin_makes_a_group_names_it_anew_and_fills_it(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert "No groups yet" in said(bob)
    bob.post(portal_url(PAGE), {"name": "  Finance   team "})
    group = acme.groups.get()
    assert group.name == "Finance team"
    assert bob.url == page_of(group)
    bob.get(f"{page_of(group)}?q=vance")
    assert shown(bob) == ["dave"]
    do(bob, group, "put", "dave")
    assert names(group) == ["dave"]
    assert "Dave Vance is in Finance team now." in said(bob)
    do(bob, group, "rename", name="Money")
    do(bob, group, "take", "dave")
    assert names(group) == []
    told = Event.objects.filter(tenant=acme, kind__startswith="group_").order_by("pk")
    assert [(each.kind, each.actor, each.subject) for each in told] == [
        ("group_added", cast["bob"], None), ("group_member_added", cast["bob"], cast["dave"]),
        ("group_renamed", cast["bob"], None), ("group_member_removed", cast["bob"], cast["dave"]),
    ]  # fmt: skip
    assert (told[2].data["before"], told[2].data["after"]) == ({"name": "Finance team"}, {"name": "Money"})


def test_the_same_without_a_whole_page(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    group = groups.add(acme, "Finance")
    bob = visitor("bob")
    part = bob.post(portal_url(f"{PAGE}{group.pk}/act"), {"put": "dave", "q": "vance"}, **HTMX)
    assert shown(bob) == ["dave"]
    assert "<html" not in part.content.decode()
    asked = bob.post(portal_url(f"{PAGE}{group.pk}/act"), {"remove": "1"}, **HTMX)
    assert 'id="dialog-title"' in asked.content.decode()
    assert Group.objects.filter(pk=group.pk).exists()


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "finance", "FINANCE", "ﬁnance", "a\u202eb"])
def test_a_name_that_is_none_or_taken_is_refused_beside_its_field(cast: dict[str, User], acme: Tenant, visitor: Open, name: str) -> None:
    groups.add(acme, "Finance")
    other = groups.add(acme, "Other")
    bob = visitor("bob")
    for answer in (bob.post(portal_url(PAGE), {"name": name}), do(bob, other, "rename", name=name)):
        assert answer.status_code == 400 or 'id="name_error"' in answer.content.decode()
    assert sorted(acme.groups.values_list("name", flat=True)) == ["Finance", "Other"]


def test_two_tenants_may_have_groups_of_one_name(acme: Tenant, globex: Tenant) -> None:
    assert groups.add(acme, "Finance").name_key == groups.add(globex, "Finance").name_key


def test_who_leaves_the_tenant_leaves_its_groups(cast: dict[str, User], acme: Tenant) -> None:
    group = groups.add(acme, "Finance")
    assert groups.put(group, cast["dave"])
    assert not groups.put(group, cast["dave"])
    members.remove(acme, cast["dave"])
    members.add(acme, cast["dave"], "member")
    assert names(group) == []
    with pytest.raises(members.NoMember):
        groups.put(group, cast["carol"])


def test_removing_a_group_names_the_apps_that_lose_it(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    group = groups.add(acme, "Finance")
    wiki = App.objects.get(name="Wiki", tenant=acme)
    wiki.roles = ["owner"]
    wiki.save()
    wiki.groups.add(group)
    bob = visitor("bob")
    do(bob, group, "remove")
    assert "Wiki" in said(bob)
    assert acme.groups.count() == 1
    do(bob, group, "remove", sure="1")
    assert acme.groups.count() == 0
    assert Event.objects.get(kind="group_removed").data["before"]["apps"] == [wiki.host]


@pytest.mark.asvs("8.1.1")
def test_removing_a_group_opens_no_app_to_everyone(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    group = groups.add(acme, "Finance")
    wiki = App.objects.get(name="Wiki", tenant=acme)
    wiki.groups.add(group)
    bob = visitor("bob")
    do(bob, group, "remove", sure="1")
    assert "Finance is still needed" in said(bob)
    assert acme.groups.count() == 1
    with pytest.raises(groups.StillNeeded):
        groups.remove(group)


@pytest.mark.asvs("8.2.2")
def test_groups_and_people_of_elsewhere_are_404_and_change_nothing(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open
) -> None:
    own, foreign = groups.add(acme, "Finance"), groups.add(globex, "Secret")
    groups.put(foreign, cast["carol"])
    bob = visitor("bob")
    assert bob.get(page_of(foreign)).status_code == 404
    assert bob.get(portal_url(f"{PAGE}{10**30}/")).status_code == 404
    for verb, value in (("rename", "1"), ("put", "dave"), ("take", "carol"), ("remove", "1")):
        assert do(bob, foreign, verb, value, name="x", sure="1").status_code == 404
    assert do(bob, own, "put", "carol").status_code == 404
    assert do(bob, own, "nothing").status_code == 404
    assert "carol" not in bob.get(f"{page_of(own)}?q=carol").content.decode().replace("q=carol", "").replace('value="carol"', "")
    assert "Secret" not in bob.get(portal_url(PAGE)).content.decode()
    assert (names(own), names(foreign), Group.objects.count()) == ([], ["carol"], 2)
    assert Event.objects.filter(kind="foreign_group", tenant=acme).count() == 6
    assert Event.objects.filter(kind="foreign_person", tenant=acme).count() == 1


def test_a_large_group_is_paged(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    group = groups.add(acme, "All")
    for number in range(60):
        person = User.objects.create_user(f"person{number:02}", "", password=None)
        group.members.add(Membership.objects.create(tenant=acme, user=person))
    bob = visitor("bob")
    bob.get(page_of(group))
    assert "60 members" in said(bob)
    first = shown(bob)
    bob.get(portal_url(re.findall(r'href="([^"]+)">Further<', bob.page.content.decode())[0]))
    assert len(first) == 50
    assert len({*first, *shown(bob)}) == 60


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b hx-get="/logout/">', "{{ 7|add:7 }}", "=1+1", "🙃" * 20])
def test_hostile_names_are_text(cast: dict[str, User], acme: Tenant, visitor: Open, name: str) -> None:
    group = groups.add(acme, name)
    App.objects.get(name="Wiki", tenant=acme).groups.add(group)
    bob = visitor("bob")
    for path in (PAGE, f"{PAGE}{group.pk}/", "/console/acme/apps/", "/console/acme/people/", "/console/acme/events/"):
        page = bob.get(portal_url(path)).content.decode()
        assert "<script>alert" not in page
        assert "<b hx-get" not in page
        assert "14" not in re.findall(r"<h3>(.*?)</h3>", page)


def test_the_verbs_refuse_what_the_page_refuses(acme: Tenant) -> None:
    for name in ("", "a\x00b", "x" * 81):
        with pytest.raises(ValidationError):
            groups.add(acme, name, by=Actor())
