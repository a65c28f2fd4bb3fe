"""The settings of a tenant: who may change what, what a file or a text may be, and that every change is told."""

import io
import zlib
from collections.abc import Callable
from datetime import timedelta
from struct import pack
from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone
from PIL import Image, PngImagePlugin

from identity.models import Event, Session, User
from tenants.logos import LARGEST_FILE
from tenants.models import Host, Logo, Tenant
from tenants.policy import Policy
from tests.test_people import old_proof, text
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
SETTINGS = "/console/acme/settings/"
PAGES = ["", "look/", "policy/", "sign-up/", "hosts/"]
POLICY: dict[str, Any] = {
    "idle_0": "8", "idle_1": "hours", "absolute_0": "24", "absolute_1": "hours", "remembered": "on", "second_factor": "off",
    "grace_days": "0", "trusted_browsers": "on", "tries": "5", "password_length": "8", "password_length_alone": "8",
}  # fmt: skip
LOOK: dict[str, Any] = {"name": "Acme", "colour": "#0d5f7a", "picked": "#0d5f7a", "sign_in_note": "", "support_contact": ""}


def look_of(tenant: Tenant, **changes: Any) -> dict[str, Any]:
    """What the look page sends as it stands, with these changes."""
    stands = {"name": tenant.name, "colour": tenant.colour, "picked": tenant.colour, "support_contact": tenant.support_contact}
    return {**stands, "sign_in_note": tenant.sign_in_note, **changes}


def upload(browser: Visitor, path: str, data: dict[str, Any], name: str, content: bytes, kind: str = "image/png") -> Any:
    """A form with a file, as a browser sends it."""
    browser.get(portal_url(path))
    mark, lines = "----gatehouse", []
    for key, value in {**data, "csrfmiddlewaretoken": browser._csrf("login.portal.localhost")}.items():
        lines += [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()]
    lines += [f'--{mark}\r\nContent-Disposition: form-data; name="logo"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'.encode()]
    body = b"".join(lines) + content + f"\r\n--{mark}--\r\n".encode()
    headers: dict[str, Any] = {"HTTP_ORIGIN": portal_url("")}
    return browser._ask("POST", portal_url(path), body, headers, content_type=f"multipart/form-data; boundary={mark}")  # type: ignore[arg-type]


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "#c02030").save(out, kind, **more)
    return out.getvalue()


def changes() -> list[Event]:
    return list(Event.objects.filter(kind="tenant_changed").order_by("pk"))


# --- Who ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("8.2.1", "8.2.2")
@pytest.mark.parametrize(("name", "sees"), [("bob", True), ("olivia", True), ("erin", True), ("alice", False), ("carol", False)])
def test_admins_owners_and_operators_see_the_settings_and_nobody_else(cast: dict[str, User], visitor: Open, name: str, sees: bool) -> None:
    browser = visitor(name)
    for page in PAGES:
        assert browser.get(portal_url(SETTINGS + page)).status_code == (200 if sees else 404)
    assert browser.get(portal_url(f"{SETTINGS}look/preview.css?colour=aa0000")).status_code == (200 if sees else 404)


@pytest.mark.asvs("8.2.1", "8.3.1")
def test_an_admin_looks_and_every_post_is_refused(acme: Tenant, visitor: Open) -> None:
    Host.objects.create(tenant=acme, name="id.acme.test")
    bob = visitor("bob")
    for page in PAGES[1:]:
        seen = bob.get(portal_url(SETTINGS + page)).content.decode()
        assert "owners change it" in seen
        assert "Olivia" in seen
        assert 'class="save-bar"' not in seen
    before = Event.objects.count()
    tries: list[tuple[str, dict[str, Any]]] = [
        ("look/", look_of(acme, name="Mine")), ("look/", look_of(acme, preview="1")), ("policy/", {**POLICY, "tries": "1"}),
        ("sign-up/", {"sign_up": "open"}), ("hosts/", {"name": "x.acme.portal.localhost"}),
        *[("hosts/act", {verb: "id.acme.test", "sure": "1"}) for verb in ("check", "approve", "domain", "remove")],
    ]  # fmt: skip
    for page, data in tries:
        assert bob.post(portal_url(SETTINGS + page), data, follow=False).status_code == 403, (page, data)
    assert Event.objects.count() == before
    assert Tenant.objects.get(slug="acme").name == "Acme"
    assert Host.objects.get().approved_at is None


@pytest.mark.asvs("8.2.2")
def test_an_owner_of_another_tenant_finds_nothing(acme: Tenant, globex: Tenant, visitor: Open) -> None:
    acme.memberships.filter(user__username="olivia").delete()
    olivia = visitor("olivia")
    assert olivia.post(portal_url(SETTINGS + "look/"), look_of(acme, name="Mine"), follow=False).status_code == 404
    assert olivia.post(portal_url(SETTINGS + "policy/"), {**POLICY, "tries": "1"}, follow=False).status_code == 404
    assert Tenant.objects.get(slug="acme").name == "Acme"


# --- Look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["olivia", "erin"])
def test_an_owner_or_operator_changes_the_look_and_it_is_told(acme: Tenant, visitor: Open, name: str) -> None:
    browser = visitor(name)
    data = look_of(acme, name="Apex", colour="AA0000", sign_in_note="Ask Bob", support_contact="it@acme.example", home_is_public="on")
    page = browser.post(portal_url(SETTINGS + "look/"), data)
    assert "Saved. It holds from now on." in text(page)
    acme.refresh_from_db()
    assert (acme.name, acme.colour, acme.sign_in_note, acme.support_contact, acme.home_is_public) == (
        "Apex", "#aa0000", "Ask Bob", "it@acme.example", True,
    )  # fmt: skip
    (event,) = changes()
    assert (event.actor, event.tenant) == (User.objects.get(username=name), acme)
    assert (event.data["before"]["name"], event.data["after"]["name"]) == ("Acme", "Apex")
    assert set(event.data["after"]) == {"name", "colour", "sign_in_note", "support_contact", "home_is_public"} & set(event.data["before"])
    assert "Apex" in text(visitor().get(tenant_url("acme")))  # its home is public now


def test_what_is_so_already_is_no_change(acme: Tenant, visitor: Open) -> None:
    page = visitor("olivia").post(portal_url(SETTINGS + "look/"), look_of(acme))
    assert "Nothing has changed." in text(page)
    assert changes() == []


def test_the_picker_counts_where_it_was_used_and_the_text_where_that_was(acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    olivia.post(portal_url(SETTINGS + "look/"), look_of(acme, picked="#123456"))
    acme.refresh_from_db()
    assert acme.colour == "#123456"
    olivia.post(portal_url(SETTINGS + "look/"), look_of(acme, colour="#654321"))
    acme.refresh_from_db()
    assert acme.colour == "#654321"


def test_a_look_that_is_tried_out_is_drawn_and_not_saved(acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    page = olivia.post(portal_url(SETTINGS + "look/"), look_of(acme, name="Apex", colour="#aa0000", preview="1"))
    assert "Shown, not saved." in text(page)
    assert "preview.css?colour=aa0000" in page.content.decode()
    css = olivia.get(portal_url(SETTINGS + "look/preview.css?colour=aa0000"))
    assert css.content.decode() == '[data-brand="preview"] { --brand: #aa0000; }\n'
    for wrong in ("", "aa000", "red;}*{x", "aa0000;", "ＡＡ００００"):
        assert olivia.get(portal_url(f"{SETTINGS}look/preview.css?{urlencode({'colour': wrong})}")).status_code == 404
    acme.refresh_from_db()
    assert acme.name == "Acme"
    assert changes() == []


@pytest.mark.asvs("1.2.1", "2.2.1")
@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "", "required"), ("name", "x" * 81, "80"), ("colour", "red", "six hex digits"), ("colour", "#12345g", "six hex digits"),
        ("colour", "#12345", "six hex digits"), ("sign_in_note", "x" * 301, "300"), ("support_contact", "x" * 201, "200"),
        ("name", "\u202eemcA", "Control characters"),
    ],
)  # fmt: skip
def test_a_text_that_does_not_fit_is_refused_next_to_its_field(acme: Tenant, visitor: Open, field: str, value: str, says: str) -> None:
    page = visitor("olivia").post(portal_url(SETTINGS + "look/"), look_of(acme, **{field: value}), follow=False)
    assert page.status_code in {400, 422}
    if page.status_code == 422:
        assert says in page.content.decode().partition(f'id="{field}_error"')[2].partition("</div>")[0]
    assert changes() == []


@pytest.mark.asvs("1.2.1")
def test_markup_in_a_look_is_shown_as_text(acme: Tenant, visitor: Open) -> None:
    hostile = '<img src=x onerror=alert(1)>{{ 7|add:7 }}"'
    page = visitor("olivia").post(
        portal_url(SETTINGS + "look/"), look_of(acme, name=hostile, sign_in_note=hostile, support_contact=hostile)
    )
    assert "<img src=x" not in page.content.decode()
    assert "&lt;img src=x onerror=alert(1)&gt;{{ 7|add:7 }}" in page.content.decode()
    assert "<img src=x" not in visitor().get(tenant_url("acme")).content.decode()


# --- Logo ---------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("5.2.2", "5.3.1")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_logo_is_drawn_anew_served_and_removed(acme: Tenant, visitor: Open, kind: str) -> None:
    olivia = visitor("olivia")
    assert upload(olivia, SETTINGS + "look/", look_of(acme), "logo", picture(kind, (2000, 900))).status_code == 303
    acme.refresh_from_db()
    served = visitor().get(tenant_url("acme", acme.logo_url))
    assert served.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(served.content)).size == (512, 230)
    assert changes()[-1].data["after"]["logo"] == acme.logo_id.hex  # type: ignore[union-attr]
    olivia.post(portal_url(SETTINGS + "look/"), look_of(acme, remove_logo="on"))
    acme.refresh_from_db()
    assert acme.logo is None
    assert not Logo.objects.exists()
    assert changes()[-1].data["after"] == {"logo": None}


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 30,000 pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")


@pytest.mark.asvs("5.2.1", "5.2.2", "5.2.6")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bomb(), "16 million pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'></svg>", "no picture in a format taken here"),
        (b"<html><script>alert(1)</script></html>", "no picture in a format taken here"),
        (b"%PDF-1.7 ...", "no picture in a format taken here"),
        (picture("BMP"), "no picture in a format taken here"),
        (picture()[:60], "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"A" * (20 * 1024 * 1024), "at most 2 MB"),
        (picture() + b"\0" * LARGEST_FILE, "at most 2 MB"),
    ],
    ids=["bomb", "svg", "html", "pdf", "bmp", "cut off", "20 MB", "padded"],
)
def test_a_file_that_is_no_logo_is_refused_next_to_its_field(acme: Tenant, visitor: Open, content: bytes, says: str) -> None:
    answer = upload(visitor("olivia"), SETTINGS + "look/", look_of(acme, name="Apex"), "logo.png", content)
    assert answer.status_code == 422
    assert says in answer.content.decode().partition('id="logo_error"')[2].partition("</div>")[0]
    acme.refresh_from_db()
    assert (acme.logo, acme.name) == (None, "Acme")
    assert not Logo.objects.exists()


@pytest.mark.asvs("5.3.1")
def test_nothing_that_hides_in_a_picture_is_served(acme: Tenant, visitor: Open) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "<script>alert(1)</script>")
    polyglot = picture(pnginfo=notes) + b"<script>alert(1)</script><?php system('id') ?>"
    assert upload(visitor("olivia"), SETTINGS + "look/", look_of(acme), "x.php.png", polyglot).status_code == 303
    stored = bytes(Logo.objects.get().png)
    assert b"script" not in stored
    assert b"php" not in stored


@pytest.mark.asvs("5.2.1")
def test_a_file_is_taken_by_an_owner_on_the_page_of_the_look_and_nowhere_else(acme: Tenant, visitor: Open) -> None:
    bob, olivia = visitor("bob"), visitor("olivia")
    assert upload(bob, SETTINGS + "look/", look_of(acme), "logo.png", picture()).status_code == 403
    assert upload(olivia, SETTINGS + "policy/", POLICY, "logo.png", picture()).status_code == 400
    assert upload(olivia, "/account/", {}, "logo.png", picture()).status_code == 400
    assert upload(visitor(), "/login/", {"username": "dave"}, "logo.png", picture()).status_code == 400
    assert not Logo.objects.exists()


# --- Policy -------------------------------------------------------------------------------------------------------


def ask(browser: Visitor, **changed: Any) -> Any:
    """What the forecast says, without script."""
    data = {name: value for name, value in {**POLICY, **changed}.items() if value is not None}
    return browser.post(portal_url(SETTINGS + "policy/"), data, follow=False)


def mark(page: Any) -> str:
    found: str = page.content.decode().partition('name="seen" value="')[2].partition('"')[0]
    return found


def save(browser: Visitor, **changed: Any) -> Any:
    """Look at the forecast, then save what was seen."""
    seen = mark(ask(browser, **changed))
    assert seen
    data = {name: value for name, value in {**POLICY, **changed, "seen": seen}.items() if value is not None}
    return browser.post(portal_url(SETTINGS + "policy/"), data)


def test_the_first_post_shows_the_forecast_and_changes_nothing(acme: Tenant, visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    Session.objects.filter(pk=dave.session("acme").pk).update(last_seen_at=timezone.now() - timedelta(hours=1))
    olivia = visitor("olivia")
    page = ask(olivia, idle_0="30", idle_1="minutes")
    assert page.status_code == 200
    assert "1 session of 1 person would end now." in text(page)
    assert "Idle limit 8 hours 30 minutes" in text(page)
    assert "was 8 hours" in text(page)
    acme.refresh_from_db()
    assert acme.policy == {}
    assert dave.is_in("acme")
    assert changes() == []


def test_the_second_post_saves_what_was_seen(acme: Tenant, visitor: Open) -> None:
    page = save(visitor("olivia"), idle_0="30", idle_1="minutes", tries="3")
    assert "Saved. It holds from now on." in text(page)
    acme.refresh_from_db()
    assert acme.policy == {"idle": 1800, "tries": 3}
    (event,) = changes()
    assert (event.data["before"]["policy"]["idle"], event.data["after"]["policy"]["idle"]) == (28800, 1800)


def test_with_script_the_forecast_comes_while_one_chooses(acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    page = olivia.post(portal_url(SETTINGS + "policy/"), {**POLICY, "tries": "2"}, HTTP_HX_REQUEST="true", HTTP_HX_TARGET="forecast")
    assert "<html" not in page.content.decode()
    assert mark(page)
    page = olivia.post(portal_url(SETTINGS + "policy/"), {**POLICY, "tries": "9"}, HTTP_HX_REQUEST="true", HTTP_HX_TARGET="forecast")
    assert page.status_code == 200
    assert "a value does not fit" in text(page)
    assert not mark(page)
    assert changes() == []


def test_what_was_seen_for_one_change_saves_no_other(acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    seen = mark(ask(olivia, tries="3"))
    for other in ({"tries": "2", "seen": seen}, {"tries": "3", "seen": "rubbish"}, {"tries": "3", "seen": "0" * 16 + ".9.9"}):
        page = ask(olivia, **other)
        assert page.status_code == 200
        assert mark(page)
    assert changes() == []
    assert "Meanwhile something has changed, so nothing was saved." in text(ask(olivia, tries="2", seen=seen))


def test_where_more_would_end_than_was_seen_the_forecast_is_shown_anew(acme: Tenant, visitor: Open) -> None:
    olivia, dave = visitor("olivia"), visitor("dave", at="acme")
    seen = mark(ask(olivia, idle_0="30", idle_1="minutes"))
    Session.objects.filter(pk=dave.session("acme").pk).update(last_seen_at=timezone.now() - timedelta(hours=1))
    page = ask(olivia, idle_0="30", idle_1="minutes", seen=seen)
    assert "Meanwhile something has changed" in text(page)
    assert "1 session of 1 person would end now." in text(page)
    assert dave.is_in("acme")
    assert ask(olivia, idle_0="30", idle_1="minutes", seen=mark(page)).status_code == 303
    assert not dave.is_in("acme")


@pytest.mark.asvs("7.5.1", "7.5.3")
@pytest.mark.parametrize(
    "weaker",
    [{"remembered": "on"}, {"trusted_browsers": "on"}, {"second_factor": "off"}, {"tries": "5"}, {"password_length": "8"}, {"idle_0": "2"}],
    ids=lambda change: next(iter(change)),
)
def test_to_ask_less_of_people_takes_a_fresh_proof(acme: Tenant, visitor: Open, weaker: dict[str, str]) -> None:
    strict = {"idle": 3600, "remembered": False, "second_factor": "admins", "grace_days": 30, "trusted_browsers": False, "tries": 3}
    Tenant.objects.filter(pk=acme.pk).update(policy={**strict, "password_length": 12}, factor_since=timezone.now())
    stands: dict[str, Any] = {
        "idle_0": "1", "remembered": None, "second_factor": "admins", "grace_days": "30", "trusted_browsers": None, "tries": "3",
        "password_length": "12",
    }  # fmt: skip
    olivia = visitor("olivia")
    old_proof(olivia)
    wish = {**stands, **weaker}
    page = ask(olivia, **wish, seen=mark(ask(olivia, **wish)))
    assert "Prove that it is you" in text(page)
    assert changes() == []
    sent = {name: value for name, value in {**POLICY, **wish, "seen": mark(ask(olivia, **wish))}.items() if value is not None}
    answer = olivia.post(portal_url(SETTINGS + "policy/"), {**sent, "proof-password": "gatehouse-demo"}, follow=False)
    assert answer.status_code == 303
    assert len(changes()) == 1


def test_to_end_sessions_of_several_people_takes_a_fresh_proof_and_a_stricter_rule_alone_does_not(acme: Tenant, visitor: Open) -> None:
    visitor("dave", at="acme"), visitor("alice", at="acme")
    Session.objects.filter(tenant=acme).update(last_seen_at=timezone.now() - timedelta(hours=1))
    olivia = visitor("olivia")
    old_proof(olivia)
    wish = {"idle_0": "30", "idle_1": "minutes"}
    page = ask(olivia, **wish, seen=mark(ask(olivia, **wish)))
    assert "You are about to end 2 sessions of 2 people." in text(page)
    assert changes() == []
    assert ask(olivia, tries="4", seen=mark(ask(olivia, tries="4"))).status_code == 303


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"idle_0": "4", "idle_1": "minutes"}, "From 5 minutes to 8 hours."), ({"idle_0": "9"}, "From 5 minutes to 8 hours."),
        ({"idle_0": ""}, "required"), ({"idle_0": "x"}, "whole number"), ({"idle_1": "years"}, "Select a valid choice"),
        ({"absolute_0": "25"}, "From 5 minutes to 24 hours."), ({"second_factor": "all"}, "Select a valid choice"),
        ({"grace_days": "366"}, "365"), ({"tries": "6"}, "5"), ({"tries": "0"}, "1"), ({"password_length": "7"}, "8"),
        ({"idle_0": "9" * 40}, "less than or equal"),
    ],
)  # fmt: skip
def test_a_limit_that_does_not_fit_is_refused_next_to_its_field(acme: Tenant, visitor: Open, wrong: dict[str, str], says: str) -> None:
    page = ask(visitor("olivia"), **wrong)
    field = next(iter(wrong)).removesuffix("_0").removesuffix("_1")
    assert page.status_code == 422
    assert says in page.content.decode().partition(f'id="{field}_error"')[2].partition("</div>")[0]
    assert "Nothing can be told yet" in text(page)
    assert changes() == []


def test_the_overview_says_all_that_is_set(acme: Tenant, visitor: Open) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"idle": 1800, "tries": 3, "sign_up": "closed"})
    page = text(visitor("bob").get(portal_url(SETTINGS)))
    for said in ("Idle limit 30 minutes", "Wrong passwords until a lock 3", "Absolute limit 24 hours", "Nobody", "acme.portal.localhost"):
        assert said in page


# --- Sign-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "stored"),
    [
        ({"sign_up": "closed"}, {"sign_up": "closed"}),
        ({"sign_up": "invited"}, {}),
        ({"sign_up": "open", "approval": "on"}, {"sign_up": "open", "approval": True}),
        (
            {"sign_up": "domain", "sign_up_domains": "@Acme.example, acme.org."},
            {"sign_up": "domain", "sign_up_domains": "acme.example,acme.org"},
        ),
    ],
)
def test_an_owner_says_who_becomes_a_member(acme: Tenant, visitor: Open, wish: dict[str, str], stored: dict[str, Any]) -> None:
    Tenant.objects.filter(pk=acme.pk).update(policy={"sign_up": "closed", "approval": True, "tries": 3})
    visitor("olivia").post(portal_url(SETTINGS + "sign-up/"), wish)
    acme.refresh_from_db()
    assert acme.policy == {"tries": 3, **stored}
    assert len(changes()) == 1


def test_letting_more_people_in_takes_a_fresh_proof_and_letting_fewer_in_does_not(acme: Tenant, visitor: Open) -> None:
    olivia = visitor("olivia")
    old_proof(olivia)
    page = olivia.post(portal_url(SETTINGS + "sign-up/"), {"sign_up": "open"}, follow=False)
    assert "Prove that it is you" in text(page)
    assert changes() == []
    assert olivia.post(portal_url(SETTINGS + "sign-up/"), {"sign_up": "closed"}, follow=False).status_code == 303


@pytest.mark.parametrize(
    ("domains", "says"),
    [("", "Say which domains"), ("not a domain", "no host name"), ("com", "Strangers can get an address"), ("co.uk", "Strangers can")],
)
def test_domains_that_are_none_or_everybodys_are_refused(acme: Tenant, visitor: Open, domains: str, says: str) -> None:
    page = visitor("olivia").post(portal_url(SETTINGS + "sign-up/"), {"sign_up": "domain", "sign_up_domains": domains}, follow=False)
    assert page.status_code == 422
    assert says in page.content.decode().partition('id="sign_up_domains_error"')[2].partition("</div>")[0]


def test_a_policy_is_weaker_where_it_lets_anything_more_pass() -> None:
    plain = Policy()
    for stored in (
        {"second_factor": "admins"}, {"tries": 3}, {"idle": 300}, {"remembered": False}, {"trusted_browsers": False},
        {"password_length": 12}, {"password_length_alone": 12}, {"sign_up": "closed"}, {"approval": True, "sign_up": "open"},
    ):  # fmt: skip
        strict = Policy.of(stored)
        if "sign_up" not in stored or stored["sign_up"] == "closed":
            assert plain.is_weaker_than(strict), stored
            assert not strict.is_weaker_than(plain), stored
        assert not strict.is_weaker_than(strict), stored
    one, two = (Policy.of({"sign_up": "domain", "sign_up_domains": names}) for names in ("a.example", "a.example,b.example"))
    assert (two.is_weaker_than(one), one.is_weaker_than(two)) == (True, False)
    assert Policy.of({"sign_up": "open"}).is_weaker_than(Policy.of({"sign_up": "open", "approval": True}))
