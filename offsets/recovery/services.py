"""Which services respond, and what Kafka reports of the group's topics: read at each tick of the recovery manager."""

from collections.abc import Mapping
from datetime import datetime

from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from offsets.clock import monotonic
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import PartitionCheckpoint
from offsets.monitoring import lag_samples
from offsets.recovery import assessments
from offsets.text import describe_error
from offsets.types import TopicPartition

KAFKA_SECONDS = 3.0
RETENTION_ASK_SECONDS = 60.0


class ServiceWatch:
    """Keeps what it saw last: the best known state while Kafka does not respond."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        #: Services that do not respond: why, and since when by the database's clock.
        self.services: dict[str, tuple[str, datetime]] = {}
        #: Partitions of the group's topics that have no checkpoint.
        self.unclaimed: list[str] = []
        #: In seconds, by topic.
        self.retention: dict[str, float] = {}
        #: Kafka deletes records below these offsets within the warning time.
        self.old_below: dict[TopicPartition, int] = {}
        self._admin: KafkaAdmin | None = None
        self._redis = Redis.from_url(
            settings.REDIS_URL, **{**settings.REDIS_OPTIONS, "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
        )
        self._asked_at = -RETENTION_ASK_SECONDS

    def look(self) -> None:
        """Sample the log in one request for all partitions; see which services respond."""
        try:
            self._admin = self._admin or KafkaAdmin(timeout_seconds=KAFKA_SECONDS)
            lag_samples.sample_group(self.group_id, "monitor", self._admin)
            topics = self._topics()
            self.unclaimed = self._new_partitions(self._admin, topics)
            if monotonic() - self._asked_at >= RETENTION_ASK_SECONDS:
                self._ask_retention(self._admin, topics)
            self.services.pop("kafka", None)
        except OffsetsError as error:
            self._missing("kafka", str(error))
        try:
            self._redis.ping()
            self.services.pop("redis", None)
        except (RedisError, OSError) as error:
            self._missing("redis", f"{describe_error(error)}.")

    def _ask_retention(self, admin: KafkaAdmin, topics: Mapping[str, set[int]]) -> None:
        """How long Kafka keeps records, and below which offset it deletes them soon. By the records' own timestamps:
        our samples do not reach back as far as a topic's retention.
        """
        self.retention = admin.retention_seconds(topics)
        now, old = assessments.now().timestamp(), {}
        for topic, seconds in self.retention.items():
            border = now - max(0.0, seconds - settings.RETENTION_WARN_SECONDS)
            partitions = [TopicPartition(topic, number) for number in topics[topic]]
            old.update(admin.offsets_for_time(partitions, round(border * 1000)))
        self.old_below = old
        self._asked_at = monotonic()

    def _missing(self, service: str, text: str) -> None:
        self.services[service] = (text, self.services[service][1] if service in self.services else assessments.now())

    def _topics(self) -> dict[str, set[int]]:
        """The group's topics, with the partitions that have a checkpoint."""
        topics: dict[str, set[int]] = {}
        rows = PartitionCheckpoint.objects.live(self.group_id)
        for topic, partition in rows.values_list("topic", "partition"):
            topics.setdefault(topic, set()).add(partition)
        return topics

    @staticmethod
    def _new_partitions(admin: KafkaAdmin, topics: Mapping[str, set[int]]) -> list[str]:
        """Partitions of the group's topics that are not claimed yet."""
        return [
            f"{topic}-{partition}"
            for topic, description in sorted(admin.describe_topics(topics).items())
            for partition in description.partitions
            if partition not in topics[topic]
        ]
