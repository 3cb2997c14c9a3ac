"""Undo, health, and the answer at unknown addresses."""

import threading

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from offsets import clock
from offsets.actions import undo
from offsets.actions.guards import Actor
from offsets.api.http import api_view, body_of, error_response, outcome_of, request_of
from offsets.database import DATABASE_LOST

HEALTH_SECONDS = 1.0


@api_view("GET", "HEAD", "POST")
def undo_action(request: HttpRequest, action_id: int) -> HttpResponse:
    """What undoing an action would do; with POST and a reason, undo it."""
    undone = undo.find(str(action_id), settings.ENGAGEMENT_GROUP)
    if request.method != "POST":
        return JsonResponse({"action_id": action_id, "texts": undo.texts(undone, Actor.of_user(request.user))})
    done = undo.undo(undone, request_of(request, body_of(request)))
    return JsonResponse(outcome_of(done[0]))


@api_view("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
def not_found(request: HttpRequest) -> HttpResponse:
    """Any other path below /api/: an answer in JSON there too."""
    return error_response(404, "Not found.")


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process answers and reaches its database. Needs no login, so it says nothing else.

    The database is asked at most once a second, however often this is.
    """
    if health.reachable():
        return JsonResponse({"status": "ok", "database": "ok"})
    return JsonResponse({"status": "error", "database": "unavailable"}, status=503)


class Health:
    """This process's last answer of the database, kept for HEALTH_SECONDS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reachable = False
        self._until = float("-inf")

    def reachable(self) -> bool:
        with self._lock:
            if clock.monotonic() >= self._until:
                self._reachable = _answers()
                self._until = clock.monotonic() + HEALTH_SECONDS
            return self._reachable

    def forget(self) -> None:
        self._until = float("-inf")


health = Health()


def _answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DATABASE_LOST:
        return False
    return True
