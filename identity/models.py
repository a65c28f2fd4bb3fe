"""People, their sessions, and what happened."""

import contextlib
import secrets
import unicodedata
import uuid
from collections.abc import Iterable
from datetime import UTC, tzinfo
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Cast, Least, Now, StrIndex
from django.db.models.lookups import GreaterThan
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _
from django_otp.models import Device

from identity import clock, flight
from tenants import hosts
from tenants.models import BEGINNING, Membership, Tenant, _plain


def fold(text: str) -> str:
    """The form in which names and addresses are compared: NFKC, without case, the domain of an address as DNS knows it."""
    folded = unicodedata.normalize("NFKC", text.strip()).casefold()
    local, at, domain = folded.rpartition("@")
    if at and not domain.isascii():
        with contextlib.suppress(hosts.BadHost):
            return f"{local}@{hosts.normalise(domain)}"
    return folded


def _new_epoch() -> str:
    return secrets.token_hex(8)


class People(UserManager["User"]):
    """Finds people by what they type."""

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(name_key=fold(username or ""))

    def named(self, typed: str) -> "User | None":
        """The person behind a user name, or behind a *verified* e-mail address. An unverified address is matched by nothing."""
        key = fold(typed)
        if not key:
            return None
        if "@" in key:  # a user name has none, so the two cannot be mistaken for each other
            return self.filter(email_key=key, email_verified_at__isnull=False).first()
        return self.filter(name_key=key).first()


class User(AbstractUser):  # type: ignore[django-manager-missing]  # django-otp comes without types
    """One account for the whole platform."""

    username = models.CharField(
        _("user name"),
        max_length=150,
        unique=True,
        validators=[RegexValidator(r"^[\w.+-]+\Z", _("A user name has letters, digits and . + - _ only."))],
        error_messages={"unique": _("That name or address is already in use.")},
    )
    first_name = models.CharField(_("first name"), max_length=150, blank=True, validators=[_plain])
    last_name = models.CharField(_("last name"), max_length=150, blank=True, validators=[_plain])
    bio = models.TextField(_("about you"), max_length=1000, blank=True, validators=[_plain])
    birth_date = models.DateField(_("birth date"), null=True, blank=True)
    email_verified_at = models.DateTimeField(null=True, blank=True, editable=False)
    new_email = models.EmailField(blank=True, editable=False)  # what a change of address waits for: proof that it is the person's
    language = models.CharField(_("language"), max_length=10, blank=True)  # "": as the browser asks
    time_zone = models.CharField(_("time zone"), max_length=64, blank=True)  # an IANA name; "": UTC
    mail_new_device = models.BooleanField(_("mail me about sign-ins from a new browser"), default=True)
    delete_at = models.DateTimeField(null=True, blank=True, editable=False)  # asked to be deleted; until then it can be undone
    epoch = models.CharField(max_length=16, default=_new_epoch, editable=False)  # changed by the password verbs only
    valid_from = models.DateTimeField(default=BEGINNING, editable=False)  # a proof from before this opens nothing
    # What SQL compares and searches; kept by save(), because SQLite folds ASCII only and the databases must agree.
    name_key = models.CharField(max_length=300, unique=True, editable=False)
    email_key = models.CharField(max_length=300, unique=True, null=True, editable=False)
    search_text = models.TextField(editable=False, default="")

    objects: ClassVar[People] = People()

    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]

    memberships: "models.Manager[Membership]"
    methods: tuple[str, ...] = ()  # how the session was proven that this request came with

    class Meta(AbstractUser.Meta):
        ordering = ["id"]
        indexes = [models.Index(fields=["id"], name="people_deactivated", condition=models.Q(is_active=False))]

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._fold()
        fields = kwargs.get("update_fields")
        if fields is not None and {"username", "email", "email_verified_at", "first_name", "last_name"} & set(fields):
            kwargs["update_fields"] = {*fields, "name_key", "email_key", "search_text"}
        super().save(*args, **kwargs)

    def clean(self) -> None:
        super().clean()
        self._fold()
        if len(self.name_key) > 300 or len(self.email_key or "") > 300:  # compatibility characters can grow eighteen-fold
            raise ValidationError(_("That name or address is too long."), code="too_long")
        others = User.objects.exclude(pk=self.pk)
        if others.filter(name_key=self.name_key).exists():
            raise ValidationError({"username": ValidationError(_("That name is already in use. Choose another."), code="taken")})
        if self.email_key and others.filter(email_key=self.email_key).exists():
            raise ValidationError(_("That address is already in use."), code="taken")

    def _fold(self) -> None:
        self.name_key = fold(self.username)
        # Only a proven address is a key: an unproven one is matched by nothing and keeps nobody else from it.
        self.email_key = (fold(self.email) or None) if self.email_verified_at else None
        self.search_text = fold(f"{self.username} {self.first_name} {self.last_name} {self.email}")

    def check_password(self, raw_password: str | None) -> bool:
        """Django's check, under a reservation of the ledger. A rehash under newer parameters is no new password: it ends no session."""
        flight.demand()

        def rehash(raw: str) -> None:
            # Only in place of the hash that was checked: a new password set meanwhile stays.
            rehashed = make_password(raw)
            if User.objects.filter(pk=self.pk, password=self.password).update(password=rehashed):
                self.password = rehashed

        return check_password(raw_password, self.password, rehash)

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """What Django's `get_session_auth_hash` and, for SECRET_KEY_FALLBACKS, `get_session_auth_fallback_hash` answer."""
        return salted_hmac("identity.User.epoch", f"{self.pk}:{self.epoch}", secret=secret, algorithm="sha256").hexdigest()

    def get_full_name(self) -> str:
        """In one line: a name with a line end in it could write lines of a mail."""
        return " ".join(super().get_full_name().split())

    def get_full_name_with_username(self) -> str:
        """“Dave Vance (dave)”, or the user name alone."""
        name = self.get_full_name()
        return f"{name} ({self.username})" if name else self.username

    def is_verified(self) -> bool:
        """django-otp's question, answered from the session: was a second factor typed, be it a recovery code?"""
        return not TYPED_FACTORS.isdisjoint(self.methods)

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username

    @property
    def speaks(self) -> str:
        """The language that this person has chosen; "" if none of ours."""
        return self.language if self.language in dict(settings.LANGUAGES) else ""

    @property
    def zone(self) -> tzinfo:
        """The time zone that this person has chosen; UTC where none is, or where this machine does not know it."""
        try:
            return ZoneInfo(self.time_zone) if self.time_zone else UTC
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return UTC

    @property
    def initials(self) -> str:
        return (self.first_name[:1] + self.last_name[:1] or self.username[:2]).upper()


class FormerName(models.Model):
    """What a person was called before. An event about it names this row, because the log keeps ids only; it goes with the account."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="former_names")
    username = models.CharField(max_length=150)
    until = models.DateTimeField()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.username}, once"


# How a session was proven. "pwd" and "otp" are RFC 8176's; it has no word for the other two.
PASSWORD, CODE, RECOVERY, TRUSTED = "pwd", "otp", "recovery", "trusted"
TYPED_FACTORS = frozenset({CODE, RECOVERY})


def _has(method: str) -> GreaterThan:
    """Is this among the methods? Read as a text, because SQLite knows no "contains" of JSON."""
    return GreaterThan(StrIndex(Cast("methods", models.TextField()), models.Value(f'"{method}"')), 0)


RUNS_OUT = Least("expires_at", "idle_expires_at")  # when a session is over if nobody comes back


class SessionQuerySet(models.QuerySet["Session"]):
    """Questions that are asked of sessions. `alive` is the one definition of a session that is good."""

    def alive_at_portal(self) -> "SessionQuerySet":
        return self._alive().filter(tenant=None)

    def alive_at(self, tenant: "Tenant | int") -> "SessionQuerySet":
        """Branches of one tenant. The tenant stands in the WHERE: a cookie of another tenant's branch finds nothing here."""
        pk = tenant if isinstance(tenant, int) else tenant.pk
        return self._alive().filter(
            tenant_id=pk,
            tenant__status=Tenant.Status.ACTIVE,
            authenticated_at__gte=models.F("tenant__valid_from"),
            parent__ended_at=None,
            user__memberships__tenant_id=pk,
            user__memberships__blocked_at=None,
        )

    def standing_at(self, tenant: "Tenant | int") -> "SessionQuerySet":
        """What `alive_at` finds, asked of the rows and the tenant's stamp alone: for lists and exact counts of very many.

        What ends a session marks its row in the same transaction (`identity.sessions.end`); only the tenant's stamp comes before
        the rows. So no join says more, but it costs ten times as much. A cookie is never judged by this.
        """
        pk = tenant if isinstance(tenant, int) else tenant.pk
        stamp = Tenant.objects.filter(pk=pk, status=Tenant.Status.ACTIVE).order_by().values("valid_from")
        return self._standing().filter(tenant_id=pk, authenticated_at__gte=models.Subquery(stamp))

    def standing_in(self, tenants: "Iterable[Tenant]") -> "SessionQuerySet":
        """The same of several tenants."""
        return self._standing().filter(
            tenant__in=tenants, tenant__status=Tenant.Status.ACTIVE, authenticated_at__gte=models.F("tenant__valid_from")
        )

    def standing_at_portal(self) -> "SessionQuerySet":
        """What `alive_at_portal` finds, in the same way."""
        return self._standing().filter(tenant=None)

    def _alive(self) -> "SessionQuerySet":
        return self._unended().filter(user__is_active=True, authenticated_at__gte=models.F("user__valid_from"))

    def _unended(self) -> "SessionQuerySet":
        return self.filter(ended_at=None, idle_expires_at__gt=Now(), expires_at__gt=Now())

    def _standing(self) -> "SessionQuerySet":
        """Every session was seen since the beginning; to say so leads SQLite to the index that has all of this."""
        now = clock.in_query()
        return self.filter(ended_at=None, last_seen_at__gt=BEGINNING, idle_expires_at__gt=now, expires_at__gt=now)


class Session(models.Model):
    """One signed-in browser at the portal (tenant is null), or its branch at one tenant. The list is the store."""

    class Reason(models.TextChoices):
        SIGNED_OUT = "signed_out", _("Signed out")
        BY_PERSON = "by_person", _("Ended by the person")
        BY_ADMIN = "by_admin", _("Ended by an admin")
        BY_OPERATOR = "by_operator", _("Ended by an operator")
        BY_MAIL = "by_mail", _("Ended by a mailed link")
        PASSWORD = "password", _("The password was changed")
        FACTORS = "factors", _("The second factor was changed")
        POLICY = "policy", _("A second factor is asked for now")
        DEACTIVATED = "deactivated", _("The account was deactivated")
        DELETED = "deleted", _("The account is to be deleted")
        BLOCKED = "blocked", _("Blocked at this tenant")
        REMOVED = "removed", _("No longer a member")
        SUSPENDED = "suspended", _("The tenant was suspended")
        HOST = "host", _("Its address was changed or removed")
        REPLACED = "replaced", _("Another sign-in in the same browser")
        IDLE = "idle", _("Idle for too long")
        EXPIRED = "expired", _("Reached its time limit")
        PROBE = "probe", _("A probe of the isolation check")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # the only handle in URLs, pages and logs
    key_digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the cookie's key; the key is stored nowhere
    previous_digest = models.CharField(max_length=64, null=True)
    previous_until = models.DateTimeField(null=True)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="sessions")
    user = models.ForeignKey(User, on_delete=models.CASCADE, db_index=False, related_name="sessions")
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="branches")
    session_data = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()
    authenticated_at = models.DateTimeField()  # the last full proof, with every factor that was due
    proved_at = models.DateTimeField(null=True)  # the last proof with every factor typed
    last_seen_at = models.DateTimeField()
    longest_pause = models.PositiveIntegerField(default=0)  # seconds without activity, the longest since the last proof
    idle_expires_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    persistent = models.BooleanField(default=False)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, blank=True)
    host = models.CharField(max_length=253, blank=True, default="")  # a branch: where it was opened
    device = models.CharField(max_length=8, blank=True, default="", db_default="")  # what `identity.devices` calls it, for filters
    browsers = models.JSONField(default=list)  # a branch: digests of the start cookies of the browsers that it was opened in
    methods = models.JSONField(default=list)  # how it was proven, RFC 8176 values such as "pwd"
    factor = models.GeneratedField(  # the strongest of them, as lists name it; the database keeps it
        expression=models.Case(
            *(models.When(_has(method), then=models.Value(method)) for method in (CODE, RECOVERY, TRUSTED)), default=models.Value(PASSWORD)
        ),
        output_field=models.CharField(max_length=8),
        db_persist=True,
    )
    ended_at = models.DateTimeField(null=True)
    ended_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    end_reason = models.CharField(max_length=16, blank=True, choices=Reason.choices)
    end_note = models.CharField(max_length=200, blank=True)

    objects = SessionQuerySet.as_manager()

    branches: "models.Manager[Session]"
    in_grace = False  # opened with the key from before a step-up: it may go on, but has none of the new rights

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(tenant=None, parent=None) | models.Q(tenant__isnull=False, parent__isnull=False),
                name="portal_or_branch",
            )
        ]
        indexes = [
            models.Index(  # with what else `standing_at` asks, so that a count looks at nothing but the index
                fields=[
                    *("tenant", "-last_seen_at", "-id", "idle_expires_at", "expires_at", "authenticated_at"),
                    *("created_at", "factor", "user"),  # and a filter or a number of people
                ],
                name="live_by_seen",
                condition=models.Q(ended_at=None),
            ),
            models.Index(fields=["tenant", "-created_at", "-id"], name="live_by_start", condition=models.Q(ended_at=None)),
            models.Index("tenant", RUNS_OUT, "id", name="live_by_end", condition=models.Q(ended_at=None)),
            # PostgreSQL does not take "tenant IS NULL" for an equality when it looks for an order. The rest is for counting.
            models.Index(
                fields=["-last_seen_at", "-id"],
                name="portal_by_seen",
                condition=models.Q(ended_at=None, tenant=None),
                include=["idle_expires_at", "expires_at"],
            ),
            models.Index(fields=["-created_at", "-id"], name="portal_by_start", condition=models.Q(ended_at=None, tenant=None)),
            models.Index(fields=["tenant", "ip"], name="live_by_address", condition=models.Q(ended_at=None)),
            models.Index(fields=["user", "tenant"], name="sessions_of_user"),
            models.Index(fields=["previous_digest"], name="by_previous", condition=models.Q(previous_digest__isnull=False)),
            models.Index(
                fields=["tenant", "-ended_at", "-id", "end_reason"], name="ended_lately", condition=models.Q(ended_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.tenant or 'the portal'} ({self.id})"

    @property
    def is_branch(self) -> bool:
        return self.tenant_id is not None

    @property
    def has_factor(self) -> bool:
        """Was it proven with a second factor that was typed?"""
        return not TYPED_FACTORS.isdisjoint(self.methods)


class MassEnd(models.Model):
    """An end of many sessions that goes on behind the request that asked for it. The verbs are in `identity.mass`."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    criteria = models.JSONField(default=dict)  # which sessions, as `identity.listing` reads them; {}: all of the tenant
    before = models.DateTimeField()  # sessions opened later are not meant
    by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    spared = models.UUIDField(null=True)  # the portal session whose tree stays
    reason = models.CharField(max_length=16, choices=Session.Reason.choices)
    note = models.CharField(max_length=200, blank=True)
    expected = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["tenant", "-id"], name="mass_ends_under_way", condition=models.Q(finished_at=None))]

    def __str__(self) -> str:
        return f"end of {self.expected} sessions at {self.tenant}"


class Ticket(models.Model):
    """What carries a portal session to one tenant host: random, hashed, good once, for a minute, in one browser."""

    digest = models.CharField(max_length=64, unique=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    host = models.CharField(max_length=253)
    portal = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="+")
    state_digest = models.CharField(max_length=64)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"ticket {self.pk}"


class Link(models.Model):
    """A one-time link that reaches a person by mail, or from an operator's hand. The verbs are in `identity.links`."""

    class Purpose(models.TextChoices):
        PASSWORD = "password", "set a password"
        OPERATOR = "operator", "become an operator"
        VERIFY = "verify", "prove an address"
        TAKE_BACK = "take_back", "take an address back"
        NOT_ME = "not_me", "say that a sign-in was somebody else's"
        UNLOCK = "unlock", "open what is locked"

    digest = models.CharField(max_length=64, unique=True)
    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    epoch = models.CharField(max_length=16, blank=True)  # of the user when it was made: a new password voids it; "": it does not
    data = models.JSONField(default=dict)  # what it is about: {"email": …}, {"session": …, "device": …}; never a secret
    made_at = models.DateTimeField(default=BEGINNING)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"link {self.pk} to {self.get_purpose_display()}"


class Mail(models.Model):
    """One mail in the queue. Its text is encrypted, since it may hold a link, and goes when the mail has left."""

    kind = models.CharField(max_length=20)
    to = models.EmailField(max_length=320, blank=True)  # blank: `body` holds what was typed, and the worker finds out who is meant
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=300, blank=True)
    body = models.TextField(blank=True)  # encrypted JSON: text and HTML
    coalesce = models.CharField(max_length=100, blank=True, db_index=True)  # mails of one such key come at most so often
    created_at = models.DateTimeField(db_index=True)
    due_at = models.DateTimeField(null=True)  # null: sent, or given up
    tries = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)  # of the last try

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["due_at"], name="mails_due", condition=models.Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return f"mail {self.pk} ({self.kind})"


class KnownDevice(models.Model):
    """A browser in which a person has signed in completely: known to the ledger, and perhaps trusted in place of a code."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="known_devices")
    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the secret in the device cookie
    trusted_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()  # the last complete sign-in
    revoked_at = models.DateTimeField(null=True)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, blank=True)

    class Meta:
        indexes = [models.Index(fields=["user", "-last_seen_at"], name="devices_of_user")]

    def __str__(self) -> str:
        return f"a browser of {self.user}"


class Bucket(models.Model):
    """What the ledger counts by: wrong answers, and answers that are being checked right now. Never a secret, nor what was typed."""

    class Kind(models.TextChoices):
        PERSON = "person", _("from browsers that are not known")
        DEVICE = "device", _("from one known browser")
        FACTOR = "factor", _("of the second factor")
        ADDRESS = "address", _("from one address")

    key = models.CharField(max_length=64, unique=True)  # a keyed digest of what it counts
    kind = models.CharField(max_length=8, choices=Kind.choices)
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="buckets")  # null: an address, an unknown name
    device = models.ForeignKey(KnownDevice, null=True, on_delete=models.CASCADE, related_name="+")
    network = models.CharField(max_length=43, blank=True)  # of an address bucket: the address, or the /64
    failed = models.PositiveSmallIntegerField(default=0)
    flying = models.PositiveSmallIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)  # attempts that the present lock kept out
    round = models.PositiveIntegerField(default=0)  # goes up when flights were given up: a late one settles nothing
    locks = models.PositiveSmallIntegerField(default=0)  # in a row; each is twice as long
    started_at = models.DateTimeField(null=True)  # of the first wrong answer that counts now
    touched_at = models.DateTimeField()  # without an index: each attempt changes it
    locked_at = models.DateTimeField(null=True)  # null: not locked
    locked_until = models.DateTimeField(null=True)  # of the present lock, or of the last one
    ip = models.GenericIPAddressField(null=True)  # where the last wrong answer came from

    class Meta:
        indexes = [models.Index(fields=["-locked_at"], name="locked_now", condition=models.Q(locked_at__isnull=False))]

    def __str__(self) -> str:
        return f"attempts {self.get_kind_display()}"


class TotpDevice(Device):  # type: ignore[misc]
    """An authenticator app (RFC 6238: SHA-1, six digits, 30 seconds). The verbs are in `identity.factors`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="authenticators")
    session = models.ForeignKey(Session, null=True, on_delete=models.CASCADE, related_name="+")  # in which it is being set up
    secret = models.TextField()  # the seed, encrypted
    last_step = models.BigIntegerField(default=-1)  # of the last accepted code: no code twice (RFC 6238 section 5.2)
    created_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager["TotpDevice"]] = models.Manager()

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["session"], condition=models.Q(confirmed=False), name="one_enrolment"),
        ]
        indexes = [models.Index(fields=["user"], name="enrolled", condition=models.Q(confirmed=True))]  # to count without the seeds

    def verify_token(self, token: str) -> bool:
        """django-otp's hook. Must be called under a reservation of the ledger."""
        from identity import factors

        accepted: bool = factors.accepts(self, token)
        return accepted


class RecoveryCode(models.Model):
    """One of ten codes that stand in for the authenticator, each once."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    encoded = models.CharField(max_length=200)  # Argon2id, one salt for the ten of a set, so that one hash finds the code
    made_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"recovery code {self.pk}"


class Seal(models.Model):
    """What binds events together: the MACs of `count` events of one tenant, chained to the seal before. See `identity.seals`."""

    tenant_ref = models.BigIntegerField(null=True)  # the tenant's id; null: the platform's own chain
    n = models.PositiveBigIntegerField()
    count = models.PositiveIntegerField()
    head = models.CharField(max_length=80)
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant_ref", "n"], name="one_seal"),
            models.UniqueConstraint(fields=["n"], condition=models.Q(tenant_ref=None), name="one_platform_seal"),
        ]

    def __str__(self) -> str:
        return f"seal {self.n}"


class Event(models.Model):
    """One line of the audit log. Never a secret, and never changed: ids stay when what they name is deleted."""

    at = models.DateTimeField(db_index=True)
    kind = models.CharField(max_length=40)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    actor = models.ForeignKey(User, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    subject = models.ForeignKey(User, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    session = models.UUIDField(null=True)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, blank=True)
    request_id = models.CharField(max_length=32, blank=True)
    data = models.JSONField(default=dict)
    mac = models.CharField(max_length=80, default="")  # over everything above; `events.write` sets it
    seal = models.ForeignKey(Seal, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="events")

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="events_of_tenant"),
            models.Index(fields=["tenant", "kind", "at"], name="events_of_kind"),
            models.Index(fields=["id"], name="events_unsealed", condition=models.Q(seal=None)),
            models.Index(fields=["seal"], name="events_of_seal", condition=models.Q(seal__isnull=False)),
            models.Index(fields=["subject", "-id"], name="events_of_subject"),
            models.Index(fields=["actor", "-id"], name="events_of_actor"),
            models.Index(fields=["tenant", "ip", "-id"], name="events_by_address", condition=models.Q(ip__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.reference

    @property
    def reference(self) -> str:
        """What a person names to the support: “acme-48213”."""
        place = f"#{self.tenant_id}" if self.tenant_id else "portal"  # a tenant that was deleted has no name any more
        return f"{self.tenant.slug if self.tenant else place}-{self.pk}"
