"""What strangers ask for and is answered by mail, if at all: the request writes one row, whoever is meant, and a chore finds out later.

So nobody learns from an answer, its time or its work who has an account. ASVS 6.3.8.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction

from identity import clock, crypto, mails
from identity.models import Mail, User
from tenants.models import Tenant

AGAIN = timedelta(minutes=1)  # after that another worker takes a row whose worker died
OVER = timedelta(hours=1)  # nobody waits for such an answer any longer
Work = Callable[[Mail, dict[str, Any]], bool]


def note(kind: str, *, user: User | None = None, tenant: Tenant | None = None, **said: str | None) -> None:
    """Write down what was asked, encrypted, in the caller's transaction."""
    now = clock.now()
    with transaction.atomic():
        row = Mail(kind=kind, user=user, tenant=tenant, created_at=now, due_at=now)
        row.save()
        row.body = crypto.encrypt(json.dumps(said), mails.place(row.pk))
        row.save(update_fields=["body"])


def answer(kind: str, work: Work, limit: int) -> int:
    """Give each row to `work`, once and in a transaction with its end. Returns how often it said that a mail came of it.

    A row that breaks `work` is taken up again a minute later and keeps no other from its turn.
    """
    queued = 0
    now = clock.now()
    for row in Mail.objects.filter(kind=kind, due_at__lte=now).select_related("tenant", "user").order_by("due_at", "pk")[:limit]:
        if not Mail.objects.filter(pk=row.pk, due_at=row.due_at).update(due_at=now + AGAIN):
            continue  # another worker was first
        with transaction.atomic():
            if not Mail.objects.filter(pk=row.pk).delete()[0]:
                continue
            said = _said(row)
            if said is not None and row.created_at > now - OVER:
                queued += work(row, said)
    return queued


def _said(row: Mail) -> dict[str, Any] | None:
    """None if the key is gone: whoever asked asks again."""
    try:
        said: dict[str, Any] = json.loads(crypto.decrypt(row.body, mails.place(row.pk)))
    except crypto.Undecipherable:
        return None
    return said


def drop(kind: str, user: User) -> None:
    """Forget what a person has asked and no worker has taken up yet."""
    Mail.objects.filter(kind=kind, user=user).delete()
