"""Repairs: what the leading recovery manager fixes without an operator, each in a transaction of its own."""

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.conf import settings
from django.db import connection

from offsets import journal, leases, ledger, workers
from offsets.actions import automatic, dead_letters, eviction
from offsets.clock import Backoff, monotonic
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.leases import LeaseToken
from offsets.models import DeadLetter, OperatorAction, PartitionCheckpoint
from offsets.monitoring import incidents
from offsets.monitoring.group_state import GroupState, WorkerState
from offsets.ranges import OffsetRange
from offsets.recovery import assessments
from offsets.recovery.leadership import Leadership
from offsets.replays import requests, retries
from offsets.replays import rows as replay_rows
from offsets.replays.plans import MAX_RANGES, Wanted
from offsets.text import counted
from offsets.types import RangeKind

logger = logging.getLogger(__name__)

#: Minimum time between two dispatches of one replay.
DISPATCH_SECONDS = 10.0
#: When this many workers got stuck at the same offset within an hour, the partition is paused.
STUCK_AT_ONE_PLACE = 3
#: The longest pause between two attempts to replay what is due, while Kafka does not answer.
REPLAY_WAIT_SECONDS = 60.0
#: How often rebuilt partitions are searched for dead letters that were counted before.
COUNT_AGAIN_SECONDS = 10.0


class Repairs:
    """Repair what a tick found. `dispatch(replay_id)` has a replay run somewhere else."""

    def __init__(self, leadership: Leadership, dispatch: Callable[[int], object]) -> None:
        self.group_id = leadership.group_id
        self._writing = leadership.writing
        self._dispatch = dispatch
        self._replay_backoff = Backoff(1.0, REPLAY_WAIT_SECONDS)
        self._replay_again_at = float("-inf")

    def run(self, token: LeaseToken, state: GroupState) -> None:
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
    def _try(repair: Callable[..., None], *arguments: object) -> None:
        """A repair that fails is retried at the next tick, and does not block the others."""
        try:
            repair(*arguments)
        except OffsetsError as error:
            logger.warning("A repair failed and is retried at the next tick: %s", error)

    def _fence_dead_worker(self, token: LeaseToken, worker: WorkerState) -> None:
        """Fence a dead worker, free its slot, and mark it as stopped."""
        timeout = settings.HEARTBEAT_TIMEOUT_SECONDS
        with self._writing(token):
            fenced = ledger.fence(worker.worker_id, silent_seconds=timeout)
            if worker.worker_id not in workers.reap(timeout, worker.worker_id):
                return  # it sent a heartbeat just now
            eviction.free_slot(worker.worker_id)
            text = f"{worker.worker_id} sent no heartbeat for {timeout} s; {counted(len(fenced), 'partition')} fenced."
            journal.record(self.group_id, "worker_dead", text, level="error", worker_id=worker.worker_id)
            incidents.note_action(self.group_id, text, worker_id=worker.worker_id, automatic=True)

    def _evict(self, token: LeaseToken, worker: WorkerState) -> None:
        """Evict a stuck worker; a partition at whose next offset this happens repeatedly is paused.

        A worker whose statement the database is executing is not evicted: it is slow, and a successor would be no
        faster.
        """
        if _works_in_database(worker.worker_id):
            logger.warning("Not evicting %s: the database is executing its statement.", worker.worker_id)
            return
        reason = f"stuck {worker.stage} for {worker.stage_seconds or 0:.0f} s"
        try:
            with self._writing(token):
                places = self._too_often_stuck_at(worker)
                eviction.evict(worker.worker_id, automatic.request(reason))
                # Only now: the evicted worker no longer holds their rows.
                for checkpoint_id, times in places.items():
                    automatic.pause_automatically(
                        checkpoint_id, f"{times} workers got stuck at the same offset: {worker.stage}"
                    )
        except RefusedError as error:
            logger.debug("Not evicting %s: %s", worker.worker_id, error)

    @staticmethod
    def _too_often_stuck_at(worker: WorkerState) -> dict[int, int]:
        """Partitions of the worker at whose next offset too many workers got stuck lately, this one included, with how
        many. Only the start is compared: the batch that begins there has another end each time.
        """
        recent = OperatorAction.objects.filter(
            kind=eviction.KIND,
            outcome=OperatorAction.Outcome.APPLIED,
            created_at__gt=assessments.now() - timedelta(hours=1),
        )
        stuck_at = {}
        for row in PartitionCheckpoint.objects.filter(owner_id=worker.worker_id, retired_at__isnull=True):
            place = f" {row.topic}-{row.partition} [{row.next_offset}, "
            times = 1 + recent.filter(target__startswith=f"{row.group_id} ", before__stage__icontains=place).count()
            if place in worker.stage and times >= STUCK_AT_ONE_PLACE:
                stuck_at[row.pk] = times
        return stuck_at

    def _expire_failed(self, token: LeaseToken, state: GroupState) -> None:
        """Failed offsets that Kafka has deleted become expired: no retry can read them."""
        for partition in state.partitions:
            for failed in partition.failed:
                if partition.log_start is None or failed.start >= partition.log_start:
                    continue
                deleted = OffsetRange(failed.start, min(failed.end, partition.log_start))
                with self._writing(token):
                    lost = ledger.pass_failed(
                        *(partition.checkpoint_id, deleted, RangeKind.EXPIRED),
                        f"failed ({failed.detail}), then deleted by Kafka",
                    )
                    if not lost:
                        continue  # a replay counted it just now
                    names = ", ".join(map(str, lost))
                    text = f"{partition.name} {names} failed and was deleted by Kafka before a replay: not counted."
                    journal.record(
                        self.group_id,
                        "expired",
                        text,
                        level="error",
                        topic=partition.topic,
                        partition=partition.partition,
                    )
                    incidents.note_action(self.group_id, text, checkpoint_ids=[partition.checkpoint_id], automatic=True)

    def _count_again(self, token: LeaseToken) -> None:
        """Requeue a dead letter that was requeued before a rebuild and that the rebuild dead-lettered again (R14)."""
        if leases.acquire(f"count-again:{self.group_id}", secrets.token_hex(8), COUNT_AGAIN_SECONDS) is None:
            return
        ids = dead_letters.counted_before_rebuild(self.group_id)
        if not ids:
            return
        request = automatic.request("it was counted before the partition was rebuilt")
        try:
            with self._writing(token):
                checkpoint_id = DeadLetter.objects.values_list("checkpoint_id", flat=True).get(pk=ids[0])
                try:
                    dead_letters.resolve(dead_letters.REQUEUE, ids, request, checkpoint_id=checkpoint_id)
                except StalePreviewError:
                    raise
                except RefusedError as error:
                    # The transaction keeps the audit row of the refusal, which ends these attempts.
                    logger.info("Dead letters are not counted again: %s", error)
        except StalePreviewError as error:
            logger.info("These dead letters were just changed by another action: %s", error)

    def _replay_failed(self, token: LeaseToken, state: GroupState) -> None:
        """Replay the failed ranges that are due. Ranges of a replay that is active are left out."""
        active = replay_rows.active_ranges(self.group_id)
        wanted = [
            Wanted(partition.checkpoint_id, OffsetRange(failed.start, failed.end))
            for partition in state.partitions
            for failed in partition.failed
            if failed.retry_at is not None
            and failed.retry_at <= state.now
            and (partition.log_start is None or failed.start >= partition.log_start)
            and not any(
                checkpoint_id == partition.checkpoint_id and start < failed.end and failed.start < end
                for checkpoint_id, start, end in active
            )
        ]
        if not wanted or monotonic() < self._replay_again_at:
            return
        try:
            self._begin_replay(token, wanted[:MAX_RANGES])
        except RefusedError as error:
            logger.warning("Failed offsets are not replayed now: %s", error)
            with self._writing(token):
                for span in wanted[:MAX_RANGES]:
                    retries.postpone(span.checkpoint_id, span.offsets, str(error))
        except ServiceUnavailableError as error:
            # No attempt of the ranges' own: they are due as soon as Kafka answers.
            seconds = self._replay_backoff.next_seconds()
            self._replay_again_at = monotonic() + seconds
            logger.warning("Failed offsets are replayed in %.0f s at the earliest: %s", seconds, error)

    def _begin_replay(self, token: LeaseToken, wanted: Sequence[Wanted]) -> None:
        logs = requests.logs_for(wanted)
        with self._writing(token):
            replay = requests.begin(wanted, automatic.request("failed ranges are due"), automatic=True, logs=logs)
            text = f"Started replay {replay.pk} of {replay.total_offsets:,} failed offsets."
            ids = replay.ranges.values_list("checkpoint_id", flat=True)
            incidents.note_action(self.group_id, text, checkpoint_ids=ids, automatic=True)
        self._replay_backoff.reset()


def _works_in_database(worker_id: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database() AND state = 'active')",
            [worker_id],
        )
        return bool(cursor.fetchone()[0])
