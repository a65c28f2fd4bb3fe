"""deploy/SECURITY.md: each table says what the program does, and the program does nothing of the kind that is not in it."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import models

from identity import addresses, backends, checkup, events, factors, forgotten, hashers, hosting, invitations, mails, mass, ownership
from identity.management import doctor, wire
from identity.management.doctor import names
from identity.models import User
from portal import server, tenant_urls, urls
from tenants import logos, policy
from tenants import models as places
from tests.browser.site import secret_keys
from tests.conftest import PASSWORD
from tests.visitor import Visitor, tenant_url

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "deploy" / "SECURITY.md").read_text()
PACKAGES = ("portal", "identity", "tenants")


def tables(section: str) -> list[list[dict[str, str]]]:
    """The tables of a section, each as its rows: column to cell."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _line, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the program but its migrations, by its path."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Each call by what is called, as it is written: "hashlib.sha256"; of a call on what a call returned, the end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
                yield f".{node.func.attr}", node
            else:
                yield ast.unparse(node.func), node


def imported(tree: ast.Module) -> set[str]:
    """Modules and names, in full: "hashlib", "django.core.signing"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


LOOK = """
import importlib, json, logging, pkgutil, django
from django.conf import settings
django.setup()
for package in ("portal", "identity", "tenants"):
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if ".migrations" not in found.name:
            importlib.import_module(found.name)
loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
handlers = {f"{type(h).__name__} {getattr(getattr(h, 'stream', None), 'name', '')}" for each in loggers for h in each.handlers}
print(json.dumps({"pool": settings.DATABASES["default"]["OPTIONS"]["pool"], "handlers": sorted(handlers)}))
"""


@cache
def in_production() -> dict[str, Any]:
    """What is set when every module is loaded, in the environment of a server."""
    given = {"PORTAL_URL": "https://login.example.com", "DATABASE_URL": "postgres://db.example.com/gatehouse", **secret_keys()}
    environment = {**os.environ, **given, "DJANGO_SETTINGS_MODULE": "portal.settings"}
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def spell(span: timedelta | float) -> str:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds >= 7200 and not seconds % 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


# --- Connections ------------------------------------------------------------------------------------------------------


def nginx(name: str, directive: str) -> str:
    found = re.search(rf"^\s*{directive}\s+([^;]+)s;", (ROOT / "deploy" / name).read_text(), re.MULTILINE)
    assert found, directive
    return f"{found[1]} s"


@pytest.mark.asvs("13.1.1", "13.1.2", "13.1.3", "13.2.6")
def test_the_connections_are_these_and_keep_their_limits() -> None:
    pool = in_production()["pool"]
    site, proxy = "nginx-server.conf", "nginx-proxy.conf"
    tries = re.search(r"proxy_next_upstream_tries (\d+);", (ROOT / "deploy" / proxy).read_text())
    assert tries
    sending = f"{nginx(site, 'send_timeout')} to send"
    expected = {
        "browser to nginx": (
            f"{nginx(site, 'client_header_timeout')} for headers, {nginx(site, 'client_body_timeout')} for a body, {sending}",
            "nginx's `worker_connections`",
            "by the visitor",
        ),
        "nginx to Gatehouse": (
            f"{nginx(proxy, 'proxy_connect_timeout')} to connect, {nginx(proxy, 'proxy_read_timeout')} for an answer",
            f"{server.AT_ONCE} for each worker, {server.IN_LINE} in line",
            f"{tries[1]} tries, where a worker ended",
        ),
        "Gatehouse to PostgreSQL": (
            f"{spell(pool['timeout'])} for a place",
            f"{pool['max_size']} for each worker (`DATABASE_POOL`)",
            "with the next request",
        ),
        "Gatehouse to the mail server": (
            spell(settings.EMAIL_TIMEOUT),
            "1 for each worker",
            f"after {', '.join(spell(pause) for pause in mails.AGAIN)}",
        ),
        "Gatehouse to the DNS": (
            spell(ownership.SECONDS),
            f"{hosting.LOOKS} in {spell(hosting.LOOKS_WINDOW)} for each tenant",
            "when an owner asks",
        ),
        "`doctor` to the hosts": (f"{spell(doctor.PATIENCE)} for an answer, {spell(names.IN_ALL)} for all", str(doctor.AT_ONCE), "never"),
        "`doctor` to the mail server": (spell(doctor.PATIENCE), "1", "never"),
        "`isolation` to this machine": (spell(wire.TIMEOUT), "1", "never"),
    }
    (rows,) = tables("Connections")
    assert {row["connection"]: (row["waits at most"], row["at once"], row["again"]) for row in rows} == expected
    ours = {name for row in rows for name in quoted(row["code"]) if name.endswith(".py")}
    opens = {"smtplib", "dns.resolver", "http.client", "urllib.request", "requests", "asyncio", "ftplib", "psycopg"}
    makes = {"get_connection", "message.send", "socket.create_connection", "urlopen"}
    found = set()
    for name, tree in trees().items():
        if imported(tree) & opens or any(call in makes for call, _node in calls(tree)):
            found.add(name)
    talks_to_itself = {"identity/management/commands/demo.py", "identity/management/commands/isolation.py"}  # by way of wire.py; 127.0.0.1
    assert found - talks_to_itself == ours - {"portal/settings.py"}
    assert "psycopg" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.asvs("13.1.4")
def test_the_secrets_are_these() -> None:
    (rows,) = tables("Secrets")
    named = {name for row in rows for name in quoted(row["secret"])}
    (dropped,) = re.findall(r"^for _name in \(([^)]+)\)", (ROOT / "portal" / "wsgi.py").read_text(), re.MULTILINE)
    assert named == set(re.findall(r'"([A-Z_]+)"', dropped))
    assert all(row["new one"] and row["if it leaks"] for row in rows)


@pytest.mark.asvs("13.3.4", "11.1.1")
def test_a_new_secret_key_sends_nobody_back_and_the_old_one_ends_with_its_fallback(
    cast: dict[str, User], visitor: Callable[..., Visitor], settings: Any
) -> None:
    """With the old one behind it, who is just signing in gets on; without it, what the old one signed opens nothing."""
    old = settings.SECRET_KEY
    signed_in, on_the_way = visitor("dave", at="acme"), visitor()
    on_the_way.get(tenant_url("acme"))
    _nonce, signed = checkup.question()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key of fifty characters, made for this test", [old]
    assert signed_in.is_in("acme")
    on_the_way.post(on_the_way.url, {"username": "dave", "password": PASSWORD})
    assert on_the_way.is_in("acme")
    assert visitor().get(tenant_url("acme", checkup.PATH), HTTP_X_GATEHOUSE_DOCTOR=signed).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert signed_in.is_in("acme"), "a session's key is random and no signature"
    assert visitor().get(tenant_url("acme", checkup.PATH), HTTP_X_GATEHOUSE_DOCTOR=signed).status_code == 404


# --- Cryptography -----------------------------------------------------------------------------------------------------


def algorithm(call: str, node: ast.Call) -> str:
    """Which algorithm a call stands for; "" for what is none. What nobody knows is an error: the inventory lacks it."""
    words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    given = " ".join([*(ast.unparse(argument) for argument in node.args), *words.values()])
    if call.startswith("hashlib."):
        return {"hashlib.sha256": "SHA-256"}[call]
    if call in {"hmac.new", "hmac.digest", "hmac.HMAC"}:
        assert "sha256" in given, given
        return "HMAC-SHA-256"
    if call.endswith("salted_hmac"):
        assert words["algorithm"] == "'sha256'", "Django's default is SHA-1"
        return "HMAC-SHA-256"
    if call in {"signing.dumps", "signing.loads", "TimestampSigner", "Signer"}:
        return "HMAC-SHA-256"
    if "AESGCM" in call:
        return "AES-256-GCM"
    if call == "TOTP":
        return "HMAC-SHA-1"
    if call in {"hash_secret_raw", "argon2.low_level.hash_secret", "Argon2id"}:
        return "Argon2id"
    if call.startswith("ssl.create_default_context"):
        return "TLS 1.2, 1.3"
    assert call == "hmac.compare_digest" or not call.startswith(("ssl.SSLContext", "ssl.wrap", "ssl._create", "hmac.")), call
    return ""


@pytest.mark.asvs("11.1.2", "11.1.3", "11.1.4", "11.2.1", "11.3.1", "11.3.5", "11.4.1", "11.4.3", "11.6.1")
def test_the_inventory_of_cryptography_is_what_the_code_uses() -> None:
    """Found by reading every module: no ECB, no MD5, no SHA-1 but that of the authenticator apps, no cipher without its MAC."""
    used: dict[str, set[str]] = defaultdict(set)
    for name, tree in trees().items():
        for call, node in calls(tree):
            if kind := algorithm(call, node):
                used[kind].add(name)
        for module in imported(tree):
            if module.startswith("cryptography."):
                assert module in {
                    "cryptography.exceptions.InvalidTag", "cryptography.hazmat.primitives.ciphers.aead.AESGCM"
                }, module  # fmt: skip
            assert not module.startswith(("Crypto.", "nacl", "jwt", "jose", "OpenSSL", "crypt.")), module
    inventory = tables("Cryptography")[0]
    assert {row["algorithm"]: quoted(row["code"]) for row in inventory} == dict(used)
    assert all(row["against quantum computers"] for row in inventory)


RANDOM = {"secrets.token_urlsafe": "", "secrets.token_hex": "", "secrets.token_bytes": "", "os.urandom": ""}


@pytest.mark.asvs("11.5.1")
def test_what_nobody_may_guess_has_the_bits_that_the_inventory_says() -> None:
    made: dict[str, set[int]] = defaultdict(set)
    for name, tree in trees().items():
        for call, node in calls(tree):
            if call in RANDOM:
                given = ast.unparse(node.args[0]) if node.args else "32"
                size = int(given) if given.isdigit() else getattr(factors, given)
                made[name].add(8 * size)
            assert not call.startswith(("random.", "uuid.uuid1")) or "random.uniform" in call, f"{name}: {call}"
    told: dict[str, set[int]] = defaultdict(set)
    secret, harmless = tables("Cryptography")[1:]
    for row in [*secret, *harmless]:
        for name in quoted(row["code"]):
            told[name].add(int(row["bits"]))
    made["portal/settings.py"] &= {256}  # 48 bytes for SECRET_KEY are more than that
    assert told == made
    assert [row["bits"] for row in secret if int(row["bits"]) < 128] == ["80"], "recovery codes: hashed slowly, counted by the ledger"


# --- Ways in ----------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("6.1.3")
def test_the_ways_in_are_these() -> None:
    """What the ledger counts by, and every route that takes a secret from a stranger or from a form."""
    (rows,) = tables("Ways in")
    counted = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "what" and isinstance(node.value, ast.Constant):
                counted.add(node.value.value)
            if isinstance(node, ast.FunctionDef):
                defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                counted |= {value.value for name, value in defaults if name.arg == "what" and isinstance(value, ast.Constant)}
    assert {name for row in rows for name in quoted(row["counted as"])} == counted
    patterns = [str(each.pattern).strip("^$") for each in (*urls.urlpatterns, *tenant_urls.urlpatterns)]
    routes = {re.sub(r"\(\?P<token>[^)]+\)", "<token>", pattern) for pattern in patterns}
    told = {name for row in rows for name in quoted(row["path"])}
    assert told <= routes
    assert {route for route in routes if "<token>" in route} <= told


# --- Logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("16.1.1")
def test_the_loggers_are_these() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in trees().items():
        for call, node in calls(tree):
            if call.endswith("getLogger"):
                (given,) = node.args
                logger = given.value if isinstance(given, ast.Constant) else name.removesuffix(".py").replace("/", ".")
                found[str(logger)].add(name)
    (rows,) = tables("Logs")
    assert {row["logger"].strip("`"): quoted(row["code"]) for row in rows} == dict(found)


@pytest.mark.asvs("16.2.3")
def test_log_lines_go_to_standard_error_and_nowhere_else() -> None:
    """Whatever is imported, by us or by a package; and no unit or nginx file sends them elsewhere."""
    assert {"StreamHandler <stderr>"} <= set(in_production()["handlers"]) <= {"StreamHandler <stderr>", "NullHandler "}
    for unit in (ROOT / "deploy").glob("*.service"):
        assert not re.search(r"^Standard(Output|Error)=", unit.read_text(), re.MULTILINE), unit
    for conf in (ROOT / "deploy").glob("*nginx*.conf"):
        targets = set(re.findall(r"^\s*(?:access|error)_log\s+([^\s;]+)", conf.read_text(), re.MULTILINE))
        assert targets <= {"off", "/dev/null", "/var/log/nginx/gatehouse.access.log"}, conf


# --- Data -------------------------------------------------------------------------------------------------------------

WORDY = (models.CharField, models.TextField, models.EmailField, models.JSONField, models.GenericIPAddressField, models.BinaryField)


def ours() -> dict[str, Any]:
    return {model.__name__: model for label in ("identity", "tenants") for model in apps.get_app_config(label).get_models()}


def columns() -> set[str]:
    """Every column of ours that could hold something of a person or a secret. A birth date is a date; a DateTimeField says when."""
    fields = [(name, field) for name, model in ours().items() for field in model._meta.local_fields]
    dates = {("User", "birth_date")}
    return {f"{name}.{field.name}" for name, field in fields if isinstance(field, WORDY) or (name, field.name) in dates}


def classes() -> dict[str, set[str]]:
    return {row["class"]: quoted(row["columns"]) for row in tables("Data")[0]}


@pytest.mark.asvs("14.1.1")
def test_every_column_has_its_class() -> None:
    named = [name for each in classes().values() for name in each]
    assert sorted(named) == sorted(columns())


@pytest.mark.asvs("14.1.2")
def test_no_secret_is_stored_in_another_form_than_its_class_says(cast: dict[str, User], visitor: Callable[..., Visitor], acme: Any) -> None:
    """One row of each kind at least: digests of 256 bits, Argon2id, or a ciphertext under a key's id."""
    visitor("dave", at="acme")
    visitor("erin")
    invitations.invite(acme, "ann@acme.example", "member")
    mails.post("password_changed", to=cast["dave"].email, user=cast["dave"])
    forms = {
        "hashed secret": r"[0-9a-f]{64}|argon2\$argon2id\$.+|argon2id?\$.+|!.*|",
        "encrypted secret": r"[0-9a-f]{8}\.[A-Za-z0-9_=-]+|",
    }
    seen = set()
    for name, form in forms.items():
        for column in classes()[name]:
            model, _dot, field = column.partition(".")
            for value in ours()[model].objects.values_list(field, flat=True):
                assert re.fullmatch(form, value or ""), column
                seen |= {column} if value else set()
    assert {"User.password", "Session.key_digest", "Session.session_data", "KnownDevice.digest", "TotpDevice.secret"} <= seen
    assert {"Mail.body", "Ticket.digest", "Invitation.digest"} <= seen


# --- Limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dear_hashes")
@pytest.mark.asvs("2.1.3", "15.1.3")
def test_the_limits_are_these() -> None:
    expected = {
        "password hashes at the same moment, in one process": f"one for each processor, {hashers.Argon2id.memory_cost // 1024} MiB each",
        "a password": f"{backends.LONGEST_PASSWORD:,} characters",
        "a form": f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024} kB, {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} fields, "
        f"{settings.DATA_UPLOAD_MAX_NUMBER_FILES} file",
        "a logo": f"{logos.LARGEST_FILE // 1024**2} MB, {logos.MOST_PIXELS // 10**6} million pixels",
        "sessions of one person": "any number, each shown to the person",
        "authenticators of one person": str(factors.MOST),
        "recovery codes of one person": str(factors.RECOVERY_CODES),
        "known browsers of one person": str(policy.KNOWN_DEVICES),
        "new accounts from one address": f"{policy.SIGN_UPS} in {spell(policy.ADDRESS_WINDOW)}",
        "invitations at once": str(invitations.AT_ONCE),
        "mails to prove one address": f"{addresses.MOST} in {addresses.WITHIN.total_seconds() // 60:.0f} min",
        "mails for a forgotten password, to one person": f"{forgotten.MOST} in {forgotten.WITHIN.total_seconds() // 60:.0f} min",
        "looks at the DNS for one tenant": f"{hosting.LOOKS} in {spell(hosting.LOOKS_WINDOW)}",
        "sessions ended in one piece": f"{mass.DIRECTLY:,}",
        "mails in one round of a worker": str(mails.BATCH),
        "events that anybody can cause, of a kind, from one address": f"{events.SPARING} in {spell(events.SPARING_WINDOW)}",
        "public paths of one app": str(places.PUBLIC_PATHS),
    }
    (rows,) = tables("Limits")
    assert {row["of"]: row["at most"] for row in rows} == expected
    assert hashers._slots._initial_value == (os.cpu_count() or 1)  # type: ignore[attr-defined]


@pytest.mark.asvs("8.1.3", "8.1.4")
def test_the_readmes_table_of_wrong_answers_is_what_the_ledger_does() -> None:
    """What is looked at beside the secret (the browser, the address, the time), and from where on."""
    text = (ROOT / "README.md").read_text().partition("## Wrong answers")[2]
    lines = [line.strip("|").split("|") for line in re.findall(r"^\|.+\|$", text, re.MULTILINE)[2:7]]
    rows = {line[0].strip(): [cell.strip() for cell in line[1:3]] for line in lines}
    first, most = (f"{span.total_seconds() // 60:.0f} min" for span in policy.LOCK)
    first_factor, most_factor = (f"{span.total_seconds() // 60:.0f} min" for span in policy.FACTOR_LOCK)
    window = spell(policy.ADDRESS_WINDOW)
    full = {what: cells[0] for what, cells in rows.items()}
    assert full["a person's password, from browsers that are not known"] == f"{policy.TRIES_UNKNOWN} wrong"
    assert full["a person's password, from one known browser"] == f"{policy.TRIES_UNKNOWN * policy.KNOWN_TIMES} wrong"
    assert full["a person's second factor"] == f"{policy.TRIES_FACTOR} wrong"
    assert full["an address (IPv6: its /64)"] == f"{policy.TRIES_ADDRESS} wrong in {window}"
    alarm = f"{policy.ALARM_TENANT}, {policy.ALARM_PLATFORM} wrong in {spell(policy.ALARM_WINDOW)}"
    assert full["a tenant, the platform"] == alarm
    assert rows["a person's password, from browsers that are not known"][1].startswith(f"{first}, doubling to {most}")
    assert rows["a person's second factor"][1] == f"{first_factor}, doubling to {most_factor}"


@pytest.mark.asvs("7.1.2")
def test_a_person_may_have_any_number_of_sessions_and_sees_each(cast: dict[str, User], visitor: Callable[..., Visitor]) -> None:
    browsers = [visitor("dave") for _n in range(8)]
    assert all(browser.is_in() for browser in browsers)
    page = browsers[0].get(f"{settings.PORTAL_URL}/account/sessions/").content.decode()
    assert all(str(browser.session().pk) in page for browser in browsers)


# --- Components -------------------------------------------------------------------------------------------------------


@pytest.mark.asvs("15.1.4", "15.1.5")
def test_what_is_dangerous_is_where_the_page_says() -> None:
    signs: dict[str, Callable[[str, ast.Module], bool]] = {
        "Pillow": lambda name, tree: any(module.startswith("PIL") for module in imported(tree)),
        "dnspython": lambda name, tree: any(module.startswith("dns.") for module in imported(tree)),
        "SQL by hand": lambda name, tree: any(call.endswith((".cursor", ".raw", "RawSQL", ".extra")) for call, _node in calls(tree)),
        "commands of the system": lambda name, tree: (
            any(module.split(".")[0] in {"subprocess", "pty"} for module in imported(tree))
            or any(call in {"os.system", "os.popen", "os.execv"} for call, _node in calls(tree))
        ),
        "markup that is not escaped": lambda name, tree: any(call in {"mark_safe", "SafeString"} for call, _node in calls(tree)),
    }
    (rows,) = tables("Components")
    found = {what: {name for name, tree in trees().items() if sign(name, tree)} for what, sign in signs.items()}
    assert {row["dangerous"]: quoted(row["code"]) for row in rows} == found
