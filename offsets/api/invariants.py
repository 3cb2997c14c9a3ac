"""Check the invariants now."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets import leases
from offsets.actions.guards import Actor
from offsets.api.http import api_view
from offsets.errors import NotAllowedError, RefusedError
from offsets.monitoring import invariant_turns

#: After this time no further checkpoint is begun; the rest follows in turn.
CHECK_SECONDS = 5.0
#: How long the next check waits for one that does not end: no longer than a request lasts.
LEASE_SECONDS = 60.0


@api_view("POST")
def check_now(request: HttpRequest) -> HttpResponse:
    """Check the next checkpoints in turn, for some seconds: all of them, unless they hold very much."""
    actor = Actor.of_user(request.user)
    if not actor.allowed:
        raise NotAllowedError(f"{actor.name} may not start a check. Ask to join the group 'operator'.")
    group_id = settings.ENGAGEMENT_GROUP
    token = leases.acquire(invariant_turns.lease_of(group_id), f"api:{actor.name}"[:200], LEASE_SECONDS)
    if token is None:
        raise RefusedError("Another check is running. Wait for its result.")
    try:
        done = invariant_turns.check_in_turn(group_id, CHECK_SECONDS)
    finally:
        leases.release(token)
    return JsonResponse(
        {
            "ok": done.ok,
            "invariants": {
                name: {"ok": each.ok, "detail": each.detail} for name, each in done.result.invariants.items()
            },
            "checked": done.checked,
            "checkpoints": done.checkpoints,
            "detail": done.detail,
        }
    )
