"""What becomes mail without a request: by the server's worker, or by `manage.py mail send` where a timer takes its place."""

import logging
from collections.abc import Callable

from identity import addresses, forgotten, warnings

log = logging.getLogger("gatehouse.mails")
# Each takes how much it may do at the most, and returns how many mails it queued.
BEFORE_MAIL: dict[str, Callable[..., int]] = {
    "asked": forgotten.answer_asked,
    "addresses": addresses.answer_asked,
    "locked": warnings.tell_locked,
}


def queue_all(limit: int) -> list[str]:
    """Do each once; none keeps the others from their turn. Returns the names of those that failed: the log says why."""
    failed = []
    for name, work in BEFORE_MAIL.items():
        try:
            work(limit)
        except Exception:
            log.exception("The chore “%s” failed; the next run tries again.", name)
            failed.append(name)
    return failed
