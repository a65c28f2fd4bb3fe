"""The console's sessions page: finding, ending, and being told."""

import gzip
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from identity import sessions
from identity.models import Event, Session, User
from tenants.models import Membership, Tenant
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
LIST = "/console/acme/sessions/"
END = "/console/acme/sessions/end"
HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}


def crowd(tenant: Tenant, count: int) -> list[str]:
    """Many people signed in, each a minute longer ago than the one before; returns their names, newest first."""
    now = timezone.now()
    people = User.objects.bulk_create(
        User(username=f"p{n:03}", name_key=f"p{n:03}", search_text=f"p{n:03} p{n:03}@acme.example", email=f"p{n:03}@acme.example")
        for n in range(count)
    )
    Membership.objects.bulk_create(Membership(tenant=tenant, user=user) for user in people)
    times = {"created_at": now, "authenticated_at": now, "proved_at": now, "expires_at": now + timedelta(hours=9)}
    portals, branches = [], []
    for n, user in enumerate(people):
        seen = now - timedelta(minutes=n)
        common = {**times, "user": user, "last_seen_at": seen, "idle_expires_at": now + timedelta(hours=8), "ip": f"203.0.113.{n % 200}"}
        portal = Session(key_digest=uuid.uuid4().hex, **common)
        portals.append(portal)
        branches.append(Session(key_digest=uuid.uuid4().hex, tenant=tenant, parent=portal, **common))
    Session.objects.bulk_create(portals)
    Session.objects.bulk_create(branches)
    return [user.username for user in people]


def words(page: str) -> str:
    """What a reader sees of a page."""
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def names(page: str) -> list[str]:
    return re.findall(r"<b>(p\d{3})</b>", page)


def test_every_live_session_is_listed_once_over_all_pages_and_back(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    everyone = crowd(acme, 120)
    bob = visitor("bob")
    page = bob.get(portal_url(LIST)).content.decode()
    assert "120 live sessions" in words(page)
    seen = names(page)
    pages = [page]
    while older := re.search(r'href="([^"]*after=[^"]*)"', page):
        page = bob.get(portal_url(older[1].replace("&amp;", "&"))).content.decode()
        seen += names(page)
        pages.append(page)
    assert seen == everyone
    assert len(pages) == 3
    newer = re.search(r'href="([^"]*before=[^"]*)"', page)
    assert newer
    assert names(bob.get(portal_url(newer[1].replace("&amp;", "&"))).content.decode()) == everyone[50:100]


def test_a_full_page_is_light(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    """Under 60 kB on the way, for a phone in the cellar."""
    crowd(acme, 60)
    answer = visitor("bob").get(portal_url(LIST), HTTP_ACCEPT_ENCODING="gzip")
    assert answer["Content-Encoding"] == "gzip"
    assert len(names(gzip.decompress(answer.content).decode())) == 50
    assert len(answer.content) < 60_000


@pytest.mark.parametrize(("sort", "first"), [("person", "p000"), ("person&dir=desc", "p059"), ("seen", "p000"), ("seen&dir=asc", "p059")])
def test_the_list_sorts_both_ways(cast: dict[str, User], acme: Tenant, visitor: Open, sort: str, first: str) -> None:
    crowd(acme, 60)
    assert names(visitor("bob").get(portal_url(f"{LIST}?sort={sort}")).content.decode())[0] == first


@pytest.mark.parametrize(
    ("q", "count"),
    [
        ("p007", 1),
        ("P007@ACME", 1),
        ("p00", 10),
        ("203.0.113.7", None),
        ("203.0.113.", 30),
        ("198.51.", 0),
        ("%", 0),
        ("_", 0),
        ("'", 0),
        ("\\", 0),
    ],
)
@pytest.mark.asvs("1.2.4", "1.2.9")
def test_the_search_finds_names_addresses_and_nothing_else(
    cast: dict[str, User], acme: Tenant, visitor: Open, q: str, count: int | None
) -> None:
    from urllib.parse import quote

    crowd(acme, 30)
    page = visitor("bob").get(portal_url(f"{LIST}?q={quote(q)}")).content.decode()
    if count is not None:
        assert len(names(page)) == count
    else:
        assert "p007" in names(page)
    assert "of 30 live sessions" in words(page) or "of 30 sessions" in words(page)


@pytest.mark.asvs("1.4.2")
@pytest.mark.parametrize(
    "query", ["after=x", "after=eyJh", "before=" + "A" * 3000, "sort=nonsense", "dir=up", "state=x", "q=" + "x" * 5000, "after=W10"]
)
def test_a_state_in_the_url_that_does_not_fit_is_no_500(cast: dict[str, User], acme: Tenant, visitor: Open, query: str) -> None:
    assert visitor("bob").get(portal_url(f"{LIST}?{query}")).status_code in {200, 404}


def test_ending_without_a_reason_asks_first(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    data = {"ids": [str(dave.session("acme").pk)]}
    page = bob.post(portal_url(END), data).content.decode()
    assert "End this session of Dave Vance?" in page
    empty = bob.post(portal_url(END), {**data, "reason": "  "}).content.decode()
    assert "Say why" in empty
    partial = bob.post(portal_url(END), data, **HTMX).content.decode()
    assert "<html" not in partial
    assert "End this session of Dave Vance?" in partial
    assert dave.is_in("acme")


@pytest.mark.asvs("7.4.5")
def test_an_end_with_htmx_answers_the_rows_and_the_proof(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, bob = visitor("dave", at="acme"), visitor("alice", at="acme"), visitor("bob")
    ids = [str(browser.session("acme").pk) for browser in (dave, alice)]
    answer = bob.post(portal_url(END), {"ids": ids, "reason": "Left the\ncompany"}, **HTMX)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "<html" not in text
    for pk in ids:
        assert f'data-session="{pk}"' in text
    assert "Ended by bob, just now" in text
    event = Event.objects.filter(kind="session_ended").latest("pk")
    assert event.reference in text
    assert not dave.is_in("acme")
    assert not alice.is_in("acme")


def test_only_names_one_row_and_ignores_the_ticks(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, bob = visitor("dave", at="acme"), visitor("alice", at="acme"), visitor("bob")
    data = {"only": str(dave.session("acme").pk), "ids": [str(alice.session("acme").pk)], "reason": "x"}
    bob.post(portal_url(END), data)
    assert not dave.is_in("acme")
    assert alice.is_in("acme")


def test_ended_ids_are_ignored(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, bob = visitor("dave", at="acme"), visitor("alice", at="acme"), visitor("bob")
    gone, live = dave.session("acme"), alice.session("acme")
    sessions.end(Session.objects.filter(pk=gone.pk), by=cast["olivia"], reason=Session.Reason.BY_ADMIN, note="first")
    assert bob.post(portal_url(END), {"ids": [str(gone.pk), str(live.pk)], "reason": "second"}, follow=False).status_code == 303
    gone.refresh_from_db()
    assert (gone.end_note, gone.ended_by) == ("first", cast["olivia"])
    assert not alice.is_in("acme")
    assert bob.post(portal_url(END), {"ids": [str(gone.pk)], "reason": "again"}, follow=False).status_code == 303


def test_an_ended_branch_leaves_the_persons_others_alone(cast: dict[str, User], visitor: Open) -> None:
    laptop, phone, bob = visitor("dave", at="acme"), visitor("dave", at="acme"), visitor("bob")
    bob.post(portal_url(END), {"ids": [str(laptop.session("acme").pk)], "reason": "lost"})
    assert not laptop.is_in("acme")
    assert phone.is_in("acme")


@pytest.mark.asvs("1.1.2", "1.3.7")
def test_the_ended_list_says_who_and_why(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    bob.post(portal_url(END), {"ids": [str(dave.session("acme").pk)], "reason": "<i>lost</i> {{x}}"})
    page = bob.get(portal_url(f"{LIST}?state=ended")).content.decode()
    assert "Ended by bob" in page
    assert "&lt;i&gt;lost&lt;/i&gt; {{x}}" in page


def test_the_console_falls_under_admission(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob", at="acme")
    sessions.end(Session.objects.filter(pk=bob.session("acme").pk), by=cast["olivia"], reason=Session.Reason.BY_ADMIN)
    bob.get(portal_url(LIST))
    assert bob.url.startswith(portal_url("/step-up/"))
    bob.post(bob.url, {"password": "gatehouse-demo"})
    assert bob.url == portal_url(LIST)
    Membership.objects.filter(user=cast["bob"]).update(blocked_at=timezone.now())
    assert bob.get(portal_url(LIST)).status_code == 404


@pytest.mark.asvs("8.3.2")
def test_a_role_that_is_taken_away_is_gone_with_the_next_request(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    assert bob.get(portal_url(LIST)).status_code == 200
    Membership.objects.filter(user=cast["bob"]).update(role="member")
    assert bob.get(portal_url(LIST)).status_code == 404


def test_an_admin_of_a_suspended_tenant_finds_no_console_but_an_operator_does(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob, erin = visitor("bob"), visitor("erin")
    Tenant.objects.filter(pk=acme.pk).update(status="suspended")
    assert bob.get(portal_url(LIST)).status_code == 404
    assert erin.get(portal_url(LIST)).status_code == 200


@pytest.mark.asvs("3.5.1", "16.3.3")
def test_a_siblings_page_cannot_end_anything(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    data = {"ids": [str(dave.session("acme").pk)], "reason": "x"}
    assert bob.post(portal_url(END), data, csrf=False).status_code == 403
    for origin in ("http://globex.portal.localhost:8000", "http://acme.portal.localhost:8000", "null", "https://evil.example"):
        assert bob.post(portal_url(END), data, HTTP_ORIGIN=origin).status_code == 403
    assert dave.is_in("acme")
    assert Event.objects.filter(kind="csrf_refused").count() == 5


@pytest.mark.skipif(connection.vendor != "postgresql", reason="a question of PostgreSQL's planner")
def test_the_list_is_served_by_its_index(cast: dict[str, User], acme: Tenant) -> None:
    crowd(acme, 400)
    rows = Session.objects.filter(tenant=acme, ended_at=None).order_by("-last_seen_at", "-pk")[:51]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE identity_session")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")  # few rows here; with a million the planner needs no such hint
    assert "live_by_seen" in rows.explain()


@pytest.mark.asvs("1.3.3")
def test_hostile_text_is_shown_as_text(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(first_name="<img src=x onerror=alert(1)>", last_name='" hx-get="/x')
    agent = "<script>alert(1)</script>\u202e{{7*7}}"
    dave = visitor("dave", at="acme", user_agent=agent)
    assert "\u202e" not in dave.session("acme").user_agent
    for browser, url in ((visitor("bob"), LIST), (dave, "/account/sessions/"), (dave, "/")):
        text = browser.get(portal_url(url)).content.decode()
        assert "<img src=x" not in text
        assert "<script>alert" not in text
        assert ' hx-get="/x' not in text
    assert dave.get(tenant_url("acme")).status_code == 200


def test_a_part_of_a_page_without_a_session_sends_the_whole_page_away(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    sessions.end(Session.objects.filter(user=cast["bob"]), by=None, reason=Session.Reason.BY_OPERATOR)
    answer = bob.post(portal_url(END), {"ids": ["x"]}, HTTP_HX_CURRENT_URL=portal_url(LIST), **HTMX)
    assert answer["HX-Redirect"] == "/login/?next=%2Fconsole%2Facme%2Fsessions%2F"
    assert answer.content == b""


def test_the_counts_follow_an_end_in_place(cast: dict[str, User], visitor: Open) -> None:
    dave, alice, bob = visitor("dave", at="acme"), visitor("alice", at="acme"), visitor("bob")
    dave_id, alice_id = str(dave.session("acme").pk), str(alice.session("acme").pk)
    page = words(bob.post(portal_url(END), {"ids": [dave_id], "reason": "x", "q": "a"}, **HTMX).content.decode())
    assert "1 of 1 session matches" in page
    again = words(bob.post(portal_url(END), {"ids": [dave_id]}, **HTMX).content.decode())
    assert "That session was over already." in again
    both = words(bob.post(portal_url(END), {"ids": [dave_id, alice_id], "reason": "x"}, **HTMX).content.decode())
    assert "1 session of Alice Keller is over. 1 more was over already." in both
    assert "0 live sessions" in both


def test_the_console_marks_ones_own_browser(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob", at="acme")
    assert "This browser" in bob.get(portal_url(LIST)).content.decode()
    answer = words(bob.post(portal_url(END), {"ids": [str(bob.session("acme").pk)]}).content.decode())
    assert "Your own session in this browser is among them" in answer
    bob.post(portal_url(END), {"ids": [str(bob.session("acme").pk)], "reason": "x"})
    assert "You ended this session yourself, from the console." in bob.get(tenant_url("acme")).content.decode()
