"""Signing up: an account whose address is proven by a mail, at the portal's door or a tenant's, and nobody learns who has one."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.hashers import make_password
from django.core import mail
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from identity import accounts, addresses, invitations, links
from identity.models import Event, Link, Mail, Session, User
from tenants import policy
from tenants.models import JoinRequest, Membership, Tenant
from tests.post import delivered, link_in
from tests.test_accounts import neutral
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
PASSWORD = "three little words"
FRANK = {"username": "frank", "email": "frank@new.example", "password": PASSWORD}


def sign_up(browser: Visitor, at: str = "", **changes: str) -> Any:
    target = {"next": f"/enter/{at}/"} if at else {}
    return browser.post(portal_url("/signup/"), {**FRANK, **target, **changes})


def say(tenant: Tenant, **rules: Any) -> None:
    tenant.policy = {**tenant.policy, **rules}
    tenant.save()


def words(page: Any) -> str:
    """What a person reads on the page, between head and foot."""
    main = page.content.decode().partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", main).split())


# --- The whole way ------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.4.1")
def test_the_mail_after_a_sign_up_is_this(cast: dict[str, User], visitor: Open) -> None:
    page = sign_up(visitor())
    assert page.status_code == 201
    assert "A mail is on its way to frank@new.example" in words(page)
    assert not mail.outbox  # no request sends one
    (sent,) = delivered()
    assert (sent.subject, sent.to) == ("Prove that this address is yours", ["frank@new.example"])
    link = link_in(sent, "link/verify")
    text = re.sub(r"When: .*\n", "When: …\n", str(sent.body))
    assert text == (
        "Somebody gave the address frank@new.example for an account at Gatehouse. If that was you, follow the link: the page behind "
        "it names the account, and a button confirms.\n\n"
        "When: …\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        f"Confirm the address:\n{link}\n\n"
        "The link works once, within 24 hours. Until then the address signs nobody in.\n\n"
        "If it was not you, somebody typed your address, perhaps by mistake. Then there is nothing to do: without the link that "
        "account stays without it.\n\n"
        "-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )


def test_from_the_form_to_the_proven_address(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    sign_up(browser)
    assert not browser.is_in()
    assert not visitor().sign_in("frank@new.example", PASSWORD).context["user"].is_authenticated
    (sent,) = delivered()
    link = link_in(sent, "link/verify")
    page = browser.get(link)
    assert "frank@new.example is to belong to the account frank" in words(page)
    page = browser.post(link)
    assert "frank@new.example belongs to the account frank" in words(page)
    browser.sign_in("Frank@New.example", PASSWORD)
    assert browser.is_in()
    assert list(Event.objects.filter(subject__username="frank", kind__startswith="email").values_list("kind", flat=True)) == [
        "email_proven"
    ]


def test_a_mail_scanner_that_opens_every_link_proves_nothing(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor())
    link = link_in(delivered()[0], "link/verify")
    for _ in range(3):
        assert visitor(user_agent="a scanner").get(link).status_code == 200
        assert visitor(user_agent="a scanner").head(link).status_code == 200
    assert User.objects.get(username="frank").email_verified_at is None
    assert visitor().post(link).status_code == 200
    assert User.objects.get(username="frank").email_verified_at


def test_a_double_click_and_a_second_tab_prove_once_and_say_so_both_times(cast: dict[str, User], visitor: Open) -> None:
    browser = visitor()
    sign_up(browser)
    link = link_in(delivered()[0], "link/verify")
    pages = [words(browser.post(link)), words(browser.post(link)), words(visitor().get(link))]
    assert len(set(pages)) == 1
    assert "Your address is proven" in pages[0]
    assert Event.objects.filter(kind="email_proven").count() == 1


def test_a_link_that_has_run_out_says_what_to_do(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor())
    link = link_in(delivered()[0], "link/verify")
    Link.objects.update(expires_at="2020-01-01T00:00Z")
    for answer in (visitor().get(link), visitor().post(link)):
        assert answer.status_code == 404
        assert "It was good for 24 hours" in words(answer)
        assert 'href="/account/email/"' in answer.content.decode()
    assert User.objects.get(username="frank").email_verified_at is None


def test_the_json_sign_up_keeps_its_contract_and_sends_the_mail(cast: dict[str, User], visitor: Open) -> None:
    answer = visitor().post_json(portal_url("/api/v1/signup"), json.dumps(FRANK))
    assert (answer.status_code, answer.json()) == (201, {"message": "User created successfully"})
    assert not answer.cookies
    assert Session.objects.count() == 0
    browser = visitor()
    browser.sign_in("frank", PASSWORD)  # by the name, at once
    assert browser.is_in()
    assert [sent.to for sent in delivered()] == [["frank@new.example"]]


def test_the_mail_comes_again_but_not_without_end(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = visitor()
    page = sign_up(browser)
    again = re.search(r'name="again" value="([^"]+)"', page.content.decode())
    assert again
    first = link_in(delivered()[0], "link/verify")
    page = browser.post(portal_url("/signup/"), {"again": again[1]})
    assert page.status_code == 200
    assert "sent again" in words(page)
    assert not delivered()  # a double click is one mail
    monkeypatch.setattr(addresses, "PAUSE", addresses.PAUSE * 0)
    newer: list[str] = []
    for _ in range(8):
        browser.post(portal_url("/signup/"), {"again": again[1]})
        newer += [link_in(sent, "link/verify") for sent in delivered()]
    assert len(newer) == addresses.MOST - 1
    old = visitor().get(first)
    assert old.status_code == 404
    assert "only the link in the newest works" in words(old)
    assert visitor().get(newer[-1]).status_code == 200


def test_a_made_up_word_for_another_mail_sends_none(cast: dict[str, User], visitor: Open) -> None:
    for word in ("", "x", "WzEsIngiXQ:x:y"):
        browser = visitor()
        browser.post(portal_url("/signup/"), {"again": word})
        assert browser.url == portal_url("/login/")
    assert not Mail.objects.exists()


def test_one_address_makes_no_hundred_accounts_in_ten_minutes(
    cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "SIGN_UPS", 3)
    for n in range(3):
        name = f"f{n}"
        assert sign_up(visitor(address=f"2001:db8::{n}"), username=name, email=f"{name}@new.example").status_code == 201
    assert sign_up(visitor(address="2001:db8::ffff")).status_code == 429
    answer = visitor().post_json(portal_url("/api/v1/signup"), json.dumps(FRANK), REMOTE_ADDR="2001:db8::9")
    assert (answer.status_code, answer.json()) == (429, {"error": "Too many attempts"})
    assert not User.objects.filter(username="frank").exists()
    assert sign_up(visitor(address="2001:db8:1::1")).status_code == 201


# --- Nobody learns who has an account -------------------------------------------------------------------------------


def _known(cast: dict[str, User]) -> dict[str, str]:
    """What a stranger may type: an address of somebody, of nobody, one that is not proven, and one of somebody deactivated."""
    User.objects.filter(username="carol").update(is_active=False)
    alice = User.objects.get(username="alice")
    alice.email_verified_at = None
    alice.save()
    return {
        "known": "dave@acme.example", "unknown": "dove@acme.example", "unverified": "alice@acme.example",
        "inactive": "carol@globex.example", "operator": "erin@gatehouse.example",
    }  # fmt: skip


@pytest.mark.asvs("6.3.8")
def test_a_sign_up_answers_the_same_whoever_has_the_address(cast: dict[str, User], visitor: Open) -> None:
    answers, asked = set(), set()
    for n, (kind, address) in enumerate(_known(cast).items()):
        with CaptureQueriesContext(connection) as queries:
            page = sign_up(visitor(), username=f"guess{n}", email=address)
        text = neutral(page).replace(address, "…").replace(f"guess{n}", "…")
        answers.add((page.status_code, re.sub(r'name="again" value="[^"]+"', "", text), str(sorted(page.headers))))
        asked.add(tuple(re.sub(r"'[^']*'|\b\d+\b|\"s\d+_x\d+\"", "…", query["sql"]) for query in queries))
        json_answer = visitor().post_json(portal_url("/api/v1/signup"), json.dumps({**FRANK, "username": f"json{n}", "email": address}))
        assert (json_answer.status_code, json_answer.content) == (201, b'{"message": "User created successfully"}'), kind
        browser = visitor()
        browser.sign_in(f"guess{n}", PASSWORD)  # what came of it is the same, too
        assert browser.is_in()
    assert len(answers) == 1
    assert len(asked) == 1


@pytest.mark.asvs("6.3.8")
def test_only_the_owner_of_a_proven_address_hears_that_somebody_typed_it(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(), email="DAVE@acme.example")
    (sent,) = delivered()
    assert (sent.subject, sent.to) == ("You have an account already", ["dave@acme.example"])
    text = re.sub(r"When: .*\n", "When: …\n", str(sent.body))
    assert text == (
        "Hello Dave Vance,\n\n"
        "Somebody gave your address at Gatehouse for another account. Whoever it was learned nothing of yours, and nothing has changed.\n\n"
        "When: …\nBrowser: Firefox 142 on Linux\nAddress: 127.0.0.1\n\n"
        "If that was you: there is an account with this address. Sign in to it, or set a new password if you have forgotten it:\n"
        "http://login.portal.localhost:8000/login/\nhttp://login.portal.localhost:8000/password/forgot/\n\n"
        "If it was not you, there is nothing to do.\n\n"
        "-- \n"
        "Sent by Gatehouse at http://login.portal.localhost:8000. Something wrong? Tell the people who run this place.\n"
    )
    frank = User.objects.get(username="frank")
    assert (frank.email_key, frank.email_verified_at) == (None, None)
    assert visitor("dave@acme.example").session().user.username == "dave"


def test_the_owner_of_a_closed_account_is_told_that_it_is_closed(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(is_active=False)
    sign_up(visitor(), email="dave@acme.example")
    assert "the account that has this address is closed" in str(delivered()[0].body)


@pytest.mark.asvs("1.3.11")
def test_a_strangers_words_are_in_no_mail(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(user_agent="Buy at evil.example"), username="www.evil.example", email="victim@x.example")
    sign_up(visitor(user_agent="Buy at evil.example"), username="www2.evil.example", email="dave@acme.example")
    sent = delivered()
    assert len(sent) == 2
    assert not [each for each in sent if "evil" in str(each.message())]


def test_the_same_address_gets_five_mails_an_hour_from_however_many_accounts(cast: dict[str, User], visitor: Open) -> None:
    for n in range(8):
        sign_up(visitor(), username=f"flood{n}", email="victim@x.example")
        sign_up(visitor(), username=f"food{n}", email="Dave@acme.example")
    arrived = [sent.to[0] for sent in delivered()]
    assert (arrived.count("victim@x.example"), arrived.count("dave@acme.example")) == (5, 5)


@pytest.mark.asvs("14.2.3")
@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_ORIGIN", "HTTP_REFERER"])
def test_a_forged_host_is_in_no_link(cast: dict[str, User], visitor: Open, header: str) -> None:
    browser = visitor()
    value = "host=evil.example" if header == "HTTP_FORWARDED" else "evil.example"
    if header in {"HTTP_ORIGIN", "HTTP_REFERER"}:
        value = "http://evil.example/"
    forged: dict[str, Any] = {header: value}
    page = browser.post(portal_url("/signup/"), FRANK, **forged)
    if header == "HTTP_ORIGIN":
        assert page.status_code == 403
        return
    assert page.status_code == 201
    (sent,) = delivered()
    assert link_in(sent, "link/verify").startswith("http://login.portal.localhost:8000/link/verify/")
    assert "evil" not in str(sent.message())


def test_a_forged_host_header_finds_no_form(cast: dict[str, User], visitor: Open) -> None:
    page = visitor().post(portal_url("/signup/"), FRANK, HTTP_HOST="evil.example", HTTP_ORIGIN="http://evil.example")
    assert page.status_code in {403, 404}
    assert not User.objects.filter(username="frank").exists()


# --- Addresses ----------------------------------------------------------------------------------------------------


def said(page: Any, field: str) -> str:
    found = re.search(rf'id="{field}_error">(.*?)</div>\s*</div>', page.content.decode(), re.DOTALL)
    return " ".join(re.findall(r"<p>(.*?)</p>", found[1])) if found else ""


@pytest.mark.parametrize("address", ["da\u212ae@acme.example", "\u017fue@acme.example", "d\u0430ve@acme.example", "ｄave@acme.example"])
def test_letters_that_look_like_others_are_refused_before_the_at(cast: dict[str, User], visitor: Open, address: str) -> None:
    page = sign_up(visitor(), email=address)
    assert page.status_code == 200
    assert said(page, "email")
    assert not User.objects.filter(username="frank").exists()


def test_a_domain_in_any_script_is_one_domain(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(), email="frank@BÜCHER.example")
    (sent,) = delivered()
    assert sent.to == ["frank@xn--bcher-kva.example"]
    visitor().post(link_in(sent, "link/verify"))
    for typed in ("frank@bücher.example", "Frank@BÜCHER.example", "frank@xn--bcher-kva.example", "frank@bu\u0308cher.example"):
        browser = visitor()
        browser.sign_in(typed, PASSWORD)
        assert browser.is_in(), typed
    sign_up(visitor(), username="again", email="FRANK@bücher.example")
    assert delivered()[-1].subject == "You have an account already"


def test_a_domain_that_looks_like_another_is_another(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(), email="dave@аcme.example")  # the first letter is Cyrillic
    (sent,) = delivered()
    assert sent.to == ["dave@xn--cme-5cd.example"]
    visitor().post(link_in(sent, "link/verify"))
    assert User.objects.get(username="frank").email_verified_at
    assert visitor("dave@acme.example").session().user.username == "dave"


def test_a_plus_makes_another_address_that_is_proven_by_itself(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(), email="dave+shop@acme.example")
    (sent,) = delivered()
    assert sent.to == ["dave+shop@acme.example"]
    visitor().post(link_in(sent, "link/verify"))
    assert User.objects.named("dave+shop@acme.example") == User.objects.get(username="frank")
    assert User.objects.named("dave@acme.example") == cast["dave"]


@pytest.mark.parametrize("field", ["username", "email", "password", "next"])
def test_ten_kilobytes_are_refused_calmly(cast: dict[str, User], visitor: Open, field: str) -> None:
    value = "x" * 10_000 + ("@x.example" if field == "email" else "")
    page = visitor().post(portal_url("/signup/"), {**FRANK, field: value})
    if field == "next":  # leads nowhere, and the account is made
        assert page.status_code == 201
        return
    assert page.status_code == 200
    assert said(page, field)
    assert not User.objects.filter(email="frank@new.example").exists()


@pytest.mark.asvs("1.3.11")
@pytest.mark.parametrize(
    "address", ["a@x.example\nBcc: b@x.example", "a@x.example\r\nBcc: b@x.example", '"a\n"@x.example', "a@x.example,b@x.example"]
)
def test_an_address_writes_no_header(cast: dict[str, User], visitor: Open, address: str) -> None:
    assert sign_up(visitor(), email=address).status_code in {200, 400}
    assert not delivered()


def test_two_accounts_may_have_typed_one_address_and_the_first_to_prove_it_has_it(cast: dict[str, User], visitor: Open) -> None:
    sign_up(visitor(), username="first", email="shared@x.example")
    sign_up(visitor(), username="second", email="shared@x.example")
    first, second = (link_in(sent, "link/verify") for sent in delivered())
    assert visitor().post(second).status_code == 200
    late = visitor().post(first)
    assert late.status_code == 409
    assert "Another account has this address" in words(late)
    assert User.objects.named("shared@x.example") == User.objects.get(username="second")
    assert Link.objects.get(user__username="first").used_at is None  # nothing has changed


# --- At a tenant's door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "status", "text"),
    [
        ({"sign_up": "closed"}, 403, "Acme takes nobody in at present"),
        ({}, 403, "Acme invites its people"),
        ({"sign_up": "domain", "sign_up_domains": "acme.example"}, 200, "Acme takes addresses at acme.example"),
        ({"sign_up": "open"}, 200, "to belong to Acme"),
    ],
)
def test_the_tenant_says_what_is_offered_at_its_door(
    cast: dict[str, User], visitor: Open, acme: Tenant, settings: Any, rules: dict[str, str], status: int, text: str
) -> None:
    say(acme, **rules)
    for platform in ("open", "closed"):
        settings.SIGNUP = platform
        browser = visitor()
        page = browser.get(portal_url("/signup/?next=/enter/acme/"))
        assert page.status_code == status
        assert text in words(page)
        assert 'data-brand="acme"' in page.content.decode()
        assert (acme.support_contact in words(page)) == (status == 403)
        browser.get(tenant_url("acme"))
        offered = re.search(r'href="(/signup/\?next=[^"]+)"', browser.page.content.decode())
        assert (offered is not None) == (status == 200)
        if status == 403:
            assert sign_up(visitor(), "acme").status_code == 403
    assert not User.objects.filter(username="frank").exists()


def test_a_suspended_tenant_takes_nobody_in(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    say(acme, sign_up="open")
    sign_up(visitor(), "acme")
    (sent,) = delivered()
    Tenant.objects.filter(pk=acme.pk).update(status=Tenant.Status.SUSPENDED)
    assert sign_up(visitor(), "acme", username="late", email="late@x.example").status_code == 403
    page = visitor().post(link_in(sent, "link/verify"))
    assert "not open to this address at present" in words(page)
    assert not Membership.objects.filter(user__username="frank").exists()


def test_who_signs_up_at_an_open_tenant_is_in_after_the_proof(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    say(acme, sign_up="open")
    browser = visitor()
    browser.get(tenant_url("acme"))
    target = re.search(r'href="/signup/\?next=([^"]+)"', browser.page.content.decode())
    assert target
    page = browser.get(portal_url(f"/signup/?next={target[1]}"))
    hidden = re.search(r'name="next" value="([^"]+)"', page.content.decode())
    assert hidden
    browser.post(portal_url("/signup/"), {**FRANK, "next": hidden[1].replace("&amp;", "&")})
    assert not Membership.objects.filter(user__username="frank").exists()
    (sent,) = delivered()
    assert "for an account at Acme" in str(sent.body)
    page = browser.post(link_in(sent, "link/verify"))
    assert "You belong to Acme" in words(page)
    onward = re.search(r'href="(/login/\?next=[^"]+)"', page.content.decode())
    assert onward
    assert onward[1] == f"/login/?next={quote('/enter/acme/', safe='')}"
    browser.get(portal_url(onward[1]))
    browser.post(browser.url, {"username": "frank", "password": PASSWORD})
    assert browser.url == tenant_url("acme")
    assert browser.is_in("acme")
    event = Event.objects.get(kind="joined")
    assert (event.tenant, event.subject_id, event.data["how"]) == (acme, User.objects.get(username="frank").pk, "open")


def test_by_domain_only_its_addresses_get_in(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    say(acme, sign_up="domain", sign_up_domains="acme.example, Bücher.example")
    page = sign_up(visitor(), "acme", email="frank@else.example")
    assert said(page, "email") == (
        "Acme takes addresses at acme.example, xn--bcher-kva.example only. Use one of these, or ask its people for an invitation."
    )
    for n, domain in enumerate(("acme.example", "ACME.example", "bücher.example")):
        sign_up(visitor(), "acme", username=f"f{n}", email=f"f{n}@{domain}")
    for sent in delivered():
        visitor().post(link_in(sent, "link/verify"))
    assert Membership.objects.filter(tenant=acme, user__username__in=["f0", "f1", "f2"]).count() == 3
    for address in ("x@sub.acme.example", "x@acme.example.evil.example", "x@notacme.example"):
        assert said(sign_up(visitor(), "acme", email=address), "email")


def test_with_approval_one_waits_and_the_admins_hear_of_it(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    say(acme, sign_up="open", approval=True)
    browser = visitor()
    sign_up(browser, "acme")
    link = link_in(delivered()[0], "link/verify")
    for page in (browser.post(link), browser.post(link)):
        assert "The people of Acme decide" in words(page)
    assert JoinRequest.objects.filter(tenant=acme, user__username="frank").count() == 1
    assert not Membership.objects.filter(user__username="frank").exists()
    assert {sent.to[0] for sent in delivered()} == {"bob@acme.example", "olivia@acme.example"}
    browser.sign_in("frank", PASSWORD)
    page = browser.get(portal_url("/enter/acme/"))
    assert page.status_code == 403
    assert "there is nothing more to do" in words(page)  # and no second door beside the one that was knocked at


def test_who_has_an_account_already_asks_with_it(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    say(acme, sign_up="open")
    mallory = visitor("mallory")
    mallory.get(tenant_url("acme"))
    assert mallory.page.status_code == 403
    door = re.search(r'href="(/signup/\?next=[^"]+)"', mallory.page.content.decode())
    assert door
    page = mallory.get(portal_url(door[1]))
    assert "Yours is not proven yet" in words(page)
    mallory.post(portal_url("/signup/"), {"next": "/enter/acme/"})
    assert not Membership.objects.filter(user=cast["mallory"]).exists()
    proven = User.objects.get(username="mallory")
    proven.email_verified_at = proven.date_joined
    proven.save()
    page = mallory.get(portal_url(door[1]))
    assert "You are in at once" in words(page)
    assert not Membership.objects.filter(user=cast["mallory"]).exists()  # looking is not asking
    mallory.post(portal_url("/signup/"), {"next": "/enter/acme/"})
    assert mallory.url == tenant_url("acme")
    assert mallory.is_in("acme")


def test_a_place_that_is_not_open_shows_no_door(cast: dict[str, User], visitor: Open) -> None:
    mallory = visitor("mallory")
    pages = []
    for slug in ("acme", "globex"):
        mallory.get(tenant_url(slug))
        pages.append(neutral(mallory.page))
    assert pages[0] == pages[1]
    assert "/signup/" not in pages[0]


def test_the_operators_link_mails_a_proof_too(cast: dict[str, User], visitor: Open) -> None:
    page = visitor().post(links.make(Link.Purpose.OPERATOR), {**FRANK, "username": "grace"})
    assert page.status_code == 201
    assert "A mail with a link is on its way" in words(page)
    assert [sent.subject for sent in delivered()] == ["Prove that this address is yours"]


def test_a_taken_name_is_an_error_beside_its_field_and_mails_nobody(cast: dict[str, User], visitor: Open) -> None:
    assert said(sign_up(visitor(), username="DAVE"), "username") == "That name is already in use. Choose another."
    with pytest.raises(accounts.NameTaken):
        accounts.sign_up(User(username="Dave", email="x@x.example", password=make_password(None)), request=RequestFactory().get("/"))
    assert not Mail.objects.exists()


def test_an_unproven_address_opens_no_invitation(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    invitations.invite(acme, "vip@x.example", "admin")
    sign_up(visitor(), email="vip@x.example")
    frank = User.objects.get(username="frank")
    assert invitations.open_for(frank) == []
    (proof,) = (sent for sent in delivered() if sent.subject.startswith("Prove"))
    visitor().post(link_in(proof, "link/verify"))
    frank.refresh_from_db()
    assert [each.role for each in invitations.open_for(frank)] == ["admin"]
