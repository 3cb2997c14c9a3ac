"""Run a replay: read its ranges again and count what was not counted, chunk by chunk.

Each chunk is one transaction that writes metrics, ledger, dead letters and the replay's progress, so a killed replay
resumes where it was. Nothing here touches a live offset, and no live worker waits for it.
"""

import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import random
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils.module_loading import import_string

from offsets import leases, ledger
from offsets.clock import Backoff, monotonic
from offsets.database import DATABASE_LOST, NOT_THE_BATCH, WorkerSession
from offsets.errors import OffsetsError, ServiceUnavailableError
from offsets.failpoints import failpoint
from offsets.failures import HANDLER_FAILED, REFUSED_BY_DATABASE, decode_apart, halves, set_apart
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.reader import OutOfRangeError, RangeReader
from offsets.leases import LeaseToken
from offsets.models import PartitionCheckpoint, Replay, ReplayRange
from offsets.processing.deduplication import BatchPiece, split
from offsets.processing.pipeline import Pending
from offsets.ranges import OffsetRange, cut
from offsets.replays import rows as replay_rows
from offsets.replays.plans import retry_seconds
from offsets.replays.rows import Progress, TakenOverError, lease_seconds
from offsets.text import describe_error
from offsets.types import BatchHandler, Claim, PartitionCommit, RangeKind, RecordBatch, TopicPartition

logger = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK_RECORDS = 5_000
#: How often a chunk is decoded again because the ledger has changed, before its range is given up for now.
MAX_REDOS = 20
#: More rejected records in a row than this are not the fault of the data.
MAX_REFUSED_IN_A_ROW = 200
#: How long a replay waits for an unavailable service; then it stops, and the recovery manager restarts it.
PATIENCE_SECONDS = 60.0
#: How often the topic id is checked, as live workers do (R16).
TOPIC_SECONDS = 1.0


class RangeRefusedError(OffsetsError):
    """A range cannot be applied now, even without its rejected records."""


@dataclass(slots=True)
class _Pace:
    """The throttle of a whole replay, in records per second."""

    per_second: int | None
    sleep: Callable[[float], None]
    _began: float | None = None
    _records: int = 0

    def wait(self) -> None:
        """Wait before a chunk is read, until the chunks before it have taken their time."""
        if not self.per_second:
            return
        now = monotonic()
        self._began = now if self._began is None else self._began
        due = self._began + self._records / self.per_second
        if due > now:
            self.sleep(due - now)

    def took(self, records: int) -> None:
        self._records += records


def run(
    replay_id: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Replay], None] = lambda replay: None,
) -> Replay | None:
    """Run a replay to its end, or until it is stopped; None when another process runs it, or it has ended.

    Raises ServiceUnavailableError, OperationalError when a service stays unavailable: the next run resumes it.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    token = leases.acquire(f"replay:{replay_id}", holder, lease_seconds())
    if token is None:
        return None
    reader = None
    try:
        replay = replay_rows.start(replay_id)
        if replay is None:
            return None
        reader = RangeReader()
        worker = _Replayer(replay, token, reader, should_stop, on_progress)
        if not worker.run():
            return Replay.objects.get(pk=replay_id)
        return replay_rows.finish(replay_id)
    except TakenOverError:
        logger.warning("Replay %d: another process has taken over; this one stops.", replay_id)
        return None
    finally:
        if reader is not None:
            reader.close()
        try:
            leases.release(token)
        except DATABASE_LOST:
            connection.close()


class _Replayer:
    def __init__(
        self,
        replay: Replay,
        token: LeaseToken,
        reader: RangeReader,
        should_stop: Callable[[], bool],
        on_progress: Callable[[Replay], None],
    ) -> None:
        self._replay = replay
        self._token = token
        self._reader = reader
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._handler: BatchHandler = import_string(settings.BATCH_HANDLER)()
        self._session = WorkerSession(f"replay-{replay.pk}")
        self._pace = _Pace(replay.records_per_second, self._sleep)
        # A slow replay reads about one second's worth at once, so that its throttle allows no bursts.
        self._chunk = min(CHUNK_RECORDS, replay.records_per_second or CHUNK_RECORDS)
        self._refused_in_a_row = 0
        self._admin = KafkaAdmin()
        self._topic_checked: tuple[int, float] | None = None

    def run(self) -> bool:
        """Work through the ranges; False when stopped before the end."""
        for span in replay_rows.waiting_ranges(self._replay):
            try:
                if not self._range(span):
                    return self._cancelled()
            except RangeRefusedError as error:
                self._refused(span, str(error))
            except (OffsetsError, TakenOverError, *DATABASE_LOST):
                raise
            except Exception as error:
                # Otherwise the replay would be restarted at once; a refused range is retried at growing intervals.
                logger.exception("Replay %d: %s failed.", self._replay.pk, _place(span))
                self._refused(span, describe_error(error))
        return True

    def _cancelled(self) -> bool:
        return self._with_retries(lambda: replay_rows.is_cancelled(self._replay.pk))

    def _check_topic(self, span: ReplayRange, *, now: bool = False) -> None:
        """Raises RangeRefusedError for another topic of the same name; unless `now`, asks once in TOPIC_SECONDS."""
        checkpoint_id, at = self._topic_checked or (None, 0.0)
        if not now and checkpoint_id == span.checkpoint_id and monotonic() - at < TOPIC_SECONDS:
            return
        described = self._with_retries(lambda: self._admin.describe_topics([span.checkpoint.topic]))
        topic = described.get(span.checkpoint.topic)
        if topic is None or topic.topic_id != span.checkpoint.topic_id:
            raise RangeRefusedError(f"{_place(span)}: the topic was deleted, so its offsets mean other records now.")
        self._topic_checked = (span.checkpoint_id, monotonic())

    def _range(self, span: ReplayRange) -> bool:
        """Replay a range chunk by chunk; False when stopped."""
        while span.position < span.end:
            self._pace.wait()
            if self._should_stop() or self._cancelled():
                return False
            self._check_topic(span)
            try:
                records, upto = self._with_retries(
                    lambda: self._reader.read(_place(span), span.position, span.end, self._chunk)
                )
            except OutOfRangeError as error:
                self._expired(span, str(error))
                continue
            # After the fetch (docs/adr/0004): the records may be of a topic that was deleted since.
            self._check_topic(span, now=True)
            batch = RecordBatch(_claim(span), span.position, upto, records, sum(map(len, records)))
            self._apply(span, batch)
            failpoint("replay_chunk")
            self._pace.took(len(records))
            self._on_progress(self._replay)
        return True

    # --- One chunk -----------------------------------------------------------------------------

    def _apply(self, span: ReplayRange, batch: RecordBatch) -> None:
        """Count a chunk; where its data is rejected, halve it, down to the records that become dead letters (R11)."""
        for _ in range(MAX_REDOS):
            pieces = self._pieces(batch)
            try:
                # Only records that the halving has isolated become dead letters without another attempt.
                commit, dropped = self._decoded(pieces)
                done = self._commit(span, commit, dropped)
            except (TakenOverError, *NOT_THE_BATCH):
                raise
            except Exception as error:
                done = self._isolate(span, batch, pieces, error)
            else:
                self._refused_in_a_row = 0
            if done:
                return
        raise RangeRefusedError(f"{_place(span)} [{batch.start}, {batch.end}): the ledger keeps changing there.")

    def _isolate(self, span: ReplayRange, batch: RecordBatch, pieces: list[BatchPiece], error: Exception) -> bool:
        """Halve a rejected chunk, or dead-letter its only record. False when the ledger has changed meanwhile."""
        if sum(len(piece.batch.records) for piece in pieces) > 1 and len(batch.records) > 1:
            for half in halves(batch):
                self._apply(span, half)
            return True
        self._refused_in_a_row += 1
        if self._refused_in_a_row > MAX_REFUSED_IN_A_ROW:
            raise RangeRefusedError(
                f"{self._refused_in_a_row} records in a row were rejected: {describe_error(error)}"
            ) from error
        apart = [
            (set_apart(self._handler.decode, piece.batch, _code_of(error), describe_error(error)), piece.found)
            for piece in pieces
        ]
        try:
            dropped = sum(piece.dropped for piece in pieces)
            return self._commit(span, self._combined(_claim(span), batch, apart), dropped)
        except (TakenOverError, *NOT_THE_BATCH):
            raise
        except Exception as again:
            raise RangeRefusedError(f"rejected even without records: {describe_error(again)}") from again

    def _pieces(self, batch: RecordBatch) -> list[BatchPiece]:
        """The batch in pieces, without the records that are processed or unknown to the ledger."""

        def ask() -> list[BatchPiece]:
            within = OffsetRange(batch.start, batch.end)
            with self._session.transaction():
                known = ledger.known_ranges(batch.claim.checkpoint_id, within)
            return split(batch, cut(within, known), subtract=True)

        return [
            piece if piece.found is not None else replace(piece, batch=replace(piece.batch, records=[], size_bytes=0))
            for piece in self._with_retries(ask)
        ]

    def _decoded(self, pieces: list[BatchPiece]) -> tuple[PartitionCommit, int]:
        never = (OffsetsError, *DATABASE_LOST)
        try:
            decoded = [
                (part, piece.found)
                for piece in pieces
                for part in decode_apart(self._handler.decode, piece.batch, never)
            ]
        except never:
            raise
        except Exception as error:
            raise RangeRefusedError(f"the handler failed: {describe_error(error)}") from error
        batch = pieces[0].batch
        whole = RecordBatch(batch.claim, batch.start, pieces[-1].batch.end, [], 0)
        return self._combined(batch.claim, whole, decoded), sum(piece.dropped for piece in pieces)

    def _combined(self, claim: Claim, batch: RecordBatch, decoded: list) -> PartitionCommit:  # type: ignore[type-arg]
        held = Pending(claim)
        held.add(batch, decoded, 0)
        commit = self._handler.combine(held.batches)
        return replace(commit, segments=tuple(held.segments))

    def _commit(self, span: ReplayRange, commit: PartitionCommit, dropped: int) -> bool:
        """One transaction, repeated while the database is unavailable. False when the ledger has changed meanwhile."""
        counted = _without_live(commit)
        step = Progress(commit.end, counted, dropped, commit.stats.failed_records)
        before = span.position

        def apply() -> bool:
            # After a COMMIT of unknown outcome the row itself says whether it was applied.
            now = ReplayRange.objects.values_list("position", flat=True).get(pk=span.pk)
            if now == commit.end and now != before:
                return True
            with self._session.transaction():
                self._handler.insert([commit], connection)
                miss = ledger.replay_miss(commit)
                if miss:
                    raise _MissedError(miss)
                self._handler.update([commit], connection)
                ledger.record_replayed(commit, uuid.uuid4())
                replay_rows.advance(span, step, self._token)
                failpoint("before_replay_commit")
            return True

        try:
            self._with_retries(apply)
        except _MissedError as error:
            if not PartitionCheckpoint.objects.filter(pk=span.checkpoint_id, retired_at__isnull=True).exists():
                raise RangeRefusedError(str(error)) from error
            return False
        span.position = commit.end
        if span.position >= span.end:
            span.state = ReplayRange.State.DONE
        self._with_retries(self._replay.refresh_from_db)
        return True

    # --- Ends and waits ------------------------------------------------------------------------

    def _expired(self, span: ReplayRange, detail: str) -> None:
        """Kafka has deleted the next offsets: failed ones among them become expired."""
        start = self._with_retries(lambda: _log_start(_place(span)))
        if start <= span.position:
            raise RangeRefusedError(f"{detail} The log was truncated before it.")
        expired = OffsetRange(span.position, min(start, span.end))
        with self._session.transaction():
            known = cut(expired, ledger.known_ranges(span.checkpoint_id, expired))
            uncounted = sum(p.end - p.start for p in known if p.kind not in (None, RangeKind.PROCESSED))
            ledger.pass_failed(span.checkpoint_id, expired, RangeKind.EXPIRED, detail)
            replay_rows.pass_over(span, expired.end, detail, self._token, expired=uncounted)
        span.position = expired.end

    def _refused(self, span: ReplayRange, detail: str) -> None:
        """A failed attempt: the ledger counts it and schedules the next one."""
        left = OffsetRange(span.position, span.end)
        row = span.checkpoint.ranges.filter(kind=RangeKind.FAILED, offsets__overlap=(left.start, left.end)).first()
        attempts = (row.attempts if row else 0) + 1
        spread = random()  # noqa: S311 - no secret
        seconds = retry_seconds(attempts, settings.REPLAY_FIRST_SECONDS, settings.REPLAY_ATTEMPTS, spread)
        with self._session.transaction():
            ledger.retry_failed_later(span.checkpoint_id, left, seconds, detail)
            replay_rows.give_up(span, detail, self._token)

    def _with_retries(self, ask: Callable[[], T]) -> T:
        """Retry while a service is unavailable, renewing the lease in between, for up to PATIENCE_SECONDS."""
        backoff, until = Backoff(), monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._renew()
                return ask()
            except OutOfRangeError:
                raise
            except (ServiceUnavailableError, *DATABASE_LOST) as error:
                if monotonic() > until or self._should_stop():
                    raise
                logger.warning("Replay %d waits: %s", self._replay.pk, " ".join(str(error).split()))
                connection.close()
                time.sleep(backoff.next_seconds())

    def _renew(self) -> None:
        if not leases.renew(self._token, lease_seconds()):
            raise TakenOverError

    def _sleep(self, seconds: float) -> None:
        """A throttled replay still holds its lease."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and not self._should_stop():
            time.sleep(min(left, lease_seconds() / 4))
            self._with_retries(lambda: None)  # which renews the lease


def _code_of(error: Exception) -> str:
    return REFUSED_BY_DATABASE if isinstance(error, DatabaseError) else HANDLER_FAILED


class _MissedError(Exception):
    """The ledger has changed since the chunk was decoded."""


def _without_live(commit: PartitionCommit) -> int:
    return sum(part.records for part in commit.parts if part.found not in (None, RangeKind.PROCESSED))


def _log_start(tp: TopicPartition) -> int:
    bounds = KafkaAdmin().log_bounds([tp]).get(tp)
    if bounds is None:  # offsets that are recorded as expired cannot be replayed: do not guess
        raise ServiceUnavailableError(f"Cannot read the log start of {tp}: the partition has no leader.")
    return bounds.start


def _place(span: ReplayRange) -> TopicPartition:
    return TopicPartition(span.checkpoint.topic, span.checkpoint.partition)


def _claim(span: ReplayRange) -> Claim:
    """A replay owns no partition; the handler needs its identity and dimensions."""
    row = span.checkpoint
    return Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset, tuple(row.dimensions), row.topic_id)
