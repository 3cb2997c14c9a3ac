"""One Kafka client of a kind per process, also after a fork, and another after an error."""

import os
import threading
import uuid

import pytest
from confluent_kafka import KafkaError, KafkaException
from django.conf import settings

from offsets.errors import ServiceUnavailableError
from offsets.kafka import shared
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.group_offsets import committed_offsets
from offsets.types import TopicPartition

pytestmark = [pytest.mark.usefixtures("stack"), pytest.mark.timeout(120)]
PLACE = TopicPartition("no-topic", 0)


def test_everyone_who_asks_gets_the_same_client() -> None:
    before = threading.active_count()
    clients = {id(shared.admin_client()) for _ in range(20)}
    for _ in range(20):
        KafkaAdmin().describe_topics(["no-topic"])
    assert len(clients) == 1
    assert id(shared.admin_client()) in clients
    assert threading.active_count() <= before + 1


def test_another_cluster_has_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    here = shared.admin_client()
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert shared.admin_client() is not here


def test_a_group_is_read_by_one_consumer_until_it_fails() -> None:
    group = f"group-{uuid.uuid4().hex[:8]}"
    seen = []
    for _ in range(3):
        assert committed_offsets(group, [PLACE], 10.0) == {}
        with shared.group_reader(group, 1.0) as consumer:
            seen.append(consumer)
    assert len({id(consumer) for consumer in seen}) == 1

    with pytest.raises(KafkaException), shared.group_reader(group, 1.0):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    with shared.group_reader(group, 1.0) as consumer:
        assert consumer is not seen[0]
    assert committed_offsets(group, [PLACE], 10.0) == {}


def test_a_reader_that_is_busy_is_waited_for_only_as_long_as_kafka_would_be() -> None:
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with shared.group_reader("a-group", 1.0):
            held.set()
            assert free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    try:
        with pytest.raises(ServiceUnavailableError, match="did not answer"):
            committed_offsets("a-group", [PLACE], 0.2)
    finally:
        free.set()
        thread.join(10)
    assert committed_offsets("a-group", [PLACE], 10.0) == {}


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_its_own_and_leaves_the_inherited_one_alone() -> None:
    """Freeing the parent's client would wait for threads that the child does not have."""
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    holder = shared.PerProcess(make, lambda one: made.append("closed"))
    assert holder.get("k") == holder.get("k") == 1
    shared.admin_client()
    pid = os.fork()
    if not pid:
        alive = holder.get("k") == 2 and "closed" not in made and not KafkaAdmin().describe_topics(["no-topic"])
        os._exit(0 if alive else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert holder.get("k") == 1
    holder.drop()
    assert made == ["k", "closed"]
