"""Who is locked out, and opening it: on the command line, in a tenant's console, in the platform's."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError
from django.http import HttpRequest
from django.utils import timezone

from identity import factors, ledger, mails
from identity.models import Bucket, Event, RecoveryCode, Session, TotpDevice, User
from tenants import policy
from tenants.models import Membership, Tenant
from tests.test_commands import everything, last_event, manage, refusal, told
from tests.test_console import HTMX, words
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
HERE = "203.0.113.7"
PAGE = "/console/acme/lockouts/"
PLATFORM = "/console/platform/lockouts/"
FACTORS = "/console/platform/factors/"


def guess(visitor: Open, name: str, n: int = 5, address: str = HERE) -> None:
    for _ in range(n):
        visitor(address=address).sign_in(name, "wrong")


def guess_codes(person: User, n: int = 5) -> None:
    for _ in range(n):
        attempt = ledger.for_code(HttpRequest(), person)
        attempt.note_refused() if attempt.refused else attempt.wrong()


def is_locked(name: str) -> bool:
    return any(each.is_locked for each in ledger.explain(name))


def enrol(person: User) -> None:
    TotpDevice.objects.filter(pk=factors.enrolment(person).pk).update(confirmed=True, name="Phone")
    factors.make_recovery_codes(person)


# --- The command line ---------------------------------------------------------------------------------------------------


def test_explain_tells_scripts_the_state_of_a_person(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    assert {name: told("lockout", "explain", "dave")[name] for name in ("failed", "flying", "until", "limit", "buckets")} == {
        "failed": 0, "flying": 0, "until": None, "limit": 5, "buckets": [],
    }  # fmt: skip
    guess(visitor, "dave", 2)
    ledger.for_password(HttpRequest(), "dave")  # one more, still being checked
    known = told("lockout", "explain", "DAVE@acme.example")
    assert (known["name"], known["failed"], known["flying"], known["until"], known["locked"]) == ("dave", 2, 1, None, False)
    acme.policy = {"tries": 3}
    acme.save()
    guess(visitor, "carol", 9)
    assert told("lockout", "explain", "dave")["limit"] == 3
    known = told("lockout", "explain", "carol")
    assert (known["failed"], known["limit"], known["locked"]) == (5, 5, True)
    assert known["until"] == Bucket.objects.get(user=cast["carol"]).locked_until.isoformat().replace("+00:00", "Z")  # type: ignore[union-attr]
    assert known["came_from"] == [{"address": HERE, "failed": 5}]
    (bucket,) = known["buckets"]
    assert (bucket["kind"], bucket["kept_out"], bucket["last_from"], bucket["since"] < bucket["until"]) == ("person", 4, HERE, True)


@pytest.mark.asvs("6.1.1")
def test_what_operators_read_about_lockouts_is_what_holds() -> None:
    text = " ".join((Path(__file__).parent.parent / "deploy" / "README.md").read_text().split())
    minute, ten = timedelta(minutes=1), timedelta(minutes=10)
    assert "five wrong passwords close an account on browsers that are not known, for a minute, then for longer, up to an hour" in text
    assert (5, (minute, timedelta(hours=1))) == (policy.TRIES_UNKNOWN, policy.LOCK)
    assert "50 wrong answers in ten minutes close an address" in text
    assert (50, ten) == (policy.TRIES_ADDRESS, policy.ADDRESS_WINDOW)
    assert "50 wrong answers in ten minutes for the members of a tenant are mailed to its owners and admins, 250 on the whole" in text
    assert (50, 250, ten) == (policy.ALARM_TENANT, policy.ALARM_PLATFORM, policy.ALARM_WINDOW)


def test_explain_says_who_since_when_until_when_why_and_from_where_in_plain_words(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave", 17)
    row = Bucket.objects.get(user=cast["dave"])
    assert row.locked_at
    assert row.locked_until
    said = manage("lockout", "explain", "dave").splitlines()
    assert said[0] == (
        f"dave is locked out on browsers that are not known, since {row.locked_at:%H:%M:%S} UTC until {row.locked_until:%H:%M:%S} UTC: "
        "5 wrong passwords, the last from 203.0.113.7; 12 more attempts were kept out. Known browsers are not affected."
    )
    assert said[1] == "Wrong answers in the last day came from 203.0.113.7 (5)."
    guess_codes(cast["alice"])
    assert "alice is locked out of the second factor, since" in manage("lockout", "explain", "alice")
    guess(visitor, "bob", 1)
    assert "bob is not locked out on browsers that are not known: 1 of 5 wrong passwords, the last from" in manage(
        "lockout", "explain", "bob"
    )
    assert "carol is not locked out: no wrong answer counts." in manage("lockout", "explain", "carol")


def test_explain_of_a_known_browser_names_it(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    for _ in range(10):
        dave.post(portal_url("/account/password/"), {"old_password": "wrong", "new_password1": "x", "new_password2": "x"})
        dave.post(portal_url("/login/"), {"username": "dave", "password": "wrong"})
    said = manage("lockout", "explain", "dave")
    assert "dave is locked out on one known browser (Firefox 142 on Linux), since" in said
    assert "Other browsers are not affected." in said
    assert told("lockout", "explain", "dave")["failed"] == 0  # what a script asks for are the unknown browsers
    assert "dave" in manage("lockout", "list", "--kind", "device")


def test_an_address_and_a_network_explain_themselves(cast: dict[str, User], visitor: Open) -> None:
    for n in range(3):
        guess(visitor, f"nobody{n}", 1, address="192.0.2.9")
    guess(visitor, "dave", 2, address="192.0.2.9")
    guess(visitor, "dave", 1, address="2001:db8:1:2::77")
    known = told("lockout", "explain", "192.0.2.9")
    assert (known["failed"], known["limit"], known["until"]) == (5, policy.TRIES_ADDRESS, None)
    said = manage("lockout", "explain", "192.0.2.9")
    assert "The address 192.0.2.9 is not shut: 5 of 50 wrong answers." in said
    assert "were for names that nobody has (3), dave (2)." in said
    for spelling in ("192.0.2.0/24", "::ffff:192.0.2.9", " 192.0.2.9 "):
        assert told("lockout", "explain", spelling)["failed"] == 5
    for spelling in ("2001:db8:1:2::1", "2001:db8:1:2::/64", "2001:db8::/32"):
        assert told("lockout", "explain", spelling)["failed"] == 1
    assert told("lockout", "explain", "198.51.100.0/24")["buckets"] == []
    Bucket.objects.filter(network="192.0.2.9").update(
        failed=50, locked_at=timezone.now(), locked_until=timezone.now() + timedelta(minutes=9)
    )
    assert "The address 192.0.2.9 is shut until" in manage("lockout", "explain", "dave")
    assert told("lockout", "release", "192.0.2.9", "--reason", "our office")["released"] == 1
    assert last_event("lockout_released").data["before"]["network"] == "192.0.2.9"


@pytest.mark.asvs("16.2.5")
def test_a_typed_name_that_nobody_has_is_counted_and_stored_nowhere(cast: dict[str, User], visitor: Open) -> None:
    """People type passwords into name fields."""
    guess(visitor, "correct-horse-battery")
    assert "a name that nobody has" in manage("lockout", "list")
    assert "correct-horse" not in str(everything())
    assert "correct-horse" not in manage("lockout", "list") + str(told("lockout", "list"))
    assert told("lockout", "explain", "Correct-Horse-Battery")["failed"] == 5
    assert "Nobody is affected." in manage("lockout", "explain", "correct-horse-battery")
    assert told("lockout", "release", "correct-horse-battery", "--reason", "it was me")["released"] == 1
    assert "correct-horse" not in str(everything())


def test_the_list_names_what_is_locked_now_and_nothing_else(cast: dict[str, User], visitor: Open) -> None:
    assert manage("lockout", "list").startswith("Nobody is locked out. Whoever fails too often appears here")
    guess(visitor, "dave")
    guess(visitor, "carol", 4)
    guess(visitor, "nobody")
    guess_codes(cast["alice"])
    listed = told("lockout", "list")["lockouts"]
    assert [(each["kind"], each["username"]) for each in listed] == [("factor", "alice"), ("unknown", None), ("person", "dave")]
    assert "5 wrong codes" in manage("lockout", "list")
    for arguments, names in (
        (["--tenant", "globex"], ["dave"]), (["--tenant", "acme"], ["alice", "dave"]), (["--kind", "person"], ["dave"]),
        (["--kind", "unknown"], [None]), (["--kind", "address"], []), (["--limit", "1"], ["alice"]),
    ):  # fmt: skip
        assert [each["username"] for each in told("lockout", "list", *arguments)["lockouts"]] == names
    assert told("lockout", "list", "--limit", "1")["more"] is True
    Bucket.objects.update(locked_until=timezone.now())
    assert told("lockout", "list") == {"lockouts": [], "more": False}
    assert "carol is not locked out" in manage("lockout", "explain", "carol")


@pytest.mark.asvs("16.2.1")
def test_a_release_opens_everything_of_a_person_and_stays_in_the_log(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave")
    guess_codes(cast["dave"])
    before = everything()
    assert manage("lockout", "release", "dave", "--reason", "called", "--dry-run").startswith("Dry run: nothing was changed.")
    assert everything() == before
    answer = told("lockout", "release", "dave@acme.example", "--reason", "called from\nhis desk")
    assert (answer["changed"], answer["released"], [each["failed"] for each in answer["before"]]) == (True, 2, [5, 5])
    event = last_event("lockout_released")
    assert (event.subject, event.data["reason"], event.data["before"]["failed"]) == (cast["dave"], "called fromhis desk", 5)
    assert visitor("dave").is_in()
    again = told("lockout", "release", "dave", "--reason", "x")
    assert (again["changed"], Event.objects.filter(kind="lockout_released").count()) == (False, 2)


def test_a_lock_that_is_over_is_not_released_once_more(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "dave")
    Bucket.objects.update(locked_until=timezone.now())
    assert told("lockout", "release", "dave", "--reason", "x")["changed"] is False


def test_a_refused_release_carries_its_cure(cast: dict[str, User]) -> None:
    assert "manage.py lockout list" in refusal("lockout", "release", "zoe", "--reason", "x")
    assert "Say why" in refusal("lockout", "release", "dave", "--reason", " ")
    with pytest.raises(CommandError, match="--reason"):
        manage("lockout", "release", "dave")
    assert "manage.py tenant list" in refusal("lockout", "list", "--tenant", "nowhere")


# --- A tenant's console ---------------------------------------------------------------------------------------------------


def test_an_empty_list_says_what_will_stand_there(cast: dict[str, User], visitor: Open) -> None:
    page = words(visitor("bob").get(portal_url(PAGE)).content.decode())
    assert "Nobody is locked out" in page
    assert "Whoever fails too often appears here, with the reason and the time it ends." in page


@pytest.mark.asvs("8.2.2", "8.2.3", "8.4.1")
def test_an_admin_sees_that_members_are_locked_and_neither_addresses_nor_anybody_elses(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    guess(visitor, "dave", 7)
    guess(visitor, "carol", 6, address="198.51.100.1")
    guess(visitor, "nobody", address="198.51.100.2")
    guess_codes(cast["alice"])
    page = bob.get(portal_url(PAGE)).content.decode()
    shown = words(page)
    assert "Dave Vancedave@acme.example Sign-in" in shown  # he belongs elsewhere, too
    assert "Alice Kelleralice@acme.example Second factor 5 wrong codes" in shown
    assert re.findall(r'data-lockout="([^"]*)"', page) == ["alice", "dave"]
    for hidden in ("carol", "Carol", "203.0.113", "198.51.100", "nobody has", "wrong password", "kept out", "globex", "Globex"):
        assert hidden not in shown


@pytest.mark.asvs("8.3.3", "16.2.1")
def test_an_admin_releases_who_belongs_to_this_tenant_only(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    bob = visitor("bob")
    guess(visitor, "alice")
    guess_codes(cast["alice"])
    asked = words(bob.post(portal_url(PAGE), {"id": "alice"}).content.decode())
    assert "Release Alice Keller?" in asked
    assert "Say why" in words(bob.post(portal_url(PAGE), {"id": "alice", "reason": " "}).content.decode())
    assert is_locked("alice")
    assert bob.post(portal_url(PAGE), {"id": "alice", "reason": "stands beside me"}, follow=False).status_code == 303
    assert not is_locked("alice")
    for event in Event.objects.filter(kind="lockout_released"):
        assert (event.tenant, event.actor, event.subject) == (acme, cast["bob"], cast["alice"])
        assert (event.data["reason"], event.data["before"]["failed"], bool(event.ip)) == ("stands beside me", 5, True)
    page = words(bob.get(portal_url(PAGE)).content.decode())
    assert "Alice Keller may try again at once. Event acme-" in page
    assert visitor("alice").is_in()


def test_a_release_with_htmx_answers_the_list_and_what_was_done(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    guess(visitor, "alice")
    guess(visitor, "dave")
    asked = bob.post(portal_url(PAGE), {"id": "alice"}, **HTMX).content.decode()
    assert "<html" not in asked
    assert "Release Alice Keller?" in asked
    done = bob.post(portal_url(PAGE), {"id": "alice", "reason": "x"}, **HTMX).content.decode()
    assert "<html" not in done
    assert "Alice Keller may try again at once." in words(done)
    assert re.findall(r'data-lockout="([^"]*)"', done) == ["dave"]
    again = bob.post(portal_url(PAGE), {"id": "alice"}, **HTMX)
    assert again["HX-Redirect"] == PAGE
    assert "is not locked out any more" in words(bob.get(portal_url(PAGE)).content.decode())


@pytest.mark.asvs("8.2.2", "8.3.1", "8.4.1", "16.3.2")
@pytest.mark.parametrize("name", ["dave", "carol", "mallory", "nobody", "", "1", "erin", "x" * 400])
def test_who_belongs_elsewhere_too_is_released_by_no_admin_and_nothing_changes(cast: dict[str, User], visitor: Open, name: str) -> None:
    """Dave is a member of both, carol of globex only, erin runs the platform; the others are nobody's."""
    Membership.objects.create(tenant=Tenant.objects.get(slug="acme"), user=cast["erin"])
    bob = visitor("bob")
    for person in ("dave", "carol", "mallory", "erin"):
        guess(visitor, person)
    page = words(bob.get(portal_url(PAGE)).content.decode())
    assert "Only an operator opens this account before its time: ask the people who run the portal." in page
    assert "Release" not in page
    before = list(Bucket.objects.order_by("pk").values())
    for data in ({}, {"reason": "x"}):
        assert bob.post(portal_url(PAGE), {"id": name, **data}).status_code == 404
    assert list(Bucket.objects.order_by("pk").values()) == before
    assert Event.objects.filter(kind="foreign_lockout", tenant__slug="acme", actor=cast["bob"]).count() == 2


def test_a_sibling_page_releases_nobody(cast: dict[str, User], visitor: Open) -> None:
    bob = visitor("bob")
    guess(visitor, "alice")
    assert bob.post(portal_url(PAGE), {"id": "alice", "reason": "x"}, csrf=False).status_code == 403
    assert is_locked("alice")


def test_an_operator_sees_the_addresses_at_a_tenant_and_releases_everybody_there(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    guess(visitor, "dave", 7)
    page = words(erin.get(portal_url(PAGE)).content.decode())
    assert "5 wrong passwords, 2 more tries kept out · last from 203.0.113.7" in page
    erin.post(portal_url(PAGE), {"id": "dave", "reason": "called"})
    assert not is_locked("dave")


# --- The platform's console -------------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.2.1", "8.4.2")
@pytest.mark.parametrize("path", ["/console/platform/", PLATFORM, FACTORS, f"{FACTORS}done/?event=1"])
def test_the_platforms_pages_are_there_for_operators_with_a_second_factor_only(cast: dict[str, User], visitor: Open, path: str) -> None:
    for name in ("alice", "bob", "olivia", "mallory"):
        browser = visitor(name)
        assert browser.get(portal_url(path)).status_code == 404
        assert browser.post(portal_url(path), {"id": "1", "username": "dave", "reason": "x", "sure": "1"}).status_code in {404, 405}
    erin = visitor("erin")
    Session.objects.filter(pk=erin.session().pk).update(methods=["pwd"])
    assert erin.get(portal_url(path), follow=False)["Location"].startswith("/step-up/?next=%2Fconsole%2Fplatform")
    TotpDevice.objects.all().delete()
    assert erin.get(portal_url(path), follow=False)["Location"].startswith("/account/two-factor/?next=%2Fconsole%2Fplatform")


def test_the_key_from_before_a_step_up_opens_no_page_of_the_platform(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    thief = visitor()
    thief.cookies = list(erin.cookies)
    Session.objects.update(methods=["pwd"])
    erin.get(portal_url(PLATFORM))
    erin.post(erin.url, {"password": "gatehouse-demo", "code": _code(cast["erin"])})
    assert erin.get(portal_url(PLATFORM)).status_code == 200
    assert thief.get(portal_url(PLATFORM), follow=False).status_code == 302
    assert thief.is_in()  # for ten seconds


def _code(person: User) -> str:
    TotpDevice.objects.filter(user=person).update(last_step=-1)
    return factors.code_now(TotpDevice.objects.get(user=person))


def test_no_tenant_can_take_the_platforms_name() -> None:
    with pytest.raises(ValidationError, match="reserved"):
        Tenant(slug="platform", name="P").clean_fields()


def test_operators_see_and_release_everything_on_the_platform(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "carol", 6)
    guess(visitor, "nobody", address="198.51.100.2")
    Bucket.objects.filter(network=HERE).update(failed=50, locked_at=timezone.now(), locked_until=timezone.now() + timedelta(minutes=9))
    erin = visitor("erin")
    assert "/console/platform/" in erin.get(portal_url("/console/")).content.decode()
    page = words(erin.get(portal_url(PLATFORM)).content.decode())
    assert "203.0.113.7 Whatever comes from there" in page
    assert "A name that nobody has" in page
    assert "Carol Wrencarol Password, on browsers that are not known 5 wrong passwords, 1 more try kept out · last from 203.0.113.7" in page
    for part, names in (("people", ["Carol Wren"]), ("unknown", ["A name that nobody has"]), ("addresses", ["203.0.113.7"])):
        listed = erin.get(portal_url(f"{PLATFORM}?part={part}")).content.decode()
        assert re.findall(r"<b>([^<]*)</b>(?:<small>\w*</small>)?</span>\s*</th>", listed) == names
    for bucket in Bucket.objects.filter(locked_at__isnull=False):
        assert "Say why" in words(erin.post(portal_url(PLATFORM), {"id": bucket.pk, "reason": ""}).content.decode())
        done = words(erin.post(portal_url(PLATFORM), {"id": bucket.pk, "reason": "called"}, **HTMX).content.decode())
        assert "may try again at once. Event portal-" in done
    assert "Nobody is locked out" in words(erin.get(portal_url(PLATFORM)).content.decode())
    released = Event.objects.filter(kind="lockout_released", actor=cast["erin"])
    assert [event.data["before"].get("network") for event in released.filter(data__bucket="address")] == [HERE]
    assert released.count() == 3


def test_the_search_explains_one_name_or_address(cast: dict[str, User], visitor: Open) -> None:
    guess(visitor, "carol", 2)
    erin = visitor("erin")
    page = words(erin.get(portal_url(f"{PLATFORM}?q=carol@globex.example")).content.decode())
    assert "2 of 5 wrong answers · last from 203.0.113.7" in page
    assert "not locked" in page
    assert "2 of 50 wrong answers" in words(erin.get(portal_url(f"{PLATFORM}?q={HERE}")).content.decode())
    assert "Nothing is counted for that" in words(erin.get(portal_url(f"{PLATFORM}?q=nobody")).content.decode())
    carol = Bucket.objects.get(user=cast["carol"])
    erin.post(portal_url(PLATFORM), {"id": carol.pk, "reason": "mistyped"})
    carol.refresh_from_db()
    assert carol.failed == 0


@pytest.mark.parametrize("pk", ["", "0", "x", "-1", "9" * 30, "²", "1; DROP"])
def test_an_id_that_is_none_is_a_404(cast: dict[str, User], visitor: Open, pk: str) -> None:
    assert visitor("erin").post(portal_url(PLATFORM), {"id": pk, "reason": "x"}).status_code == 404


# --- A lost second factor ---------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.4.4", "7.5.3")
def test_an_operator_takes_a_lost_factor_away_after_a_proof_a_reason_and_a_confirmation(
    cast: dict[str, User], visitor: Open, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    dave = visitor("dave", at="acme")
    enrol(cast["dave"])
    erin = visitor("erin")
    Session.objects.filter(pk=erin.session().pk).update(proved_at=timezone.now() - policy.STEP_UP)
    erin.get(portal_url(FACTORS))
    assert erin.url.startswith(portal_url("/step-up/"))
    data = {"username": "dave@acme.example", "reason": "Showed the passport"}
    asked = erin.post(portal_url(FACTORS), {**data, "sure": "1"}).content.decode()
    assert "You are about to take somebody’s second factor away." in asked
    assert factors.has_factor(cast["dave"])
    answered = {**data, "proof-password": "gatehouse-demo", "proof-code": _code(cast["erin"])}
    page = words(erin.post(portal_url(FACTORS), answered).content.decode())
    assert "Take the second factor of Dave Vance (dave) away?" in page
    assert "1 authenticator is gone for good" in page
    assert "10 recovery codes are worthless" in page
    assert "2 sessions end at once" in page
    assert "Dave Vance is told by mail, to dave@acme.example." in page
    assert factors.has_factor(cast["dave"])
    with django_capture_on_commit_callbacks(execute=True):
        page = words(erin.post(portal_url(FACTORS), {**data, "sure": "1"}).content.decode())
    assert "Dave Vance has no second factor any more" in page
    assert "“Showed the passport”" in page
    event = Event.objects.get(kind="factors_reset")
    assert event.reference in page
    assert (event.actor, event.subject, event.data) == (
        cast["erin"], cast["dave"], {"reason": "Showed the passport", "before": {"authenticators": 1}},
    )  # fmt: skip
    assert not factors.has_factor(cast["dave"])
    assert not RecoveryCode.objects.filter(user=cast["dave"]).exists()
    assert not dave.is_in("acme")
    assert not dave.is_in()
    mails.deliver()
    assert [mail.to for mail in mailoutbox] == [["dave@acme.example"]]
    assert visitor("dave").is_in()  # the password stays


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"username": "zoe", "reason": "x"}, "Nobody has that name"),
        ({"username": "bob", "reason": "x"}, "has no second factor"),
        ({"username": "erin", "reason": "x"}, "under your account, not here"),
        ({"username": "dave", "reason": " "}, "This field is required"),
        ({"username": "", "reason": "x"}, "This field is required"),
    ],
)
def test_a_reset_that_does_not_fit_says_why(cast: dict[str, User], visitor: Open, data: dict[str, str], why: str) -> None:
    enrol(cast["dave"])
    page = visitor("erin").post(portal_url(FACTORS), {**data, "sure": "1"}).content.decode()
    assert why in words(page)
    assert TotpDevice.objects.filter(confirmed=True).count() == 2


def test_the_page_of_what_was_done_shows_no_other_event(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    other = Event.objects.filter(kind="sign_in").latest("pk")
    for number in (str(other.pk), "", "x", "9" * 30):
        assert erin.get(portal_url(f"{FACTORS}done/?event={number}")).status_code == 404
