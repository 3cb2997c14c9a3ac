"""What a tick of the recovery manager knows of a group: partitions, workers, services, replays. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from offsets.cluster_facts import GroupMember
from offsets.monitoring.absence import NOTHING_KNOWN, Absence
from offsets.monitoring.event_times import ImplausibleTimes
from offsets.monitoring.late_loops import LateLoop
from offsets.monitoring.status import Verdict


class AffectedRange(NamedTuple):
    """Offsets `[start, end)` of one partition, and the problem that they have."""

    topic: str
    partition: int
    kind: str
    start: int
    end: int

    def as_json(self) -> dict[str, object]:
        return self._asdict()


@dataclass(frozen=True, slots=True)
class FailedRange:
    start: int
    end: int
    attempts: int
    #: None: no automatic retry is left.
    retry_at: datetime | None
    detail: str
    since: datetime


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition at one tick: its verdict, and what the findings need beside it."""

    checkpoint_id: int
    topic: str
    partition: int
    next_offset: int
    verdict: Verdict
    #: Since when it has this status.
    since: datetime
    owner: str | None = None
    claimed_at: datetime | None = None
    paused_by: str = ""
    paused_reason: str = ""
    halt_reason: str = ""
    halted_at: datetime | None = None
    log_start: int | None = None
    log_end: int | None = None
    #: Offsets a second by which retention moves the log start; None where it does not, or unknown.
    log_start_rate: float | None = None
    #: How long the oldest unread record has waited at least; None: nothing is unread, or unknown.
    unread_seconds: float | None = None
    #: How long the topic keeps its records; None: no limit, or unknown.
    retention_seconds: float | None = None
    #: Kafka deletes records below it within the warning time; None: unknown.
    old_below: int | None = None
    failed: Sequence[FailedRange] = ()
    eta_seconds: float | None = None
    #: Why it may have no owner.
    absence: Absence = NOTHING_KNOWN
    #: Offsets that Kafka deleted before they were read.
    lost: int = 0
    #: Records behind an open transaction, and since when.
    hidden: int = 0
    hidden_since: datetime | None = None

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class WorkerState:
    worker_id: str
    heartbeat_at: datetime
    #: No heartbeat for longer than the timeout, and not marked as stopped.
    dead: bool
    last_error: str = ""
    stage: str = ""
    stage_seconds: float | None = None
    #: Its stack trace; a worker reports it only when it is stuck and not waiting for a service.
    stack: str = ""
    topics: Sequence[str] = ()
    #: Why Kafka refuses it as a member of the group.
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class DeathState:
    """An open incident about a dead worker, with the partitions that another worker must take over."""

    worker_id: str
    began_at: datetime
    checkpoint_ids: frozenset[int]
    summary: str
    ranges: Sequence[AffectedRange] = ()


@dataclass(frozen=True, slots=True)
class GroupState:
    """Everything a tick knows."""

    now: datetime
    partitions: Sequence[PartitionState] = ()
    workers: Sequence[WorkerState] = ()
    deaths: Sequence[DeathState] = ()
    #: Members of the Kafka group that are not our workers; known only while partitions have no owner.
    strangers: Sequence[GroupMember] = ()
    #: Partitions of the topics that have no checkpoint yet; None while Kafka does not respond.
    unclaimed: Sequence[str] | None = ()
    #: Why a service does not respond, and since when: "kafka", "redis".
    services: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    #: Names of the violated invariants, and when they were found so.
    violated: Sequence[str] = ()
    violated_at: datetime | None = None
    #: Periodic loops that have not run for too long.
    late_loops: Sequence[LateLoop] = ()
    #: Replays that were started and that no process runs: (id, since).
    orphaned_replays: Sequence[tuple[int, datetime]] = ()
    #: Replays that no process has taken for too long: (id, since).
    waiting_replays: Sequence[tuple[int, datetime]] = ()
    #: Counted events whose time cannot be right.
    implausible: Sequence[ImplausibleTimes] = ()
