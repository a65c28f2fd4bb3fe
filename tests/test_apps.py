"""Apps in the console: where they may be, who may enter, what is refused, and that each change is an event."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from identity import app_rules, groups
from identity.app_rules import Wanted
from identity.models import Event, User
from tenants.models import App, Tenant
from tests.phone import said
from tests.test_people import HTMX
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PAGE, ADD = "/console/acme/apps/", "/console/acme/apps/add/"
CHAT: dict[str, Any] = {"name": "Chat", "host": "chat.acme.portal.localhost", "who": "everyone", "public_paths": ""}


def wiki() -> App:
    return App.objects.get(name="Wiki", tenant__slug="acme")


def as_typed(app: App, **changes: Any) -> dict[str, Any]:
    return {"name": app.name, "host": app.host, "who": "everyone", "public_paths": ""} | changes


def test_an_admin_adds_an_app_changes_it_and_removes_it(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    finance = groups.add(acme, "Finance")
    bob = visitor("bob")
    bob.post(portal_url(ADD), {**CHAT, "host": "CHAT.acme.portal.localhost."})
    chat = App.objects.get(name="Chat")
    assert (chat.host, chat.roles, chat.second_factor) == ("chat.acme.portal.localhost", [], False)
    rules = {
        "who": "some",
        "roles": ["owner", "admin"],
        "groups": [finance.pk],
        "second_factor": "on",
        "public_paths": "/hook/\r\n\r\n/health ",
    }
    bob.post(portal_url(f"{PAGE}{chat.pk}/"), as_typed(chat, **rules))
    chat.refresh_from_db()
    assert (chat.roles, list(chat.groups.all()), chat.second_factor) == (["admin", "owner"], [finance], True)
    assert chat.public_paths == ["/hook/", "/health"]
    assert "Admin, Owner, Finance · only with a second factor Open to everybody: /hook/ /health" in said(bob)
    bob.post(portal_url(f"{PAGE}{chat.pk}/remove"))
    assert "Remove Chat from Acme?" in said(bob)
    assert App.objects.filter(pk=chat.pk).exists()
    bob.post(portal_url(f"{PAGE}{chat.pk}/remove"), {"sure": "1"})
    assert not App.objects.filter(pk=chat.pk).exists()
    added, changed, removed = Event.objects.filter(kind__startswith="app_").order_by("pk")
    assert (added.kind, added.actor, added.data["before"], added.data["after"]["host"]) == ("app_added", cast["bob"], None, chat.host)
    assert (changed.data["before"]["groups"], changed.data["after"]["groups"]) == ([], ["Finance"])
    assert (removed.data["before"], removed.data["after"]) == (changed.data["after"], None)


def test_each_page_says_that_rules_are_not_enforced_yet(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    for path in (PAGE, ADD, f"{PAGE}{wiki().pk}/"):
        bob.get(portal_url(path))
        assert "Rules are stored, not yet enforced" in said(bob)


def test_everyone_takes_ticked_roles_back_and_the_form_shows_what_holds(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    app = wiki()
    app_rules.change(app, Wanted(app.name, app.host, ["admin"], second_factor=True, public_paths=["/hook/"]))
    bob = visitor("bob")
    page = bob.get(portal_url(f"{PAGE}{app.pk}/")).content.decode()
    assert re.search(r'name="roles" value="admin" checked', page)
    assert re.search(r'value="some" checked', page)
    assert "/hook/</textarea>" in page
    bob.post(portal_url(f"{PAGE}{app.pk}/"), as_typed(app, roles=["admin"]))
    assert (wiki().roles, wiki().second_factor, wiki().public_paths) == ([], False, [])


def test_what_changes_nothing_is_no_event(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.post(portal_url(f"{PAGE}{wiki().pk}/"), as_typed(wiki()))
    assert "Wiki was like that already." in said(bob)
    assert not Event.objects.filter(kind="app_changed").exists()


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("host", "wiki.acme.portal.localhost", "already has a place"),
        ("host", "chat.globex.portal.localhost", "Under portal.localhost a tenant has only its own name"),
        ("host", "login.portal.localhost", "belongs to the portal"),
        ("host", "acme.portal.localhost", "already has a place"),
        ("host", "chat.elsewhere.test", "Choose a host inside acme.portal.localhost"),
        ("host", "127.0.0.1", "not an address"),
        ("host", "no host", "is no host name"),
        ("host", "<script>.acme.portal.localhost", "is no host name"),
        ("host", "x" * 254, "at most 253"),
        ("name", "", "required"),
        ("name", "a\u202eb", "Bad request"),
        ("name", "x" * 10_000, "at most 80"),
        ("public_paths", "hook", "begins with a slash"),
        ("public_paths", "/", "would open the whole app"),
        ("public_paths", "/a b", "is no plain path"),
        ("public_paths", "/a/../b", "is no plain path"),
        ("public_paths", "/a?b", "is no plain path"),
        ("public_paths", "//evil", "is no plain path"),
        ("public_paths", "/%2e%2e/", "is no plain path"),
        ("public_paths", "\n".join(f"/{n}" for n in range(51)), "At most 50"),
        ("who", "some", "Tick a role or a group"),
        ("who", "nobody", "Select a valid choice"),
    ],
)
def test_what_does_not_fit_is_refused_beside_its_field(
    cast: dict[str, User], acme: Tenant, visitor: Open, field: str, value: str, error: str
) -> None:
    bob = visitor("bob")
    answer = bob.post(portal_url(ADD), {**CHAT, field: value})
    if answer.status_code != 400:  # a control character, which no browser sends from our form
        wrong = re.search(rf'id="{field}_error">(.*?)</div>', answer.content.decode(), re.DOTALL)
        assert wrong, said(bob)
        assert error in wrong[1].replace("&lt;", "<")
    assert not App.objects.filter(host__startswith="chat").exists()
    assert not Event.objects.filter(kind="app_added").exists()


@pytest.mark.asvs("8.2.2")
def test_apps_and_groups_of_elsewhere_are_404_or_refused(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    board, secret = App.objects.get(name="Board"), groups.add(globex, "Secret")
    bob = visitor("bob")
    for path in (f"{PAGE}{board.pk}/", f"{PAGE}{10**30}/"):
        assert bob.get(portal_url(path)).status_code == 404
    assert bob.post(portal_url(f"{PAGE}{board.pk}/"), as_typed(board, name="Mine")).status_code == 404
    assert bob.post(portal_url(f"{PAGE}{board.pk}/remove"), {"sure": "1"}).status_code == 404
    page = bob.post(portal_url(f"{PAGE}{wiki().pk}/"), as_typed(wiki(), who="some", groups=[secret.pk])).content.decode()
    assert "Secret" not in page
    assert "Select a valid choice" in page
    assert App.objects.get(pk=board.pk).name == "Board"
    assert not wiki().groups.exists()
    assert Event.objects.filter(kind="foreign_app", tenant=acme).count() == 4


def test_the_confirmation_comes_as_a_dialog_too(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    asked = bob.post(portal_url(f"{PAGE}{wiki().pk}/remove"), **HTMX).content.decode()
    assert 'id="dialog-title"' in asked
    assert "<html" not in asked
    done = bob.post(portal_url(f"{PAGE}{wiki().pk}/remove"), {"sure": "1"}, **HTMX)
    assert done["HX-Redirect"] == PAGE


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b hx-get="/logout/">', "{{ 7|add:7 }}", "=1+1", "🙃" * 20])
def test_hostile_names_are_text_wherever_they_surface(cast: dict[str, User], acme: Tenant, visitor: Open, name: str) -> None:
    olivia = visitor("olivia", at="acme")
    olivia.post(portal_url(ADD), {**CHAT, "name": name})
    app = App.objects.get(host=CHAT["host"])
    assert app.name == name
    for path in (PAGE, f"{PAGE}{app.pk}/", "/console/acme/events/", "/"):
        page = olivia.get(portal_url(path)).content.decode() + olivia.get(tenant_url("acme")).content.decode()
        assert "<script>alert" not in page
        assert "<b hx-get" not in page
    bob = visitor("bob")
    asked = bob.post(portal_url(f"{PAGE}{app.pk}/remove")).content.decode()
    assert "<script>alert" not in asked
