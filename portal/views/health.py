"""Is the process up, and can it work? Asked by proxies and upgrades; no session, no row."""

import logging

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from identity import checkup, events

log = logging.getLogger(__name__)


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. Asks nothing of the database."""
    return JsonResponse({"status": "ok", **_release(request)})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The database answers and every migration is applied; else 503 and the reason in the log."""
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        log.error("readyz: the database does not answer: %s", error)
        return JsonResponse({"status": "database"}, status=503)
    if waiting:
        log.error("readyz: %d migrations are not applied. Run: manage.py migrate", len(waiting))
        return JsonResponse({"status": "migrations"}, status=503)
    return JsonResponse({"status": "ready", **_release(request)})


def _release(request: HttpRequest) -> dict[str, str]:
    """Which release answers, for upgrade.sh, which asks on this machine. Strangers learn no version. ASVS 13.4.6."""
    return {"release": settings.RELEASE} if events.address(request) in {None, "127.0.0.1", "::1"} else {}


@require_safe
def doctor(request: HttpRequest) -> HttpResponse:
    """What this portal sees of a question of `manage.py doctor`. For everybody else there is nothing here."""
    answer = checkup.answer(request)
    if answer is None:
        raise Http404
    return HttpResponse(answer, content_type="text/plain; charset=utf-8")
