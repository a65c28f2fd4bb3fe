"""All settings. The environment is read here and nowhere else (the variables: deploy/README.md, Variables).

With no PORTAL_URL in the environment this is the demo: http on *.localhost, SQLite under var/, keys made once into var/.
"""

import base64
import contextlib
import ipaddress
import os
import re
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import environ
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = BASE_DIR / "var"
_build = BASE_DIR / "release"  # written by deploy/releases.sh: which build of the version this is
RELEASE = _build.read_text().strip() if _build.exists() else "0.1.0"
COMMAND = "gatehouse" if _build.exists() else "manage.py"  # what an installation calls manage.py, on a machine and in a container


# --- How the environment is read ------------------------------------------------------------------------------------
def _text(name: str, default: str = "") -> str:
    """What NAME says, or else the file that NAME_FILE names, without spaces and line ends around it. Empty is as good as not set."""
    path = os.environ.get(f"{name}_FILE", "")
    try:
        said = Path(path).read_text() if path else os.environ.get(name, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(
            f"{name}_FILE names {path}, which cannot be read ({type(error).__name__}). Name a file of text."
        ) from None
    return said.strip() or default


def _required(name: str) -> str:
    value = _text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. Set it, or {name}_FILE; see deploy/README.md, Variables.")
    return value


def _one_of(name: str, default: str, *choices: str) -> str:
    value = _text(name, default).lower()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is “{value}”. Set it to {' or '.join(choices)}.")
    return value


def _number(name: str, default: str, least: int, most: int) -> int:
    value = _text(name, default)
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise ImproperlyConfigured(f"{name} is “{value}”. Set it to a number from {least} to {most}.")
    return int(value)


def _networks(name: str) -> list[str]:
    """Addresses and networks, comma-separated."""
    parts = [part for part in _text(name).replace(" ", "").split(",") if part]
    for part in parts:
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise ImproperlyConfigured(f"{name}: “{part}” is no address or network. Example: 10.0.0.5,192.168.7.0/24") from None
    return parts


def _directory(name: str, default: Path) -> Path:
    path = Path(_text(name, str(default)))
    if not path.is_absolute():
        raise ImproperlyConfigured(f"{name} is “{path}”. Set it to an absolute path: /srv/gatehouse")
    return path


def _keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]


# --- The demo -----------------------------------------------------------------------------------------------------
DEMO = not _text("PORTAL_URL")
_kept = VAR / "port"  # the port of the running demo, so that commands in another window speak of the same addresses
PORT = _number("PORT", _kept.read_text().strip() if DEMO and _kept.exists() else "8000", 1, 65535)
DEMO_PASSWORD = _text("DEMO_PASSWORD", "gatehouse-demo")


def _made_once(name: str, make: str) -> str:
    """The demo's own key, generated at the first start and kept in var/ (mode 0600)."""
    path = VAR / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        VAR.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(make)
        with contextlib.suppress(FileExistsError):  # two first starts at once agree on one key
            os.link(draft, path)
        draft.unlink()
        return path.read_text().strip()


# --- Where the portal lives ---------------------------------------------------------------------------------------
_WRONG_PORTAL_URL = "PORTAL_URL must look like https://login.example.com: a scheme, a host, perhaps a port, and nothing behind it."
PORTAL_URL = _text("PORTAL_URL", f"http://login.portal.localhost:{PORT}").rstrip("/")
try:
    _portal = urlsplit(PORTAL_URL)
    PORTAL_PORT = _portal.port
except ValueError:
    raise ImproperlyConfigured(_WRONG_PORTAL_URL) from None
PORTAL_HOST = (_portal.hostname or "").rstrip(".")
if _portal.scheme not in {"http", "https"} or not PORTAL_HOST or "@" in _portal.netloc or _portal.path or _portal.query or _portal.fragment:
    raise ImproperlyConfigured(_WRONG_PORTAL_URL)
SECURE = _portal.scheme == "https"
TENANT_DOMAIN = _text("TENANT_DOMAIN", PORTAL_HOST.partition(".")[2])
ON_LOCALHOST = PORTAL_HOST == "localhost" or PORTAL_HOST.endswith(".localhost")

# What the service keeps beside the database. systemd names it (StateDirectory=).
STATE = Path(_text("STATE_DIRECTORY").partition(":")[0] or (VAR if DEMO else "/var/lib/gatehouse"))
_not_ours = os.environ.get("BACKUP_DIRECTORY") == ""  # empty: somebody else looks after the backups
BACKUPS = None if _not_ours else _directory("BACKUP_DIRECTORY", Path("/var/backups/gatehouse"))  # where the doctor looks for them
# Touched when a host came or went: root waits for it, to get certificates. Only where systemd keeps the state.
HOSTS_CHANGED = STATE / "hosts-changed" if _text("STATE_DIRECTORY") and not DEMO else None

# --- Secrets ------------------------------------------------------------------------------------------------------
if DEMO:
    SECRET_KEY = _text("SECRET_KEY") or _made_once("secret-key", secrets.token_urlsafe(48))
    ENCRYPTION_KEYS = _keys(
        _text("ENCRYPTION_KEYS") or _made_once("encryption-keys", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    )
else:
    SECRET_KEY = _required("SECRET_KEY")
    ENCRYPTION_KEYS = _keys(_required("ENCRYPTION_KEYS"))
SECRET_KEY_FALLBACKS = _keys(_text("SECRET_KEY_FALLBACKS"))

DEBUG = _one_of("DEBUG", "false", "true", "false") == "true"
# The host is checked by tenants.middleware.HostMiddleware, which knows the tenants; Django's list could only repeat it.
ALLOWED_HOSTS = ["*"]

TRUSTED_PROXIES = _networks("TRUSTED_PROXIES")
METRICS_FROM = _networks("METRICS_FROM")  # who may read /metrics; nobody else finds it
SIGNUP = _one_of("SIGNUP", "open" if DEMO else "closed", "closed", "open")

# --- Parts --------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "identity",  # before Django's, so that its `changepassword` is the one that ends sessions
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "csp",
    "django_htmx",
    "django_otp",
    "tenants",
    "portal",
]

MIDDLEWARE = [
    "portal.metrics.MetricsMiddleware",  # counts requests, where somebody may read the figures
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "portal.languages.GuestMiddleware",  # the browser's language
    "portal.middleware.RequestMiddleware",  # request id, no-store, no control characters
    "tenants.middleware.ProxyMiddleware",  # who really asks: address and scheme
    "portal.middleware.StaticMiddleware",
    "tenants.middleware.HostMiddleware",  # where am I: request.tenant and the URLconf
    "identity.middleware.SessionMiddleware",  # who is it: request.session, one query
    "portal.languages.PersonMiddleware",  # the person's language and time zone
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "portal.urls"
TENANT_URLCONF = "portal.tenant_urls"
APP_URLCONF = "portal.app_urls"
WSGI_APPLICATION = "portal.wsgi.application"
LOGIN_URL = "login"  # the portal's form, or the tenant host's start of a hand-off: the same name in both URLconfs
LOGIN_REDIRECT_URL = "home"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    ["django.template.loaders.filesystem.Loader", "django.template.loaders.app_directories.Loader"],
                )
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "portal.context.page",
            ],
        },
    }
]

# --- Database -----------------------------------------------------------------------------------------------------
VAR_DATABASE = VAR / "gatehouse.sqlite3"
DATABASE_URL = _text("DATABASE_URL", f"sqlite:///{VAR_DATABASE}" if DEMO else "")
_WRONG_DATABASE_URL = (
    "DATABASE_URL must look like sqlite:////var/lib/gatehouse/gatehouse.sqlite3 (four slashes: an absolute path) or "
    "postgres://user:password@host:5432/name, with what is special in the password percent-encoded."
)
if not DATABASE_URL:
    raise ImproperlyConfigured(f"DATABASE_URL is not set. {_WRONG_DATABASE_URL}")
if not DATABASE_URL.startswith(("sqlite://", "postgres://", "postgresql://")):
    raise ImproperlyConfigured(_WRONG_DATABASE_URL)
try:
    DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
except ValueError:
    raise ImproperlyConfigured(_WRONG_DATABASE_URL) from None
_database = DATABASES["default"]
if not _database["NAME"]:
    raise ImproperlyConfigured(f"DATABASE_URL names no database. {_WRONG_DATABASE_URL}")
# Counting attempts must survive an exception later in the request, so no request is one transaction.
_database["ATOMIC_REQUESTS"] = False
if "sqlite" in _database["ENGINE"]:
    # IMMEDIATE: a transaction that will write takes its place in the queue at once instead of failing half-way.
    # synchronous stays FULL, SQLite's default: an end that was answered must survive a power cut.
    _database.setdefault("OPTIONS", {}).update(
        transaction_mode="IMMEDIATE", timeout=20, init_command="PRAGMA journal_mode=WAL; PRAGMA cache_size=-32000;"
    )
    _database["CONN_MAX_AGE"] = None  # one connection a thread; opening one costs more than a query
else:
    # While PostgreSQL restarts a request waits for it, for `timeout` seconds; then it is a 503. `reconnect_timeout` seconds bound the
    # pauses between two tries to connect, which would else grow with the time that it is away.
    _pool = {"min_size": 2, "max_size": _number("DATABASE_POOL", "16", 2, 1000), "timeout": 5, "reconnect_timeout": 5}
    _database.setdefault("OPTIONS", {})["pool"] = _pool
    _database["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People and sessions ------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "identity.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "identity.backends.NameOrMail"]
PASSWORD_HASHERS = ["identity.hashers.Argon2id"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "identity.passwords.LengthValidator"},
    {"NAME": "identity.passwords.KnownPasswordValidator"},
    {"NAME": "identity.passwords.ContextValidator"},
]

SESSION_ENGINE = "identity.store"
SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
SESSION_COOKIE_NAME = "__Host-portal" if SECURE else "portal"
TENANT_COOKIE_NAME = "__Secure-session" if SECURE else "session"
START_COOKIE_NAME = "__Host-start" if SECURE else "start"
DEVICE_COOKIE_NAME = "__Host-device" if SECURE else "device"
HALF_WAY_COOKIE_NAME = "__Host-half-way" if SECURE else "half-way"
THEME_COOKIE_NAME = "__Host-theme" if SECURE else "theme"
MESSAGES_COOKIE_NAME = "__Host-messages" if SECURE else "messages"
LANGUAGE_COOKIE_NAME = "__Host-language" if SECURE else "language"
SESSION_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_DOMAIN = None  # the middleware stamps the tenant's domain; the portal's cookie is host-only

CSRF_COOKIE_NAME = "__Host-csrf" if SECURE else "csrf"
CSRF_COOKIE_SECURE = SECURE
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_DOMAIN = None
CSRF_FAILURE_VIEW = "portal.views.errors.csrf_failure"
MESSAGE_STORAGE = "portal.messages.HostCookieStorage"

# The ledger (identity/ledger.py) is axes's handler; it counts in its own table and keeps nothing of a request.
AXES_ENABLED = True
AXES_HANDLER = "identity.ledger.Handler"
AXES_CLIENT_IP_CALLABLE = "identity.backends.client_address"
AXES_CLIENT_STR_CALLABLE = "identity.backends.client_name"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_ALLOWED_CORS_ORIGINS = None
AXES_SENSITIVE_PARAMETERS = ["username", "password", "csrfmiddlewaretoken", "next", "code", "token", "ticket", "state"]

# --- What a browser is told ---------------------------------------------------------------------------------------
SECURE_HSTS_SECONDS = 63072000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = True  # a tenant's apps share its Secure cookie: they are https anyway
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
# A sign-in is a few hundred bytes; a logo, which is a file, has a bound of its own (tenants.logos).
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 600
DATA_UPLOAD_MAX_NUMBER_FILES = 1
FILE_UPLOAD_HANDLERS = ["portal.uploads.LogoUpload"]  # a file on any other page is refused as bad

# Under /_portal/, so that a site which already lives at a tenant's host hands us one path and our pages keep their look.
STATIC_URL = "/_portal/static/"
STATIC_ROOT = _directory("STATIC_ROOT", VAR / "static")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- Mail ---------------------------------------------------------------------------------------------------------
EMAIL_URL = _text("EMAIL_URL")
_WRONG_EMAIL_URL = (
    "EMAIL_URL must look like smtp+tls://user:password@mail.example.com:587 (or smtp+ssl://…:465, or smtp://localhost:25), "
    "with what is special in the password percent-encoded."
)
if EMAIL_URL:
    try:
        _mail = urlsplit(EMAIL_URL)
        if _mail.scheme not in {"smtp", "smtp+tls", "smtp+ssl"} or not _mail.hostname or _mail.path.strip("/"):
            raise ImproperlyConfigured(_WRONG_EMAIL_URL)
        globals().update(environ.Env.email_url_config(EMAIL_URL))
    except ValueError:
        raise ImproperlyConfigured(_WRONG_EMAIL_URL) from None
else:
    EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
DEFAULT_FROM_EMAIL = _text("EMAIL_FROM", f"Gatehouse <no-reply@{PORTAL_HOST}>")
if not re.fullmatch(r"[^<>@\s]+@[^<>@\s]+|[^<>\r\n]*<[^<>@\s]+@[^<>@\s]+>", DEFAULT_FROM_EMAIL):
    raise ImproperlyConfigured(f"EMAIL_FROM is “{DEFAULT_FROM_EMAIL}”. It must look like Gatehouse <no-reply@example.com>, on one line.")
EMAIL_TIMEOUT = 20  # seconds
KEEP_MAILS = DEMO and not EMAIL_URL  # the demo shows them on a page, /outbox/
MAIL_OFF = not DEMO and not EMAIL_URL  # nothing leaves; `manage.py mail list` says so
DELIVER_EVERY: timedelta | None = timedelta(seconds=1)  # how often a server process looks for mails to send; None: it never does

# --- Upkeep -------------------------------------------------------------------------------------------------------
SEAL_EVERY: timedelta | None = timedelta(seconds=1)  # how often a server process seals the audit log; None: it never does

# --- Languages ----------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [  # each by its own name
    ("en", "English"),
    ("de", "Deutsch"),
    ("es", "Español"),
    ("fr", "Français"),
    ("pt", "Português"),
    ("ar", "العربية"),
]
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]  # every text, mails too; see portal/catalogs.py
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
SILENCED_SYSTEM_CHECKS = [
    "axes.W002",  # no AxesMiddleware: a lockout answers like a wrong password, in the view
    "security.W002",  # frame-ancestors in the CSP says it, to every browser that we support
    "security.W008",  # ProxyMiddleware sends pages to https, and refuses what is no page
    "security.W021",  # a preload list is for a whole domain: the operator's decision
]

LOG_FORMAT = _one_of("LOG_FORMAT", "plain" if DEMO else "json", "json", "plain")
LOG_REQUESTS = LOG_FORMAT == "json"  # a line for each request
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request": {"()": "portal.logs.RequestFilter"}},
    "formatters": {"json": {"()": "portal.logs.JsonFormatter"}, "plain": {"()": "portal.logs.PlainFormatter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["request"]},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django": {"level": "INFO"},  # without its own handlers, of which one would mail
        # A 401 of the gate or a scanner's 404 is an answer, not news.
        "django.request": {"level": "ERROR"},
        "django.security": {"level": "ERROR"},
        "django.server": {"level": "WARNING"},
        "django.security.RequestDataTooBig": {"level": "CRITICAL"},
        "axes": {"level": "ERROR"},
        # At the command line an error says once that the database does not answer.
        "psycopg.pool": {"level": "CRITICAL" if Path(sys.argv[0]).name == "manage.py" else "WARNING"},
    },
}
