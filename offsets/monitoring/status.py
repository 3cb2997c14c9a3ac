"""The status of a partition, from plain values, and the sentence that explains it. Pure.

Every status comes with one sentence that says what it means here and what to do next; unknown stays None.
The rules over the last minute's samples are those of LinkedIn's Burrow (its wiki, "Consumer Lag Evaluation Rules")
without two of its faults: Burrow sees a partition only when it commits, so its lag freezes once commits stop, and it
calls a quiet topic stopped, because it counts the time in which there was nothing to commit.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from offsets.monitoring.absence import NOTHING_KNOWN, Absence, missing_words, refused_words, unowned_words
from offsets.monitoring.lag import LagTime
from offsets.monitoring.numbers import Numbers
from offsets.monitoring.window import (
    FULL_WINDOW_SECONDS,
    CommitPoint,
    growth_per_second,
    is_still,
    moved_back_from,
    span_seconds,
    work_in,
)
from offsets.text import counted, duration
from offsets.types import DesiredState, HaltReason

#: A lag that would take longer than this to disappear does not count as shrinking: it is noise, or too slow.
CATCH_UP_HORIZON_SECONDS = 3600.0
#: A partition with lag that commits nothing for longer than this is STOPPED.
STOPPED_SECONDS = 60.0


class Status(enum.StrEnum):
    """Worst last: the order is the severity."""

    OK = "OK"
    CATCHING_UP = "CATCHING UP"
    #: Of a group: a warning, dead letters or retries are open.
    ATTENTION = "ATTENTION"
    LAGGING = "LAGGING"
    SLOW = "SLOW"
    OPEN_TRANSACTION = "OPEN TRANSACTION"
    PAUSED = "PAUSED"
    REWOUND = "REWOUND"
    #: Of a group: a critical incident is open.
    INCIDENT = "INCIDENT"
    STALLED = "STALLED"
    STOPPED = "STOPPED"
    STUCK = "STUCK"
    UNOWNED = "UNOWNED"
    REFUSED = "REFUSED"
    OWNER_DEAD = "OWNER DEAD"
    TOPIC_MISSING = "TOPIC MISSING"
    FAILED = "FAILED"
    HALTED = "HALTED"

    @classmethod
    def of_label(cls, label: str) -> "Status":
        """The status in what is shown of it: `STUCK AT OFFSET 812,400` is STUCK."""
        for status in cls:
            if label == status or label.startswith(f"{status} "):
                return status
        raise ValueError(f"Unknown status {label!r}.")


# --- Status of one partition ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    heartbeat_timeout_seconds: float
    allowed_lag_seconds: float
    #: A worker that is in one stage for longer is stuck.
    stuck_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What is known of one partition at one moment."""

    name: str
    next_offset: int
    owner: str | None = None
    owner_heartbeat_age_seconds: float | None = None
    owner_stopped: bool = False
    desired_state: str = DesiredState.RUNNING
    paused_by: str = "an operator"
    halt_reason: str = HaltReason.NONE
    halt_detail: str = ""
    #: None is unknown. An old sample must come as None: a lag that is no longer measured would look steady.
    lag: int | None = None
    lag_time: LagTime = LagTime(None, 0.0)
    #: Offsets that Kafka deleted before they were read.
    lost: int = 0
    #: Records behind an open transaction, and since when; they are not part of the lag.
    hidden: int = 0
    hidden_since: datetime | None = None
    hidden_seconds: float | None = None
    #: How fast the lag grows; negative while it shrinks. Used while the window is too short.
    lag_growth_per_second: float | None = None
    #: The last minute, oldest first, about one sample a second; the newest gave `lag`. It begins when its owner
    #: claimed it or when it was resumed: before that it could not move.
    window: Sequence[CommitPoint] = ()
    #: Since its last commit, or since it was claimed or resumed if that is later.
    seconds_since_commit: float | None = None
    #: The stage of its worker on this partition, as in "decoding engagement-3 [100, 200)"; empty: idle.
    stage: str = ""
    stage_seconds: float | None = None
    #: Why its worker is waiting, as in "database: connection refused".
    worker_trouble: str = ""
    #: Ranges that could not be applied, those with an automatic retry included.
    failed_ranges: int = 0
    failed_offsets: int = 0
    #: How many of the failed ranges have no retry left.
    failed_given_up: int = 0
    #: Why it may have no owner.
    absence: Absence = NOTHING_KNOWN


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    #: What it means here, and what to do; as a template until `assess` or a reader fills in its numbers.
    detail: str
    #: Where a STUCK partition stands.
    offset: int | None = None
    #: How many offsets of a FAILED partition could not be applied.
    failed_offsets: int = 0
    #: The detail without its numbers, see `Numbers`.
    template: str = ""

    @property
    def label(self) -> str:
        """The status as it is shown."""
        if self.status is Status.STUCK and self.offset is not None:
            return f"{self.status} AT OFFSET {self.offset:,}"
        return self.status.value


_HALTED: Mapping[str, str] = {
    HaltReason.EXPIRED: "Kafka deleted records before they were read",
    HaltReason.TRUNCATED: "the log was cut off before the next offset: Kafka has lost records that were counted",
    HaltReason.RECREATED: "the topic was deleted and recreated, so its offsets refer to other records",
    HaltReason.UNREADABLE: "the Kafka client cannot read the next records",
    HaltReason.STORE_MISSING: "the offset store has lost its offset",
}


def assess(facts: PartitionFacts, limits: Limits) -> Verdict:
    """The status of one partition, and what it means."""
    verdict = judge(facts, limits)
    numbers = Numbers(facts.lag, facts.lag_time, facts.hidden, facts.next_offset)
    return replace(verdict, detail=numbers.fill(verdict.detail), template=verdict.detail)


def judge(facts: PartitionFacts, limits: Limits) -> Verdict:
    """The status of one partition, its detail as a template. What stops counting for longest comes first.

    A missing owner goes before FAILED although it is less severe: without an owner nothing else can be fixed. The
    detail names the status that is hidden by this.
    """
    if facts.halt_reason:
        return _halted(facts)
    if facts.absence.missing:
        return Verdict(Status.TOPIC_MISSING, missing_words(facts.name, facts.absence.topic))
    unserved = _unserved(facts, limits)
    if unserved:
        return unserved
    served = _paused(facts) or _stuck(facts, limits) or _running(facts, limits)
    if _hides(facts, limits) and served.status is not Status.OPEN_TRANSACTION:
        served = replace(served, detail=f"{served.detail} {{hidden}} more wait behind an open transaction.")
    if facts.failed_given_up > 0:
        return _failed(facts, served)
    if facts.failed_ranges > 0:
        retried = f"{counted(facts.failed_offsets, 'offset')} could not be applied yet; an automatic replay retries."
        return replace(served, detail=f"{served.detail} {retried}")
    return served


def _halted(facts: PartitionFacts) -> Verdict:
    cause = _HALTED.get(facts.halt_reason, facts.halt_reason.replace("_", " "))
    detail = facts.halt_detail.strip().rstrip(".")
    return Verdict(
        Status.HALTED,
        f"Halted at offset {facts.next_offset:,}: {cause}{f' ({detail})' if detail else ''}. "
        "Nothing is counted until an operator resolves it: see docs/how-to/troubleshooting.md.",
    )


def _unserved(facts: PartitionFacts, limits: Limits) -> Verdict | None:
    """The verdict on a partition without a live owner; None where it has one."""
    also = _lost(facts) + (" Also paused." if _is_paused(facts) else "")
    if facts.failed_given_up > 0:
        also += f" {counted(facts.failed_offsets, 'offset')} could not be applied."
    if facts.owner is None and facts.absence.refused:
        return Verdict(Status.REFUSED, refused_words(facts.absence.refused, facts.absence.strangers) + also)
    if facts.owner is None:
        return Verdict(Status.UNOWNED, unowned_words(facts.name, facts.absence) + also)
    age = facts.owner_heartbeat_age_seconds
    if age is not None and age > limits.heartbeat_timeout_seconds:
        allowed = f"HEARTBEAT_TIMEOUT_SECONDS allows {duration(limits.heartbeat_timeout_seconds)}"
        what = f"Owner dead for {duration(age)} ({allowed}): {facts.owner} stopped sending heartbeats."
    elif facts.owner_stopped or age is None:
        what = f"Its owner {facts.owner} stopped without releasing it."
    else:
        return None
    return Verdict(Status.OWNER_DEAD, f"{what} {_successor(facts)}{also}")


def _successor(facts: PartitionFacts) -> str:
    """Who takes over from a dead owner, or why nobody does."""
    if facts.absence.refused:
        return refused_words(facts.absence.refused, facts.absence.strangers)
    if facts.absence.explained:
        return unowned_words(facts.name, facts.absence)
    return "Another worker takes over when Kafka assigns it. If none is left, start one: manage.py run_consumer."


def _failed(facts: PartitionFacts, served: Verdict) -> Verdict:
    """FAILED stays until an operator resolves it, so the detail names what else is wrong meanwhile."""
    left = f" for {facts.failed_given_up:,} of them" if facts.failed_given_up < facts.failed_ranges else ""
    also = "" if served.status is Status.OK else f" Also {served.label}: {served.detail}"
    return Verdict(
        Status.FAILED,
        f"{counted(facts.failed_offsets, 'offset')} in {counted(facts.failed_ranges, 'range')} could not be applied, "
        f"with no retries left{left}. Fix the cause and replay them, or accept the loss.{also}",
        failed_offsets=facts.failed_offsets,
    )


def _is_paused(facts: PartitionFacts) -> bool:
    return facts.desired_state == DesiredState.PAUSED


def _paused(facts: PartitionFacts) -> Verdict | None:
    if not _is_paused(facts):
        return None
    waiting = ", {lag} behind" if facts.lag else ""
    return Verdict(
        Status.PAUSED,
        f"Paused by {facts.paused_by} at offset {{next}}{waiting}. Resume it once the cause is fixed.{_lost(facts)}",
    )


def _lost(facts: PartitionFacts) -> str:
    if not facts.lost:
        return ""
    return f" {counted(facts.lost, 'offset')} lost so far: Kafka deleted them before they were read (expired)."


def _stuck(facts: PartitionFacts, limits: Limits) -> Verdict | None:
    """A live worker that stays in one stage without a reason: waiting longer will not help.

    Without lag nothing is held up, whatever the worker last reported. An unknown lag is no excuse: a stuck worker and
    an unreachable broker occur together.
    """
    if not facts.stage or facts.worker_trouble or facts.lag == 0:
        return None
    if facts.stage_seconds is None or not facts.stage_seconds > limits.stuck_seconds:
        return None
    return Verdict(
        Status.STUCK,
        f"Stuck at offset {facts.next_offset:,}: {_busy(facts)}, more than {duration(limits.stuck_seconds)} "
        "(WORKER_STUCK_SECONDS). Evict the worker so that another one takes over.",
        offset=facts.next_offset,
    )


def _busy(facts: PartitionFacts) -> str:
    if not facts.stage or facts.stage_seconds is None:
        return f"its worker {facts.owner} is alive"
    return f"its worker {facts.owner} has been {facts.stage} for {duration(facts.stage_seconds)}"


# --- A live owner: the last minute ----------------------------------------------------------------


def eta_seconds(facts: PartitionFacts, limits: Limits) -> float | None:
    """Seconds until it has caught up, at the measured rate; None where the lag does not shrink, where it is within the
    limit and changes for no reason, or where it is unknown.
    """
    if facts.lag == 0:
        return 0.0
    if facts.lag is None or facts.owner is None or facts.halt_reason or _is_paused(facts) or _keeps_up(facts, limits):
        return None  # the former rate says nothing about a partition that is not read
    growth = _growth(facts)
    if growth is None or growth >= 0:
        return None
    seconds = facts.lag / -growth
    return seconds if seconds <= CATCH_UP_HORIZON_SECONDS else None


def _growth(facts: PartitionFacts) -> float | None:
    """Of the last minute; between two samples for a reader without it. None: too early to tell."""
    growth = growth_per_second(work_in(facts.window))
    growth = facts.lag_growth_per_second if growth is None else growth
    return None if growth is None or math.isnan(growth) else growth


def _keeps_up(facts: PartitionFacts, limits: Limits) -> bool:
    return facts.lag == 0 or facts.lag_time.at_least_seconds <= limits.allowed_lag_seconds


def _hides(facts: PartitionFacts, limits: Limits) -> bool:
    """Whether a transaction has been open for longer than a reader may be behind; short ones are normal."""
    return facts.hidden > 0 and (facts.hidden_seconds or 0.0) > limits.allowed_lag_seconds


def _running(facts: PartitionFacts, limits: Limits) -> Verdict:
    """Burrow's rules, with the current lag: a lag within the limit is OK, however it changes."""
    trouble = f" Its worker is waiting: {facts.worker_trouble}." if facts.worker_trouble else ""
    if facts.lag is None:
        what = "Its worker is alive. The lag is unknown: no recent sample of the log end."
        return Verdict(Status.OK, what + trouble)
    if _keeps_up(facts, limits):
        if _hides(facts, limits):
            return _waiting(facts)
        known = ", {behind}" if facts.lag and facts.lag_time.seconds is not None else ""
        done = trouble or " No action needed."
        return Verdict(Status.OK, f"Keeping up: {{lag}}{known} behind.{done}")
    if is_still(work_in(facts.window), facts.next_offset):
        return _unmoved(facts)
    highest = moved_back_from(facts.window, facts.next_offset)
    return _moving(facts, limits, trouble) if highest is None else _rewound(facts, limits, highest)


def _waiting(facts: PartitionFacts) -> Verdict:
    since = f" since {facts.hidden_since:%H:%M:%S} UTC" if facts.hidden_since else ""
    topic, _, partition = facts.name.rpartition("-")
    return Verdict(
        Status.OPEN_TRANSACTION,
        f"Waiting for an open transaction: {{hidden}}{since}. Everything before it is counted. They can be read when "
        "the producer commits or aborts, at the latest after the producer's transaction.timeout.ms. To find the "
        "producer: kafka-transactions.sh --bootstrap-server … describe-producers "
        f"--topic {topic} --partition {partition}.",
    )


def _unmoved(facts: PartitionFacts) -> Verdict:
    """STALLED: its owner is alive, it has lag and makes no progress. STOPPED: the same for longer than a minute.

    A minute *with lag*: after a quiet hour the last commit is an hour old, which is not the worker's fault.
    """
    still, since = span_seconds(work_in(facts.window)), facts.seconds_since_commit
    if since is None:
        stopped, idle = still >= FULL_WINDOW_SECONDS, still
    else:
        waited = max(still, facts.lag_time.at_least_seconds)
        stopped, idle = since > STOPPED_SECONDS and waited >= FULL_WINDOW_SECONDS, max(still, min(since, waited))
    if facts.worker_trouble:
        next_step = f"its worker is waiting ({facts.worker_trouble}). It resumes automatically."
    elif stopped:
        next_step = f"{_busy(facts)} and commits nothing. Evict the worker."
    else:
        next_step = f"{_busy(facts)}. Check its last error; if this continues, evict the worker."
    return Verdict(
        Status.STOPPED if stopped else Status.STALLED,
        f"{{lag}} behind, no progress for {duration(idle)}: {next_step}",
    )


def _rewound(facts: PartitionFacts, limits: Limits, highest: int) -> Verdict:
    eta = eta_seconds(facts, limits)
    done = f", done in about {duration(eta)}" if eta is not None else ""
    return Verdict(
        Status.REWOUND,
        f"Re-reading after an operator's seek back from offset {highest:,}: "
        f"{{lag}} behind{done}. No action needed unless the seek was a mistake.",
    )


def _moving(facts: PartitionFacts, limits: Limits, trouble: str) -> Verdict:
    """It makes progress, or there are too few samples to tell; what matters is whether the lag shrinks."""
    work_growth, eta = growth_per_second(work_in(facts.window)), eta_seconds(facts, limits)
    if _growth(facts) is None:
        early = "It has only just begun to read: whether the lag shrinks is known after 5 s."
        return Verdict(Status.CATCHING_UP, f"{{lag}} and {{behind}} behind. {early}{trouble}")
    if eta is not None:
        done = trouble or " No action needed."
        return Verdict(
            Status.CATCHING_UP, f"Catching up: {{lag}} and {{behind}} behind, done in about {duration(eta)}.{done}"
        )
    allowed = f"; {duration(limits.allowed_lag_seconds)} are allowed (ALLOWED_LAG_SECONDS)"
    if work_growth is not None and work_growth > 0:
        what = f"growing by {work_growth:,.1f} records/s{allowed}: it reads more slowly than records arrive."
        advice = trouble or " Add a worker, if a worker has several partitions: manage.py run_consumer."
        return Verdict(Status.SLOW, f"{{lag}} and {{behind}} behind, {what}{advice}")
    advice = trouble or " Check for a slow or failing worker below, or add one: manage.py run_consumer."
    return Verdict(Status.LAGGING, f"{{lag}} and {{behind}} behind, not catching up{allowed}.{advice}")
