"""Undo, health, and the answer for unknown paths."""

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from offsets.actions import undo
from offsets.actions.guards import Actor, Source
from offsets.api.http import api_view, body_of, error_response, outcome_of, reason_of
from offsets.database import DATABASE_LOST


@api_view("GET", "HEAD", "POST")
def undo_action(request: HttpRequest, action_id: int) -> HttpResponse:
    """GET previews the undo of an action; POST with a reason applies it."""
    actor = Actor.of_user(request.user)
    undone = undo.find(str(action_id))
    if request.method != "POST":
        return JsonResponse({"action_id": action_id, "texts": undo.texts(undone, actor)})
    done = undo.undo(undone, actor=actor, reason=reason_of(body_of(request)), source=Source.API)
    return JsonResponse(outcome_of(done[0]))


@api_view("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
def not_found(request: HttpRequest) -> HttpResponse:
    """Answer any other path below /api/ in JSON too."""
    return error_response(404, "Unknown path.")


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process can reach its database. It says nothing else, because it needs no login."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DATABASE_LOST:
        return JsonResponse({"status": "error", "database": "unavailable"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})
