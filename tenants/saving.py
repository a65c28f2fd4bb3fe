"""How a thing is saved that people have filled in."""

from django.db import models


def save_checked(thing: models.Model) -> None:
    """Save what passes its own checks, else ValidationError. `full_clean`, step by step: the first error that speaks is enough."""
    for check in (thing.clean_fields, thing.clean, thing.validate_unique, thing.validate_constraints):
        check()
    thing.save()
