"""Workers: evict one that is stuck."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import eviction
from offsets.actions.eviction import UnknownWorkerError
from offsets.actions.guards import Actor
from offsets.api.http import BadInputError, api_view, body_of, request_of
from offsets.models import Worker


@api_view("GET", "HEAD", "POST")
def evict(request: HttpRequest, worker_id: str) -> HttpResponse:
    """What evicting a worker would do, and what it owns; with POST `{reason, owned}` do it."""
    if "\x00" in worker_id:
        raise UnknownWorkerError("Unknown worker.")
    if Worker.objects.filter(pk=worker_id).exclude(group_id=settings.ENGAGEMENT_GROUP).exists():
        raise UnknownWorkerError(f"Unknown worker {worker_id}.")
    if request.method != "POST":
        return JsonResponse(eviction.preview(worker_id, Actor.of_user(request.user)).as_json())
    body = body_of(request)
    seen = body.get("seen")
    owned = seen.get("owned") if isinstance(seen, dict) else None
    if not isinstance(owned, list) or not all(type(pk) is int for pk in owned):
        raise BadInputError("`seen` must hold owned, as the preview gave it.")
    action = eviction.evict(worker_id, request_of(request, body), owned=owned)
    return JsonResponse({"outcome": "applied", "action_id": action.pk, "detail": action.detail})
