"""Secrets that nobody can guess or read, and settings that are those of production."""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core import checks

from identity.management.doctor import Asked, Finding, bits, failure, note, ok, warning

ENVIRONMENT = Path("/etc/gatehouse/gatehouse.env")
CREDENTIALS = Path("/etc/gatehouse/credentials")
ENOUGH = 128  # bits
TOLD = {"security.W009", "security.W018", "gatehouse.W001"}  # what the doctor says in its own words: SECRET_KEY, DEBUG, mail
SIGNING = "python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"
ENCRYPTING = "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"


def examine(asked: Asked) -> Iterator[Finding]:
    yield from _secrets()
    yield from _files()
    if settings.DEBUG:
        yield failure("DEBUG is on: visitors see the inside of errors.", "Take DEBUG out of gatehouse.env, and restart.")
    yield from _settings()


def _secrets() -> Iterator[Finding]:
    weak = [name for name, key in _signing() if bits(key) < ENOUGH or key.startswith("django-insecure-")]
    weak += ["ENCRYPTION_KEYS"] if any(len(set(raw)) < 16 for raw in _raw_keys()) else []
    for name in weak:
        change = (
            "put it first and the old one behind it, restart, manage.py rekey" if name == "ENCRYPTION_KEYS" else "replace it, and restart"
        )
        yield failure(
            f"{name} can be guessed: it was not made by chance.",
            f"Make one with {ENCRYPTING if name == 'ENCRYPTION_KEYS' else SIGNING}; {change}",
        )
    if {settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS} & set(settings.ENCRYPTION_KEYS):
        yield failure("SECRET_KEY is one of ENCRYPTION_KEYS: who learns one has both.", f"Make another SECRET_KEY: {SIGNING}")
    if not weak:
        yield ok("The secrets are long and look random.")
    if settings.SECRET_KEY_FALLBACKS:
        yield note("SECRET_KEY_FALLBACKS keeps a former key good.", "Take it out a day after the change; what it signed is over by then.")


def _signing() -> list[tuple[str, str]]:
    return [("SECRET_KEY", settings.SECRET_KEY), *(("SECRET_KEY_FALLBACKS", key) for key in settings.SECRET_KEY_FALLBACKS)]


def _raw_keys() -> Iterator[bytes]:
    for key in settings.ENCRYPTION_KEYS:
        try:
            yield base64.urlsafe_b64decode(key)
        except (binascii.Error, ValueError):
            continue  # the check below says so


def _files() -> Iterator[Finding]:
    """As far as whoever asks may look."""
    try:
        files = [ENVIRONMENT, *sorted(CREDENTIALS.iterdir())] if CREDENTIALS.is_dir() else [ENVIRONMENT]
        readable = [path for path in files if path.exists() and path.stat().st_mode & 0o077]
    except OSError:
        return
    for path in readable:
        yield failure(f"Other users of this machine may read {path}, and every secret in it.", f"chmod 600 {path}")


def _settings() -> Iterator[Finding]:
    """Django's own checks and ours, as `manage.py check --deploy` has them."""
    said = checks.run_checks(include_deployment_checks=not settings.DEMO)
    found = [each for each in said if not each.is_silenced() and each.id not in TOLD]
    for each in found:
        state = failure if each.level >= checks.ERROR else warning
        yield state(f"{each.msg} ({each.id})", str(each.hint or "manage.py check --deploy"))
    if not found:
        yield ok("Django's checks have nothing against these settings.")
    if not settings.DEMO and not (Path(settings.STATIC_ROOT) / "staticfiles.json").is_file():
        yield failure("Stylesheets and scripts were not collected: no page has its look.", "manage.py collectstatic --no-input")
