"""Retire partitions: end the watching of those that are gone or no longer wanted. Their counts stay in all totals.

Kafka is not asked: the topic may have been deleted. A later claim does not begin again, so nothing is counted twice;
undo brings a partition back where it stood.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.db import connection

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import (
    Actor,
    Preview,
    Request,
    Seen,
    UnknownPartitionError,
    check_allowed,
    check_unchanged,
    require_live,
)
from offsets.errors import RefusedError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.text import counted
from offsets.types import RETIRED

KIND = "retire"
MAX_PARTITIONS = 10_000


@dataclass(frozen=True, slots=True)
class Left:
    """What a partition leaves uncounted; `unread` is None where its log end is unknown."""

    unread: int | None = None
    failed_offsets: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetirePreview(Preview):
    """What retiring one partition will do, and the token to apply exactly that."""

    checkpoint_id: int
    topic: str
    partition: int
    before: Mapping[str, object]
    left: Left
    seen: Seen

    def as_json(self) -> dict[str, Any]:
        return {
            **Preview.as_json(self),
            "checkpoint_id": self.checkpoint_id,
            "topic": self.topic,
            "partition": self.partition,
            "before": self.before,
            **asdict(self.left),
            "seen": asdict(self.seen),
        }


def preview(rows: Sequence[PartitionCheckpoint], actor: Actor) -> list[RetirePreview]:
    """Say what `retire` would do now; changes and audits nothing. Raises RefusedError where it would."""
    check_allowed(KIND, actor)
    ids = [row.pk for row in rows]
    _check_number(ids)
    left, alive = _left(ids), _alive_owners(ids)
    previews = []
    for row in rows:
        _check_unread(require_live(row.pk, row), alive)
        previews.append(
            RetirePreview(
                kind=KIND,
                target=row.name,
                text=in_words(row, left[row.pk]),
                checkpoint_id=row.pk,
                topic=row.topic,
                partition=row.partition,
                before=audit.state_of(row),
                left=left[row.pk],
                seen=Seen.of(row),
            )
        )
    return previews


def retire(group_id: str, seen: Mapping[int, Seen], request: Request) -> list[OperatorAction]:
    """Retire all these partitions of the group or none, each as it was seen. Raises RefusedError, audited."""
    ids = sorted(seen)
    with attempt(KIND, request, ids[0] if ids else 0) as change:
        _check_number(ids)
        with change.transaction():
            locked = ledger.lock_checkpoints(ids)
            left, alive = _left(ids), _alive_owners(ids)
            actions = []
            for checkpoint_id in ids:
                change.checkpoint_id = checkpoint_id
                row = require_live(checkpoint_id, locked.get(checkpoint_id))
                if row.group_id != group_id:
                    raise UnknownPartitionError(f"Unknown checkpoint {checkpoint_id} of group {group_id!r}.")
                check_unchanged(row, seen[checkpoint_id])
                _check_unread(row, alive)
                actions.append(_apply(row, left[checkpoint_id], change))
            return actions


def _apply(row: PartitionCheckpoint, left: Left, change: Attempt) -> OperatorAction:
    before, request = audit.state_of(row), change.request
    action = audit.applied(
        *(KIND, row, request),
        before=before,
        after={},
        detail=in_words(row, left),
        change_id=change.change_id,
    )
    retired = ledger.retire(row, action=action)
    audit.complete(action, {**audit.state_of(retired), "retired": True, **asdict(left)})
    _journal(row, f"{row.name} retired by {request.actor.name}: {request.reason}")
    return action


# --- Undo -----------------------------------------------------------------------------------------


def undo_text(action: OperatorAction) -> str:
    """What bringing the partition back does. Raises RefusedError where it is not retired by this action."""
    row = _retired_by(action, action.checkpoint)
    return f"Undo the retirement of {row.name}: it is watched again, and goes on at {row.next_offset:,} once claimed."


def bring_back(undone: Sequence[OperatorAction], undo_kind: str, request: Request) -> list[OperatorAction]:
    """Bring back all of them or none. Raises RefusedError, audited."""
    with attempt(undo_kind, request, undone[0].checkpoint_id or 0) as change, change.transaction():
        locked = ledger.lock_checkpoints([action.checkpoint_id or 0 for action in undone])
        done = []
        for action in undone:
            change.checkpoint_id = action.checkpoint_id or 0
            row = _retired_by(action, locked.get(change.checkpoint_id))
            done.append(_bring_back(action, row, change))
        return done


def _bring_back(action: OperatorAction, row: PartitionCheckpoint, change: Attempt) -> OperatorAction:
    done = audit.applied(
        *(change.kind, row, change.request),
        before=audit.state_of(row),
        after={},
        detail=f"Undid the retirement of {row.name}.",
        change_id=change.change_id,
        undoes=action,
    )
    audit.complete(done, {**audit.state_of(ledger.bring_back(row, action=done)), "retired": False})
    _journal(row, f"{row.name}: retirement undone by {change.request.actor.name}: {change.request.reason}")
    return done


def _retired_by(action: OperatorAction, row: PartitionCheckpoint | None) -> PartitionCheckpoint:
    if row is None or row.retired_reason != RETIRED or row.last_action_id != action.pk:
        raise RefusedError(f"Action {action.pk} ({action.kind} {action.target}): the partition is not retired by it.")
    return row


# --- Checks and facts -----------------------------------------------------------------------------


def _check_number(ids: Sequence[int]) -> None:
    if not ids:
        raise RefusedError("No partition to retire.")
    if len(ids) > MAX_PARTITIONS:
        raise RefusedError(f"At most {MAX_PARTITIONS:,} partitions at once, not {len(ids):,}.")


def _check_unread(row: PartitionCheckpoint, alive: set[str]) -> None:
    """A partition that a live worker owns is still wanted."""
    if row.owner_id in alive:
        raise RefusedError(
            f"{row.name} is read by the running worker {row.owner_id}. Stop the worker, or start it without this "
            "topic, then retire the partition."
        )


def _alive_owners(checkpoint_ids: Sequence[int]) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT w.worker_id FROM offsets_partitioncheckpoint c"
            " JOIN offsets_worker w ON w.worker_id = c.owner_id WHERE c.id = ANY(%s) AND w.state <> 'stopped'"
            " AND w.heartbeat_at > clock_timestamp() - make_interval(secs => %s)",
            [list(checkpoint_ids), settings.HEARTBEAT_TIMEOUT_SECONDS],
        )
        return {row[0] for row in cursor.fetchall()}


def _left(checkpoint_ids: Sequence[int]) -> dict[int, Left]:
    """What is uncounted: unread by the newest sample, failed, and pending dead letters."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.id, (SELECT greatest(0, s.log_end_offset - c.next_offset) FROM offsets_lagsample s"
            " WHERE s.checkpoint_id = c.id ORDER BY s.sampled_at DESC LIMIT 1),"
            " (SELECT coalesce(sum(upper(r.offsets) - lower(r.offsets)), 0)::bigint FROM offsets_ledgerrange r"
            " WHERE r.checkpoint_id = c.id AND r.kind = 'failed'),"
            " (SELECT count(*) FROM offsets_deadletter d WHERE d.checkpoint_id = c.id AND d.status = 'pending')"
            " FROM offsets_partitioncheckpoint c WHERE c.id = ANY(%s)",
            [list(checkpoint_ids)],
        )
        return {row[0]: Left(*row[1:]) for row in cursor.fetchall()}


def _journal(row: PartitionCheckpoint, message: str) -> None:
    journal.record(row.group_id, KIND, message, topic=row.topic, partition=row.partition)


# --- Words ----------------------------------------------------------------------------------------


def in_words(row: PartitionCheckpoint, left: Left) -> str:
    """The preview of one partition."""
    return f"Retire {row.name} at offset {row.next_offset:,}: its counts stay. {_uncounted(left)}"


def summary(previews: Iterable[RetirePreview]) -> str:
    """The preview of all of them."""
    shown = list(previews)
    unread = [preview.left.unread for preview in shown]
    total = Left(
        None if None in unread else sum(number or 0 for number in unread),
        sum(preview.left.failed_offsets for preview in shown),
        sum(preview.left.dead_letters for preview in shown),
    )
    topics = ", ".join(sorted({preview.topic for preview in shown}))
    return (
        f"Retire {counted(len(shown), 'partition')} of {topics}: the counts stay in all totals; the partitions are no "
        f"longer watched or replayed. {_uncounted(total)} Undo brings them back where they stood."
    )


def _uncounted(left: Left) -> str:
    parts = [
        "unread records (number unknown)" if left.unread is None else counted(left.unread, "unread record"),
        counted(left.failed_offsets, "failed offset"),
        counted(left.dead_letters, "pending dead letter"),
    ]
    named = [part for part in parts if not part.startswith("0 ")]
    return f"Not counted: {', '.join(named)}." if named else "Nothing is left uncounted."
