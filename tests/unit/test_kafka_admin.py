"""What is asked of a cluster when a topic of the group is gone."""

from collections.abc import Iterable

import pytest

from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.types import TopicPartition

HERE, GONE = TopicPartition("here", 0), TopicPartition("gone", 0)


class OneTopicGone(KafkaAdmin):
    """Times out whenever it is asked for the log of a topic that is gone, as librdkafka does now and then."""

    def __init__(self, topics: Iterable[str]) -> None:
        super().__init__()
        self.topics = set(topics)
        self.asked: list[list[TopicPartition]] = []

    def describe_topics(
        self, topics: Iterable[str], *, timeout_seconds: float | None = None
    ) -> dict[str, TopicDescription]:
        return {name: TopicDescription("id", (0,)) for name in topics if name in self.topics}

    def _bounds(self, wanted: list[TopicPartition], timeout: float) -> dict[TopicPartition, LogBounds]:
        self.asked.append(wanted)
        if GONE in wanted:
            raise ServiceUnavailableError("Failed to query partition leaders")
        return dict.fromkeys(wanted, LogBounds(0, 5))


def test_a_topic_that_is_gone_leaves_the_others_known_and_is_asked_for_once() -> None:
    admin = OneTopicGone(["here"])
    assert admin.log_bounds([HERE, GONE]) == {HERE: LogBounds(0, 5)}
    assert admin.log_bounds([HERE, GONE]) == {HERE: LogBounds(0, 5)}
    assert admin.asked == [[GONE, HERE], [HERE], [HERE]]


def test_a_cluster_that_does_not_answer_is_no_missing_topic() -> None:
    with pytest.raises(ServiceUnavailableError):
        OneTopicGone(["here", "gone"]).log_bounds([HERE, GONE])
