"""StreamProcessor: the fetch / decode / commit pipeline of one worker, for any BatchHandler.

Threads: *fetch* (the caller's; the only one that touches the Kafka consumer or changes a partition's state),
*decode* (`Decoder`), *commit* (`CommitLoop`), *heartbeat* (`Heartbeat`), *watch* (`TopicWatch`), *mirror* (`Mirrors`).
The others post to the fetching thread and never wait for it.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from offsets import workers
from offsets.clock import Deadline
from offsets.database import DATABASE_LOST, WorkerSession, answers_within
from offsets.errors import LedgerConflictError, OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.client import Fetched, KafkaClient
from offsets.processing.backpressure import Backpressure
from offsets.processing.catch_up import CatchUp
from offsets.processing.circuit_breaker import CircuitBreakers
from offsets.processing.commit_loop import CommitLoop
from offsets.processing.commit_policy import GuardedPolicy, load_policy
from offsets.processing.commit_signal import Announcer
from offsets.processing.coordinator import OffsetCoordinator
from offsets.processing.decoder import Decoder
from offsets.processing.heartbeat import Heartbeat, StopState
from offsets.processing.offset_store import KAFKA, POSTGRES, StoreLink
from offsets.processing.partition_state import LocalPartition
from offsets.processing.pipeline import EventKind, Pipeline
from offsets.processing.stuck_detector import Activities
from offsets.processing.topic_watch import TopicWatch
from offsets.processing.troubles import Troubles
from offsets.stores import open_beside, open_store
from offsets.stores.mirrors import Mirrors
from offsets.types import BatchHandler, Claim, Semantics, TopicPartition

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
#: How long a cancelled worker waits for the outcome of its last transaction.
LAST_OUTCOME_SECONDS = 5.0
#: Both limits of an evicted worker: one of its threads is stuck.
EVICTED_SECONDS = 1.0
#: How long a partition rests after its batch was refused.
REFUSED_RETRY_SECONDS = 5.0


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

    `should_stop()` is asked between fetches; `on_heartbeat()` is called every second from the heartbeat thread and
    returns False when this process may not write any more.
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
        self.pipeline = Pipeline(settings.PIPELINE_MAX_BYTES, 2 * settings.COMMIT_MAX_RECORDS)
        self.stats = workers.WorkerStats()
        self.stop = StopState()
        #: Threads that did not end with the worker: its process should not be used again.
        self.threads_left: list[str] = []
        self._should_stop = should_stop
        self._troubles = Troubles()
        self._activities = Activities()
        self._client = KafkaClient(options.group_id, options.worker_id, options.instance_id)
        self._admin = KafkaAdmin()
        self._store = StoreLink(options.group_id, options.worker_id, options.store, open_beside(options.store))
        self.coordinator = self._new_coordinator()
        self._backpressure = Backpressure(self._client, self.coordinator)
        self._mirrors = self._new_mirrors()
        self._client.on_commit_answer = self._mirrors.group_answered
        self._decoder = self._new_decoder()
        self._topics = self._new_topic_watch()
        self._commits = self._new_commit_loop()
        self.heartbeat = Heartbeat(
            options.worker_id,
            self.stats,
            self.stop,
            pipeline=self.pipeline,
            coordinator=self.coordinator,
            activities=self._activities,
            troubles=self._troubles,
            on_heartbeat=on_heartbeat,
        )
        self._catch_up = CatchUp(options.group_id, options.topics, self.coordinator, self._admin, self._drain_all)
        self._failures: list[BaseException] = []

    # --- Parts -------------------------------------------------------------------------------------

    def _new_coordinator(self) -> OffsetCoordinator:
        return OffsetCoordinator(
            group_id=self.options.group_id,
            worker_id=self.options.worker_id,
            client=self._client,
            admin=self._admin,
            dimensions=self.handler.dimensions,
            drain=self._drain,
            on_claimed=self._claimed,
            on_committed=lambda local: self._mirrors.post(local.claim, local.committed),
            semantics=self.options.semantics,
            store=self._store,
        )

    def _new_mirrors(self) -> Mirrors:
        options = self.options
        return Mirrors(
            options.group_id,
            options.worker_id,
            [open_store(name) for name in options.mirrors if name != KAFKA],
            to_group=KAFKA in (options.store, *options.mirrors),
            is_current=self.coordinator.fences.is_current,
            on_trouble=self._troubles.report,
        )

    def _new_decoder(self) -> Decoder:
        return Decoder(
            self.pipeline,
            self.handler,
            GuardedPolicy(load_policy(), lambda text: self._troubles.show("commit policy", text)),
            WorkerSession(f"{self.options.worker_id}:ledger"),
            self.options.semantics,
            is_current=self.coordinator.fences.is_current,
            on_trouble=self._troubles.report,
            activities=self._activities,
        )

    def _new_topic_watch(self) -> TopicWatch:
        return TopicWatch(
            self.options.group_id,
            self.options.worker_id,
            self.options.topics,
            self._admin,
            claims=self.coordinator.readable_claims,
            on_trouble=self._troubles.report,
        )

    def _new_commit_loop(self) -> CommitLoop:
        options = self.options
        return CommitLoop(
            options.group_id,
            options.worker_id,
            self.handler,
            options.semantics,
            self._store,
            pipeline=self.pipeline,
            topics=self._topics,
            breakers=CircuitBreakers(),
            announcer=Announcer(
                options.group_id,
                options.worker_id,
                options.semantics,
                on_trouble=lambda text: self._troubles.show("batch_committed", text),
            ),
            activities=self._activities,
            is_current=self.coordinator.fences.is_current,
            on_trouble=self._troubles.report,
        )

    def describe_activity(self) -> str:
        """What keeps it from stopping, for the log."""
        activity = self._activities.longest()
        text = f"{activity.text} for {activity.seconds:.0f} s" if activity else "nothing in hand"
        return "; ".join(filter(None, [text, self.heartbeat.describe_troubles()]))

    # --- Life --------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Consume. Returns whether it caught up or, where that is not asked for, ended without being cancelled.

        Raises what ended the pipeline for good (a fatal client, a ledger conflict).
        """
        loops: dict[str, Callable[[], None]] = {
            "decode": self._decoder.run,
            "commit": self._commits.run,
            "heartbeat": self.heartbeat.run,
            "watch": lambda: self._topics.run(self.stop.stopping),
            "mirror": lambda: self._mirrors.run(self.stop.stopping, settings.MIRROR_INTERVAL_MS / 1000),
        }
        threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True) for name, loop in loops.items()
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
            reached = self._fetch_loop()
        finally:
            self._shut_down(threads)
        if self._failures:
            raise self._failures[0]
        return reached

    def _guarded(self, loop: Callable[[], None]) -> None:
        """A thread that dies takes the worker down: half a pipeline would look alive and do nothing."""
        try:
            loop()
        except BaseException as error:
            logger.exception("The %s thread failed.", threading.current_thread().name)
            self._failures.append(error)
            self.stop.cancelled.set()
        finally:
            connection.close()

    def _shut_down(self, threads: Iterable[threading.Thread]) -> None:
        """Finish and commit the batch in hand, leave the group (which calls `on_revoke`), then end the threads.

        A stuck service gets a share of the time, so that the process still ends by itself in it.
        """
        whole = Deadline(0.85 * settings.SHUTDOWN_SECONDS)
        with answers_within(settings.SHUTDOWN_SECONDS / 10):
            self._let_go()
        self.stop.stopping.set()
        self.pipeline.close()
        self._client.close()
        self._store.close()
        deadline = Deadline(EVICTED_SECONDS) if self.stop.evicted else whole
        for thread in threads:
            thread.join(timeout=deadline.remaining_seconds)
        self.threads_left = [thread.name for thread in threads if thread.is_alive()]

    def _let_go(self) -> None:
        """Commit or drop what is in hand, and release the partitions."""
        if self.stop.cancelled.is_set():
            # It may not write any more: what is in hand is dropped, as with lost partitions.
            self.coordinator.abandon(list(self.coordinator.partitions), "with its slot")
            # The outcome of a commit under way is still worth waiting for: a refusal is reported.
            self.pipeline.drain_all(Deadline(EVICTED_SECONDS if self.stop.evicted else LAST_OUTCOME_SECONDS))
            self._serve_events()
        else:
            # What is not decoded yet is read again by the next owner.
            self.pipeline.discard_fetched()
            self.coordinator.hand_over(list(self.coordinator.partitions), 0.6 * settings.SHUTDOWN_SECONDS)

    def _fetch_loop(self) -> bool:
        while not (self._should_stop() or self.stop.requested or self.stop.cancelled.is_set()):
            WorkerSession.close_if_broken()
            self._serve_requests()
            # From this thread: only members of the group may commit its offsets.
            self._mirrors.send_to_group(self._client.commit, every_seconds=settings.MIRROR_INTERVAL_MS / 1000)
            if self.pipeline.has_room():
                self._backpressure.release()
                self._take(self._client.consume(settings.FETCH_MAX_RECORDS, POLL_SECONDS))
            else:
                self._wait_for_room()
            if self.options.exit_when_caught_up:
                verdict = self._catch_up.verdict()
                if verdict is not None:
                    return verdict
        return not self.stop.cancelled.is_set() and not self.options.exit_when_caught_up

    # --- Fetching thread ---------------------------------------------------------------------------

    def _take(self, fetched: Fetched) -> None:
        """Cut what was fetched into batches with their bounds, captured now (R7)."""
        partitions = self.coordinator.partitions
        positions = self._client.positions(tp for tp, local in partitions.items() if local.reading)
        taken = [local.take(fetched.records.get(tp, []), positions.get(tp)) for tp, local in partitions.items()]
        batches = [batch for batch in taken if batch is not None]
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
        except LedgerConflictError:
            raise
        except (OffsetsError, *DATABASE_LOST) as error:
            logger.warning("Why %s is out of range is not known yet: %s", owned, error)
            for local in [self.coordinator.partitions[tp] for tp in owned if tp in self.coordinator.partitions]:
                self.coordinator.restart(local.claim)

    def _wait_for_room(self) -> None:
        """The commit side is behind. Keep polling, or the group takes the partitions away (R11)."""
        if not self.pipeline.wait_for_room(POLL_SECONDS) and self._backpressure.pause_if_blocked():
            # A paused partition delivers nothing; a claim made in this very call may still bring its first records.
            self._take(self._client.consume(settings.FETCH_MAX_RECORDS, POLL_SECONDS))

    def _claimed(self, local: LocalPartition) -> None:
        self._backpressure.forget(local.claim.topic_partition)
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
            while self.heartbeat.control:
                self.coordinator.apply_control(*self.heartbeat.control.popleft())
            while self._topics.recreated:
                self.coordinator.check_readable(self._topics.recreated.popleft())
            self.coordinator.retry_claims()
        except LedgerConflictError:
            raise
        except (OffsetsError, *DATABASE_LOST) as error:
            logger.warning("Coordination waits: %s", " ".join(str(error).split()))

    def _serve_events(self) -> None:
        events = self.pipeline.events
        while events:
            event = events.popleft()
            tp = event.claim.topic_partition
            if event.kind is EventKind.COMMITTED:
                local = self.coordinator.partitions.get(tp)
                self._troubles.committed(tp)
                if local is not None and local.claim.epoch == event.claim.epoch:
                    local.committed = event.end
                    self._mirrors.post(local.claim, event.end)
            elif event.kind is EventKind.FENCED:
                self.pipeline.accounts.fenced += 1
                self.coordinator.fenced(event.claim, event.detail)
            else:
                logger.warning("%s: %s. It is tried again.", tp, event.detail)
                self._troubles.refused(tp, event.detail)
                self.coordinator.restart(event.claim, retry_seconds=REFUSED_RETRY_SECONDS)
                # Only now: the claim is not current any more.
                self._commits.forget_refusal(event.claim)

    def _drain_all(self) -> None:
        """All is fetched: a policy that waits for more records than there are would delay the last commit."""
        self.pipeline.drain_all(Deadline(POLL_SECONDS))
