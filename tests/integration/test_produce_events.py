"""`produce_events` and its truth, against what a real broker then holds."""

import json
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition

from analytics.dimensions import EVENT_TYPES
from analytics.events import InvalidRecordError, decode_record
from tests.support.processes import background, manage, manage_json, wait_for

Produce = Callable[..., list[str]]


@pytest.fixture
def topic() -> str:
    return f"produce-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def arguments(topic: str) -> Produce:
    def make(count: int, *more: str) -> list[str]:
        small = ["--contents", "40", "--users", "60"]
        return ["produce_events", "--count", str(count), "--topic", topic, *small, *more]

    return make


def log_of(env: dict[str, str], topic: str, partitions: int) -> dict[int, list[bytes | None]]:
    """The values of every record of the topic, by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": env["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "reader",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
        }
    )
    try:
        ends = {n: consumer.get_watermark_offsets(KafkaTopicPartition(topic, n), 30)[1] for n in range(partitions)}
        consumer.assign([KafkaTopicPartition(topic, n, 0) for n in ends])
        found: dict[int, list[bytes | None]] = {n: [] for n in ends}

        def complete() -> bool:
            for message in consumer.consume(1000, 0.5):
                assert message.error() is None
                found[message.partition()].append(message.value())
            return all(len(found[n]) == end for n, end in ends.items())

        wait_for("all records of the topic", complete)
        return found
    finally:
        consumer.close()


def test_its_truth_is_what_the_log_holds(
    service_env: dict[str, str], topic: str, arguments: Produce, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    told = manage_json(service_env, *arguments(3000, "--poison", "0.6", "--partitions", "3", "--truth", str(truth)))
    rows: Counter[tuple[str, int, str]] = Counter()
    codes: Counter[str] = Counter()
    log = log_of(service_env, topic, 3)
    for value in (value for values in log.values() for value in values):
        try:
            event = decode_record(value, 1024 * 1024)
        except InvalidRecordError as error:
            codes[error.code] += 1
            continue
        rows[("content", event.content_id, EVENT_TYPES[event.type_code])] += 1
        rows[("user", event.user_id, EVENT_TYPES[event.type_code])] += 1
    assert all(log.values()), "a partition was left empty"
    assert (told["events"] + told["poison"], told["poison"]) == (3000, codes.total())
    assert codes["oversized"] >= 1
    assert sum(told["totals"].values()) == told["events"]
    header, *lines = truth.read_text().splitlines()
    assert header == "dimension,id,views,likes,comments,shares"
    seen: Counter[tuple[str, int, str]] = Counter()
    for line in lines:
        dimension, identifier, *counts = line.split(",")
        for name, count in zip(EVENT_TYPES, counts, strict=True):
            seen[(dimension, int(identifier), name)] = int(count)
    assert +seen == rows


def test_it_tells_the_same_truth_for_the_same_seed(
    service_env: dict[str, str], arguments: Produce, tmp_path: Path
) -> None:
    files = [tmp_path / "one.csv", tmp_path / "two.csv", tmp_path / "other.csv"]
    for file, seed in zip(files, ("5", "5", "6"), strict=True):
        manage_json(service_env, *arguments(500, "--seed", seed, "--truth", str(file)))
    one, two, other = (file.read_bytes() for file in files)
    assert one == two
    assert one != other


def test_it_refuses_a_topic_that_has_other_partitions_and_sends_nothing(
    service_env: dict[str, str], topic: str, arguments: Produce
) -> None:
    manage_json(service_env, *arguments(10, "--partitions", "2"))
    refused = manage(service_env, *arguments(10, "--partitions", "3"))
    assert refused.returncode == 2
    assert "exists with 2 partitions, not 3" in refused.stderr
    assert sum(map(len, log_of(service_env, topic, 2).values())) == 10


@pytest.mark.parametrize(
    "wrong",
    [["--poison", "2"], ["--rate", "0"], ["--truth", "/nowhere/truth.csv"], ["--seed", "-1"], ["--partitions", "0"]],
    ids=lambda wrong: wrong[0],
)
def test_it_refuses_wrong_usage(service_env: dict[str, str], arguments: Produce, wrong: list[str]) -> None:
    done = manage(service_env, *arguments(1, *wrong))
    assert done.returncode == 2
    assert wrong[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_it_says_that_kafka_is_away(service_env: dict[str, str], arguments: Produce, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    done = manage(
        {**service_env, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, *arguments(1, "--truth", str(truth)), "--json"
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert not truth.exists()


def test_it_goes_on_until_stopped_and_counts_what_it_sent(
    service_env: dict[str, str], topic: str, arguments: Produce, tmp_path: Path
) -> None:
    log = tmp_path / "output"
    with background(service_env, log, *arguments(0, "--rate", "500", "--partitions", "1", "--json")) as running:
        reader = Consumer({"bootstrap.servers": service_env["KAFKA_BOOTSTRAP_SERVERS"], "group.id": "watcher"})
        try:

            def some() -> bool:
                known = reader.list_topics(timeout=10).topics
                if topic not in known or not known[topic].partitions:
                    return False
                return bool(reader.get_watermark_offsets(KafkaTopicPartition(topic, 0), 10)[1] >= 100)

            wait_for("records in the topic", some)
        finally:
            reader.close()
        assert running.end() == 0
    told = json.loads(log.read_text().splitlines()[-1])
    assert sum(map(len, log_of(service_env, topic, 1).values())) == told["events"]
