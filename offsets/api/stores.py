"""Reconcile another store with the ledger, for one partition."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import reconcile
from offsets.actions.guards import Actor
from offsets.api.http import BadInputError, api_view, body_of, error_response, own_checkpoint, request_of

_STORES = ("kafka", "redis", "file")


@api_view("GET", "HEAD", "POST")
def reconcile_store(request: HttpRequest, checkpoint_id: int, store: str) -> HttpResponse:
    """What would be written to the store, and the `stored` that the POST `{reason, stored}` must repeat."""
    if store not in _STORES:
        return error_response(404, f"Unknown store {store[:40]!r}. Use one of: {', '.join(_STORES)}.")
    actor, checkpoint_id = Actor.of_user(request.user), own_checkpoint(checkpoint_id)
    if request.method != "POST":
        return JsonResponse(reconcile.preview(settings.ENGAGEMENT_GROUP, store, checkpoint_id, actor).as_json())
    body = body_of(request)
    stored = body.get("stored")
    if stored is not None and type(stored) is not int:
        raise BadInputError("`stored` must be an offset or null, as the preview gave it.")
    drifts = []
    # The store is asked only for those who may act; the action refuses the others.
    if actor.allowed:
        drifts.append(reconcile.difference(settings.ENGAGEMENT_GROUP, store, checkpoint_id))
        reconcile.check_stored(drifts[0], stored)
    done = reconcile.write_to_store(store, drifts, request_of(request, body))
    return JsonResponse({"outcome": "applied", "action_id": done[0].pk, "detail": done[0].detail})
