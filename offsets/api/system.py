"""Undo, health, and the answers at unknown addresses and to errors outside of the API."""

import sys

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template import loader
from django.views import defaults
from django.views.decorators.cache import never_cache

from offsets.actions import undo
from offsets.actions.guards import Actor
from offsets.api.http import (
    RETRY_AFTER_SECONDS,
    api_view,
    body_of,
    database_unavailable,
    error_response,
    outcome_of,
    request_of,
)
from offsets.database import DATABASE_LOST, outage_for_visitors


@api_view("GET", "HEAD", "POST")
def undo_action(request: HttpRequest, action_id: int) -> HttpResponse:
    """What undoing an action would do; with POST and a reason, undo it."""
    undone = undo.find(str(action_id))
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
    """Whether this process is ready: it answers, and its database takes writes. Needs no login, so it says no more."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_read_only')::bool")
            (read_only,) = cursor.fetchone()
    except DATABASE_LOST:
        return JsonResponse({"status": "error", "database": "unavailable"}, status=503)
    if read_only:
        return JsonResponse({"status": "error", "database": "read_only"}, status=503)
    return JsonResponse({"status": "ok", "database": "ok"})


@never_cache
def livez(request: HttpRequest) -> HttpResponse:
    """Whether this process answers. It asks no service: a restart brings none of them back."""
    return JsonResponse({"status": "ok"})


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler of an exception outside of `api_view`: in a page, the admin, a middleware."""
    error = sys.exc_info()[1]
    if not isinstance(error, DATABASE_LOST):
        return defaults.server_error(request)
    if request.path_info.startswith("/api/"):
        return database_unavailable(error)
    page = loader.get_template("503.html").render({"what": outage_for_visitors(error)})
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
