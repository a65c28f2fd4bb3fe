"""How `manage.py doctor` asks a running portal, wherever it stands, what it sees: both sides prove that they hold SECRET_KEY.

Strangers, who cannot sign a question, get the page for what is not there.
"""

import contextlib
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

PATH = "/_portal/doctor"
HEADER = "X-Gatehouse-Doctor"
GOOD_FOR = timedelta(minutes=5)  # a question; the two machines may have different clocks
_QUESTION, _ANSWER = "gatehouse.doctor.question", "gatehouse.doctor.answer"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the portal saw of one question. address: "" if it came over a local socket without a proxy's word.

    machine: as `this_machine` there says; "" of a release that did not say it.
    """

    nonce: str
    host: str
    address: str
    scheme: str
    release: str
    at: str
    machine: str = ""

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.at)


@lru_cache(maxsize=1)
def this_machine() -> str:
    """Tells machines that hold the same keys apart, without telling their id; "" where there is none."""
    with contextlib.suppress(OSError):
        return salted_hmac("gatehouse.doctor.machine", Path("/etc/machine-id").read_text().strip(), algorithm="sha256").hexdigest()[:16]
    return ""


def question() -> tuple[str, str]:
    """A nonce, and the value of HEADER that asks with it."""
    nonce = secrets.token_hex(16)
    return nonce, signing.dumps(nonce, salt=_QUESTION)


def answer(request: HttpRequest) -> str | None:
    """The signed answer to a question; None for whoever asks without the key."""
    try:
        nonce = signing.loads(request.headers.get(HEADER, ""), salt=_QUESTION, max_age=GOOD_FOR)
    except signing.BadSignature:
        return None
    seen = Seen(
        nonce=nonce,
        host=getattr(request, "host", ""),
        address=request.META.get("REMOTE_ADDR") or "",
        scheme=request.scheme or "",
        release=settings.RELEASE,
        at=timezone.now().isoformat(),
        machine=this_machine(),
    )
    return signing.dumps(asdict(seen), salt=_ANSWER)


def read(text: str, nonce: str) -> Seen | None:
    """What a portal of ours answered to this nonce; None if it was somebody else."""
    try:
        told: dict[str, Any] = signing.loads(text.strip(), salt=_ANSWER, max_age=GOOD_FOR)
        seen = Seen(**told)
    except (signing.BadSignature, TypeError):
        return None
    return seen if secrets.compare_digest(seen.nonce, nonce) else None
