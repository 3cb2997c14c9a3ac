"""Write the ledger's offset of one partition to another store."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from offsets.actions import reconcile
from offsets.actions.guards import Actor, Source, UnknownPartitionError, check_allowed
from offsets.api.http import MAX_INTEGER, BadInputError, api_view, body_of, error_response, reason_of
from offsets.errors import RefusedError, StalePreviewError
from offsets.stores.drift import Drift

_STORES = ("kafka", "redis", "file")


@api_view("GET", "HEAD", "POST")
def reconcile_store(request: HttpRequest, checkpoint_id: int, store: str) -> HttpResponse:
    """What will be written to the store, and the `stored` that the POST `{reason, stored}` must repeat."""
    if store not in _STORES:
        return error_response(404, f"Unknown store {store[:40]!r}. Use one of: {', '.join(_STORES)}.")
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        check_allowed(reconcile.KIND, actor)
        drift = _drift(checkpoint_id, store)
        target = str(drift.topic_partition)
        return JsonResponse(
            {"kind": reconcile.KIND, "target": target, "text": _describe(drift), "stored": drift.stored}
        )
    body = body_of(request)
    stored = body.get("stored")
    if stored is not None and type(stored) is not int:
        raise BadInputError("`stored` must be an offset or null. Use that of the preview.")
    # Only operators cause a request to the store.
    if actor.allowed:
        drift = _drift(checkpoint_id, store)
        if drift.stored != stored:
            raise StalePreviewError(
                f"The {store} store of {drift.topic_partition} changed since the preview: it had {_offset(stored)}, "
                f"now it has {_offset(drift.stored)}. Nothing was changed. Refresh the preview."
            )
        drifts = [drift]
    else:
        drifts = []
    done = reconcile.write_to_store(store, drifts, actor=actor, reason=reason_of(body), source=Source.API)
    return JsonResponse({"outcome": "applied", "action_id": done[0].pk, "detail": done[0].detail})


def _drift(checkpoint_id: int, store: str) -> Drift:
    """Raises UnknownPartitionError, and RefusedError if there is no drift."""
    drifts = reconcile.compare(settings.ENGAGEMENT_GROUP, store, [min(checkpoint_id, MAX_INTEGER)])
    if not drifts:
        raise UnknownPartitionError(f"Unknown checkpoint {checkpoint_id}.")
    if drifts[0].offsets == 0:
        raise RefusedError(f"The {store} store of {drifts[0].topic_partition} equals the ledger. Nothing to do.")
    return drifts[0]


def _describe(drift: Drift) -> str:
    seek = (
        "" if drift.stored is None else f" To use the store's offset instead, seek the partition to {drift.stored:,}."
    )
    return (
        f"The {drift.store} store of {drift.topic_partition} has {_offset(drift.stored)}, the ledger "
        f"{drift.ledger_next_offset:,}. The ledger's offset is written to the store; no count changes.{seek}"
    )


def _offset(offset: int | None) -> str:
    return "no offset" if offset is None else f"{offset:,}"
