"""Accept that failed offsets are not counted: they become skipped, without retries; a replay can still count them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import Actor, Preview, Request, check_allowed, require_live
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange, cut
from offsets.replays import rows as replay_rows
from offsets.replays.plans import refuse_overlap
from offsets.types import RangeKind

KIND = "accept_failed"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Offsets of one partition. `failed` is how many of them the preview showed as failed; None without a preview."""

    checkpoint_id: int
    offsets: OffsetRange
    failed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptPreview(Preview):
    checkpoint_id: int
    offsets: OffsetRange
    failed: int

    def as_json(self) -> dict[str, Any]:
        return {**Preview.as_json(self), "failed": self.failed}


def preview(wanted: Accepted, actor: Actor) -> AcceptPreview:
    """Say what `accept_failed` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(KIND, actor)
    row = PartitionCheckpoint.objects.filter(pk=wanted.checkpoint_id).first()
    return _preview(wanted, require_live(wanted.checkpoint_id, row))


def _preview(wanted: Accepted, row: PartitionCheckpoint) -> AcceptPreview:
    known = ledger.known_ranges(row.pk, wanted.offsets)
    failed = sum(piece.end - piece.start for piece in cut(wanted.offsets, known) if piece.kind is RangeKind.FAILED)
    if not failed:
        raise RefusedError(f"{row.name} {wanted.offsets} holds no failed offsets; nothing was changed.")
    running = [(r.replay_id, OffsetRange(r.start, r.end)) for r in replay_rows.waiting_of(row.pk)]
    refuse_overlap(row.name, wanted.offsets, running)
    text = (
        f"Accept that {failed:,} failed offsets of {row.name} in {wanted.offsets} are not counted: they are recorded "
        "as skipped and no longer retried. A replay of skipped offsets can still count them."
    )
    return AcceptPreview(
        kind=KIND, target=row.name, text=text, checkpoint_id=row.pk, offsets=wanted.offsets, failed=failed
    )


def accept_failed(wanted: Sequence[Accepted], request: Request) -> list[OperatorAction]:
    """All of it or nothing. Raises RefusedError, having audited the refusal."""
    checkpoint_ids = [accepted.checkpoint_id for accepted in wanted]
    with attempt(KIND, request, checkpoint_ids[0] if wanted else 0) as change, change.transaction():
        locked = ledger.lock_checkpoints(checkpoint_ids)
        done = []
        for accepted in wanted:
            change.checkpoint_id = accepted.checkpoint_id
            row = require_live(accepted.checkpoint_id, locked.get(accepted.checkpoint_id))
            done.append(_apply(accepted, row, change))
        return done


def _apply(accepted: Accepted, row: PartitionCheckpoint, change: Attempt) -> OperatorAction:
    shown, request = _preview(accepted, row), change.request
    if accepted.failed is not None and accepted.failed != shown.failed:
        raise StalePreviewError(
            f"{shown.target} {accepted.offsets} held {accepted.failed:,} failed offsets when you looked, now "
            f"{shown.failed:,}. Nothing was changed; refresh the preview."
        )
    action = audit.applied(
        *(KIND, row, request),
        before={"start": accepted.offsets.start, "end": accepted.offsets.end, "failed": shown.failed},
        after={"skipped": shown.failed},
        detail=shown.text,
        change_id=change.change_id,
    )
    ledger.pass_failed(row.pk, accepted.offsets, RangeKind.SKIPPED, f"action {action.pk}: failed, and accepted")
    text = f"{shown.failed:,} failed offsets of {shown.target} accepted as not counted by {request.actor.name}"
    journal.record(
        *(row.group_id, KIND, f"{text}: {request.reason}"), level="warning", topic=row.topic, partition=row.partition
    )
    return action
