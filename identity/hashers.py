"""How passwords are kept."""

import os
import threading

from argon2.low_level import Type, hash_secret_raw
from django.contrib.auth.hashers import Argon2PasswordHasher

SMALLEST = 8  # KiB; Argon2 takes no less for one lane
# More hashes at once than processors only make each slower and take memory. Real and pretended checks queue in one line.
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)


class Argon2id(Argon2PasswordHasher):
    """Argon2id with OWASP's second recommendation (19 MiB, two passes, one lane). ASVS 11.4.2.

    Chosen over Django's 100 MiB: a sign-in costs 20 ms instead of 110, so a burst of them cannot take the memory and
    the processors from everybody's session checks, and the ledger, not the hash, is what stops an online guesser.
    """

    time_cost = 2
    memory_cost = 19 * 1024
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        with _slots:
            text: str = super().encode(password, salt)
        return text

    def verify(self, password: str, encoded: str) -> bool:
        with _slots:
            right = bool(super().verify(password, encoded))
            if not right:
                self._do_the_rest(password, encoded)
        return right

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Done by `verify`: to queue a second time would tell what this is there to hide."""

    def _do_the_rest(self, password: str, encoded: str) -> None:
        """Make a wrong password cost as much against an older, cheaper hash as against one of today (ASVS 6.3.8).

        Else the time of a refusal would tell that a name exists and has not signed in since the parameters grew. Argon2's time
        goes with passes x memory, a little more for more memory. What is missing is done at once, in one pass; that comes within
        2 % of today's hash. An older hash that is dearer stays slower until its owner signs in: nothing can be taken back from it.
        """
        old = self.decode(encoded)["params"]
        missing = int((_cost(self.time_cost, self.memory_cost) - _cost(old.time_cost, old.memory_cost)) / _cost(1, 1))
        if missing > SMALLEST:
            hash_secret_raw(password.encode(), b"0" * 16, time_cost=1, memory_cost=missing, parallelism=1, hash_len=32, type=Type.ID)


def _cost(passes: int, memory: int) -> float:
    """What a hash costs, in passes over one KiB. The fraction is measured, for what grows with the memory and not with the passes."""
    return (passes + 0.05) * memory
