"""The page's HTTP interface to recovery: replays, dead letters, workers, incidents.

Each action is a GET that previews and a POST that does what was previewed. Always JSON, as in `analytics.api`.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from analytics.api import MAX_INTEGER, BadInputError, api_view, body_of, error_response, reason_of
from offsets.actions import dead_letters, eviction
from offsets.actions.dead_letters import DeadLetterFilter
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor, Source
from offsets.errors import RefusedError
from offsets.models import DeadLetter, Incident, Replay
from offsets.monitoring import incidents
from offsets.ranges import OffsetRange
from offsets.replays import acceptance, requests
from offsets.replays import rows as replay_rows
from offsets.replays.acceptance import Accepted
from offsets.replays.plans import checked_range
from offsets.replays.requests import Wanted
from offsets.tasks import dispatch_replay
from offsets.types import DeadLetterStatus

MAX_LISTED = 200
_KINDS = (dead_letters.REQUEUE, dead_letters.DISCARD, dead_letters.REOPEN)


# --- Replays --------------------------------------------------------------------------------------


@api_view("GET", "HEAD", "POST")
def replay_list(request: HttpRequest) -> HttpResponse:
    """The group's replays, newest first; with POST `{ranges, reason}` begin one."""
    if request.method != "POST":
        rows = Replay.objects.filter(group_id=settings.ENGAGEMENT_GROUP).order_by("-pk")[:MAX_LISTED]
        return JsonResponse({"items": [replay_rows.progress(row) for row in rows]})
    body = body_of(request)
    ranges = body.get("ranges")
    if not isinstance(ranges, list) or not all(isinstance(one, dict) for one in ranges):
        raise BadInputError("`ranges` must be a list of {checkpoint_id, start, end, to_count}.")
    wanted = [_wanted(one.get, whole=True) for one in ranges]
    limit = body.get("records_per_second")
    if limit is not None and (type(limit) is not int or not 0 < limit <= 2**31 - 1):
        raise BadInputError("`records_per_second` must be a whole number above 0, or absent.")
    replay = requests.begin(
        wanted,
        actor=Actor.of_user(request.user),
        reason=reason_of(body),
        source=Source.API,
        records_per_second=limit,
    )
    # A Redis that is away only delays it: the recovery manager sends it as well.
    dispatch_replay(replay.pk)
    return JsonResponse({"outcome": "applied", "replay_id": replay.pk, **replay_rows.progress(replay)})


@api_view("GET", "HEAD")
def replay_preview(request: HttpRequest) -> HttpResponse:
    """What replaying `[start, end)` of a checkpoint would do, and the `to_count` that the POST must repeat."""
    plan = requests.preview([_wanted(request.GET.get, whole=False)], Actor.of_user(request.user))[0]
    return JsonResponse({"kind": replay_rows.KIND, "target": plan.name, "text": plan.text, **plan.as_json()})


@api_view("GET", "HEAD")
def replay_detail(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = Replay.objects.filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"There is no replay {replay_id}.")
    ranges = [
        {
            "topic": one.checkpoint.topic,
            "partition": one.checkpoint.partition,
            "start": one.start,
            "end": one.end,
            "position": one.position,
            "state": one.state,
            "detail": one.detail,
        }
        for one in row.ranges.select_related("checkpoint").order_by("pk")[:MAX_LISTED]
    ]
    return JsonResponse({**replay_rows.progress(row), "ranges": ranges})


@api_view("GET", "HEAD", "POST")
def replay_cancel(request: HttpRequest, replay_id: int) -> HttpResponse:
    row = Replay.objects.filter(pk=min(replay_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"There is no replay {replay_id}.")
    if request.method != "POST":
        text = requests.preview_cancel(row.pk, Actor.of_user(request.user))
        return JsonResponse({"kind": requests.CANCEL, "target": f"replay {replay_id}", "text": text})
    reason = reason_of(body_of(request))
    done = requests.cancel(replay_id, actor=Actor.of_user(request.user), reason=reason, source=Source.API)
    return JsonResponse({"outcome": "applied", **replay_rows.progress(done)})


def _wanted(get: Callable[[str], Any], *, whole: bool) -> Wanted:
    """A range as the query or the body gives it; `whole`: with the number that the preview showed."""
    checkpoint_id, offsets = _place(get)
    return Wanted(checkpoint_id, offsets, _number("to_count", get("to_count")) if whole else None)


def _place(get: Callable[[str], Any]) -> tuple[int, OffsetRange]:
    checkpoint_id, start, end = (_number(name, get(name)) for name in ("checkpoint_id", "start", "end"))
    try:
        return checkpoint_id, checked_range(start, end)
    except RefusedError as error:
        raise BadInputError(str(error)) from error


def _number(name: str, value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return min(int(value), MAX_INTEGER)
    raise BadInputError(f"`{name}` must be a whole number from 0.")


def _word(name: str, value: str | None) -> str:
    """A filter's text. The path and the query may hold NUL; the database refuses it."""
    if "\x00" in (value or ""):
        raise BadInputError(f"`{name}` must not hold NUL.")
    return value or ""


@api_view("GET", "HEAD", "POST")
def accept_failed(request: HttpRequest) -> HttpResponse:
    """Accept that failed offsets are not counted: GET says how many, POST `{checkpoint_id, start, end, failed, reason}`
    does it.
    """
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        shown = acceptance.preview(_accepted(request.GET.get, None), actor)
        return JsonResponse(
            {"kind": acceptance.KIND, "target": shown.target, "text": shown.text, "failed": shown.failed}
        )
    body = body_of(request)
    wanted = _accepted(body.get, _number("failed", body.get("failed")))
    action = acceptance.accept_failed([wanted], actor=actor, reason=reason_of(body), source=Source.API)[0]
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})


def _accepted(get: Callable[[str], Any], seen: int | None) -> Accepted:
    return Accepted(*_place(get), seen)


# --- Dead letters ---------------------------------------------------------------------------------


@api_view("GET", "HEAD")
def letter_list(request: HttpRequest) -> HttpResponse:
    """Newest first, filtered by status, topic, partition and error_code; `before` is the last id of the page before."""
    chosen = _filter(request.GET.get)
    rows = chosen.rows().order_by("-pk")
    if before := request.GET.get("before"):
        rows = rows.filter(pk__lt=_number("before", before))
    return JsonResponse({"count": chosen.rows().count(), "items": dead_letters.listed(rows, MAX_LISTED)})


@api_view("GET", "HEAD")
def letter_detail(request: HttpRequest, letter_id: int) -> HttpResponse:
    row = DeadLetter.objects.select_related("checkpoint").filter(pk=min(letter_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"There is no dead letter {letter_id}.")
    return JsonResponse(dead_letters.as_json(row))


@api_view("GET", "HEAD", "POST")
def letters_act(request: HttpRequest, kind: str) -> HttpResponse:
    """Requeue, discard or reopen: GET says what it would do to `ids` or to what a filter matches; POST does it to
    exactly the `ids` that the preview gave.
    """
    if kind not in _KINDS:
        return error_response(
            404, f"There is no action {kind[:40]!r} on dead letters; use one of: {', '.join(_KINDS)}."
        )
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        shown = dead_letters.preview(kind, _filter(request.GET.get, reopen=kind == dead_letters.REOPEN), actor)
        return JsonResponse(
            {
                "kind": kind,
                "text": shown.text,
                "ids": shown.ids,
                "will_change": shown.will_change,
                "still_fail": shown.still_fail,
                "reasons": shown.reasons,
            }
        )
    body = body_of(request)
    ids = body.get("ids")
    if not isinstance(ids, list) or not ids or not all(type(one) is int and 0 < one <= MAX_INTEGER for one in ids):
        raise BadInputError("`ids` must be a list of dead letters' ids, as the preview gave them.")
    done = dead_letters.resolve(kind, tuple(ids), actor=actor, reason=reason_of(body), source=Source.API)
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
    ids = [_number("ids", part) for part in (get("ids") or "").split(",") if part]
    status = get("status") or (DeadLetterStatus.DISCARDED if reopen else DeadLetterStatus.PENDING)
    if status not in [*DeadLetterStatus, "all"]:
        raise BadInputError(f"`status` must be one of: {', '.join(DeadLetterStatus)}, all.")
    return DeadLetterFilter(
        settings.ENGAGEMENT_GROUP,
        _word("topic", get("topic")),
        None if partition in (None, "") else min(_number("partition", partition), 2**31 - 1),
        _word("error_code", get("error_code")),
        "" if status == "all" else status,
        tuple(ids),
    )


# --- Workers and incidents ------------------------------------------------------------------------


@api_view("GET", "HEAD", "POST")
def evict(request: HttpRequest, worker_id: str) -> HttpResponse:
    """What evicting a worker would do, and what it owns; with POST `{reason, owned}` do it."""
    if "\x00" in worker_id:
        raise UnknownWorkerError("There is no worker of this name.")
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        shown = eviction.preview(worker_id, actor)
        return JsonResponse(
            {"kind": eviction.KIND, "target": worker_id, "text": shown.text, "seen": {"owned": shown.owned}}
        )
    body = body_of(request)
    seen = body.get("seen")
    owned = seen.get("owned") if isinstance(seen, dict) else None
    if not isinstance(owned, list) or not all(type(one) is int for one in owned):
        raise BadInputError("`seen` must hold owned, as the preview gave it.")
    action = eviction.evict(worker_id, actor=actor, reason=reason_of(body), source=Source.API, owned=owned)
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})


@api_view("GET", "HEAD")
def incident_detail(request: HttpRequest, incident_id: int) -> HttpResponse:
    """An incident whole: its ranges, what was seen, its timeline and who was told."""
    row = Incident.objects.filter(pk=min(incident_id, MAX_INTEGER)).first()
    if row is None:
        return error_response(404, f"There is no incident {incident_id}.")
    return JsonResponse(incidents.as_json(row))
