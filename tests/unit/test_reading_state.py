"""What a worker takes as read, and what it makes of the client's errors."""

import pytest
from confluent_kafka import KafkaError

from offsets.kafka.admin import LogBounds, TopicDescription
from offsets.kafka.fetch_errors import FetchProblem, classify, divergence_in, tells_truncation
from offsets.processing.halts import out_of_range
from offsets.processing.partition_state import LocalPartition
from offsets.types import Claim, HaltReason, Position
from tests.support.records import Record

CLAIM = Claim(1, "t", 0, 1, 100, topic_id="here")
#: As librdkafka 2.16 says it.
TRUNCATION = (
    "Partition log truncation detected at offset 1000 (leader epoch 0): broker end offset is 900 (offset leader epoch"
    " 0). Reset to INVALID.: Local: Partition log truncation detected (broker 1)"
)
OUT_OF_RANGE = (
    "fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)"
)


def local(**more: object) -> LocalPartition:
    return LocalPartition(CLAIM, start=100, committed=100, **more)  # type: ignore[arg-type]


# --- Positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "records", "position", "taken"),
    [
        pytest.param({}, [], Position(1_000_000, 7), None, id="a position of an earlier claim"),
        pytest.param({"started": True}, [], None, None, id="nothing fetched yet"),
        pytest.param({"started": True}, [], Position(100, 1), None, id="nothing new"),
        pytest.param({"started": True}, [], Position(104, 2), (100, 104, 2), id="markers alone"),
        pytest.param({"started": True}, [100, 102], None, (100, 103, 0), id="records alone"),
        pytest.param({"started": True}, [100, 102], Position(104, 4), (100, 104, 4), id="records and a marker"),
        pytest.param({"started": True}, [100, 102], Position(101, 1), (100, 103, 0), id="a position that is behind"),
        pytest.param({"started": True, "halted": True}, [100], Position(101, 3), None, id="halted meanwhile"),
    ],
)
def test_what_is_taken_as_read(
    state: dict[str, bool], records: list[int], position: Position | None, taken: tuple[int, int, int] | None
) -> None:
    partition = local(**state)
    batch = partition.take([Record(offset, b"x") for offset in records], position)
    assert (batch and (batch.start, batch.end, batch.leader_epoch)) == taken
    assert partition.start == (taken[1] if taken else 100)


@pytest.mark.parametrize(
    ("state", "position", "may"),
    [
        ({}, None, True),
        ({}, Position(1_000_000), False),
        ({"started": True}, None, False),
        ({"operator_paused": True}, None, False),
        ({"halted": True}, None, False),
    ],
)
def test_reading_begins_once_the_client_has_forgotten_an_earlier_position(
    state: dict[str, bool], position: Position | None, may: bool
) -> None:
    assert local(**state).may_start(position) is may


# --- Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "problem"),
    [
        (KafkaError._AUTO_OFFSET_RESET, TRUNCATION, FetchProblem.OUT_OF_RANGE),
        (KafkaError._AUTO_OFFSET_RESET, OUT_OF_RANGE, FetchProblem.OUT_OF_RANGE),
        (KafkaError.OFFSET_OUT_OF_RANGE, "Broker: Offset out of range", FetchProblem.OUT_OF_RANGE),
        (
            KafkaError._AUTO_OFFSET_RESET,
            "Unable to validate offset and epoch: Broker: Request not supported",
            FetchProblem.UNREADABLE,
        ),
        (KafkaError._BAD_MSG, "MessageSet at offset 400 (1185 bytes) failed CRC32C check", FetchProblem.UNREADABLE),
        (KafkaError._BAD_COMPRESSION, "Local: Invalid compressed data", FetchProblem.UNREADABLE),
        (KafkaError._NOT_IMPLEMENTED, "Unsupported message version", FetchProblem.UNREADABLE),
        (KafkaError.MSG_SIZE_TOO_LARGE, "receive.message.max.bytes", FetchProblem.UNREADABLE),
        (KafkaError.LEADER_NOT_AVAILABLE, "Broker: Leader not available", FetchProblem.RETRIED),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: Topic authorization failed", FetchProblem.RETRIED),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "Broker: Unknown topic or partition", FetchProblem.RETRIED),
        (KafkaError._TRANSPORT, "Local: Broker transport failure", FetchProblem.RETRIED),
    ],
)
def test_what_an_error_means(code: int, text: str, problem: FetchProblem) -> None:
    assert classify(code, text) is problem


def test_the_client_names_the_divergence() -> None:
    assert tells_truncation(TRUNCATION)
    assert divergence_in(TRUNCATION) == 900
    assert not tells_truncation(OUT_OF_RANGE)
    assert divergence_in(OUT_OF_RANGE) is None
    assert divergence_in("Local: Partition log truncation detected") is None


HERE, OTHER = TopicDescription("here", (0,)), TopicDescription("other", (0,))


@pytest.mark.parametrize(
    ("next_offset", "leader_epoch", "description", "bounds", "text", "reason", "says"),
    [
        (1000, 0, HERE, LogBounds(0, 1500), TRUNCATION, "truncated", "cut off at offset 900"),
        (1000, 0, HERE, LogBounds(0, 950), TRUNCATION, "truncated", "100 offsets"),
        (1000, 0, HERE, None, TRUNCATION, "truncated", "cut off at offset 900"),
        (1000, 0, HERE, LogBounds(0, 1500), "Local: Partition log truncation detected", "truncated", "not known"),
        (1000, 0, HERE, LogBounds(0, 1500), OUT_OF_RANGE, "truncated", "grew"),
        (1000, None, HERE, LogBounds(0, 1500), OUT_OF_RANGE, "", ""),
        (1000, None, HERE, LogBounds(0, 900), OUT_OF_RANGE, "truncated", "ends at 900"),
        (1000, 0, HERE, LogBounds(1200, 1500), OUT_OF_RANGE, "expired", "from 1000 to 1200"),
        (1000, 0, OTHER, LogBounds(0, 1500), TRUNCATION, "recreated", "created again"),
        (1000, 0, HERE, LogBounds(0, 1500), "", "", ""),
    ],
)
def test_why_an_offset_is_out_of_range(
    next_offset: int,
    leader_epoch: int | None,
    description: TopicDescription,
    bounds: LogBounds | None,
    text: str,
    reason: str,
    says: str,
) -> None:
    claim = Claim(1, "t", 0, 1, next_offset, topic_id="here", leader_epoch=leader_epoch)
    found, detail = out_of_range(claim, description, bounds, text)
    assert found == HaltReason(reason)
    assert says in detail
