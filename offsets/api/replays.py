"""Replays, and accepting failed offsets: a GET previews, a POST applies."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions.guards import Actor, Source
from offsets.api.http import (
    MAX_INTEGER,
    MAX_LISTED,
    BadInputError,
    api_view,
    body_of,
    error_response,
    number_of,
    place_of,
    reason_of,
)
from offsets.models import Replay
from offsets.replays import acceptance, requests
from offsets.replays import rows as replay_rows
from offsets.replays.acceptance import Accepted
from offsets.replays.plans import Wanted
from offsets.tasks import dispatch_replay


@api_view("GET", "HEAD", "POST")
def replay_list(request: HttpRequest) -> HttpResponse:
    """GET lists the group's replays, newest first. POST `{ranges, reason}` starts one."""
    if request.method != "POST":
        rows = Replay.objects.filter(group_id=settings.ENGAGEMENT_GROUP).order_by("-pk")[:MAX_LISTED]
        return JsonResponse({"items": [replay_rows.progress(row) for row in rows]})
    body = body_of(request)
    ranges = body.get("ranges")
    if not isinstance(ranges, list) or not all(isinstance(fields, dict) for fields in ranges):
        raise BadInputError("`ranges` must be a list of {checkpoint_id, start, end, to_count}.")
    wanted = [_wanted(fields.get, whole=True) for fields in ranges]
    limit = body.get("records_per_second")
    if limit is not None and (type(limit) is not int or not 0 < limit <= 2**31 - 1):
        raise BadInputError("`records_per_second` must be a whole number from 1. Omit it for no limit.")
    replay = requests.begin(
        wanted,
        actor=Actor.of_user(request.user),
        reason=reason_of(body),
        source=Source.API,
        records_per_second=limit,
    )
    # If Redis is unavailable, the recovery manager dispatches the replay later.
    dispatch_replay(replay.pk)
    return JsonResponse({"outcome": "applied", "replay_id": replay.pk, **replay_rows.progress(replay)})


@api_view("GET", "HEAD")
def replay_preview(request: HttpRequest) -> HttpResponse:
    """What replaying `[start, end)` of a checkpoint will do, and the `to_count` that the POST must repeat."""
    plan = requests.preview([_wanted(request.GET.get, whole=False)], Actor.of_user(request.user))[0]
    return JsonResponse({"kind": replay_rows.KIND, "target": plan.name, "text": plan.text, **plan.as_json()})


@api_view("GET", "HEAD")
def replay_detail(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = Replay.objects.filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"Unknown replay {replay_id}.")
    ranges = [
        {
            "topic": part.checkpoint.topic,
            "partition": part.checkpoint.partition,
            "start": part.start,
            "end": part.end,
            "position": part.position,
            "state": part.state,
            "detail": part.detail,
        }
        for part in row.ranges.select_related("checkpoint").order_by("pk")[:MAX_LISTED]
    ]
    return JsonResponse({**replay_rows.progress(row), "ranges": ranges})


@api_view("GET", "HEAD", "POST")
def replay_cancel(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = Replay.objects.filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"Unknown replay {replay_id}.")
    if request.method != "POST":
        text = requests.preview_cancel(row.pk, Actor.of_user(request.user))
        return JsonResponse({"kind": requests.CANCEL, "target": f"replay {replay_id}", "text": text})
    reason = reason_of(body_of(request))
    done = requests.cancel(replay_id, actor=Actor.of_user(request.user), reason=reason, source=Source.API)
    return JsonResponse({"outcome": "applied", **replay_rows.progress(done)})


def _wanted(get: Callable[[str], Any], *, whole: bool) -> Wanted:
    """Parse a range of the query or body. `whole`: it must have the preview's `to_count`."""
    checkpoint_id, offsets = place_of(get)
    return Wanted(checkpoint_id, offsets, number_of("to_count", get("to_count")) if whole else None)


@api_view("GET", "HEAD", "POST")
def accept_failed(request: HttpRequest) -> HttpResponse:
    """Record failed offsets as skipped. GET previews how many; POST `{checkpoint_id, start, end, failed, reason}`
    applies it.
    """
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        shown = acceptance.preview(_accepted(request.GET.get, None), actor)
        return JsonResponse(
            {"kind": acceptance.KIND, "target": shown.target, "text": shown.text, "failed": shown.failed}
        )
    body = body_of(request)
    wanted = _accepted(body.get, number_of("failed", body.get("failed")))
    action = acceptance.accept_failed([wanted], actor=actor, reason=reason_of(body), source=Source.API)[0]
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})


def _accepted(get: Callable[[str], Any], seen: int | None) -> Accepted:
    return Accepted(*place_of(get), seen)
