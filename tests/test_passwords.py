"""What a new password must be, the same on every way in which one is set, and what is kept of it."""

import csv
import html
import io
import json
import random
import re
import string
import sys
import time
import unicodedata
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from gzip import decompress
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import password_validation
from django.contrib.auth.hashers import check_password, identify_hasher, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from identity import hashers, links, passwords
from identity.backends import LONGEST_PASSWORD
from identity.models import Link, User
from portal.forms import ProfileForm, SignUpForm
from tenants.models import Membership, Tenant
from tests.conftest import password_is
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
Offer = Callable[[str], str]
GOOD = "three little words"
MINE = "gatehouse-demo"  # what everybody in the cast has


# --- The ways -----------------------------------------------------------------------------------------------------


def said(page: Any, field: str) -> str:
    """The errors beside a field, as a person reads them; "" if there is none."""
    found = re.search(rf'id="{field}_error">(.*?)</div>\s*</div>', page.content.decode(), re.DOTALL)
    return html.unescape(" ".join(re.findall(r"<p>(.*?)</p>", found[1]))) if found else ""


def sign_up(browser: Visitor, password: str) -> str:
    page = browser.post(portal_url("/signup/"), {"username": "frank", "email": "frank@elsewhere.example", "password": password})
    return said(page, "password") if page.status_code == 200 else ""


def sign_up_in_json(browser: Visitor, password: str) -> str:
    person = {"username": "frank", "email": "frank@elsewhere.example", "password": password}
    answer = browser.post_json(portal_url("/api/v1/signup"), json.dumps(person))
    return " ".join(e["message"] for e in answer.json()["fields"]["password"]) if answer.status_code == 400 else ""


def change(browser: Visitor, password: str) -> str:
    fields = {"old_password": MINE, "new_password1": password, "new_password2": password}
    page = browser.post(portal_url("/account/password/"), fields)
    return "" if browser.url == portal_url("/account/password/done/") else said(page, "new_password1")


def by_link(browser: Visitor, password: str) -> str:
    page = browser.post(links.make(Link.Purpose.PASSWORD, User.objects.get(username="dave")), {"password": password})
    return "" if browser.url == portal_url("/password/reset/done/") else said(page, "password")


def by_command(browser: Visitor, password: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        try:
            call_command("user", "add", "frank", "frank@elsewhere.example", "--password-stdin", stdout=io.StringIO())
        except CommandError as refused:
            return str(refused)
    return ""


WAYS = {
    "sign-up": (sign_up, ""),
    "JSON sign-up": (sign_up_in_json, ""),
    "change": (change, "dave"),
    "link": (by_link, ""),
    "user add": (by_command, ""),
}


@pytest.fixture(params=WAYS)
def offer(request: pytest.FixtureRequest, cast: dict[str, User], visitor: Open) -> Offer:
    """Offers a new password, in turn on each way; returns what is said against it, "" once it is taken."""
    way, name = WAYS[request.param]
    browser = visitor(name)
    return lambda password: way(browser, password)


@pytest.fixture
def dave_offers(cast: dict[str, User], visitor: Open) -> Offer:
    """Dave, member of acme and globex, changes his password."""
    browser = visitor("dave")
    return lambda password: change(browser, password)


def asks(slug: str, **policy: Any) -> None:
    Tenant.objects.filter(slug=slug).update(policy=policy)


# --- Length -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.2.1")
def test_eight_characters_are_the_least(offer: Offer) -> None:
    assert offer("xqz7vrk") == "This is too short. A password has at least 8 characters."
    assert offer("xqz7vrkm") == ""


@pytest.mark.asvs("6.2.9")
def test_4096_characters_are_the_most_and_none_is_cut(offer: Offer, visitor: Open) -> None:
    longest = "".join(random.Random(7).choices(string.ascii_letters, k=LONGEST_PASSWORD))
    assert LONGEST_PASSWORD == 4096
    assert "A password has at most 4096 characters." in offer(longest + "x")
    assert offer(longest) == ""
    changed = User.objects.filter(username="frank").first() or User.objects.get(username="dave")
    assert password_is(changed, longest)
    assert not password_is(changed, longest[:-1])


@pytest.mark.asvs("6.2.9")
def test_128_characters_are_nothing_special(offer: Offer) -> None:
    assert offer("correct horse battery staple " * 4 + "and so on...") == ""


@pytest.mark.asvs("6.2.9")
def test_what_is_too_long_is_refused_before_it_is_hashed(cast: dict[str, User], visitor: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(*args: Any) -> None:
        raise AssertionError("it was hashed")

    dave, guest = visitor("dave"), visitor()
    monkeypatch.setattr(hashers.Argon2id, "encode", hashed)
    monkeypatch.setattr(hashers.Argon2id, "verify", hashed)
    too_long = "x" * 4097
    told = "A password has at most 4096 characters."
    assert said(guest.post(portal_url("/login/"), {"username": "dave", "password": too_long}), "password").startswith(told)
    assert sign_up(guest, too_long) == told
    assert change(dave, too_long) == told
    assert said(dave.post(portal_url("/account/password/"), {"old_password": too_long}), "old_password") == told
    answer = guest.post_json(portal_url("/api/v1/login"), json.dumps({"username": "dave", "password": too_long}))
    assert answer.status_code == 401


@pytest.mark.parametrize("strict", ["acme", "globex"])
def test_the_strictest_tenant_says_how_long(cast: dict[str, User], dave_offers: Offer, strict: str) -> None:
    asks("acme", password_length=10)
    asks("globex", password_length=10)
    asks(strict, password_length=14)
    name = Tenant.objects.get(slug=strict).name
    assert dave_offers("xqz7vrkmptwyb") == f"{name} asks for at least 14 characters. Add another word."
    assert dave_offers("xqz7vrkmptwybn") == ""


def test_who_is_asked_for_a_second_factor_may_have_a_shorter_password(cast: dict[str, User]) -> None:
    asks("acme", second_factor="admins", password_length=9, password_length_alone=12)
    assert passwords.shortest(cast["alice"]) == (12, "Acme")  # a member: nothing but the password
    assert passwords.shortest(cast["bob"]) == (9, "Acme")
    assert passwords.shortest(cast["mallory"]) == (8, "")
    assert passwords.shortest(User(username="nobody yet")) == (8, "")
    assert passwords.shortest(None) == (8, "")


def test_a_tenant_that_is_closed_to_somebody_still_says_how_long(cast: dict[str, User]) -> None:
    asks("acme", password_length=14)
    Membership.objects.filter(user=cast["dave"], tenant__slug="acme").update(blocked_at=timezone.now())
    assert passwords.shortest(cast["dave"]) == (14, "Acme")


def test_the_field_says_the_length_that_is_true_for_the_person(cast: dict[str, User], visitor: Open) -> None:
    asks("acme", password_length=14)
    asked = "Acme asks for at least 14 characters."
    assert asked in visitor("dave").get(portal_url("/account/password/")).content.decode()
    assert asked in visitor().get(links.make(Link.Purpose.PASSWORD, cast["dave"])).content.decode()
    assert "At least 8 characters." in visitor("carol").get(portal_url("/account/password/")).content.decode()
    assert "At least 8 characters." in visitor().get(portal_url("/signup/")).content.decode()


# --- Any characters -----------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.2.5")
@pytest.mark.parametrize(
    "password",
    ["ihnosqwr", "XQZVRKMP", "7391846203557182", "   q   ", "!?)(§$%&", "🐎🔋📎🌋🧭🪗🥨🛶", "пять слов о море", "gråtass på sjøen"],
)
def test_characters_of_every_kind_and_mixture_are_taken(cast: dict[str, User], dave_offers: Offer, password: str) -> None:
    assert dave_offers(password if len(password) > 7 else f"{password} v   ") == ""


@pytest.mark.asvs("6.2.8")
@pytest.mark.parametrize(
    "password",
    [
        " a space before and behind ",
        "\ttab\tand\tline\r\nends\n",
        "Case Counts Here",
        "ﬁrst ligature, Å and e\u0301",
        f"{GOOD} " * 11,  # 209 characters
        f"{'x' * 71}yz of what bcrypt would cut",
        "<script>&amp;%41+{{ }}'\"",
    ],
)
def test_every_character_counts(cast: dict[str, User], visitor: Open, password: str) -> None:
    assert change(visitor("dave"), password) == ""
    changes: list[Callable[[str], str]] = [
        str.strip, str.lower, str.upper, str.casefold, str.swapcase, html.escape, html.unescape,
        lambda text: f"{text} ", lambda text: text[:-1], lambda text: text[:72], lambda text: text[:200],
        lambda text: text.replace("\r\n", "\n"), lambda text: " ".join(text.split()), lambda text: text.replace("+", " "),
        *(partial(unicodedata.normalize, form) for form in ("NFC", "NFD", "NFKC", "NFKD")),
    ]  # fmt: skip
    others = {changed(password) for changed in changes}
    dave = User.objects.get(username="dave")
    for other in others - {password}:
        assert not password_is(dave, other), repr(other)
    browser = visitor()
    browser.sign_in("dave", password)
    assert browser.is_in()


@pytest.mark.asvs("6.2.8")
def test_what_no_database_takes_is_refused_and_not_dropped(cast: dict[str, User], visitor: Open) -> None:
    assert sign_up(visitor(), f"{GOOD}\0") == "Null characters are not allowed."
    answer = visitor().post_json(
        portal_url("/api/v1/signup"), json.dumps({"username": "frank", "email": "f@x.example", "password": f"{GOOD}\ud800"})
    )
    assert answer.status_code == 400
    assert not User.objects.filter(username="frank").exists()


# --- Known and guessable ------------------------------------------------------------------------------------------


def listed() -> list[str]:
    """Django's list, the most used first."""
    path = Path(password_validation.__file__).with_name("common-passwords.txt.gz")
    return decompress(path.read_bytes()).decode().split("\n")


@pytest.mark.asvs("6.2.4")
def test_the_3000_most_used_are_refused() -> None:
    most_used = [password.strip() for password in listed() if len(password.strip()) >= 8][:3000]
    assert len(set(most_used)) == 3000
    for password in most_used:
        for spelled in (password, password.upper(), password.title()):
            with pytest.raises(ValidationError, match="on a list of stolen ones"):
                validate_password(spelled)


@pytest.mark.asvs("6.2.4", "6.2.12")
@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("1qaz2wsx", "on a list of stolen ones, which is what guessers try first"),
        ("Football", "on a list of stolen ones, which is what guessers try first"),
        ("princess2024!", "from a list of stolen ones with a little added"),
        ("Dragon#12", "from a list of stolen ones with a little added"),
        ("qxqxqxqxqxqx", "one short piece again and again"),
        ("         ", "one short piece again and again"),
        ("04.05.1990", "a date"),
        ("19900504", "a date"),
        ("05/04/90", "a date"),
    ],
)
def test_a_known_or_guessable_password_is_refused_with_the_reason_and_the_cure(offer: Offer, password: str, why: str) -> None:
    told = offer(password)
    assert why in told
    assert told.endswith("Choose one that is nobody else's: three unrelated words are a good one.")
    assert password not in told


def test_no_random_password_is_taken_for_a_known_one() -> None:
    chance = random.Random(2026)
    alphabet = string.ascii_letters + string.digits
    for length in (8, 10, 12, 16):
        for _ in range(5000):
            validate_password("".join(chance.choices(alphabet, k=length)))
    words = [word for word in listed() if word.isalpha() and len(word) > 3]
    for separator in ("", " ", "-"):  # even of words that are all on the list: three together are on none
        for _ in range(1000):
            validate_password(f"zephyr{separator}" + separator.join(chance.sample(words, 3)) + "7")


def test_long_numbers_from_dice_are_good_passwords() -> None:
    chance = random.Random(6)
    for _ in range(2000):
        validate_password("".join(chance.choices("0123456789", k=16)))


@pytest.mark.parametrize("password", ["Dave@acme.example", "example.acme.dave", "elpmaxe.emca@evad"])
def test_a_password_that_resembles_its_owner_is_refused(cast: dict[str, User], dave_offers: Offer, password: str) -> None:
    assert "too similar to the" in dave_offers(password)


# --- Names at hand ------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.2.11")
@pytest.mark.parametrize(
    "password",
    [
        "acme-portal-2026",
        "ACME2026!!",
        "Globex & Acme",
        "gatehouse",
        "Gatehouse.Portal.Localhost",
        "acmeacmeacme",
        "ａｃｍｅ ｌｏｇｉｎ",
        "welcome@acme1",
        "dave.vance",
        "Vance-1990",
        "dave@acme!",
    ],
)
def test_a_password_that_is_little_more_than_names_at_hand_is_refused(cast: dict[str, User], dave_offers: Offer, password: str) -> None:
    told = dave_offers(password)
    assert "This is little more than “" in told
    assert told.endswith("which guessers try first here. Add two unrelated words.")


@pytest.mark.asvs("6.2.11")
def test_the_words_of_the_house_are_refused_on_every_way(offer: Offer) -> None:
    assert "This is little more than “gatehouse”, “login”, " in offer("gatehouse-login-1")


@pytest.mark.asvs("6.2.11")
@pytest.mark.parametrize("password", ["acme otters skate", "my portal to narnia", "acme 7391846203", "weltschmerz@acme", "Hacmentine!"])
def test_a_word_of_the_place_inside_more_does_no_harm(cast: dict[str, User], dave_offers: Offer, password: str) -> None:
    assert dave_offers(password) == ""


@pytest.mark.asvs("6.2.11")
def test_only_ones_own_tenants_count(cast: dict[str, User], visitor: Open) -> None:
    assert change(visitor("carol"), "acme-2026!") == ""  # who guesses a member of globex does not try this first
    Tenant.objects.filter(slug="globex").update(slug="hr", name="Blue River Bank")
    assert "“blue river bank”" in change(visitor("dave"), "Blue River Bank 1")
    assert "“bank”, “river”" in change(visitor("dave"), "bank-of-river")


@pytest.mark.asvs("6.1.2")
def test_the_list_of_words_is_documented_and_the_one_that_is_used(cast: dict[str, User], settings: Any) -> None:
    settings.PORTAL_HOST, settings.TENANT_DOMAIN = "login.example.com", "places.example.org"
    documented = re.search(r"^CONTEXT_WORDS = \((.*?)\)", Path(passwords.__file__).read_text(), re.DOTALL | re.MULTILINE)
    assert documented
    words = {row[0] for row in csv.reader(documented[1].replace(" ", "").replace(",", "\n").split())}
    assert words == set(passwords.CONTEXT_WORDS)
    domains, own = {"login", "example", "com", "places", "org"}, {"acme", "globex", "dave", "vance", "dave@acme.example", "daveacmeexample"}
    assert passwords.context_words(cast["dave"]) == words | domains | own
    assert passwords.context_words() == words | domains
    for word in words:
        with pytest.raises(ValidationError, match=f"little more than .*“{word}”"):
            validate_password(f"{word}-{word}-2026")


# --- Changing -----------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.2.2", "6.2.3")
def test_a_password_is_changed_by_its_owner_with_the_current_one(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    assert 'href="/account/password/"' in dave.get(portal_url("/account/")).content.decode()
    for current in ("", "wrong", f"{MINE} "):
        dave.post(portal_url("/account/password/"), {"old_password": current, "new_password1": GOOD, "new_password2": GOOD})
        assert said(dave.page, "old_password")
        assert password_is(User.objects.get(username="dave"), MINE)
    assert change(dave, GOOD) == ""
    assert visitor().sign_in("dave", MINE).status_code == 200
    again = visitor()
    again.sign_in("dave", GOOD)
    assert again.is_in()


@pytest.mark.asvs("6.2.10")
def test_no_password_grows_old(cast: dict[str, User], visitor: Open) -> None:
    """Years later, and under a policy that it would not satisfy any more, it opens the door as on its first day."""
    long_ago = timezone.now() - timedelta(days=3650)
    User.objects.filter(username="dave").update(date_joined=long_ago, last_login=long_ago, valid_from=long_ago)
    asks("acme", password_length=64)
    assert visitor("dave").is_in()
    assert not [name for name in dir(django_settings) if re.search(r"PASSWORD.*(AGE|EXPIR|ROTAT|DAYS)", name) and name.isupper()]
    assert not [f.name for f in User._meta.get_fields() if "password" in f.name and f.name != "password"]


@pytest.mark.asvs("6.4.2")
def test_nothing_is_kept_that_could_stand_in_for_a_password_or_hint_at_it() -> None:
    fields = {field.name for model in apps.get_app_config("identity").get_models() for field in model._meta.get_fields()}
    fields |= {name for form in (SignUpForm, ProfileForm) for name in form.base_fields}
    assert "password" in fields
    assert not [name for name in fields if re.search(r"hint|question|answer|secret_word|maiden|pet_", name)]


# --- Fields -------------------------------------------------------------------------------------------------------

PAGES = {
    "/login/": ("", ["username", "current-password"]),
    "/signup/": ("", ["username", "email", "new-password"]),
    "/step-up/": ("dave", ["username", "current-password"]),
    "/account/password/": ("dave", ["username", "current-password", "new-password", "new-password"]),
    "a link": ("", ["username", "new-password"]),
}


@pytest.mark.asvs("6.2.6", "6.2.7")
@pytest.mark.parametrize("page", PAGES)
def test_password_fields_are_hidden_and_made_for_password_managers(cast: dict[str, User], visitor: Open, page: str) -> None:
    who, expected = PAGES[page]
    browser = visitor(who)
    url = links.make(Link.Purpose.PASSWORD, cast["dave"]) if page == "a link" else portal_url(page)
    text = browser.get(url).content.decode()
    inputs = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<input\b[^>]*>", text)]
    assert [tag["autocomplete"] for tag in inputs if "autocomplete" in tag] == expected
    for tag in inputs:
        if not tag.get("autocomplete", "").endswith("-password"):
            continue
        assert tag["type"] == "password"
        assert tag["spellcheck"] == "false"
        assert not {"maxlength", "value", "readonly", "pattern", "minlength"} & tag.keys()  # nothing cuts, fills or stops what is pasted
        assert f'data-shows="{tag["id"]}"' in text
    assert not re.search(r"onpaste|oncopy|ondrop", text)


@pytest.mark.asvs("6.2.7")
def test_no_script_of_ours_listens_to_pasting() -> None:
    for path in (django_settings.BASE_DIR / "portal" / "static").rglob("*.js"):
        assert not re.search(r"[\"'](paste|beforepaste|beforeinput|drop)[\"']|onpaste|ondrop|readText", path.read_text()), path


# --- Hashes -------------------------------------------------------------------------------------------------------


class Cheaper(hashers.Argon2id):
    """As passwords might have been hashed years ago."""

    time_cost = 1
    memory_cost = 8 * 1024


def cost(encoded: str) -> float:
    """Seconds of processor time that a wrong password costs, the least of some: other programs do not count."""
    taken = []
    for _ in range(7):
        begun = time.process_time()
        assert not check_password("wrong", encoded)
        taken.append(time.process_time() - begun)
    return min(taken)


@pytest.mark.asvs("6.3.8")
def test_a_wrong_password_costs_the_same_against_an_old_hash(dear_hashes: None) -> None:
    today, old = make_password(GOOD), Cheaper().encode(GOOD, "s" * 22)
    assert cost(old) == pytest.approx(cost(today), rel=0.3)  # without the rest of the work it is a fifth


@pytest.mark.asvs("11.2.2", "11.4.2")
def test_a_hash_has_the_parameters_of_today_from_the_next_sign_in_on(dear_hashes: None, cast: dict[str, User], visitor: Open) -> None:
    dave = cast["dave"]
    User.objects.filter(pk=dave.pk).update(password=Cheaper().encode(MINE, "s" * 22))
    inside = visitor()
    assert inside.sign_in("dave", "wrong").status_code == 200
    dave.refresh_from_db()
    assert "$m=8192,t=1,p=1$" in dave.password
    inside.sign_in("dave", MINE)
    assert inside.is_in()
    dave.refresh_from_db()
    assert dave.password.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")
    assert not identify_hasher(dave.password).must_update(dave.password)
