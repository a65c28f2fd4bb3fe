"""The alarm: too many wrong answers are told to those who can do something, once an hour, and never by a request that was one."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from identity import alarm, events, mails
from identity.models import Event, User
from tenants import policy
from tenants.models import Membership, Tenant
from tests.conftest import people


def wrong_answers(
    user: User | None, count: int, *, ip: str = "203.0.113.7", ago: timedelta = timedelta(), kind: str = "sign_in_failed"
) -> None:
    """As the ledger records them."""
    made = [events.make(kind, subject=user, at=timezone.now() - ago) for _n in range(count)]
    for event in made:
        event.ip = ip
    events.write(made)


def alarms() -> list[tuple[str, int]]:
    """Where it rang, and for how many wrong answers."""
    rows = Event.objects.filter(kind=alarm.KIND).select_related("tenant").order_by("tenant", "pk")
    return [(row.tenant.slug if row.tenant else "", row.data["failed"]) for row in rows]


def test_a_few_wrong_answers_raise_no_alarm(cast: dict[str, User]) -> None:
    wrong_answers(cast["dave"], policy.ALARM_TENANT - 1)
    wrong_answers(cast["alice"], 500, ago=policy.ALARM_WINDOW + timedelta(seconds=1))
    wrong_answers(cast["alice"], 500, kind="sign_in")
    assert alarm.watch() == []


@pytest.mark.asvs("16.3.3")
def test_too_many_at_one_tenant_are_told_to_its_owners_and_admins_only(cast: dict[str, User], mailoutbox: list[Any]) -> None:
    wrong_answers(cast["alice"], 30)
    wrong_answers(cast["bob"], policy.ALARM_TENANT - 30, kind="code_failed")
    alarm.watch()
    mails.deliver()
    assert alarms() == [("acme", policy.ALARM_TENANT)]
    event = Event.objects.get(kind=alarm.KIND)
    assert event.data == {"failed": 50, "minutes": 10, "people": 2, "addresses": [{"address": "203.0.113.7", "failed": 50}]}
    assert sorted(mail.to[0] for mail in mailoutbox) == ["bob@acme.example", "olivia@acme.example"]
    assert mailoutbox[0].subject == "Many wrong passwords at Acme"
    assert "50 wrong passwords or codes were typed for 2 people of Acme" in mailoutbox[0].body
    assert "/console/acme/lockouts/" in mailoutbox[0].body


@pytest.mark.asvs("8.4.1")
def test_a_tenant_is_told_of_its_own_members_and_of_no_address_that_may_be_a_home(cast: dict[str, User], mailoutbox: list[Any]) -> None:
    """The failures of carol are globex's; the one of dave may have happened on his way to globex."""
    wrong_answers(cast["alice"], 50)
    wrong_answers(cast["dave"], alarm.LOUD - 1, ip="198.51.100.1")
    wrong_answers(cast["carol"], 20, ip="192.0.2.1")
    alarm.watch()
    mails.deliver()
    assert alarms() == [("acme", 54)]
    assert [each["address"] for each in Event.objects.get(kind=alarm.KIND).data["addresses"]] == ["203.0.113.7"]
    assert not any(ip in mail.body for mail in mailoutbox for ip in ("203.0.113.7", "198.51.100.1", "192.0.2.1"))


def test_too_many_on_the_platform_are_told_to_its_operators_with_the_addresses(cast: dict[str, User], mailoutbox: list[Any]) -> None:
    wrong_answers(None, policy.ALARM_PLATFORM - 1)
    wrong_answers(cast["mallory"], 1, ip="198.51.100.1")
    alarm.watch()
    mails.deliver()
    assert alarms() == [("", policy.ALARM_PLATFORM)]
    assert [mail.to for mail in mailoutbox] == [["erin@gatehouse.example"]]
    assert "Most came from: 203.0.113.7 (249), 198.51.100.1 (1)." in mailoutbox[0].body


def test_it_rings_once_an_hour(cast: dict[str, User]) -> None:
    wrong_answers(cast["alice"], 60)
    assert len(alarm.watch()) == 1
    wrong_answers(cast["alice"], 60)
    assert alarm.watch() == []
    wrong_answers(cast["carol"], 50)  # another tenant's alarm does not wait for that
    assert [event.tenant for event in alarm.watch()] == [Tenant.objects.get(slug="globex")]
    Event.objects.filter(kind=alarm.KIND).update(at=timezone.now() - alarm.PAUSE)
    assert len(alarm.watch()) == 2


def test_who_is_blocked_or_gone_is_told_nothing(cast: dict[str, User], mailoutbox: list[Any]) -> None:
    Membership.objects.filter(user=cast["bob"]).update(blocked_at=timezone.now())
    User.objects.filter(username="olivia").update(email_verified_at=None)
    wrong_answers(cast["alice"], 50)
    assert len(alarm.watch()) == 1
    mails.deliver()
    assert mailoutbox == []


def test_a_quiet_moment_costs_one_question(cast: dict[str, User], django_assert_num_queries: Any) -> None:
    wrong_answers(cast["alice"], 20)
    with django_assert_num_queries(1 + (connection.vendor == "postgresql")):  # the clock is the server's there
        alarm.watch()


def test_prune_looks_too_and_a_dry_run_does_not(cast: dict[str, User]) -> None:
    wrong_answers(cast["alice"], 50)
    call_command("prune", "--dry-run", verbosity=0)
    assert alarms() == []
    call_command("prune", verbosity=0)
    assert alarms() == [("acme", 50)]


@pytest.mark.asvs("15.4.2")
@pytest.mark.django_db(transaction=True)
def test_many_processes_that_watch_at_once_raise_one_alarm(mailoutbox: list[Any]) -> None:
    cast = people()
    wrong_answers(cast["alice"], 300)
    ready = threading.Barrier(8)

    def look() -> None:
        try:
            ready.wait()
            for _n in range(5):
                alarm.watch()
        finally:
            connection.close()

    watchers = [threading.Thread(target=look) for _n in range(8)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    assert sorted(alarms()) == [("", 300), ("acme", 300)]
    mails.deliver()
    assert len(mailoutbox) == 3
