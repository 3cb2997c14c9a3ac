"""Workers: evict one that is stuck."""

from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import eviction
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor, Source
from offsets.api.http import BadInputError, api_view, body_of, reason_of


@api_view("GET", "HEAD", "POST")
def evict(request: HttpRequest, worker_id: str) -> HttpResponse:
    """GET previews the eviction and what the worker owns; POST `{reason, seen: {owned}}` applies it."""
    if "\x00" in worker_id:
        raise UnknownWorkerError("Unknown worker.")
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        shown = eviction.preview(worker_id, actor)
        return JsonResponse(
            {"kind": eviction.KIND, "target": worker_id, "text": shown.text, "seen": {"owned": shown.owned}}
        )
    body = body_of(request)
    seen = body.get("seen")
    owned = seen.get("owned") if isinstance(seen, dict) else None
    if not isinstance(owned, list) or not all(type(checkpoint_id) is int for checkpoint_id in owned):
        raise BadInputError("`seen` must contain owned. Use that of the preview.")
    action = eviction.evict(worker_id, actor=actor, reason=reason_of(body), source=Source.API, owned=owned)
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})
