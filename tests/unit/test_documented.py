"""The example of the batch handler guide."""

from dataclasses import dataclass
from typing import Any

from offsets.types import Claim, RecordBatch
from tests.support.documented import documented

CLAIM = Claim(1, "t", 0, 1, 0, ("content", "user"))
EVENT = b'{"event_type":"like","user_id":1,"content_id":2,"occurred_at":3%s}'


@dataclass
class Record:
    at: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def value(self) -> bytes:
        return self.data

    def key(self) -> None:
        return None

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, 3)

    def headers(self) -> None:
        return None

    def leader_epoch(self) -> None:
        return None


def test_the_documented_handler_rejects_events_of_a_load_test() -> None:
    names: dict[str, Any] = {}
    exec(documented()["engagement_hooks/handlers.py"], names)
    records = [Record(0, EVENT % b""), Record(1, EVENT % b',"load_test":true'), Record(2, b"no JSON")]
    decoded = names["WithoutLoadTests"]().decode(RecordBatch(CLAIM, 0, 3, records, 300))
    assert (decoded.stats.records, decoded.stats.failed_records) == (1, 2)
    assert [(one.offset, one.error_code) for one in decoded.failures] == [(1, "load_test"), (2, "malformed")]
    assert (decoded.start, decoded.end) == (0, 3)
    assert decoded.failures[0].value == records[1].data


def test_it_takes_a_batch_of_load_test_events_alone() -> None:
    names: dict[str, Any] = {}
    exec(documented()["engagement_hooks/handlers.py"], names)
    handler = names["WithoutLoadTests"]()
    decoded = handler.decode(RecordBatch(CLAIM, 5, 6, [Record(5, EVENT % b',"load_test":true')], 100))
    assert handler.combine([decoded]).stats.failed_records == 1
