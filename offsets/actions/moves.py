"""Actions that move a partition's offset, on a running group: preview, then all moves in one transaction.

Kafka is asked first, outside of any lock. The plan is made again from the locked checkpoint and compared with what the
operator was shown (docs/adr/0005).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.conf import settings

from offsets import journal, ledger
from offsets.actions import audit, move_plans
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import Actor, Preview, Request, Seen, check_allowed, check_unchanged, require_live
from offsets.actions.logs import Log, log_of, logs_of
from offsets.actions.move_plans import Bounds, MoveContext, MoveKind, MovePlan
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange
from offsets.text import duration
from offsets.types import HaltReason, Semantics

MAX_PARTITIONS = 10_000


@dataclass(frozen=True, slots=True)
class Move:
    """One partition and where to. Rebuilds and restarts do not use `target`; `seen` comes from the preview."""

    checkpoint_id: int
    target: int = 0
    seen: Seen | None = None
    #: Restored by an undo; None leaves the baseline to the seek.
    baseline: int | None = None
    undoes: OperatorAction | None = None
    #: Of a rebuild: begin at the log start, also below the baseline.
    from_log_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePreview(Preview):
    """What a move will do, in words and numbers, and the token to apply exactly that."""

    checkpoint_id: int
    topic: str
    partition: int
    before: Mapping[str, object]
    after: Mapping[str, object]
    plan: MovePlan
    bounds: Bounds
    seen: Seen

    def as_json(self) -> dict[str, Any]:
        return {
            **Preview.as_json(self),
            "checkpoint_id": self.checkpoint_id,
            "before": self.before,
            "after": self.after,
            "to": self.plan.target,
            "log_start_offset": self.bounds.start,
            "log_end_offset": self.bounds.end,
            "seen": asdict(self.seen),
        }


def preview(kind: MoveKind, moves: Sequence[Move], actor: Actor) -> list[MovePreview]:
    """Say what `move_partitions` would do now; changes and audits nothing. Raises RefusedError where it would."""
    check_allowed(kind, actor)
    rows = {row.pk: row for row in PartitionCheckpoint.objects.filter(pk__in=[m.checkpoint_id for m in moves])}
    logs = logs_of(rows.values())
    return [
        _preview(kind, move, require_live(move.checkpoint_id, rows.get(move.checkpoint_id)), logs) for move in moves
    ]


def _preview(kind: MoveKind, move: Move, row: PartitionCheckpoint, logs: Mapping[int, Log]) -> MovePreview:
    log = log_of(row, logs)
    plan = _plan(kind, move, row, log)
    return MovePreview(
        kind=kind,
        checkpoint_id=row.pk,
        target=row.name,
        topic=row.topic,
        partition=row.partition,
        text=in_words(row, plan, log.bounds),
        before=audit.state_of(row),
        after=_after(row, plan),
        plan=plan,
        bounds=log.bounds,
        seen=Seen.of(row),
    )


def move_partitions(
    kind: MoveKind, moves: Sequence[Move], request: Request, *, strict: bool = False
) -> list[OperatorAction]:
    """Do all of it or nothing. Raises RefusedError, having audited the refusal of the partition that caused it.

    `strict` wants every partition to stand exactly where it was seen.
    """
    checkpoint_ids = [move.checkpoint_id for move in moves]
    with attempt(kind, request, checkpoint_ids[0] if moves else 0) as change:
        if len(moves) > MAX_PARTITIONS:
            raise RefusedError(f"At most {MAX_PARTITIONS:,} partitions at once, not {len(moves):,}.")
        logs = logs_of(PartitionCheckpoint.objects.filter(pk__in=checkpoint_ids))
        with change.transaction():
            locked = ledger.lock_checkpoints(checkpoint_ids)
            actions = []
            for move in moves:
                change.checkpoint_id = move.checkpoint_id
                row = require_live(move.checkpoint_id, locked.get(move.checkpoint_id))
                plan = _checked(kind, move, row, logs, strict=strict)
                actions.append(_apply(change, plan, move, row, log_of(row, logs)))
            return actions


def _checked(
    kind: MoveKind, move: Move, row: PartitionCheckpoint, logs: Mapping[int, Log], *, strict: bool
) -> MovePlan:
    """The plan as of now, if it is still what was shown."""
    if move.seen is not None:
        check_unchanged(row, move.seen)
        seen = move.seen.next_offset
        strayed = seen is not None and (
            seen != row.next_offset
            if strict
            else not kind.begins_again
            and move_plans.moved_too_far(seen, row.next_offset, move.target, Semantics(row.semantics))
        )
        if strayed:
            raise StalePreviewError(
                f"{row.name} has moved since you looked: it was at {seen:,}, it is at {row.next_offset:,}. "
                "Nothing was changed; refresh the preview, or pause the partition first."
            )
    if move.baseline is not None and ledger.anything_below(row.pk, move.baseline):
        # Offsets were counted since the preview: the baseline must stay below them (I1).
        move = replace(move, baseline=None)
    return _plan(kind, move, row, log_of(row, logs))


def context_of(row: PartitionCheckpoint, log: Log) -> MoveContext:
    """What a plan needs to know of a partition and its log."""
    halt_reason = HaltReason(row.halt_reason)
    unknown = log.truncated is None and halt_reason is HaltReason.TRUNCATED
    return MoveContext(
        row.name,
        row.next_offset,
        row.baseline_offset,
        row.ledger_end,
        halt_reason,
        Semantics(row.semantics),
        same_topic=row.topic_id == log.topic_id,
        truncated=bool(log.truncated) or unknown,
        diverges=log.diverges,
    )


def _plan(kind: MoveKind, move: Move, row: PartitionCheckpoint, log: Log) -> MovePlan:
    at = context_of(row, log)
    if kind is MoveKind.RESTART:
        return move_plans.plan_restart(at, log.bounds)
    places = [move.target, row.next_offset, row.baseline_offset, log.bounds.start]
    if kind is MoveKind.REBUILD:
        places.append(row.ledger_end)
    low, high = min(places), max(places)
    known = ledger.known_ranges(row.pk, OffsetRange(low, high)) if low < high else []
    if kind is MoveKind.REBUILD:
        return move_plans.plan_rebuild(at, known, log.bounds, from_log_start=move.from_log_start)
    target = log.bounds.start if kind is MoveKind.ACCEPT_LOSS else move.target
    return move_plans.plan_seek(at, target, known, log.bounds, kind=kind, baseline=move.baseline)


def _apply(change: Attempt, plan: MovePlan, move: Move, row: PartitionCheckpoint, log: Log) -> OperatorAction:
    before, request = audit.state_of(row), change.request
    action = audit.applied(
        plan.kind,
        row,
        request,
        before=before,
        after=_after(row, plan),
        detail=in_words(row, plan, log.bounds),
        change_id=change.change_id,
        undoes=move.undoes,
    )
    if plan.kind.begins_again:
        why = "rebuilt" if plan.kind is MoveKind.REBUILD else _why_restarted(row, log)
        moved = ledger.retire_and_restart(row, action=action, reason=why, baseline=plan.target, topic_id=log.topic_id)
    else:
        moved = ledger.seek(row, plan.target, action=action, passed_as=plan.passed_as, baseline=plan.baseline)
    audit.complete(action, {**audit.state_of(moved), **plan.as_json()})
    done = f"{row.name} {plan.kind.done} from {before['next_offset']:,} to {plan.target:,}"
    journal.record(
        row.group_id,
        plan.kind.value,
        f"{done} by {request.actor.name}: {request.reason}",
        topic=row.topic,
        partition=row.partition,
    )
    return action


def _why_restarted(row: PartitionCheckpoint, log: Log) -> str:
    return "topic_recreated" if row.topic_id != log.topic_id else "truncated"


def _after(row: PartitionCheckpoint, plan: MovePlan) -> dict[str, Any]:
    """The row as it will be, and the outcome of the offsets between."""
    state = audit.state_of(row)
    state |= {"next_offset": plan.target, "baseline_offset": plan.baseline, "epoch": row.epoch + 1}
    state["ledger_end"] = plan.target if plan.kind.begins_again else max(row.ledger_end, plan.target)
    return {**state, **plan.as_json()}


# --- Words ----------------------------------------------------------------------------------------


def in_words(row: PartitionCheckpoint, plan: MovePlan, bounds: Bounds) -> str:
    """The preview in one sentence."""
    name = row.name
    within = duration(settings.HEARTBEAT_INTERVAL_MS / 1000)
    who = f"its worker {row.owner_id} continues there within {within}" if row.owner_id else "no worker owns it now"
    if plan.kind is MoveKind.REBUILD:
        return (
            f"Rebuild {name}: drops its counts, and counts {plan.to_count:,} offsets again from {plan.target:,}"
            f"{_below(row, plan)}{_not_again(plan)}. Totals are too low until it has caught up; {who}."
        )
    if plan.kind is MoveKind.RESTART:
        return (
            f"Restart {name} at {plan.target:,} and keep its counts: {plan.to_count:,} more offsets are counted"
            f"{_uncounted(plan, bounds)}; {who}."
        )
    verb = {"skip": "Skip", "accept_loss": "Accept the loss on"}.get(plan.kind.value, "Seek")
    outcome = _outcome(row, plan)
    return f"{verb} {name} from offset {row.next_offset:,} to {plan.target:,}: {outcome}; {who}."


def _below(row: PartitionCheckpoint, plan: MovePlan) -> str:
    below = row.baseline_offset - plan.target
    if below <= 0:
        return ""
    return f"; {below:,} of them lie below the baseline {row.baseline_offset:,} and were never counted by this group"


def _not_again(plan: MovePlan) -> str:
    if plan.lost is None:
        return (
            "; the log was truncated at an unknown offset, so an unknown number of counted offsets are no longer in "
            "Kafka and will be missing"
        )
    return f"; {plan.lost:,} counted offsets are no longer in Kafka and will be missing" if plan.lost else ""


def _uncounted(plan: MovePlan, bounds: Bounds) -> str:
    """What a restart leaves out of a truncated log."""
    if plan.lost is None:
        return (
            f"; the log was truncated at an unknown offset, so an unknown number of new records below {plan.target:,} "
            "are not counted"
        )
    if plan.lost:
        return f"; {plan.lost:,} new offsets below the log start {bounds.start:,} are gone and not counted"
    return ""


def _outcome(row: PartitionCheckpoint, plan: MovePlan) -> str:
    if plan.target >= row.next_offset:
        if not plan.lost:
            return "no uncounted offset is passed"
        passed = f"{plan.lost:,} offsets are not counted"
        if not plan.kept:
            return f"{passed} and are recorded as {plan.passed_as}"
        parts = [f"{plan.recorded:,} are recorded as {plan.passed_as}"] if plan.recorded else []
        return f"{passed}: {', '.join([*parts, *(f'{size:,} stay {kind}' for kind, size in plan.kept)])}"
    parts = [f"{plan.to_count:,} offsets are counted"]
    if plan.deduplicated:
        parts.append(f"{plan.deduplicated:,} are re-read but already counted")
    if plan.duplicated:
        parts.append(f"{plan.duplicated:,} are counted again (at_least_once)")
    return ", ".join(parts) + "; nothing is lost"
