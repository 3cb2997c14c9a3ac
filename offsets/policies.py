"""When to commit: pure rules over what is pending, and their combinations.

A policy is asked after each fetched batch and at least every `COMMIT_INTERVAL_MS`. It decides about throughput and
freshness only: whatever it says, metrics and offsets move together, and nothing is committed in part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from offsets.types import BatchStats, TopicPartition


@dataclass(frozen=True, slots=True)
class Progress:
    """What waits to be committed, of all partitions of a worker together."""

    stats: BatchStats
    #: Since the oldest pending batch was decoded.
    seconds: float
    #: Fetched records, counted or not: what a skipped or poisoned stretch costs in time and memory.
    fetched_records: int
    #: The offsets `[start, end)` that wait, by partition.
    offsets: Mapping[TopicPartition, tuple[int, int]] = field(default_factory=dict)


@runtime_checkable
class CommitPolicy(Protocol):
    """A rule of when to commit. Called in the decoding thread: quick, and without side effects."""

    def due(self, progress: Progress) -> bool: ...


class _Combines:
    """`a | b` commits when either wants to, `a & b` when both do."""

    def __or__(self, other: CommitPolicy) -> "AnyOf":
        return AnyOf((self, other))  # type: ignore[arg-type]

    def __and__(self, other: CommitPolicy) -> "AllOf":
        return AllOf((self, other))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ByTime(_Combines):
    """Commit what has waited this long. Raises ValueError unless `seconds` is positive."""

    seconds: float

    def __post_init__(self) -> None:
        _positive(self.seconds, "seconds")

    def due(self, progress: Progress) -> bool:
        return progress.seconds >= self.seconds


@dataclass(frozen=True, slots=True)
class ByCount(_Combines):
    """Commit when so many records were fetched. Raises ValueError unless `records` is positive."""

    records: int

    def __post_init__(self) -> None:
        _positive(self.records, "records")

    def due(self, progress: Progress) -> bool:
        return progress.fetched_records >= self.records


@dataclass(frozen=True, slots=True)
class ByBytes(_Combines):
    """Commit when the counted records' values amount to so many bytes. Raises ValueError unless positive."""

    size_bytes: int

    def __post_init__(self) -> None:
        _positive(self.size_bytes, "size_bytes")

    def due(self, progress: Progress) -> bool:
        return progress.stats.size_bytes >= self.size_bytes


@dataclass(frozen=True, slots=True)
class ByType(_Combines):
    """Commit when one of these types of events has so many: `ByType({"share": 1})`. Raises ValueError."""

    events: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, count in self.events.items():
            _positive(count, name)

    def due(self, progress: Progress) -> bool:
        return any(progress.stats.by_type.get(name, 0) >= count for name, count in self.events.items())


@dataclass(frozen=True, slots=True)
class AnyOf(_Combines):
    """Commit when one of them wants to; never, when there is none."""

    policies: Sequence[CommitPolicy]

    def due(self, progress: Progress) -> bool:
        return any(policy.due(progress) for policy in self.policies)


@dataclass(frozen=True, slots=True)
class AllOf(_Combines):
    """Commit when all of them want to. Raises ValueError for none, which would always want to."""

    policies: Sequence[CommitPolicy]

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("AllOf needs at least one policy.")

    def due(self, progress: Progress) -> bool:
        return all(policy.due(progress) for policy in self.policies)


def _positive(value: float, name: str) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be more than 0, not {value!r}.")
