"""Topics: retire all partitions of one, or of the whole group."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import retire
from offsets.actions.guards import Actor, Seen, UnknownPartitionError
from offsets.api.http import MAX_INTEGER, BadInputError, api_view, body_of, request_of, seen_of, word_of
from offsets.models import PartitionCheckpoint
from offsets.text import whole_number


@api_view("GET", "HEAD", "POST")
def retire_topic(request: HttpRequest) -> HttpResponse:
    """What retiring the partitions of `topic` would do, without one those of the group; with POST `{reason, seen}`
    retire exactly the partitions that the preview gave.
    """
    if request.method != "POST":
        return JsonResponse(_preview(word_of("topic", request.GET.get("topic")), Actor.of_user(request.user)))
    body = body_of(request)
    done = retire.retire(settings.ENGAGEMENT_GROUP, _all_seen(body.get("seen")), request_of(request, body))
    detail = " ".join(action.detail for action in done)
    return JsonResponse(
        {"outcome": "applied", "action_id": done[0].pk, "change_id": str(done[0].change_id), "detail": detail}
    )


def _preview(topic: str, actor: Actor) -> dict[str, Any]:
    rows = PartitionCheckpoint.objects.live(settings.ENGAGEMENT_GROUP).order_by("topic", "partition")
    chosen = list(rows.filter(topic=topic) if topic else rows)
    if not chosen and actor.allowed:
        raise UnknownPartitionError(
            f"The group {settings.ENGAGEMENT_GROUP!r} has no partitions of {topic or 'any topic'}."
        )
    previews = retire.preview(chosen, actor)
    return {
        "kind": retire.KIND,
        "target": topic or settings.ENGAGEMENT_GROUP,
        "text": retire.summary(previews),
        "items": [shown.as_json() for shown in previews],
        "seen": {str(shown.checkpoint_id): shown.as_json()["seen"] for shown in previews},
    }


def _all_seen(value: Any) -> dict[int, Seen]:
    if not isinstance(value, dict) or not value:
        raise BadInputError("`seen` must hold the partitions, as the preview gave them.")
    seen = {}
    for key, each in value.items():
        checkpoint_id = whole_number(key, maximum=MAX_INTEGER)
        if checkpoint_id is None:
            raise BadInputError(f"`seen` must be keyed by checkpoint_id, not {key[:40]!r}.")
        seen[checkpoint_id] = seen_of(each)
    return seen
