"""Signing in across hosts: what opens a branch, and everything that does not."""

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.utils import timezone

from identity import sessions
from identity.models import Event, Session, Ticket, User
from identity.tickets import Browser, State
from tenants.models import Membership, Tenant
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]


def ticket_for(browser: Visitor, slug: str = "acme", path: str = "/") -> str:
    """The address of `finish` with a fresh ticket, not yet visited."""
    browser.get(tenant_url(slug, f"/_portal/start?next={quote(path)}"), follow=False)
    browser.get(browser.page["Location"], follow=False)
    address: str = browser.page["Location"]
    assert "/_portal/finish?ticket=" in address, address
    return address


def branches() -> int:
    return Session.objects.filter(tenant__isnull=False, ended_at=None).count()


def test_the_first_visit_leads_through_the_portal_and_back_to_the_page(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor()
    dave.get(tenant_url("acme", "/?a=1&b=%C3%BC"))
    assert "to continue to" in dave.page.content.decode()
    assert 'data-brand="acme"' in dave.page.content.decode()
    dave.post(dave.url, {"username": "dave", "password": "gatehouse-demo"})
    assert dave.url == tenant_url("acme", "/?a=1&b=%C3%BC")
    assert dave.is_in("acme")


@pytest.mark.asvs("9.2.1", "2.3.1", "16.3.3")
def test_a_ticket_opens_once(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    dave.get(address, follow=False)
    assert (dave.page.status_code, dave.page["Location"]) == (302, tenant_url("acme"))
    dave.cookies = [cookie for cookie in dave.cookies if cookie.name != "session"]
    again = dave.get(address, follow=False)
    assert again.status_code == 403
    assert "This door closed again" in again.content.decode()
    assert branches() == 1
    assert Event.objects.filter(kind="hand_off_refused").count() == 1


def test_a_hand_off_whose_answer_got_lost_with_its_worker_begins_anew(
    cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest
) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1"]  # type: ignore[attr-defined]
    dave = visitor("dave")
    address = ticket_for(dave)
    dave.get(address, follow=False, HTTP_X_REQUEST_ID="a" * 32)
    dave.cookies = [cookie for cookie in dave.cookies if cookie.name != "session"]
    assert dave.get(address, follow=False, HTTP_X_REQUEST_ID="b" * 32).status_code == 403
    assert dave.get(address, HTTP_X_REQUEST_ID="a" * 32).status_code == 200
    assert dave.url == tenant_url("acme")
    assert Session.objects.filter(tenant__slug="acme", ended_at=None).count() == 1


def test_who_learns_the_id_of_anothers_request_ends_nothing_by_it(
    cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest
) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1"]  # type: ignore[attr-defined] # one that passes on which id a client has chosen
    dave, alice = visitor("dave"), visitor("alice")
    daves, alices = ticket_for(dave), ticket_for(alice)
    dave.get(daves, follow=False, HTTP_X_REQUEST_ID="a" * 32)
    alice.get(alices, follow=False, HTTP_X_REQUEST_ID="b" * 32)
    for stranger, address in ((alice, alices), (alice, daves), (visitor(), daves)):
        stranger.cookies = [cookie for cookie in stranger.cookies if cookie.name != "session"]
        assert stranger.get(address, follow=False, HTTP_X_REQUEST_ID="a" * 32).status_code == 403
    assert Session.objects.filter(tenant__slug="acme", ended_at=None).count() == 2


@pytest.mark.asvs("9.2.1")
def test_a_late_ticket_opens_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    Ticket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert dave.get(address, follow=False).status_code == 403
    assert branches() == 0


@pytest.mark.asvs("7.6.2")
def test_another_browser_opens_nothing_and_burns_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave, mallory = visitor("dave"), visitor()
    address = ticket_for(dave)
    assert mallory.get(address, follow=False).status_code == 403
    mallory.get(tenant_url("acme", "/_portal/start"), follow=False)  # a start cookie of his own does not help
    assert mallory.get(address, follow=False).status_code == 403
    assert dave.get(address).status_code == 200
    assert dave.is_in("acme")


@pytest.mark.asvs("7.6.2")
def test_mallory_cannot_sign_dave_in_as_mallory(cast: dict[str, User], visitor: Open) -> None:
    """Login CSRF: mallory's ticket and state, followed in dave's browser."""
    alice, dave = visitor("alice"), visitor()
    dave.get(tenant_url("acme"), follow=False)
    assert dave.get(ticket_for(alice), follow=False).status_code == 403
    assert not dave.is_in("acme")


@pytest.mark.asvs("9.2.3", "9.2.4")
def test_a_ticket_for_acme_is_worthless_at_globex(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.get(tenant_url("globex", "/_portal/start"), follow=False)
    address = ticket_for(dave)
    elsewhere = address.replace("//acme.", "//globex.")
    assert dave.get(elsewhere, follow=False).status_code == 403
    assert branches() == 0
    assert dave.get(address, follow=False).status_code == 302


@pytest.mark.asvs("2.3.1")
def test_a_state_of_another_hand_off_does_not_fit(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    first, second = ticket_for(dave, path="/a"), ticket_for(dave, path="/b")
    states = [parse_qs(urlsplit(address).query)["state"][0] for address in (first, second)]
    mixed = first.replace(quote(states[0], safe=""), quote(states[1], safe=""))
    assert mixed != first
    assert dave.get(mixed, follow=False).status_code == 403
    assert dave.get(first, follow=False).status_code == 302


@pytest.mark.asvs("9.1.1")
def test_a_changed_state_or_ticket_is_refused(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    at = address.index("ticket=") + 10
    for position in (at, len(address) - 3):
        flipped = address[:position] + ("A" if address[position] != "A" else "B") + address[position + 1 :]
        assert dave.get(flipped, follow=False).status_code == 403
    assert branches() == 0


def test_a_preview_burns_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave, scanner = visitor("dave"), visitor()
    address = ticket_for(dave)
    assert dave.head(address).status_code == 405
    scanner.get(address, follow=False)
    assert dave.get(address, follow=False).status_code == 302


@pytest.mark.parametrize("what", ["suspended", "blocked", "removed", "deactivated", "ended"])
def test_what_happens_between_ticket_and_finish_counts(cast: dict[str, User], acme: Tenant, visitor: Open, what: str) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    user = cast["dave"]
    match what:
        case "suspended":
            Tenant.objects.filter(pk=acme.pk).update(status="suspended")
        case "blocked":
            Membership.objects.filter(tenant=acme, user=user).update(blocked_at=timezone.now())
        case "removed":
            Membership.objects.filter(tenant=acme, user=user).delete()
        case "deactivated":
            User.objects.filter(pk=user.pk).update(is_active=False)
        case "ended":
            sessions.end(Session.objects.filter(user=user), by=None, reason=Session.Reason.BY_OPERATOR)
    assert dave.get(address, follow=False).status_code == 403
    assert branches() == 0


def test_the_same_browser_again_keeps_its_branch(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    before = dave.session("acme").pk
    second = visitor()
    second.cookies = [cookie for cookie in dave.cookies if cookie.name != "session"]
    address = ticket_for(second)
    dave.get(address, follow=False)
    assert dave.page.status_code == 302
    assert dave.session("acme").pk == before
    assert branches() == 1


def test_another_persons_branch_is_ended_first(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor("alice", at="acme")
    old = browser.session("acme")
    browser.cookies = [cookie for cookie in browser.cookies if cookie.name != "portal"]
    browser.sign_in("dave", "gatehouse-demo")
    browser.get(ticket_for_with_branch(browser), follow=False)
    old.refresh_from_db()
    assert old.end_reason == Session.Reason.REPLACED
    assert browser.session("acme").user == cast["dave"]


def ticket_for_with_branch(browser: Visitor) -> str:
    """A ticket in a browser that holds a live branch, so that `start` would not send it on."""
    kept = browser.cookies
    browser.cookies = [cookie for cookie in kept if cookie.name != "session"]
    address = ticket_for(browser)
    browser.cookies = [*browser.cookies, *(cookie for cookie in kept if cookie.name == "session")]
    return address


def test_tabs_do_not_disturb_each_other(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    first, second = ticket_for(dave, path="/?tab=1"), ticket_for(dave, path="/?tab=2")
    dave.get(second, follow=False)
    assert dave.page["Location"] == tenant_url("acme", "/?tab=2")
    dave.get(first, follow=False)
    assert dave.page["Location"] == tenant_url("acme", "/?tab=1")
    assert branches() == 1


@pytest.mark.asvs("3.7.5")
def test_a_browser_that_loses_the_cookie_gets_a_page_instead_of_a_loop(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    for _ in range(3):
        dave.get(tenant_url("acme"))
        assert dave.url == tenant_url("acme")
        dave.cookies = [cookie for cookie in dave.cookies if cookie.name != "session"]
    dave.get(tenant_url("acme"))
    dave.cookies = [cookie for cookie in dave.cookies if cookie.name != "session"]
    dave.get(tenant_url("acme"))
    assert dave.page.status_code == 409
    assert "cookie" in dave.page.content.decode()
    assert Event.objects.filter(kind="hand_off_loop").count() == 1


@pytest.mark.asvs("2.3.1", "3.4.5")
def test_an_entry_without_state_starts_at_the_tenant(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    answer = dave.get(portal_url("/enter/acme/"), follow=False)
    assert (answer.status_code, answer["Location"]) == (302, tenant_url("acme", "/_portal/start"))
    assert answer["Referrer-Policy"] == "no-referrer"
    dave.get(portal_url("/enter/acme/?state=rubbish"))
    assert dave.url == tenant_url("acme")


def test_strangers_see_the_same_for_no_membership_and_no_tenant(cast: dict[str, User], visitor: Open) -> None:
    alice = visitor("alice")
    alice.get(tenant_url("globex"))
    closed = alice.page
    assert closed.status_code == 403
    none = alice.get(portal_url("/enter/nowhere/"))
    assert none.status_code == 403
    bare = [page.content.decode().replace(str(page.headers.get("X-Request-ID")), "") for page in (closed, none)]
    import re

    neutral = [re.sub(r'nonce="[^"]+"|value="[A-Za-z0-9]{64}"|value="/enter/[^"]*"', "", text) for text in bare]
    assert neutral[0] == neutral[1]
    assert "Globex" not in neutral[0]


def test_a_proven_member_is_told_the_truth(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave")
    Tenant.objects.filter(pk=acme.pk).update(status="suspended")
    page = dave.get(tenant_url("acme"))
    assert page.status_code == 403
    assert "Acme is suspended" in page.content.decode()
    assert "it@acme.example" in page.content.decode()


@pytest.mark.asvs("3.4.5", "16.2.5")
def test_the_ticket_is_in_no_log_and_no_referrer(cast: dict[str, User], visitor: Open, caplog: pytest.LogCaptureFixture) -> None:
    dave = visitor("dave")
    address = ticket_for(dave)
    ticket = parse_qs(urlsplit(address).query)["ticket"][0]
    assert dave.page["Referrer-Policy"] == "no-referrer"
    dave.get(address, follow=False)
    assert dave.page["Referrer-Policy"] == "no-referrer"
    dave.get(address, follow=False)
    assert ticket not in caplog.text
    assert not any(ticket in str(event) for event in Event.objects.values())


@pytest.mark.asvs("9.2.1")
def test_a_state_ends_after_ten_minutes(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    state = State.make(acme, acme.hostname, "/", Browser.new())
    assert State.read(state.text) == state
    now = time.time()
    monkeypatch.setattr("django.core.signing.time.time", lambda: now + 601)
    assert State.read(state.text) is None


def test_form_action_names_the_target_of_the_hand_off(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor()
    dave.get(tenant_url("acme"))
    assert "form-action 'self' http://acme.portal.localhost:8000;" in dave.page["Content-Security-Policy"] + ";"
    dave.get(portal_url("/login/"))
    assert "acme" not in dave.page["Content-Security-Policy"]
