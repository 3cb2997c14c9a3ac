"""RecoveryManager: one leader looks at everything each second, says what is wrong, and mends what is safe to mend.

Several may run; a lease row makes one of them the leader, and each of its writes compares the leader's epoch, so that
one that was stopped and goes on writes nothing. Every age and every timeout is the database's clock.
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from offsets import journal, leases, ledger, workers
from offsets.actions import automatic, dead_letters, eviction
from offsets.actions.guards import bounded_wait
from offsets.clock import monotonic
from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.leases import LeaseToken
from offsets.models import DeadLetter, Incident, InvariantReport, Lease, OperatorAction, PartitionCheckpoint
from offsets.monitoring import findings, incidents
from offsets.monitoring.findings import AffectedRange, DeathState, Finding, FindingLimits, GroupState, WorkerState
from offsets.ranges import OffsetRange
from offsets.recovery import assessments
from offsets.recovery.services import ServiceWatch
from offsets.replays import requests
from offsets.replays import rows as replay_rows
from offsets.replays.plans import MAX_RANGES, Wanted
from offsets.text import describe_error
from offsets.types import RangeKind

logger = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
#: A manager that did not tick for this long was without a database, and so, perhaps, were the workers.
GAP_SECONDS = 6
#: A replay that nobody has taken for so long has no worker.
REPLAY_WAITS_SECONDS = 60.0
#: A replay that was sent is not sent again for so long.
DISPATCH_SECONDS = 10.0
#: Workers that got stuck at the same place so often within the hour: then the place waits for a person.
STUCK_AT_ONE_PLACE = 3
#: How often rebuilt partitions are looked at for letters that were counted before.
COUNT_AGAIN_SECONDS = 10.0
_GONE_WITHOUT_A_WORD = "the process that led before did not say goodbye"


class LostLeadershipError(Exception):
    """Another manager leads now; nothing may be written any more."""


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
        self._dispatch = dispatch
        self._watch = ServiceWatch(group_id)
        #: When the database was first missed, by this process's monotonic clock.
        self._database_missed: tuple[float, str] | None = None
        #: The leader whose lease this one took over, until that is written down.
        self._former: Lease | None = None

    def tick(self) -> Tick:
        """Look, judge, write, mend. Raises nothing for a service that is away: the next tick goes on by itself."""
        try:
            return self._tick()
        except DATABASE_LOST as error:
            if _is_contention(error):
                logger.warning("The recovery manager looks again: %s", describe_error(error))
                return Tick(leading=False, trouble=describe_error(error))
            if self._database_missed is None:
                self._database_missed = (monotonic(), " ".join(str(error).split()))
                logger.warning("The recovery manager waits for its database: %s", self._database_missed[1])
            connection.close()
            return Tick(leading=False, trouble=describe_error(error))
        except LostLeadershipError:
            logger.warning("%s does not lead any more.", self.holder)
            return Tick(leading=False)

    def release(self) -> None:
        """Let a standby take over at once. Does nothing where another leads, or was the last to do so."""
        held = Lease.objects.filter(pk=self._lease_name, holder=self.holder).first()
        if held:
            leases.release(LeaseToken(held.name, held.holder, held.epoch))

    # --- Leading -------------------------------------------------------------------------------

    @property
    def _lease_name(self) -> str:
        return f"recovery-manager:{self.group_id}"

    def _tick(self) -> Tick:
        before = Lease.objects.filter(pk=self._lease_name).first()
        token = leases.acquire(self._lease_name, self.holder, LEASE_SECONDS)
        if token is None:
            self._database_missed = self._former = None
            return Tick(leading=False)
        if before is not None and before.holder not in ("", self.holder):
            self._former = before
        judged = self._can_judge_heartbeats()
        self._watch.look()
        state = self._state(judged=judged)
        opened, closed = self._write_down(token, state)
        self._mend(token, state)
        return Tick(
            leading=True,
            statuses={one.name: one.verdict.label for one in state.partitions},
            opened=_names(opened),
            closed=_names(closed),
        )

    def _write_down(self, token: LeaseToken, state: GroupState) -> tuple[list[Incident], list[Incident]]:
        """Verdicts and incidents. A row that names a partition waits for whoever holds the partition's row: a stuck
        worker may, for as long as nobody mends it, so mending does not wait for this.
        """
        found = findings.find(state, self._limits())
        try:
            with self._writing(token):
                self._tell_what_was_missed(state.now)
                assessments.store(state.partitions)
                changed = incidents.reconcile(self.group_id, found)
        except ServiceUnavailableError as error:
            logger.warning("What the recovery manager saw is written at the next tick: %s", error)
            return [], []
        self._database_missed = self._former = None
        return changed

    @contextmanager
    def _writing(self, token: LeaseToken) -> Iterator[None]:
        """A transaction of the leader; the lock makes a successor wait for its end.

        It waits for no row for long, or one stopped process would stop the watch over all others: raises
        ServiceUnavailableError then.
        """
        with transaction.atomic(), bounded_wait():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM offsets_lease WHERE name = %s AND holder = %s AND epoch = %s FOR SHARE",
                    [token.name, token.holder, token.epoch],
                )
                if cursor.fetchone() is None:
                    raise LostLeadershipError
            yield
            with connection.cursor() as cursor:
                # Here rather than at COMMIT: to refer to a partition's row is to wait for whoever has locked it.
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _can_judge_heartbeats(self) -> bool:
        """Whether missing heartbeats may be held against workers.

        Not right after a gap in these very ticks: a database that was away for it was away for them, too. They get
        one heartbeat timeout to report back.
        """
        ticking, grace = f"supervision:{self.group_id}", f"supervision-grace:{self.group_id}"
        live = leases.live([ticking, grace])
        leases.acquire(ticking, "manager", GAP_SECONDS)
        if ticking not in live or self._database_missed is not None:
            leases.acquire(grace, "manager", settings.HEARTBEAT_TIMEOUT_SECONDS)
            return False
        return grace not in live

    def _tell_what_was_missed(self, now: datetime) -> None:
        """What nobody could write down while it lasted: the former leader's end, a database that was away."""
        if self._former is not None:
            last = self._former.expires_at - timedelta(seconds=LEASE_SECONDS)
            finding = Finding(
                "manager_lost",
                "recovery manager",
                f"The leader {self._former.holder} is gone, and {self.holder} has taken over: {_GONE_WITHOUT_A_WORD}.",
                last,
                critical=False,
            )
            incidents.record_past(self.group_id, finding, now, text=f"{self.holder} leads.")
        if self._database_missed is not None:
            missed_at, text = self._database_missed
            began = now - timedelta(seconds=monotonic() - missed_at)
            finding = Finding(
                "database_unavailable", "postgresql", f"PostgreSQL did not answer: {text}. Work waited for it.", began
            )
            incidents.record_past(self.group_id, finding, began, text="It answers again; work has gone on.")

    # --- Looking -------------------------------------------------------------------------------

    def _state(self, *, judged: bool) -> GroupState:
        report = InvariantReport.objects.filter(group_id=self.group_id, ok=False).first()
        seen, watch = assessments.workers(self.group_id), self._watch
        return GroupState(
            now=assessments.now(),
            partitions=assessments.partitions(self.group_id, watch.retention, watch.old_below, judged=judged),
            workers=seen if judged else [_alive(worker) for worker in seen],
            deaths=self._deaths(),
            unclaimed=watch.unclaimed,
            services=dict(watch.services),
            violated=[name for name, one in sorted(report.invariants.items()) if not one["ok"]] if report else (),
            violated_at=report.checked_at if report else None,
            orphaned_replays=replay_rows.orphaned(self.group_id),
            waiting_replays=replay_rows.not_taken(self.group_id, REPLAY_WAITS_SECONDS),
        )

    def _deaths(self) -> list[DeathState]:
        """The open incidents about dead workers, with what they left."""
        found = []
        for incident in Incident.objects.filter(group_id=self.group_id, kind="worker_dead", closed_at__isnull=True):
            ranges = [AffectedRange(**one) for one in incident.ranges]
            rows = PartitionCheckpoint.objects.filter(group_id=self.group_id, retired_at__isnull=True)
            left = {(one.topic, one.partition) for one in ranges}
            ids = {pk for pk, *place in rows.values_list("pk", "topic", "partition") if tuple(place) in left}
            found.append(
                DeathState(incident.worker_id, incident.began_at, frozenset(ids), incident.summary, tuple(ranges))
            )
        return found

    @staticmethod
    def _limits() -> FindingLimits:
        return FindingLimits(
            settings.HEARTBEAT_TIMEOUT_SECONDS,
            settings.WORKER_STUCK_SECONDS,
            settings.RETENTION_WARN_SECONDS,
            automatic.BREAKER.name,
        )

    # --- Mending -------------------------------------------------------------------------------

    def _mend(self, token: LeaseToken, state: GroupState) -> None:
        for worker in state.workers:
            if worker.dead:
                self._try(self._fence_dead_worker, token, worker)
            elif worker.stack and settings.EVICT_STUCK_WORKERS:
                self._try(self._evict, token, worker)
        self._try(self._expire_failed, token, state)
        self._try(self._count_again, token)
        self._try(self._replay_failed, token, state)
        for replay_id in replay_rows.without_runner(self.group_id):
            if leases.acquire(f"send-replay:{replay_id}", secrets.token_hex(8), DISPATCH_SECONDS):
                self._dispatch(replay_id)

    @staticmethod
    def _try(mend: Callable[..., None], *arguments: object) -> None:
        """What cannot be mended now is tried again at the next tick, and holds up nothing else."""
        try:
            mend(*arguments)
        except OffsetsError as error:
            logger.warning("The recovery manager tries again: %s", error)

    def _fence_dead_worker(self, token: LeaseToken, worker: WorkerState) -> None:
        """Fence a dead worker, free its slot, and call it stopped."""
        timeout = settings.HEARTBEAT_TIMEOUT_SECONDS
        with self._writing(token):
            fenced = ledger.fence(worker.worker_id, silent_seconds=timeout)
            if worker.worker_id not in workers.reap(timeout, worker.worker_id):
                return  # it has spoken in this moment
            eviction.free_slot(worker.worker_id)
            text = f"{worker.worker_id} sent no heartbeat for {timeout} s; {len(fenced)} partitions are fenced."
            journal.record(self.group_id, "worker_dead", text, level="error", worker_id=worker.worker_id)
            incidents.note_action(self.group_id, text, worker_id=worker.worker_id, automatic=True)

    def _evict(self, token: LeaseToken, worker: WorkerState) -> None:
        """Take the partitions from a stuck worker; where that happens again and again at one place, that one waits.

        Not from one whose statement the database is working on: it is slow, and a successor would be no faster.
        """
        if _works_in_database(worker.worker_id):
            logger.warning("%s is not evicted while the database works on its statement.", worker.worker_id)
            return
        reason = f"stuck {worker.stage} for {worker.stage_seconds or 0:.0f} s"
        try:
            with self._writing(token):
                places = self._too_often_stuck_at(worker)
                eviction.evict(worker.worker_id, automatic.request(reason))
                # Now that nothing of the worker holds their rows any more.
                for checkpoint_id, times in places.items():
                    automatic.pause_automatically(checkpoint_id, f"{times} workers got stuck there: {worker.stage}")
        except RefusedError as error:
            logger.debug("%s is not evicted: %s", worker.worker_id, error)

    @staticmethod
    def _too_often_stuck_at(worker: WorkerState) -> dict[int, int]:
        """Partitions of the worker at whose next offset as many got stuck lately as is too many, it included; the
        batch that begins there ends somewhere else each time.
        """
        recent = OperatorAction.objects.filter(
            kind=eviction.KIND,
            outcome=OperatorAction.Outcome.APPLIED,
            created_at__gt=assessments.now() - timedelta(hours=1),
        )
        found = {}
        for row in PartitionCheckpoint.objects.filter(owner_id=worker.worker_id, retired_at__isnull=True):
            place = f" {row.topic}-{row.partition} [{row.next_offset}, "
            times = 1 + recent.filter(target__startswith=f"{row.group_id} ", before__stage__icontains=place).count()
            if place in worker.stage and times >= STUCK_AT_ONE_PLACE:
                found[row.pk] = times
        return found

    def _expire_failed(self, token: LeaseToken, state: GroupState) -> None:
        """Failed offsets that Kafka has deleted are lost, and are not retried for ever."""
        for one in state.partitions:
            for failed in one.failed:
                if one.log_start is None or failed.start >= one.log_start:
                    continue
                gone = OffsetRange(failed.start, min(failed.end, one.log_start))
                with self._writing(token):
                    lost = ledger.pass_failed(
                        one.checkpoint_id, gone, RangeKind.EXPIRED, f"failed ({failed.detail}), then deleted by Kafka"
                    )
                    if not lost:
                        continue  # a replay has counted it in this moment
                    names = ", ".join(map(str, lost))
                    text = f"{one.name} {names} failed, and Kafka has deleted it: lost."
                    journal.record(
                        self.group_id, "expired", text, level="error", topic=one.topic, partition=one.partition
                    )
                    incidents.note_action(self.group_id, text, checkpoint_ids=[one.checkpoint_id], automatic=True)

    def _count_again(self, token: LeaseToken) -> None:
        """A letter that was requeued before a rebuild, and that the rebuild has set apart again, counts again (R14)."""
        if leases.acquire(f"count-again:{self.group_id}", secrets.token_hex(8), COUNT_AGAIN_SECONDS) is None:
            return
        ids = dead_letters.counted_before_rebuild(self.group_id)
        if not ids:
            return
        checkpoint_id = DeadLetter.objects.values_list("checkpoint_id", flat=True).get(pk=ids[0])
        request = automatic.request("it was counted before the partition was rebuilt")
        try:
            with self._writing(token):
                try:
                    dead_letters.resolve(dead_letters.REQUEUE, ids, request, checkpoint_id=checkpoint_id)
                except StalePreviewError:
                    raise
                except RefusedError as error:
                    # The transaction keeps the audit row of the refusal, which ends these attempts.
                    logger.info("Dead letters are not counted again: %s", error)
        except StalePreviewError as error:
            logger.info("These dead letters were changed by another action: %s", error)

    def _replay_failed(self, token: LeaseToken, state: GroupState) -> None:
        """Replay what is due. While one replay of a partition's failed ranges runs, none is begun beside it."""
        busy = replay_rows.active_ranges(self.group_id)
        wanted = [
            Wanted(one.checkpoint_id, OffsetRange(failed.start, failed.end))
            for one in state.partitions
            for failed in one.failed
            if failed.retry_at is not None
            and failed.retry_at <= state.now
            and (one.log_start is None or failed.start >= one.log_start)
            and not any(
                held == one.checkpoint_id and start < failed.end and failed.start < end for held, start, end in busy
            )
        ]
        if not wanted:
            return
        logs = requests.logs_for(wanted[:MAX_RANGES])
        with self._writing(token):
            replay = requests.begin(
                wanted[:MAX_RANGES], automatic.request("failed ranges are due"), automatic=True, logs=logs
            )
            text = f"Replay {replay.pk} of {replay.total_offsets:,} failed offsets has begun."
            ids = replay.ranges.values_list("checkpoint_id", flat=True)
            incidents.note_action(self.group_id, text, checkpoint_ids=ids, automatic=True)


def _is_contention(error: Exception) -> bool:
    """A deadlock, or a lock that was waited for too long: the database answers, and is asked again."""
    return str(getattr(error.__cause__, "sqlstate", "") or "").startswith(("40", "55"))


def _works_in_database(worker_id: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database() AND state = 'active')",
            [worker_id],
        )
        return bool(cursor.fetchone()[0])


def _alive(worker: WorkerState) -> WorkerState:
    """Not judged by its silence now."""
    return replace(worker, dead=False)


def _names(rows: Sequence[Incident]) -> list[str]:
    return [str(row) for row in rows]
