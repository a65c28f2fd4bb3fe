"""The console's sessions page: filters, ends of what matches, history, one person's tree, reports, and what the page asks by itself."""

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import RequestFactory
from django.utils import timezone

from identity import mails, mass, sessions
from identity.listing import Criteria
from identity.models import CODE, PASSWORD, RECOVERY, TRUSTED, Event, Link, Mail, MassEnd, Session, User
from portal.views.show import Row
from tenants.models import Membership, Tenant
from tests.browser.agents import IPHONE
from tests.test_console import HTMX, LIST, crowd, names, words
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
END, END_ALL, PULSE = f"{LIST}end", f"{LIST}end-all", f"{LIST}pulse"
Reason = Session.Reason


def set_up(person: str, **fields: Any) -> None:
    """Change the live branches of a person."""
    Session.objects.filter(user__username=person, tenant__isnull=False, ended_at=None).update(**fields)


def shown_number(page: str) -> str:
    found = re.search(r'name="shown" value="(\d+)"', page)
    assert found
    return found[1]


# --- Filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("factor=pwd", ["p000"]),
        ("factor=otp", ["p001"]),
        ("factor=recovery", ["p002"]),
        ("factor=trusted", ["p003"]),
        ("older=8h", ["p001"]),
        ("older=1d", []),
        ("idle=30m", ["p002"]),
        ("idle=4h", []),
        ("device=phone", ["p003"]),
        ("device=tablet", ["p002"]),
        ("device=computer", ["p001"]),
        ("device=other", ["p000"]),
        ("role=admin", ["p001"]),
        ("role=owner", []),
        ("person=P002", ["p002"]),
        ("person=p00", []),
        ("q=p00&factor=trusted&device=phone", ["p003"]),
        ("factor=trusted&device=tablet", []),
        ("factor=nonsense&older=tomorrow&idle=0h&device=fridge&role=king", ["p000", "p001", "p002", "p003"]),
        ("ended=by_admin", ["p000", "p001", "p002", "p003"]),
    ],
)
def test_each_filter_finds_what_it_names_and_counts_it(
    cast: dict[str, User], acme: Tenant, visitor: Open, query: str, found: list[str]
) -> None:
    crowd(acme, 4)
    now = timezone.now()
    set_up("p000", methods=[PASSWORD])
    set_up("p001", methods=[PASSWORD, CODE], created_at=now - timedelta(hours=9), device="computer")
    set_up("p002", methods=[PASSWORD, RECOVERY], last_seen_at=now - timedelta(hours=1), device="tablet")
    set_up("p003", methods=[PASSWORD, TRUSTED], device="phone")
    Membership.objects.filter(user__username="p001").update(role="admin")
    page = visitor("bob").get(portal_url(f"{LIST}?{query}")).content.decode()
    assert sorted(names(page)) == found
    count = len(found)
    assert (f"{count} of 4 sessions match" if count < 4 else "4 live sessions") in words(page)


@pytest.mark.parametrize(
    ("methods", "factor", "badge"),
    [
        ([], PASSWORD, "Password only"),
        ([PASSWORD], PASSWORD, "Password only"),
        ([PASSWORD, CODE], CODE, "Password + code"),
        ([PASSWORD, TRUSTED, CODE], CODE, "Password + code"),
        ([PASSWORD, RECOVERY, CODE], CODE, "Password + code"),
        ([PASSWORD, TRUSTED, RECOVERY], RECOVERY, "Recovery code"),
        ([PASSWORD, TRUSTED], TRUSTED, "Trusted browser"),
    ],
)
def test_the_factor_is_the_strongest_as_the_list_names_it(
    cast: dict[str, User], acme: Tenant, methods: list[str], factor: str, badge: str
) -> None:
    opened, _key = sessions.sign_in(cast["alice"], request=None, methods=methods, remember=False)
    later, _key = sessions.sign_in(cast["alice"], request=None, methods=[PASSWORD], remember=False)
    sessions.prove_again(later, request=RequestFactory().get("/"), methods=methods, at=timezone.now() + timedelta(seconds=1))
    for pk in (opened.pk, later.pk):
        row = Session.objects.get(pk=pk)
        assert (row.factor, Row.of(row).badge.text) == (factor, badge)


def test_criteria_come_back_from_an_address_and_from_json_as_they_were() -> None:
    asked = {
        "q": "dave",
        "factor": "otp",
        "older": "7d",
        "idle": "30m",
        "device": "phone",
        "role": "owner",
        "person": "dave",
        "ended": "idle",
    }
    criteria = Criteria.of(asked)
    assert criteria.as_query() == asked
    assert Criteria.of(criteria.as_query()) == criteria
    assert not Criteria.of({"factor": "x", "older": "9", "idle": "1000d", "device": None, "role": ["owner"], "q": "  "})


def test_every_filter_is_a_token_that_takes_itself_away(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 3)
    page = visitor("bob").get(portal_url(f"{LIST}?q=p0&factor=pwd&idle=15m&sort=person")).content.decode()
    found = re.findall(r'<a class="token" href="([^"]*)">(.*?)</a>', page)
    assert {words(label): url.replace("&amp;", "&") for url, label in found} == {
        "p0 remove this filter": f"{LIST}?factor=pwd&idle=15m&sort=person",
        "Password only remove this filter": f"{LIST}?q=p0&idle=15m&sort=person",
        "Not seen for 15 minutes remove this filter": f"{LIST}?q=p0&factor=pwd&sort=person",
    }
    assert "Filters (2)" in words(page)


def test_pages_and_orders_keep_the_filters(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    everyone = crowd(acme, 120)
    set_up("p000", methods=[PASSWORD, CODE])
    bob = visitor("bob")
    seen, url = [], f"{LIST}?factor=pwd&sort=expires"
    while url:
        page = bob.get(portal_url(url)).content.decode()
        assert "119 of 120 sessions match" in words(page)
        seen += names(page)
        older = re.search(r'href="([^"]*after=[^"]*)"', page)
        url = older[1].replace("&amp;", "&") if older else ""
    assert sorted(seen) == everyone[1:]


@pytest.mark.parametrize(
    ("query", "onward"),
    [("", "Older"), ("?sort=seen&dir=asc", "Further"), ("?sort=person", "Further"), ("?sort=person&dir=desc", "Further")],
)
def test_the_pager_speaks_of_age_where_time_goes_from_the_newest_only(
    cast: dict[str, User], acme: Tenant, visitor: Open, query: str, onward: str
) -> None:
    crowd(acme, 60)
    page = visitor("bob").get(portal_url(f"{LIST}{query}")).content.decode()
    assert re.findall(r'<a[^>]*href="[^"]*after=[^"]*"[^>]*>(\w+)</a>', page) == [onward]


@pytest.mark.parametrize(("direction", "first"), [("", "p004"), ("&dir=desc", "p000")])
def test_the_list_sorts_by_what_runs_out_first(cast: dict[str, User], acme: Tenant, visitor: Open, direction: str, first: str) -> None:
    crowd(acme, 5)
    for n in range(5):
        set_up(f"p00{n}", idle_expires_at=timezone.now() + timedelta(hours=9 - n))
    assert names(visitor("bob").get(portal_url(f"{LIST}?sort=expires{direction}")).content.decode())[0] == first


def test_a_sign_in_notes_its_kind_of_device(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", at="acme", user_agent=IPHONE)
    visitor("alice", at="acme")
    visitor("olivia", at="acme", user_agent="x")
    kinds = dict(Session.objects.filter(tenant__slug="acme").values_list("user__username", "device"))
    assert kinds == {"dave": "phone", "alice": "computer", "olivia": "other"}


# --- The history --------------------------------------------------------------------------------------------------


def test_the_history_says_who_when_and_why_and_is_searched_like_the_list(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, alice, bob = visitor("dave", at="acme"), visitor("alice", at="acme"), visitor("bob")
    bob.post(portal_url(END), {"ids": [str(dave.session("acme").pk)], "reason": "lost laptop"})
    sessions.end(Session.objects.filter(pk=alice.session("acme").pk), by=None, reason=Reason.IDLE)
    history = f"{LIST}?state=ended"
    both = words(bob.get(portal_url(history)).content.decode())
    assert "Ended by bob, just now · “lost laptop”" in both
    assert "Idle for too long, just now" in both
    for query, there, gone in (("ended=by_admin", "Dave", "Alice"), ("q=alice", "Alice", "Dave"), ("person=dave", "Dave", "Alice")):
        page = words(bob.get(portal_url(f"{history}&{query}")).content.decode())
        assert "1 of 2 sessions match" in page
        assert there in page
        assert f"{gone} " not in page.partition("How it ended")[2]


# --- Ending -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("7.4.5")
def test_everything_that_matches_ends_after_a_preview_a_number_and_a_reason(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 14)
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    asked = {"q": "p0"}
    page = bob.post(portal_url(END_ALL), asked).content.decode()
    assert "End 14 sessions that match?" in words(page)
    assert "What matches: p0" in words(page)
    assert len(re.findall(r"<li><span>p0\d\d:", page)) == 10
    assert "and 4 more" in words(page)
    typed = {**asked, "shown": "14", "number": "14"}
    assert "Say why" in bob.post(portal_url(END_ALL), typed).content.decode()
    assert "Type 14, so that" in bob.post(portal_url(END_ALL), {**typed, "reason": "x", "number": "13"}).content.decode()
    assert Session.objects.alive_at(acme).count() == 15
    answer = bob.post(portal_url(END_ALL), {**typed, "reason": "incident"})
    assert bob.url == portal_url(f"{LIST}?q=p0")
    assert re.search(r"14 sessions are over\. Committed \d\d:\d\d:\d\d\.\d{3}, after \d+ ms\.", words(answer.content.decode()))
    assert list(Session.objects.alive_at(acme)) == [dave.session("acme")]
    assert Event.objects.filter(kind="session_ended", data__note="incident").count() == 14


def test_a_number_that_changed_meanwhile_is_asked_for_again(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 5)
    bob = visitor("bob")
    shown = shown_number(bob.post(portal_url(END_ALL), {"factor": "pwd"}).content.decode())
    set_up("p000", methods=[PASSWORD, CODE])
    typed = {"factor": "pwd", "number": shown, "reason": "x"}
    page = bob.post(portal_url(END_ALL), {**typed, "shown": shown}).content.decode()
    assert f"There are {int(shown) - 1} now, it was {shown}." in words(page)
    assert Session.objects.alive_at(acme).count() == 5
    bob.post(portal_url(END_ALL), {**typed, "number": f"{int(shown) - 1}", "shown": shown_number(page)})
    assert Session.objects.alive_at(acme).count() == 1


def test_among_thousands_one_in_a_hundred_is_no_other_number(
    cast: dict[str, User], acme: Tenant, visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass, "DIRECTLY", 100)
    crowd(acme, 200)
    bob = visitor("bob")
    typed = {"q": "p", "reason": "x"}
    assert "it was 203" in bob.post(portal_url(END_ALL), {**typed, "number": "203", "shown": "203"}).content.decode()
    answer = words(bob.post(portal_url(END_ALL), {**typed, "number": "201", "shown": "201"}).content.decode())
    assert "200 sessions are being ended." in answer
    assert "0 of 200 are over; the rest follows, batch by batch." in answer


@pytest.mark.asvs("7.5.3")
def test_the_preview_is_shown_after_a_fresh_proof_only(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 3)
    bob = visitor("bob")
    Session.objects.filter(pk=bob.session().pk).update(proved_at=timezone.now() - timedelta(minutes=11))
    page = bob.post(portal_url(END_ALL), {"q": "p0"}).content.decode()
    assert "Prove that it is you" in page
    assert "p000" not in page
    page = bob.post(portal_url(END_ALL), {"q": "p0", "proof-password": "gatehouse-demo"}).content.decode()
    assert "End 3 sessions that match?" in words(page)


@pytest.mark.asvs("7.4.5")
@pytest.mark.parametrize("own", [False, True])
def test_the_whole_tenant_ends_and_the_own_browser_stays_unless_ticked(cast: dict[str, User], visitor: Open, own: bool) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob", at="acme")
    assert "End the session of Acme?" in words(bob.post(portal_url(END_ALL), {"scope": "tenant"}).content.decode())
    typed = {"scope": "tenant", "shown": "1", "number": "1", "reason": "incident", **({"own": "1"} if own else {})}
    bob.post(portal_url(END_ALL), typed)
    assert not dave.is_in("acme")
    assert bob.is_in("acme") is not own
    assert bob.is_in()
    bob.get(portal_url(LIST))
    assert bob.url.startswith(portal_url("/step-up/")) is own


def test_an_end_of_nothing_in_particular_is_refused(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 3)
    bob = visitor("bob")
    for data in ({}, {"factor": "nonsense"}, {"ended": "idle"}):
        answer = bob.post(portal_url(END_ALL), {**data, "shown": "3", "number": "3", "reason": "x"})
        assert "Filter the sessions first" in answer.content.decode()
    assert "Nothing is left to end" in bob.post(portal_url(END_ALL), {"q": "nobody"}).content.decode()
    assert Session.objects.alive_at(acme).count() == 3


def test_an_end_of_many_by_htmx_answers_the_list_and_the_proof(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    crowd(acme, 3)
    bob = visitor("bob")
    partial = bob.post(portal_url(END_ALL), {"q": "p0"}, **HTMX).content.decode()
    assert "<html" not in partial
    typed = {"q": "p0", "shown": "3", "number": "3", "reason": "x"}
    page = bob.post(portal_url(END_ALL), typed, **HTMX).content.decode()
    assert "<html" not in page
    assert 'hx-swap-oob="outerHTML:#sessions"' in page
    assert "3 sessions are over." in words(page)
    assert Event.objects.get(kind="mass_end_asked").reference in page


@pytest.mark.asvs("7.4.5")
def test_one_dialog_ends_all_that_a_person_has_here(cast: dict[str, User], visitor: Open) -> None:
    laptop, phone, bob = visitor("dave", at="acme"), visitor("dave", at="acme", user_agent=IPHONE), visitor("bob")
    laptop.get(tenant_url("globex"))
    only = {"only": str(laptop.session("acme").pk)}
    assert "End all 2 sessions that Dave Vance has here" in words(bob.post(portal_url(END), only).content.decode())
    page = words(bob.post(portal_url(END), {**only, "all": "1", "reason": "lost"}).content.decode())
    assert "2 sessions of Dave Vance are over." in page
    assert not laptop.is_in("acme")
    assert not phone.is_in("acme")
    assert laptop.is_in("globex")


def test_end_and_block_holds_until_it_is_lifted(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    only = {"only": str(dave.session("acme").pk)}
    assert "block the way into Acme until lifted" in words(bob.post(portal_url(END), only).content.decode())
    bob.post(portal_url(END), {**only, "block": "1", "reason": "x"})
    assert not dave.is_in("acme")
    assert visitor("dave").get(tenant_url("acme")).status_code == 403


def test_the_progress_of_an_end_says_what_is_in_force(
    cast: dict[str, User], acme: Tenant, visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass, "DIRECTLY", 10)
    monkeypatch.setattr(mass, "BATCH", 10)
    crowd(acme, 25)
    bob = visitor("bob")
    typed = {"scope": "tenant", "shown": "25", "number": "25", "reason": "incident"}
    page = words(bob.post(portal_url(END_ALL), typed).content.decode())
    assert "25 sessions of Acme are over." in page
    assert re.search(r"0 of 25 marked; all are over since \d\d:\d\d:\d\d\.\d{3}\.", page)
    mass.end_batch()
    assert "10 of 25 marked" in words(bob.get(portal_url(LIST)).content.decode())
    mass.carry_on()
    assert re.search(r"All 25 are over since [\d:.]+, and marked since [\d:.]+\.", words(bob.get(portal_url(LIST)).content.decode()))
    MassEnd.objects.update(finished_at=timezone.now() - timedelta(minutes=11))
    assert "marked since" not in words(bob.get(portal_url(LIST)).content.decode())


# --- What the page asks by itself ---------------------------------------------------------------------------------


def pulse_of(page: str) -> str:
    found = re.search(r'hx-get="([^"]*)" hx-trigger="pulse"', page)
    assert found
    return portal_url(found[1].replace("&amp;", "&"))


def test_an_open_list_hears_of_what_is_new_and_its_rows_stay(cast: dict[str, User], visitor: Open) -> None:
    alice, bob = visitor("alice", at="acme"), visitor("bob")
    url = pulse_of(bob.get(portal_url(LIST)).content.decode())
    assert bob.get(url, **HTMX).status_code == 204
    visitor("dave", at="acme")
    sessions.end(Session.objects.filter(pk=alice.session("acme").pk), by=None, reason=Reason.IDLE)
    answer = bob.get(url, **HTMX).content.decode()
    assert "1 new session · 1 ended Show" in words(answer)
    assert "1 live session" in words(answer)
    assert "<tr" not in answer
    assert bob.get(pulse_of(answer), **HTMX).status_code == 204
    assert bob.get(url).content.count(b"<html") == 1  # by hand it is the page


@pytest.mark.asvs("7.3.1")
def test_the_list_that_asks_by_itself_is_no_activity(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    url = pulse_of(bob.get(portal_url(LIST)).content.decode())
    before = timezone.now() - timedelta(hours=1)
    Session.objects.filter(pk=bob.session().pk).update(last_seen_at=before)
    bob.get(url, **HTMX)
    assert bob.session().last_seen_at == before
    bob.get(portal_url(LIST))
    assert bob.session().last_seen_at > before


# --- One person's tree --------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.2.3", "8.4.1")
def test_the_tree_shows_this_tenants_branches_and_of_the_sign_in_no_more_than_its_beginning(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme", address="203.0.113.7"), visitor("bob")
    dave.get(tenant_url("globex"))
    phone = visitor("dave", at="acme", user_agent=IPHONE)
    root, branch, foreign = dave.session(), dave.session("acme"), dave.session("globex")
    Session.objects.filter(pk=root.pk).update(last_seen_at=timezone.now() - timedelta(minutes=17))
    answer = bob.get(portal_url(f"{LIST}{branch.pk}/"))
    page = answer.content.decode()
    assert answer.status_code == 200
    assert {str(branch.pk), str(phone.session("acme").pk)} <= set(re.findall(r'data-session="([^"]+)"', page))
    for hidden in (str(root.pk), str(foreign.pk), "Globex", "17 minutes ago"):
        assert hidden not in page
    assert "203.0.113.7" in page
    assert "2 live sessions at Acme" in words(page)
    assert f'href="{LIST}{branch.pk}/"' in bob.get(portal_url(LIST)).content.decode()


def test_a_session_leads_to_its_person_as_long_as_that_is_a_member(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    url = portal_url(f"{LIST}{dave.session('acme').pk}/")
    assert 'href="/console/acme/people/dave/"' in bob.get(url).content.decode()
    Membership.objects.filter(tenant=acme, user=cast["dave"]).delete()
    assert 'href="/console/acme/people/dave/"' not in bob.get(url).content.decode()


@pytest.mark.asvs("8.2.2")
def test_a_session_of_elsewhere_has_no_page_and_no_report(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="globex"), visitor("bob")
    for pk in (dave.session("globex").pk, dave.session().pk, uuid.uuid4()):
        assert bob.get(portal_url(f"{LIST}{pk}/")).status_code == 404
        assert bob.post(portal_url(f"{LIST}{pk}/report")).status_code == 404
    assert Event.objects.filter(kind="foreign_session", tenant__slug="acme", actor=cast["bob"]).count() == 6
    assert not Mail.objects.filter(kind__in=["compromised", "reported"]).exists()
    assert dave.is_in("globex")


def test_an_end_from_the_tree_comes_back_to_it(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    pk = str(dave.session("acme").pk)
    bob.post(portal_url(END), {"only": pk, "from": pk, "reason": "x"})
    assert bob.url == portal_url(f"{LIST}{pk}/")
    assert "Ended by bob, just now" in words(bob.page.content.decode())


# --- In wrong hands -----------------------------------------------------------------------------------------------


def test_a_report_mails_the_owner_a_way_out_and_tells_the_operators_once_an_hour(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme", address="203.0.113.7"), visitor("bob")
    report = portal_url(f"{LIST}{dave.session('acme').pk}/report")
    assert "Reported. Dave Vance gets a mail" in words(bob.post(report).content.decode())
    assert "once an hour is enough" in words(bob.post(report).content.decode())
    assert dave.is_in("acme")
    mails.deliver()
    sent = {each.to[0]: str(each.body) for each in mail.outbox}
    assert set(sent) == {cast["dave"].email, cast["erin"].email}
    assert "203.0.113.7" in sent[cast["dave"].email]
    assert "Bob Marsh (bob), who runs Acme, says that a session of Dave Vance (dave)" in sent[cast["erin"].email]
    assert Event.objects.get(kind="session_reported").data == {"mailed": True}
    link = re.search(r"http\S+/link/not-me/\S+/", sent[cast["dave"].email])
    assert link
    dave.get(tenant_url("globex"))
    owner = visitor()
    owner.get(link[0])
    owner.post(link[0])
    assert not dave.is_in()
    assert not dave.is_in("globex")
    assert not User.objects.get(username="dave").has_usable_password()


def test_a_report_of_somebody_without_a_proven_address_tells_the_operators(cast: dict[str, User], visitor: Open) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    User.objects.filter(username="dave").update(email_verified_at=None)
    text = words(bob.post(portal_url(f"{LIST}{dave.session('acme').pk}/report")).content.decode())
    assert "Dave Vance has no proven e-mail address and could not be told." in text
    assert list(Mail.objects.values_list("kind", flat=True)) == ["reported"]
    assert not Link.objects.filter(purpose="not_me").exists()
