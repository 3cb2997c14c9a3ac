"""The circuit breakers of a worker's partitions, and what happens when one trips: an audited pause."""

import logging
from collections.abc import Callable

from django.conf import settings

from offsets.breaker import Breaker, BreakerLimits
from offsets.models import PartitionCheckpoint
from offsets.recovery import automatic
from offsets.sessions import DATABASE_LOST
from offsets.types import Claim, DesiredState, PartitionCommit

logger = logging.getLogger(__name__)


class CircuitBreakers:
    """Use it from the commit thread, after each transaction. `is_current(claim)` tells which breakers may be forgotten:
    a partition that was claimed afresh, or resumed after a trip, begins anew.
    """

    def __init__(self, is_current: Callable[[Claim], bool]) -> None:
        self._is_current = is_current
        self._limits = BreakerLimits(
            settings.DEAD_LETTER_MAX_PERCENT,
            settings.DEAD_LETTER_WINDOW,
            settings.DEAD_LETTER_MAX_IN_A_ROW,
            settings.FAILED_BATCHES_MAX_IN_A_ROW,
        )
        self._breakers: dict[Claim, Breaker] = {}

    def counted(self, commit: PartitionCommit) -> None:
        offsets = sorted(failure.offset for failure in commit.failures)
        self._answer(commit.claim, self._breaker(commit.claim).counted_batch(commit.stats.records, offsets))

    def quarantined(self, commit: PartitionCommit) -> None:
        self._answer(commit.claim, self._breaker(commit.claim).failed_batch())

    def _breaker(self, claim: Claim) -> Breaker:
        if claim not in self._breakers:
            self._breakers = {known: one for known, one in self._breakers.items() if self._is_current(known)}
            self._breakers[claim] = Breaker(self._limits)
        return self._breakers[claim]

    def _answer(self, claim: Claim, why: str) -> None:
        """Pause, and begin anew: after a resume the next records are judged by themselves."""
        if not why:
            return
        try:
            if automatic.pause(claim.checkpoint_id, why) or _is_paused(claim.checkpoint_id):
                del self._breakers[claim]
            # Otherwise something held the row in this moment: the next failure asks again.
        except DATABASE_LOST as error:
            logger.warning("%s should pause (%s); the database is away: %s", claim.topic_partition, why, error)


def _is_paused(checkpoint_id: int) -> bool:
    return PartitionCheckpoint.objects.filter(pk=checkpoint_id, desired_state=DesiredState.PAUSED).exists()
