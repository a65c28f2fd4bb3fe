"""The second factor of an account: setting it up, its codes, recovery codes, and taking it away."""

import html
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.core import mail
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone

from identity import clock, crypto, factors, mails, sessions
from identity.models import Bucket, Event, RecoveryCode, Session, TotpDevice, User
from tenants.models import Tenant
from tests.conftest import PASSWORD, people
from tests.phone import PAGE, asks, code_of, codes_on, enrol, first_code, half_way, hidden, key_on, oathtool, proof_is_old, said, source
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
Captured = Callable[..., AbstractContextManager[list[Any]]]
PORTAL_HOST = "login.portal.localhost"


@pytest.fixture
def dave(cast: dict[str, User], visitor: Open) -> Visitor:
    """Dave's own browser, in which he has just set his phone up."""
    browser = visitor("dave")
    enrol(browser, "dave")
    return browser


# --- Enrolment --------------------------------------------------------------------------------------------------------


def test_the_page_shows_one_key_as_a_picture_a_text_and_a_link(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    page = dave.get(portal_url(PAGE))
    key = key_on(dave)
    assert re.fullmatch(r"[A-Z2-7]{32}", key)  # 160 bits
    link = re.search(r'href="(otpauth://[^"]+)"', page.content.decode())
    assert link
    address = urlsplit(html.unescape(link[1]))
    assert parse_qs(address.query)["secret"] == [key]
    assert address.path.endswith(":dave")
    assert re.search(r'<svg class="qr" viewBox="0 0 \d+ \d+"[^>]*><path d="(M\d+ \d+h\d+v1h-\d+z)+"/></svg>', page.content.decode())
    assert "no-store" in page["Cache-Control"]
    assert key not in (dave.get(portal_url("/account/")).content.decode())


def test_an_authenticator_counts_from_its_first_code_on(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.get(portal_url(PAGE))
    key = key_on(dave)
    assert visitor("dave").is_in()  # nothing is asked before it is confirmed
    dave.post(dave.url, {"code": "000000"})
    assert "That code is not right" in said(dave)
    assert 'id="code_error"' in source(dave)
    assert key_on(dave) == key
    dave.post(dave.url, {"code": "00 00"})
    assert "A code has six digits" in said(dave)
    assert key_on(dave) == key
    dave.post(dave.url, {"code": first_code("dave"), "name": "  Old   phone "})
    assert dave.page.status_code == 200
    assert len(codes_on(dave)) == 10
    assert TotpDevice.objects.get(user=cast["dave"]).name == "Old phone"
    assert dave.session().methods == ["pwd", "otp"]
    other = half_way(visitor())
    assert not other.is_in()
    other.type_code("dave")
    assert other.is_in()


def test_a_script_that_sends_nothing_but_the_code_enrols(cast: dict[str, User], visitor: Open) -> None:
    """The contract: `id="totp-key"`, `code`, `data-recovery-code`."""
    dave = visitor("dave")
    dave.get(portal_url(PAGE))
    assert key_on(dave)
    dave.post(portal_url(PAGE), {"code": first_code("dave")}, follow=False)
    assert len(codes_on(dave)) == 10
    assert TotpDevice.objects.get(user=cast["dave"]).name == "Phone"


@pytest.mark.asvs("7.5.1", "7.5.3")
def test_every_change_of_factors_asks_for_a_fresh_proof_first(dave: Visitor) -> None:
    phone = TotpDevice.objects.get(user__username="dave")
    proof_is_old("dave")
    before = list(RecoveryCode.objects.values_list("pk", flat=True))
    for path in (f"{PAGE}add/", f"{PAGE}{phone.pk}/remove/", f"{PAGE}codes/"):
        dave.get(portal_url(path))
        assert dave.url == portal_url(f"/step-up/?next={quote(path, safe='')}"), path
        newest = str(factors.newest_recovery_code(phone.user))
        dave.post(portal_url(path), {"code": "123456", "newest": newest}, follow=False)
        assert "Prove that it is you" in said(dave), path
    assert list(RecoveryCode.objects.values_list("pk", flat=True)) == before
    assert TotpDevice.objects.filter(user__username="dave").count() == 1
    dave.get(portal_url(PAGE))
    assert "Two-factor sign-in" in said(dave)  # looking at the list is not dangerous
    # The first one, too: what protects an account is not set up in a browser that somebody has left.
    TotpDevice.objects.all().delete()
    dave.get(portal_url(PAGE))
    assert dave.url.startswith(portal_url("/step-up/"))
    dave.step_up()
    dave.get(portal_url(PAGE))
    assert key_on(dave)


def test_a_form_that_met_an_old_proof_goes_on_with_what_was_filled_in(dave: Visitor) -> None:
    dave.get(portal_url(f"{PAGE}add/"))
    code, device = first_code("dave"), hidden(dave, "device")
    proof_is_old("dave")
    dave.post(dave.url, {"code": code, "device": device, "name": "Tablet"})
    assert "Prove that it is you" in said(dave)
    carried = {name: hidden(dave, name) for name in ("code", "device", "name")}
    assert carried == {"code": code, "device": device, "name": "Tablet"}
    dave.post(dave.url, {**carried, "proof-password": PASSWORD, "proof-code": code_of("dave")})
    assert "“Tablet” is on." in said(dave)


def test_a_step_up_takes_a_recovery_code_in_a_field_of_its_own(dave: Visitor) -> None:
    codes = factors.make_recovery_codes(User.objects.get(username="dave"))
    dave.get(portal_url("/step-up/"))
    for field in ("code", "recovery"):
        assert re.search(rf'name="{field}"', source(dave))
    dave.post(portal_url("/step-up/"), {"password": PASSWORD, "recovery": "aaaa-aaaa-aaaa-aaaa"})
    assert "That recovery code is not right" in said(dave)
    assert "<details" in source(dave)
    assert re.search(r"<details[^>]* open", source(dave))
    dave.post(portal_url("/step-up/"), {"password": PASSWORD})
    assert "This field is required" in said(dave)
    dave.post(portal_url("/step-up/"), {"password": PASSWORD, "recovery": codes[0]}, follow=False)
    assert dave.page.status_code == 302
    assert dave.session().methods == ["pwd", "recovery"]


@pytest.mark.asvs("7.2.4", "7.4.3")
def test_enrolling_ends_the_other_sessions_and_every_key_from_before(cast: dict[str, User], visitor: Open) -> None:
    elsewhere, dave = visitor("dave", at="acme"), visitor("dave", at="globex")
    old = dave.key(PORTAL_HOST)
    enrol(dave, "dave")
    assert not elsewhere.is_in()
    assert not elsewhere.is_in("acme")
    assert dave.is_in()
    assert dave.is_in("globex")
    assert dave.key(PORTAL_HOST) != old
    assert sessions.live([old], None) == []
    assert Session.objects.filter(user=cast["dave"], ended_at=None, tenant=None).count() == 1


@pytest.mark.asvs("7.2.4", "7.2.2")
def test_each_proof_makes_a_new_key(dave: Visitor, visitor: Open) -> None:
    browser = half_way(visitor())
    assert browser.key(PORTAL_HOST) == ""
    browser.type_code("dave")
    first = browser.key(PORTAL_HOST)
    browser.step_up()
    second = browser.key(PORTAL_HOST)
    browser.get(portal_url(f"{PAGE}add/"))
    browser.post(browser.url, {"code": first_code("dave")})
    third = browser.key(PORTAL_HOST)
    assert len({first, second, third, ""}) == 4
    assert sessions.live([first], None) == []
    assert sessions.live([second], None) == []
    assert browser.is_in()


def test_a_form_that_comes_twice_is_answered_calmly(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.get(portal_url(PAGE))
    fields = {"code": first_code("dave"), "device": hidden(dave, "device"), "name": "Phone"}
    dave.post(portal_url(PAGE), fields)
    kept = set(RecoveryCode.objects.values_list("pk", flat=True))
    for again in (PAGE, f"{PAGE}add/"):
        dave.post(portal_url(again), fields)
        assert "“Phone” is on already." in said(dave)
        assert codes_on(dave) == []
    assert set(RecoveryCode.objects.values_list("pk", flat=True)) == kept
    assert TotpDevice.objects.count() == 2  # erin's and this one


def test_a_tab_whose_key_was_thrown_away_is_told_so(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    dave.get(portal_url(PAGE))
    key, fields = key_on(dave), {"code": first_code("dave"), "device": hidden(dave, "device")}
    dave.post(portal_url(PAGE), {"again": "1"})
    assert key_on(dave) != key
    dave.post(portal_url(PAGE), fields)
    assert "The key that this page has shown before is no longer good." in said(dave)
    assert not factors.has_factor(cast["dave"])


def test_somebody_has_several_authenticators_and_each_is_good(dave: Visitor, visitor: Open) -> None:
    dave.get(portal_url(f"{PAGE}add/"))
    assert 'value="Phone 2"' in source(dave)
    dave.post(dave.url, {"code": first_code("dave"), "name": "Tablet"})
    assert codes_on(dave) == []  # the ten from before stay
    assert RecoveryCode.objects.count() == 10
    assert "“Tablet” is on." in said(dave)
    assert "Phone added" in said(dave)
    assert "Tablet added" in said(dave)
    for device in TotpDevice.objects.filter(user__username="dave"):
        browser = half_way(visitor())
        assert "From “Phone” or “Tablet”." in said(browser)
        TotpDevice.objects.filter(pk=device.pk).update(last_step=-1)
        browser.post(browser.url, {"code": factors.code_now(device)})
        assert browser.is_in(), device.name


def test_eight_authenticators_are_the_most(dave: Visitor) -> None:
    person = User.objects.get(username="dave")
    for n in range(factors.MOST - 1):
        TotpDevice.objects.filter(pk=factors.enrolment(person).pk).update(confirmed=True, name=f"n{n}")
    dave.get(portal_url(f"{PAGE}add/"))
    assert dave.url == portal_url(PAGE)
    assert "that is the most" in said(dave)
    assert "Add another" not in said(dave)


@pytest.mark.asvs("6.3.7")
def test_a_person_is_told_of_every_change_by_mail(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    enrol(dave, "dave")
    dave.get(portal_url(f"{PAGE}codes/"))
    dave.post(dave.url, {"newest": hidden(dave, "newest")})
    phone = TotpDevice.objects.get(user=cast["dave"])
    dave.post(portal_url(f"{PAGE}{phone.pk}/remove/"))
    mails.deliver()
    subjects = ["An authenticator was added", "New recovery codes were made", "An authenticator was removed"]
    assert [sent.subject for sent in mail.outbox] == subjects
    assert {address for sent in mail.outbox for address in sent.to} == {"dave@acme.example"}
    when = mail.outbox[1].body.partition("When: ")[2].partition("\n")[0]
    assert mail.outbox[1].body == (
        "Hello Dave Vance,\n\n"
        "Ten new recovery codes were made for your account. The ones from before are worthless.\n\n"
        f"When: {when}\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        "If you know of this, there is nothing to do.\n\n"
        "If it was not you, somebody knows your password. Set a new one at once, then look at what is set up under “Two-factor”:\n"
        "http://login.portal.localhost:8000/password/forgot/\n\n-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


# --- Codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.5.1")
def test_a_code_works_once_on_every_path(dave: Visitor, visitor: Open) -> None:
    code = code_of("dave")
    assert half_way(visitor()).post(portal_url("/login/code/"), {"code": code}, follow=False).status_code == 302
    again = half_way(visitor())
    again.post(again.url, {"code": code})
    assert "it was used already" in said(again)
    assert not again.is_in()
    dave.post(portal_url("/step-up/"), {"password": PASSWORD, "code": code})
    assert "it was used already" in said(dave)
    answer = visitor().post_json(portal_url("/api/v1/login"), json.dumps({"username": "dave", "password": PASSWORD, "code": code}))
    assert answer.status_code == 401


@pytest.mark.asvs("6.5.8")
def test_a_code_is_good_by_our_clock_one_step_early_or_late(dave: Visitor, visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    for seconds, good in ((-90, False), (-60, False), (-30, True), (30, True), (60, False), (90, False)):
        TotpDevice.objects.update(last_step=-1)
        Bucket.objects.all().delete()
        device = TotpDevice.objects.get(user__username="dave")
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda seconds=seconds: now + timedelta(seconds=seconds))
            code = factors.code_now(device)
        browser = half_way(visitor())
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: now)
            checked = factors.prove(request_of(browser), device.user, code)
        assert bool(checked.method) is good, seconds


def request_of(browser: Visitor) -> HttpRequest:
    return RequestFactory().get("/", REMOTE_ADDR=browser.address)


def test_codes_are_read_as_people_type_them(dave: Visitor, visitor: Open) -> None:
    for shape in ("{} {}", " {}-{} ", "{}{}"):
        browser, code = half_way(visitor()), code_of("dave")
        browser.post(browser.url, {"code": shape.format(code[:3], code[3:])})
        assert browser.is_in(), shape
    for foreign in ("１２３４５６", "١٢٣٤٥٦", "12345", "1234567", "abcdef"):
        browser = half_way(visitor())
        browser.post(browser.url, {"code": foreign})
        assert "A code has six digits. A recovery code has sixteen letters and digits." in said(browser), foreign
    assert not Bucket.objects.filter(kind="factor", failed__gt=0).exists()  # nothing was checked, nothing counted


@pytest.mark.asvs("6.3.1")
def test_after_five_wrong_codes_even_the_right_one_waits(dave: Visitor, visitor: Open) -> None:
    browser = half_way(visitor())
    for n in range(5):
        browser.post(browser.url, {"code": "000000"})
        assert ("That code is not right" in said(browser)) is (n < 4)
        assert 'value="000000"' not in source(browser)  # the next one is typed into an empty field
    assert "Too many wrong codes. Wait 1 minute before the next try." in said(browser)
    browser.type_code("dave")
    assert "Too many wrong codes. Wait 1 minute before the next try." in said(browser)
    assert not browser.is_in()
    Bucket.objects.update(locked_until=timezone.now() - timedelta(seconds=1))
    browser.type_code("dave")
    assert browser.is_in()


@pytest.mark.asvs("11.3.3")
def test_a_seed_is_stored_nowhere_in_clear(dave: Visitor, visitor: Open) -> None:
    device = TotpDevice.objects.get(user__username="dave")
    key = factors.text_key(device)
    half_way(visitor()).type_code("dave")
    assert key not in everything_stored()
    assert device.secret not in str(Event.objects.values())
    head, _, tail = device.secret.rpartition(".") if "." in device.secret else ("", "", device.secret)
    flipped = tail[:-6] + ("A" if tail[-6] != "A" else "B") + tail[-5:]
    device.secret = f"{head}.{flipped}" if head else flipped
    with pytest.raises(crypto.Undecipherable):
        factors.text_key(device)
    # A ciphertext is good for its own authenticator only.
    other = TotpDevice.objects.get(user__username="erin")
    other.secret = TotpDevice.objects.get(user__username="dave").secret
    with pytest.raises(crypto.Undecipherable):
        factors.text_key(other)


def everything_stored() -> str:
    """Every value of every table."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            found += [str(row) for row in cursor.fetchall()]
    return "\n".join(found)


@pytest.mark.asvs("11.2.5")
def test_a_seed_that_cannot_be_read_lets_nobody_in(dave: Visitor, visitor: Open) -> None:
    code = code_of("dave")
    TotpDevice.objects.filter(user__username="dave").update(secret="x.broken")
    browser = half_way(visitor())
    browser.post(browser.url, {"code": code})
    assert browser.page.status_code == 200
    assert "That code is not right" in said(browser)
    assert not browser.is_in()
    assert Event.objects.filter(kind="factor_unreadable", subject__username="dave").exists()
    # One that is being set up is made anew.
    carol = visitor("carol")
    carol.get(portal_url(PAGE))
    TotpDevice.objects.filter(user__username="carol").update(secret="x.broken")
    carol.get(portal_url(PAGE))
    assert re.fullmatch(r"[A-Z2-7]{32}", key_on(carol))


# --- Recovery codes ---------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.5.1", "6.5.2", "6.5.4")
def test_ten_recovery_codes_each_good_once_and_stored_as_hashes(cast: dict[str, User], visitor: Open) -> None:
    codes = enrol(visitor("dave"), "dave")
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"(?:[a-z2-7]{4}-){3}[a-z2-7]{4}", code) for code in codes)  # 80 bits
    stored = everything_stored().lower()
    for code in codes:
        assert code not in stored
        assert code.replace("-", "") not in stored
    assert all(row.encoded.startswith("argon2$argon2id$") for row in RecoveryCode.objects.all())
    for code in (codes[0], codes[9].upper().replace("-", " "), f"  {codes[4].replace('o', '0').replace('i', '1').replace('b', '8')} "):
        browser = half_way(visitor())
        browser.post(browser.url, {"code": code})
        assert browser.is_in(), code
        assert browser.session().methods == ["pwd", "recovery"]
        again = half_way(visitor())
        again.post(again.url, {"code": code})
        assert "That recovery code is not right, or it was used already." in said(again)
        assert not again.is_in()
    browser.get(portal_url(PAGE))
    assert "7 left" in said(browser)
    assert len(re.findall("is-used", source(browser))) == 3
    assert said(browser).count("unused") == 7


def test_a_recovery_code_says_how_many_are_left(dave: Visitor, visitor: Open) -> None:
    codes = factors.make_recovery_codes(User.objects.get(username="dave"))
    browser = half_way(visitor(), target="/account/")
    browser.post(browser.url, {"code": codes[3], "next": "/account/"})
    assert "9 recovery codes are left." in said(browser)
    assert Event.objects.get(kind="recovery_code_used").data == {"left": 9}


@pytest.mark.asvs("6.5.6")
def test_new_recovery_codes_make_the_old_ones_worthless(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    old = enrol(dave, "dave")
    dave.get(portal_url(f"{PAGE}codes/"))
    assert "the 10 unused ones too" in said(dave)
    newest = hidden(dave, "newest")
    dave.post(dave.url, {"newest": newest})
    new = codes_on(dave)
    assert len(set(new) - set(old)) == 10
    browser = half_way(visitor())
    browser.post(browser.url, {"code": old[0]})
    assert not browser.is_in()
    browser.post(browser.url, {"code": new[0]})
    assert browser.is_in()
    # The form once more: whoever sends it twice must not be left with codes that are worthless already.
    dave.post(portal_url(f"{PAGE}codes/"), {"newest": newest})
    assert codes_on(dave) == []
    assert "New codes were made already" in said(dave)
    assert RecoveryCode.objects.filter(used_at=None).count() == 9


@pytest.mark.django_db(transaction=True)
def test_a_form_that_is_sent_twice_at_once_shows_no_codes_that_are_worthless() -> None:
    dave = people()["dave"]
    newest = factors.newest_recovery_code(dave)

    def make(_: int) -> list[str]:
        try:
            return factors.make_recovery_codes(dave, newest=newest)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        answers = [codes for codes in pool.map(make, range(4)) if codes]
    assert len(answers) == 1
    assert RecoveryCode.objects.filter(user=dave).count() == 10
    assert factors.prove(RequestFactory().get("/"), dave, answers[0][7]).method == "recovery"


@pytest.mark.asvs("5.4.1")
def test_the_codes_on_the_page_can_be_had_as_a_file_and_nothing_is_kept(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    codes = enrol(dave, "dave")
    before = everything_stored()
    answer = dave.post(portal_url(f"{PAGE}codes/file"), {"codes": codes})
    assert answer["Content-Disposition"] == 'attachment; filename="gatehouse-recovery-codes-dave.txt"'
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    text = answer.content.decode()
    assert text.startswith("Gatehouse: recovery codes of dave at login.portal.localhost\n")
    assert [line.split()[1] for line in text.splitlines() if re.match(r"^ ?\d+  ", line)] == codes
    assert everything_stored() == before
    for wrong in (["<script>"], [codes[0], "x"], [], codes * 2, ["a" * 16]):
        assert dave.post(portal_url(f"{PAGE}codes/file"), {"codes": wrong}).status_code == 404
    dave.get(portal_url(f"{PAGE}codes/file"))
    assert dave.url == portal_url(PAGE)


def test_who_has_no_recovery_codes_is_told_what_that_means(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    erin.get(portal_url(PAGE))
    assert "There are none. Without them a lost phone locks you out" in said(erin)
    erin.get(portal_url(f"{PAGE}codes/"))
    erin.post(erin.url, {"newest": hidden(erin, "newest")})
    assert len(codes_on(erin)) == 10


# --- Removal ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.5.6", "7.4.3")
def test_removing_one_says_first_what_will_happen_and_ends_the_other_sessions(dave: Visitor, visitor: Open) -> None:
    dave.get(portal_url(f"{PAGE}add/"))
    dave.post(dave.url, {"code": first_code("dave"), "name": "Tablet"})
    tablet = TotpDevice.objects.get(name="Tablet")
    elsewhere = half_way(visitor())
    elsewhere.type_code("dave")
    old = dave.key(PORTAL_HOST)
    dave.get(portal_url(f"{PAGE}{tablet.pk}/remove/"))
    assert "Remove “Tablet”?" in said(dave)
    assert "One other browser is signed out; this one stays." in said(dave)
    assert "It is the last one" not in said(dave)
    assert elsewhere.is_in()
    dave.post(dave.url)
    assert "“Tablet” is removed." in said(dave)
    assert not elsewhere.is_in()
    assert dave.is_in()
    assert sessions.live([old], None) == []
    assert RecoveryCode.objects.count() == 10
    assert dave.session().methods == ["pwd", "otp"]
    dave.post(portal_url(f"{PAGE}{tablet.pk}/remove/"))
    assert "That authenticator is not there any more." in said(dave)


def test_nobody_removes_somebody_elses(dave: Visitor, visitor: Open) -> None:
    phone = TotpDevice.objects.get(user__username="dave")
    carol = visitor("carol")
    enrol(carol, "carol")
    for answer in (carol.get(portal_url(f"{PAGE}{phone.pk}/remove/")), carol.post(portal_url(f"{PAGE}{phone.pk}/remove/"))):
        assert answer.status_code == 200
        assert "That authenticator is not there any more." in said(carol)
    assert TotpDevice.objects.filter(pk=phone.pk).exists()


@pytest.mark.asvs("6.5.6")
def test_with_the_last_one_go_the_recovery_codes_and_what_the_session_was_worth(dave: Visitor, acme: Tenant, globex: Tenant) -> None:
    asks(acme)
    for slug in ("acme", "globex"):
        dave.get(tenant_url(slug))
        assert dave.is_in(slug)
    phone = TotpDevice.objects.get(user__username="dave")
    dave.get(portal_url(f"{PAGE}{phone.pk}/remove/"))
    assert "It is the last one: your recovery codes go with it" in said(dave)
    assert "Acme asks for a second factor. What is open there in this browser ends, too. You set up a new one on the way in." in said(dave)
    dave.post(dave.url)
    assert not RecoveryCode.objects.exists()
    assert dave.session().methods == dave.session("globex").methods == ["pwd"]
    assert dave.is_in("globex")
    assert not dave.is_in("acme")
    dave.get(tenant_url("acme", "/_portal/start?again=1"))
    assert dave.url.startswith(portal_url(f"{PAGE}?next="))  # no second proof of the password: it was given a moment ago
    assert key_on(dave)


def test_an_operator_is_told_that_a_new_one_will_be_asked_for(cast: dict[str, User], visitor: Open) -> None:
    erin = visitor("erin")
    phone = TotpDevice.objects.get(user=cast["erin"])
    erin.get(portal_url(f"{PAGE}{phone.pk}/remove/"))
    assert (
        "Operators always have a second factor. What is open there in this browser ends, too. You set up a new one on the way in."
        in said(erin)
    )
    erin.post(erin.url)
    erin.get(portal_url("/console/acme/sessions/"))
    assert erin.url.startswith(portal_url(PAGE))


def test_who_lost_everything_is_helped_by_an_operator_and_every_session_ends(dave: Visitor, visitor: Open, cast: dict[str, User]) -> None:
    assert factors.reset(cast["dave"], by=cast["erin"], reason="phone lost, seen in person") == 1
    assert not dave.is_in()
    browser = visitor("dave")
    assert browser.is_in()
    assert Event.objects.get(kind="factors_reset").data["reason"] == "phone lost, seen in person"


# --- With a generator that is not ours --------------------------------------------------------------------------------


@pytest.mark.asvs("6.5.1")
def test_oathtool_is_a_phone_for_us(cast: dict[str, User], visitor: Open) -> None:
    """From end to end with a generator that is not ours: enrol, sign in with its codes, each of them once."""
    dave = visitor("dave")
    dave.get(portal_url(PAGE))
    key = key_on(dave)
    first = oathtool(key)
    dave.post(portal_url(PAGE), {"code": first})
    assert len(codes_on(dave)) == 10
    second = oathtool(key, "30 seconds")  # from now: one step early is good as well
    for code, good in ((first, False), (second, True), (second, False)):
        browser = half_way(visitor())
        browser.post(browser.url, {"code": code})
        assert browser.is_in() is good, said(browser)
