"""When to commit: pure rules over what is pending, and their combinations.

A policy is asked while no commit is under way: after each decoded batch, and every few milliseconds while nothing is
fetched. It decides about throughput and freshness only: whatever it says, metrics and offsets move together, and
nothing is committed in part.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from offsets.types import BatchStats, OffsetSpan, TopicPartition


@dataclass(frozen=True, slots=True)
class Progress:
    """What waits to be committed, of all partitions of a worker together."""

    stats: BatchStats
    #: Since the oldest pending batch was decoded.
    seconds: float
    #: Fetched records, counted or not: what a skipped or poisoned stretch costs in time and memory.
    fetched_records: int

    @property
    def offsets(self) -> Mapping[TopicPartition, OffsetSpan]:
        """The offsets `[start, end)` that wait, by partition."""
        return self.stats.offsets

    @property
    def partitions(self) -> int:
        """How many partitions have something that waits."""
        return len(self.stats.offsets)


@runtime_checkable
class CommitPolicy(Protocol):
    """A rule of when to commit. Called in the decoding thread: quick, and without side effects."""

    def due(self, progress: Progress) -> bool: ...


class _Combines:
    """`a | b` commits when either wants to, `a & b` when both do."""

    __slots__ = ()

    def __or__(self, other: CommitPolicy) -> "AnyOf":
        return AnyOf(_checked(self), other)

    # A policy of the user's own need not inherit this to stand on the left.
    def __ror__(self, other: CommitPolicy) -> "AnyOf":
        return AnyOf(other, _checked(self))

    def __and__(self, other: CommitPolicy) -> "AllOf":
        return AllOf(_checked(self), other)

    def __rand__(self, other: CommitPolicy) -> "AllOf":
        return AllOf(other, _checked(self))


@dataclass(frozen=True, slots=True)
class ByTime(_Combines):
    """Commit what has waited this long. Raises ValueError unless `seconds` is a number above 0."""

    seconds: float

    def __post_init__(self) -> None:
        _check_number(self.seconds, "ByTime needs a number of seconds")

    def due(self, progress: Progress) -> bool:
        return progress.seconds >= self.seconds


@dataclass(frozen=True, slots=True)
class ByCount(_Combines):
    """Commit when this many records were fetched. Raises ValueError unless that is a whole number above 0."""

    records: int

    def __post_init__(self) -> None:
        _check_whole(self.records, "ByCount needs a whole number of records")

    def due(self, progress: Progress) -> bool:
        return progress.fetched_records >= self.records


@dataclass(frozen=True, slots=True)
class ByBytes(_Combines):
    """Commit when the records' values amount to this many bytes. Raises ValueError unless a whole number above 0."""

    size_bytes: int

    def __post_init__(self) -> None:
        _check_whole(self.size_bytes, "ByBytes needs a whole number of bytes")

    def due(self, progress: Progress) -> bool:
        return progress.stats.size_bytes >= self.size_bytes


@dataclass(frozen=True, slots=True)
class ByType(_Combines):
    """Commit when one of these types of events has this many: `ByType({"share": 1})`.

    Types are the handler's: one that it never counts is never due. Raises ValueError for no type, and for a count that
    is not a whole number above 0.
    """

    events: Mapping[str, int]

    def __post_init__(self) -> None:
        if not isinstance(self.events, Mapping) or not self.events:
            raise ValueError(
                f'ByType needs at least one type with its count, as in {{"share": 1}}, not {self.events!r}.'
            )
        for name, count in self.events.items():
            _check_whole(count, f"ByType needs a whole number of {name!r} events")

    def due(self, progress: Progress) -> bool:
        return any(progress.stats.by_type.get(name, 0) >= count for name, count in self.events.items())


@dataclass(frozen=True, slots=True, init=False)
class AnyOf(_Combines):
    """Commit when one of them wants to; asked in order, up to the first yes. Raises ValueError for none."""

    policies: tuple[CommitPolicy, ...]

    def __init__(self, *policies: CommitPolicy) -> None:
        object.__setattr__(self, "policies", _members(policies, AnyOf))

    def due(self, progress: Progress) -> bool:
        return any(answer(policy, progress) for policy in self.policies)


@dataclass(frozen=True, slots=True, init=False)
class AllOf(_Combines):
    """Commit when all of them want to; asked in order, up to the first no. Raises ValueError for none."""

    policies: tuple[CommitPolicy, ...]

    def __init__(self, *policies: CommitPolicy) -> None:
        object.__setattr__(self, "policies", _members(policies, AllOf))

    def due(self, progress: Progress) -> bool:
        return all(answer(policy, progress) for policy in self.policies)


def answer(policy: CommitPolicy, progress: Progress) -> bool:
    """What the policy says. Raises TypeError for anything but a bool: a forgotten `return` would read as "never"."""
    said: object = policy.due(progress)
    if not isinstance(said, bool):
        raise TypeError(f"{type(policy).__qualname__}.due must answer True or False, not {said!r}")
    return said


def _members(policies: tuple[CommitPolicy, ...], kind: "type[AnyOf] | type[AllOf]") -> tuple[CommitPolicy, ...]:
    """Checked; members of the same kind are taken apart, so that `a | b | c` is one policy of three."""
    if not policies:
        raise ValueError(f"{kind.__name__} needs at least one policy.")
    flat: list[CommitPolicy] = []
    for policy in map(_checked, policies):
        if isinstance(policy, AnyOf | AllOf) and type(policy) is kind:
            flat.extend(policy.policies)
        else:
            flat.append(policy)
    return tuple(flat)


def _checked(policy: object) -> CommitPolicy:
    if isinstance(policy, type) or not isinstance(policy, CommitPolicy):
        raise ValueError(f"A commit policy is an object with a method due(progress), not {policy!r}.")
    return policy


def _check_number(number: object, what: str) -> None:
    usable = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not usable or number <= 0:  # type: ignore[operator]
        raise ValueError(f"{what} above 0, not {number!r}.")


def _check_whole(number: object, what: str) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{what} above 0, not {number!r}.")
