"""Mails: queued with their cause, sent once by a worker, tried again, given up with an event; no request waits for a mail server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail as django_mail
from django.core.management import CommandError
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from identity import addresses, asked, mails, members, sessions, upkeep
from identity.models import Event, Mail, Session, User
from tenants import checks, policy
from tenants.models import Tenant
from tests.conftest import people
from tests.races.stage import database_url
from tests.sink import Sink, html_of, text_of
from tests.test_commands import manage, told
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]


@contextmanager
def sink(settings: Any, **how: Any) -> Iterator[Sink]:
    """A mail server that this process sends to."""
    with Sink(**how) as server:
        use(settings, server.port)
        yield server


def use(settings: Any, port: int) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", "127.0.0.1", port
    settings.EMAIL_TIMEOUT, settings.KEEP_MAILS = 2, False


def note(user: User, **more: Any) -> Mail:
    queued = mails.tell("note", user, title="A word", paragraphs=["First.", "Second."], **more)
    assert queued is not None
    return queued


def later(**delta: float) -> None:
    """As if so much time had passed for every mail."""
    shift = timedelta(**delta)
    for row in Mail.objects.all():
        for name in ("created_at", "due_at", "sent_at", "failed_at"):
            if moment := getattr(row, name):
                setattr(row, name, moment - shift)
        row.save()


# --- The text ---------------------------------------------------------------------------------------------------------


def test_a_mail_arrives_whole(cast: dict[str, User], settings: Any) -> None:
    with sink(settings) as server:
        queued = note(cast["alice"])
        assert (mails.deliver(), server.recipients) == (1, ["alice@acme.example"])
    arrived = server.mails[0]
    assert {name: arrived[name] for name in ("From", "To", "Subject", "Auto-Submitted", "Content-Type")} == {
        "From": "Gatehouse <no-reply@login.portal.localhost>",
        "To": "alice@acme.example",
        "Subject": "A word",
        "Auto-Submitted": "auto-generated",
        "Content-Type": arrived["Content-Type"],
    }
    assert arrived["Content-Type"].startswith("multipart/alternative")
    assert arrived["Message-ID"] == f"<{queued.pk}.{int(queued.created_at.timestamp())}@login.portal.localhost>"
    assert text_of(arrived) == (
        "Hello Alice Keller,\n\nFirst.\n\nSecond.\n\n-- \n"
        "Sent by Acme through Gatehouse at http://login.portal.localhost:8000. Something wrong? Turn to: it@acme.example\n"
    )
    html = html_of(arrived)
    assert '<html lang="en" dir="ltr">' in html
    assert "background:#0d5f7a;color:#ffffff" in html
    assert "Hello Alice Keller," in html


def test_whose_places_are_several_gets_it_from_the_house_and_globex_has_dark_letters(cast: dict[str, User], globex: Tenant) -> None:
    note(cast["dave"])
    note(cast["carol"])
    mails.deliver()
    house, place = django_mail.outbox
    assert "Sent by Gatehouse at http://login.portal.localhost:8000." in house.body
    assert "Sent by Globex through Gatehouse" in place.body
    assert "background:#f0b429;color:#000000" in html_part(place)


def html_part(sent: Any) -> str:
    return str(sent.alternatives[0][0])


@pytest.mark.parametrize(
    "colour", ["#000000", "#ffffff", "#757575", "#767676", "#0d5f7a", "#f0b429", "#ff0000", "#00ff00", "#0000ff", "#777777"]
)
def test_a_buttons_letters_stand_out_from_every_colour(colour: str) -> None:
    def luminance(text: str) -> float:
        parts = [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(colour), luminance(mails._readable_on(colour))), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_a_mail_speaks_the_persons_language_and_clock(cast: dict[str, User]) -> None:
    cast["alice"].language, cast["alice"].time_zone = "ar", "Asia/Riyadh"
    cast["alice"].save()
    at = datetime(2026, 11, 21, 14, 32, tzinfo=UTC)
    mails.tell("password_changed", cast["alice"], at=at)
    mails.deliver()
    assert '<html lang="ar" dir="rtl">' in html_part(django_mail.outbox[0])
    assert 'forgot/" dir="ltr">http' in html_part(django_mail.outbox[0])  # an address runs from left to right
    assert "17:32" in django_mail.outbox[0].body


@pytest.mark.asvs("1.3.11")
@pytest.mark.parametrize(
    "line", ["\r\nBcc: eve@evil.example", "\nBcc: eve@evil.example", "\r\n\r\nVisit https://evil.example", "\u2028Bcc: eve@evil.example"]
)
def test_a_name_adds_no_header_and_no_line(cast: dict[str, User], settings: Any, line: str) -> None:
    bob = cast["bob"]
    bob.first_name, bob.last_name = f"Bob{line}", "x"
    bob.save()
    with sink(settings) as server:
        mails.to_admins("not_me", Tenant.objects.get(slug="acme"), who=bob.get_full_name_with_username(), console_url="")
        note(bob)
        mails.post("note", to=bob.email, user=bob, title=f"Hello{line}", paragraphs=["x"])
        while mails.deliver():
            pass
    assert len(server.mails) == 4
    for arrived in server.mails:
        assert set(arrived.keys()) == {"Content-Type", "MIME-Version", "Subject", "From", "To", "Date", "Auto-Submitted", "Message-ID"}
        assert not any(each.startswith(("Bcc", "Visit")) for each in text_of(arrived).splitlines()), text_of(arrived)
    assert set(server.recipients) == {"bob@acme.example", "olivia@acme.example"}


def test_markup_in_a_name_stays_text(cast: dict[str, User]) -> None:
    User.objects.filter(username="dave").update(first_name="<b>Dave</b> & {{ portal_url }}")
    note(User.objects.get(username="dave"))
    mails.deliver()
    assert "Hello <b>Dave</b> & {{ portal_url }} Vance," in django_mail.outbox[0].body
    assert "Hello &lt;b&gt;Dave&lt;/b&gt; &amp; {{ portal_url }} Vance," in html_part(django_mail.outbox[0])


def test_a_strangers_name_greets_nobody(cast: dict[str, User]) -> None:
    """Whoever types somebody else's address must not write to him by way of his own name."""
    mails.post("note", to="victim@elsewhere.example", user=cast["dave"], title="x", paragraphs=["y"])
    mails.deliver()
    assert "Dave" not in django_mail.outbox[0].body + html_part(django_mail.outbox[0])


def test_nothing_goes_to_an_address_that_nobody_has_proven(cast: dict[str, User]) -> None:
    User.objects.filter(username="alice").update(email_verified_at=None)
    assert mails.tell("note", User.objects.get(username="alice"), title="x", paragraphs=[]) is None
    assert not Mail.objects.exists()


def test_an_idn_domain_goes_out_as_dns_knows_it(cast: dict[str, User], settings: Any) -> None:
    with sink(settings) as server:
        mails.post("note", to="dave@bücher.example", title="x", paragraphs=["y"])
        assert mails.deliver() == 1
    assert server.recipients == ["dave@xn--bcher-kva.example"]


# --- The queue --------------------------------------------------------------------------------------------------------


def test_a_mail_and_its_cause_are_one(cast: dict[str, User]) -> None:
    with transaction.atomic():
        note(cast["alice"])
        transaction.set_rollback(True)
    assert not Mail.objects.exists()


@pytest.mark.asvs("11.3.2")
def test_the_text_is_encrypted_bound_to_its_row_and_gone_when_it_left(cast: dict[str, User], settings: Any) -> None:
    first, second = note(cast["alice"]), note(cast["bob"])
    assert "First" not in first.body
    Mail.objects.filter(pk=second.pk).update(body=first.body)
    with sink(settings) as server:
        assert mails.deliver() == 1
    assert server.recipients == ["alice@acme.example"]
    assert Mail.objects.get(pk=first.pk).body == ""
    assert Event.objects.get(kind="mail_failed").data == {"mail": "note", "error": "no key", "tries": 1}


def test_rekey_moves_waiting_mails_to_the_new_key(cast: dict[str, User], settings: Any) -> None:
    old = settings.ENCRYPTION_KEYS
    note(cast["alice"])
    settings.ENCRYPTION_KEYS = ["bmV3IGtleSBvZiB0aGUgdGVzdHM6IDMyIGJ5dGVzISE=", *old]
    assert "1 mail moved" in manage("rekey")
    settings.ENCRYPTION_KEYS = settings.ENCRYPTION_KEYS[:1]
    assert mails.text_of(Mail.objects.get())["text"].startswith("Hello Alice")


def test_mails_that_left_are_kept_thirty_days(cast: dict[str, User]) -> None:
    note(cast["alice"])
    mails.deliver()
    later(days=policy.KEEP_MAILS.days - 1)
    note(cast["bob"])
    assert (told("prune", "--dry-run")["mails"], told("prune")["mails"]) == (0, 0)
    later(days=2)
    assert (told("prune", "--dry-run")["mails"], told("prune")["mails"]) == (1, 1)
    assert [row.to for row in Mail.objects.all()] == ["bob@acme.example"]


# --- A mail server in trouble -----------------------------------------------------------------------------------------


def tries(user: User, settings: Any) -> list[int]:
    """Let time pass until the mail is given up or sent; returns the minutes between the tries."""
    gaps: list[int] = []
    for _n in range(10):
        mails.deliver()
        row = Mail.objects.get(user=user)
        if row.due_at is None:
            break
        wait = row.due_at - timezone.now()
        gaps.append(round(wait.total_seconds() / 60))
        later(seconds=wait.total_seconds() + 1)
    return gaps


@pytest.mark.parametrize("how", [{"rcpt": "451 Later"}, {"data": "452 Full"}, {"data": "554 No"}, {"gone": True}])
def test_a_mail_that_is_not_taken_is_tried_six_times_then_an_event_says_so(
    cast: dict[str, User], settings: Any, how: dict[str, Any]
) -> None:
    with sink(settings, **{name: value for name, value in how.items() if name != "gone"}) as server:
        if "gone" in how:
            use(settings, free := server.port + 1 if server.port < 65535 else 1)
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", free)) != 0
        note(cast["alice"])
        assert tries(cast["alice"], settings) == [1, 5, 30, 120, 360]
    row = Mail.objects.get()
    assert (row.tries, row.sent_at, row.due_at) == (6, None, None)
    assert row.failed_at
    event = Event.objects.get(kind="mail_failed")
    assert (event.subject, event.data["mail"], event.data["tries"]) == (cast["alice"], "note", 6)
    assert "alice@" not in json.dumps(event.data) + row.error


def test_an_address_that_the_server_does_not_know_is_given_up_at_once(cast: dict[str, User], settings: Any) -> None:
    with sink(settings, rcpt="550 No such user") as server:
        note(cast["alice"])
        assert (mails.deliver(), tries(cast["alice"], settings)) == (0, [])
        assert Event.objects.get(kind="mail_failed").data == {"mail": "note", "error": "SMTPRecipientsRefused 550", "tries": 1}
        server.rcpt = "250 OK"
        assert told("mail", "retry", "--all")["retried"] == 1
        assert mails.deliver() == 1
    assert Mail.objects.get().error == ""


def test_a_mail_whose_link_is_over_is_not_sent_any_more(cast: dict[str, User], settings: Any) -> None:
    use(settings, 1)
    mails.tell("locked", cast["alice"], link="x", bucket=None)
    assert tries(cast["alice"], settings) == [1, 5, 30]
    assert Mail.objects.get().failed_at


def test_a_worker_that_dies_leaves_its_mail_to_another(cast: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    note(cast["alice"])
    with monkeypatch.context() as broken:
        broken.setattr(mails, "_send", lambda mail: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mails.deliver()
    assert mails.deliver() == 0
    later(seconds=mails.TAKEN.total_seconds() + 1)
    assert mails.deliver() == 1


def test_no_request_waits_for_a_mail_server(cast: dict[str, User], settings: Any, visitor: Open) -> None:
    """A server that takes connections and says nothing, and one whose mails nobody has fetched: pages do not ask it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(settings, silent.getsockname()[1])
        settings.EMAIL_TIMEOUT = 60
        visitor("dave")
        began = time.monotonic()
        dave = visitor("dave", user_agent="Another/1.0")
        dave.step_up()
        dave.post(
            portal_url("/account/password/"),
            {"old_password": "gatehouse-demo", "new_password1": "four little words now", "new_password2": "four little words now"},
        )
        assert time.monotonic() - began < 20
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert {row.kind for row in Mail.objects.all()} == {"new_device", "password_changed"}


def test_a_mail_server_that_hangs_keeps_no_other_chore_waiting() -> None:
    hangs, sealed = threading.Event(), threading.Event()
    posting = upkeep.Chore("mail", timedelta(milliseconds=1), hangs.wait)
    sealing = upkeep.Chore("seal", timedelta(milliseconds=1), sealed.set)
    before = list(upkeep._running)
    upkeep._running.clear()
    try:
        upkeep.start([sealing], [posting])
        assert sealed.wait(10)
    finally:
        hangs.set()
        for each in upkeep._running:
            each.stop()
        upkeep._running[:] = before


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_send_each_mail_once() -> None:
    everybody = list(people().values())[:5]
    for _round in range(12):
        django_mail.outbox.clear()
        for person in everybody * 2:
            note(person)
        ready = threading.Barrier(4)

        def work(ready: threading.Barrier = ready) -> None:
            try:
                ready.wait()
                while mails.deliver(3):
                    pass
            finally:
                connection.close()

        workers = [threading.Thread(target=work) for _n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(sent.extra_headers["Message-ID"] for sent in django_mail.outbox) == sorted(
            {sent.extra_headers["Message-ID"] for sent in django_mail.outbox}
        )
        assert len(django_mail.outbox) == 10
        assert not mails.waiting().exists()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_processes_at_once_and_a_slow_server_send_each_mail_once(settings: Any) -> None:
    everybody = list(people().values())[:5]
    environment = {**os.environ, "DATABASE_URL": database_url(str(connection.settings_dict["NAME"]))}
    with Sink(delay=0.02) as server:
        environment["EMAIL_URL"] = server.url
        for _round in range(2):
            server.recipients.clear()
            for person in everybody * 8:  # long enough for both to be at it
                note(person)
            workers = [
                subprocess.Popen(
                    [sys.executable, "manage.py", "mail", "send"],
                    env=environment,
                    cwd=Path(__file__).parent.parent,
                    stdout=subprocess.DEVNULL,
                )
                for _n in range(2)
            ]
            assert [worker.wait(60) for worker in workers] == [0, 0]
            assert sorted(server.recipients) == sorted(person.email for person in everybody * 8)


# --- Who is told what -------------------------------------------------------------------------------------------------


def outbox() -> list[tuple[str, str]]:
    """To whom and about what, of all that is in the queue now."""
    while mails.deliver():
        pass
    return sorted((sent.to[0], str(sent.subject)) for sent in django_mail.outbox)


@pytest.mark.asvs("6.3.7")
def test_a_new_password_is_told_once_in_ten_minutes(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    words = iter(["four little words now", "four other words now", "five other words now"])

    def change(old: str) -> str:
        new = next(words)
        dave.post(portal_url("/account/password/"), {"old_password": old, "new_password1": new, "new_password2": new})
        assert dave.url == portal_url("/account/password/done/")
        return new

    new = change(change("gatehouse-demo"))
    assert outbox() == [("dave@acme.example", "Your password was changed")]
    assert django_mail.outbox[0].body == (
        "Hello Dave Vance,\n\n"
        "The password of your account is a new one. The old one opens nothing any more, and every other session has ended.\n\n"
        f"When: {facts_of(django_mail.outbox[0])}\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        "If that was you, there is nothing to do.\n\n"
        "If it was not you, somebody knows your old password or reads your mail. Set a new password at once:\n"
        "http://login.portal.localhost:8000/password/forgot/\n\n-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )
    later(minutes=11)
    change(new)
    assert len(outbox()) == 2


def facts_of(sent: Any) -> str:
    """The moment that a mail tells; it is of this minute or the one before."""
    told = str(sent.body).partition("When: ")[2].partition("\n")[0]
    at = datetime.strptime(
        told.replace(".", "").replace("Sept", "Sep").removesuffix(" UTC") + " +0000", f"%{'b' if '.' in told else 'B'} %d, %Y, %H:%M %z"
    )
    assert abs(at - timezone.now()) < timedelta(minutes=2)
    return told


@pytest.mark.asvs("6.3.7")
def test_who_is_signed_out_by_an_admin_is_told_who_why_and_where(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    ids = {"ids": [str(dave.session("acme").pk)], "reason": "Laptop reported lost", "sure": "1"}
    bob.post(portal_url("/console/acme/sessions/end"), ids)
    assert not dave.is_in("acme")
    assert outbox() == [("dave@acme.example", "A session of yours was ended")]
    assert django_mail.outbox[0].body == (
        "Hello Dave Vance,\n\n"
        "Bob Marsh (bob) has ended what stands below. It was in force at once.\n\n"
        "- Acme, Firefox 142 on Linux\n\n"
        "The reason that was given: “Laptop reported lost”\n\n"
        f"When: {facts_of(django_mail.outbox[0])}\n\n"
        "You may come back with a fresh sign-in, unless you were told otherwise. What is open now, and what ended:\n"
        "http://login.portal.localhost:8000/account/sessions/\n\n-- \n"
        "Sent by Acme through Gatehouse at http://login.portal.localhost:8000. Something wrong? Turn to: it@acme.example\n"
    )


@pytest.mark.parametrize(
    ("verb", "told"), [(members.block, "is blocked until its admins lift it"), (members.remove, "You do not belong to this place")]
)
def test_who_is_blocked_or_removed_is_told_why_and_what_stays(
    cast: dict[str, User], visitor: Open, acme: Tenant, verb: Callable[..., members.Change], told: str
) -> None:
    visitor("dave", at="acme")
    verb(acme, cast["dave"], by=members.Actor(cast["bob"]), note="Left the company")
    assert outbox() == [("dave@acme.example", "A session of yours was ended")]
    text = django_mail.outbox[0].body
    assert told in text
    assert "“Left the company”" in text
    assert "your other places are untouched" in text
    assert "fresh sign-in" not in text


def test_ends_of_ten_minutes_are_one_mail_and_own_ends_and_mass_ends_none(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    reason = sessions.Reason.BY_ADMIN
    for _n in range(3):
        visitor("dave", at="acme")
        sessions.end_here(cast["dave"], acme, by=cast["bob"], reason=reason)
    visitor("bob", at="acme")
    sessions.end_here(cast["bob"], acme, by=cast["bob"], reason=reason)
    visitor("alice", at="acme")
    sessions.end_tenant(acme, by=None, reason=sessions.Reason.BY_OPERATOR)
    ends = [told for told in outbox() if "ended" in told[1]]
    assert ends == [("dave@acme.example", "A session of yours was ended")]


def test_an_end_of_more_people_than_one_tells_by_name_is_no_flood(acme: Tenant, visitor: Open) -> None:
    ids = []
    for n in range(mails.MOST_TOLD + 1):
        user = User.objects.create_user(f"p{n}", f"p{n}@acme.example", email_verified_at=timezone.now())
        ids.append(sessions.sign_in(user, request=None, methods=["pwd"], remember=False)[0].pk)
    sessions.end(Session.objects.filter(pk__in=ids[1:3]), by=None, reason=sessions.Reason.BY_OPERATOR)
    assert Mail.objects.count() == 2
    assert len(sessions.end(Session.objects.filter(pk__in=ids), by=None, reason=sessions.Reason.BY_OPERATOR)) == mails.MOST_TOLD - 1
    Mail.objects.all().delete()
    rows = list(Session.objects.filter(pk__in=ids))
    mails.ended(rows, by=None, note="")
    assert not Mail.objects.exists()


def test_every_admin_of_a_place_is_told_and_nobody_twice(cast: dict[str, User], acme: Tenant) -> None:
    for _n in range(2):
        mails.to_admins(
            "alarm", acme, place="Acme", coalesce="x", within=timedelta(hours=1), failed=1, minutes=1, people=1, lockouts_url=""
        )
    assert [to for to, _subject in outbox()] == ["bob@acme.example", "olivia@acme.example"]


def test_every_kind_has_a_text_and_an_html_twin_with_the_same_links(cast: dict[str, User], acme: Tenant) -> None:
    folder = Path(__file__).parent.parent / "templates" / "mails"
    kinds = {path.stem for path in folder.glob("*.txt") if not path.name.startswith("_")}
    assert kinds == {path.stem for path in folder.glob("*.html") if not path.name.startswith("_")}
    assert {"note", "factors_changed", "alarm", "password_changed", "ended", "new_device", "locked", "not_me"} <= kinds
    for kind in kinds:
        subject, text, html = mails.render(
            kind, to="dave@acme.example", user=cast["dave"], brand=acme, link="https://x.example/link/abc/", title="x"
        )
        assert subject, kind
        assert ("https://x.example/link/abc/" in text) == ("https://x.example/link/abc/" in html), kind
        assert "{%" not in text + html, kind


# --- manage.py mail ---------------------------------------------------------------------------------------------------


@pytest.mark.asvs("14.2.4")
def test_the_command_lists_mails_and_never_their_texts(cast: dict[str, User], settings: Any) -> None:
    note(cast["alice"])
    use(settings, 1)
    said = manage("mail", "list") + json.dumps(told("mail", "list"))
    assert "alice@acme.example" in said
    assert "First" not in said
    (row,) = told("mail", "list", "--state", "waiting")["mails"]
    assert (row["kind"], row["state"], row["tries"], row["user"], row["subject"]) == ("note", "waiting", 0, "alice", "A word")
    assert told("mail", "list", "--state", "failed")["mails"] == []
    assert "No mail is here" in manage("mail", "list", "--state", "sent")


def test_send_says_what_left_and_what_waits(cast: dict[str, User], settings: Any) -> None:
    note(cast["alice"])
    assert told("mail", "send", "--dry-run")["sent"] == 1
    assert "1 mail left." in manage("mail", "send")
    note(cast["bob"])
    use(settings, 1)
    said = manage("mail", "send")
    assert "No mail left." in said
    assert "1 mail will be tried again" in said


def test_retry_wants_to_know_which_and_puts_only_failed_ones_back(cast: dict[str, User]) -> None:
    waiting = note(cast["alice"])
    given_up = note(cast["bob"])
    Mail.objects.filter(pk=given_up.pk).update(due_at=None, failed_at=timezone.now(), tries=6)
    with pytest.raises(CommandError, match="Which ones"):
        manage("mail", "retry")
    with pytest.raises(CommandError, match=f"Not given up, or not there: {waiting.pk}"):
        manage("mail", "retry", str(given_up.pk), str(waiting.pk))
    assert told("mail", "retry", "--all", "--dry-run")["retried"] == 1
    assert told("mail", "list", "--state", "failed")["mails"]
    assert told("mail", "retry", str(given_up.pk))["retried"] == 1
    assert told("mail", "send")["sent"] == 2


def test_sending_by_a_timer_also_answers_what_was_asked_and_tells_who_is_locked_out(
    cast: dict[str, User], visitor: Callable[..., Visitor]
) -> None:
    visitor().post(portal_url("/password/forgot/"), {"username": "alice"})
    visitor().post(portal_url("/signup/"), {"username": "frank", "email": "frank@new.example", "password": "three little words"})
    stranger = visitor()
    for _n in range(5):
        stranger.post(portal_url("/login/"), {"username": "dave", "password": "wrong"})
    assert told("mail", "send", "--dry-run")["asked"] == 2
    assert not django_mail.outbox
    assert told("mail", "send")["sent"] == 3
    assert sorted(message.to[0] for message in django_mail.outbox) == ["alice@acme.example", "dave@acme.example", "frank@new.example"]
    assert told("mail", "send")["sent"] == 0


def test_a_question_that_cannot_be_answered_keeps_no_mail_from_leaving(
    cast: dict[str, User], visitor: Callable[..., Visitor], caplog: pytest.LogCaptureFixture
) -> None:
    visitor().post(portal_url("/password/forgot/"), {"username": "alice"})
    asked.note(addresses.ASKED, user=None, email="nobody@x.example")  # of nobody: no code of ours writes it
    note(cast["bob"])
    with pytest.raises(CommandError, match="Not done: addresses"):
        manage("mail", "send")
    assert sorted(message.to[0] for message in django_mail.outbox) == ["alice@acme.example", "bob@acme.example"]
    assert "The chore “addresses” failed" in caplog.text


def test_the_checks_warn_of_a_platform_without_a_mail_server() -> None:
    def found(**values: object) -> list[str | None]:
        with override_settings(**values):
            return [problem.id for problem in checks.mail(None)]

    assert found() == []
    assert found(MAIL_OFF=True) == ["gatehouse.W001"]
    assert found(MAIL_OFF=True, DEBUG=True) == []


def test_without_a_mail_server_nothing_is_said_to_have_left(cast: dict[str, User], settings: Any) -> None:
    settings.MAIL_OFF = True
    note(cast["alice"])
    with pytest.raises(CommandError, match="1 mail could not be sent"):
        manage("mail", "send")
    assert Mail.objects.get().error == "there is no mail server: EMAIL_URL is not set"
    settings.MAIL_OFF = False
    manage("mail", "retry", "--all")
    assert mails.deliver() == 1


# --- The demo's outbox ------------------------------------------------------------------------------------------------


def test_the_demo_shows_its_mails_and_their_links(cast: dict[str, User], visitor: Open) -> None:
    mails.tell("new_device", cast["alice"], link="http://login.portal.localhost:8000/link/not-me/x/")
    mails.deliver()
    page = visitor().get(portal_url("/outbox/")).content.decode()
    assert "A sign-in from a new browser" in page
    assert '<a href="http://login.portal.localhost:8000/link/not-me/x/"' in page
    shown = visitor().get(portal_url(f"/outbox/{Mail.objects.get().pk}/"))
    assert shown["Content-Security-Policy"].endswith("sandbox")
    assert "script-src" not in shown["Content-Security-Policy"]
    assert "This was not me" in shown.content.decode()
    assert "/outbox/" in visitor().get(portal_url("/login/")).content.decode()


@pytest.mark.asvs("14.2.1", "13.4.2")
def test_there_is_no_outbox_but_in_the_demo(cast: dict[str, User], visitor: Open, settings: Any) -> None:
    queued = note(cast["alice"])
    settings.KEEP_MAILS = False
    for browser in (visitor(), visitor("erin")):
        for path in ("/outbox/", f"/outbox/{queued.pk}/"):
            assert browser.get(portal_url(path)).status_code == 404
    assert "/outbox/" not in visitor().get(portal_url("/login/")).content.decode()
