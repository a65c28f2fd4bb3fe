"""One interleaving each, brought about on purpose: what lies in wait between two statements of the core.

A lock that the test holds stops both sides where it hurts; on SQLite, where one transaction writes at a time, both queue for
the same lock and must come out as well. The races that look for such places by chance are in tests/test_races.py.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.db import connection, models, transaction
from django.test import RequestFactory

from identity import clock, leaving, platform, sessions, tickets
from identity.members import Actor
from identity.models import Event, Session, Ticket, User
from tenants.models import Membership, Tenant
from tests.conftest import PASSWORD, password_is
from tests.visitor import Cookie, Visitor, portal_url, tenant_url

pytestmark = pytest.mark.django_db(transaction=True)

NEW_PASSWORD = "a new password of the cast"
Reason = Session.Reason
T = TypeVar("T")


class Threads:
    """What happens at the same time, each in a thread with a connection of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8)
        self._started: list[Future[Any]] = []

    def start(self, act: Callable[[], T]) -> "Future[T]":
        """Start it and come back when it is done or waits for a lock."""

        def run() -> T:
            try:
                return act()
            finally:
                connection.close()

        future = self._pool.submit(run)
        self._started.append(future)
        until = time.monotonic() + 10
        while not future.done() and time.monotonic() < until:
            if connection.vendor == "sqlite":
                time.sleep(0.3)
                break
            if _waiting() >= sum(not one.done() for one in self._started):
                break
            time.sleep(0.01)
        return future

    @contextmanager
    def holding(self, rows: "models.QuerySet[Any]", *, how: str = "rows") -> Iterator[None]:
        """Somebody's transaction holds these rows; "references": also against who commits a row that refers to them;
        "table": also against who inserts one beside them.
        """
        locked, release = threading.Event(), threading.Event()

        def hold() -> None:
            try:
                with transaction.atomic():
                    if how == "table" and connection.vendor == "postgresql":
                        connection.cursor().execute(f"LOCK TABLE {rows.model._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")
                    assert list(rows.select_for_update(no_key=how != "references")) or how == "table"
                    locked.set()
                    assert release.wait(30)
            finally:
                connection.close()

        holder = self._pool.submit(hold)
        assert locked.wait(10)
        try:
            yield
        finally:
            release.set()
            holder.result(30)

    def close(self) -> None:
        self._pool.shutdown()


def _waiting() -> int:
    """How many connections wait for a lock right now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def at_once() -> Iterator[Threads]:
    threads = Threads()
    yield threads
    threads.close()


def _tree(name: str, *places: Tenant) -> tuple[Session, str]:
    root, key = sessions.sign_in(User.objects.get(username=name), request=None, methods=["pwd"], remember=False)
    for place in places:
        _open(root, place)
    return root, key


def _open(root: Session, place: Tenant) -> tuple[Session, str]:
    with transaction.atomic():
        return sessions.open_branch(root.pk, place, request=None)


def _hand_off(root: Session, place: Tenant, browser: Visitor | None = None) -> Callable[[], str]:
    """A ticket that is already issued, and the function with which this browser redeems it: the branch's key, or ""."""
    browser = browser or Visitor()
    if not any(cookie.name == settings.START_COOKIE_NAME for cookie in browser.cookies):
        start = Cookie(settings.START_COOKIE_NAME, tickets.Browser.new().value, place.hostname, host_only=True)
        browser.cookies.append(start)
    value = next(cookie.value for cookie in browser.cookies if cookie.name == settings.START_COOKIE_NAME)
    state = tickets.State.make(place, place.hostname, "/", tickets.Browser(value.partition(".")[0]))
    query = urlencode({"ticket": tickets.issue(root, place, state), "state": state.text})

    def redeem() -> str:
        answer = browser.get(tenant_url(place.slug, f"/_portal/finish?{query}"), follow=False)
        assert answer.status_code in {302, 403}, answer.status_code
        return browser.key(place.hostname) if settings.TENANT_COOKIE_NAME in answer.cookies else ""

    return redeem


def _alive(root: Session) -> bool:
    return Session.objects.alive_at_portal().filter(pk=root.pk).exists()


def _unended(**where: Any) -> int:
    return Session.objects.filter(ended_at=None, **where).count()


# --- Ends and hand-offs: who waits for whom ---------------------------------------------------------------------------


@pytest.mark.asvs("15.4.3")
def test_an_end_and_a_redemption_of_the_same_tree_do_not_wait_for_each_other(acme: Tenant, at_once: Threads) -> None:
    root, _key = _tree("dave")
    redeem = _hand_off(root, acme)
    with at_once.holding(Session.objects.filter(pk=root.pk)):
        end = at_once.start(lambda: sessions.end(Session.objects.filter(pk=root.pk), by=None, reason=Reason.BY_ADMIN))
        redemption = at_once.start(redeem)
    assert root.pk in {row.pk for row in end.result(20)}
    redemption.result(20)
    assert _unended(user=root.user) == 0


@pytest.mark.asvs("15.4.3")
def test_two_browsers_that_change_hands_do_not_wait_for_each_other(acme: Tenant, at_once: Threads) -> None:
    """dave comes in over alice's branch in one browser, alice over dave's in another."""
    dave, _key = _tree("dave")
    alice, _key = _tree("alice")
    hers, his = Visitor(), Visitor()
    old = [_hand_off(alice, acme, hers)(), _hand_off(dave, acme, his)()]
    dave_over_alice, alice_over_dave = _hand_off(dave, acme, hers), _hand_off(alice, acme, his)
    with at_once.holding(Event.objects.none(), how="table"):
        both = at_once.start(dave_over_alice), at_once.start(alice_over_dave)
    new = [one.result(20) for one in both]
    assert any(new)
    assert len(sessions.live(old, acme)) == 2 - sum(bool(key) for key in new)


def test_a_change_of_password_and_a_redemption_in_the_spared_browser_do_not_wait_for_each_other(acme: Tenant, at_once: Threads) -> None:
    spare, _key = _tree("dave")
    other, other_key = _tree("dave", acme)
    redeem = _hand_off(spare, acme)
    dave = User.objects.get(username="dave")
    with at_once.holding(Membership.objects.filter(user=dave, tenant=acme)):
        change = at_once.start(lambda: sessions.change_password(dave, NEW_PASSWORD, by=dave, request=None, spare=spare))
        redemption = at_once.start(redeem)
    change.result(20)
    opened = redemption.result(20)
    assert _alive(spare)
    assert sessions.live([other_key], None) == []
    assert _unended(parent=other) == 0
    assert len(sessions.live([opened] if opened else [], acme)) == bool(opened)


def test_a_change_of_password_and_a_lapse_of_branches_do_not_wait_for_each_other(acme: Tenant, globex: Tenant, at_once: Threads) -> None:
    """prune ends two branches of one person, of which the change of password spares the first and ends the second."""
    spare, _key = _tree("dave")
    other, _key = _tree("dave")
    kept, _key = _open(spare, globex)
    ended, _key = _open(other, acme)
    while ended.pk < kept.pk:  # locks are taken in id order
        ended, _key = _open(other, acme)
    dave = User.objects.get(username="dave")
    lapsed = Session.objects.filter(pk__in=[kept.pk, ended.pk])
    with at_once.holding(Event.objects.none(), how="table"):
        change = at_once.start(lambda: sessions.change_password(dave, NEW_PASSWORD, by=dave, request=None, spare=spare))
        prune = at_once.start(lambda: sessions.end(lapsed, by=None, reason=Reason.IDLE))
    change.result(20)
    prune.result(20)
    assert _unended(pk__in=[kept.pk, ended.pk]) == 0
    assert _alive(spare)


@pytest.mark.asvs("15.4.3")
def test_a_change_of_password_and_a_block_do_not_wait_for_each_other(acme: Tenant, at_once: Threads) -> None:
    """`manage.py member block` holds the tenant, then the membership: a change of password holds no tenant."""
    root, _key = _tree("dave", acme)
    dave = User.objects.get(username="dave")
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=acme.pk)
        change = at_once.start(lambda: sessions.change_password(dave, NEW_PASSWORD, by=dave, request=None))
        sessions.end_here(root.user, acme, by=None, reason=Reason.BLOCKED)
    change.result(20)
    assert _unended(user=dave) == 0


@pytest.mark.asvs("15.4.2")
def test_no_branch_slips_past_the_end_of_a_tenant(acme: Tenant, at_once: Threads) -> None:
    root, _key = _tree("dave")
    redeem = _hand_off(root, acme)
    with at_once.holding(User.objects.filter(pk=root.user_id), how="references"):
        redemption = at_once.start(redeem)  # admitted, about to commit
        end = at_once.start(lambda: sessions.end_tenant(acme, by=None, reason=Reason.SUSPENDED))
    end.result(20)
    opened = redemption.result(20)
    assert sessions.live([opened] if opened else [], acme) == []
    assert _unended(tenant=acme) == 0


@pytest.mark.asvs("15.4.2")
def test_no_branch_slips_past_a_suspension_or_a_deletion(acme: Tenant, at_once: Threads) -> None:
    root, _key = _tree("dave", acme)
    redemptions = [_hand_off(root, acme), _hand_off(_tree("alice")[0], acme)]

    def close() -> bool:
        platform.suspend(acme, reason="Unpaid")
        return platform.delete(acme, reason="Unpaid")

    with at_once.holding(User.objects.filter(pk=root.user_id), how="references"):
        under_way = at_once.start(redemptions[0])  # admitted, about to commit
        closing = at_once.start(close)
        late = at_once.start(redemptions[1])
    assert closing.result(20)
    for redemption in (under_way, late):
        opened = redemption.result(20)
        assert sessions.live([opened] if opened else [], acme) == []
    assert not Session.objects.filter(tenant=acme.pk).exists()
    assert not Ticket.objects.filter(tenant=acme.pk).exists()
    assert not Tenant.objects.filter(pk=acme.pk).exists()


def test_two_operators_who_close_each_others_account_leave_one(cast: dict[str, User], at_once: Threads) -> None:
    User.objects.filter(username="bob").update(is_superuser=True)
    erin, bob = User.objects.get(username="erin"), User.objects.get(username="bob")

    def close(person: User, by: User) -> bool:
        try:
            return platform.deactivate(person, by=Actor(by)).is_one
        except leaving.LastOperator:
            return False

    with at_once.holding(User.objects.filter(is_superuser=True)):
        one = at_once.start(lambda: close(erin, bob))
        other = at_once.start(lambda: close(bob, erin))
    assert {one.result(20), other.result(20)} == {True, False}
    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1


def test_a_later_end_asks_for_a_later_proof(acme: Tenant, at_once: Threads) -> None:
    """An end that began earlier and waited does not take back what a later one demanded."""
    first, _key = _tree("dave", acme)
    second, _key = _tree("dave", acme)
    membership = Membership.objects.get(user=first.user, tenant=acme)

    def end_the_second() -> datetime:
        sessions.end(Session.objects.filter(parent=second), by=None, reason=Reason.BY_ADMIN)
        return Membership.objects.get(pk=membership.pk).prove_after

    with at_once.holding(Session.objects.filter(pk=first.pk)):
        waiting = at_once.start(lambda: sessions.end(Session.objects.filter(pk=first.pk), by=None, reason=Reason.BY_ADMIN))
        prompt = at_once.start(end_the_second)
    waiting.result(20)
    demanded = prompt.result(20)
    assert demanded > membership.prove_after
    assert Membership.objects.get(pk=membership.pk).prove_after >= demanded


# --- A change of password ------------------------------------------------------------------------------------------------


def test_a_proof_noted_late_does_not_kill_the_spared_tree(cast: dict[str, User]) -> None:
    """A step-up in another tab began before the change of password and is written after it."""
    root, _key = _tree("dave")
    before = clock.now()
    sessions.change_password(User.objects.get(username="dave"), NEW_PASSWORD, by=None, request=None, spare=root)
    sessions.prove_again(root, request=RequestFactory().get("/"), methods=["pwd"], at=before)
    assert _alive(root)


def test_a_branch_under_the_stamp_of_its_tenant_is_not_revived(acme: Tenant) -> None:
    """The tenant's stamp is in force, its rows are not marked yet: the person changes the password in that browser."""
    root, _key = _tree("dave")
    _branch, key = _open(root, acme)
    Tenant.objects.filter(pk=acme.pk).update(valid_from=clock.now())
    assert sessions.live([key], acme) == []
    sessions.change_password(User.objects.get(username="dave"), NEW_PASSWORD, by=None, request=None, spare=root)
    assert sessions.live([key], acme) == []


def test_whoever_proved_himself_with_the_old_password_cannot_overwrite_the_new_one(cast: dict[str, User]) -> None:
    stale = User.objects.get(username="dave")
    sessions.change_password(User.objects.get(username="dave"), NEW_PASSWORD, by=None, request=None)
    with pytest.raises(sessions.StaleProof):
        sessions.change_password(stale, "the password of a thief", by=None, request=None)
    assert password_is(User.objects.get(username="dave"), NEW_PASSWORD)


def test_a_rehash_in_flight_does_not_bring_the_old_password_back(cast: dict[str, User]) -> None:
    """Kept under older parameters, checked at a sign-in while it is changed."""
    User.objects.filter(username="dave").update(password=Argon2PasswordHasher().encode(PASSWORD, "a salt of sixteen"))
    stale = User.objects.get(username="dave")
    sessions.change_password(User.objects.get(username="dave"), NEW_PASSWORD, by=None, request=None)
    assert password_is(stale, PASSWORD)
    assert password_is(User.objects.get(username="dave"), NEW_PASSWORD)


def test_a_thief_who_stepped_up_is_out_with_the_change_of_password(cast: dict[str, User], visitor: Callable[..., Visitor]) -> None:
    dave = visitor("dave")
    thief = visitor()
    thief.cookies = list(dave.cookies)
    thief.post(portal_url("/step-up/"), {"password": PASSWORD}, follow=False)
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD, "proof-password": PASSWORD}
    dave.post(portal_url("/account/password/"), fields, follow=False)
    assert dave.is_in()
    assert not thief.is_in()


@pytest.mark.asvs("15.4.2")
def test_a_profile_saved_in_flight_does_not_open_a_closed_account(
    cast: dict[str, User], visitor: Callable[..., Visitor], at_once: Threads
) -> None:
    dave = visitor("dave")
    dave.get(portal_url("/account/"))
    person = User.objects.get(username="dave")
    with transaction.atomic():
        User.objects.filter(pk=person.pk).update(is_active=False)
        sessions.end_everywhere(person, by=None, reason=Reason.DEACTIVATED)
        saving = at_once.start(lambda: dave.post(portal_url("/account/"), {"first_name": "David"}, follow=False))
    saving.result(20)
    assert not User.objects.get(username="dave").is_active
