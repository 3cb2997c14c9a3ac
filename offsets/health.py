"""How a partition is, from plain values: its lag, its status, and what to say about it. Pure.

Every status comes with one sentence that says what it means here and what to do next; unknown stays None.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from offsets.types import DesiredState, HaltReason

#: Watermarks older than this say nothing about the lag of now. Twice a missed tick at the slowest rate.
SAMPLE_FRESH_SECONDS = 15.0
#: A lag that would take longer than this to disappear does not count as shrinking: it is noise, or too slow.
CATCH_UP_HORIZON_SECONDS = 3600.0
#: An invariant report older than this is quoted with its age.
INVARIANTS_FRESH_SECONDS = 60.0
_NAMES_IN_HEADLINE = 3
START_A_WORKER = "Start a worker: manage.py run_consumer"


class Status(enum.StrEnum):
    """Worst last: the order is the severity."""

    OK = "OK"
    LAGGING = "LAGGING"
    PAUSED = "PAUSED"
    UNOWNED = "UNOWNED"
    HALTED = "HALTED"


_SEVERITY = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Sequence[Status]) -> Status:
    """The status of the whole: that of its worst part; OK for nothing."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Status.OK)


# --- Lag ------------------------------------------------------------------------------------------


class LogEnd(NamedTuple):
    """Where the log ended at one moment."""

    at_seconds: float
    offset: int


@dataclass(frozen=True, slots=True)
class LagTime:
    """Lag in seconds. Beyond the known history it is unknown, but `at_least_seconds` still holds."""

    seconds: float | None
    at_least_seconds: float


def lag_records(log_end_offset: int | None, next_offset: int) -> int | None:
    """Records not yet read. Never negative: the next offset may be newer than the sampled end."""
    return None if log_end_offset is None else max(0, log_end_offset - next_offset)


def lag_time(points: Sequence[LogEnd], next_offset: int) -> LagTime:
    """How long ago `next_offset` was the end of the log; points oldest first.

    The oldest unread record arrived after the *last* moment at which the log ended at or before it, so a topic that
    was quiet for an hour and then got one record is seconds behind, not an hour. Between two points the end is taken
    to have grown evenly. Never extrapolates: that is where other tools get NaN and years.
    """
    if len(points) < 2:
        return LagTime(None, 0.0)
    newest = points[-1]
    if next_offset >= newest.offset:
        return LagTime(0.0, 0.0)
    for before, after in zip(reversed(points[:-1]), reversed(points), strict=False):
        if before.offset <= next_offset:
            share = (next_offset - before.offset) / (after.offset - before.offset)
            reached = before.at_seconds + share * (after.at_seconds - before.at_seconds)
            seconds = max(0.0, newest.at_seconds - reached)
            return LagTime(seconds, seconds)
    return LagTime(None, max(0.0, newest.at_seconds - points[0].at_seconds))


def per_second(older: tuple[float, int] | None, newer: tuple[float, int] | None) -> float | None:
    """The growth between two (seconds, value) samples, per second; None when it cannot be known."""
    if older is None or newer is None or newer[0] <= older[0]:
        return None
    return (newer[1] - older[1]) / (newer[0] - older[0])


def total_or_none(values: Sequence[int | None]) -> int | None:
    """The sum, or None where a part is unknown or there is none: a partial lag would read as the whole."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def longest_or_none(values: Sequence[float | None]) -> float | None:
    """The maximum, or None where a part is unknown or there is none."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


# --- Words ----------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """`0.4 s`, `38 s`, `4 min`, `2 h`, `3 d`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((99.5, 1, "s"), (5970, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _names(names: Sequence[str]) -> str:
    shown = list(names[:_NAMES_IN_HEADLINE])
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown):,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


# --- Status of one partition ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    heartbeat_timeout_seconds: float
    allowed_lag_seconds: float


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What is known of one partition at one moment."""

    name: str
    next_offset: int
    owner: str | None = None
    owner_heartbeat_age_seconds: float | None = None
    owner_stopped: bool = False
    desired_state: str = DesiredState.RUNNING
    halt_reason: str = HaltReason.NONE
    halt_detail: str = ""
    lag: int | None = None
    lag_time: LagTime = LagTime(None, 0.0)
    #: How fast the lag grows; negative while it shrinks.
    lag_growth_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    detail: str


_HALTED: Mapping[str, str] = {
    HaltReason.EXPIRED: "Kafka deleted records before they were read",
    HaltReason.TRUNCATED: "the log ends before the next offset, so records that were counted are gone from Kafka",
    HaltReason.RECREATED: "the topic was deleted and created again, so its offsets mean other records now",
    HaltReason.STORE_MISSING: "the offset store is empty where it held an offset",
}


def assess(facts: PartitionFacts, limits: Limits) -> Verdict:
    """The status of one partition. What stops counting for longest comes first."""
    if facts.halt_reason:
        return _halted(facts)
    unowned = _unowned(facts, limits)
    if unowned:
        also = " It is paused as well." if facts.desired_state == DesiredState.PAUSED else ""
        return Verdict(Status.UNOWNED, unowned + also)
    if facts.desired_state == DesiredState.PAUSED:
        waiting = f"; {_count(facts.lag, 'record')} wait" if facts.lag else ""
        return Verdict(
            Status.PAUSED,
            f"Paused by an operator at offset {facts.next_offset:,}{waiting}. Resume it when the reason is gone.",
        )
    return _running(facts, limits)


def _halted(facts: PartitionFacts) -> Verdict:
    cause = _HALTED.get(facts.halt_reason, facts.halt_reason.replace("_", " "))
    detail = facts.halt_detail.strip().rstrip(".")
    return Verdict(
        Status.HALTED,
        f"Halted at offset {facts.next_offset:,}: {cause}{f' ({detail})' if detail else ''}. "
        "It counts nothing until an operator decides: see docs/operations.md.",
    )


def _unowned(facts: PartitionFacts, limits: Limits) -> str:
    """Why nobody works on this partition; empty when somebody does."""
    if facts.owner is None:
        return f"No worker owns it, so nothing is counted. {START_A_WORKER}."
    age = facts.owner_heartbeat_age_seconds
    if age is not None and age > limits.heartbeat_timeout_seconds:
        return (
            f"Owner dead for {duration(age)}: {facts.owner} stopped answering without releasing it. "
            "Another worker takes over as soon as Kafka assigns it; if none is left, start one: manage.py run_consumer."
        )
    if facts.owner_stopped or age is None:
        return (
            f"Its owner {facts.owner} ended without releasing it. "
            "Another worker takes over as soon as Kafka assigns it; if none is left, start one: manage.py run_consumer."
        )
    return ""


def _running(facts: PartitionFacts, limits: Limits) -> Verdict:
    if facts.lag is None:
        return Verdict(
            Status.OK, "Its worker is alive. The lag is unknown: nobody has sampled the end of the log lately."
        )
    behind = facts.lag_time.seconds
    words = duration(behind) if behind is not None else f"more than {duration(facts.lag_time.at_least_seconds)}"
    if facts.lag == 0 or facts.lag_time.at_least_seconds <= limits.allowed_lag_seconds:
        known = f", {words} behind" if facts.lag and behind is not None else ""
        return Verdict(Status.OK, f"Keeps up: {_count(facts.lag, 'record')} to read{known}. Nothing to do.")
    growth = facts.lag_growth_per_second
    if growth is not None and growth < 0 and facts.lag / -growth <= CATCH_UP_HORIZON_SECONDS:
        return Verdict(
            Status.OK,
            f"Catching up: {_count(facts.lag, 'record')} to read, {words} behind, "
            f"done in about {duration(facts.lag / -growth)}. Nothing to do.",
        )
    return Verdict(
        Status.LAGGING,
        f"{_count(facts.lag, 'record')} and {words} behind, and not catching up. "
        "Look for a slow or failing worker below, or add one: manage.py run_consumer.",
    )


# --- The headline ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What the headline is made of."""

    partitions: Sequence[tuple[str, Verdict]]
    lag: int | None = None
    lag_seconds: float | None = None
    #: None before the first check.
    invariants_ok: bool | None = None
    invariants_age_seconds: float | None = None
    violated: Sequence[str] = ()
    dead_letters: int = 0
    duplicates: int = 0
    #: Offsets passed without being counted, by kind: skipped, expired, failed, claimed.
    uncounted: Mapping[str, int] = field(default_factory=dict)


def group_status(facts: GroupFacts) -> Status:
    """The worst of the partitions; a violated invariant is as bad as a halt, whatever they say."""
    if facts.invariants_ok is False:
        return Status.HALTED
    return worst([verdict.status for _, verdict in facts.partitions])


def headline(facts: GroupFacts) -> str:
    """The page's first line: what is wrong and where, or that nothing is."""
    if not facts.partitions:
        return f"No partition has been claimed yet. {START_A_WORKER}"
    sentences = []
    if facts.invariants_ok is False:
        which = f" ({', '.join(facts.violated)})" if facts.violated else ""
        sentences.append(f"The ledger does not add up{which}. Run manage.py verify_offsets.")
    sentences.append(_state(facts.partitions, lag_known=facts.lag is not None))
    if facts.lag is not None:
        seconds = f" ({duration(facts.lag_seconds)})" if facts.lag_seconds is not None else ""
        sentences.append(f"Lag {facts.lag:,}{seconds}.")
    else:
        sentences.append("Lag unknown.")
    if facts.dead_letters:
        verb = "waits" if facts.dead_letters == 1 else "wait"
        sentences.append(f"{_count(facts.dead_letters, 'dead letter')} {verb} for a decision.")
    if facts.invariants_ok is not False:
        sentences.append(_promise(facts))
    return " ".join(sentences)


def _state(partitions: Sequence[tuple[str, Verdict]], *, lag_known: bool) -> str:
    by_status = {status: [name for name, verdict in partitions if verdict.status == status] for status in Status}
    total, fine = len(partitions), len(by_status[Status.OK])
    if fine == total:
        subject, plural = ("The only partition", "s") if total == 1 else (f"All {total:,} partitions", "")
        if lag_known:
            return f"{subject} keep{plural} up."
        return f"{subject} {'has' if total == 1 else 'have'} a live worker."
    if len(by_status[Status.UNOWNED]) == total:
        return f"No live worker owns any of the {_count(total, 'partition')}; nothing is counted. {START_A_WORKER}."
    parts = []
    for status in reversed(Status):
        names = by_status[status]
        if names and status != Status.OK:
            verb = "is" if len(names) == 1 else "are"
            word = "without a live owner" if status == Status.UNOWNED else status.value.lower()
            parts.append(f"{_names(names)} {verb} {word}")
    others = f"; the other {fine:,} {'is' if fine == 1 else 'are'} fine" if fine else ""
    return f"{'; '.join(parts)}{others}."


def _promise(facts: GroupFacts) -> str:
    """What may be said about loss and double counting: only what the invariants and the ledger show."""
    if facts.invariants_ok is None:
        return "Invariants not checked yet."
    uncounted = {kind: offsets for kind, offsets in facts.uncounted.items() if offsets}
    if uncounted:
        kinds = ", ".join(f"{offsets:,} {kind}" for kind, offsets in sorted(uncounted.items()))
        lost = f"{_count(sum(uncounted.values()), 'offset')} not counted ({kinds})"
    else:
        lost = "Nothing lost"
    twice = f"{facts.duplicates:,} counted twice" if facts.duplicates else "nothing counted twice"
    age = facts.invariants_age_seconds
    checked = f" (checked {duration(age)} ago)" if age is not None and age > INVARIANTS_FRESH_SECONDS else ""
    return f"{lost}, {twice}{checked}."
