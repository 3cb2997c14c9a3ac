"""Dead letters: list, inspect, requeue, discard, reopen."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import dead_letters
from offsets.actions.dead_letter_listing import DeadLetterFilter, as_json, listed
from offsets.actions.guards import Actor, UnknownPartitionError
from offsets.api.http import (
    MAX_INTEGER,
    MAX_LISTED,
    BadInputError,
    api_view,
    body_of,
    error_response,
    number_of,
    request_of,
    word_of,
)
from offsets.models import DeadLetter
from offsets.types import DeadLetterStatus

_KINDS = (dead_letters.REQUEUE, dead_letters.DISCARD, dead_letters.REOPEN)


def _own() -> "QuerySet[DeadLetter]":
    return DeadLetter.objects.filter(checkpoint__group_id=settings.ENGAGEMENT_GROUP)


@api_view("GET", "HEAD")
def dead_letter_list(request: HttpRequest) -> HttpResponse:
    """Newest first, filtered by status, topic, partition and error_code; `before` is the last id of the page before."""
    chosen = _filter(request.GET.get)
    rows = chosen.rows().order_by("-pk")
    if before := request.GET.get("before"):
        rows = rows.filter(pk__lt=number_of("before", before))
    return JsonResponse({"count": chosen.rows().count(), "items": listed(rows, MAX_LISTED)})


@api_view("GET", "HEAD")
def dead_letter_detail(request: HttpRequest, dead_letter_id: int) -> HttpResponse:
    row = _own().select_related("checkpoint").filter(pk=min(dead_letter_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"Unknown dead letter {dead_letter_id}.")
    return JsonResponse(as_json(row))


@api_view("GET", "HEAD", "POST")
def dead_letters_act(request: HttpRequest, kind: str) -> HttpResponse:
    """Requeue, discard or reopen: GET says what it would do to `ids` or to what a filter matches; POST does it to
    exactly the `ids` that the preview gave.
    """
    if kind not in _KINDS:
        return error_response(404, f"Unknown action {kind[:40]!r} on dead letters. Use one of: {', '.join(_KINDS)}.")
    if request.method != "POST":
        chosen = _filter(request.GET.get, reopen=kind == dead_letters.REOPEN)
        shown = dead_letters.preview(kind, chosen, Actor.of_user(request.user))
        return JsonResponse(shown.as_json())
    body = body_of(request)
    ids = body.get("ids")
    if not isinstance(ids, list) or not ids or not all(type(pk) is int and 0 < pk <= MAX_INTEGER for pk in ids):
        raise BadInputError("`ids` must be a list of dead letters' ids, as the preview gave them.")
    # No more than an action takes are looked up; it refuses the rest.
    named = DeadLetter.objects.filter(pk__in=ids[: dead_letters.MAX_DEAD_LETTERS])
    if named.exclude(checkpoint__group_id=settings.ENGAGEMENT_GROUP).exists():
        raise UnknownPartitionError("Some of these dead letters belong to another group. Refresh the preview.")
    done = dead_letters.resolve(kind, tuple(ids), request_of(request, body))
    return JsonResponse(
        {
            "outcome": "applied",
            "action_id": done.action.pk,
            "changed": done.changed,
            "still_fail": done.still_fail,
            "reasons": done.reasons,
        }
    )


def _filter(get: Callable[[str], Any], *, reopen: bool = False) -> DeadLetterFilter:
    partition = get("partition")
    ids = [number_of("ids", part) for part in (get("ids") or "").split(",") if part]
    status = get("status") or (DeadLetterStatus.DISCARDED if reopen else DeadLetterStatus.PENDING)
    if status not in [*DeadLetterStatus, "all"]:
        raise BadInputError(f"`status` must be one of: {', '.join(DeadLetterStatus)}, all.")
    return DeadLetterFilter(
        settings.ENGAGEMENT_GROUP,
        word_of("topic", get("topic")),
        None if partition in (None, "") else min(number_of("partition", partition), 2**31 - 1),
        word_of("error_code", get("error_code")),
        "" if status == "all" else status,
        tuple(ids),
    )
