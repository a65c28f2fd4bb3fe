"""Second factors on the command line: what a tenant asks of its people, and what is done for who lost one."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError
from django.utils import timezone

from identity import factors, mails
from identity.models import Bucket, KnownDevice, RecoveryCode, Session, TotpDevice, User
from tenants.models import Tenant
from tests.test_commands import everything, last_event, manage, refusal, told
from tests.test_console import words
from tests.test_lockouts import enrol, guess, guess_codes
from tests.visitor import Visitor, tenant_url

Open = Callable[..., Visitor]


# --- What a tenant asks -------------------------------------------------------------------------------------------------


def asks(*policy: str) -> dict[str, Any]:
    return told("tenant", "set", "acme", "--policy", *policy)


def test_a_second_factor_asked_of_everyone_ends_what_was_opened_without_one(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    alice, bob, dave = visitor("alice", at="acme"), visitor("bob", at="acme"), visitor("dave", at="acme")
    dave.get(tenant_url("globex"))
    Session.objects.filter(user=cast["bob"]).update(methods=["pwd", "otp"])
    answer = asks("second_factor=everyone")
    assert answer["ended"] == 2
    assert answer["warnings"] == ["4 of 4 members have no second factor: from now on they set one up on the way in."]
    assert (alice.is_in("acme"), bob.is_in("acme"), dave.is_in("acme"), dave.is_in("globex")) == (False, True, False, True)
    assert {row.end_reason for row in Session.objects.filter(tenant=acme, ended_at__isnull=False)} == {"policy"}
    acme.refresh_from_db()
    assert acme.factor_since
    assert timezone.now() - acme.factor_since < timedelta(seconds=10)
    event = last_event("tenant_changed")
    assert (event.data["before"]["policy"]["second_factor"], event.data["after"]["policy"]["second_factor"]) == ("off", "everyone")
    assert "A second factor is asked for here now" in words(alice.get(tenant_url("acme")).content.decode())
    alice.get(tenant_url("acme", "/_portal/start?again=1&next=/"))
    alice.post(alice.url, {"password": "gatehouse-demo"})
    assert "/account/two-factor/" in alice.url


def test_while_grace_runs_nothing_ends_and_the_day_is_said(cast: dict[str, User], acme: Tenant, visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    enrol(cast["bob"])
    answer = asks("second_factor=everyone", "grace_days=14")
    due = timezone.now() + timedelta(days=14)
    assert answer["ended"] == 0
    day = f"{due.day} {due:%B}{'' if due.year == timezone.now().year else f' {due.year}'}"
    assert answer["warnings"] == [f"3 of 4 members have no second factor: from {day} they set one up on the way in."]
    assert alice.is_in("acme")
    assert f"everyone must have one, from {day} on" in manage("tenant", "show", "acme")
    assert asks("grace_days=0")["ended"] == 1  # the grace is over at once, counted from when it was asked
    assert not alice.is_in("acme")


def test_a_dry_run_says_how_many_would_be_ended_and_ends_nobody(cast: dict[str, User], visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    before = everything()
    said = manage("tenant", "set", "acme", "--policy", "second_factor=everyone", "--dry-run")
    assert "1 session ended: a second factor is asked for on the way back in." in said
    assert everything() == before
    assert alice.is_in("acme")


def test_grace_counts_from_the_day_when_it_got_stricter(cast: dict[str, User], acme: Tenant) -> None:
    def since() -> Any:
        acme.refresh_from_db()
        return acme.factor_since

    assert since() is None
    asks("second_factor=admins")
    first = since()
    asks("grace_days=7")
    assert since() == first
    asks("second_factor=everyone")
    second = since()
    assert second > first
    asks("second_factor=admins")  # laxer: nobody gets new grace
    assert since() == second
    assert asks("second_factor=off")["warnings"] == [
        "Who has a second factor is asked for it as before. Who has none is not asked to set one up."
    ]
    assert since() is None
    asks("second_factor=default")
    assert since() is None


def test_a_trusted_browser_that_no_longer_suffices_is_ended(cast: dict[str, User], visitor: Open) -> None:
    alice = visitor("alice", at="acme")
    enrol(cast["alice"])
    Session.objects.filter(user=cast["alice"]).update(methods=["pwd", "trusted"])
    assert asks("second_factor=everyone")["ended"] == 0
    assert asks("trusted_browsers=no")["ended"] == 1
    assert not alice.is_in("acme")


def test_admins_only_are_asked_where_the_policy_says_so_and_who_becomes_one_is_asked_then(cast: dict[str, User], visitor: Open) -> None:
    alice, bob = visitor("alice", at="acme"), visitor("bob", at="acme")
    answer = asks("second_factor=admins")
    assert answer["warnings"] == ["2 of 2 admins and owners have no second factor: from now on they set one up on the way in."]
    assert (alice.is_in("acme"), bob.is_in("acme")) == (True, False)
    answer = told("member", "role", "acme", "alice", "admin")
    assert (answer["ended"], alice.is_in("acme")) == (1, False)
    assert answer["warnings"] == ["alice has no second factor, and Acme asks for one: it is set up on the way in."]
    told("member", "role", "acme", "alice", "member")
    assert visitor("alice", at="acme").is_in("acme")
    assert told("member", "role", "acme", "alice", "member")["changed"] is False


def test_show_says_in_words_what_a_tenant_asks(acme: Tenant) -> None:
    said = manage("tenant", "show", "acme")
    assert "off: who has one is asked for it, nobody must have one" in said
    assert "yes, in place of a code for 30 days" in said
    assert "5 wrong passwords lock an account, 10 on a known browser" in said
    wishes = ["second_factor=admins", "trusted_browsers=no", "tries=3", "password_length=10", "password_length_alone=12", "grace_days=1"]
    assert asks(*wishes)["after"]["policy"]["tries"] == 3
    said = manage("tenant", "show", "acme")
    assert "admins and owners must have one, from" in said
    assert "3 wrong passwords lock an account, 6 on a known browser" in said
    assert "12 for who is not asked for a second factor" in said
    assert "10 characters at least" in said
    assert told("tenant", "show", "acme")["tenant"]["policy"] == {
        "idle": 28800, "absolute": 86400, "remembered": True, "second_factor": "admins", "grace_days": 1, "trusted_browsers": False,
        "tries": 3, "password_length": 10, "password_length_alone": 12, "sign_up": "invited", "sign_up_domains": "", "approval": False,
    }  # fmt: skip
    said = manage("tenant", "set", "acme", "--policy", "tries=2", "--policy", "password_length=8")
    assert "acme: policy tries 3 → 2" in said
    assert "Passwords that are set stay good." in said


@pytest.mark.parametrize(
    ("wish", "cure"),
    [
        ("second_factor=all", "one of: off, admins, everyone"),
        ("second_factor=1", "is a word"),
        ("grace_days=400", "from 0 to 365"),
        ("tries=6", "from 1 to 5"),
        ("tries=0", "from 1 to 5"),
        ("password_length=7", "from 8 to 64"),
        ("trusted_browsers=perhaps", "true or false"),
        ("grace=1", "There is no policy “grace”"),
        ("grace_days", "Write NAME=VALUE"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_with_the_cure(acme: Tenant, wish: str, cure: str) -> None:
    assert cure in refusal("tenant", "set", "acme", "--policy", wish)


# --- Lost factors, and what is known of them -----------------------------------------------------------------------------


@pytest.mark.asvs("6.4.4")
def test_the_command_line_takes_a_lost_factor_away_with_a_reason(
    cast: dict[str, User], visitor: Open, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    dave = visitor("dave", at="acme")
    enrol(cast["dave"])
    guess_codes(cast["dave"])
    with django_capture_on_commit_callbacks(execute=True):
        answer = told("user", "reset-factors", "dave@acme.example", "--reason", "Showed the passport")
    assert answer["before"] == {"authenticators": 1, "recovery_codes": 10, "trusted_browsers": 0}
    assert answer["after"] == {"authenticators": 0, "recovery_codes": 0, "trusted_browsers": 0}
    assert answer["ended"] == 2
    assert answer["warnings"] == ["dave is locked out, too: manage.py lockout explain dave"]
    event = last_event("factors_reset")
    assert (event.subject, event.data["reason"], event.data["before"]) == (cast["dave"], "Showed the passport", {"authenticators": 1})
    assert not TotpDevice.objects.filter(user=cast["dave"]).exists()
    assert not RecoveryCode.objects.exists()
    assert not dave.is_in()
    mails.deliver()
    assert [mail.to for mail in mailoutbox] == [["dave@acme.example"]]
    assert told("user", "reset-factors", "dave", "--reason", "again")["changed"] is False
    assert "Say how you know who asks" in refusal("user", "reset-factors", "erin", "--reason", " ")
    with pytest.raises(CommandError, match="--reason"):
        manage("user", "reset-factors", "erin")


def test_a_person_is_shown_with_factors_browsers_and_locks(cast: dict[str, User], visitor: Open) -> None:
    said = manage("user", "show", "dave")
    assert "Second factor  none" in said
    assert "Locked out     no" in said
    enrol(cast["dave"])
    RecoveryCode.objects.filter(pk=RecoveryCode.objects.latest("pk").pk).update(used_at=timezone.now())
    visitor("dave")
    KnownDevice.objects.update(trusted_until=timezone.now() + timedelta(days=1))
    guess(visitor, "dave")
    said = manage("user", "show", "dave")
    assert "1 authenticator, 9 recovery codes left, 1 trusted browser" in said
    assert "yes: manage.py lockout explain dave" in said
    known = told("user", "show", "dave")["user"]
    assert (known["authenticators"], known["recovery_codes"], known["trusted_browsers"], known["locked"]) == (1, 9, 1, ["person"])
    assert factors.text_key(TotpDevice.objects.get(user=cast["dave"])) not in said


def test_a_new_operator_hears_of_the_second_factor(cast: dict[str, User]) -> None:
    assert "the next visit to the console asks to set one up" in manage("operator", "grant", "bob")
    enrol(cast["alice"])
    assert "A second factor is asked for at the next visit to the console." in manage("operator", "grant", "alice")


def test_the_demo_tells_codes_each_of_them_once_and_in_the_demo_only(
    cast: dict[str, User], visitor: Open, settings: pytest.FixtureRequest
) -> None:
    codes = {manage("demo", "code", "erin").strip()}
    erin = visitor("erin")  # uses the present one up
    assert erin.is_in()
    codes.add(manage("demo", "code", "ERIN@gatehouse.example").strip())
    assert len(codes) == 2
    assert all(len(code) == 6 and code.isdigit() for code in codes)
    for name in ("bob", "nobody", ""):
        assert "manage.py demo code erin" in refusal("demo", "code", name)
    settings.ON_LOCALHOST = False  # type: ignore[attr-defined]
    assert "manage.py user reset-factors" in refusal("demo", "code", "erin")


def test_prune_tells_what_became_of_browsers_and_attempts(cast: dict[str, User], visitor: Open) -> None:
    visitor("dave")
    guess(visitor, "nobody", 1)
    KnownDevice.objects.update(revoked_at=timezone.now() - timedelta(days=2))
    Bucket.objects.update(touched_at=timezone.now() - timedelta(days=2))
    count = Bucket.objects.filter(user=None).count()
    planned = told("prune", "--dry-run")
    assert (planned["browsers"], planned["attempts"] >= count) == (1, True)
    said = manage("prune")
    assert f"{planned['attempts']} old counts of attempts deleted" in said
    assert "1 browsers forgotten that were revoked" in said
