"""Taking the partitions from a worker that is alive but stuck: fence, stop flag, and the group's own timeout."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from offsets import journal, leases, ledger, workers
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import Actor, Preview, Request, Source, check_allowed
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint, Worker
from offsets.monitoring import incidents

KIND = "evict"


class UnknownWorkerError(RefusedError):
    """No worker has this id."""

    http_status = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPreview(Preview):
    """What evicting the worker `target` will do."""

    #: What it owns now; to be given back, so that another assignment is not evicted instead.
    owned: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {**Preview.as_json(self), "seen": {"owned": self.owned}}


def preview(worker_id: str, actor: Actor) -> EvictionPreview:
    """Say what `evict` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(KIND, actor)
    worker = _running(worker_id)
    rows = _owned(worker_id)
    text = _in_words(worker, rows)
    return EvictionPreview(kind=KIND, target=worker_id, text=text, owned=tuple(row.pk for row in rows))


def evict(worker_id: str, request: Request, *, owned: Sequence[int] | None = None) -> OperatorAction:
    """Evict it, if it still owns what was seen. Raises RefusedError, having audited the refusal."""
    with attempt(KIND, request, target=f"worker {worker_id}") as change, change.transaction():
        worker = _running(worker_id)
        rows = _owned(worker_id)
        if owned is not None and set(owned) != {row.pk for row in rows}:
            raise StalePreviewError(
                f"{worker_id} owns other partitions than when you looked. Nothing was changed; refresh the preview."
            )
        return _apply(worker, rows, change)


def _running(worker_id: str) -> Worker:
    worker = Worker.objects.filter(pk=worker_id).first()
    if worker is None:
        raise UnknownWorkerError(f"Unknown worker {worker_id}.")
    if worker.state == Worker.State.STOPPED:
        raise RefusedError(f"{worker_id} has already stopped; nothing was changed.")
    if worker.evicted_at is not None:
        raise RefusedError(f"{worker_id} was already evicted; nothing was changed.")
    return worker


def _owned(worker_id: str) -> list[PartitionCheckpoint]:
    rows = PartitionCheckpoint.objects.filter(owner_id=worker_id, retired_at__isnull=True)
    return list(rows.order_by("topic", "partition"))


def _in_words(worker: Worker, rows: Sequence[PartitionCheckpoint]) -> str:
    names = ", ".join(row.name for row in rows[:10]) + (" …" if len(rows) > 10 else "")
    what = f"{names} are fenced at once, its uncommitted work is rejected" if rows else "it owns no partitions"
    again = (
        "its slot is restarted"
        if worker.slot
        else "it is not restarted: start manage.py run_consumer if no other worker is left"
    )
    session, poll = (f"{ms / 1000:.0f} s" for ms in (settings.SESSION_TIMEOUT_MS, settings.MAX_POLL_INTERVAL_MS))
    return (
        f"Evict {worker.worker_id}: {what}. The worker is asked to stop and drop uncommitted work (within 1 s). If it "
        f"does not respond, Kafka removes it from the group: {session} after its process died or stopped, {poll} after "
        f"its fetching thread got stuck. Other workers continue from the committed offsets, nothing is lost or counted "
        f"twice; {again}."
    )


def _apply(worker: Worker, rows: Sequence[PartitionCheckpoint], change: Attempt) -> OperatorAction:
    request = change.request
    action = audit.applied(
        *(KIND, None, request),
        target=f"{worker.group_id} {change.target}",
        before={"owned": [str(row) for row in rows], "stage": worker.stage},
        after={"owned": []},
        detail=_in_words(worker, rows),
    )
    ledger.fence(worker.pk, action=action)  # first: checkpoints are locked before workers (offsets.models)
    if not workers.evict(worker.pk):
        raise StalePreviewError(f"{worker.pk} has just ended or been evicted. Nothing was changed.")
    free_slot(worker.pk)
    journal.record(
        *(worker.group_id, KIND, f"{worker.pk} evicted by {request.actor.name}: {request.reason}"),
        level="warning",
        worker_id=worker.pk,
    )
    incidents.note_action(
        *(worker.group_id, f"Evicted by {request.actor.name}: {request.reason}"),
        worker_id=worker.pk,
        automatic=request.source is Source.AUTOMATIC,
    )
    return action


def free_slot(worker_id: str) -> None:
    """Have a worker's slot restarted at once, unless a later, healthy worker has it already."""
    worker = Worker.objects.get(pk=worker_id)
    later = Worker.objects.filter(slot=worker.slot, started_at__gt=worker.started_at).exclude(
        state=Worker.State.STOPPED
    )
    if worker.slot and not later.exists():
        leases.drop(worker.slot)
