"""The overview: what goes on at a tenant, in figures that agree with the lists behind them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity import events, figures, ledger, sessions
from identity.models import Bucket, Event, Session, User
from portal.views import activity
from tenants.models import Membership, Tenant
from tests.phone import enrol, said
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
PAGE = "/console/acme/"


def noted(kind: str, count: int, *, ago: timedelta = timedelta(), tenant: Tenant | None = None, subject: User | None = None) -> None:
    events.write([events.make(kind, tenant=tenant, actor=subject, subject=subject, at=timezone.now() - ago) for _n in range(count)])


def figure(browser: Visitor, what: str) -> str:
    found = re.search(rf'>{what}</span><span class="number">([^<]*)<', browser.page.content.decode())
    assert found, said(browser)
    return found[1]


def rows(browser: Visitor, chart: str) -> list[list[str]]:
    """The table of a chart, the newest line first."""
    part = browser.page.content.decode().partition(f'id="{chart}"')[2].partition("</section>")[0]
    return [re.findall(r">([^<]+)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", part)[1:]]


def bars(browser: Visitor, chart: str) -> list[str]:
    part = browser.page.content.decode().partition(f'id="{chart}"')[2].partition("</section>")[0]
    return re.findall(r"<title>([^<]+)</title>", part)


def test_the_figures_say_who_is_there_and_who_was_turned_away(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    visitor("dave", at="acme")
    visitor("dave", at="acme")
    visitor("alice", at="acme")
    visitor("carol", at="globex")
    noted("sign_in_failed", 3, subject=cast["alice"])
    noted("code_failed", 2, subject=cast["dave"], ago=timedelta(hours=3))
    noted("sign_in_failed", 4, subject=cast["carol"])  # of globex
    noted("sign_in_failed", 5)  # of nobody
    noted("branch_opened", 7, tenant=acme, ago=timedelta(hours=30))
    noted("branch_opened", 8, tenant=globex)
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert figure(bob, "Live sessions") == "3"
    assert "of 2 people" in said(bob)
    assert figure(bob, "Came in, 24 h") == "3"
    assert "7 the day before" in said(bob)
    assert figure(bob, "Turned away, 24 h") == "5"
    assert figure(bob, "Locked out now") == "0"
    members = Membership.objects.filter(tenant=acme).count()
    assert figure(bob, "No second factor") == str(members)
    assert f"of {members} people" in said(bob)


def test_the_figures_agree_with_what_they_count(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    enrol(bob, "bob")
    Membership.objects.filter(tenant=acme, user=cast["dave"]).update(blocked_at=timezone.now())
    members = Membership.objects.filter(tenant=acme, blocked_at=None).count()
    assert figures.factors(acme) == figures.Factors(members, members - 1)
    alice = visitor("alice", at="acme")
    assert figures.live(acme) == figures.Live(1, 1)
    sessions.end(Session.objects.filter(pk=alice.session("acme").pk), by=None, reason=Session.Reason.BY_ADMIN)
    assert figures.live(acme) == figures.Live(0, 0)


def test_who_is_locked_out_is_counted_once_and_addresses_are_not(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    soon = timezone.now() + timedelta(minutes=9)
    for n, (kind, person) in enumerate([("person", "alice"), ("factor", "alice"), ("person", "carol"), ("address", "")]):
        Bucket.objects.create(
            key=str(n), kind=kind, user=cast.get(person), locked_at=timezone.now(), locked_until=soon, touched_at=timezone.now()
        )
    assert figures.locked_out(acme) == 1
    assert len({each.bucket.user for each in ledger.locked(("person", "factor", "device"), tenant_id=acme.pk)}) == 1


def test_every_path_on_which_a_person_answers_wrongly_is_counted() -> None:
    """Of all kinds of wrong answers (each has words for its person) those of links and mails belong to nobody."""
    known = {kind for kind in activity.WORDS if kind.endswith("_failed")}
    assert known - {"invitation_failed", "mail_failed"} == set(ledger.WRONG_ANSWERS)


def test_every_figure_leads_to_the_list_behind_it(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    found = re.findall(r'<li[^>]*><a href="([^"]+)">', bob.page.content.decode().partition('class="figures"')[2].partition("</ul>")[0])
    assert found == [
        "/console/acme/sessions/",
        "/console/acme/events/?kind=branch_opened",
        "#by-hour",
        "/console/acme/lockouts/",
        "/console/acme/people/?factor=none",
    ]


def test_the_charts_have_a_bar_and_a_row_for_each_hour_and_day(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    noted("branch_opened", 1200, tenant=acme)
    noted("branch_opened", 4, tenant=acme, ago=timedelta(hours=2))
    noted("sign_in_failed", 2, subject=cast["alice"], ago=timedelta(hours=2))
    noted("branch_opened", 6, tenant=acme, ago=timedelta(days=9))
    noted("branch_opened", 9, tenant=acme, ago=timedelta(days=31))
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    hours, days = rows(bob, "by-hour"), rows(bob, "by-day")
    assert (len(hours), len(days)) == (24, 30)
    assert hours[0][1:] == ["1,200", "0"]
    assert hours[2][1:] == ["4", "2"]
    assert days[9][1:] == ["6", "0"]
    assert sum(int(row[1].replace(",", "")) for row in days) == 1210
    titles = bars(bob, "by-hour")
    assert len(titles) == 24
    assert titles[-1].endswith(": 1,200 came in, 0 turned away")
    assert titles[-3] == f"{hours[2][0]}: 4 came in, 2 turned away"
    assert not re.search(r'(?:x|y|width|height)="[^"]*,', bob.page.content.decode())


def test_a_quiet_place_says_so_in_place_of_empty_charts(acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert "Nobody came in, and nobody was turned away, in the last 24 hours." in said(bob)
    assert "Nothing has happened here yet." in said(bob)
    assert '<svg viewBox="0 0 100 100"' not in bob.page.content.decode()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Los_Angeles", "Pacific/Auckland"])
def test_hours_and_days_are_those_of_whoever_looks(cast: dict[str, User], acme: Tenant, zone: str) -> None:
    here = ZoneInfo(zone)
    noted("branch_opened", 1, tenant=acme)
    noted("branch_opened", 1, tenant=acme, ago=timedelta(days=3))
    then = (timezone.now() - timedelta(days=3)).astimezone(here)
    by_hour = figures.by_hour(acme, here, 30)
    by_day = figures.by_day(by_hour)
    assert len(by_day) == 30
    assert by_hour[-1].came == 1
    assert all(bar.start.minute == 0 for bar in by_hour)
    assert [bar.start.date() for bar in by_day if bar.came] == [then.date(), timezone.now().astimezone(here).date()]
    assert all(bar.start.hour == 0 for bar in by_day)


def test_an_hour_that_comes_twice_is_not_counted_twice(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    night = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 in summer time; an hour later it is 02:30 again
    monkeypatch.setattr("identity.clock.now", lambda: night + timedelta(hours=3))
    events.write([events.make("branch_opened", tenant=acme, at=night + timedelta(hours=n)) for n in (0, 1)])
    hours = figures.by_hour(acme, berlin, 2)
    assert len([bar for bar in hours if bar.start.hour == 2]) == 3  # yesterday, and twice today
    assert sum(bar.came for bar in hours) == 2
    assert [bar.came for bar in figures.by_day(hours)] == [0, 2]


def test_the_newest_events_name_members_and_what_repeats_once(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    for name in ("alice", "dave"):
        visitor(name, at="acme")
    bob = visitor("bob")
    events.record("foreign_lockout", tenant=acme, actor=cast["bob"], subject=cast["carol"])
    for _n in range(3):
        events.record("session_ended", tenant=acme, actor=cast["bob"], subject=cast["dave"], note="<b>lost</b>")
    events.record(
        "session_ended", tenant=Tenant.objects.get(slug="globex"), actor=cast["olivia"], subject=cast["dave"], note="nothing of Acme"
    )
    bob.get(portal_url(PAGE))
    text = said(bob).partition("Newest events")[2]
    assert "Session ended 3 times" in text
    newest = Event.objects.filter(tenant=acme, kind="session_ended").latest("pk")
    assert f'<a href="/console/acme/events/{newest.pk}/">Session ended</a>' in bob.page.content.decode()
    assert "&lt;b&gt;lost" in bob.page.content.decode()
    assert "Bob Marsh → to Dave Vance" in text
    assert "Carol" not in text
    assert "nothing of Acme" not in text


def test_the_page_asks_as_much_of_a_full_place_as_of_an_empty_one(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    with CaptureQueriesContext(
        connection,
    ) as empty:
        bob.get(portal_url(PAGE))
    for name in ("alice", "dave", "olivia"):
        visitor(name, at="acme")
        noted("sign_in_failed", 9, subject=cast[name])
    with CaptureQueriesContext(connection) as full:
        bob.get(portal_url(PAGE))
    assert len(full) <= len(empty) + 1  # whose names stand in the newest events
    assert len(full) <= 16


@pytest.mark.skipif(connection.vendor != "postgresql", reason="a question of PostgreSQL's planner")
def test_what_came_in_is_counted_by_its_index(cast: dict[str, User], acme: Tenant) -> None:
    noted("branch_opened", 300, tenant=acme)
    noted("session_ended", 3000, tenant=acme)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE identity_event")
    found = Event.objects.filter(tenant=acme, kind=figures.CAME_IN, at__gte=timezone.now() - timedelta(hours=1))
    assert "events_of_kind" in found.order_by().explain()


def test_both_names_of_the_page_lead_to_it(acme: Tenant, visitor: Open) -> None:
    from django.urls import reverse

    names: list[Any] = [reverse(name, args=["acme"]) for name in ("console", "console_overview")]
    assert names == [PAGE, PAGE]
    bob = visitor("bob")
    page = bob.get(portal_url(PAGE)).content.decode()
    assert re.search(rf'href="{PAGE}" aria-current="page"', page)
    assert bob.get(portal_url("/console/acme/panic/")).status_code == 200
    assert 'href="/console/acme/panic/"' in page
