"""The command line: what each verb promises, as people and as scripts see it."""

import io
import json
import re
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from PIL import Image

from identity import crypto, factors, sessions
from identity.management import probe
from identity.models import Event, Link, Mail, Session, TotpDevice, User
from identity.store import SessionStore
from tenants import logos
from tenants.models import App, Host, Logo, Membership, Tenant
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


def manage(*arguments: str) -> str:
    """What `manage.py …` prints for people."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out, no_color=True)
    return out.getvalue()


def told(*arguments: str) -> dict[str, Any]:
    """What `manage.py … --json` prints: one object and nothing else."""
    out = io.StringIO()
    call_command(*arguments, "--json", stdout=out, no_color=True)
    data: dict[str, Any] = json.loads(out.getvalue())
    return data


def refusal(*arguments: str) -> str:
    """Why it is refused. Nothing was changed."""
    before = everything()
    with pytest.raises(CommandError) as error:
        manage(*arguments)
    assert everything() == before
    return str(error.value)


def everything() -> dict[str, list[str]]:
    """Every row of every table of ours."""
    models = [model for model in apps.get_models() if model._meta.app_label in {"tenants", "identity"} and model is not Logo]
    rows = {model._meta.label: [repr(row) for row in model._default_manager.order_by("pk").values()] for model in models}
    return {**rows, "logos": [repr(bytes(logo.png)) for logo in Logo.objects.order_by("pk")]}


def last_event(kind: str) -> Event:
    event = Event.objects.filter(kind=kind).latest("pk")
    assert event.actor is None
    assert event.data["source"] == "command line"
    return event


# --- An empty product says what to do next ------------------------------------------------------------------------


@pytest.mark.asvs("6.3.2")
@pytest.mark.parametrize(
    ("command", "next_step", "data"),
    [
        ("tenant list", 'manage.py tenant add acme "Acme"', {"tenants": []}),
        ("user list", "manage.py operator link", {"users": [], "total": 0}),
        ("operator list", "manage.py operator link", {"operators": []}),
        ("session list", "manage.py session list --ended", {"sessions": [], "total": 0}),
    ],
)
def test_an_empty_product_says_what_to_do_next(db: None, command: str, next_step: str, data: dict[str, Any]) -> None:
    assert next_step in manage(*command.split())
    assert told(*command.split()) == data


def test_an_unknown_tenant_or_person_is_an_error_with_the_cure(db: None) -> None:
    assert 'No tenants yet: manage.py tenant add acme "Acme"' in refusal("tenant", "show", "acme")
    manage("tenant", "add", "acme", "Acme")
    assert refusal("tenant", "show", "nope") == "There is no tenant “nope”. Those there are: manage.py tenant list"
    assert "manage.py user list --search zoe" in refusal("member", "add", "acme", "zoe")


def test_an_empty_tenant_says_what_to_do_next(db: None) -> None:
    manage("tenant", "add", "acme", "Acme")
    assert "manage.py member add acme USERNAME --role owner" in manage("member", "list", "acme")
    assert "manage.py tenant host add acme HOST" in manage("tenant", "host", "list", "acme")
    assert "manage.py tenant app add acme NAME HOST" in manage("tenant", "app", "list", "acme")


# --- Dry runs, JSON, events ---------------------------------------------------------------------------------------

CHANGES = [
    "tenant add initech Initech --owner olivia",
    "tenant set acme --name Apex --colour #AA0000 --policy idle=3600",
    "tenant set acme --policy second_factor=everyone grace_days=14 tries=3",
    "tenant suspend acme --reason unpaid",
    "tenant host acme id.acme.test",
    "tenant app add acme Chat chat.acme.portal.localhost --role admin --second-factor --public-path /hook",
    "tenant app remove acme wiki.acme.portal.localhost",
    "member add acme carol --role admin",
    "member role acme dave admin",
    "member block acme dave",
    "member remove acme dave",
    "invite acme frank@x.example eve@x.example --role admin",
    "user add joe joe@acme.example --first Joe --last Doe --verified",
    "user link dave",
    "user deactivate dave",
    "user reset-factors erin --reason lost",
    "operator grant bob",
    "operator revoke erin --force",
    "operator link",
    "session end --user dave --reason lost",
    "session end --user dave --tenant acme --reason lost",
    "session end --tenant acme --reason lost",
    "restored --copy gatehouse-20261121T024000Z.dump",
]


@pytest.mark.parametrize("command", CHANGES)
def test_a_dry_run_changes_nothing_and_says_so(cast: dict[str, User], visitor: Open, command: str) -> None:
    visitor("dave", at="acme")
    before = everything()
    assert manage(*command.split(), "--dry-run").startswith("Dry run: nothing was changed.")
    assert (told(*command.split(), "--dry-run")["dry_run"], everything()) == (True, before)
    if "link" in command:
        assert told(*command.split(), "--dry-run")["link"] is None


@pytest.mark.asvs("16.2.1")
@pytest.mark.parametrize("command", CHANGES)
def test_every_change_is_told_to_scripts_and_leaves_an_event(cast: dict[str, User], visitor: Open, command: str) -> None:
    visitor("dave", at="acme")
    kinds = set(Event.objects.values_list("pk", flat=True))
    answer = told(*command.split())
    assert {"changed", "before", "after", "dry_run", "warnings"} <= set(answer)
    assert (answer["changed"], answer["dry_run"]) == (True, False)
    noted = Event.objects.exclude(pk__in=kinds).filter(data__source="command line")
    assert noted.exists()
    assert not noted.exclude(actor=None).exists()


@pytest.mark.parametrize(
    "command",
    [
        "tenant resume acme",
        "tenant set acme --name Acme",
        "member add acme alice",
        "member role acme alice member",
        "member unblock acme alice",
        "user activate dave",
        "operator grant erin",
        "operator revoke dave",
        "session end --user alice --tenant acme --reason lost",
        "prune",
        "rekey",
    ],
)
def test_what_is_so_already_is_no_error_and_no_event(cast: dict[str, User], command: str) -> None:
    before = Event.objects.count()
    assert told(*command.split())["changed"] is False
    assert Event.objects.count() == before


# --- tenant ---------------------------------------------------------------------------------------------------------


def test_a_new_tenant_answers_at_once_and_its_owner_enters(cast: dict[str, User], visitor: Open) -> None:
    said = manage("tenant", "add", "initech", "Initech", "--colour", "#AA0000", "--support", "it@initech.example", "--owner", "dave")
    assert said == "Added Initech: http://initech.portal.localhost:8000/\ndave is its owner.\n"
    tenant = Tenant.objects.get(slug="initech")
    assert (tenant.colour, tenant.support_href, tenant.is_active) == ("#aa0000", "mailto:it@initech.example", True)
    assert visitor("dave", at="initech").is_in("initech")


@pytest.mark.asvs("1.2.5", "2.2.1", "5.3.2")
@pytest.mark.parametrize("slug", ["; rm -rf /", "../../etc", "Acme", "login", "a.b", "-a", "", "xn--a", "$(id)", "a" * 64])
def test_a_slug_that_is_no_label_is_refused(db: None, slug: str) -> None:
    assert refusal("tenant", "add", "--", slug, "Name").startswith("slug: ")


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("tenant add acme Acme", "manage.py tenant show acme"),
        ("tenant set acme", "manage.py tenant set acme --support"),
        ("tenant set acme --colour red", "six hex digits, such as #0d5f7a"),
        ("tenant set acme --policy idle", "NAME=VALUE"),
        ("tenant set acme --policy idle=10", "at least 5 minutes (300 seconds)"),
        ("tenant set acme --policy coffee=1", "Choose from: idle, absolute, remembered"),
        ("tenant set acme --cookie-domain co.uk", "Choose a domain that is yours alone"),
        ("tenant set acme --cookie-domain portal.localhost", "Choose a domain beside it."),
        ("tenant set acme --cookie-domain globex.portal.localhost", "Use acme.portal.localhost"),
        ("tenant set acme --logo /no/such/file.png", "Give the path of a picture, or “none”."),
        ("tenant host acme", "manage.py tenant host add SLUG HOST"),
        ("tenant host acme wiki.globex.portal.localhost", "Choose a host inside acme.portal.localhost"),
        ("tenant host acme login.portal.localhost", "Choose another host"),
        ("tenant host acme 10.0.0.1", "A host is a name"),
        ("tenant host remove acme id.acme.test", "manage.py tenant host list acme"),
        ("tenant app add acme Wiki wiki.acme.portal.localhost", "Remove it there first"),
        ("tenant app add acme Wiki wiki.elsewhere.test", "Choose a host inside acme.portal.localhost"),
        ("tenant app add acme Chat chat.acme.portal.localhost --public-path hook", "begins with a slash"),
        ("tenant app remove acme nope.acme.portal.localhost", "manage.py tenant app list acme"),
    ],
)
def test_a_refused_change_of_a_tenant_carries_its_cure(cast: dict[str, User], command: str, cure: str) -> None:
    assert cure in refusal(*command.split())


POLICY = {
    "idle": 28800,
    "absolute": 86400,
    "remembered": True,
    "second_factor": "off",
    "grace_days": 0,
    "trusted_browsers": True,
    "tries": 5,
    "password_length": 8,
    "password_length_alone": 8,
    "sign_up": "invited",
    "sign_up_domains": "",
    "approval": False,
}


def test_set_changes_what_is_named_and_tells_before_and_after(acme: Tenant) -> None:
    wishes = ["--policy", "idle=3600", "--policy", "remembered=no", "--home-public", "yes", "--note", "Ask Bob"]
    answer = told("tenant", "set", "acme", *wishes)
    assert answer["before"] == {
        "sign_in_note": "",
        "home_is_public": False,
        "policy": POLICY,
    }
    assert answer["after"]["policy"] == {**POLICY, "idle": 3600, "remembered": False}
    assert answer["warnings"] == []
    event = last_event("tenant_changed")
    assert (event.tenant, event.data["before"], event.data["after"]) == (acme, answer["before"], answer["after"])
    said = manage("tenant", "set", "acme", "--policy", "idle=default")
    assert "policy idle 1 h → 8 h" in said
    assert "Sessions that are open keep the shorter limit until the next sign-in." in said
    acme.refresh_from_db()
    assert acme.policy == {"remembered": False}


def test_show_names_everything_about_a_tenant(acme: Tenant) -> None:
    manage("tenant", "host", "acme", "id.acme.test")
    known = told("tenant", "show", "acme")["tenant"]
    assert (known["slug"], known["owners"], known["members"], known["live_sessions"]) == ("acme", ["olivia"], 4, 0)
    assert [app["host"] for app in known["apps"]] == ["tickets.acme.portal.localhost", "wiki.acme.portal.localhost"]
    assert [host["host"] for host in known["hosts"]] == ["id.acme.test"]
    assert re.search(r"^Owners +olivia$", manage("tenant", "show", "acme"), re.MULTILINE)


def test_a_host_added_on_the_command_line_is_approved_and_serves_a_sign_in(acme: Tenant, visitor: Open) -> None:
    answer = told("tenant", "host", "acme", "ID.Acme.Test.")
    assert (answer["after"]["host"], answer["after"]["cookie_domain"]) == ("id.acme.test", "id.acme.test")
    assert Host.objects.get(name="id.acme.test").approved_at is not None
    alice = visitor("alice")
    alice.get("http://id.acme.test:8000/")
    assert (alice.url, alice.page.status_code) == ("http://id.acme.test:8000/", 200)
    assert told("tenant", "host", "list", "acme")["hosts"][0]["host"] == "id.acme.test"
    manage("tenant", "host", "remove", "acme", "id.acme.test")
    assert visitor().get("http://id.acme.test:8000/").status_code == 404


def test_a_host_that_waits_for_approval_is_approved_by_adding_it(acme: Tenant, visitor: Open) -> None:
    Host.objects.create(tenant=acme, name="id.acme.test")
    assert visitor().get("http://id.acme.test:8000/").status_code == 404
    answer = told("tenant", "host", "add", "acme", "id.acme.test")
    assert (answer["before"]["approved_at"], answer["changed"]) == (None, True)
    assert visitor().get("http://id.acme.test:8000/welcome/").status_code == 200


def test_a_host_goes_only_after_the_apps_that_need_it(acme: Tenant) -> None:
    manage("tenant", "host", "acme", "acme.test")
    assert manage("tenant", "app", "add", "acme", "Chat", "chat.acme.test").splitlines() == [
        "Added Chat at chat.acme.test",
        "The rules of apps are stored and not yet enforced.",
    ]
    assert refusal("tenant", "host", "remove", "acme", "acme.test").startswith("Chat would not fit any more: ")
    manage("tenant", "app", "remove", "acme", "chat.acme.test")
    manage("tenant", "host", "remove", "acme", "acme.test")
    assert not Host.objects.exists()


def test_a_hosts_cookie_domain_may_be_wider_and_its_apps_keep_it_so(acme: Tenant) -> None:
    manage("tenant", "host", "acme", "id.acme.test", "--cookie-domain", "acme.test")
    manage("tenant", "app", "add", "acme", "Chat", "chat.acme.test")
    assert "inside another tenant's cookie domain" in refusal("tenant", "host", "globex", "x.acme.test")
    narrower = ("tenant", "host", "acme", "id.acme.test", "--cookie-domain", "id.acme.test")
    assert refusal(*narrower).startswith("Chat would not fit any more: ")
    manage("tenant", "app", "remove", "acme", "chat.acme.test")
    assert told(*narrower)["after"]["cookie_domain"] == "id.acme.test"
    assert "overlaps another tenant's" in refusal("tenant", "host", "globex", "acme.test")


def test_the_rules_of_an_app_are_stored_and_said_to_be_not_yet_enforced(acme: Tenant) -> None:
    rules = ["--role", "owner", "--role", "admin", "--second-factor", "--public-path", "/hook"]
    said = manage("tenant", "app", "add", "acme", "Chat", "chat.acme.portal.localhost", *rules)
    assert "only admin, owner; with a second factor; open to all: /hook" in said
    assert "not yet enforced" in said
    app = App.objects.get(name="Chat")
    assert (app.roles, app.second_factor, app.public_paths) == (["admin", "owner"], True, ["/hook"])
    listed = told("tenant", "app", "list", "acme")
    assert (listed["enforced"], len(listed["apps"])) == (False, 3)


@pytest.mark.asvs("7.4.2")
def test_suspending_ends_every_session_there_and_resuming_brings_none_back(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    answer = told("tenant", "suspend", "acme", "--reason", "Invoice unpaid")
    assert (answer["before"], answer["after"], answer["ended"]) == ({"status": "active"}, {"status": "suspended"}, 1)
    assert (dave.is_in("acme"), dave.is_in("globex"), dave.is_in()) == (False, True, True)
    row = Session.objects.get(tenant__slug="acme")
    assert (row.end_reason, row.end_note) == (Session.Reason.SUSPENDED, "Invoice unpaid")
    assert last_event("tenant_suspended").data["reason"] == "Invoice unpaid"
    manage("tenant", "resume", "acme")
    assert not dave.is_in("acme")
    dave.get(tenant_url("acme", "/_portal/start?again=1"))
    assert dave.url.startswith(portal_url("/step-up/"))


def test_suspending_again_finishes_what_a_crash_left(acme: Tenant, visitor: Open) -> None:
    """The status stands, a row was not marked: dead all the same, also after the tenant is resumed."""
    alice = visitor("alice", at="acme")
    manage("tenant", "suspend", "acme")
    Session.objects.filter(tenant=acme).update(ended_at=None, end_reason="")
    Tenant.objects.filter(pk=acme.pk).update(status=Tenant.Status.ACTIVE)
    assert not alice.is_in("acme")
    Tenant.objects.filter(pk=acme.pk).update(status=Tenant.Status.SUSPENDED)
    assert told("tenant", "suspend", "acme")["ended"] == 1


def picture(kind: str, size: tuple[int, int], path: Path) -> str:
    Image.new("RGB", size, "teal").save(path, kind, **({"comment": b"a secret place"} if kind in {"JPEG", "GIF"} else {}))
    return str(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_logo_is_encoded_anew_as_a_small_png_and_served(acme: Tenant, visitor: Open, tmp_path: Path, kind: str) -> None:
    manage("tenant", "set", "acme", "--logo", picture(kind, (900, 300), tmp_path / "logo"))
    acme.refresh_from_db()
    assert acme.logo is not None
    png = bytes(acme.logo.png)
    assert b"secret" not in png
    with Image.open(io.BytesIO(png)) as kept:
        assert (kept.format, kept.size) == ("PNG", (512, 171))
    served = visitor().get(tenant_url("acme", acme.logo_url))
    assert (served.status_code, served["Content-Type"], served.content) == (200, "image/png", png)


def test_a_new_logo_replaces_the_old_one_and_none_removes_it(acme: Tenant, tmp_path: Path) -> None:
    for size in (10, 20):
        manage("tenant", "set", "acme", "--logo", picture("PNG", (size, size), tmp_path / "logo.png"))
    assert Logo.objects.count() == 1
    assert told("tenant", "set", "acme", "--logo", "none")["after"] == {"logo": None}
    assert Logo.objects.count() == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no picture in a format taken here"),
        (b"\x89PNG\r\n\x1a\nnothing", "no picture in a format taken here"),
        (b"", "no picture in a format taken here"),
        (b"x" * (logos.LARGEST_FILE + 1), "at most 2 MB"),
    ],
)
def test_what_is_no_picture_is_no_logo(acme: Tenant, tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "logo.png"
    path.write_bytes(data)
    assert why in refusal("tenant", "set", "acme", "--logo", str(path))


def test_a_picture_with_too_many_pixels_is_never_unpacked(acme: Tenant, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path, "PNG")
    assert path.stat().st_size < logos.LARGEST_FILE
    assert "at most 16 million pixels" in refusal("tenant", "set", "acme", "--logo", str(path))


def test_a_damaged_picture_is_refused_calmly(tmp_path: Path) -> None:
    good = Path(picture("PNG", (64, 64), tmp_path / "logo.png")).read_bytes()
    for at in range(8, len(good), 3):
        for broken in (good[:at], good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]):
            with suppress(logos.BadLogo):  # and nothing else
                assert logos.encode(broken).startswith(b"\x89PNG")


# --- member ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "reason"), [("remove", Session.Reason.REMOVED), ("block", Session.Reason.BLOCKED)])
def test_removing_and_blocking_end_the_sessions_there_at_once(cast: dict[str, User], visitor: Open, verb: str, reason: str) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    answer = told("member", verb, "acme", "dave")
    assert (answer["ended"], dave.is_in("acme"), dave.is_in("globex")) == (1, False, True)
    assert Session.objects.get(tenant__slug="acme").end_reason == reason
    dave.get(tenant_url("acme", "/_portal/start?again=1"))
    assert dave.page.status_code == 403


@pytest.mark.parametrize(("away", "back"), [("remove", "add"), ("block", "unblock")])
def test_who_is_let_in_again_brings_a_fresh_proof(cast: dict[str, User], visitor: Open, away: str, back: str) -> None:
    dave = visitor("dave", at="acme")
    manage("member", away, "acme", "dave")
    manage("member", back, "acme", "dave")
    dave.get(tenant_url("acme", "/_portal/start?again=1"))
    assert dave.url.startswith(portal_url("/step-up/"))
    dave.post(dave.url, {"password": "gatehouse-demo"})
    assert dave.is_in("acme")


def test_a_new_member_enters_without_another_proof(cast: dict[str, User], visitor: Open) -> None:
    carol = visitor("carol", at="globex")
    assert manage("member", "add", "acme", "carol", "--role", "admin") == "carol is an admin of Acme.\n"
    carol.get(tenant_url("acme"))
    assert (carol.is_in("acme"), any("/step-up/" in url for url in carol.trail)) == (True, False)


@pytest.mark.asvs("8.3.2")
def test_a_role_changed_on_the_command_line_is_in_force_with_the_next_click(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    assert bob.get(portal_url("/console/acme/sessions/")).status_code == 200
    answer = told("member", "role", "acme", "bob", "member")
    assert (answer["before"]["role"], answer["after"]["role"]) == ("admin", "member")
    assert bob.get(portal_url("/console/acme/sessions/")).status_code == 404


@pytest.mark.parametrize("command", ["member remove acme olivia", "member block acme olivia", "member role acme olivia admin"])
def test_the_last_owner_stays(cast: dict[str, User], command: str) -> None:
    cure = "olivia is the last owner of Acme. Make somebody else one first: manage.py member role acme USERNAME owner"
    assert refusal(*command.split()) == cure
    # One who cannot act is no other owner.
    manage("member", "role", "acme", "bob", "owner")
    manage("member", "block", "acme", "bob")
    assert refusal(*command.split()) == cure
    manage("member", "unblock", "acme", "bob")
    manage("user", "deactivate", "bob")
    assert refusal(*command.split()) == cure
    manage("user", "activate", "bob")
    assert told(*command.split())["changed"]


@pytest.mark.asvs("15.4.2", "2.3.4")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("member remove acme olivia", "member block acme bob"),
        ("operator revoke erin", "user deactivate bob"),
    ],
)
def test_two_commands_at_once_do_not_take_the_last_two(cast: dict[str, User], first: str, second: str) -> None:
    manage("member", "role", "acme", "bob", "owner")
    manage("operator", "grant", "bob")
    start, refused = threading.Barrier(2), []

    def run(command: str) -> None:
        try:
            start.wait(10)
            manage(*command.split())
        except CommandError as error:
            refused.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[command]) for command in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 1
    assert "is the last" in refused[0]


def test_who_owns_no_more_than_he_can_act_on_may_be_removed(cast: dict[str, User]) -> None:
    """A tenant without an owner who can act: nobody is the last one."""
    answer = told("user", "deactivate", "olivia")
    assert answer["warnings"] == [
        "Acme has no owner now: manage.py member add acme USERNAME --role owner",
        "Globex has no owner now: manage.py member add globex USERNAME --role owner",
    ]
    assert told("member", "remove", "acme", "olivia")["changed"]


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("member add acme alice --role admin", "manage.py member role acme alice admin"),
        ("member remove acme carol", "manage.py member list acme"),
        ("member unblock acme carol", "manage.py member list acme"),
    ],
)
def test_a_refused_change_of_a_membership_carries_its_cure(cast: dict[str, User], command: str, cure: str) -> None:
    assert cure in refusal(*command.split())


def test_adding_somebody_blocked_says_how_to_unblock(cast: dict[str, User]) -> None:
    manage("member", "block", "acme", "dave")
    assert "manage.py member unblock acme dave" in refusal("member", "add", "acme", "dave")


def test_the_members_are_listed_with_role_and_state(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme")
    manage("member", "block", "acme", "alice")
    manage("user", "deactivate", "bob")
    listed = {m["username"]: (m["role"], m["state"], m["signed_in"]) for m in told("member", "list", "acme")["members"]}
    assert listed == {
        "alice": ("member", "blocked", False),
        "bob": ("admin", "deactivated", False),
        "dave": ("member", "active", True),
        "olivia": ("owner", "active", False),
    }


# --- user -----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.4.1")
def test_a_user_without_a_password_sets_one_by_a_link_that_works_once(cast: dict[str, User], visitor: Open) -> None:
    said = manage("user", "add", "joe", "joe@acme.example")
    assert "manage.py user link joe" in said
    assert not User.objects.get(username="joe").has_usable_password()
    link = told("user", "link", "joe")["link"]
    assert link.startswith(portal_url("/password/reset/"))
    joe = visitor()
    assert joe.get(link).status_code == 200
    joe.post(link, {"password": "three words here"})
    assert (joe.url, joe.is_in()) == (portal_url("/password/reset/done/"), False)
    joe.sign_in("joe", "three words here")
    assert joe.is_in()
    assert visitor().get(link).status_code == 404
    manage("user", "link", "joe")
    event = last_event("password_link_made")
    assert (event.subject, set(event.data)) == (User.objects.get(username="joe"), {"source", "expires_at"})


@pytest.mark.asvs("6.4.1", "9.2.1")
@pytest.mark.parametrize("command", ["user link dave", "operator link"])
def test_a_link_that_is_late_opens_nothing(cast: dict[str, User], visitor: Open, command: str) -> None:
    link = told(*command.split())["link"]
    Link.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert visitor().get(link).status_code == 404


def test_nobody_deactivated_gets_a_link_or_becomes_an_operator(cast: dict[str, User]) -> None:
    manage("user", "deactivate", "dave")
    assert "manage.py user activate dave" in refusal("user", "link", "dave")
    assert "manage.py user activate dave" in refusal("operator", "grant", "dave")


@pytest.mark.asvs("6.2.8")
def test_a_password_comes_from_standard_input_as_it_is(db: None, visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(" three words here \n"))
    manage("user", "add", "joe", "joe@acme.example", "--password-stdin", "--verified")
    joe = visitor()
    joe.sign_in("joe", "three words here")
    assert not joe.is_in()
    joe.sign_in("JOE@acme.example", " three words here ")
    assert joe.is_in()


@pytest.mark.parametrize("typed", ["", "\n", "short", "password", "joe@acme.example", "x" * 4097])
def test_a_password_that_does_not_suffice_makes_nobody(db: None, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert refusal("user", "add", "joe", "joe@acme.example", "--password-stdin")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("user add DAVE dave2@acme.example", "manage.py user show dave"),
        ("user add joe DAVE@acme.example", "manage.py user show dave"),
        ("user add joe nowhere", "Enter a valid email address."),
        ("user add jo@e joe@acme.example", "letters, digits and . + - _ only"),
    ],
)
def test_a_user_who_does_not_fit_is_refused_with_the_reason(cast: dict[str, User], command: str, why: str) -> None:
    assert why in refusal(*command.split())


def test_an_unverified_address_stays_unverified(db: None) -> None:
    assert told("user", "add", "joe", "joe@acme.example")["after"]["email_verified"] is False
    assert told("user", "add", "jim", "jim@acme.example", "--verified")["after"]["email_verified"] is True


def test_people_are_found_and_shown(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme")
    assert [user["username"] for user in told("user", "list", "--search", "VANCE")["users"]] == ["dave"]
    assert "Nobody matches “zz”" in manage("user", "list", "--search", "zz")
    assert manage("user", "list", "--limit", "2").splitlines()[-1].startswith("2 of 7.")
    known = told("user", "show", "dave@acme.example")["user"]
    assert known["memberships"] == [
        {"tenant": "acme", "role": "member", "blocked": False},
        {"tenant": "globex", "role": "member", "blocked": False},
    ]
    assert (known["live_portal_sessions"], known["has_password"], known["operator"]) == (1, True, False)
    assert "acme (member), globex (member)" in manage("user", "show", "dave")


@pytest.mark.asvs("7.4.2")
def test_deactivating_ends_every_session_everywhere_and_activating_brings_none_back(cast: dict[str, User], visitor: Open) -> None:
    phone, laptop = visitor("dave", at="acme"), visitor("dave", at="globex")
    link = told("user", "link", "dave")["link"]
    assert told("user", "deactivate", "dave")["ended"] == 4
    assert not any([phone.is_in("acme"), phone.is_in(), laptop.is_in("globex"), laptop.is_in()])
    assert visitor().get(link).status_code == 404
    assert not visitor("dave").is_in()
    assert set(Session.objects.values_list("end_reason", flat=True)) == {Session.Reason.DEACTIVATED}
    manage("user", "activate", "dave")
    assert not any([phone.is_in("acme"), phone.is_in(), laptop.is_in("globex"), laptop.is_in()])
    assert visitor("dave").is_in()


# --- operator -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.3.2", "6.4.1")
def test_the_first_operator_signs_up_by_a_link_that_works_once(db: None, visitor: Open, settings: pytest.FixtureRequest) -> None:
    settings.SIGNUP = "closed"  # type: ignore[attr-defined]
    link = told("operator", "link")["link"]
    assert link.startswith(portal_url("/signup/"))
    fields = {"username": "ada", "email": "ada@example.com", "password": "three words here"}
    assert visitor().post(link, fields).status_code == 201
    assert [operator["username"] for operator in told("operator", "list")["operators"]] == ["ada"]
    assert visitor().post(link, {**fields, "username": "eve", "email": "eve@example.com"}).status_code == 404
    assert User.objects.count() == 1


@pytest.mark.asvs("8.3.2")
def test_an_operators_right_comes_and_goes_with_the_next_click(cast: dict[str, User], visitor: Open) -> None:
    mallory = visitor("mallory")
    console = portal_url("/console/acme/sessions/")
    assert mallory.get(console).status_code == 404
    manage("operator", "grant", "mallory")
    assert mallory.get(console).status_code == 200
    manage("operator", "revoke", "mallory")
    assert (mallory.get(console).status_code, mallory.is_in()) == (404, True)
    assert last_event("operator_revoked").subject == cast["mallory"]


@pytest.mark.parametrize("command", ["operator revoke erin", "user deactivate erin"])
def test_the_last_operator_stays_unless_forced(cast: dict[str, User], command: str) -> None:
    assert "manage.py operator grant USERNAME" in refusal(*command.split())
    User.objects.filter(username="bob").update(is_superuser=True, is_active=False)
    assert "--force" in refusal(*command.split())
    assert told(*command.split(), "--force")["changed"]


# --- session --------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.6")
def test_the_list_is_the_store(cast: dict[str, User], visitor: Open) -> None:
    dave, alice = visitor("dave", at="acme"), visitor("alice", at="acme")
    listed = told("session", "list")
    assert {(row["username"], row["place"]) for row in listed["sessions"]} == {
        ("dave", "portal"), ("dave", "acme"), ("alice", "portal"), ("alice", "acme"),
    }  # fmt: skip
    row = next(row for row in listed["sessions"] if row["id"] == str(dave.session("acme").pk))
    assert (row["parent"], row["address"], row["methods"]) == (str(dave.session().pk), "127.0.0.1", ["pwd"])
    assert "Firefox/142.0" in row["device"]
    for text in (manage("session", "list"), json.dumps(listed)):
        assert alice.key("acme.portal.localhost") not in text
        assert alice.session("acme").key_digest not in text
    Membership.objects.filter(user=cast["alice"]).update(blocked_at=timezone.now())
    assert [row["username"] for row in told("session", "list", "--tenant", "acme")["sessions"]] == ["dave"]
    assert told("session", "list", "--user", "dave", "--limit", "1")["total"] == 2


@pytest.mark.asvs("7.4.5")
def test_a_session_is_ended_by_its_public_id_and_its_person_is_told_why(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    row = dave.session("acme")
    answer = told("session", "end", str(row.pk), "--reason", "Laptop lost")
    assert (answer["ended"], answer["already_over"]) == (1, 0)
    assert (dave.is_in("acme"), dave.is_in("globex"), dave.is_in()) == (False, True, True)
    assert "Laptop lost" in dave.get(tenant_url("acme")).content.decode()
    row.refresh_from_db()
    assert (row.end_reason, row.end_note, row.ended_by) == (Session.Reason.BY_OPERATOR, "Laptop lost", None)
    again = told("session", "end", str(row.pk), "--reason", "Again")
    assert (again["ended"], again["already_over"], again["changed"]) == (0, 1, False)
    history = told("session", "list", "--ended")["sessions"]
    assert [(gone["id"], gone["reason"], gone["note"]) for gone in history] == [(str(row.pk), "by_operator", "Laptop lost")]


@pytest.mark.asvs("7.4.5")
def test_ending_a_persons_sessions_ends_them_everywhere_or_at_one_tenant(cast: dict[str, User], visitor: Open) -> None:
    first, second, alice = visitor("dave", at="acme"), visitor("dave", at="acme"), visitor("alice", at="acme")
    first.get(tenant_url("globex"))
    assert told("session", "end", "--user", "dave", "--tenant", "acme", "--reason", "lost")["ended"] == 2
    assert (first.is_in("acme"), second.is_in("acme"), first.is_in("globex"), first.is_in()) == (False, False, True, True)
    assert told("session", "end", "--user", "dave", "--reason", "lost")["ended"] == 3
    assert not any([first.is_in(), second.is_in(), first.is_in("globex")])
    assert alice.is_in("acme")


@pytest.mark.asvs("7.4.5")
def test_ending_a_tenants_sessions_ends_all_there_and_nothing_elsewhere(cast: dict[str, User], visitor: Open) -> None:
    dave, alice = visitor("dave", at="acme"), visitor("alice", at="acme")
    dave.get(tenant_url("globex"))
    assert told("session", "end", "--tenant", "acme", "--reason", "Incident")["ended"] == 2
    assert (dave.is_in("acme"), alice.is_in("acme"), dave.is_in("globex"), alice.is_in()) == (False, False, True, True)
    assert last_event("sessions_ended").data["ended"] == 2


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("session end --reason lost", "Name the sessions by ID, or a person with --user"),
        (f"session end {uuid.UUID(int=7)} --user dave --reason lost", "one of these ways"),
        (f"session end {uuid.UUID(int=7)} --reason lost", "Nothing was ended. They are here: manage.py session list"),
        ("session end 42 --reason lost", "They are here: manage.py session list"),
    ],
)
def test_an_end_that_names_nothing_ends_nothing(cast: dict[str, User], visitor: Open, command: str, cure: str) -> None:
    visitor("dave", at="acme")
    assert cure in refusal(*command.split())


def test_one_unknown_id_among_known_ones_ends_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert "Nothing was ended" in refusal("session", "end", str(dave.session().pk), str(uuid.uuid4()), "--reason", "lost")
    assert dave.is_in()


def test_an_end_needs_a_reason(cast: dict[str, User]) -> None:
    assert "Say why" in refusal("session", "end", "--user", "dave", "--reason", " ")
    with pytest.raises(CommandError, match="--reason"):
        manage("session", "end", "--user", "dave")


@pytest.mark.asvs("16.4.1", "1.3.3")
def test_no_foreign_text_steers_the_terminal(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(first_name="D\x1b[2J\u202eave\nroot")
    visitor("dave", user_agent="curl\x1b[31m/8\r\n" + "x" * 500)
    for text in (manage("session", "list"), manage("user", "list"), manage("user", "show", "dave")):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not any(line.startswith("root") for line in text.splitlines())


# --- prune and rekey --------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.7")
def test_prune_deletes_what_was_kept_long_enough_and_nothing_twice(cast: dict[str, User], visitor: Open) -> None:
    visitor("alice", at="acme")
    dave = visitor("dave", at="acme")
    manage("session", "end", "--user", "dave", "--reason", "lost")
    Session.objects.filter(user=cast["dave"]).update(ended_at=timezone.now() - timedelta(days=91))
    Session.objects.filter(user=cast["alice"]).update(idle_expires_at=timezone.now() - timedelta(seconds=1))
    before = everything()
    planned = told("prune", "--dry-run")
    assert everything() == before
    done = told("prune")
    assert (planned["lapsed"], planned["sessions"]) == (done["lapsed"], done["sessions"]) == (2, 2)
    assert (Session.objects.count(), dave.is_in()) == (2, False)
    assert last_event("pruned").data["sessions"] == 2
    assert told("prune")["changed"] is False


def test_prune_removes_what_a_killed_isolation_check_left(cast: dict[str, User]) -> None:
    probe.open_everywhere(name := probe.new_name())
    assert told("prune")["probes"] == 0  # this process lives
    User.objects.filter(username=name).update(bio="Process 99999999 on elsewhere. Gone when the check is over.")
    assert told("prune")["probes"] == 0  # on another machine, and young
    User.objects.filter(username=name).update(date_joined=timezone.now() - timedelta(hours=1))
    assert told("prune", "--dry-run")["probes"] == 1
    assert told("prune")["probes"] == 1
    assert not User.objects.filter(username=name).exists()
    assert not Session.objects.exists()


def test_prune_takes_nobody_for_a_probe_who_has_an_address_or_a_password(db: None) -> None:
    manage("user", "add", "isolation-probe-me", "me@example.com")
    User.objects.create_user("isolation-probe-you", password="three words here")
    User.objects.update(date_joined=timezone.now() - timedelta(days=1))
    assert told("prune")["probes"] == 0
    assert User.objects.count() == 2


OLD = "b2xkIGtleSBvZiB0aGUgdGVzdHM6IDMyIGJ5dGVzISE="
NEW = "bmV3IGtleSBvZiB0aGUgdGVzdHM6IDMyIGJ5dGVzISE="


def stored(browser: Visitor) -> dict[str, Any]:
    """What `request.session` would hold in this browser's next request."""
    return dict(SessionStore.of(browser.session(), browser.key(django_settings.PORTAL_HOST)).load())


@pytest.fixture
def old_key(settings: Any) -> str:
    """The id of the only key in use, also of erin's authenticator: asked for before the cast."""
    settings.ENCRYPTION_KEYS = [OLD]
    return crypto.current_key_id()


@pytest.mark.asvs("11.2.2", "13.3.4")
def test_rekey_moves_live_sessions_and_authenticators_to_the_new_key_and_signs_nobody_out(
    old_key: str, cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest
) -> None:
    old = old_key
    dave, alice = visitor("dave"), visitor("alice")
    data, seed = stored(dave), factors.text_key(TotpDevice.objects.get())
    assert data
    settings.ENCRYPTION_KEYS = [NEW, OLD]  # type: ignore[attr-defined]
    new = crypto.current_key_id()
    assert "2 sessions and 1 authenticator moved" in manage("rekey", "--dry-run")
    assert told("rekey", "--dry-run")["after"] == {old: 3}
    answer = told("rekey")
    assert (answer["moved"], answer["before"], answer["after"], answer["undecipherable"]) == (3, {old: 3}, {new: 3}, [])
    settings.ENCRYPTION_KEYS = [NEW]  # type: ignore[attr-defined]
    assert (dave.is_in(), alice.is_in(), stored(dave), factors.text_key(TotpDevice.objects.get())) == (True, True, data, seed)
    assert visitor("erin").is_in()
    said = manage("rekey")
    assert f"all is under key {new}" in said
    assert "an old key stays in ENCRYPTION_KEYS" in said


def test_rekey_names_what_cannot_be_decrypted_and_moves_the_rest(
    old_key: str, cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest
) -> None:
    dave, alice = visitor("dave"), visitor("alice")
    lost = dave.session()
    Session.objects.filter(pk=lost.pk).update(session_data="00000000.AAAA")
    device = TotpDevice.objects.get()
    TotpDevice.objects.update(secret="00000000.AAAA")
    settings.ENCRYPTION_KEYS = [NEW, OLD]  # type: ignore[attr-defined]
    answer = told("rekey")
    assert (answer["moved"], answer["undecipherable"]) == (1, sorted([str(lost.pk), str(device.pk)]))
    assert answer["warnings"] == [
        f"1 session cannot be decrypted: {lost.pk}. They count as ended.",
        f"1 authenticator cannot be decrypted: {device.pk}. They accept no code: manage.py user reset-factors",
    ]
    assert (dave.is_in(), alice.is_in()) == (False, True)


def write_meanwhile(browser: Visitor, monkeypatch: pytest.MonkeyPatch, keys: list[str], times: int) -> list[str]:
    """Let a portal with these keys write the session's data just after rekey has read it; returns what it wrote."""
    written: list[str] = []
    decrypt = crypto.decrypt

    def read_and_be_overtaken(text: str, purpose: str) -> str:
        plain = decrypt(text, purpose)
        if len(written) < times:
            ours = django_settings.ENCRYPTION_KEYS
            django_settings.ENCRYPTION_KEYS = keys
            written.append(crypto.encrypt(f'{{"written": {len(written)}}}', purpose))
            django_settings.ENCRYPTION_KEYS = ours
            Session.objects.filter(pk=browser.session().pk).update(session_data=written[-1])
        return plain

    monkeypatch.setattr(crypto, "decrypt", read_and_be_overtaken)
    return written


@pytest.mark.asvs("15.4.2")
@pytest.mark.parametrize("keys", [[OLD], [NEW, OLD]])
def test_rekey_loses_no_write_that_comes_in_between(
    old_key: str, cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    dave = visitor("dave")
    settings.ENCRYPTION_KEYS = [NEW, OLD]  # type: ignore[attr-defined]
    write_meanwhile(dave, monkeypatch, keys, times=1)
    assert told("rekey")["after"] == {crypto.current_key_id(): 2}
    assert stored(dave) == {"written": 0}


def test_rekey_says_when_the_old_key_is_still_being_written_with(
    old_key: str, cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    dave = visitor("dave")
    settings.ENCRYPTION_KEYS = [NEW, OLD]  # type: ignore[attr-defined]
    write_meanwhile(dave, monkeypatch, [OLD], times=99)
    with pytest.raises(CommandError, match="Restart the portal with the new ENCRYPTION_KEYS"):
        manage("rekey")


def test_ended_sessions_have_nothing_to_rekey(cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest) -> None:
    visitor("dave")
    sessions.end_everywhere(cast["dave"], by=None, reason=sessions.Reason.BY_OPERATOR)
    TotpDevice.objects.all().delete()
    Mail.objects.all().delete()  # the one that tells of the end
    settings.ENCRYPTION_KEYS = [NEW]  # type: ignore[attr-defined]
    assert (told("rekey")["before"], told("rekey")["moved"]) == ({}, 0)


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["user list --limit -1", "session list --limit x"])
def test_a_limit_is_a_whole_number(db: None, command: str) -> None:
    assert "0 shows all" in refusal(*command.split())


@pytest.mark.parametrize("command", ["tenant", "member", "user", "operator", "session", "lockout"])
def test_a_command_without_a_verb_says_what_is_missing(command: str) -> None:
    with pytest.raises(CommandError, match="VERB"):
        manage(command)


def test_a_database_without_tables_is_an_error_with_the_cure(tmp_path: Path) -> None:
    """The real manage.py: exit code 1, one line on standard error, no traceback."""
    import os
    import subprocess

    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"}
    command = [sys.executable, "manage.py", "tenant", "list", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr
