"""Taking the partitions from a worker that lives and does not work: fence, stop flag, and the group's own expiry."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from offsets import journal, leases, ledger, workers
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason, name_of
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint, Worker
from offsets.monitoring import incidents

KIND = "evict"


class UnknownWorkerError(RefusedError):
    """No worker has this id."""

    http_status = 404


@dataclass(frozen=True, slots=True)
class EvictionPreview:
    worker_id: str
    text: str
    #: What it owns now; to be given back, so that another assignment is not evicted instead.
    owned: tuple[int, ...]


def preview(worker_id: str, actor: Actor) -> EvictionPreview:
    """Say what `apply` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(KIND, actor)
    worker = _running(worker_id)
    rows = _owned(worker_id)
    return EvictionPreview(worker_id, _in_words(worker, rows), tuple(row.pk for row in rows))


def evict(
    worker_id: str, *, actor: Actor, reason: str, source: Source, owned: Sequence[int] | None = None
) -> OperatorAction:
    """Do it, if the worker still owns what was seen. Raises RefusedError, having audited the refusal."""
    reason = reason.replace("\x00", "").strip()
    target = f"worker {worker_id}"
    try:
        check_allowed(KIND, actor)
        check_reason(reason)
        with transaction.atomic(), bounded_wait():
            worker = _running(worker_id)
            rows = _owned(worker_id)
            if owned is not None and set(owned) != {row.pk for row in rows}:
                raise StalePreviewError(
                    f"{worker_id} owns other partitions than when you looked. Nothing was changed; look again."
                )
            return _apply(worker, rows, actor, reason, source, target)
    except RefusedError as error:
        audit.refused(KIND, None, target=target, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _running(worker_id: str) -> Worker:
    worker = Worker.objects.filter(pk=worker_id).first()
    if worker is None:
        raise UnknownWorkerError(f"There is no worker {worker_id}.")
    if worker.state == Worker.State.STOPPED:
        raise RefusedError(f"{worker_id} has stopped already; nothing was changed.")
    if worker.evicted_at is not None:
        raise RefusedError(f"{worker_id} was evicted already; nothing was changed.")
    return worker


def _owned(worker_id: str) -> list[PartitionCheckpoint]:
    rows = PartitionCheckpoint.objects.filter(owner_id=worker_id, retired_at__isnull=True)
    return list(rows.order_by("topic", "partition"))


def _in_words(worker: Worker, rows: Sequence[PartitionCheckpoint]) -> str:
    names = ", ".join(name_of(row) for row in rows[:10]) + (" …" if len(rows) > 10 else "")
    what = f"{names} are fenced at once: nothing that it has in hand can be committed" if rows else "it owns nothing"
    again = (
        "its slot is started again"
        if worker.slot
        else "nobody starts it again: run manage.py run_consumer if no other worker is left"
    )
    session, poll = (f"{ms / 1000:.0f} s" for ms in (settings.SESSION_TIMEOUT_MS, settings.MAX_POLL_INTERVAL_MS))
    return (
        f"Evict {worker.worker_id}: {what}. It is told to drop its work and end, which it hears within a second; if it "
        f"cannot hear, Kafka's group lets it go: {session} after its process died or stopped, {poll} after its "
        f"fetching thread got stuck. Other workers count from the committed offsets on, nothing is lost or counted "
        f"twice; {again}."
    )


def _apply(
    worker: Worker, rows: Sequence[PartitionCheckpoint], actor: Actor, reason: str, source: Source, target: str
) -> OperatorAction:
    text = _in_words(worker, rows)
    action = audit.applied(
        *(KIND, None),
        target=f"{worker.group_id} {target}",
        actor=actor,
        reason=reason,
        source=source,
        before={"owned": [str(row) for row in rows], "stage": worker.stage},
        after={"owned": []},
        detail=text,
    )
    if not workers.evict(worker.pk):
        raise StalePreviewError(f"{worker.pk} ended, or was evicted, in this moment. Nothing was changed.")
    ledger.fence(worker.pk, action=action)
    free_slot(worker.pk)
    journal.record(
        *(worker.group_id, KIND, f"{worker.pk} evicted by {actor.name}: {reason}"),
        level="warning",
        worker_id=worker.pk,
    )
    incidents.note_action(
        *(worker.group_id, f"Evicted by {actor.name}: {reason}"),
        worker_id=worker.pk,
        automatic=source is Source.AUTOMATIC,
    )
    return action


def free_slot(worker_id: str) -> None:
    """Have a worker's slot started again at once, unless a later worker has it already: that one is healthy."""
    mine = Worker.objects.get(pk=worker_id)
    later = Worker.objects.filter(slot=mine.slot, started_at__gt=mine.started_at).exclude(state=Worker.State.STOPPED)
    if mine.slot and not later.exists():
        leases.drop(mine.slot)
