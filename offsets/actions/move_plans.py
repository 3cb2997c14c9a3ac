"""The effect of moving a partition's offset, computed for the preview. Pure.

Everything is counted in offsets, which is exact. Transaction markers and compacted records occupy offsets, too, so
there are at most as many events.
"""

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from offsets.errors import RefusedError
from offsets.ranges import KnownRange, OffsetRange, cut
from offsets.types import HaltReason, RangeKind, Semantics


class MoveKind(enum.StrEnum):
    """The actions that move `next_offset`."""

    SEEK = "seek"
    SKIP = "skip"
    ACCEPT_LOSS = "accept_loss"
    REBUILD = "rebuild"
    RESTART = "restart"

    @property
    def begins_again(self) -> bool:
        """Whether a new ledger replaces the old one."""
        return self in (MoveKind.REBUILD, MoveKind.RESTART)

    @property
    def done(self) -> str:
        """Past tense, for the journal."""
        return {"seek": "moved", "skip": "skipped", "accept_loss": "loss accepted"}.get(self.value, "rebuilt")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the log holds: `[start, end)`, the end being what a read_committed reader can reach."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class MoveContext:
    """What a plan needs to know of a partition."""

    name: str
    next_offset: int
    baseline_offset: int
    ledger_end: int
    halt_reason: HaltReason
    semantics: Semantics
    #: Whether the topic has not been recreated.
    same_topic: bool = True


@dataclass(frozen=True, slots=True)
class MovePlan:
    """Before → after, and the outcome of the offsets between: each is in at most one of the four numbers."""

    kind: MoveKind
    target: int
    baseline: int
    #: Read (again) and counted.
    to_count: int = 0
    #: Read again and not counted: the ledger has them.
    deduplicated: int = 0
    #: Read again and counted again: at least once.
    duplicated: int = 0
    #: Passed without being counted.
    lost: int = 0
    passed_as: RangeKind = RangeKind.SKIPPED

    def as_json(self) -> dict[str, int]:
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("to_count", "deduplicated", "duplicated", "lost")
        }


def plan_seek(
    at: MoveContext,
    target: int,
    known: Sequence[KnownRange],
    bounds: Bounds,
    *,
    kind: MoveKind = MoveKind.SEEK,
    baseline: int | None = None,
) -> MovePlan:
    """Make `target` the next offset. `known` are the ledger's ranges between here and there.

    Raises RefusedError where the log does not hold the target, or its offsets mean other records now.
    """
    _check_same_log(at, bounds)
    if not bounds.start <= target <= bounds.end:
        raise RefusedError(f"{at.name}: offset {target:,} is outside of the log ({bounds.start:,} to {bounds.end:,}).")
    if kind is MoveKind.ACCEPT_LOSS and at.next_offset >= bounds.start:
        raise RefusedError(f"{at.name} has lost nothing: the log still holds its next offset {at.next_offset:,}.")
    if target == at.next_offset and at.halt_reason is HaltReason.NONE:
        raise RefusedError(f"{at.name} is already at offset {target:,}; nothing was changed.")
    if kind is MoveKind.SKIP and target < at.next_offset:
        raise RefusedError(f"{at.name} is at {at.next_offset:,}, past {target:,}: there is nothing to skip.")
    new_baseline = min(at.baseline_offset, target) if baseline is None else baseline
    passed_as = RangeKind.EXPIRED if kind is MoveKind.ACCEPT_LOSS else RangeKind.SKIPPED
    if target >= at.next_offset:
        lost = _size(max(at.next_offset, new_baseline), target, known, processed=False)
        return MovePlan(kind, target, new_baseline, lost=lost, passed_as=passed_as)
    again = _size(target, at.next_offset, known, processed=True)
    return MovePlan(
        kind,
        target,
        new_baseline,
        to_count=_size(target, at.next_offset, known, processed=False),
        deduplicated=again if at.semantics.subtracts else 0,
        duplicated=0 if at.semantics.subtracts else again,
    )


def _size(start: int, end: int, known: Sequence[KnownRange], *, processed: bool) -> int:
    """How many offsets of `[start, end)` are, or are not, processed."""
    if start >= end:
        return 0
    pieces = cut(OffsetRange(start, end), known)
    return sum(piece.end - piece.start for piece in pieces if (piece.kind is RangeKind.PROCESSED) == processed)


def _check_same_log(at: MoveContext, bounds: Bounds) -> None:
    if not at.same_topic:
        raise RefusedError(
            f"{at.name}: the topic was deleted and created again, so its offsets mean other records now. Restart it "
            "with rebuild_partition --keep-counts."
        )
    if at.ledger_end > bounds.end:
        raise RefusedError(
            f"{at.name}: the log ends at {bounds.end:,}, but was counted up to {at.ledger_end:,}: it was truncated, "
            "and new records at these offsets would look counted. Restart it with rebuild_partition --keep-counts."
        )


def plan_rebuild(at: MoveContext, known: Sequence[KnownRange], bounds: Bounds) -> MovePlan:
    """Drop the counts and count again from the log start. `lost` are counted offsets that retention has deleted.

    Raises RefusedError where the old counts are of another log.
    """
    if not at.same_topic:
        raise RefusedError(
            f"{at.name}: the topic was deleted and created again; a rebuild would drop what the old one counted and "
            "could not count it again. Keep it with --keep-counts."
        )
    gone = _size(at.baseline_offset, min(bounds.start, at.ledger_end), known, processed=True)
    return MovePlan(MoveKind.REBUILD, bounds.start, bounds.start, to_count=bounds.end - bounds.start, lost=gone)


def plan_restart(at: MoveContext, bounds: Bounds) -> MovePlan:
    """Keep the counts and start a new ledger: at the log start of a recreated topic, at the log end of a truncated one.

    Raises RefusedError for a log that is neither: everything in it would be counted twice.
    """
    if not at.same_topic:
        return MovePlan(MoveKind.RESTART, bounds.start, bounds.start, to_count=bounds.end - bounds.start)
    if at.ledger_end > bounds.end:
        return MovePlan(MoveKind.RESTART, bounds.end, bounds.end)
    raise RefusedError(
        f"{at.name}: this log is already counted; a restart that keeps the counts would count it twice. Rebuild it "
        "without --keep-counts."
    )


def moved_too_far(seen: int, now: int, target: int, semantics: Semantics) -> bool:
    """Whether a running partition has advanced beyond what the preview still describes (docs/adr/0005).

    Within one epoch it only advances. Towards a target ahead, the seek then loses less than shown; away from a target
    behind, it re-reads more, which matters only where that counts again.
    """
    if now == seen:
        return False
    if now < seen or (target > seen) != (target > now):
        return True
    return target < seen and not semantics.subtracts


def clamped(target: int, bounds: Bounds) -> int:
    """The target within the log, as kafka-consumer-groups does it."""
    return min(max(target, bounds.start), bounds.end)
