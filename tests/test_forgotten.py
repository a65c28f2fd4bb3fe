"""Forgotten passwords: one answer for everybody, a link that is good once, and nothing skipped."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection, connections
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity import asked, factors, forgotten, links, mails
from identity.models import Bucket, Event, KnownDevice, Link, Mail, RecoveryCode, Session, TotpDevice, User
from tests.conftest import PASSWORD as OLD
from tests.conftest import password_is, people
from tests.post import delivered, link_in
from tests.test_accounts import neutral
from tests.test_signup import words
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
NEW = "three little words"


def ask(browser: Visitor, typed: str, at: str = "") -> Any:
    return browser.post(portal_url("/password/forgot/"), {"username": typed, "next": f"/enter/{at}/" if at else ""})


def asked_for(browser: Visitor, typed: str = "dave", at: str = "") -> str:
    """The link that a person gets who asks."""
    ask(browser, typed, at)
    return next(link_in(sent, "password/reset") for sent in delivered() if sent.subject == "A new password for your account")


def later(**delta: int) -> None:
    """As if what was mailed and made had been so long ago."""
    shift = timedelta(**delta)
    for row in Mail.objects.all():
        Mail.objects.filter(pk=row.pk).update(created_at=row.created_at - shift)
    for link in Link.objects.all():
        Link.objects.filter(pk=link.pk).update(made_at=link.made_at - shift, expires_at=link.expires_at - shift)


# --- Asking -------------------------------------------------------------------------------------------------------


def test_the_mail_is_this(cast: dict[str, User], visitor: Open) -> None:
    page = ask(visitor(), "dave")
    assert page.status_code == 200
    assert not mail.outbox
    (sent,) = delivered()
    assert (sent.subject, sent.to) == ("A new password for your account", ["dave@acme.example"])
    link = link_in(sent, "password/reset")
    assert re.sub(r"When: .*\n", "When: …\n", str(sent.body)) == (
        "Hello Dave Vance,\n\n"
        "Somebody asked for a new password for the account dave.\n\n"
        "When: …\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        f"Set a new password:\n{link}\n\n"
        "The link works once, within an hour; a newer one makes it worthless. With the new password every session ends. A second "
        "factor stays and is asked for as before.\n\n"
        "If it was not you, there is nothing to do: your password stays as it is, and nobody but you has this link.\n\n"
        "-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


@pytest.mark.parametrize("typed", ["dave", "DAVE", " dave ", "dave@acme.example", "Dave@ACME.example", "ｄave"])
def test_one_asks_by_name_or_proven_address(cast: dict[str, User], visitor: Open, typed: str) -> None:
    ask(visitor(), typed)
    assert [sent.to for sent in delivered()] == [["dave@acme.example"]]


def nobody_to_mail(cast: dict[str, User]) -> dict[str, str]:
    """What a stranger may type, by what it stands for; only the first two get a mail."""
    User.objects.filter(username="carol").update(is_active=False)
    alice = User.objects.get(username="alice")
    alice.email_verified_at = None
    alice.save()
    return {
        "known": "dave", "known address": "bob@acme.example", "unknown": "nobody", "unknown address": "nobody@acme.example",
        "unverified": "alice", "unverified address": "alice@acme.example", "inactive": "carol", "inactive address": "carol@globex.example",
    }  # fmt: skip


def shape(queries: CaptureQueriesContext) -> tuple[str, ...]:
    """Statements without their values."""
    return tuple(re.sub(r"'[^']*'|\b\d+\b|\"s\d+_x\d+\"|NULL", "…", query["sql"]) for query in queries)


@pytest.mark.asvs("6.3.8")
@pytest.mark.parametrize("at", ["", "acme"])
def test_the_answer_and_the_work_are_the_same_for_everybody(cast: dict[str, User], visitor: Open, at: str) -> None:
    typed = nobody_to_mail(cast)
    ask(visitor(), "warm up", at)
    answers, work = {}, {}
    for kind, name in typed.items():
        with CaptureQueriesContext(connection) as queries:
            page = ask(visitor(), name, at)
        answers[kind] = (page.status_code, neutral(page), sorted(page.headers), sorted(page.cookies))
        work[kind] = shape(queries)
    assert all(answer == answers["known"] for answer in answers.values())
    assert all(done == work["known"] for done in work.values()), work
    assert not [kind for kind, name in typed.items() if name in answers[kind][1]]  # what was typed is not shown again
    assert sorted(sent.to[0] for sent in delivered()) == ["bob@acme.example", "dave@acme.example"]


@pytest.mark.asvs("6.3.8", "16.5.2")
def test_the_answer_is_the_same_when_the_mail_server_is_gone(cast: dict[str, User], visitor: Open, settings: Any) -> None:
    before = neutral(ask(visitor(), "dave"))
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = "django.core.mail.backends.smtp.EmailBackend", "127.0.0.1", 1
    assert neutral(ask(visitor(), "bob")) == before
    assert neutral(ask(visitor(), "nobody")) == before
    forgotten.answer_asked()
    assert mails.deliver() == 0
    waits = Mail.objects.get(user__username="bob")
    assert waits.due_at
    assert waits.sent_at is None


def test_what_was_typed_is_kept_by_nobody(cast: dict[str, User], visitor: Open) -> None:
    ask(visitor(), "my password in the name field")
    ask(visitor(), "dave")
    stored = str([list(model.objects.values()) for model in (Mail, Event, Bucket)])
    assert "my password" not in stored
    assert "dave" not in str(list(Mail.objects.values("to", "subject", "body", "user")))
    delivered()
    assert not Mail.objects.filter(kind=forgotten.ASKED).exists()
    event = Event.objects.filter(kind="reset_asked").first()
    assert event
    assert (event.subject, event.data) == (None, {})


@pytest.mark.asvs("6.3.1")
def test_asking_is_bounded_by_address(cast: dict[str, User], visitor: Open) -> None:
    for n in range(50):
        assert ask(visitor(), f"nobody{n}").status_code == 200
    assert ask(visitor(), "dave").status_code == 429
    assert ask(visitor(address="203.0.113.9"), "dave").status_code == 200
    assert not Bucket.objects.exclude(kind="address").exists()  # nobody's own bucket is filled by it


def test_a_person_gets_a_mail_in_five_minutes_and_three_an_hour(cast: dict[str, User], visitor: Open) -> None:
    for _ in range(3):
        ask(visitor(), "dave")
    ask(visitor(), "dave@acme.example")
    assert len(delivered()) == 1
    got = 1
    for _ in range(5):
        later(minutes=6)
        ask(visitor(), "dave")
        got += len(delivered())
    assert got == 3
    assert Link.objects.filter(used_at=None).count() == 1
    later(minutes=40)
    ask(visitor(), "dave")
    assert len(delivered()) == 1


@pytest.mark.asvs("14.2.3")
def test_forged_hosts_are_in_no_link(cast: dict[str, User], visitor: Open) -> None:
    forged: dict[str, Any] = {
        "HTTP_X_FORWARDED_HOST": "evil.example",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_FORWARDED": "host=evil.example",
    }
    visitor().post(portal_url("/password/forgot/"), {"username": "dave"}, **forged)
    page = visitor().post(portal_url("/password/forgot/"), {"username": "bob"}, HTTP_HOST="evil.example", HTTP_ORIGIN="http://evil.example")
    assert page.status_code in {403, 404}
    (sent,) = delivered()
    assert link_in(sent, "password/reset").startswith("http://login.portal.localhost:8000/password/reset/")
    assert "evil" not in str(sent.message())


@pytest.mark.parametrize(
    "typed", ["", "x" * 10_000, "dave\x00", "dave\nBcc: x@x.example", "@", "dave@", "@acme.example", "a@b@c", "ﷺ" * 300]
)
def test_bad_input_asks_for_nothing_and_breaks_nothing(cast: dict[str, User], visitor: Open, typed: str) -> None:
    assert ask(visitor(), typed).status_code in {200, 400}
    assert not delivered()
    assert not Mail.objects.exists()


def test_a_row_that_cannot_be_read_is_dropped_and_one_that_breaks_keeps_nobody_waiting(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(visitor(), "dave")
    Mail.objects.update(body="nonsense")
    assert delivered() == []
    assert not Mail.objects.exists()
    ask(visitor(), "dave")
    real = forgotten._answer

    def broken(row: Mail, said: dict[str, Any]) -> bool:
        if said["typed"] == "dave":
            raise RuntimeError
        return real(row, said)

    monkeypatch.setattr(forgotten, "_answer", broken)
    ask(visitor(), "bob")
    with pytest.raises(RuntimeError):
        forgotten.answer_asked()
    assert [sent.to for sent in delivered()] == [["bob@acme.example"]]
    Mail.objects.filter(kind=forgotten.ASKED).update(due_at=timezone.now(), created_at=timezone.now() - asked.OVER)
    assert forgotten.answer_asked() == 0
    assert not Mail.objects.filter(kind=forgotten.ASKED).exists()


# --- In the tenant's look -------------------------------------------------------------------------------------------


def test_who_asks_at_a_tenants_door_stays_in_its_look_all_the_way(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    browser.get(tenant_url("acme"))
    door = re.search(r'href="(/password/forgot/\?next=[^"]+)"', browser.page.content.decode())
    assert door
    page = browser.get(portal_url(door[1].replace("&amp;", "&")))
    assert 'data-brand="acme"' in page.content.decode()
    target = re.search(r'name="next" value="([^"]+)"', page.content.decode())
    assert target
    page = browser.post(portal_url("/password/forgot/"), {"username": "dave", "next": target[1].replace("&amp;", "&")})
    assert 'data-brand="acme"' in page.content.decode()
    (sent,) = delivered()
    assert "Sent by Acme through Gatehouse" in str(sent.body)
    link = link_in(sent, "password/reset")
    assert 'data-brand="acme"' in browser.get(link).content.decode()
    page = browser.post(link, {"password": NEW})
    assert 'data-brand="acme"' in page.content.decode()
    assert 'href="/login/?next=%2Fenter%2Facme%2F"' in page.content.decode()
    browser.sign_in("dave", NEW, at="acme")
    assert browser.is_in("acme")


def test_a_tenant_that_one_does_not_belong_to_lends_the_mail_nothing(cast: dict[str, User], visitor: Open) -> None:
    link = asked_for(visitor(), "carol", at="acme")
    (sent,) = (each for each in mail.outbox if each.to == ["carol@globex.example"])
    assert "Acme" not in str(sent.message())
    assert 'data-brand="acme"' not in visitor().get(link).content.decode()


# --- The link -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.4.1", "6.4.3", "7.4.3")
def test_the_link_sets_the_password_ends_all_sessions_and_signs_nobody_in(cast: dict[str, User], visitor: Open) -> None:
    here, phone, browser = visitor("dave", at="acme"), visitor("dave"), visitor()
    for _ in range(5):
        visitor(address="203.0.113.9").sign_in("dave", "wrong")
    link = asked_for(browser)
    for _ in range(2):  # a mail scanner opens it
        assert visitor().get(link).status_code == 200
    assert visitor().head(link).status_code == 200
    assert here.is_in()
    browser.post(link, {"password": NEW})
    assert browser.url == portal_url("/password/reset/done/")
    assert not browser.is_in()
    assert not here.is_in()
    assert not here.is_in("acme")
    assert not phone.is_in()
    assert not Session.objects.filter(user=cast["dave"], ended_at=None).exists()
    assert not KnownDevice.objects.filter(user=cast["dave"], revoked_at=None).exists()
    assert not visitor("dave").is_in()  # with the old one
    browser.sign_in("dave", NEW)
    assert browser.is_in()  # the lockout is released
    told = [sent.subject for sent in delivered()]
    assert "Your password was changed" in told


@pytest.mark.asvs("6.4.3")
def test_the_second_factor_stays_and_is_asked_for(cast: dict[str, User], visitor: Open) -> None:
    device = factors.authenticators(cast["erin"])[0]
    codes = factors.make_recovery_codes(cast["erin"])
    link = asked_for(visitor(), "erin")
    browser = visitor()
    browser.post(link, {"password": NEW})
    assert TotpDevice.objects.get(user=cast["erin"], confirmed=True).pk == device.pk
    assert RecoveryCode.objects.filter(user=cast["erin"], used_at=None).count() == len(codes)
    browser.get(portal_url("/login/"))
    browser.post(portal_url("/login/"), {"username": "erin", "password": NEW})
    assert browser.url == portal_url("/login/code/")
    assert not browser.is_in()
    browser.type_code("erin")
    assert browser.is_in()


def test_a_half_way_sign_in_from_before_goes_no_further(cast: dict[str, User], visitor: Open) -> None:
    thief = visitor()
    thief.get(portal_url("/login/"))
    thief.post(portal_url("/login/"), {"username": "erin", "password": OLD})
    assert thief.url == portal_url("/login/code/")
    visitor().post(asked_for(visitor(), "erin"), {"password": NEW})
    thief.type_code("erin")
    assert not thief.is_in()


def spent(page: Any) -> str:
    assert page.status_code == 404
    assert 'href="/password/forgot/"' in page.content.decode()
    return words(page)


def test_a_link_that_opens_nothing_says_why_and_how_to_get_another(cast: dict[str, User], visitor: Open) -> None:
    first = asked_for(visitor())
    later(minutes=6)
    second = asked_for(visitor())
    assert "only the link in the newest one works" in spent(visitor().get(first))
    assert "only the link in the newest one works" in spent(visitor().post(first, {"password": NEW}))
    assert password_is(User.objects.get(username="dave"), OLD)
    later(minutes=61)
    assert "It was good for an hour" in spent(visitor().get(second))
    third = asked_for(visitor())
    visitor().post(third, {"password": NEW})
    assert "The password has been changed since" in spent(visitor().get(third))
    assert "The password has been changed since" in spent(visitor().post(third, {"password": "another three words"}))
    assert "The password has been changed since" in spent(visitor().get(first))


def test_a_link_for_somebody_deactivated_looks_like_one_that_never_was(cast: dict[str, User], visitor: Open) -> None:
    link = asked_for(visitor())
    never = visitor().get(portal_url(f"/password/reset/{'x' * 43}/"))
    User.objects.filter(username="dave").update(is_active=False)
    assert neutral(visitor().get(link)) == neutral(never)


def test_a_double_click_sets_one_password(cast: dict[str, User], visitor: Open) -> None:
    link, browser = asked_for(visitor()), visitor()
    browser.post(link, {"password": NEW})
    page = browser.post(link, {"password": NEW})
    assert "If that was you, sign in with the new one" in words(page)
    assert Event.objects.filter(kind="password_changed").count() == 1


def test_a_weak_password_leaves_the_link_good(cast: dict[str, User], visitor: Open) -> None:
    link, browser = asked_for(visitor()), visitor()
    page = browser.post(link, {"password": "password"})
    assert page.status_code == 200
    assert 'class="error"' in page.content.decode()
    browser.post(link, {"password": NEW})
    assert browser.url == portal_url("/password/reset/done/")


def test_a_change_of_address_voids_what_was_mailed_to_the_old_one(cast: dict[str, User], visitor: Open) -> None:
    link = asked_for(visitor())
    browser = visitor("dave")
    browser.post(portal_url("/account/email/"), {"email": "dave@new.example"})
    (proof,) = (sent for sent in delivered() if sent.to == ["dave@new.example"])
    browser.post(link_in(proof, "link/verify"))
    assert "the address of the account was changed since" in spent(visitor().get(link))


@pytest.mark.asvs("2.3.4", "15.4.2")
@pytest.mark.django_db(transaction=True)
def test_of_parallel_takers_of_one_link_one_sets_the_password() -> None:
    """Ten rounds of four, on real connections; whoever loses is told, and exactly one password is in force."""
    cast = people()
    for n in range(10):
        person = User.objects.get(pk=cast["dave"].pk)
        link = links.make(Link.Purpose.PASSWORD, person)
        words_of = [f"round {n} taker {taker} words" for taker in range(4)]
        start, ended = threading.Barrier(4), list[str]()

        def take(password: str, link: str = link, start: threading.Barrier = start, ended: list[str] = ended) -> None:
            try:
                browser = Visitor()
                browser.get(link)
                start.wait(20)
                browser.post(link, {"password": password})
                if browser.url == portal_url("/password/reset/done/"):
                    ended.append(password)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=take, args=[password]) for password in words_of]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(ended) == 1, f"round {n}: {ended}"
        person.refresh_from_db()
        assert [password for password in words_of if password_is(person, password)] == ended
        assert Event.objects.filter(kind="password_changed", subject=person).count() == n + 1


@pytest.mark.asvs("15.4.2")
@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_answer_each_question_once() -> None:
    people()
    for n in range(10):
        Mail.objects.all().delete()
        for name in ("dave", "bob", "alice", "carol"):
            request = RequestFactory().post("/", REMOTE_ADDR=f"203.0.113.{n}")
            forgotten.ask(request, name)
        start, queued = threading.Barrier(3), list[int]()

        def work(start: threading.Barrier = start, queued: list[int] = queued) -> None:
            try:
                start.wait(20)
                queued.append(forgotten.answer_asked())
            finally:
                connections.close_all()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sum(queued) == 4
        assert Mail.objects.filter(kind="reset").count() == 4
        assert not Mail.objects.filter(kind=forgotten.ASKED).exists()


@pytest.mark.parametrize("path", ["/password/reset/cut-off", "/link/verify/cut-off/", "/invitation/one%20and%20a%20half/", "/link/unlock/"])
def test_a_link_that_a_mail_program_has_broken_says_so(cast: dict[str, User], visitor: Open, path: str) -> None:
    page = visitor().get(portal_url(path))
    assert page.status_code == 404
    assert "was not copied whole" in page.content.decode()
