"""Accepting that failed offsets are not counted: they become skipped, nothing retries them, a replay still could."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason, name_of, require_live
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange, cut
from offsets.replays import rows as replay_rows
from offsets.replays.plans import refuse_overlap
from offsets.types import RangeKind

KIND = "accept_failed"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Offsets of one partition; `failed` of them are failed ones: None where nobody looked."""

    checkpoint_id: int
    offsets: OffsetRange
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptPreview:
    checkpoint_id: int
    target: str
    offsets: OffsetRange
    failed: int
    text: str


def preview(wanted: Accepted, actor: Actor) -> AcceptPreview:
    """Say what `apply` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(KIND, actor)
    row = PartitionCheckpoint.objects.filter(pk=wanted.checkpoint_id).first()
    return _preview(wanted, require_live(wanted.checkpoint_id, row))


def _preview(wanted: Accepted, row: PartitionCheckpoint) -> AcceptPreview:
    known = ledger.known_ranges(row.pk, wanted.offsets)
    failed = sum(p.end - p.start for p in cut(wanted.offsets, known) if p.kind is RangeKind.FAILED)
    if not failed:
        raise RefusedError(f"{name_of(row)} {wanted.offsets} holds no failed offsets; nothing was changed.")
    running = [(r.replay_id, OffsetRange(r.start, r.end)) for r in replay_rows.waiting_of(row.pk)]
    refuse_overlap(name_of(row), wanted.offsets, running)
    text = (
        f"Accept that {failed:,} failed offsets of {name_of(row)} in {wanted.offsets} are not counted: they are "
        "recorded as skipped, and no replay tries them by itself. A replay of skipped offsets can still count them."
    )
    return AcceptPreview(row.pk, name_of(row), wanted.offsets, failed, text)


def accept_failed(wanted: Sequence[Accepted], *, actor: Actor, reason: str, source: Source) -> list[OperatorAction]:
    """All of it or nothing. Raises RefusedError, having audited the refusal."""
    reason = reason.replace("\x00", "").strip()
    at = wanted[0].checkpoint_id if wanted else 0
    try:
        check_allowed(KIND, actor)
        check_reason(reason)
        with transaction.atomic(), bounded_wait():
            locked = ledger.lock_checkpoints([one.checkpoint_id for one in wanted])
            change_id = uuid.uuid4()
            done = []
            for one in wanted:
                at = one.checkpoint_id
                done.append(_apply(one, require_live(at, locked.get(at)), actor, reason, source, change_id))
            return done
    except RefusedError as error:
        audit.refused(KIND, at, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _apply(
    one: Accepted, row: PartitionCheckpoint, actor: Actor, reason: str, source: Source, change_id: uuid.UUID
) -> OperatorAction:
    shown = _preview(one, row)
    if one.failed is not None and one.failed != shown.failed:
        raise StalePreviewError(
            f"{shown.target} {one.offsets} held {one.failed:,} failed offsets when you looked, now {shown.failed:,}. "
            "Nothing was changed; look again."
        )
    action = audit.applied(
        KIND,
        row,
        actor=actor,
        reason=reason,
        source=source,
        before={"start": one.offsets.start, "end": one.offsets.end, "failed": shown.failed},
        after={"skipped": shown.failed},
        detail=shown.text,
        change_id=change_id,
    )
    ledger.pass_failed(row.pk, one.offsets, RangeKind.SKIPPED, f"action {action.pk}: failed, and accepted")
    text = f"{shown.failed:,} failed offsets of {shown.target} accepted as not counted by {actor.name}: {reason}"
    journal.record(row.group_id, KIND, text, level="warning", topic=row.topic, partition=row.partition)
    return action
