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
    #: Whether the log has lost records that the ledger covers; it may have grown again since.
    truncated: bool = False
    #: Where a truncated log differs from what was read; None: unknown.
    diverges: int | None = None


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
    #: Passed without being counted, or counted and not again; None: unknown.
    lost: int | None = 0
    passed_as: RangeKind = RangeKind.SKIPPED
    #: Of the lost offsets: those that the ledger records as `passed_as` from now on.
    recorded: int = 0
    #: Of the lost offsets: those whose outcome stays, by kind.
    kept: tuple[tuple[RangeKind, int], ...] = ()

    def as_json(self) -> dict[str, int | None]:
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
        recorded, kept = _passed(max(at.next_offset, new_baseline), target, known)
        lost = recorded + sum(size for _, size in kept)
        return MovePlan(kind, target, new_baseline, lost=lost, passed_as=passed_as, recorded=recorded, kept=kept)
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


def _passed(start: int, end: int, known: Sequence[KnownRange]) -> tuple[int, tuple[tuple[RangeKind, int], ...]]:
    """The uncounted offsets of `[start, end)`: those without a range, and those that have one, by kind."""
    sizes: dict[RangeKind | None, int] = {}
    for piece in cut(OffsetRange(start, end), known) if start < end else ():
        sizes[piece.kind] = sizes.get(piece.kind, 0) + piece.end - piece.start
    recorded = sizes.pop(None, 0)
    return recorded, tuple((kind, size) for kind, size in sizes.items() if kind not in (None, RangeKind.PROCESSED))


def _check_same_log(at: MoveContext, bounds: Bounds) -> None:
    if not at.same_topic:
        raise RefusedError(
            f"{at.name}: the topic was deleted and created again, so its offsets mean other records now. Restart it "
            "with rebuild_partition --keep-counts."
        )
    if at.truncated or at.ledger_end > bounds.end:
        raise RefusedError(
            f"{at.name}: {_cut_off(at, bounds)}, and new records at these offsets would look counted. Restart it with "
            "rebuild_partition --keep-counts."
        )


def _cut_off(at: MoveContext, bounds: Bounds) -> str:
    if at.diverges is not None:
        return f"the log was truncated at {at.diverges:,}, but was counted up to {at.ledger_end:,}"
    if at.ledger_end > bounds.end:
        return f"the log ends at {bounds.end:,}, but was counted up to {at.ledger_end:,}: it was truncated"
    return f"the log was truncated before {at.ledger_end:,}, up to which it was counted"


def plan_rebuild(
    at: MoveContext, known: Sequence[KnownRange], bounds: Bounds, *, from_log_start: bool = False
) -> MovePlan:
    """Drop the counts and count again from the log start, but not below the baseline: those were never counted.

    `from_log_start` counts them, too. `lost` are counted offsets that retention has deleted, or that a truncated log
    has lost; `known` the ledger's ranges up to its end. Raises RefusedError where the old counts are of another log.
    """
    if not at.same_topic:
        raise RefusedError(
            f"{at.name}: the topic was deleted and created again; a rebuild would drop what the old one counted and "
            "could not count it again. Keep it with --keep-counts."
        )
    # What replaced the cut-off records is new to the group, also below its baseline.
    floor = at.baseline_offset if at.diverges is None else min(at.baseline_offset, at.diverges)
    target = bounds.start if from_log_start else min(max(bounds.start, floor), bounds.end)
    gone: int | None = _size(at.baseline_offset, min(bounds.start, at.ledger_end), known, processed=True)
    if at.truncated and gone is not None:
        cut_at = at.diverges
        gone = None if cut_at is None else gone + _size(max(cut_at, bounds.start), at.ledger_end, known, processed=True)
    return MovePlan(MoveKind.REBUILD, target, target, to_count=bounds.end - target, lost=gone)


def plan_restart(at: MoveContext, bounds: Bounds) -> MovePlan:
    """Keep the counts and start a new ledger: at the log start of a recreated topic, where a truncated log diverges.

    Where that is unknown, at the log end: what was written since the truncation is not counted, and `lost` is None.
    Raises RefusedError for a log that is neither: everything in it would be counted twice.
    """
    if not at.same_topic:
        return MovePlan(MoveKind.RESTART, bounds.start, bounds.start, to_count=bounds.end - bounds.start)
    if not at.truncated and at.ledger_end <= bounds.end:
        raise RefusedError(
            f"{at.name}: this log is already counted; a restart that keeps the counts would count it twice. Rebuild "
            "it without --keep-counts."
        )
    if at.diverges is None:
        return MovePlan(MoveKind.RESTART, bounds.end, bounds.end, lost=None)
    target = min(max(at.diverges, bounds.start), bounds.end)
    return MovePlan(
        MoveKind.RESTART, target, target, to_count=bounds.end - target, lost=max(0, bounds.start - at.diverges)
    )


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Where a retired ledger goes on, and what stops it there."""

    next_offset: int
    #: Offsets that it has not counted and Kafka no longer has.
    lost: int = 0
    halts: HaltReason = HaltReason.NONE

    def in_words(self, bounds: Bounds) -> str:
        """To follow what the undo does."""
        if self.halts is HaltReason.EXPIRED:
            return (
                f" Kafka has deleted everything below {bounds.start:,}: {self.lost:,} uncounted offsets are lost, and "
                "the partition halts as expired until the loss is accepted (accept_loss)."
            )
        if self.halts is HaltReason.NONE:
            return ""
        what = "deleted and created again" if self.halts is HaltReason.RECREATED else "truncated"
        return (
            f" The log was {what} since: the partition halts as {self.halts} until it is restarted with "
            "rebuild_partition --keep-counts."
        )


def plan_resume(at: MoveContext, known: Sequence[KnownRange], bounds: Bounds) -> ResumePlan:
    """Go on with a retired ledger at its next offset. `known`: its ranges from there to the log start."""
    if not at.same_topic:
        return ResumePlan(at.next_offset, halts=HaltReason.RECREATED)
    if at.truncated or at.ledger_end > bounds.end:
        return ResumePlan(at.next_offset, halts=HaltReason.TRUNCATED)
    if at.next_offset < bounds.start:
        lost = _size(at.next_offset, bounds.start, known, processed=False)
        return ResumePlan(at.next_offset, lost, HaltReason.EXPIRED)
    return ResumePlan(at.next_offset)


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
