"""RecoveryManager: each second one leader looks at the group, judges it, writes that down, and repairs what is safe.

Several may run; one leads (`leadership.py`). Every age and every timeout is the database's clock.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings
from django.db import connection

from offsets.actions import automatic
from offsets.database import DATABASE_LOST, answers_within, describe_outage, meaning_of
from offsets.errors import ServiceUnavailableError
from offsets.leases import LeaseToken
from offsets.models import Incident, InvariantReport, PartitionCheckpoint
from offsets.monitoring import findings, incidents
from offsets.monitoring.findings import FindingLimits
from offsets.monitoring.group_state import AffectedRange, DeathState, GroupState
from offsets.outages import Meaning
from offsets.recovery import assessments
from offsets.recovery.leadership import Leadership, LostLeadershipError
from offsets.recovery.repairs import Repairs
from offsets.recovery.services import ServiceWatch
from offsets.replays import rows as replay_rows
from offsets.text import describe_error

logger = logging.getLogger(__name__)

#: A replay that no process has taken for so long has no worker.
REPLAY_WAITS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick saw and did, for `run_recovery_manager --json` and for tests."""

    leading: bool
    statuses: dict[str, str] = field(default_factory=dict)
    opened: Sequence[str] = ()
    closed: Sequence[str] = ()
    trouble: str = ""


class RecoveryManager:
    """Call `tick` about once a second, from one thread. `dispatch(replay_id)` has a replay run somewhere else."""

    def __init__(self, group_id: str, holder: str, *, dispatch: Callable[[int], object]) -> None:
        self.group_id = group_id
        self.holder = holder
        self.leadership = Leadership(group_id, holder)
        self.repairs = Repairs(self.leadership, dispatch)
        self._watch = ServiceWatch(group_id)

    def tick(self) -> Tick:
        """Look, judge, write, repair. An unavailable service raises nothing: the next tick tries again."""
        try:
            with answers_within(settings.DATABASE_ANSWER_SECONDS):
                return self._tick()
        except DATABASE_LOST as error:
            if meaning_of(error) is Meaning.CONTENDED:
                logger.warning("The recovery manager retries at the next tick: %s", describe_error(error))
                return Tick(leading=False, trouble=describe_error(error))
            self.leadership.miss_database(error)
            connection.close()
            return Tick(leading=False, trouble=f"{describe_outage(error)}.")
        except LostLeadershipError:
            logger.warning("%s lost the leadership to another recovery manager.", self.holder)
            return Tick(leading=False)

    def release(self) -> None:
        """Let a standby take over at once. Does nothing where another leads, or was the last to do so."""
        self.leadership.release()

    def _tick(self) -> Tick:
        token = self.leadership.acquire()
        if token is None:
            return Tick(leading=False)
        judged = self.leadership.can_judge_heartbeats()
        self._watch.look()
        state = self._state(judged=judged)
        opened, closed = self._write_down(token, state)
        self.repairs.run(token, state)
        return Tick(
            leading=True,
            statuses={partition.name: partition.verdict.label for partition in state.partitions},
            opened=_names(opened),
            closed=_names(closed),
        )

    def _write_down(self, token: LeaseToken, state: GroupState) -> tuple[list[Incident], list[Incident]]:
        """Write verdicts and incidents. An incident that names a partition waits for the lock on the partition's row,
        which a stuck worker may hold until it is repaired; so the repairs do not wait for this.
        """
        current = findings.find(state, _limits())
        try:
            with self.leadership.writing(token):
                self.leadership.record_missed(state.now)
                assessments.store(state.partitions)
                changed = incidents.reconcile(self.group_id, current)
        except ServiceUnavailableError as error:
            logger.warning("Verdicts and incidents are written at the next tick: %s", error)
            return [], []
        self.leadership.missed_is_recorded()
        return changed

    def _state(self, *, judged: bool) -> GroupState:
        report = InvariantReport.objects.filter(group_id=self.group_id, ok=False).first()
        seen, watch = assessments.workers(self.group_id), self._watch
        return GroupState(
            now=assessments.now(),
            partitions=assessments.partitions(self.group_id, watch.retention, watch.old_below, judged=judged),
            workers=seen if judged else [replace(worker, dead=False) for worker in seen],
            deaths=self._deaths(),
            unclaimed=watch.unclaimed,
            services=dict(watch.services),
            violated=[name for name, result in sorted(report.invariants.items()) if not result["ok"]] if report else (),
            violated_at=report.checked_at if report else None,
            orphaned_replays=replay_rows.orphaned(self.group_id),
            waiting_replays=replay_rows.not_taken(self.group_id, REPLAY_WAITS_SECONDS),
        )

    def _deaths(self) -> list[DeathState]:
        """The open incidents about dead workers, with the partitions that these workers owned."""
        deaths = []
        for incident in Incident.objects.filter(group_id=self.group_id, kind="worker_dead", closed_at__isnull=True):
            ranges = [AffectedRange(**fields) for fields in incident.ranges]
            rows = PartitionCheckpoint.objects.live(self.group_id)
            left = {(affected.topic, affected.partition) for affected in ranges}
            ids = {pk for pk, *place in rows.values_list("pk", "topic", "partition") if tuple(place) in left}
            deaths.append(
                DeathState(incident.worker_id, incident.began_at, frozenset(ids), incident.summary, tuple(ranges))
            )
        return deaths


def _limits() -> FindingLimits:
    return FindingLimits(
        settings.HEARTBEAT_TIMEOUT_SECONDS,
        settings.WORKER_STUCK_SECONDS,
        settings.RETENTION_WARN_SECONDS,
        automatic.BREAKER.name,
    )


def _names(rows: Sequence[Incident]) -> list[str]:
    return [str(row) for row in rows]
