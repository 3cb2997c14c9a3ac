"""The circuit breaker of each partition: it pauses the partition when too much of it fails.

It stays paused until an operator resumes it, and drops nothing (unlike the tolerance settings of parallel-consumer and
Connect, which either stop the whole process or lose records).
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.conf import settings

from offsets.actions import automatic
from offsets.database import DATABASE_LOST
from offsets.models import PartitionCheckpoint
from offsets.types import Claim, DesiredState, PartitionCommit, TopicPartition

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """`max_percent` of the last `window` records (not before that many were read); `max_in_a_row` records;
    `max_batches` whole batches in a row.
    """

    max_percent: int
    window: int
    max_in_a_row: int
    max_batches: int


@dataclass(slots=True)
class Breaker:
    """The outcomes of the last batches of one partition. Fed by one thread, in offset order."""

    limits: BreakerLimits
    _recent: deque[tuple[int, int]] = field(default_factory=deque)
    _records: int = 0
    _failed: int = 0
    #: Failed records at adjacent offsets up to `_run_end`.
    _run: int = 0
    _run_end: int = -1
    _batches: int = 0

    def failed_batch(self) -> str:
        """A whole batch could not be applied. Returns why the partition must pause; empty where it need not."""
        self._batches += 1
        if self._batches < self.limits.max_batches:
            return ""
        return f"{self._batches} batches in a row could not be applied"

    def counted_batch(self, counted: int, failed_offsets: Sequence[int]) -> str:
        """A batch was committed: `counted` records, and dead letters at `failed_offsets` (sorted)."""
        self._batches = 0
        longest = self._longest_run(failed_offsets)
        self._remember(counted + len(failed_offsets), len(failed_offsets))
        if longest >= self.limits.max_in_a_row:
            return f"{longest:,} records in a row could not be counted"
        if self._records >= self.limits.window and self._failed * 100 > self.limits.max_percent * self._records:
            return f"{self._failed:,} of the last {self._records:,} records could not be counted"
        return ""

    def _longest_run(self, offsets: Sequence[int]) -> int:
        """The longest run of adjacent failed offsets that ends in this batch; it may have begun in an earlier one."""
        longest = 0
        for offset in offsets:
            self._run = self._run + 1 if offset == self._run_end else 1
            self._run_end = offset + 1
            longest = max(longest, self._run)
        return longest

    def _remember(self, records: int, failed: int) -> None:
        """Keep as few of the last batches as hold `window` records."""
        if not records:
            return  # nothing but transaction markers: they would pile up
        self._recent.append((records, failed))
        self._records += records
        self._failed += failed
        while self._records - self._recent[0][0] >= self.limits.window:
            old_records, old_failed = self._recent.popleft()
            self._records -= old_records
            self._failed -= old_failed


class CircuitBreakers:
    """Use it from the commit thread, after each transaction.

    One breaker for each partition that this worker ever owned: it survives a new claim, which follows every refused
    batch. After a trip a new one begins.
    """

    def __init__(self) -> None:
        self._limits = BreakerLimits(
            settings.DEAD_LETTER_MAX_PERCENT,
            settings.DEAD_LETTER_WINDOW,
            settings.DEAD_LETTER_MAX_IN_A_ROW,
            settings.FAILED_BATCHES_MAX_IN_A_ROW,
        )
        self._breakers: dict[TopicPartition, Breaker] = {}

    def counted(self, commit: PartitionCommit) -> None:
        offsets = sorted(failure.offset for failure in commit.failures)
        self._trip_if(commit.claim, self._breaker(commit.claim).counted_batch(commit.stats.records, offsets))

    def quarantined(self, commit: PartitionCommit) -> None:
        self._trip_if(commit.claim, self._breaker(commit.claim).failed_batch())

    def _breaker(self, claim: Claim) -> Breaker:
        return self._breakers.setdefault(claim.topic_partition, Breaker(self._limits))

    def _trip_if(self, claim: Claim, why: str) -> None:
        """Pause the partition and forget its breaker: after a resume only the new records count."""
        if not why:
            return
        try:
            if automatic.pause_automatically(claim.checkpoint_id, why, epoch=claim.epoch) or _is_paused(
                claim.checkpoint_id
            ):
                del self._breakers[claim.topic_partition]
            # Otherwise the row was locked: the next failure tries again.
        except DATABASE_LOST as error:
            logger.warning(
                "%s should pause (%s), but the database is unavailable: %s", claim.topic_partition, why, error
            )


def _is_paused(checkpoint_id: int) -> bool:
    return PartitionCheckpoint.objects.filter(pk=checkpoint_id, desired_state=DesiredState.PAUSED).exists()
