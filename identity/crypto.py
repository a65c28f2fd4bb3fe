"""Encryption at rest: AES-256-GCM under ENCRYPTION_KEYS, the key's id in front of the ciphertext.

The first key encrypts, every key decrypts, `manage.py rekey` moves old ciphertexts to the first. ASVS 11.2.2, 11.3.2, 11.3.3.
"""

import base64
import binascii
import hashlib
import hmac
import os
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class Undecipherable(Exception):
    """The text was not made by us, not for this place, or under a key that is gone."""


def digest(secret: str) -> str:
    """What is stored in place of a random secret. Plain SHA-256 is enough: 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


@cache
def _ring(keys: tuple[str, ...]) -> dict[str, bytes]:
    ring = {}
    for text in keys:
        try:
            key = base64.urlsafe_b64decode(text)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ImproperlyConfigured(
                "ENCRYPTION_KEYS holds keys of 32 bytes in URL-safe base64, separated by commas. Make one with: "
                "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
            )
        ring[hashlib.sha256(key).hexdigest()[:8]] = key
    if not ring:
        raise ImproperlyConfigured("ENCRYPTION_KEYS is empty.")
    return ring


def _keys() -> dict[str, bytes]:
    return _ring(tuple(settings.ENCRYPTION_KEYS))


def current_key_id() -> str:
    """Eight hex digits: the id of the key that encrypts."""
    return next(iter(_keys()))


def key_ids() -> list[str]:
    """The ids of all keys that there are, the one that encrypts first."""
    return list(_keys())


def mac_key(key_id: str, purpose: str) -> bytes:
    """32 bytes for one purpose, derived from the named key. Raises Undecipherable if that key is gone."""
    key = _keys().get(key_id)
    if key is None:
        raise Undecipherable(f"key {key_id} is not in ENCRYPTION_KEYS")
    return hmac.digest(key, f"gatehouse {purpose}".encode(), "sha256")


def encrypt(plain: str, purpose: str) -> str:
    """Ciphertext as `<key id>.<base64 of nonce and ciphertext>`.

    purpose binds it to its place (such as "session:<id>"): moved to another row, it does not decrypt.
    """
    key_id, key = next(iter(_keys().items()))
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, plain.encode(), purpose.encode())
    return f"{key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def decrypt(text: str, purpose: str) -> str:
    """The plain text, or Undecipherable."""
    key_id, _dot, rest = text.partition(".")
    key = _keys().get(key_id)
    if key is None:
        raise Undecipherable("under a key that is not in ENCRYPTION_KEYS")
    try:
        raw = base64.urlsafe_b64decode(rest)
        return AESGCM(key).decrypt(raw[:12], raw[12:], purpose.encode()).decode()
    except (InvalidTag, binascii.Error, ValueError):
        raise Undecipherable("damaged, or made for another place") from None
