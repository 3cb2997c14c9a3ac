"""The circuit breaker of one partition: when so much fails that it had better wait for a person. Pure.

Over the limit the partition pauses; it never drops (after parallel-consumer's and Connect's tolerance settings, which
either stop the whole process or lose records).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """`max_percent` of the last `window` records (nothing trips before so many were read); `max_in_a_row` records;
    `max_batches` whole batches one after the other.
    """

    max_percent: int
    window: int
    max_in_a_row: int
    max_batches: int


@dataclass(slots=True)
class Breaker:
    """What became of the last batches of one claim. Fed by one thread, in offset order."""

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
        """A batch was committed: so many records counted, those at `failed_offsets` (sorted) set apart."""
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
            return  # a partition of nothing but transaction markers would never forget one
        self._recent.append((records, failed))
        self._records += records
        self._failed += failed
        while self._records - self._recent[0][0] >= self.limits.window:
            old_records, old_failed = self._recent.popleft()
            self._records -= old_records
            self._failed -= old_failed
