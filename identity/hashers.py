"""How passwords are kept."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2id(Argon2PasswordHasher):
    """Argon2id with OWASP's second recommendation (19 MiB, two passes, one lane). ASVS 11.4.2.

    Chosen over Django's 100 MiB: a sign-in costs 20 ms instead of 110, so a burst of them cannot take the memory and
    the processors from everybody's session checks, and the ledger, not the hash, is what stops an online guesser.
    """

    time_cost = 2
    memory_cost = 19 * 1024
    parallelism = 1
