"""Replays, and failed offsets that are accepted: a GET previews, a POST does what was previewed."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions.guards import Actor
from offsets.api.http import (
    MAX_INTEGER,
    MAX_LISTED,
    BadInputError,
    api_view,
    body_of,
    check_own,
    error_response,
    number_of,
    place_of,
    request_of,
)
from offsets.models import Replay
from offsets.replays import acceptance, requests
from offsets.replays import rows as replay_rows
from offsets.replays.acceptance import Accepted
from offsets.replays.plans import Wanted
from offsets.tasks import dispatch_replay


def _own() -> "QuerySet[Replay]":
    return Replay.objects.filter(group_id=settings.ENGAGEMENT_GROUP)


@api_view("GET", "HEAD", "POST")
def replay_list(request: HttpRequest) -> HttpResponse:
    """The group's replays, newest first; with POST `{ranges, reason}` begin span."""
    if request.method != "POST":
        rows = _own().order_by("-pk")[:MAX_LISTED]
        return JsonResponse({"items": [replay_rows.progress(row) for row in rows]})
    body = body_of(request)
    ranges = body.get("ranges")
    if not isinstance(ranges, list) or not all(isinstance(span, dict) for span in ranges):
        raise BadInputError("`ranges` must be a list of {checkpoint_id, start, end, to_count}.")
    wanted = [_wanted(span.get, whole=True) for span in ranges]
    check_own({span.checkpoint_id for span in wanted})
    limit = body.get("records_per_second")
    if limit is not None and (type(limit) is not int or not 0 < limit <= 2**31 - 1):
        raise BadInputError("`records_per_second` must be a whole number above 0, or absent.")
    replay = requests.begin(
        wanted,
        request_of(request, body),
        records_per_second=limit,
    )
    # Without Redis it is only delayed: the recovery manager dispatches it, too.
    dispatch_replay(replay.pk)
    return JsonResponse({"outcome": "applied", "replay_id": replay.pk, **replay_rows.progress(replay)})


@api_view("GET", "HEAD")
def replay_preview(request: HttpRequest) -> HttpResponse:
    """What replaying `[start, end)` of a checkpoint would do, and the `to_count` that the POST must repeat."""
    wanted = _wanted(request.GET.get, whole=False)
    check_own([wanted.checkpoint_id])
    plan = requests.preview([wanted], Actor.of_user(request.user))[0]
    return JsonResponse({"kind": replay_rows.KIND, "target": plan.name, "text": plan.text, **plan.as_json()})


@api_view("GET", "HEAD")
def replay_detail(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = _own().filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"Unknown replay {replay_id}.")
    ranges = [
        {
            "topic": span.checkpoint.topic,
            "partition": span.checkpoint.partition,
            "start": span.start,
            "end": span.end,
            "position": span.position,
            "state": span.state,
            "detail": span.detail,
        }
        for span in row.ranges.select_related("checkpoint").order_by("pk")[:MAX_LISTED]
    ]
    return JsonResponse({**replay_rows.progress(row), "ranges": ranges})


@api_view("GET", "HEAD", "POST")
def replay_cancel(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = _own().filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"Unknown replay {replay_id}.")
    if request.method != "POST":
        return JsonResponse(requests.preview_cancel(row.pk, Actor.of_user(request.user)).as_json())
    done = requests.cancel(replay_id, request_of(request, body_of(request)))
    return JsonResponse({"outcome": "applied", **replay_rows.progress(done)})


def _wanted(get: Callable[[str], Any], *, whole: bool) -> Wanted:
    """A range as the query or the body gives it; `whole`: with the number that the preview showed."""
    checkpoint_id, offsets = place_of(get)
    return Wanted(checkpoint_id, offsets, number_of("to_count", get("to_count")) if whole else None)


@api_view("GET", "HEAD", "POST")
def accept_failed(request: HttpRequest) -> HttpResponse:
    """Accept that failed offsets are not counted: GET says how many, POST `{checkpoint_id, start, end, failed, reason}`
    does it.
    """
    if request.method != "POST":
        wanted = _accepted(request.GET.get, None)
        return JsonResponse(acceptance.preview(wanted, Actor.of_user(request.user)).as_json())
    body = body_of(request)
    wanted = _accepted(body.get, number_of("failed", body.get("failed")))
    action = acceptance.accept_failed([wanted], request_of(request, body))[0]
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})


def _accepted(get: Callable[[str], Any], seen: int | None) -> Accepted:
    accepted = Accepted(*place_of(get), seen)
    check_own([accepted.checkpoint_id])
    return accepted
