"""One worker from registration to sign-off: what Celery slots and `run_consumer` both run."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from offsets import journal, workers
from offsets.clock import monotonic
from offsets.configuration import misconfiguration, refusal, refuse, refused_mirrors
from offsets.database import DATABASE_LOST, WorkerSession, answers_within, describe_outage
from offsets.errors import OffsetsError
from offsets.exit_deadline import exit_within
from offsets.kafka.admin import KafkaAdmin
from offsets.processing.commit_policy import refused_policy
from offsets.processing.processor import ProcessorOptions, StreamProcessor
from offsets.text import describe_error
from offsets.types import BatchHandler, Semantics

logger = logging.getLogger(__name__)


class ThreadsStillRunningError(OffsetsError):
    """A thread of a worker outlived it. Nothing it does can be counted; only the end of its process ends it."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What one worker consumes. `slot` and `node` name the Celery slot and its node, empty in the foreground."""

    group_id: str
    topics: tuple[str, ...]
    slot: str = ""
    node: str = ""
    exit_when_caught_up: bool = False
    semantics: str = ""
    store: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    """What a worker did. `seconds` runs from the first fetched batch to the last commit."""

    worker_id: str
    group: str
    caught_up: bool
    events: int
    dead_letters: int
    #: Batches that could not be applied, and became failed ranges.
    failed_batches: int
    #: Records read again that the ledger had, and that were not counted again.
    deduplicated: int
    by_type: dict[str, int]
    commits: int
    fenced_commits: int
    seconds: float
    events_per_second: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_worker(
    options: WorkerOptions,
    *,
    should_stop: Callable[[], bool],
    on_heartbeat: Callable[[], bool] = lambda: True,
) -> WorkerSummary:
    """Consume until `should_stop()`, a stop request on the Worker row, a lost slot, or caught up if so asked.

    Raises RefusedError for a topic that does not exist or a mode that is not supported, ServiceUnavailableError and
    OperationalError when a service is down at the start. Later outages are waited out.
    """
    _refuse_misconfiguration(options)
    admin = KafkaAdmin()
    for topic in options.topics:
        admin.describe_topic(topic)
    handler: BatchHandler = import_string(settings.BATCH_HANDLER)()
    worker_id = workers.new_worker_id()
    workers.register(worker_id, options.group_id, slot=options.slot, node=options.node)
    journal.record(options.group_id, "worker_started", f"{worker_id} started{_place(options)}.", worker_id=worker_id)
    processor = StreamProcessor(
        _processor_options(options, worker_id), handler, should_stop=should_stop, on_heartbeat=on_heartbeat
    )
    deadline = exit_within(
        settings.SHUTDOWN_SECONDS,
        asked=lambda: should_stop() or processor.stop.requested or processor.stop.cancelled.is_set(),
        describe=processor.describe_activity,
    )
    with deadline:
        try:
            with answers_within(settings.DATABASE_ANSWER_SECONDS):
                reached = processor.run()
        except Exception as error:
            _raise_if_threads_left(processor, worker_id, describe_error(error))
            raise
        finally:
            with answers_within(settings.SHUTDOWN_SECONDS / 10):
                _sign_off(processor, options, worker_id)
    _raise_if_threads_left(processor, worker_id)
    return _summary(processor, options, worker_id, caught_up=reached)


def _refuse_misconfiguration(options: WorkerOptions) -> None:
    refuse(
        refusal(options.semantics or settings.PROCESSING_SEMANTICS, options.store or settings.OFFSET_STORE),
        misconfiguration(settings.GROUP_PROTOCOL, settings.OFFSET_BASELINE, settings.GROUP_INSTANCE_ID),
        refused_policy(),
        refused_mirrors(settings.OFFSET_MIRRORS, options.store or settings.OFFSET_STORE),
    )


def _processor_options(options: WorkerOptions, worker_id: str) -> ProcessorOptions:
    return ProcessorOptions(
        options.group_id,
        options.topics,
        worker_id,
        options.exit_when_caught_up,
        Semantics(options.semantics or settings.PROCESSING_SEMANTICS),
        options.store or settings.OFFSET_STORE,
        instance_id=_instance_id(options),
        mirrors=tuple(settings.OFFSET_MIRRORS),
    )


def _raise_if_threads_left(processor: StreamProcessor, worker_id: str, cause: str = "") -> None:
    """A process with a thread that cannot be ended must not be used again, however its worker ended."""
    if processor.threads_left:
        threads = " and ".join(processor.threads_left)
        raise ThreadsStillRunningError(
            f"{worker_id} ended{f' ({cause})' if cause else ''}, but its {threads} thread is still running."
        )


def _instance_id(options: WorkerOptions) -> str:
    """Unique in the group: each slot is a member of its own."""
    name = settings.GROUP_INSTANCE_ID
    return f"{name}-{options.slot.rpartition(':')[2]}" if name and options.slot else name


def _place(options: WorkerOptions) -> str:
    return f" in {options.slot}" if options.slot else ""


def _sign_off(processor: StreamProcessor, options: WorkerOptions, worker_id: str) -> None:
    """Mark the worker as stopped, if the database answers; otherwise its missing heartbeats show it."""
    accounts = processor.pipeline.accounts
    processor.stats.records = accounts.records
    processor.stats.last_error = processor.heartbeat.describe_troubles()
    try:
        WorkerSession.close_if_broken()
        workers.mark_stopped(worker_id, processor.stats)
        journal.record(
            options.group_id,
            "worker_stopped",
            f"{worker_id} stopped after {accounts.records} events in {accounts.commits} commits.",
            worker_id=worker_id,
        )
    except DATABASE_LOST as error:
        logger.warning("%s could not sign off. %s", worker_id, describe_outage(error))


def _summary(processor: StreamProcessor, options: WorkerOptions, worker_id: str, *, caught_up: bool) -> WorkerSummary:
    accounts = processor.pipeline.accounts
    seconds = 0.0
    if accounts.first_fetch_at is not None:
        seconds = (accounts.last_commit_at or monotonic()) - accounts.first_fetch_at
    return WorkerSummary(
        worker_id=worker_id,
        group=options.group_id,
        caught_up=caught_up,
        events=accounts.records,
        dead_letters=accounts.failed_records,
        failed_batches=accounts.failed_batches,
        deduplicated=accounts.deduplicated,
        by_type=dict(accounts.by_type),
        commits=accounts.commits,
        fenced_commits=accounts.fenced,
        seconds=round(seconds, 3),
        events_per_second=round(accounts.records / seconds, 1) if seconds > 0 else None,
    )
