"""Attacks on the consoles that worked once. Each has its promise here."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from django.db import connection, transaction
from PIL import Image

from identity import journal, members, ownership, panic, sessions
from identity.listing import Criteria
from identity.members import COMMAND_LINE
from identity.models import Event, Session, TotpDevice, User
from identity.ownership import Finding
from identity.sessions import Verdict, admission
from portal.settings_forms import SignUpPolicyForm
from tenants import logos
from tenants.models import App, Group, Host, Membership, Tenant
from tests.conftest import PASSWORD
from tests.phone import enrol, first_code, hidden, said
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
WHY = "Somebody is guessing"


# --- An end is an end: a change of one's own secrets is no proof for a place that has ended something since -------------


def add_authenticator(browser: Visitor, name: str) -> None:
    browser.get(portal_url("/account/two-factor/add/"))
    browser.post(browser.url, {"code": first_code(name), "device": hidden(browser, "device"), "name": "Another"})


def change_password(browser: Visitor, name: str) -> None:
    new = "three little words"
    browser.post(portal_url("/account/password/"), {"old_password": PASSWORD, "new_password1": new, "new_password2": new})


def drop_authenticator(browser: Visitor, name: str) -> None:
    device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
    browser.post(portal_url(f"/account/two-factor/{device.pk}/remove/"), {"sure": "1"})


def end_of_one(acme: Tenant) -> None:
    sessions.end(Session.objects.filter(tenant=acme), by=None, reason=Session.Reason.BY_ADMIN)


def end_of_all(acme: Tenant) -> None:
    panic.end_everything(acme, by=COMMAND_LINE, note=WHY)


def demand(acme: Tenant) -> None:
    panic.demand_proof(acme, by=COMMAND_LINE, note=WHY)


@pytest.mark.parametrize("end", [end_of_one, end_of_all, demand])
@pytest.mark.parametrize("change", [add_authenticator, change_password, drop_authenticator])
@pytest.mark.asvs("7.4.1")
def test_a_change_of_ones_secrets_is_no_way_round_an_end(acme: Tenant, globex: Tenant, visitor: Open, change: Any, end: Any) -> None:
    """Within ten minutes of a proof nobody is asked for another one, and such a change gives the tree a later proof."""
    dave = visitor("dave", at="acme")
    enrol(dave, "dave")
    dave.get(tenant_url("globex"))
    dave.get(tenant_url("acme"))
    assert dave.is_in("acme")
    end(acme)
    before = dave.session()
    assert admission(before, "acme").verdict is Verdict.PROVE
    change(dave, "dave")
    after = dave.session()
    assert after.authenticated_at > before.authenticated_at, "the change was made"
    assert admission(after, "acme").verdict is Verdict.PROVE
    assert not dave.is_in("acme")
    assert dave.is_in("globex"), "where nothing has ended, the tree goes on"
    assert admission(after, "globex").verdict is Verdict.OPEN


@pytest.mark.asvs("7.4.1", "15.4.2")
@pytest.mark.django_db(transaction=True)
def test_no_branch_outlives_an_end_of_everything_by_a_change_under_way(acme: Tenant, visitor: Open) -> None:
    """The end has its stamp and is not committed yet; the new password would give the branch a proof from after the stamp."""
    dave = visitor("dave", at="acme")
    person, root = User.objects.get(username="dave"), dave.session()
    stamped, changed = threading.Event(), threading.Event()

    def end() -> None:
        try:
            with transaction.atomic():
                sessions.stamp_tenant(Tenant.objects.get(pk=acme.pk))
                stamped.set()
                changed.wait(0.5)  # it waits for this end, so this is how long it gets
        finally:
            connection.close()

    def change() -> None:
        try:
            stamped.wait(20)
            sessions.change_password(person, "three little words", by=person, request=None, spare=root)
            changed.set()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(end), pool.submit(change)]:
            each.result(60)
    assert dave.is_in(), "the tree goes on"
    assert not dave.is_in("acme")
    assert admission(dave.session(), "acme").verdict is Verdict.PROVE


# --- Files and names from outside ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_picture_whose_exif_data_lie_is_refused_and_not_an_error() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x829A] = 6, "a title", (1, 3)
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    exif.get_ifd(0x8769)[0x9003] = "2020"
    file = BytesIO()
    Image.new("RGB", (4, 3)).save(file, "JPEG", exif=exif)
    data = file.getvalue()
    drawn = refused = 0
    for at in range(20, 240):
        for value in (2, 5, 12):
            try:
                drawn += logos.encode(data[:at] + bytes([value]) + data[at + 1 :]).startswith(b"\x89PNG")
            except logos.BadLogo:
                refused += 1
    assert drawn
    assert refused


def test_a_host_whose_record_would_be_too_long_a_name_has_none(acme: Tenant) -> None:
    name = ".".join(["a" * 61] * 4)[:240] + ".acme.test"
    assert ownership.look(Host(tenant=acme, name=name, cookie_domain=name)) is Finding.NOTHING


def test_no_charset_hides_a_character_from_the_look_for_control_characters(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    for hidden_text in ("%2BAAA-", "%2B2AA-"):  # UTF-7 for NUL and for half a surrogate
        page = bob.get(portal_url(f"/console/acme/people/?q={hidden_text}"), CONTENT_TYPE="text/plain; charset=utf-7")
        assert page.status_code == 200
        assert "\x00" not in page.content.decode()


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Adak"])
def test_a_time_that_utc_has_not_is_no_time(cast: dict[str, User], visitor: Open, zone: str) -> None:
    User.objects.filter(username="bob").update(time_zone=zone)
    bob = visitor("bob")
    for at in ("0001-01-01T00:00", "9999-12-31T23:59", "0001-01-01T00:00%2B00:00", "9999-12-31T23:59%2B00:00", "2026-01-01T00:00%2B23:59"):
        for name in ("from", "to"):
            assert bob.get(portal_url(f"/console/acme/events/?{name}={at}")).status_code == 200
            assert bob.get(portal_url(f"/console/acme/events/export/?{name}={at}")).status_code == 200
    for at in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-12:00"):
        pulse = bob.get(portal_url(f"/console/acme/sessions/pulse?at={at}"), follow=False, HTTP_HX_REQUEST="true")
        assert pulse.status_code == 302


# --- Two at once --------------------------------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """What somebody else does after a page has looked, and before it holds the tenant. Here both are one transaction."""
    hold = members.hold
    left: list[Callable[[], Any]] = []

    def held(tenant: Tenant) -> None:
        while left:
            left.pop()()
        hold(tenant)

    monkeypatch.setattr(members, "hold", held)
    return left.append


CHANGED = "changed meanwhile by somebody else"


@pytest.mark.parametrize("verb", ["rename", "put", "take", "remove"])
def test_a_group_that_is_removed_meanwhile_is_gone(acme: Tenant, visitor: Open, meanwhile: Any, verb: str) -> None:
    group = Group.objects.create(tenant=acme, name="Guild")
    bob = visitor("bob")
    meanwhile(lambda: Group.objects.filter(pk=group.pk).delete())
    bob.post(portal_url(f"/console/acme/groups/{group.pk}/act"), {verb: "alice", "name": "Other", "sure": "1"})
    assert CHANGED in said(bob)
    assert not Event.objects.filter(kind__startswith="group_").exists()


def test_who_is_removed_meanwhile_is_put_into_no_group(acme: Tenant, visitor: Open, meanwhile: Any) -> None:
    group = Group.objects.create(tenant=acme, name="Guild")
    bob = visitor("bob")
    meanwhile(lambda: Membership.objects.filter(tenant=acme, user__username="alice").delete())
    bob.post(portal_url(f"/console/acme/groups/{group.pk}/act"), {"put": "alice"})
    assert CHANGED in said(bob)
    assert not group.members.exists()


@pytest.mark.parametrize("what", ["app", "group"])
def test_an_app_or_its_group_that_is_removed_meanwhile_is_gone(acme: Tenant, visitor: Open, meanwhile: Any, what: str) -> None:
    group = Group.objects.create(tenant=acme, name="Guild")
    app = App.objects.create(tenant=acme, name="Vault", host=f"vault.{acme.hostname}")
    bob = visitor("bob")
    meanwhile((App if what == "app" else Group).objects.all().delete)
    fields = {"name": "Safe", "host": app.host, "who": "some", "groups": str(group.pk)}
    bob.post(portal_url(f"/console/acme/apps/{app.pk}/"), fields)
    assert CHANGED in said(bob)
    assert not App.objects.filter(name="Safe").exists()
    meanwhile(Group.objects.all().delete)
    bob.post(portal_url("/console/acme/apps/add/"), {**fields, "host": f"safe.{acme.hostname}"})
    assert CHANGED in said(bob)
    assert not App.objects.filter(name="Safe").exists()


def test_an_app_that_is_removed_twice_at_once_is_removed_once(acme: Tenant, visitor: Open, meanwhile: Any) -> None:
    app = App.objects.create(tenant=acme, name="Vault", host=f"vault.{acme.hostname}")
    bob = visitor("bob")
    meanwhile(lambda: App.objects.filter(pk=app.pk).delete())
    bob.post(portal_url(f"/console/acme/apps/{app.pk}/remove"), {"sure": "1"})
    assert CHANGED in said(bob)
    assert not Event.objects.filter(kind="app_removed").exists()


def test_who_leaves_meanwhile_cannot_be_blocked_with_his_session(acme: Tenant, visitor: Open, meanwhile: Any) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    meanwhile(lambda: Membership.objects.filter(tenant=acme, user__username="dave").delete())
    ids = {"ids": str(dave.session("acme").pk), "reason": WHY, "block": "1"}
    bob.post(portal_url("/console/acme/sessions/end"), ids)
    assert CHANGED in said(bob)
    assert not Event.objects.filter(kind="member_blocked").exists()


def test_a_tenant_that_is_deleted_meanwhile_is_no_page(acme: Tenant, visitor: Open, meanwhile: Any) -> None:
    erin = visitor("erin")
    meanwhile(lambda: Tenant.objects.filter(pk=acme.pk).delete())
    assert erin.post(portal_url("/console/acme/groups/"), {"name": "Guild"}, follow=False).status_code == 404


def test_a_change_of_sign_up_takes_no_other_change_of_the_policy_back(acme: Tenant, visitor: Open, monkeypatch: Any) -> None:
    """Somebody else asks for a second factor while this form is looked at."""
    olivia = visitor("olivia")
    check = SignUpPolicyForm.is_valid

    def at_this_moment(form: SignUpPolicyForm) -> bool:
        stored = Tenant.objects.get(pk=acme.pk).policy
        Tenant.objects.filter(pk=acme.pk).update(policy={**stored, "second_factor": "everyone"})
        return check(form)

    monkeypatch.setattr(SignUpPolicyForm, "is_valid", at_this_moment)
    olivia.post(portal_url("/console/acme/settings/sign-up/"), {"sign_up": "invited"})
    rules = Tenant.objects.get(pk=acme.pk).rules
    assert (rules.sign_up, rules.second_factor) == ("invited", "everyone")


# --- What is found, and what leaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("203.0.113.7", ["203.0.113.7"]),
        ("203.0.113.", ["203.0.113.7", "203.0.113.70"]),
        ("203.0.11", []),
        ("203.0.113.0/24", ["203.0.113.7", "203.0.113.70"]),
        ("203.0.112.0/20", ["203.0.113.7", "203.0.113.70"]),
        ("203.0.113.0/26", ["203.0.113.7"]),
        ("0.0.0.0/0", ["203.0.113.7", "203.0.113.70"]),
        ("2001:db8:61:", ["2001:db8:61::1"]),
        ("2001:DB8:61::1", ["2001:db8:61::1"]),
        ("2001:db8:61:0:0::1", ["2001:db8:61::1"]),
    ],
)
def test_an_address_means_no_other_one_on_any_database(acme: Tenant, visitor: Open, typed: str, found: list[str]) -> None:
    """What is found may be ended as a whole: 203.0.113.7 is not the beginning of 203.0.113.70."""
    dave = visitor("dave", at="acme").session("acme")
    Session.objects.filter(pk=dave.pk).update(ip="203.0.113.7")
    for ip in ("203.0.113.70", "2001:db8:61::1"):
        other = visitor("alice", at="acme").session("acme")
        Session.objects.filter(pk=other.pk).update(ip=ip)
    assert sorted(str(row.ip) for row in Criteria(q=typed).of_live(acme)) == found


@pytest.mark.asvs("1.2.10")
@pytest.mark.parametrize(
    "text", [" =1+1", "\u200b=1+1", "\n=1+1", "'=1+1", '"=1+1', "\u22121+1", "\uff1d1+1", "Firefox;=1+1", "Firefox; @x"]
)
def test_no_part_of_a_cell_is_a_formula_in_any_spreadsheet(text: str) -> None:
    """Some drop what stands before a sign, some part cells by semicolons, and signs have other widths."""
    kept = journal.harmless(text)
    assert kept.replace("'", "") == text.replace("'", "")
    for part in kept.split(";"):
        assert not re.match('[\\s"\u200b]*[=+@\u2212\uff1d-]', part), part


def test_a_user_agent_stays_as_it_is_in_a_copy() -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
    assert journal.harmless(agent) == agent


def test_the_history_of_a_person_with_a_plus_in_his_name_is_his(acme: Tenant, visitor: Open) -> None:
    User.objects.filter(username="dave").update(username="dave+2", name_key="dave+2")
    branch = visitor("dave+2", at="acme").session("acme")
    bob = visitor("bob")
    bob.get(portal_url(f"/console/acme/sessions/{branch.pk}/"))
    assert "person=dave%2B2" in bob.page.content.decode()
