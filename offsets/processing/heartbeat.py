"""The heartbeat thread: says that the worker lives, and reads what operators ask of it and its partitions."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from django.conf import settings

from offsets import ledger, workers
from offsets.clock import monotonic
from offsets.database import DATABASE_LOST, WorkerSession
from offsets.ledger import ControlState
from offsets.processing.coordinator import OffsetCoordinator
from offsets.processing.pipeline import Pipeline
from offsets.processing.stuck_detector import Activities, stack_of
from offsets.processing.troubles import Troubles

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StopState:
    """Whether and how a worker ends. Any thread sets it; what is set stays set."""

    #: The Worker row asks it to finish the batch in hand and end.
    requested: bool = False
    #: An operator evicted it. Implies `cancelled`.
    evicted: bool = False
    #: It may not write any more, or a thread of it has failed: what is in hand is dropped.
    cancelled: threading.Event = field(default_factory=threading.Event)
    #: The batch in hand is finished or dropped: the threads end.
    stopping: threading.Event = field(default_factory=threading.Event)


class Heartbeat:
    """Writes the Worker row, and hands the control columns of the owned partitions to the fetching thread (R5).

    `on_heartbeat()` is called after each heartbeat and returns False when this process may not write any more.
    """

    def __init__(
        self,
        worker_id: str,
        stats: workers.WorkerStats,
        stop: StopState,
        *,
        pipeline: Pipeline,
        coordinator: OffsetCoordinator,
        activities: Activities,
        troubles: Troubles,
        on_heartbeat: Callable[[], bool],
    ) -> None:
        self._worker_id = worker_id
        self._stats = stats
        self._stop = stop
        self._pipeline = pipeline
        self._coordinator = coordinator
        self._activities = activities
        self._troubles = troubles
        self._on_heartbeat = on_heartbeat
        #: The checkpoints that were asked about, and what the database says of them: the latest answer only.
        self.control: deque[tuple[list[int], dict[int, ControlState]]] = deque(maxlen=1)

    def run(self) -> None:
        session = WorkerSession(f"{self._worker_id}:heartbeat")
        process = psutil.Process()
        last_records, last_at = 0, monotonic()
        while not self._stop.stopping.wait(settings.HEARTBEAT_INTERVAL_MS / 1000):
            records, now = self._pipeline.accounts.records, monotonic()
            self._stats.events_per_second = (records - last_records) / (now - last_at)
            last_records, last_at = records, now
            self._stats.records = records
            self._stats.memory_bytes = process.memory_info().rss
            self._stats.batch_in_hand = self._pipeline.in_flight()
            self._stats.last_error = self.describe_troubles()
            self._describe_activity()
            try:
                self._beat(session)
            except DATABASE_LOST as error:
                self._troubles.report("heartbeat", f"database: {' '.join(str(error).split())}")

    def describe_troubles(self) -> str:
        """What is wrong now, with the refusals of partitions that are ours."""
        return self._troubles.describe(self._coordinator.partitions.keys() | self._coordinator.unclaimed.keys())

    def _describe_activity(self) -> None:
        activity = self._activities.longest()
        self._stats.stage, self._stats.stage_seconds = (activity.text, activity.seconds) if activity else ("", None)
        # A worker that waits for a service, and says so, is not stuck.
        waits = self._troubles.waits_for_service()
        stuck = activity is not None and activity.seconds > settings.WORKER_STUCK_SECONDS and not waits
        self._stats.stack = stack_of(activity.thread) if activity and stuck else ""

    def _beat(self, session: WorkerSession) -> None:
        """Write the heartbeat, read the stop request, read the control columns."""
        with session.transaction():
            request = workers.heartbeat(self._worker_id, self._stats)
            if request.evicted:
                logger.error("%s was evicted: it drops its uncommitted batches and ends.", self._worker_id)
                self._stop.evicted = True
                self._stop.cancelled.set()
                return
            ids = [local.claim.checkpoint_id for local in list(self._coordinator.partitions.values())]
            self.control.append((ids, ledger.control_states(ids)))
        self._troubles.report("heartbeat", "")
        if request.stop:
            self._stop.requested = True
        if not self._on_heartbeat():
            logger.error("%s lost its slot to another process; it stops without committing.", self._worker_id)
            self._stop.cancelled.set()
