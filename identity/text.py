"""Foreign text, made fit for a record."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str, limit: int = 300) -> str:
    """Control and direction characters and half surrogates out, cut at `limit` characters. ASVS 1.3.3, 16.4.1."""
    return _CONTROL.sub("", text)[:limit]
