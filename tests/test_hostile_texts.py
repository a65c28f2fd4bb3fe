"""Hostile texts in every field that a person can fill, and in every column that holds text: shown as text or refused, never obeyed."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit
from xml.etree.ElementTree import Element

import html5lib
import pytest
from django.apps import apps
from django.db import models

from identity.models import Event, User
from tenants.models import Host
from tests.acts import ACTS
from tests.furnish import furnish
from tests.test_isolation import everything
from tests.test_roles import undone
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
TEXTS = {
    "markup": "\"'><img src=x onerror=alert(1) hx-get=/x><script>alert(1)</script>",
    "template": "m{{7*7}}m{% csrf_token %}",
    "formula": "=HYPERLINK(\"http://evil.example\")",
    "right to left": "exe.\u202egnp",
    "ten thousand": "x" * 10_000,
    "emoji": "🧨👩‍👩‍👧‍👦 ﷽",
    "nul": "a\x00b",
    "half a surrogate": "a\ud800b",
}  # fmt: skip
STORED = "=m{{7*7}}m'\"><img src=x hx-get=/x>🧨"
OWN = (
    "/", "/?places=1", "/account/", "/account/sessions/", "/account/activity/", "/account/two-factor/", "/account/email/",
    "/account/name/", "/account/password/", "/account/delete/", "/account/export/", "/logout/", "/signup/", "/password/forgot/", "/outbox/",
)  # fmt: skip


def obeyed(text: str) -> list[str]:
    """What of the hostile texts a page has taken for its own."""
    return [sign for sign in ("<img src=x", "<script>alert", "m49m") if sign in text]


def body(answer: Any) -> str:
    return (b"".join(answer.streaming_content) if answer.streaming else answer.content).decode()


def pages(person: str) -> list[str]:
    """Every page that this person of the cast may see, by its address."""
    it = furnish("acme")
    if person == "dave":
        return [*(portal_url(path) for path in OWN), tenant_url("acme"), tenant_url("acme", "/welcome/")]
    ranks = {"olivia": {"admin", "owner"}, "erin": {"stranger", "operator"}}[person]
    return [portal_url(act.url(it)) for act in ACTS if not act.post and act.who in ranks]


# --- What is stored ---------------------------------------------------------------------------------------------------

# What the program makes, or what only ever has a strict grammar.
STRICT = {
    "slug", "host", "cookie_domain", "challenge", "colour", "digest", "key_digest", "previous_digest", "state_digest", "epoch", "mac",
    "head", "key", "password", "username", "name_key", "email_key", "search_text", "language", "time_zone", "secret", "encoded",
    "session_data", "body", "coalesce", "kind", "purpose", "request_id", "network", "device", "email", "to", "new_email", "end_reason",
    "reason", "status",
}  # fmt: skip


def fill_all() -> int:
    """Put the hostile text into every column of ours that holds a text of somebody."""
    filled = 0
    for label in ("identity", "tenants"):
        for model in apps.get_app_config(label).get_models():
            for field in model._meta.concrete_fields:
                if isinstance(field, models.CharField | models.TextField) and not field.choices and not strict(model, field):
                    model._default_manager.update(**{field.name: STORED[: field.max_length]})
                    filled += 1
    Event.objects.update(data={"note": STORED, "reason": STORED, "name": STORED, STORED: STORED})
    return filled


def strict(model: type[models.Model], field: "models.Field[Any, Any]") -> bool:
    return field.name in STRICT or (model is Host and field.name == "name")


@pytest.mark.asvs("1.1.2", "1.2.1", "1.3.7")
@pytest.mark.parametrize("person", ["dave", "olivia", "erin"])
def test_what_is_stored_is_shown_as_text(cast: dict[str, User], visitor: Open, person: str) -> None:
    found = pages(person)
    browser = visitor(person, at="acme" if person == "dave" else "")
    assert fill_all() > 12
    shown = 0
    for url in found:
        answer = browser.get(url)
        assert answer.status_code in {200, 404}, f"{url}: {answer.status_code}"
        text = body(answer)
        assert not obeyed(text), f"{url}: {obeyed(text)}"
        shown += "&lt;img src=x" in text
        if "csv" in answer.headers.get("Content-Type", ""):
            assert not [cell for row in csv.reader(io.StringIO(text)) for cell in row if cell[:1] in set("=+-@\t\r")]
    assert shown > 2, "the texts were put where nobody sees them"


# --- What is typed ------------------------------------------------------------------------------------------------------

SUBTLE = {"markup", "right to left", "nul"}
TICKED = {"checkbox", "radio", "file"}
TYPED = {"text", "search", "email", "url", "tel", "date", "number", None}


@dataclass(frozen=True)
class Form:
    """A form as a browser would send it untouched, and the names of the fields in which one types."""

    action: str
    is_post: bool
    fields: dict[str, str]
    typed: list[str]

    @property
    def key(self) -> tuple[object, ...]:
        return urlsplit(self.action).path, self.is_post, tuple(self.fields)

    def sent(self, names: list[str], text: str) -> dict[str, Any]:
        return {**self.fields, **dict.fromkeys(names, text.encode("utf-8", "surrogatepass"))}


def forms(url: str, text: str) -> Iterator[Form]:
    """The forms of a page in which somebody can type."""
    tree: Element = html5lib.parse(text, namespaceHTMLElements=False)
    for form in tree.iter("form"):
        fields, typed = {}, []
        for each in form.iter():
            name, kind, value = each.get("name", ""), each.get("type"), each.get("value", "")
            if not name or name == "csrfmiddlewaretoken":
                continue
            if each.tag == "textarea" or (each.tag == "input" and kind in TYPED):
                typed.append(name)
                fields[name] = value or (each.text or "").strip()
            elif each.tag == "select":
                options = list(each.iter("option"))
                chosen = [option for option in options if option.get("selected") is not None] or options
                fields[name] = chosen[0].get("value", "") if chosen else ""
            elif each.tag == "button" or (each.tag == "input" and (kind not in TICKED or each.get("checked") is not None)):
                fields[name] = value
        if typed:
            yield Form(urljoin(url, form.get("action") or url), form.get("method", "get").lower() == "post", fields, typed)


@pytest.mark.asvs("1.2.1", "2.2.1", "1.3.3")
@pytest.mark.parametrize("person", ["dave", "olivia", "erin"])
def test_what_is_typed_is_kept_as_text_or_refused(cast: dict[str, User], visitor: Open, person: str) -> None:
    """In all fields of a form at once, and in each of them alone: one that is refused must not hide what becomes of another."""
    found = pages(person)
    browser = visitor(person, at="acme" if person == "dave" else "")
    seen: dict[tuple[object, ...], Form] = {}
    for url in found:
        answer = browser.get(url)
        if "html" in answer.headers.get("Content-Type", ""):
            seen |= {form.key: form for form in forms(url, body(answer))}
    shown = 0
    for form in seen.values():
        for name, text in TEXTS.items():
            alone = [[field] for field in form.typed] if form.is_post and len(form.typed) > 1 and name in SUBTLE else []
            for fields in [form.typed, *alone]:
                with undone():
                    shown += says_back(browser, form, form.sent(fields, text), f"{name} in {fields} at {form.action}")
    assert shown > 3, "hardly a form was reached"


def says_back(browser: Visitor, form: Form, sent: dict[str, Any], what: str) -> bool:
    """Whether the answer shows markup that was typed, as text; and nothing else has become of it."""
    path = form.action.partition("?")[0]
    answer = browser.post(form.action, sent) if form.is_post else browser.get(f"{path}?{urlencode(sent)}")
    assert answer.status_code < 500, f"{what}: {answer.status_code}"
    if "html" in answer.headers.get("Content-Type", ""):
        assert not obeyed(body(answer)), f"{what}: {obeyed(body(answer))}"
    if form.is_post:
        stored = repr(everything())
        assert "\\u202e" not in stored, f"{what} is stored"
        assert "\\x00" not in stored, f"{what} is stored"
    return "html" in answer.headers.get("Content-Type", "") and "&lt;img src=x" in body(answer)
