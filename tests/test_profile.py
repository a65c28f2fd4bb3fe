"""The profile, the user name, the language, the clock, and what one may take along."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone

from identity import mails, sessions
from identity.models import Event, FormerName, KnownDevice, Session, User
from portal.forms import zone_named
from tenants.models import Tenant
from tests.conftest import PASSWORD
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PROFILE = "/account/"


def text_of(page: Any) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.content.decode())))


def banner(page: Any) -> str:
    found = re.search(r'role="status">.*?<span>(.*?)</span>', page.content.decode(), re.DOTALL)
    return unescape(found[1]).strip() if found else ""


def error_of(page: Any, field: str) -> str:
    found = re.search(rf'id="{field}_error">.*?<p>(.*?)</p>', page.content.decode(), re.DOTALL)
    return unescape(found[1]) if found else ""


def proof_is_old(person: User) -> None:
    old = timezone.now() - timedelta(minutes=11)
    Session.objects.filter(user=person).update(proved_at=old)


# --- The forms of the page ------------------------------------------------------------------------------------------


def test_each_form_of_the_profile_changes_its_own_fields_and_no_other(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    page = dave.post(portal_url(PROFILE), {"part": "about", "first_name": "David", "last_name": "Vance", "birth_date": "1990-05-01"})
    assert banner(page) == "Saved."
    dave.post(portal_url(PROFILE), {"part": "ways", "language": "", "time_zone": "Asia/Tokyo"})
    dave.post(portal_url(PROFILE), {"part": "mails"})
    person = User.objects.get(username="dave")
    assert (person.first_name, str(person.birth_date), person.time_zone, person.mail_new_device) == (
        "David",
        "1990-05-01",
        "Asia/Tokyo",
        False,
    )
    told = [(event.kind, event.data["fields"]) for event in Event.objects.filter(kind="profile_changed").order_by("pk")]
    assert told == [
        ("profile_changed", ["first_name", "birth_date"]), ("profile_changed", ["time_zone"]), ("profile_changed", ["mail_new_device"]),
    ]  # fmt: skip


def test_what_does_not_fit_is_said_beside_its_field_and_kept(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    page = dave.post(portal_url(PROFILE), {"part": "ways", "time_zone": "Middle-earth/Shire"})
    assert error_of(page, "time_zone") == "There is no time zone of that name. Type a large city near you, such as Berlin."
    assert 'value="Middle-earth/Shire"' in page.content.decode()
    page = dave.post(portal_url(PROFILE), {"part": "about", "first_name": "x" * 151, "birth_date": "1066-10-14"})
    assert error_of(page, "birth_date") == "That is not a date somebody alive was born on."
    assert "150" in error_of(page, "first_name")
    assert "<h1>Dave Vance (dave)</h1>" in page.content.decode()  # what is stored, not what was typed
    assert dave.post(portal_url(PROFILE), {"part": "ways", "language": "tlh"}).status_code == 200
    assert not Event.objects.filter(kind="profile_changed").exists()


@pytest.mark.parametrize(
    ("typed", "zone"),
    [("Europe/Berlin", "Europe/Berlin"), (" europe/berlin ", "Europe/Berlin"), ("Berlin", "Europe/Berlin"),
     ("new york", "America/New_York"),
     ("", ""), ("UTC", ""), ("../etc/passwd", None), ("America", None), ("Europe/", None), ("x" * 64, None)],
)  # fmt: skip
def test_a_time_zone_is_found_by_name_or_city(typed: str, zone: str | None) -> None:
    assert zone_named(typed) == zone


def test_an_unknown_part_of_the_page_changes_nothing(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert dave.post(portal_url(PROFILE), {"part": "password", "first_name": "X"}).status_code == 200
    assert User.objects.get(username="dave").first_name == "Dave"


# --- The user name ----------------------------------------------------------------------------------------------------


def test_a_new_user_name_signs_in_the_old_one_is_free_and_sessions_stay(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    page = dave.post(portal_url("/account/name/"), {"username": "david.vance"})
    assert banner(page) == "Your user name is david.vance now. Sign in with it from now on."
    assert dave.is_in()
    assert dave.is_in("acme")
    assert visitor("David.Vance").is_in()
    assert not visitor("dave").is_in()
    User(username="dave", email="other@acme.example").full_clean(exclude=["password"])


@pytest.mark.asvs("16.2.1")
def test_the_event_of_a_new_user_name_has_before_and_after_and_no_name(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave").post(portal_url("/account/name/"), {"username": "david"})
    former = FormerName.objects.get()
    event = Event.objects.get(kind="username_changed")
    assert (event.actor, event.subject, former.username) == (cast["dave"], cast["dave"], "dave")
    assert event.data == {"before": {"former_name": former.pk}, "after": {"former_name": None}}


@pytest.mark.asvs("7.5.1")
def test_a_user_name_is_changed_with_a_fresh_proof_only(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    proof_is_old(cast["dave"])
    assert dave.get(portal_url("/account/name/"), follow=False).headers["Location"] == "/step-up/?next=%2Faccount%2Fname%2F"
    page = dave.post(portal_url("/account/name/"), {"username": "david"})
    assert "Prove that it is you" in text_of(page)
    assert User.objects.filter(username="dave").exists()
    page = dave.post(portal_url("/account/name/"), {"username": "david", "proof-password": PASSWORD})
    assert User.objects.filter(username="david").exists()


@pytest.mark.parametrize("name", ["ALICE", "ａｌｉｃｅ", "da ve", "dave@x", "", "x" * 151])
def test_a_user_name_that_is_taken_or_does_not_fit_changes_nothing(cast: dict[str, User], visitor: Open, name: str) -> None:
    page = visitor("dave").post(portal_url("/account/name/"), {"username": name})
    assert page.status_code == 200
    assert error_of(page, "username")
    assert page.content.decode().count("already in use") <= 1
    assert User.objects.filter(username="dave").exists()
    assert not FormerName.objects.exists()


def test_a_new_user_name_is_told_by_mail(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave", address="203.0.113.7").post(portal_url("/account/name/"), {"username": "david"})
    mails.deliver()
    (told,) = [each for each in mail.outbox if each.subject == "Your user name was changed"]
    assert told.to == ["dave@acme.example"]
    assert "You sign in as david now. The name dave is free again, and sessions stay open." in told.body
    assert "203.0.113.7" in told.body
    assert "http://login.portal.localhost:8000/account/password/" in told.body


# --- Language and clock of the pages --------------------------------------------------------------------------------------


def test_times_are_in_the_persons_zone(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(time_zone="Asia/Tokyo")
    dave = visitor("dave", at="acme")
    assert "times in Asia/Tokyo" in text_of(dave.get(portal_url(PROFILE)))
    assert "times in Asia/Tokyo" in text_of(dave.get(tenant_url("acme")))
    assert re.search(r'datetime="[^"]+\+09:00"', dave.get(portal_url("/account/sessions/")).content.decode())
    assert "times in UTC" in text_of(visitor("alice").get(portal_url("/?places=1")))


@pytest.mark.parametrize("stored", ["Mars/Olympus", "America", "../../etc/passwd", "x\x7f"])
def test_a_zone_that_this_machine_does_not_know_is_utc(cast: dict[str, User], visitor: Open, stored: str) -> None:
    User.objects.filter(username="dave").update(time_zone=stored, language="tlh")
    page = visitor("dave").get(portal_url(PROFILE))
    assert page.status_code == 200
    assert "times in UTC" in text_of(page)


def test_language_and_clock_cost_no_question(cast: dict[str, User], visitor: Open, django_assert_num_queries: Any) -> None:
    User.objects.filter(username="dave").update(time_zone="Asia/Tokyo", language="de")
    dave = visitor("dave")
    with django_assert_num_queries(1):
        assert dave.get(portal_url("/api/v1/session")).status_code == 200


# --- One's data -------------------------------------------------------------------------------------------------------


def exported(browser: Visitor) -> Any:
    page = browser.post(portal_url("/account/export/"))
    today = f"{timezone.localdate():%Y-%m-%d}"
    assert page.headers["Content-Disposition"] == f'attachment; filename="gatehouse-dave-{today}.json"'
    assert page.headers["Content-Type"] == "application/json; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    return json.loads(page.content)


def test_the_file_has_everything_about_me(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    dave = visitor("dave", at="acme", address="203.0.113.40")
    told = exported(dave)
    assert told["profile"]["username"] == "dave"
    assert [each["tenant"] for each in told["memberships"]] == ["acme", "globex"]
    assert {each["place"] for each in told["sessions"]} == {"portal", "acme"}
    assert told["browsers"][0]["ip"] == "203.0.113.40"
    assert {"sign_in", "branch_opened"} <= {each["kind"] for each in told["events"]}
    assert {"ip": "203.0.113.40", "by": "you", "data": {"methods": ["pwd"], "remember": False}}.items() <= next(
        each for each in told["events"] if each["kind"] == "sign_in"
    ).items()
    assert set(told) == {
        "made_at", "portal", "profile", "memberships", "waiting_for_approval", "invitations", "second_factors", "browsers", "sessions",
        "mails", "events",
    }  # fmt: skip
    assert Event.objects.filter(kind="data_exported", actor=cast["dave"], subject=cast["dave"]).exists()


@pytest.mark.asvs("14.2.6", "15.3.1")
def test_the_file_has_no_secret_and_nothing_of_anybody_else(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    dave, bob = visitor("dave", at="acme"), visitor(user_agent="bobs-browser", address="198.51.100.77")
    bob.sign_in("bob", PASSWORD)
    bob.post(portal_url("/console/acme/sessions/end"), {"ids": [str(dave.session("acme").pk)], "reason": "Laptop lost"})
    text = json.dumps(exported(dave))
    person, row = User.objects.get(username="dave"), Session.objects.get(user=cast["dave"], tenant=None)
    secrets = [person.password, person.epoch, row.key_digest, row.session_data, dave.key("login.portal.localhost")]
    secrets += list(KnownDevice.objects.filter(user=person).values_list("digest", flat=True))
    secrets += [cookie.value for cookie in dave.cookies if cookie.name in {"device", "portal", "session"}]
    assert not [secret for secret in secrets if secret and secret in text]
    assert "Laptop lost" in text
    assert not re.search(r"198\.51\.100\.77|bobs-browser|bob@|Marsh|alice|olivia", text)


@pytest.mark.asvs("7.5.1")
def test_the_file_takes_a_fresh_proof_and_a_post(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert "text/html" in dave.get(portal_url("/account/export/")).headers["Content-Type"]
    proof_is_old(cast["dave"])
    assert "/step-up/" in dave.get(portal_url("/account/export/"), follow=False).headers["Location"]
    assert "text/html" in dave.post(portal_url("/account/export/")).headers["Content-Type"]
    assert not Event.objects.filter(kind="data_exported").exists()


def test_the_command_prints_the_same(cast: dict[str, User], visitor: Open, capsys: pytest.CaptureFixture[str]) -> None:
    visitor("dave", at="acme")
    call_command("user", "export", "dave")
    plain = json.loads(capsys.readouterr().out)
    call_command("user", "export", "dave", "--json")
    as_json = json.loads(capsys.readouterr().out)
    for told in (plain, as_json):
        assert told.pop("made_at")
    assert plain == as_json
    assert plain["profile"]["email"] == "dave@acme.example"


def test_an_event_that_nobody_put_into_words_tells_nothing_of_its_inside(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    sessions.end_here(cast["dave"], acme, by=cast["bob"], reason=Session.Reason.BLOCKED)
    Event.objects.create(at=timezone.now(), kind="quantum", subject=cast["dave"], data={"inner": "x7y8z9"}, tenant=acme)
    text = json.dumps(exported(visitor("dave")))
    assert "quantum" in text
    assert "x7y8z9" not in text
