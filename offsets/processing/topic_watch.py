"""The watching thread: topic ids and lag. On a thread of its own: a slow Kafka must not delay heartbeats."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

from offsets.database import DATABASE_LOST, WorkerSession
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.monitoring import lag_samples
from offsets.types import Claim, TopicPartition

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class TopicWatch:
    """Compares the topics' ids with those that were claimed (R16), and samples the group's lag.

    `claims()` returns the claims that are read now; `on_trouble(source, text)` is called with what Kafka answers, and
    with "" when it answers. What `post` is given waits in `recreated` for the fetching thread.
    """

    def __init__(
        self,
        group_id: str,
        worker_id: str,
        topics: Iterable[str],
        admin: KafkaAdmin,
        *,
        claims: Callable[[], Iterable[Claim]],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._topics = tuple(topics)
        self._admin = admin
        self._claims = claims
        self._on_trouble = on_trouble
        #: Partitions of topics that were recreated since their claim: the latest look only.
        self.recreated: deque[set[TopicPartition]] = deque(maxlen=1)

    def run(self, stopping: threading.Event) -> None:
        session = WorkerSession(f"{self._worker_id}:watch")
        while not stopping.wait(WATCH_SECONDS):
            try:
                self.post(self.find_recreated(self._claims()))
                # No transaction: Kafka is asked in between, and the sampler's lease must not stay locked meanwhile.
                with session.statements():
                    lag_samples.sample_group(self._group_id, self._worker_id, self._admin)
                self._on_trouble("kafka", "")
            except OffsetsError as error:
                self._on_trouble("kafka", str(error))
            except DATABASE_LOST as error:
                logger.debug("Lag is not sampled: %s", error)

    def find_recreated(self, claims: Iterable[Claim]) -> set[TopicPartition]:
        """The partitions whose topic was recreated since its claim. Raises OffsetsError while Kafka does not answer."""
        described = self._admin.describe_topics(self._topics)
        return {
            claim.topic_partition
            for claim in claims
            if claim.topic in described and described[claim.topic].topic_id != claim.topic_id
        }

    def post(self, recreated: set[TopicPartition]) -> None:
        """Have the fetching thread halt these partitions. Any thread may call it."""
        if recreated:
            self.recreated.append(recreated)
