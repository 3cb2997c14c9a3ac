"""Pauses fetching while the commit side is behind (R11)."""

from offsets.clock import monotonic
from offsets.kafka.client import KafkaClient
from offsets.processing.coordinator import OffsetCoordinator
from offsets.types import TopicPartition

#: How long the pipeline may be full before the partitions are paused.
PATIENCE_SECONDS = 1.0


class Backpressure:
    """Fetching thread only."""

    def __init__(self, client: KafkaClient, coordinator: OffsetCoordinator) -> None:
        self._client = client
        self._coordinator = coordinator
        self._blocked_since: float | None = None
        self._paused: set[TopicPartition] = set()

    def pause_if_blocked(self) -> bool:
        """The pipeline is full. Returns whether the partitions are paused now, so that polling brings no records."""
        self._blocked_since = self._blocked_since or monotonic()
        if monotonic() - self._blocked_since < PATIENCE_SECONDS:
            return False
        reading = {tp for tp, local in self._coordinator.partitions.items() if local.reading}
        self._client.pause(reading - self._paused)
        self._paused |= reading
        return True

    def release(self) -> None:
        """The pipeline has room."""
        self._blocked_since = None
        if self._paused:
            partitions = self._coordinator.partitions
            self._client.resume(tp for tp in self._paused if tp in partitions and partitions[tp].reading)
            self._paused.clear()

    def forget(self, tp: TopicPartition) -> None:
        """The partition was claimed again, which has set its pause state."""
        self._paused.discard(tp)
