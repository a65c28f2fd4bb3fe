"""Sessions: what lives, what ends, and what never comes back."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity import crypto, pruning, sessions
from identity.models import Event, Session, User
from identity.sessions import Verdict, admission
from identity.store import AnonymousWrite, SessionStore
from tenants.models import Membership, Tenant
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
Reason = Session.Reason


def shift(browser: Visitor, **by: float) -> None:
    """As if the browser's whole tree had been left alone for so long."""
    tree = Session.objects.filter(user=browser.session().user)
    tree.update(
        **{
            name: F(name) - timedelta(**by)
            for name in ("last_seen_at", "idle_expires_at", "expires_at", "created_at", "authenticated_at", "proved_at")
        }
    )


def rest(browser: Visitor, **by: float) -> None:
    """As if nobody had done anything for so long; the proof stays as young as it is."""
    Session.objects.filter(user=browser.session().user).update(
        last_seen_at=F("last_seen_at") - timedelta(**by), idle_expires_at=F("idle_expires_at") - timedelta(**by)
    )


# --- live ---------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.4.1")
def test_a_session_of_acme_is_worthless_at_globex(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    key = dave.key("acme.portal.localhost")
    assert len(sessions.live([key], acme)) == 1
    assert sessions.live([key], globex) == []
    assert sessions.live([key], None) == []
    assert sessions.live([dave.key("login.portal.localhost")], acme) == []


def test_a_signed_in_request_asks_the_database_once(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.is_in("acme")
    with CaptureQueriesContext(connection) as asked:
        assert dave.get(tenant_url("acme", "/_portal/whoami")).json()["username"] == "dave"
    assert len(asked) == 1, [query["sql"] for query in asked]


@pytest.mark.asvs("7.3.1")
def test_idle_means_idle_and_polling_is_no_activity(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    rest(dave, hours=7, minutes=59)
    assert dave.is_in("acme")  # our own page asks, nobody does anything
    rest(dave, minutes=2)
    assert not dave.is_in("acme")
    assert not dave.is_in()


@pytest.mark.asvs("7.3.1")
def test_activity_in_a_branch_is_activity_of_its_portal_session(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    rest(dave, hours=7)
    dave.get(tenant_url("acme"))
    rest(dave, hours=7)
    assert dave.is_in("acme")
    assert dave.is_in()


@pytest.mark.asvs("7.3.2")
def test_the_absolute_limit_ends_a_busy_session(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    Session.objects.update(expires_at=F("expires_at") - timedelta(hours=24))
    assert not dave.is_in("acme")
    assert not dave.is_in()


@pytest.mark.asvs("7.6.1")
def test_a_branch_never_outlives_its_portal_session(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    assert dave.session("acme").expires_at <= dave.session().expires_at


def test_last_seen_is_written_once_a_minute(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    before = dave.session("acme").last_seen_at
    dave.get(tenant_url("acme"))
    assert dave.session("acme").last_seen_at == before
    rest(dave, seconds=61)
    dave.get(tenant_url("acme"))
    assert dave.session("acme").last_seen_at >= before
    assert dave.session().last_seen_at >= before


# --- admission ----------------------------------------------------------------------------------------------------


def verdict(browser: Visitor, slug: str = "acme") -> Verdict:
    return admission(browser.session(), slug).verdict


def test_admission_asks_everything(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave")
    membership = Membership.objects.get(tenant=acme, user=cast["dave"])
    assert verdict(dave) is Verdict.OPEN
    assert verdict(dave, "nowhere") is Verdict.STRANGER
    Membership.objects.update(prove_after=timezone.now())
    assert verdict(dave) is Verdict.PROVE
    Membership.objects.update(prove_after=membership.prove_after)
    Tenant.objects.filter(pk=acme.pk).update(valid_from=timezone.now())
    assert verdict(dave) is Verdict.PROVE
    Tenant.objects.filter(pk=acme.pk).update(valid_from=acme.valid_from, status="suspended")
    assert verdict(dave) is Verdict.SUSPENDED
    Tenant.objects.filter(pk=acme.pk).update(status="active")
    Membership.objects.filter(pk=membership.pk).update(blocked_at=timezone.now())
    assert verdict(dave) is Verdict.BLOCKED
    membership.delete()
    assert verdict(dave) is Verdict.STRANGER


@pytest.mark.asvs("7.6.1")
def test_a_proof_older_than_the_tenants_limit_opens_nothing(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave")
    Tenant.objects.filter(pk=acme.pk).update(policy={"absolute": 3600})
    assert verdict(dave) is Verdict.OPEN
    Session.objects.update(authenticated_at=F("authenticated_at") - timedelta(hours=1))
    assert verdict(dave) is Verdict.PROVE


@pytest.mark.asvs("7.3.1")
def test_an_idle_tree_does_not_enter_by_looking_busy_first(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    """acme allows 5 idle minutes. After ten, a look at another page of the portal must not make the tree look busy."""
    Tenant.objects.filter(pk=acme.pk).update(policy={"idle": 300})
    dave = visitor("dave", at="acme")
    rest(dave, minutes=10)
    dave.get(portal_url("/account/"))
    dave.get(portal_url("/account/"))
    dave.get(tenant_url("acme"))
    assert dave.url.startswith(portal_url("/step-up/"))
    dave.post(dave.url, {"password": "gatehouse-demo"})
    assert dave.url == tenant_url("acme")


@pytest.mark.asvs("7.6.1")
def test_a_tenant_that_forbids_remembering_keeps_its_own_limits(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"remembered": False})
    dave = visitor()
    dave.sign_in("dave", "gatehouse-demo", at="acme", remember=True)
    assert dave.session().persistent
    assert not dave.session("acme").persistent
    dave.get(tenant_url("globex"))
    assert dave.session("globex").persistent


# --- end ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.1")
def test_sign_out_ends_the_whole_tree_on_the_server(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    kept = list(dave.cookies)
    dave.post(portal_url("/logout/"))
    dave.cookies = kept
    assert not dave.is_in()
    assert not dave.is_in("acme")
    assert not dave.is_in("globex")


def test_sign_out_at_a_tenant_ends_the_whole_tree_too(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    page = dave.post(tenant_url("acme", "/_portal/logout")).content.decode()
    assert "Globex" in page
    assert not dave.is_in()
    assert not dave.is_in("globex")


def test_an_own_sign_out_asks_for_no_extra_proof(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.post(portal_url("/logout/"))
    dave.sign_in("dave", "gatehouse-demo", at="acme")
    assert dave.url == tenant_url("acme")


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize("who", ["this browser", "another browser", "a browser that signs in later"])
def test_an_ended_session_never_comes_back_silently(cast: dict[str, User], acme: Tenant, visitor: Open, who: str) -> None:
    dave, other = visitor("dave", at="acme"), visitor("dave")
    sessions.end(Session.objects.filter(pk=dave.session("acme").pk), by=cast["bob"], reason=Reason.BY_ADMIN, note="lost")
    if who == "a browser that signs in later":
        later = visitor("dave", at="acme")  # a fresh proof: this is not silent
        assert later.url == tenant_url("acme")
        return
    browser = dave if who == "this browser" else other
    browser.get(tenant_url("acme", "/_portal/start?again=1&next=/"))
    assert browser.url.startswith(portal_url("/step-up/"))
    assert not browser.is_in("acme")


@pytest.mark.asvs("7.4.1")
def test_an_ended_branch_stays_ended_after_sign_up_and_with_the_old_cookie(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    old = list(dave.cookies)
    sessions.end(Session.objects.filter(user=cast["dave"]), by=None, reason=Reason.BY_OPERATOR, note="x")
    dave.post(portal_url("/signup/"), {"username": "dave2", "email": "d2@x.example", "password": "three little words"})
    assert not dave.is_in()
    dave.cookies = old
    assert not dave.is_in()
    assert not dave.is_in("acme")
    assert "You were signed out of Acme" in dave.get(tenant_url("acme")).content.decode()


def test_an_ended_row_is_history_without_data(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    row = dave.session()
    assert row.session_data
    sessions.end(Session.objects.filter(pk=row.pk), by=cast["erin"], reason=Reason.BY_OPERATOR, note="test")
    row.refresh_from_db()
    assert (row.session_data, row.end_reason, row.end_note, row.ended_by) == ("", Reason.BY_OPERATOR, "test", cast["erin"])
    event = Event.objects.get(kind="session_ended", session=row.pk)
    assert (event.actor, event.subject, event.data) == (cast["erin"], cast["dave"], {"reason": "by_operator", "note": "test"})


def test_an_end_ends_once(cast: dict[str, User], visitor: Open) -> None:
    row = visitor("dave").session()
    mine = Session.objects.filter(pk=row.pk)
    assert [done.pk for done in sessions.end(mine, by=None, reason=Reason.BY_OPERATOR)] == [row.pk]
    assert sessions.end(mine, by=cast["dave"], reason=Reason.SIGNED_OUT) == []
    row.refresh_from_db()
    assert row.end_reason == Reason.BY_OPERATOR


@pytest.mark.asvs("7.4.2")
def test_a_suspended_tenant_ends_its_branches_and_nobody_elses(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, alice = visitor("dave", at="acme"), visitor("alice", at="acme")
    dave.get(tenant_url("globex"))
    assert sessions.end_tenant(acme, by=cast["erin"], reason=Reason.SUSPENDED) == 2
    assert not dave.is_in("acme")
    assert not alice.is_in("acme")
    assert dave.is_in("globex")
    assert dave.is_in()


@pytest.mark.asvs("7.4.2")
def test_a_stamp_ends_sessions_before_their_rows_are_marked(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    Tenant.objects.filter(pk=acme.pk).update(valid_from=timezone.now())
    assert not dave.is_in("acme")
    User.objects.filter(pk=cast["dave"].pk).update(valid_from=timezone.now())
    assert not dave.is_in()


@pytest.mark.asvs("7.4.2", "8.3.2")
@pytest.mark.parametrize("what", ["blocked", "removed", "suspended", "deactivated"])
def test_what_is_taken_away_is_gone_at_the_next_request(cast: dict[str, User], acme: Tenant, visitor: Open, what: str) -> None:
    dave = visitor("dave", at="acme")
    match what:
        case "blocked":
            Membership.objects.filter(tenant=acme, user=cast["dave"]).update(blocked_at=timezone.now())
        case "removed":
            Membership.objects.filter(tenant=acme, user=cast["dave"]).delete()
        case "suspended":
            Tenant.objects.filter(pk=acme.pk).update(status="suspended")
        case "deactivated":
            User.objects.filter(pk=cast["dave"].pk).update(is_active=False)
    assert not dave.is_in("acme")


# --- rotate -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.2.4")
def test_a_step_up_changes_the_key_and_lets_requests_in_flight_finish(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    old = dave.key("login.portal.localhost")
    dave.post(portal_url("/step-up/"), {"password": "gatehouse-demo"})
    assert dave.key("login.portal.localhost") not in {"", old}
    late = sessions.live([old], None)
    assert len(late) == 1
    store = SessionStore.of(late[0], old, in_grace=True)
    assert store.row is not None
    assert not sessions.is_fresh(store.row)  # the old key has no rights of the new proof
    Session.objects.update(previous_until=timezone.now() - timedelta(seconds=1))
    assert sessions.live([old], None) == []


@pytest.mark.asvs("7.2.4", "7.4.3", "6.2.3")
def test_a_new_password_ends_the_others_and_changes_this_key(cast: dict[str, User], visitor: Open) -> None:
    here, other = visitor("dave", at="acme"), visitor("dave", at="acme")
    old = here.key("login.portal.localhost")
    data = {"old_password": "gatehouse-demo", "new_password1": "three little words", "new_password2": "three little words"}
    here.post(portal_url("/account/password/"), data)
    assert here.url == portal_url("/account/password/done/")
    assert here.is_in()
    assert here.is_in("acme")
    assert not other.is_in()
    assert not other.is_in("acme")
    assert sessions.live([old], None) == []  # no grace
    here.get(tenant_url("globex"))
    assert here.url == tenant_url("globex")  # the change was a fresh proof
    assert "The password of this account was changed" in other.get(tenant_url("acme")).content.decode()


@pytest.mark.asvs("11.2.2", "11.4.2")
def test_a_rehash_ends_no_session(dear_hashes: None, cast: dict[str, User], visitor: Open) -> None:
    from django.contrib.auth.hashers import Argon2PasswordHasher

    dave = visitor("dave")
    old = Argon2PasswordHasher()
    old.time_cost, old.memory_cost, old.parallelism = 1, 8 * 1024, 1
    User.objects.filter(pk=cast["dave"].pk).update(password=old.encode("gatehouse-demo", old.salt()))
    again = visitor("dave")
    cast["dave"].refresh_from_db()
    assert "m=19456,t=2,p=1" in cast["dave"].password
    assert dave.is_in()
    assert again.is_in()


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_anonymous_write_is_an_error_in_tests_and_makes_no_row() -> None:
    store = SessionStore()
    store["visits"] = 1
    with pytest.warns(AnonymousWrite):
        store.save()
    assert Session.objects.count() == 0


@pytest.mark.asvs("11.3.3")
def test_session_data_is_encrypted_and_bound_to_its_row(cast: dict[str, User], visitor: Open) -> None:
    dave, alice = visitor("dave").session(), visitor("alice").session()
    assert "_auth_user" not in dave.session_data
    assert "_auth_user_id" in json.loads(crypto.decrypt(dave.session_data, f"session:{dave.pk}"))
    with pytest.raises(crypto.Undecipherable):
        crypto.decrypt(alice.session_data, f"session:{dave.pk}")


@pytest.mark.asvs("11.2.5", "11.3.3", "16.5.3")
def test_what_cannot_be_decrypted_counts_as_ended(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    data = dave.session().session_data
    flipped = data[:-6] + ("A" if data[-6] != "A" else "B") + data[-5:]
    for broken in (flipped, "nokey.AAAA", "x"):
        Session.objects.update(session_data=broken)
        assert dave.get(portal_url("/account/"), follow=False).status_code == 302
        assert not dave.is_in()


def test_data_survives_a_rotation(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    before = crypto.decrypt(dave.session().session_data, f"session:{dave.session().pk}")
    dave.post(portal_url("/step-up/"), {"password": "gatehouse-demo"})
    after = crypto.decrypt(dave.session().session_data, f"session:{dave.session().pk}")
    assert before == after


def test_djangos_login_and_force_login_make_a_portal_session(cast: dict[str, User]) -> None:
    from django.test import Client

    client = Client(SERVER_NAME="login.portal.localhost", SERVER_PORT="8000", HTTP_HOST="login.portal.localhost:8000")
    client.force_login(cast["dave"], backend="identity.backends.NameOrMail")
    assert client.get("/api/v1/session").json()["username"] == "dave"
    client.logout()
    assert Session.objects.get().end_reason == Reason.SIGNED_OUT


@pytest.mark.asvs("7.2.3")
@pytest.mark.django_db
def test_a_hundred_thousand_keys_never_repeat() -> None:
    keys = {sessions.new_key() for _ in range(10_000)}
    assert len(keys) == 10_000
    assert all(len(key) == 43 for key in keys)


# --- prune --------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.7")
def test_prune_marks_what_ran_out_and_deletes_what_is_old(cast: dict[str, User], visitor: Open) -> None:
    dave, alice = visitor("dave", at="acme"), visitor("alice", at="acme")
    rest(dave, hours=9)
    assert pruning.prune(dry_run=True).lapsed == 2
    assert pruning.prune().lapsed == 2
    assert set(Session.objects.filter(user=cast["dave"]).values_list("end_reason", flat=True)) == {"idle"}
    assert alice.is_in("acme")
    Session.objects.filter(user=cast["dave"]).update(ended_at=timezone.now() - timedelta(days=91))
    assert pruning.prune().sessions == 2
    assert pruning.prune() == pruning.Pruned(0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert alice.is_in("acme")


# --- In flight ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("htmx", [False, True])
def test_a_request_whose_session_ends_under_it_is_led_to_the_page_that_says_why(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch, htmx: bool
) -> None:
    """Neither a bare 400 nor a 500, and no row comes back."""
    dave = visitor("dave")

    def ended_meanwhile(*args: object, **kwargs: object) -> bool:
        sessions.end(Session.objects.filter(user=cast["dave"]), by=cast["erin"], reason=Reason.BY_OPERATOR, note="Laptop lost")
        return True

    monkeypatch.setattr("portal.views.login.sessions.prove_again", ended_meanwhile)
    headers: dict[str, Any] = {"HTTP_HX_REQUEST": "true", "HTTP_HX_CURRENT_URL": portal_url("/account/")} if htmx else {}
    answer = dave.post(portal_url("/step-up/"), {"password": "gatehouse-demo"}, follow=False, **headers)
    address = answer["HX-Redirect"] if htmx else answer["Location"]
    assert address.startswith("/login/?next=")
    assert "Laptop lost" in dave.get(address).content.decode()
    assert not Session.objects.filter(ended_at=None).exists()


def test_a_write_to_a_session_that_ended_meanwhile_writes_nothing(cast: dict[str, User], visitor: Open) -> None:
    from django.contrib.sessions.backends.base import UpdateError

    dave = visitor("dave")
    key = dave.key("login.portal.localhost")
    store = SessionStore.of(sessions.live([key], None)[0], key)
    store["note"] = "written late"
    sessions.end(Session.objects.filter(user=cast["dave"]), by=None, reason=Reason.BY_OPERATOR)
    with pytest.raises(UpdateError):
        store.save()
    assert Session.objects.get().session_data == ""
