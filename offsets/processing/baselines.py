"""Where a group begins in partitions that it has never read (R15)."""

from collections.abc import Iterable, Mapping

from django.conf import settings

from offsets import ledger
from offsets.errors import ServiceUnavailableError, TopicNotFoundError
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.ledger import Baseline
from offsets.types import TopicPartition


class Baselines:
    """Inserts the checkpoints of new partitions, at the offset that OFFSET_BASELINE names."""

    def __init__(self, group_id: str, admin: KafkaAdmin, dimensions: tuple[str, ...]) -> None:
        self._group_id = group_id
        self._admin = admin
        self._dimensions = dimensions

    def insert_missing(
        self, topics: Iterable[str], described: Mapping[str, TopicDescription], *, timeout_seconds: float
    ) -> dict[TopicPartition, LogBounds]:
        """Insert rows for the partitions of `topics` without one. Returns the log bounds that it read for that.

        Raises TopicNotFoundError, and ServiceUnavailableError while Kafka does not know all bounds.
        """
        read: dict[TopicPartition, LogBounds] = {}
        for topic in topics:
            description = described.get(topic)
            if description is None:
                raise TopicNotFoundError(f"Topic {topic!r} does not exist on this cluster.")
            known = ledger.known_partitions(self._group_id, topic)
            if known.issuperset(description.partitions):
                continue
            wanted = [TopicPartition(topic, p) for p in description.partitions]
            bounds = self._admin.log_bounds(wanted, timeout_seconds=timeout_seconds)
            baselines = self._choose(description, wanted, bounds)
            if set(baselines) | known != set(description.partitions):
                raise ServiceUnavailableError(f"The log bounds of {topic} are not all known yet.")
            ledger.insert_baselines(self._group_id, topic, baselines, self._dimensions)
            read |= bounds
        return read

    def _choose(
        self,
        description: TopicDescription,
        wanted: list[TopicPartition],
        bounds: Mapping[TopicPartition, LogBounds],
    ) -> dict[int, Baseline]:
        kind = settings.OFFSET_BASELINE
        committed = self._admin.committed(self._group_id, wanted) if kind == "group" else {}
        baselines = {}
        for tp, bound in bounds.items():
            if tp in committed:
                baseline = Baseline(description.topic_id, committed[tp], "group")
            elif kind == "latest":
                baseline = Baseline(description.topic_id, bound.end, "latest")
            else:
                baseline = Baseline(description.topic_id, bound.start, "earliest")
            baselines[tp.partition] = baseline
        return baselines
