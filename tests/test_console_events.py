"""A tenant's log in its console: what it shows, what it keeps to itself, what is found, and the copy that one takes."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone

from identity import events, journal, members, seals
from identity.journal import Criteria
from identity.members import Actor
from identity.models import Event, User
from portal.views.console import kinds
from tenants.models import Membership, Tenant
from tests.conftest import PASSWORD
from tests.phone import said
from tests.test_people import HTMX, old_proof
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PAGE, EXPORT = "/console/acme/events/", "/console/acme/events/export/"
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1) hx-get="/logout/">', "{{ 7|add:7 }}{% now 'Y' %}",
    "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\u202egnp.exe", "🙃" * 20, "x" * 10_000,
]  # fmt: skip


def listed(page: Any) -> list[int]:
    return [int(pk) for pk in re.findall(r'data-event="(\d+)"', page.content.decode())]


def look(browser: Visitor, query: str = "") -> list[int]:
    return listed(browser.get(portal_url(PAGE + query)))


def wrote(kind: str, tenant: Tenant | None, **more: Any) -> Event:
    """An event, from an address where one is given."""
    at, ip = more.pop("at", None), more.pop("ip", None)
    event = events.make(kind, tenant=tenant, **({"at": at} if at else {}), **more)
    event.ip = ip
    events.write([event])
    return event


def file(browser: Visitor, form: str = "csv", **filters: str) -> str:
    answer = browser.post(portal_url(EXPORT), {"format": form, **filters})
    assert answer.streaming, browser.url
    return b"".join(answer.streaming_content).decode()


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- What it shows ------------------------------------------------------------------------------------------------


def test_the_newest_comes_first_and_every_event_once_over_all_pages(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    written = [wrote("invited", acme, invitation=n).pk for n in range(120)]
    bob, seen = visitor("bob"), []
    page = bob.get(portal_url(PAGE))
    assert "120 events" in said(bob)
    first = listed(page)
    while True:
        seen.append(listed(page))
        older = re.findall(r'href="([^"]+)">Older<', page.content.decode())
        if not older:
            break
        page = bob.get(portal_url(older[0].replace("&amp;", "&")))
    assert [len(each) for each in seen] == [50, 50, 20]
    assert [pk for each in seen for pk in each] == written[::-1]
    for _ in range(2):
        newer = re.findall(r'href="([^"]+)">Newer<', page.content.decode())
        page = bob.get(portal_url(newer[0].replace("&amp;", "&")))
    assert listed(page) == first


@pytest.mark.asvs("8.2.2", "8.2.3", "8.4.1")
def test_a_tenants_log_has_nothing_of_the_portal_and_of_other_tenants(
    cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open
) -> None:
    dave = visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    portal, elsewhere = dave.session(), dave.session("globex")
    visitor("carol", at="globex")
    wrote("member_added", globex, subject=cast["carol"])
    dave.address = "198.51.100.77"
    dave.post(tenant_url("globex", "/_portal/logout"))  # ends the whole tree, the branch at acme with it
    bob = visitor("bob")
    ended = Event.objects.get(kind="session_ended", tenant=acme)
    assert ended.ip == "198.51.100.77"
    shown = [bob.get(portal_url(PAGE)).content.decode(), file(bob), file(bob, "jsonl")]
    shown += [bob.get(portal_url(f"{PAGE}{pk}/")).content.decode() for pk in look(bob)]
    assert len(shown) > 4
    for text in shown:
        for secret in ("globex", "Globex", "carol", str(portal.pk), str(elsewhere.pk), "198.51.100.77", ended.request_id):
            assert secret not in text.replace(PASSWORD, "")
    assert set(Event.objects.filter(pk__in=look(bob)).values_list("tenant__slug", flat=True)) == {"acme"}
    assert look(bob, "?address=198.51.100.") == []


@pytest.mark.asvs("8.2.3")
def test_what_an_admin_named_of_elsewhere_is_not_told_to_exist(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    """Else the log would answer what the page did not."""
    bob = visitor("bob")
    bob.post(portal_url("/console/acme/people/act"), {"manage": "carol"})
    bob.post(portal_url("/console/acme/people/act"), {"manage": "nobody-at-all"})
    bob.post(portal_url("/console/acme/lockouts/"), {"id": "carol"})
    bob.post(portal_url("/console/acme/lockouts/"), {"id": "nobody-at-all"})
    bob.get(portal_url(f"{PAGE}{wrote('invited', Tenant.objects.get(slug='globex')).pk}/"))
    bob.get(portal_url(f"{PAGE}999999/"))
    told = cells(file(bob))
    assert [each["kind"] for each in told] == ["foreign_person"] * 2 + ["foreign_lockout"] * 2 + ["foreign_event"] * 2
    for one, other in zip(told[::2], told[1::2], strict=True):
        same = {"id", "at", "request_id"}
        assert {k: v for k, v in one.items() if k not in same} == {k: v for k, v in other.items() if k not in same}
    assert look(bob, "?person=carol") == []
    pk = look(bob, "?kind=foreign_lockout")[1]
    assert "arol" not in bob.get(portal_url(f"{PAGE}{pk}/")).content.decode()


def test_an_alarm_tells_a_tenant_no_addresses(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    wrote("alarm", acme, failed=60, minutes=10, people=3, addresses=[{"address": "203.0.113.5", "failed": 60}])
    wrote("not_me_told", acme, actor=cast["dave"], subject=cast["dave"], ip="203.0.113.5")
    bob = visitor("bob")
    assert "203.0.113.5" not in file(bob) + bob.get(portal_url(PAGE)).content.decode()
    assert look(bob, "?address=203.0.113.5") == []


def test_somebody_who_left_keeps_the_name_in_the_log_and_a_stranger_has_none(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    members.remove(acme, cast["dave"], by=Actor(cast["bob"], "admin"))
    wrote("hand_off_refused", acme, subject=cast["carol"])
    wrote("member_added", acme, subject=User(pk=4711))
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert "Bob Marsh → to Dave Vance" in said(bob)
    assert "Somebody who does not belong here" in said(bob)
    assert "A deleted account (#4711)" in said(bob)
    assert "Carol" not in said(bob)
    assert len(look(bob, "?person=dave")) == 1


@pytest.mark.asvs("8.2.2", "16.3.2")
def test_a_foreign_event_is_a_404_and_noted(cast: dict[str, User], acme: Tenant, globex: Tenant, visitor: Open) -> None:
    foreign = wrote("invited", globex)
    platform = wrote("sign_in", None, subject=cast["dave"])
    bob = visitor("bob")
    for pk in (foreign.pk, platform.pk, 10**18, 10**30):
        assert bob.get(portal_url(f"{PAGE}{pk}/")).status_code == 404
    assert Event.objects.filter(kind="foreign_event", tenant=acme, actor=cast["bob"]).count() == 4


@pytest.mark.asvs("16.2.1")
def test_one_event_shows_before_and_after_side_by_side(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    event = wrote(
        "tenant_changed", acme, before={"name": "Acme", "policy": {"idle": 3600}}, after={"name": "Acme", "policy": {"idle": 900}}
    )
    bob = visitor("bob")
    bob.get(portal_url(f"{PAGE}{event.pk}/"))
    assert f"acme-{event.pk}" in said(bob)
    assert "policy idle 3600 900" in said(bob)
    assert "As it was written" in said(bob)


def test_a_moment_among_what_changed_is_in_the_viewers_zone(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.filter(username="bob").update(time_zone="Asia/Tokyo")
    wrote("tenant_frozen", acme, before={"frozen_at": None}, after={"frozen_at": "2026-03-04T20:06:34.878Z"})
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert "frozen at: – → 2026-03-05 05:06:34" in said(bob)


def test_an_event_leads_to_its_session_if_that_is_one_of_this_place(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    for pk, leads in ((dave.session("acme").pk, True), (dave.session().pk, False)):
        event = wrote("session_ended", acme, subject=cast["dave"], session=pk)
        page = bob.get(portal_url(f"{PAGE}{event.pk}/")).content.decode()
        assert (f'href="/console/acme/sessions/{pk}/"' in page) is leads


def test_every_kind_that_a_tenant_has_is_said_in_words(cast: dict[str, User], acme: Tenant) -> None:
    assert all(kinds.said(kind) == str(words) for kind, words in kinds.WORDS.items())
    assert not set(kinds.GROUPS) & set(kinds.WORDS)
    assert kinds.said("something_new") == "Something new"


# --- What is found ------------------------------------------------------------------------------------------------


def test_kind_person_time_and_address_filter_and_stand_in_the_url(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    now = timezone.now()
    old = wrote("invited", acme, actor=cast["bob"], at=now - timedelta(days=3), ip="203.0.113.7").pk
    by_bob = wrote("member_blocked", acme, actor=cast["bob"], subject=cast["dave"], ip="2001:db8:61::5").pk
    opened = wrote("branch_opened", acme, actor=cast["dave"], subject=cast["dave"], ip="203.0.113.40").pk
    olivia = visitor("olivia")
    for query, found in {
        "": [opened, by_bob, old],
        "?kind=invited": [old],
        "?kind=people": [by_bob, old],
        "?kind=sessions": [opened],
        "?kind=no_such_kind": [],
        "?person=dave": [opened, by_bob],
        "?person=BOB": [by_bob, old],
        "?person=dave@acme.example": [opened, by_bob],
        "?person=carol": [],
        "?person=nobody": [],
        "?address=203.0.113.": [opened, old],
        "?address=203.0.113.40": [opened],
        "?address=2001:DB8:61:": [by_bob],
        "?since=hour": [opened, by_bob],
        "?since=week": [opened, by_bob, old],
        "?person=bob&kind=people&since=day": [by_bob],
    }.items():
        assert look(olivia, query) == found, query
    page = olivia.get(portal_url(f"{PAGE}?person=bob&kind=people&since=day")).content.decode()
    assert re.findall(r'class="token" href="[^?]+\?([^"]+)"', page) == [
        "kind=people&amp;since=day", "person=bob&amp;since=day", "kind=people&amp;person=bob",
    ]  # fmt: skip


def test_from_and_until_are_in_the_viewers_zone(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    User.objects.filter(username="bob").update(time_zone="Asia/Tokyo")
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    event = wrote("invited", acme, at=noon)
    bob = visitor("bob")
    assert look(bob, "?from=2026-03-01T12:00&to=2026-03-01T12:01") == [event.pk]
    assert look(bob, "?from=2026-03-01T12:01") == []
    assert look(bob, "?from=2026-03-01T03:00&to=2026-03-01T11:59") == []


@pytest.mark.parametrize(
    ("query", "error"),
    [("?address=acme", "This is no address"), ("?from=yesterday", "Enter a valid date/time"), ("?to=2026-13-01T00:00", "Enter a valid")],
)
def test_a_filter_that_makes_no_sense_says_so_beside_its_field(
    cast: dict[str, User], acme: Tenant, visitor: Open, query: str, error: str
) -> None:
    bob = visitor("bob")
    assert bob.get(portal_url(PAGE + query)).status_code == 200
    assert error in said(bob)


def test_htmx_gets_the_list_alone_and_the_same_rows(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    wrote("invited", acme)
    bob = visitor("bob")
    whole = bob.get(portal_url(PAGE))
    part = bob.get(portal_url(PAGE), **HTMX, HTTP_HX_TARGET="events")
    assert listed(part) == listed(whole)
    assert "<html" not in part.content.decode()
    assert "<html" in whole.content.decode()


# --- Sealed -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("16.4.2")
def test_the_page_says_how_far_the_log_is_sealed_and_checks_what_it_shows(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    event = wrote("invited", acme, invitation=1)
    bob = visitor("bob")
    bob.get(portal_url(PAGE))
    assert "Not sealed yet" in said(bob)
    seals.seal()
    bob.get(portal_url(PAGE))
    assert "(seal 1)" in said(bob)
    bob.get(portal_url(f"{PAGE}?check=1"))
    assert "Every event on this page is as it was written." in said(bob)
    Event.objects.filter(pk=event.pk).update(data={"invitation": 2})
    bob.get(portal_url(f"{PAGE}?check=1"))
    assert f"Not as it was written: acme-{event.pk}." in said(bob)
    bob.get(portal_url(f"{PAGE}{event.pk}/"))
    assert "not as it was written" in said(bob)


# --- The copy -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.5.3")
def test_an_export_asks_for_a_fresh_proof_and_is_noted_with_what_it_held(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    wrote("invited", acme, actor=cast["bob"])
    bob = visitor("bob")
    old_proof(bob)
    answer = bob.post(portal_url(EXPORT), {"format": "csv"})
    assert not answer.streaming
    assert "take a copy of the log" in said(bob)
    bob.get(portal_url(f"{EXPORT}?kind=people"))
    assert "/step-up/" in bob.url
    assert not Event.objects.filter(kind="events_exported").exists()
    bob.post(bob.url, {"password": PASSWORD})
    assert bob.url.endswith(f"{EXPORT}?kind=people")
    assert "1 event matches: People." in said(bob)
    assert len(cells(file(bob, kind="people", person="bob"))) == 1
    noted = Event.objects.get(kind="events_exported")
    assert (noted.tenant, noted.actor, noted.data["format"]) == (acme, cast["bob"], "csv")
    assert noted.data["persons"] == [cast["bob"].pk]
    assert "invited" in noted.data["kinds"]


@pytest.mark.asvs("5.4.1", "5.4.2")
def test_the_name_of_the_file_is_ours_whatever_is_sent(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    Tenant.objects.filter(pk=acme.pk).update(name='A"c\r\nX-Evil: 1')
    answer = visitor("bob").post(portal_url(f"{EXPORT}?filename=evil.exe"), {"format": "csv", "filename": "evil.exe", "name": "../evil"})
    assert answer.headers["Content-Disposition"] == f'attachment; filename="acme-events-{timezone.localdate():%Y-%m-%d}.csv"'
    assert "X-Evil" not in answer.headers


@pytest.mark.asvs("1.2.10")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_text_on_every_page_and_harmless_in_the_copy(
    cast: dict[str, User], acme: Tenant, visitor: Open, text: str
) -> None:
    request = RequestFactory().get("/", headers={"User-Agent": text[:300]})
    event = events.record(
        "member_blocked", request=request, tenant=acme, actor=cast["bob"], subject=cast["dave"], note=text, before={text[:50]: text}
    )
    bob = visitor("bob")
    pages = [bob.get(portal_url(path)).content.decode() for path in (PAGE, f"{PAGE}{event.pk}/")]
    for page in pages:
        assert text[:200] not in page or "<" not in text[:200]
        assert 'hx-get="/logout/"' not in page
        assert "<img src=x" not in page
    row = cells(file(bob))[0]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    told = json.loads(file(bob, "jsonl").splitlines()[0])
    assert told["data"]["note"] == text


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("path", ["events/?person=", "events/?address=", "events/?kind=", "events/?from=", "people/?q=", "people/?group="])
def test_hostile_texts_in_the_url_are_text_or_ignored(cast: dict[str, User], acme: Tenant, visitor: Open, path: str, text: str) -> None:
    bob = visitor("bob")
    page = bob.get(portal_url(f"/console/acme/{path}{quote(text)}"))
    assert page.status_code == 200
    for alive in ("<script>alert", "<img src=x", 'hx-get="/logout/"'):
        assert alive not in page.content.decode()
    assert len(page.content) < 60_000


@pytest.mark.asvs("1.2.10")
@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert journal.harmless(text) == f"'{text}"


def test_both_formats_hold_the_same_events_the_oldest_first(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    written = [wrote("invited", acme, actor=cast["bob"], invitation=n).pk for n in range(5)]
    bob = visitor("bob")
    assert [int(each["id"]) for each in cells(file(bob))] == written
    exact = [json.loads(line) for line in file(bob, "jsonl").splitlines()]
    assert [each["id"] for each in exact] == [*written, Event.objects.filter(kind="events_exported").earliest("pk").pk]
    assert exact[0]["by"] == "bob"
    assert set(exact[0]) == set(journal.COLUMNS)


def test_an_event_that_cannot_be_read_is_a_line_too(cast: dict[str, User], acme: Tenant) -> None:
    event = wrote("invited", acme)
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL takes no word for a time")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE identity_event SET at = 'no time' WHERE id = %s", [event.pk])
    rows = journal.matching(acme, Criteria())
    assert json.loads("".join(journal.lines(acme, rows, "jsonl"))) == {"id": event.pk, "kind": "unreadable"}


@pytest.mark.django_db(transaction=True)
def test_a_copy_takes_the_same_memory_however_long_it_is() -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    person = User.objects.create_user("dave", "", password=None)
    Membership.objects.create(tenant=acme, user=person)

    def peak(more: int) -> int:
        now = timezone.now()
        rows = [Event(kind="branch_opened", at=now, tenant=acme, subject=person, user_agent="x" * 100, data={"n": n}) for n in range(more)]
        Event.objects.bulk_create(rows, batch_size=1_000)
        rows.clear()
        tracemalloc.start()
        try:
            for piece in journal.lines(acme, journal.matching(acme, Criteria()), "csv"):
                assert piece
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = peak(4_000)
    assert peak(12_000) < 1.3 * short  # four times as many rows
    assert short < 30_000_000


def test_an_admin_of_another_place_gets_nothing(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    event = wrote("invited", acme)
    carol = visitor("carol")
    for path in (PAGE, f"{PAGE}{event.pk}/", EXPORT):
        assert carol.get(portal_url(path)).status_code == 404
    assert carol.post(portal_url(EXPORT), {"format": "csv"}).status_code == 404
