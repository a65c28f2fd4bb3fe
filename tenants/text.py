"""Foreign text: what of it is fit for a record, and what no field takes."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str, limit: int = 300) -> str:
    """Control and direction characters and half surrogates out, cut at `limit` characters. ASVS 1.3.3, 16.4.1."""
    return _CONTROL.sub("", text)[:limit]


def is_plain(text: str) -> bool:
    """Whether a text has none of these characters, line ends and tabs aside."""
    return not _CONTROL.search(text.replace("\n", "").replace("\r", "").replace("\t", ""))


def is_storable(text: str) -> bool:
    """Whether a database takes a text: no NUL, no half surrogate."""
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
