"""Tenants, their hosts and apps, and who belongs to them."""

import hashlib
import re
import secrets
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants import hosts
from tenants.policy import INVITATION, Policy
from tenants.text import is_plain

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # a validity stamp that nothing is older than


def _valid_slug(slug: str) -> None:
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", slug) or slug.startswith("xn--"):
        raise ValidationError(_("A slug is one label of a host: lower-case letters, digits and hyphens, a letter first."))
    if slug in hosts.RESERVED_SLUGS or hosts.is_within(settings.PORTAL_HOST, f"{slug}.{settings.TENANT_DOMAIN}"):
        raise ValidationError(_("“%(slug)s” is reserved. Choose another slug."), params={"slug": slug})


def _valid_colour(colour: str) -> None:
    if not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise ValidationError(_("A colour is a # and six hex digits, such as #0d5f7a."))


def _valid_host(host: str) -> None:
    try:
        canonical = hosts.normalise(host)
    except hosts.BadHost as bad:
        raise ValidationError(str(bad)) from None
    if canonical != host:
        raise ValidationError(_("Write the host as “%(host)s”."), params={"host": canonical})


def _plain(text: str) -> None:
    if not is_plain(text):
        raise ValidationError(_("Control characters are not allowed here."))


class Tenant(models.Model):
    """An organisation with its own subdomain (or domain), policy and look."""

    class Status(models.TextChoices):
        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")
        DELETED = "deleted", _("being deleted")  # its rows go in batches; nothing brings it back

    slug = models.CharField(max_length=63, unique=True, validators=[_valid_slug])
    name = models.CharField(max_length=80, validators=[_plain])
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.ACTIVE)
    cookie_domain = models.CharField(max_length=253, blank=True, validators=[_valid_host])
    valid_from = models.DateTimeField(default=BEGINNING)  # a proof from before this opens nothing here
    policy = models.JSONField(default=dict, blank=True)
    factor_since = models.DateTimeField(null=True, blank=True)  # when the second factor was asked for; days of grace count from here
    # Panic (`identity.panic`): until lifted, nobody new comes in, or everybody types a second factor anew.
    frozen_at = models.DateTimeField(null=True, blank=True)
    proof_demanded_at = models.DateTimeField(null=True, blank=True)
    colour = models.CharField(max_length=7, default="#1f5a48", validators=[_valid_colour])
    logo = models.OneToOneField("tenants.Logo", null=True, blank=True, on_delete=models.SET_NULL)
    sign_in_note = models.CharField(max_length=300, blank=True, validators=[_plain])
    support_contact = models.CharField(max_length=200, blank=True, validators=[_plain])
    home_is_public = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    members: "models.Manager[Membership]"

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.cookie_domain = self.cookie_domain or self.hostname
        super().save(*args, **kwargs)
        hosts.changed()

    def clean(self) -> None:
        """Check the cookie domain where it is entered (design, section 3); every error carries its cure."""
        try:
            Policy.of(self.policy)
        except ValueError as wrong:
            raise ValidationError({"policy": str(wrong)}) from None
        domain = self.cookie_domain or self.hostname
        check_cookie_domain(domain, self, self.hostname)

    @property
    def hostname(self) -> str:
        return f"{self.slug}.{settings.TENANT_DOMAIN}"

    @property
    def home_url(self) -> str:
        return f"{hosts.origin(self.hostname)}/"

    @property
    def is_active(self) -> bool:
        return self.status == self.Status.ACTIVE

    @property
    def rules(self) -> Policy:
        return Policy.of(self.policy)

    def factor_due(self, membership: "Membership | None") -> datetime | None:
        """From when on this member must have a second factor here; None: never. While everybody is to prove one, it is everybody."""
        return self.proof_demanded_at or self.factor_due_by_policy(membership)

    def factor_due_by_policy(self, membership: "Membership | None") -> datetime | None:
        """The same, but for what a panic demands. Grace counts from the later of policy and joining."""
        rules = self.rules
        asked = rules.second_factor == "everyone" or (
            rules.second_factor == "admins" and membership is not None and membership.role != Membership.Role.MEMBER
        )
        if not asked:
            return None
        since = self.factor_since or BEGINNING
        if membership is not None and rules.grace_days:
            since = max(since, membership.created_at)
        return since + timedelta(days=rules.grace_days)

    @property
    def letter(self) -> str:
        return self.name[:1].upper()

    @property
    def look_digest(self) -> str:
        """Changes with the look, so that its style sheet can be kept for ever."""
        return hashlib.sha256(f"{self.slug} {self.colour}".encode()).hexdigest()[:12]

    @property
    def css_url(self) -> str:
        return f"/_portal/brand/{self.slug}-{self.look_digest}.css"

    @property
    def logo_url(self) -> str:
        return f"/_portal/brand/{self.slug}-{self.logo_id.hex}.png" if self.logo_id else ""

    @property
    def support_href(self) -> str:
        """A link to the support contact where it is an address, a number or a page; else nothing."""
        contact = self.support_contact.strip()
        if re.fullmatch(r"[^@\s:/?&]+@[A-Za-z0-9.-]+", contact):
            return f"mailto:{contact}"
        if re.fullmatch(r"\+?[0-9][0-9 ()/-]{4,}", contact):
            return "tel:" + re.sub(r"[^0-9+]", "", contact)
        return contact if re.fullmatch(r"https://[A-Za-z0-9.-]+(?:/[A-Za-z0-9._~/-]*)?", contact) else ""

    def all_hosts(self) -> frozenset[str]:
        """Every host that belongs to this tenant: its own, approved further ones, and its apps' inside their domains."""
        further = self.hosts.filter(approved_at__isnull=False).values_list("name", flat=True)
        apps = [host for host in self.apps.values_list("host", flat=True) if self.cookie_domain_for(host)]
        return frozenset({self.hostname, *further, *apps})

    def cookie_domain_for(self, host: str) -> str | None:
        """The domain of the cookie that a host inside this tenant receives; None if none of its approved domains reaches it."""
        approved = self.hosts.filter(approved_at__isnull=False).values_list("cookie_domain", flat=True)
        return next((domain for domain in (self.cookie_domain, *approved) if hosts.is_within(host, domain)), None)


def check_cookie_domain(domain: str, tenant: Tenant, host: str) -> None:
    """Refuse a cookie domain that would let sessions leak. Raises ValidationError with the cure.

    No public suffix, not the portal host or above it, not inside or around another tenant's, under the tenants' domain
    only inside one's own slug, and always at or above the host that sets it.
    """

    def refuse(text: Any, **params: str) -> None:
        raise ValidationError({"cookie_domain": ValidationError(text, params=params)})

    if hosts.is_address(domain):
        refuse(_("A cookie domain is a name, not an address."))
    if hosts.is_public_suffix(domain):
        refuse(_("Strangers can register names below %(domain)s. Choose a domain that is yours alone."), domain=domain)
    if hosts.is_within(settings.PORTAL_HOST, domain) or hosts.is_within(domain, settings.PORTAL_HOST):
        refuse(_("%(domain)s would reach the portal itself. Choose a domain beside it."), domain=domain)
    if hosts.is_within(settings.TENANT_DOMAIN, domain):
        refuse(_("%(domain)s spans every tenant. Use %(own)s."), domain=domain, own=tenant.hostname)
    if hosts.is_within(domain, settings.TENANT_DOMAIN) and not hosts.is_within(domain, tenant.hostname):
        refuse(_("Under %(all)s a tenant has only its own name. Use %(own)s."), all=settings.TENANT_DOMAIN, own=tenant.hostname)
    if not hosts.is_within(host, domain):
        refuse(_("A browser does not accept a cookie for %(domain)s from %(host)s."), domain=domain, host=host)
    others = [
        *Tenant.objects.exclude(pk=tenant.pk).values_list("cookie_domain", flat=True),
        *Host.objects.exclude(tenant_id=tenant.pk).exclude(approved_at=None).values_list("cookie_domain", flat=True),
    ]
    if any(hosts.is_within(domain, other) or hosts.is_within(other, domain) for other in others):
        refuse(_("%(domain)s overlaps another tenant's cookie domain. Choose one of your own."), domain=domain)


class Logo(models.Model):
    """A tenant's logo: always our own re-encoding of a raster image, so that nothing hidden in a file is served."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    png = models.BinaryField()

    def __str__(self) -> str:
        return str(self.id)


def _new_challenge() -> str:
    return secrets.token_urlsafe(32)


class Host(models.Model):
    """A further host of a tenant, such as id.acme.org, good once its ownership is proven or an operator approved it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="hosts")
    name = models.CharField(max_length=253, validators=[_valid_host])
    cookie_domain = models.CharField(max_length=253, blank=True, validators=[_valid_host])
    challenge = models.CharField(max_length=43, default=_new_challenge)  # what a DNS TXT record says to prove whose the domain is
    approved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_host"),
            # Who waits for approval keeps nobody else from it: whoever proves it first has it.
            models.UniqueConstraint(fields=["name"], condition=models.Q(approved_at__isnull=False), name="one_approved_host"),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.cookie_domain = self.cookie_domain or self._default_domain()
        super().save(*args, **kwargs)
        hosts.changed()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        gone = super().delete(*args, **kwargs)
        hosts.changed()
        return gone

    @property
    def is_own(self) -> bool:
        """Under the tenant's own name, which is nobody else's to prove?"""
        return hosts.is_within(self.name, self.tenant.hostname)

    @property
    def record_name(self) -> str:
        """Where the DNS record stands that proves whose the host is: at the widest domain that its cookie reaches."""
        return f"_gatehouse.{self.cookie_domain}"

    @property
    def record_value(self) -> str:
        return f"gatehouse-site={self.challenge}"

    def _default_domain(self) -> str:
        covered = hosts.is_within(self.name, self.tenant.cookie_domain)
        return self.tenant.cookie_domain if covered else self.name

    def clean(self) -> None:
        check_new_host(self.name, self.tenant, own=self)
        domain = self.cookie_domain or self._default_domain()
        if domain != self.tenant.cookie_domain:
            check_cookie_domain(domain, self.tenant, self.name)
        elif not hosts.is_within(self.name, domain):
            raise ValidationError(_("A browser does not accept a cookie for %(domain)s from this host."), params={"domain": domain})


def check_new_host(host: str, tenant: Tenant, own: "Host | App | None" = None) -> None:
    """Refuse a host that is the portal's, a public suffix, or somebody else's already. Raises ValidationError."""
    if hosts.is_address(host):
        raise ValidationError(_("A host is a name, not an address."))
    if host == settings.PORTAL_HOST or hosts.is_within(host, settings.PORTAL_HOST):
        raise ValidationError(_("%(host)s belongs to the portal. Choose another host."), params={"host": host})
    if hosts.is_public_suffix(host) or hosts.is_within(settings.TENANT_DOMAIN, host):
        raise ValidationError(_("%(host)s is not a tenant's to have. Choose a host of your own."), params={"host": host})
    if hosts.is_within(host, settings.TENANT_DOMAIN) and not hosts.is_within(host, tenant.hostname):
        raise ValidationError(
            _("Under %(all)s a tenant has only its own name. Choose a host inside %(own)s."),
            params={"all": settings.TENANT_DOMAIN, "own": tenant.hostname},
        )
    taken = (
        host == tenant.hostname
        or _held(host, tenant).exclude(pk=(own.pk or 0) if isinstance(own, Host) else 0).exists()
        or App.objects.filter(host=host).exclude(pk=(own.pk or 0) if isinstance(own, App) else 0).exists()
    )
    if taken:
        raise ValidationError(_("%(host)s already has a place. Remove it there first."), params={"host": host})
    for other in [
        *Tenant.objects.exclude(pk=tenant.pk).values_list("cookie_domain", flat=True),
        *Host.objects.exclude(tenant_id=tenant.pk).exclude(approved_at=None).values_list("cookie_domain", flat=True),
    ]:
        if hosts.is_within(host, other):
            raise ValidationError(_("%(host)s lies inside another tenant's cookie domain."), params={"host": host})


def _held(host: str, tenant: Tenant) -> "models.QuerySet[Host]":
    """Who has a host: whoever it is approved for, and this tenant while it waits. Waiting keeps it from nobody else."""
    return Host.objects.filter(models.Q(tenant=tenant) | models.Q(approved_at__isnull=False), name=host)


_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]{0,199}")
PUBLIC_PATHS = 50  # of one app


def check_public_path(path: object) -> None:
    """Refuse what is no beginning of a path, or would open more than it says. Raises ValidationError with the cure."""

    def refuse(text: Any) -> None:
        raise ValidationError({"public_paths": ValidationError(text, params={"path": str(path)[:80]})})

    if not isinstance(path, str) or not path.startswith("/"):
        refuse(_("Each public path begins with a slash: “%(path)s” does not."))
    elif path == "/":
        refuse(_("A slash alone would open the whole app. Name a path, such as /webhooks/."))
    elif not _PATH.fullmatch(path) or "//" in path or {".", ".."} & set(path.split("/")) or "%2" in path.lower():
        refuse(_("“%(path)s” is no plain path. Write it without spaces, dots alone, ? and #, such as /webhooks/."))


class App(models.Model):
    """A host inside a tenant's cookie domain that a reverse proxy protects. Its rules are stored, not yet enforced."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="apps")
    name = models.CharField(max_length=80, validators=[_plain])
    host = models.CharField(max_length=253, unique=True, validators=[_valid_host])
    roles = models.JSONField(default=list, blank=True)  # who may enter: these roles, and the members of these groups;
    groups: "models.ManyToManyField[Group, Any]" = models.ManyToManyField(
        "tenants.Group", blank=True, related_name="apps"
    )  # both empty: all
    second_factor = models.BooleanField(default=False)
    public_paths = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        hosts.changed()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        gone = super().delete(*args, **kwargs)
        hosts.changed()
        return gone

    @property
    def url(self) -> str:
        return f"{hosts.origin(self.host)}/"

    @property
    def letter(self) -> str:
        return self.name[:1].upper()

    def clean(self) -> None:
        check_new_host(self.host, self.tenant, own=self)
        if self.tenant.cookie_domain_for(self.host) is None:
            raise ValidationError(
                {
                    "host": ValidationError(
                        _("The tenant's cookie does not reach %(host)s. Choose a host inside %(domain)s."),
                        params={"host": self.host, "domain": self.tenant.cookie_domain},
                    )
                }
            )
        unknown = set(self.roles) - set(Membership.Role.values)
        if unknown:
            raise ValidationError({"roles": f"Roles are: {', '.join(Membership.Role.values)}."})
        if len(self.public_paths) > PUBLIC_PATHS:
            raise ValidationError({"public_paths": ValidationError(_("At most %(n)d public paths."), params={"n": PUBLIC_PATHS})})
        for path in self.public_paths:
            check_public_path(path)


class Membership(models.Model):
    """That a person belongs to a tenant, as what, and since when a fresh proof is asked."""

    class Role(models.TextChoices):
        MEMBER = "member", _("Member")
        ADMIN = "admin", _("Admin")
        OWNER = "owner", _("Owner")

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role.choices, default=Role.MEMBER)
    blocked_at = models.DateTimeField(null=True, blank=True)
    prove_after = models.DateTimeField(default=BEGINNING)  # a branch was ended: who comes back proves it anew
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership")]
        indexes = [models.Index(fields=["tenant", "role", "blocked_at", "user"], name="members_by_role")]

    def __str__(self) -> str:
        return f"{self.user} ({self.get_role_display()}) at {self.tenant}"

    @property
    def may_administer(self) -> bool:
        return self.role in {self.Role.ADMIN, self.Role.OWNER} and self.blocked_at is None


def group_key(name: str) -> str:
    """The form in which the names of groups are compared."""
    return unicodedata.normalize("NFKC", name).casefold()[:160]


class Group(models.Model):
    """Members of one tenant under one name, for the rules of its apps and for what those apps are told about a person."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="groups")
    name = models.CharField(max_length=80, validators=[_plain])
    name_key = models.CharField(max_length=160, editable=False)  # the name as it is compared
    members: "models.ManyToManyField[Membership, Any]" = models.ManyToManyField(Membership, blank=True, related_name="groups")

    class Meta:
        ordering = ["name_key", "id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name_key"], name="one_group_name")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.name_key = group_key(self.name)
        fields = kwargs.get("update_fields")
        if fields is not None and "name" in fields:
            kwargs["update_fields"] = {*fields, "name_key"}
        super().save(*args, **kwargs)


class Invitation(models.Model):
    """That somebody with this address may become a member: for whoever opens its link with an account of that address."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=320)
    email_key = models.CharField(max_length=320, editable=False)
    role = models.CharField(max_length=8, choices=Membership.Role.choices, default=Membership.Role.MEMBER)
    digest = models.CharField(max_length=64, unique=True)  # of the link that is good now; sending it anew changes it
    invited_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)
    accepted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email_key"], condition=models.Q(accepted_at=None, revoked_at=None), name="one_open_invitation"
            )
        ]

    def __str__(self) -> str:
        return f"invitation of {self.email} to {self.tenant}"

    @property
    def sent_at(self) -> datetime:
        """When its link was mailed last."""
        return self.expires_at - INVITATION


class JoinRequest(models.Model):
    """Somebody who signed up where an admin approves: no member yet, so nothing is open."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="join_requests")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="join_requests")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_request")]

    def __str__(self) -> str:
        return f"{self.user} waits at {self.tenant}"
