"""Languages: every text is marked, every marked text is translated, and each person reads the right one."""

import ast
import gettext
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.utils import translation
from django.utils.translation.template import templatize

from identity import mails
from identity.models import User
from portal import catalogs
from tests.post import delivered, link_in
from tests.test_structure import ROOT, modules
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
LANGUAGES = [code for code, _name in settings.LANGUAGES if code != "en"]
TEMPLATES = sorted(path for path in (ROOT / "templates").rglob("*") if path.suffix in {".html", ".txt"})


def catalog(language: str) -> Path:
    return ROOT / "portal" / "locale" / language / "LC_MESSAGES" / "django.po"


# --- Every text is marked -------------------------------------------------------------------------------------------

# What a person reads and no language changes: names, signs, an example, a word of the web.
NOT_WORDS = {"Gatehouse", "manage", "JSON"}
MARKED = re.compile(r"{%\s*blocktrans(?:late)?\b.*?{%\s*endblocktrans(?:late)?\s*%}", re.DOTALL)
HIDDEN = re.compile(
    r"{%\s*comment.*?{%\s*endcomment\s*%}|{#.*?#}|<style>.*?</style>|<pre\b.*?</pre>|<code\b.*?</code>|<!--.*?-->", re.DOTALL
)
READ_ATTRIBUTES = re.compile(r"\s(?:title|alt|aria-label|placeholder|data-text|data-done|data-ticked)=\"([^\"]*)\"")


def unmarked(text: str) -> list[str]:
    """The words of a template that stand outside every tag of translation."""
    bare = MARKED.sub(" ", HIDDEN.sub(" ", text))
    bare = re.sub(r"{% block (?:width|frame) %}[^{]*|{{ portal_url }}[\w/-]*", " ", bare)  # a class of CSS, an address
    bare = re.sub(r"{%.*?%}|{{.*?}}", " ", bare, flags=re.DOTALL)
    attributes = [found for found in READ_ATTRIBUTES.findall(bare) if "=" not in found]
    visible = re.sub(r"<(?:\"[^\"]*\"|'[^']*'|[^<>\"'])*>|&[a-z]+;", "\n", bare)
    words = re.findall(r"[^\W\d_]{2,}", "\n".join([visible, *attributes]))
    return [word for word in words if word not in NOT_WORDS]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_every_text_of_a_template_is_marked(path: Path) -> None:
    assert unmarked(path.read_text()) == []


def test_the_look_into_templates_finds_what_is_not_marked() -> None:
    assert unmarked('<p title="A hint">Hello {{ name }}, {% translate "Welcome" %}</p>') == ["Hello", "hint"]
    assert (
        unmarked('{# why #}<i class="mark" aria-label="{% translate "Name" %}">·</i>{% blocktranslate %}All {{ n }}{% endblocktranslate %}')
        == []
    )


GETTEXT = {"_", "lazy", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext"}
# Not for people who look at pages: scripts, operators' logs, and what makes the program stop.
# For operators and programs.
ENGLISH = {
    "portal/api/views.py", "portal/settings.py", "portal/logs.py", "portal/catalogs.py", "portal/wsgi.py", "portal/apps.py",
    "portal/metrics.py", "portal/management/commands/upgradable.py",
}  # fmt: skip
SENTENCE = re.compile(r"[A-Z“][^<>{}=/]*[a-z’”]+ [^<>{}=/]*[.?!…:]|[A-Z][a-z]+ [a-z]+(?: [a-z]+)*")


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(node: ast.AST) -> str:
    """What is called: “render”; or on what: “log” of log.info."""
    if isinstance(node, ast.Call):
        return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return getattr(getattr(node, "value", None), "id", "")


def bare_sentences(source: str) -> list[str]:
    """Texts in Python that read like sentences or headings, and go to no function of translation."""
    tree = ast.parse(source)
    fine: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(body, list) and body:
            fine |= {id(each) for each in ast.walk(body[0])} if isinstance(body[0], ast.Expr) else set()
        if isinstance(node, ast.Raise | ast.Assert):  # a ValidationError has its text checked below
            inside = [] if node.__class__ is ast.Raise and "ValidationError" in ast.dump(node) else ast.walk(node)
            fine |= {id(each) for each in inside}
        if isinstance(node, ast.Call) and (name_of(node) in GETTEXT | {"JsonResponse"} or name_of(node.func) in {"log", "logger"}):
            fine |= {id(each) for each in ast.walk(node)}
    texts = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in fine
    ]
    return [text for text in texts if SENTENCE.fullmatch(text)]


@pytest.mark.parametrize("path", [p for p in modules("portal") if str(p.relative_to(ROOT)) not in ENGLISH], ids=lambda path: path.name)
def test_every_text_of_a_view_is_marked(path: Path) -> None:
    assert bare_sentences(path.read_text()) == []


def test_the_look_into_views_finds_what_is_not_marked() -> None:
    assert bare_sentences('def f():\n    """A docstring."""\n    messages.info(request, "That was over already.")') == [
        "That was over already."
    ]
    assert bare_sentences('title = "End this session?"\nwhy = _("Say why.")') == ["End this session?"]


def test_no_text_is_put_together_before_it_is_translated() -> None:
    """An f-string or a sum in a call of gettext is never found in a catalogue, nor is a call of gettext in an f-string."""
    for package in ("portal", "identity", "tenants"):
        for path in modules(package):
            tree = ast.parse(path.read_text())
            strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
            inside = [name_of(call) for node in strings for call in calls(node)]
            assert not GETTEXT & set(inside), path
            for call in calls(tree):
                if isinstance(call.func, ast.Name) and call.func.id in GETTEXT and call.args:
                    first = call.args[0]
                    assert not isinstance(first, ast.JoinedStr | ast.BinOp), f"{path}:{call.lineno}"


# --- Every marked text is translated ----------------------------------------------------------------------------------


def marked_texts() -> set[str]:
    """Every msgid of the product, found without gettext's tools."""
    found = set()
    for package in ("portal", "identity", "tenants"):
        for path in modules(package):
            for call in calls(ast.parse(path.read_text())):
                if isinstance(call.func, ast.Name) and call.func.id in GETTEXT and call.args and isinstance(call.args[0], ast.Constant):
                    found.add(str(call.args[0].value))
    for path in TEMPLATES:
        source = templatize(path.read_text())
        for literal in re.findall(r"\bn?gettext\((u?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))", source):
            found.add(ast.literal_eval(literal))
    return {text for text in found if text}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_marked_text_is_translated(language: str) -> None:
    entries = {entry.msgid: entry for entry in catalogs.read(catalog(language))}
    missing = sorted(marked_texts() - set(entries))
    assert missing == [], f"{len(missing)} texts are not in the catalogue. Run: make texts"
    empty = [entry.msgid for entry in entries.values() if not entry.strings or not all(entry.strings)]
    fuzzy = [entry.msgid for entry in entries.values() if entry.fuzzy]
    assert (empty, fuzzy) == ([], []), f"{len(empty)} texts are not translated, {len(fuzzy)} are fuzzy"


PLACEHOLDER = re.compile(r"%\((\w+)\)([sd])|{(\w+)}|(%%)")
TAG = re.compile(r"</?[a-z]+[^>]*>")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_translation_has_the_placeholders_and_tags_of_its_text(language: str) -> None:
    wrong = []
    for entry in catalogs.read(catalog(language)):
        if entry.is_header:
            continue
        one, many = set(PLACEHOLDER.findall(entry.msgid)), set(PLACEHOLDER.findall(entry.plural))
        wanted = one | many
        # A form for one or two may leave out the number, and what English says of many only.
        number = ({each for each in wanted if each[0] in {"n", "days", "matching", "length"}} | (many - one)) if entry.plural else set()
        for text in filter(None, entry.strings):
            has = set(PLACEHOLDER.findall(text))
            same_tags = sorted(TAG.findall(text)) == sorted(TAG.findall(entry.plural or entry.msgid))
            edges = (text[:1].isspace(), text[-1:].isspace()) == (entry.msgid[:1].isspace(), entry.msgid[-1:].isspace())
            if not (wanted - number <= has <= wanted) or not same_tags or not edges:
                wrong.append((entry.line, text))
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_form_for_each_number(language: str) -> None:
    header = next(entry for entry in catalogs.read(catalog(language)) if entry.is_header)
    found = re.search(r"nplurals=(\d)", header.strings[0])
    assert found
    for entry in catalogs.read(catalog(language)):
        if entry.plural:
            assert len(entry.strings) == int(found[1]), entry.msgid


def test_what_gettext_reads_is_what_translators_wrote(tmp_path: Path) -> None:
    entries = catalogs.read(catalog("de"))
    made = tmp_path / "django.mo"
    catalogs.write(entries, made)
    with made.open("rb") as file:
        read = gettext.GNUTranslations(file)
    done = [entry for entry in entries if not entry.is_header and all(entry.strings) and not entry.fuzzy]
    assert done
    for entry in done:
        if entry.plural:
            assert [read.ngettext(entry.msgid, entry.plural, n) for n in (1, 5)] == entry.strings
        else:
            assert read.gettext(entry.msgid) == entry.strings[0]


def test_a_broken_catalogue_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "django.po"
    path.write_text('msgid "one"\nmsgstr "eins"\n\nmsgid two\n')
    with pytest.raises(catalogs.Malformed, match=r"django\.po:4 is no line"):
        catalogs.read(path)


def test_what_is_fuzzy_or_empty_stays_english(tmp_path: Path) -> None:
    path = tmp_path / "django.po"
    entries = ['msgid ""\nmsgstr "Language: de"', '#, fuzzy\nmsgid "one"\nmsgstr "eins"', 'msgid "two"\nmsgstr ""']
    path.write_text("\n\n".join([*entries, 'msgid "three"\nmsgstr "dr"\n"ei"']))
    catalogs.write(catalogs.read(path), tmp_path / "django.mo")
    with (tmp_path / "django.mo").open("rb") as file:
        read = gettext.GNUTranslations(file)
    assert [read.gettext(text) for text in ("one", "two", "three")] == ["one", "two", "drei"]


# --- Who reads what -------------------------------------------------------------------------------------------------------


def language_of(page: Any) -> str:
    found = re.search(r'<html lang="([a-z-]+)" dir="(ltr|rtl)"', page.content.decode())
    assert found
    assert page.headers["Content-Language"] == found[1]
    assert found[2] == ("rtl" if found[1] == "ar" else "ltr")
    return found[1]


@pytest.mark.parametrize(
    ("asked", "language"),
    [("de-AT,de;q=0.9,en;q=0.5", "de"), ("pt-BR", "pt"), ("ar-EG", "ar"), ("tlh,fr;q=0.1", "fr"), ("tlh", "en"), ("", "en"), ("*", "en"),
     ("x" * 5000, "en"), ("../../de", "en")],
)  # fmt: skip
def test_a_guest_reads_what_the_browser_asks_for(cast: dict[str, User], visitor: Open, asked: str, language: str) -> None:
    page = visitor().get(portal_url("/login/"), HTTP_ACCEPT_LANGUAGE=asked)
    assert language_of(page) == language
    assert "Accept-Language" in page.headers["Vary"]


def test_a_person_reads_what_the_person_has_chosen_on_every_host(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme")
    dave.post(portal_url("/account/"), {"part": "ways", "language": "ar", "time_zone": ""})
    assert language_of(dave.page) == "ar"
    for url in (portal_url("/account/"), tenant_url("acme"), portal_url("/nowhere/"), tenant_url("acme", "/nowhere")):
        assert language_of(dave.get(url, HTTP_ACCEPT_LANGUAGE="fr")) == "ar"
    dave.post(portal_url("/account/"), {"part": "ways", "language": "", "time_zone": ""})
    assert language_of(dave.get(portal_url("/account/"), HTTP_ACCEPT_LANGUAGE="fr")) == "fr"


def test_the_language_of_one_request_is_not_that_of_the_next(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(language="ar", time_zone="Asia/Tokyo")
    visitor("dave").get(portal_url("/account/"))
    assert translation.get_language() == "en"
    assert language_of(visitor().get(portal_url("/login/"))) == "en"


@pytest.mark.parametrize("host", ["http://nobody.portal.localhost:8000/", "http://elsewhere.test/"])
def test_errors_speak_the_guests_language_too(cast: dict[str, User], visitor: Open, host: str) -> None:
    assert language_of(visitor().get(host, HTTP_ACCEPT_LANGUAGE="de")) == "de"
    assert language_of(visitor().get(portal_url("/login/?a=%00"), HTTP_ACCEPT_LANGUAGE="de")) == "de"


def test_a_guest_chooses_a_language_in_the_foot_and_the_browser_keeps_it(cast: dict[str, User], visitor: Open) -> None:
    guest = visitor()
    assert '<option value="ar" lang="ar">العربية</option>' in guest.get(portal_url("/login/")).content.decode()
    page = guest.post(portal_url("/_portal/language"), {"language": "de", "next": "/login/?next=%2Faccount%2F"})
    assert guest.url == portal_url("/login/?next=%2Faccount%2F")
    assert language_of(page) == "de"
    assert '<option value="de" lang="de" selected>' in page.content.decode()
    assert language_of(guest.get(portal_url("/login/"), HTTP_ACCEPT_LANGUAGE="fr")) == "de"
    assert 'name="language"' not in visitor("dave").get(portal_url("/")).content.decode()


@pytest.mark.asvs("3.3.1", "3.3.2", "3.3.4")
def test_the_cookie_of_the_language_is_host_only(cast: dict[str, User], visitor: Open, over_https: None) -> None:
    page = visitor().post(portal_url("/_portal/language"), {"language": "de"}, follow=False)
    line = page.cookies["__Host-language"].OutputString()
    assert re.fullmatch(r"__Host-language=de; expires=[^;]+; HttpOnly; Max-Age=31536000; Path=/; SameSite=Lax; Secure", line), line


@pytest.mark.parametrize("choice", ["tlh", "", "de\r\nSet-Cookie: x=y", "../de"])
def test_what_is_no_language_of_ours_is_not_kept(cast: dict[str, User], visitor: Open, choice: str) -> None:
    page = visitor().post(portal_url("/_portal/language"), {"language": choice, "next": "https://evil.example/"}, follow=False)
    assert not page.cookies
    assert "evil" not in page.headers.get("Location", "")


def test_a_mail_speaks_the_persons_language(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="dave").update(language="de")
    visitor("dave").post(portal_url("/account/name/"), {"username": "david"}, HTTP_ACCEPT_LANGUAGE="fr")
    mails.deliver()
    (told,) = mail.outbox
    assert told.subject == "Der Benutzername wurde geändert"
    assert isinstance(told, EmailMultiAlternatives)
    assert str(told.alternatives[0][0]).startswith('<!doctype html>\n<html lang="de" dir="ltr">')


def test_looking_at_a_page_in_a_language_makes_no_row_and_no_cookie(cast: dict[str, User], visitor: Open) -> None:
    guest = visitor()
    guest.get(portal_url("/login/"), HTTP_ACCEPT_LANGUAGE="de")
    assert {cookie.name for cookie in guest.cookies} <= {"csrf"}


def test_the_style_sheet_knows_no_left_and_no_right() -> None:
    """Logical properties only, so that a page is mirrored where the language runs from right to left."""
    text = (ROOT / "portal" / "static" / "portal" / "gatehouse.css").read_text()
    physical = re.findall(
        r"^\s*(?:(?:margin|padding|border)-(?:left|right)|left|right|float|text-align:\s*(?:left|right))[^\n]*", text, re.MULTILINE
    )
    assert physical == []


def test_a_new_account_speaks_the_language_of_the_browser_that_made_it(cast: dict[str, User], visitor: Open) -> None:
    form = {"username": "frank", "email": "frank@new.example", "password": "three little words"}
    visitor().post(portal_url("/signup/"), form, HTTP_ACCEPT_LANGUAGE="fr-CA,fr;q=0.9")
    assert User.objects.get(username="frank").language == "fr"
    (first,) = delivered()
    assert first.subject == "Confirmez que cette adresse est la vôtre"
    chosen = visitor()
    chosen.post(portal_url("/_portal/language"), {"language": "ar", "next": "/signup/"})
    chosen.post(portal_url("/signup/"), {**form, "username": "grace", "email": "grace@new.example"}, HTTP_ACCEPT_LANGUAGE="fr")
    assert User.objects.get(username="grace").language == "ar"


def test_an_invitation_speaks_the_language_of_the_invited_else_of_the_inviter(cast: dict[str, User], visitor: Open) -> None:
    User.objects.filter(username="carol").update(language="es")
    bob = visitor("bob")
    people = {"addresses": "new@x.example carol@globex.example", "role": "member"}
    bob.post(portal_url("/console/acme/people/invite/"), people, HTTP_ACCEPT_LANGUAGE="de")
    told = {message.to[0]: message for message in delivered()}
    assert told["new@x.example"].subject == "Einladung zu Acme"
    assert told["carol@globex.example"].subject == "Acme le invita"
    link = link_in(told["new@x.example"], "invitation")
    guest = visitor()
    form = {"username": "frank", "password": "three little words"}
    guest.post(link, form, HTTP_ACCEPT_LANGUAGE="pt-BR")
    assert User.objects.get(username="frank").language == "pt"
