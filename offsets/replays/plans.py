"""The effect of a replay, computed for the preview. Pure.

A replay never moves the live offset, and counts only uncounted offsets: `processed` ones are read but not counted,
offsets ahead of the live worker are left to it, and deleted ones are expired.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from offsets.actions.move_plans import Bounds
from offsets.errors import RefusedError
from offsets.ranges import KnownRange, OffsetRange, cut
from offsets.text import whole_number
from offsets.types import RangeKind

MAX_RANGES = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Offsets of one live checkpoint. `to_count` is what the preview showed; None without a preview."""

    checkpoint_id: int
    offsets: OffsetRange
    to_count: int | None = None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The plan of one range: what will be read, and the outcome of every offset, each in one of the numbers."""

    name: str
    wanted: OffsetRange
    #: Read from Kafka: from the first to the last offset that the ledger knows; None where nothing is left to read.
    readable: OffsetRange | None
    #: By their outcome so far: they become processed.
    to_count: dict[str, int] = field(default_factory=dict)
    #: Already counted, whether Kafka still has them or not.
    deduplicated: int = 0
    #: Deleted by Kafka, and never counted.
    expired: int = 0
    #: At or past the live offset: the live worker counts them.
    not_read_yet: int = 0
    #: Before the group's baseline.
    outside: int = 0

    @property
    def counted(self) -> int:
        return sum(self.to_count.values())

    def as_json(self) -> dict[str, object]:
        return {
            "start": self.wanted.start,
            "end": self.wanted.end,
            "to_count": self.counted,
            "by_kind": self.to_count,
            "deduplicated": self.deduplicated,
            "expired": self.expired,
            "not_read_yet": self.not_read_yet,
            "outside": self.outside,
        }

    @property
    def text(self) -> str:
        """The preview in one sentence."""
        kinds = ", ".join(f"{offsets:,} {kind}" for kind, offsets in sorted(self.to_count.items()))
        parts = [f"{self.counted:,} offsets are counted ({kinds})" if kinds else "no offsets left to count"]
        if self.deduplicated:
            parts.append(f"{self.deduplicated:,} are already counted")
        if self.expired:
            parts.append(f"{self.expired:,} are no longer in Kafka and cannot be replayed")
        if self.not_read_yet:
            parts.append(f"{self.not_read_yet:,} are ahead of the live worker, which will count them")
        if self.outside:
            parts.append(f"{self.outside:,} are before the group's baseline")
        span = f"[{self.wanted.start:,}, {self.wanted.end:,})"
        return f"Replay {self.name} {span}: {'; '.join(parts)}. The live offset does not move."


def plan_replay(
    name: str, wanted: OffsetRange, known: Sequence[KnownRange], next_offset: int, bounds: Bounds
) -> ReplayPlan:
    """`known` are the ledger's ranges that overlap `wanted`; `bounds` is what Kafka holds."""
    to_count: dict[str, int] = {}
    deduplicated = expired = not_read_yet = outside = 0
    pieces = cut(wanted, known)
    for start, end, kind in pieces:
        if kind is None:
            live = max(0, end - max(start, next_offset))
            not_read_yet += live
            outside += end - start - live
        elif kind is RangeKind.PROCESSED:
            deduplicated += end - start
        else:
            deleted = max(0, min(end, bounds.start) - start)
            expired += deleted
            if deleted < end - start:
                to_count[kind.value] = to_count.get(kind.value, 0) + end - start - deleted
    recorded = [piece for piece in pieces if piece.kind is not None and piece.end > bounds.start]
    readable = None
    if recorded:
        first, last = max(recorded[0].start, bounds.start), min(recorded[-1].end, bounds.end)
        readable = OffsetRange(first, last) if first < last else None
    return ReplayPlan(name, wanted, readable, to_count, deduplicated, expired, not_read_yet, outside)


def refuse_overlap(name: str, wanted: OffsetRange, active: Sequence[tuple[int, OffsetRange]]) -> None:
    """Raises RefusedError where an active replay, `(id, range)`, covers some of these offsets."""
    for replay_id, other in active:
        if other.start < wanted.end and wanted.start < other.end:
            raise RefusedError(
                f"{name} {wanted} overlaps {other} of replay {replay_id}, which is active. Wait, or cancel it."
            )


def parse_range(text: str) -> OffsetRange:
    """`START-END`, the end exclusive. Raises RefusedError."""
    start, dash, end = text.partition("-")
    first, last = whole_number(start), whole_number(end)
    if not dash or first is None or last is None:
        raise RefusedError(f"Invalid range {text!r}. Use START-END with an exclusive end, e.g. 1000-2000.")
    return checked_range(first, last)


def checked_range(start: int, end: int) -> OffsetRange:
    """Raises RefusedError for a range that is empty, reversed, negative or larger than any offset."""
    if not 0 <= start < end <= 2**62:
        raise RefusedError(f"Invalid range [{start}, {end}). It must start at 0 or later, and not be empty.")
    return OffsetRange(start, end)


def retry_seconds(attempts: int, first_seconds: float, limit: int, jitter: float) -> float | None:
    """The delay before the next automatic retry: doubles with each attempt, up to an hour; None at the limit.

    `jitter` in [0, 1) spreads ranges that failed together by up to a quarter.
    """
    if attempts >= limit:
        return None
    return min(3600.0, first_seconds * 2.0**attempts) * (1 + jitter / 4)
