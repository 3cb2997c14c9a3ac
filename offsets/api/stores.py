"""Reconcile another store with the ledger, for one partition."""

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
    """What the store would be told, and the `stored` that the POST `{reason, stored}` must repeat."""
    if store not in _STORES:
        return error_response(404, f"There is no store {store[:40]!r} to reconcile; use one of: {', '.join(_STORES)}.")
    actor = Actor.of_user(request.user)
    if request.method != "POST":
        check_allowed(reconcile.KIND, actor)
        one = _difference(checkpoint_id, store)
        return JsonResponse(
            {"kind": reconcile.KIND, "target": str(one.topic_partition), "text": _in_words(one), "stored": one.stored}
        )
    body = body_of(request)
    stored = body.get("stored")
    if stored is not None and type(stored) is not int:
        raise BadInputError("`stored` must be an offset or null, as the preview gave it.")
    # Asked only of those who may act: a store's answer costs a request.
    if actor.allowed:
        one = _difference(checkpoint_id, store)
        if one.stored != stored:
            raise StalePreviewError(
                f"The {store} store of {one.topic_partition} held {_said(stored)} when you looked, now "
                f"{_said(one.stored)}. Nothing was changed; look again."
            )
        found = [one]
    else:
        found = []
    done = reconcile.write_to_store(store, found, actor=actor, reason=reason_of(body), source=Source.API)
    return JsonResponse({"outcome": "applied", "action_id": done[0].pk, "detail": done[0].detail})


def _difference(checkpoint_id: int, store: str) -> Drift:
    """Raises UnknownPartitionError, RefusedError where the two agree."""
    found = reconcile.compare(settings.ENGAGEMENT_GROUP, store, [min(checkpoint_id, MAX_INTEGER)])
    if not found:
        raise UnknownPartitionError(f"There is no checkpoint {checkpoint_id}.")
    if found[0].offsets == 0:
        raise RefusedError(f"The {store} store of {found[0].topic_partition} agrees with the ledger; nothing to do.")
    return found[0]


def _in_words(one: Drift) -> str:
    follow = "" if one.stored is None else f" To make the ledger follow the store instead, move it to {one.stored:,}."
    return (
        f"The {one.store} store of {one.topic_partition} holds {_said(one.stored)}, the ledger "
        f"{one.ledger_next_offset:,}. The store is told what the ledger says; nothing is counted or lost.{follow}"
    )


def _said(offset: int | None) -> str:
    return "nothing" if offset is None else f"{offset:,}"
