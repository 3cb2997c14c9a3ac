"""Actions that move a partition's offset, on a running group: preview, then all of them in one transaction.

What Kafka must be asked is asked first, outside of any lock. The plan is made again under the checkpoint's lock, from
the row as it is then; what an operator was shown is compared with it (docs/adr/0005).
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import transaction

from offsets import journal, ledger
from offsets.actions import audit, move_plans
from offsets.actions.guards import (
    Actor,
    Seen,
    Source,
    bounded_wait,
    check_allowed,
    check_reason,
    check_unchanged,
    name_of,
    require_live,
)
from offsets.actions.move_plans import Bounds, MoveContext, MoveKind, MovePlan
from offsets.errors import RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.ranges import OffsetRange
from offsets.text import duration
from offsets.types import HaltReason, Semantics, TopicPartition

MAX_PARTITIONS = 10_000


@dataclass(frozen=True, slots=True)
class Move:
    """One partition and where to. `target` is not used by what begins again; `seen` is what the preview gave."""

    checkpoint_id: int
    target: int = 0
    seen: Seen | None = None
    #: Put back by an undo; None leaves it where the seek puts it.
    baseline: int | None = None
    undoes: OperatorAction | None = None


@dataclass(frozen=True, slots=True)
class MovePreview:
    """What a move will do, in words and numbers, and the token to apply exactly that."""

    kind: MoveKind
    checkpoint_id: int
    topic: str
    partition: int
    text: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    plan: MovePlan
    bounds: Bounds
    seen: Seen

    @property
    def target(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class Log:
    """What Kafka says of a partition now."""

    bounds: Bounds
    topic_id: str


def logs_of(checkpoints: Iterable[PartitionCheckpoint]) -> dict[int, Log]:
    """The log of each checkpoint, in two requests for all. Raises ServiceUnavailableError."""
    rows = list(checkpoints)
    admin = KafkaAdmin()
    described = admin.describe_topics({row.topic for row in rows})
    bounds = admin.log_bounds(TopicPartition(row.topic, row.partition) for row in rows)
    found = {}
    for row in rows:
        bound = bounds.get(TopicPartition(row.topic, row.partition))
        if bound is not None and row.topic in described:
            found[row.pk] = Log(Bounds(bound.start, bound.end), described[row.topic].topic_id)
    return found


def preview(
    kind: MoveKind, moves: Sequence[Move], actor: Actor, logs: Mapping[int, Log] | None = None
) -> list[MovePreview]:
    """Say what `apply` would do now. Raises RefusedError where it would refuse; audits nothing, changes nothing."""
    check_allowed(kind, actor)
    rows = {row.pk: row for row in PartitionCheckpoint.objects.filter(pk__in=[m.checkpoint_id for m in moves])}
    known = logs if logs is not None else logs_of(rows.values())
    return [
        _preview(kind, move, require_live(move.checkpoint_id, rows.get(move.checkpoint_id)), known) for move in moves
    ]


def _preview(kind: MoveKind, move: Move, row: PartitionCheckpoint, logs: Mapping[int, Log]) -> MovePreview:
    log = _log(row, logs)
    plan = _plan(kind, move, row, log)
    return MovePreview(
        kind=kind,
        checkpoint_id=row.pk,
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
    kind: MoveKind, moves: Sequence[Move], *, actor: Actor, reason: str, source: Source, strict: bool = False
) -> list[OperatorAction]:
    """Do all of it or nothing. Raises RefusedError, having audited the refusal of the partition that caused it.

    `strict` wants every partition to stand exactly where it was seen.
    """
    reason = reason.replace("\x00", "").strip()
    if len(moves) > MAX_PARTITIONS:
        raise RefusedError(f"At most {MAX_PARTITIONS:,} partitions at once, not {len(moves):,}.")
    rows = list(PartitionCheckpoint.objects.filter(pk__in=[move.checkpoint_id for move in moves]))
    logs = logs_of(rows)
    asked_at = {row.pk: row.ledger_end for row in rows}
    at = moves[0].checkpoint_id if moves else 0
    try:
        check_allowed(kind, actor)
        check_reason(reason)
        with transaction.atomic(), bounded_wait():
            locked = ledger.lock_checkpoints([move.checkpoint_id for move in moves])
            change_id = uuid.uuid4()
            actions = []
            for move in moves:
                at = move.checkpoint_id
                row = require_live(at, locked.get(at))
                if at in logs:
                    logs[at] = _grown(logs[at], asked_at[at], row.ledger_end)
                plan = _checked(kind, move, row, logs, strict=strict)
                actions.append(_apply(plan, move, row, logs[at], actor, reason, source, change_id))
            return actions
    except RefusedError as error:
        audit.refused(kind, at, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _grown(log: Log, asked_at: int, ledger_end: int) -> Log:
    """The log, which had all that the ledger knew when it was asked, and so has what the ledger has come to since.

    A log that ended before the ledger even then was truncated, and stays as it was seen.
    """
    if log.bounds.end < asked_at:
        return log
    return replace(log, bounds=Bounds(log.bounds.start, max(log.bounds.end, ledger_end)))


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
                f"{name_of(row)} has moved since you looked: it was at {seen:,}, it is at {row.next_offset:,}. "
                "Nothing was changed; look again, or pause it first."
            )
    if move.baseline is not None and ledger.anything_below(row.pk, move.baseline):
        # Counted since it was looked at: the baseline must stay below it (I1).
        move = replace(move, baseline=None)
    return _plan(kind, move, row, _log(row, logs))


def _log(row: PartitionCheckpoint, logs: Mapping[int, Log]) -> Log:
    if row.pk not in logs:
        raise ServiceUnavailableError(
            f"Kafka does not tell what the log of {name_of(row)} holds: the topic is gone, or it has no leader."
        )
    return logs[row.pk]


def _plan(kind: MoveKind, move: Move, row: PartitionCheckpoint, log: Log) -> MovePlan:
    at = MoveContext(
        name_of(row),
        row.next_offset,
        row.baseline_offset,
        row.ledger_end,
        HaltReason(row.halt_reason),
        Semantics(row.semantics),
        same_topic=row.topic_id == log.topic_id,
    )
    if kind is MoveKind.RESTART:
        return move_plans.plan_restart(at, log.bounds)
    places = (move.target, row.next_offset, row.baseline_offset, log.bounds.start)
    low, high = min(places), max(places)
    known = ledger.known_ranges(row.pk, OffsetRange(low, high)) if low < high else []
    if kind is MoveKind.REBUILD:
        return move_plans.plan_rebuild(at, known, log.bounds)
    target = log.bounds.start if kind is MoveKind.ACCEPT_LOSS else move.target
    return move_plans.plan_seek(at, target, known, log.bounds, kind=kind, baseline=move.baseline)


def _apply(
    plan: MovePlan,
    move: Move,
    row: PartitionCheckpoint,
    log: Log,
    actor: Actor,
    reason: str,
    source: Source,
    change_id: uuid.UUID,
) -> OperatorAction:
    before, text = audit.state_of(row), in_words(row, plan, log.bounds)
    action = audit.applied(
        plan.kind,
        row,
        actor=actor,
        reason=reason,
        source=source,
        before=before,
        after=_after(row, plan),
        detail=text,
        change_id=change_id,
        undoes=move.undoes,
    )
    if plan.kind.begins_again:
        why = "rebuilt" if plan.kind is MoveKind.REBUILD else _why_restarted(row, log)
        moved = ledger.retire_and_restart(row, action=action, reason=why, baseline=plan.target, topic_id=log.topic_id)
    else:
        moved = ledger.seek(row, plan.target, action=action, passed_as=plan.passed_as, baseline=plan.baseline)
    audit.complete(action, {**audit.state_of(moved), **plan.as_json()})
    journal.record(
        row.group_id,
        plan.kind.value,
        f"{name_of(row)} {plan.kind.done} from {before['next_offset']:,} to {plan.target:,} by {actor.name}: {reason}",
        topic=row.topic,
        partition=row.partition,
    )
    return action


def _why_restarted(row: PartitionCheckpoint, log: Log) -> str:
    return "topic_recreated" if row.topic_id != log.topic_id else "truncated"


def _after(row: PartitionCheckpoint, plan: MovePlan) -> dict[str, Any]:
    """The row as it will be, and what becomes of the offsets between."""
    state = audit.state_of(row)
    state |= {"next_offset": plan.target, "baseline_offset": plan.baseline, "epoch": row.epoch + 1}
    state["ledger_end"] = plan.target if plan.kind.begins_again else max(row.ledger_end, plan.target)
    return {**state, **plan.as_json()}


# --- Words ----------------------------------------------------------------------------------------


def in_words(row: PartitionCheckpoint, plan: MovePlan, bounds: Bounds) -> str:
    """One sentence an operator can decide by."""
    name = name_of(row)
    within = duration(settings.HEARTBEAT_INTERVAL_MS / 1000)
    who = f"its worker {row.owner_id} goes on there within {within}" if row.owner_id else "no worker owns it now"
    if plan.kind is MoveKind.REBUILD:
        gone = f"; {plan.lost:,} counted offsets are gone from Kafka and will be missing" if plan.lost else ""
        return (
            f"Rebuild {name}: what was counted of it is dropped, and {plan.to_count:,} offsets from {plan.target:,} on "
            f"are counted again{gone}. Totals are too low until it has caught up; {who}."
        )
    if plan.kind is MoveKind.RESTART:
        return (
            f"Begin {name} again at {plan.target:,}, keeping what was counted: {plan.to_count:,} offsets are counted "
            f"beside it; {who}."
        )
    verb = {"skip": "Skip", "accept_loss": "Accept the loss on"}.get(plan.kind.value, "Move")
    outcome = _outcome(row, plan)
    return f"{verb} {name} from offset {row.next_offset:,} to {plan.target:,}: {outcome}; {who}."


def _outcome(row: PartitionCheckpoint, plan: MovePlan) -> str:
    if plan.target >= row.next_offset:
        passed = f"{plan.lost:,} offsets are passed over and recorded as {plan.passed_as}"
        return passed if plan.lost else "nothing uncounted is passed over"
    parts = [f"{plan.to_count:,} offsets are counted"]
    if plan.deduplicated:
        parts.append(f"{plan.deduplicated:,} are read again and left out, because they are counted")
    if plan.duplicated:
        parts.append(f"{plan.duplicated:,} are counted again (at_least_once)")
    return ", ".join(parts) + "; nothing is lost"
