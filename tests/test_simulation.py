"""The forecast of a policy: its figures are what then happens, and looking changes nothing."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from identity import pruning, sessions, simulation, tenancy
from identity.models import Event, Session, User
from identity.simulation import Forecast, Seen
from tenants.models import Membership, Tenant
from tests.test_commands import everything, manage, told
from tests.test_lockouts import enrol
from tests.visitor import Visitor, tenant_url

Open = Callable[..., Visitor]


def foresee(tenant: Tenant, **policy: Any) -> Forecast:
    tenant.refresh_from_db()
    return simulation.forecast(tenancy.imagine(tenant, {**tenant.policy, **policy}))


def live(tenant: Tenant) -> set[Any]:
    return set(Session.objects.alive_at(tenant.pk).values_list("pk", "user"))


def as_if(browser: Visitor, *, idle: float = 0, old: float = 0, **fields: Any) -> None:
    """As if this browser's branch at acme had lain unused for some hours, and its proof were some hours old."""
    now, row = timezone.now(), browser.session("acme")
    times: dict[str, Any] = {"last_seen_at": now - timedelta(hours=idle)} if idle else {}
    times |= {"authenticated_at": now - timedelta(hours=old)} if old else {}
    Session.objects.filter(pk=row.pk).update(**times, **fields)


@pytest.fixture
def crowd(cast: dict[str, User], acme: Tenant, visitor: Open) -> dict[str, Visitor]:
    """Branches at acme: unused, old, both, remembered, with a factor, by a trusted browser, at both places, ended already."""
    User.objects.filter(username="alice").update(is_active=True)
    open_now = {name: visitor(name, at="acme") for name in ("alice", "bob", "olivia")}
    open_now |= {"dave": visitor("dave", at="acme"), "dave again": visitor("dave", at="acme"), "dave gone": visitor("dave", at="acme")}
    open_now["dave"].get(tenant_url("globex"))
    as_if(open_now["alice"], idle=2)
    as_if(open_now["bob"], old=13, methods=["pwd", "otp"])
    as_if(open_now["olivia"], idle=3, old=14, persistent=True, methods=["pwd", "trusted"])
    as_if(open_now["dave"], idle=2, old=13)
    sessions.end(Session.objects.filter(pk=open_now["dave gone"].session("acme").pk), by=None, reason=sessions.Reason.BY_PERSON)
    return open_now


WISHES: list[dict[str, Any]] = [
    {"idle": 1800},
    {"absolute": 12 * 3600},
    {"idle": 1800, "absolute": 12 * 3600},
    {"idle": 1800, "remembered": False},
    {"remembered": False, "absolute": 12 * 3600},
    {"second_factor": "everyone"},
    {"second_factor": "everyone", "grace_days": 14},
    {"second_factor": "admins"},
    {"second_factor": "everyone", "trusted_browsers": False},
    {"second_factor": "everyone", "idle": 1800, "absolute": 12 * 3600, "trusted_browsers": False},
    {"tries": 1, "password_length": 20},
    {"sign_up": "closed"},
]


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: " ".join(f"{name}={value}" for name, value in wish.items()))
def test_what_was_foreseen_is_what_happens(crowd: dict[str, Visitor], acme: Tenant, globex: Tenant, wish: dict[str, Any]) -> None:
    rows, elsewhere = live(acme), live(globex)
    foreseen = foresee(acme, **wish)
    done = tenancy.change(acme, {"policy": wish})
    gone = rows - live(acme)
    assert done.did
    assert foreseen.live == len(rows)
    assert (len(gone), len({user for _pk, user in gone})) == (foreseen.sessions, foreseen.people)
    assert (done.did.sessions, done.did.people) == (foreseen.sessions, foreseen.people)
    ended = Session.objects.filter(pk__in=[pk for pk, _user in gone])
    assert ended.filter(ended_at=None).count() == 0  # the history has them at once
    assert Event.objects.filter(kind="session_ended", session__in=[pk for pk, _user in gone]).count() == len(gone)
    assert live(globex) == elsewhere


def test_the_figures_of_each_cause(crowd: dict[str, Visitor], acme: Tenant) -> None:
    foreseen = foresee(acme, idle=3600, absolute=12 * 3600)
    assert (foreseen.live, foreseen.sessions, foreseen.people) == (5, 3, 3)  # olivia's is remembered
    assert (foreseen.idle, foreseen.old) == (2, 2)  # dave's is both
    foreseen = foresee(acme, second_factor="everyone", trusted_browsers=False)
    assert (foreseen.unproven, foreseen.asked, foreseen.without, foreseen.admins_without) == (4, 4, 4, 2)
    assert foresee(acme, second_factor="everyone").unproven == 3


def test_looking_changes_nothing(crowd: dict[str, Visitor], acme: Tenant) -> None:
    before = everything()
    for wish in WISHES:
        foresee(acme, **wish)
    assert everything() == before


def test_who_goes_on_keeps_the_new_limit(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    tenancy.change(acme, {"policy": {"idle": 1800, "absolute": 3600}})
    row = alice.session("acme")
    assert row.idle_expires_at == row.last_seen_at + timedelta(minutes=30)
    assert row.expires_at == row.authenticated_at + timedelta(hours=1)
    assert alice.is_in("acme")
    tenancy.change(acme, {"policy": {"idle": 7200, "absolute": 7200}})
    again = alice.session("acme")
    assert (again.idle_expires_at, again.expires_at) == (row.idle_expires_at, row.expires_at)  # never lengthened


def test_a_session_touched_under_the_old_limit_meanwhile_gets_the_new_one_with_prune(
    cast: dict[str, User], acme: Tenant, visitor: Open
) -> None:
    alice = visitor("alice", at="acme")
    tenancy.change(acme, {"policy": {"idle": 1800}})
    row = alice.session("acme")
    Session.objects.filter(pk=row.pk).update(idle_expires_at=row.last_seen_at + timedelta(hours=8))
    pruning.prune()
    assert alice.session("acme").idle_expires_at == row.last_seen_at + timedelta(minutes=30)


def test_grace_counts_from_the_later_of_policy_and_joining(crowd: dict[str, Visitor], acme: Tenant, cast: dict[str, User]) -> None:
    Tenant.objects.filter(pk=acme.pk).update(
        policy={"second_factor": "everyone", "grace_days": 14}, factor_since=timezone.now() - timedelta(days=10)
    )
    Membership.objects.filter(tenant=acme).update(created_at=timezone.now() - timedelta(days=300))
    Membership.objects.filter(tenant=acme, user=cast["dave"]).update(created_at=timezone.now() - timedelta(days=3))
    assert foresee(acme).unproven == 0
    assert foresee(acme, grace_days=5).unproven == 1  # alice; dave has two days left, the others have a factor or a trusted browser
    assert foresee(acme, grace_days=2).unproven == 3


def test_the_day_until_which_people_may_do_without(cast: dict[str, User], acme: Tenant) -> None:
    enrol(cast["bob"])
    foreseen = foresee(acme, second_factor="admins", grace_days=10)
    assert foreseen.due
    assert abs(foreseen.due - timezone.now() - timedelta(days=10)) < timedelta(minutes=1)
    assert (foreseen.asked, foreseen.without, foreseen.admins_without) == (2, 1, 1)


def test_the_command_line_says_what_it_ended(crowd: dict[str, Visitor], acme: Tenant) -> None:
    said = manage("tenant", "set", "acme", "--policy", "idle=3600", "absolute=43200", "--dry-run")
    assert "2 sessions ended: unused for longer than that." in said
    assert "2 sessions ended: open for longer than that." in said
    assert len(live(acme)) == 5
    assert told("tenant", "set", "acme", "--policy", "idle=3600", "absolute=43200")["ended"] == 3
    assert len(live(acme)) == 2


def test_what_was_seen_covers_the_same_change_and_hardly_more() -> None:
    def seen(change: str = "a", sessions: int = 0, without: int = 0) -> Seen:
        return Seen(change, sessions, without)

    assert seen(sessions=9).covers(seen(sessions=9))
    assert seen(sessions=9).covers(seen(sessions=3))
    assert not seen(sessions=9).covers(seen(sessions=10))
    assert seen(sessions=400).covers(seen(sessions=440))
    assert not seen(sessions=400).covers(seen(sessions=441))
    assert not seen(without=1).covers(seen(without=2))
    assert not seen("a").covers(seen("b"))
    assert Seen.read(str(seen("a", 2, 3))) == seen("a", 2, 3)
    for rubbish in ("", "a", "a.1", "a.1.2.3", "a.-1.2", "a.x.1", "a.٣.1", "a." + "9" * 10 + ".1"):
        assert Seen.read(rubbish) is None
