"""The circuit breakers of a worker's partitions, and what happens when one trips: an audited pause."""

import logging

from django.conf import settings

from offsets.actions import automatic
from offsets.breaker import Breaker, BreakerLimits
from offsets.database import DATABASE_LOST
from offsets.models import PartitionCheckpoint
from offsets.types import Claim, DesiredState, PartitionCommit, TopicPartition

logger = logging.getLogger(__name__)


class CircuitBreakers:
    """Use it from the commit thread, after each transaction. One for each partition that was ever this worker's: a
    refused batch is claimed afresh, and must not begin anew with that. After a trip it does.
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
        self._answer(commit.claim, self._breaker(commit.claim).counted_batch(commit.stats.records, offsets))

    def quarantined(self, commit: PartitionCommit) -> None:
        self._answer(commit.claim, self._breaker(commit.claim).failed_batch())

    def _breaker(self, claim: Claim) -> Breaker:
        return self._breakers.setdefault(claim.topic_partition, Breaker(self._limits))

    def _answer(self, claim: Claim, why: str) -> None:
        """Pause, and begin anew: after a resume the next records are judged by themselves."""
        if not why:
            return
        try:
            if automatic.pause_automatically(claim.checkpoint_id, why, epoch=claim.epoch) or _is_paused(
                claim.checkpoint_id
            ):
                del self._breakers[claim.topic_partition]
            # Otherwise something held the row in this moment: the next failure asks again.
        except DATABASE_LOST as error:
            logger.warning("%s should pause (%s); the database is away: %s", claim.topic_partition, why, error)


def _is_paused(checkpoint_id: int) -> bool:
    return PartitionCheckpoint.objects.filter(pk=checkpoint_id, desired_state=DesiredState.PAUSED).exists()
