"""StreamProcessor: the fetch / decode / commit pipeline of one worker, for any BatchHandler.

Threads: *fetch* (the caller's; the only one that touches the Kafka consumer or changes a partition's state),
*decode*, *commit*, *heartbeat* (database), *watch* (topic ids). Others post to the fetching thread and never wait.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil
from django.conf import settings
from django.db import connection

from offsets import journal, ledger, workers
from offsets.clock import Backoff, Deadline, monotonic
from offsets.database import DATABASE_LOST, WorkerSession
from offsets.errors import LedgerConflictError, OffsetsError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.client import Fetched, KafkaClient
from offsets.ledger import ControlState
from offsets.monitoring import lag_samples
from offsets.processing.catch_up import CatchUp
from offsets.processing.circuit_breaker import CircuitBreakers
from offsets.processing.commit_policy import GuardedPolicy, load_policy
from offsets.processing.commit_signal import Announcer
from offsets.processing.committer import BatchCommitter, CommitOutcome
from offsets.processing.coordinator import LocalPartition, OffsetCoordinator
from offsets.processing.decoder import Decoder
from offsets.processing.offset_store import KAFKA, POSTGRES, StoreLink
from offsets.processing.pipeline import RECORD_OVERHEAD_BYTES, Event, Pending, Pipeline, Unit
from offsets.processing.stuck_detector import Activities, stack_of
from offsets.stores import open_beside, open_store
from offsets.stores.mirrors import Mirrors
from offsets.types import BatchHandler, Claim, PartitionCommit, RecordBatch, Semantics, TopicPartition

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0
#: How long a cancelled worker waits to learn what became of its last transaction.
SETTLE_SECONDS = 5.0
#: How long the threads get to end; and all that an evicted worker gets, one of whose threads is stuck.
END_SECONDS = 20.0
#: Sources of trouble that explain why nothing moves.
_SERVICES = ("database", "ledger", "kafka")
EVICTED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProcessorOptions:
    group_id: str
    topics: tuple[str, ...]
    worker_id: str
    exit_when_caught_up: bool = False
    semantics: Semantics = Semantics.EXACTLY_ONCE
    store: str = POSTGRES
    #: Of a static member of the group; empty for a dynamic one.
    instance_id: str = ""
    #: Stores that follow the ledger beside it.
    mirrors: tuple[str, ...] = ()


class StreamProcessor:
    """Consumes until asked to stop, or until caught up.

    `run` returns whether the aim was met. `should_stop()` is asked between fetches; `on_heartbeat()` is called every
    second from the heartbeat thread and returns False when this process may not write any more.
    """

    def __init__(
        self,
        options: ProcessorOptions,
        handler: BatchHandler,
        *,
        should_stop: Callable[[], bool],
        on_heartbeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self.options = options
        self.handler = handler
        self._should_stop = should_stop
        self._on_heartbeat = on_heartbeat
        self.pipeline = Pipeline(settings.PIPELINE_MAX_BYTES, 2 * settings.COMMIT_MAX_RECORDS)
        self._stages = Activities()
        self._client = KafkaClient(options.group_id, options.worker_id, options.instance_id)
        self._admin = KafkaAdmin()
        self._store = StoreLink(options.group_id, options.worker_id, options.store, open_beside(options.store))
        self.coordinator = OffsetCoordinator(
            group_id=options.group_id,
            worker_id=options.worker_id,
            client=self._client,
            admin=self._admin,
            dimensions=handler.dimensions,
            drain=self._drain,
            on_claimed=self._claimed,
            on_committed=lambda local: self._mirrors.post(local.claim, local.committed),
            semantics=options.semantics,
            store=self._store,
        )
        self._mirrors = Mirrors(
            options.group_id,
            options.worker_id,
            [open_store(name) for name in options.mirrors if name != KAFKA],
            to_group=KAFKA in (options.store, *options.mirrors),
            is_current=self.coordinator.fences.is_current,
            on_trouble=self._trouble,
        )
        self._client.on_commit_answer = self._mirrors.group_answered
        self._decoder = Decoder(
            self.pipeline,
            handler,
            GuardedPolicy(load_policy(), lambda text: self._show("commit policy", text)),
            WorkerSession(f"{options.worker_id}:ledger"),
            options.semantics,
            is_current=self.coordinator.fences.is_current,
            on_trouble=self._trouble,
            stages=self._stages,
        )
        self._breakers = CircuitBreakers()
        self._announcer = Announcer(
            options.group_id,
            options.worker_id,
            options.semantics,
            on_trouble=lambda text: self._show("batch_committed", text),
        )
        self._catch_up = CatchUp(options.group_id, options.topics, self.coordinator, self._admin, self._settle_all)
        self.stats = workers.WorkerStats()
        self._stopping = threading.Event()
        self._cancelled = threading.Event()
        self._control: deque[tuple[list[int], dict[int, ControlState]]] = deque(maxlen=1)
        self._watched: deque[set[TopicPartition]] = deque(maxlen=1)
        self._troubles: dict[str, str] = {}
        #: Why a partition's last batch was refused; over with its next commit.
        self._refusals: dict[TopicPartition, str] = {}
        self._failures: list[BaseException] = []
        #: Claims under which the database refused a batch as data; the partition is claimed afresh.
        self._refused: set[Claim] = set()
        self._blocked_since: float | None = None
        self._backpressured: set[TopicPartition] = set()
        #: Set by the heartbeat when the Worker row asks for it.
        self.stop_requested = False
        self.evicted = False
        #: Threads that did not end with the worker: its process should not be used again.
        self.left_behind: list[str] = []

    # --- Life --------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Consume. Raises what ended the pipeline for good (a fatal client, a ledger conflict)."""
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (
                ("decode", self._decoder.run),
                ("commit", self._commit_loop),
                ("heartbeat", self._heartbeat_loop),
                ("watch", self._watch_loop),
                ("mirror", lambda: self._mirrors.run(self._stopping, settings.MIRROR_INTERVAL_MS / 1000)),
            )
        ]
        self._client.subscribe(
            self.options.topics,
            on_assign=self.coordinator.on_assign,
            on_revoke=self.coordinator.on_revoke,
            on_lost=self.coordinator.on_lost,
        )
        for thread in threads:
            thread.start()
        try:
            met = self._fetch_loop()
        finally:
            self._shut_down(threads)
        if self._failures:
            raise self._failures[0]
        return met

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread that dies takes the worker down: half a pipeline would look alive and do nothing."""
        try:
            work()
        except BaseException as error:
            logger.exception("The %s thread failed.", threading.current_thread().name)
            self._failures.append(error)
            self._cancelled.set()
        finally:
            connection.close()

    def _shut_down(self, threads: Iterable[threading.Thread]) -> None:
        """Finish and commit the batch in hand, leave the group (which calls `on_revoke`), then end the threads."""
        if self._cancelled.is_set():
            # No right to write any more: what is in hand is dropped, like lost partitions.
            self.coordinator.abandon(list(self.coordinator.partitions), "with its slot")
            # What the database says of a commit under way is still worth hearing: a refusal is told.
            self.pipeline.settle(Deadline(EVICTED_SECONDS if self.evicted else SETTLE_SECONDS))
            self._serve_events()
        else:
            self.coordinator.hand_over(list(self.coordinator.partitions))
        self._stopping.set()
        self.pipeline.close()
        self._client.close()
        self._store.close()
        deadline = Deadline(EVICTED_SECONDS if self.evicted else END_SECONDS)
        for thread in threads:
            thread.join(timeout=deadline.remaining_seconds)
        self.left_behind = [thread.name for thread in threads if thread.is_alive()]

    def _fetch_loop(self) -> bool:
        while not (self._should_stop() or self.stop_requested or self._cancelled.is_set()):
            WorkerSession.close_if_broken()
            self._serve_requests()
            self._serve_mirror()
            if self.pipeline.has_room():
                self._release_backpressure()
                self._take(self._client.consume(settings.FETCH_MAX_RECORDS, POLL_SECONDS))
            else:
                self._wait_for_room()
            if self.options.exit_when_caught_up:
                verdict = self._catch_up.verdict()
                if verdict is not None:
                    return verdict
        return not self._cancelled.is_set() and not self.options.exit_when_caught_up

    # --- Fetching thread ---------------------------------------------------------------------------

    def _take(self, fetched: Fetched) -> None:
        """Cut what was fetched into batches with their bounds, captured now (R7)."""
        partitions = self.coordinator.partitions
        positions = self._client.positions(tp for tp, local in partitions.items() if local.reading)
        batches = []
        for tp, local in partitions.items():
            records = fetched.records.get(tp, [])
            end = records[-1].offset() + 1 if records else local.start
            end = max(end, positions.get(tp, end))
            if records and records[0].offset() < local.start:
                raise LedgerConflictError(f"{tp}: offset {records[0].offset()} arrived again after {local.start}")
            if end > local.start:
                size = sum(map(len, records)) + RECORD_OVERHEAD_BYTES * len(records)
                batches.append(RecordBatch(local.claim, local.start, end, records, size))
                local.start = end
        if batches:
            self.pipeline.put(batches)
        if fetched.out_of_range:
            self._out_of_range(fetched.out_of_range)

    def _out_of_range(self, partitions: Iterable[TopicPartition]) -> None:
        """The position is not in the log: commit what came before it, then find out why and halt (R16)."""
        owned = [tp for tp in partitions if tp in self.coordinator.partitions]
        self._client.pause(owned)
        try:
            self.coordinator.check_readable(owned)
        except (ServiceUnavailableError, *DATABASE_LOST) as error:
            logger.warning("Why %s is out of range is not known yet: %s", owned, error)
            for local in [self.coordinator.partitions[tp] for tp in owned if tp in self.coordinator.partitions]:
                self.coordinator.restart(local.claim)

    def _wait_for_room(self) -> None:
        """The commit side is behind. Keep polling, or the group takes the partitions away (R11)."""
        if self.pipeline.wait_for_room(POLL_SECONDS):
            return
        self._blocked_since = self._blocked_since or monotonic()
        if monotonic() - self._blocked_since < 1.0:
            return
        reading = {tp for tp, local in self.coordinator.partitions.items() if local.reading}
        self._client.pause(reading - self._backpressured)
        self._backpressured |= reading
        # A paused partition delivers nothing; a claim made in this very call may still bring its first records.
        self._take(self._client.consume(settings.FETCH_MAX_RECORDS, POLL_SECONDS))

    def _release_backpressure(self) -> None:
        self._blocked_since = None
        if self._backpressured:
            partitions = self.coordinator.partitions
            self._client.resume(tp for tp in self._backpressured if tp in partitions and partitions[tp].reading)
            self._backpressured.clear()

    def _claimed(self, local: LocalPartition) -> None:
        self._backpressured.discard(local.claim.topic_partition)
        if not local.halted:
            self._mirrors.post(local.claim, local.committed)

    def _drain(self, claims: list[Claim], deadline: Deadline) -> set[int]:
        drained = self.pipeline.drain([claim.checkpoint_id for claim in claims], deadline)
        self._serve_events()
        self._mirrors.send_to_group(self._client.commit)
        return drained

    def _serve_requests(self) -> None:
        """What other threads found out, between two `consume()` calls."""
        self._serve_events()
        try:
            while self._control:
                self.coordinator.apply_control(*self._control.popleft())
            while self._watched:
                self.coordinator.check_readable(self._watched.popleft())
            self.coordinator.retry_claims()
        except (ServiceUnavailableError, *DATABASE_LOST) as error:
            logger.warning("Coordination waits: %s", error)

    def _serve_mirror(self) -> None:
        """The group's own offsets leave from this thread: only its members may commit them."""
        self._mirrors.send_to_group(self._client.commit, every_seconds=settings.MIRROR_INTERVAL_MS / 1000)

    def _serve_events(self) -> None:
        events = self.pipeline.events
        while events:
            event = events.popleft()
            if event.kind == "committed":
                local = self.coordinator.partitions.get(event.claim.topic_partition)
                self._refusals.pop(event.claim.topic_partition, None)
                if local is not None and local.claim.epoch == event.claim.epoch:
                    local.committed = event.end
                    self._mirrors.post(local.claim, event.end)
            elif event.kind == "fenced":
                self.pipeline.accounts.fenced += 1
                self.coordinator.fenced(event.claim, event.detail)
            else:
                logger.warning("%s: %s. It is tried again.", event.claim.topic_partition, event.detail)
                self._refusals[event.claim.topic_partition] = event.detail
                self.coordinator.restart(event.claim, retry_seconds=5.0)
                self._refused.discard(event.claim)  # not current any more: the fences keep it out from now on

    def _settle_all(self) -> None:
        """All is fetched: a policy that wants more than there is would wait for its last moment."""
        self.pipeline.settle(Deadline(POLL_SECONDS))

    # --- Commit thread -----------------------------------------------------------------------------

    def _commit_loop(self) -> None:
        committer = BatchCommitter(
            WorkerSession(self.options.worker_id),
            self.handler,
            is_current=lambda commit: self._wanted(commit.claim),
            wait=self.pipeline.wait,
            closed=lambda: self.pipeline.closed,
            on_trouble=lambda text: self._trouble("database", text),
            semantics=self.options.semantics,
            store=self._store,
        )
        while not self.pipeline.closed:
            unit = self.pipeline.take_unit(1.0)
            if unit:
                try:
                    with self._stages.track(f"committing {_spans(unit)}"):
                        unit = self._of_known_topics(unit)
                        self._settle(unit, committer.commit([commit for _, commit in unit]))
                finally:
                    self.pipeline.unit_done()

    def _of_known_topics(self, unit: Unit) -> Unit:
        """Leave out what was read from a topic that was recreated since its claim (docs/adr/0004).

        Asked after the fetch: so nothing of the new topic is ever counted at the old one's offsets.
        """
        foreign = self._foreign_once_known(unit)
        kept = [
            entry
            for entry in unit
            if foreign is not None and entry[0].claim.topic_partition not in foreign and self._wanted(entry[0].claim)
        ]
        for entry in unit:
            if entry not in kept:
                self._finish(entry[0])
        if foreign:
            self._watched.append(foreign)
        return kept

    def _foreign_once_known(self, unit: Unit) -> set[TopicPartition] | None:
        """Waits while Kafka does not answer; None when the unit is not wanted any more."""
        backoff = Backoff()
        while not self.pipeline.closed and any(self._wanted(held.claim) for held, _ in unit):
            try:
                return self._foreign(held.claim for held, _ in unit)
            except OffsetsError as error:
                self._trouble("kafka", str(error))
                self.pipeline.wait(backoff.next_seconds())
        return None

    def _wanted(self, claim: Claim) -> bool:
        """Not after a refusal: what follows a batch that was not applied cannot be, and is no fenced commit either."""
        return self.coordinator.fences.is_current(claim) and claim not in self._refused

    def _settle(self, unit: Unit, outcome: CommitOutcome) -> None:
        applied = {commit.claim.checkpoint_id for commit in outcome.applied}
        accounts = self.pipeline.accounts
        for held, commit in unit:
            checkpoint_id = commit.claim.checkpoint_id
            detail = outcome.fenced.get(checkpoint_id) or outcome.refused.get(checkpoint_id, "")
            if checkpoint_id in outcome.refused:
                self._breakers.quarantined(commit)
            elif checkpoint_id in applied:
                self._account(commit)
                accounts.deduplicated += held.dropped
                self._breakers.counted(commit)
            elif checkpoint_id in outcome.quarantined:
                self._say_quarantined(commit, outcome.quarantined[checkpoint_id])
                self._breakers.quarantined(commit)
            if checkpoint_id in outcome.fenced:
                kind = "fenced"
            elif checkpoint_id in outcome.refused:
                kind = "refused"
            else:
                passed = checkpoint_id in applied or checkpoint_id in outcome.quarantined
                kind = "committed" if passed else "cancelled"
            if kind == "refused":
                self._refused.add(commit.claim)
            if kind != "cancelled":
                self.pipeline.events.append(Event(commit.claim, kind, commit.start, commit.end, detail))
            self._finish(held)
        if applied:
            accounts.commits += 1
            accounts.last_commit_at = monotonic()
        # Last: whatever receivers do, the batch is settled.
        self._announcer.announce(
            outcome.transactions, {commit.claim.checkpoint_id: held.dropped for held, commit in unit}
        )

    def _say_quarantined(self, commit: PartitionCommit, detail: str) -> None:
        self.pipeline.accounts.failed_batches += 1
        tp = commit.claim.topic_partition
        journal.record(
            self.options.group_id,
            "failed",
            f"{tp} [{commit.start:,}, {commit.end:,}) could not be applied and waits for its replay: {detail}",
            level="error",
            worker_id=self.options.worker_id,
            topic=tp.topic,
            partition=tp.partition,
        )

    def _finish(self, held: Pending) -> None:
        self.pipeline.finish(held.claim.checkpoint_id, held.fetched, held.records, held.kept_bytes)

    def _account(self, commit: PartitionCommit) -> None:
        accounts = self.pipeline.accounts
        accounts.records += commit.stats.records
        accounts.failed_records += commit.stats.failed_records
        accounts.size_bytes += commit.stats.size_bytes
        for name, count in commit.stats.by_type.items():
            accounts.by_type[name] = accounts.by_type.get(name, 0) + count

    # --- Heartbeat and watch threads ---------------------------------------------------------------

    def _heartbeat_loop(self) -> None:
        session = WorkerSession(f"{self.options.worker_id}:heartbeat")
        process = psutil.Process()
        last_records, last_at = 0, monotonic()
        while not self._stopping.wait(settings.HEARTBEAT_INTERVAL_MS / 1000):
            accounts, now = self.pipeline.accounts, monotonic()
            self.stats.events_per_second = (accounts.records - last_records) / (now - last_at)
            last_records, last_at = accounts.records, now
            self.stats.records = accounts.records
            self.stats.memory_bytes = process.memory_info().rss
            self.stats.batch_in_hand = self.pipeline.in_flight()
            self.stats.last_error = self.troubles
            self._describe_stage()
            try:
                self._beat(session)
            except DATABASE_LOST as error:
                self._trouble("heartbeat", f"database: {' '.join(str(error).split())}")

    def _describe_stage(self) -> None:
        stage = self._stages.longest()
        self.stats.stage, self.stats.stage_seconds = (stage.text, stage.seconds) if stage else ("", None)
        # Who waits for a service, and says so, is not stuck.
        waits = any(self._troubles.get(source) for source in _SERVICES)
        stuck = stage is not None and stage.seconds > settings.WORKER_STUCK_SECONDS and not waits
        self.stats.stack = stack_of(stage.thread) if stage and stuck else ""

    def _beat(self, session: WorkerSession) -> None:
        """Say we live, hear whether to stop, read the control columns (R5)."""
        with session.transaction():
            wish = workers.heartbeat(self.options.worker_id, self.stats)
            if wish.evicted:
                logger.error("%s is evicted: it drops what it has in hand, and ends.", self.options.worker_id)
                self.evicted = True
                self._cancelled.set()
                return
            ids = [local.claim.checkpoint_id for local in list(self.coordinator.partitions.values())]
            self._control.append((ids, ledger.control_states(ids)))
        self._trouble("heartbeat", "")
        if wish.stop:
            self.stop_requested = True
        if not self._on_heartbeat():
            logger.error(
                "%s has lost its slot to another process; it stops without committing.", self.options.worker_id
            )
            self._cancelled.set()

    def _watch_loop(self) -> None:
        """Every second: compare topic ids (R16), offer to sample lag. On a thread of its own: Kafka's silence must not
        delay heartbeats.
        """
        session = WorkerSession(f"{self.options.worker_id}:watch")
        while not self._stopping.wait(WATCH_SECONDS):
            try:
                self._watch()
                with session.transaction():
                    lag_samples.sample_group(self.options.group_id, self.options.worker_id, self._admin)
                self._trouble("kafka", "")
            except OffsetsError as error:
                self._trouble("kafka", str(error))
            except DATABASE_LOST as error:
                logger.debug("Lag is not sampled: %s", error)

    def _watch(self) -> None:
        owned = list(self.coordinator.partitions.values())
        foreign = self._foreign(local.claim for local in owned if not local.halted)
        if foreign:
            self._watched.append(foreign)

    def _foreign(self, claims: Iterable[Claim]) -> set[TopicPartition]:
        """Partitions whose topic is not the one that was claimed any more."""
        described = self._admin.describe_topics(self.options.topics, timeout_seconds=5.0)
        return {
            claim.topic_partition
            for claim in claims
            if claim.topic in described and described[claim.topic].topic_id != claim.topic_id
        }

    @property
    def troubles(self) -> str:
        """What is wrong now, in words; empty when nothing is."""
        ours = self.coordinator.partitions.keys() | self.coordinator.unclaimed.keys()
        refused = [f"{tp}: {text}" for tp, text in list(self._refusals.items()) if tp in ours]
        return "; ".join([text for text in self._troubles.values() if text] + refused)

    def _show(self, source: str, text: str) -> None:
        """For the Worker row only: it was logged where it happened, and it is not tried again."""
        self._troubles[source] = text

    def _trouble(self, source: str, text: str) -> None:
        """Remember what is wrong for the Worker row; say it once when it begins and once when it is over."""
        before = self._troubles.get(source, "")
        self._troubles[source] = text
        if text and not before:
            logger.warning("%s: %s. Nothing is lost; it is tried again.", source, text)
        elif before and not text:
            logger.info("%s is back.", source)


def _spans(unit: Unit) -> str:
    return ", ".join(f"{commit.claim.topic_partition} [{commit.start}, {commit.end})" for _, commit in unit)
