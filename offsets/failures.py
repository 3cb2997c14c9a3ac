"""Records that cannot be counted: kept whole, and found by halving where a whole batch fails (R11). Pure."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from offsets.text import describe_error, postgres_text
from offsets.types import BatchStats, DecodedBatch, KafkaRecord, RecordBatch, RecordFailure

#: The error code of a record on which the handler itself raised.
HANDLER_FAILED = "handler_failed"
#: The error code of a record whose counts the database refused.
REFUSED_BY_DATABASE = "refused_by_database"


def failure_of(record: KafkaRecord, code: str, detail: str) -> RecordFailure:
    """A dead letter of the whole record; headers that the client cannot read are left out, and the detail says so."""
    try:
        headers = record.headers() or []
    except Exception as error:  # the client decodes header names, and a hostile name may not be text
        headers, detail = [], f"{detail} Its headers could not be read: {error}."
    kind, timestamp_ms = record.timestamp()
    shown = [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers]
    return RecordFailure(
        offset=record.offset(),
        error_code=code,
        error_detail=postgres_text(detail),
        key=record.key(),
        value=record.value(),
        headers=json.dumps(shown, separators=(",", ":")).encode(),
        timestamp_ms=timestamp_ms if kind else None,
    )


Decode = Callable[[RecordBatch], DecodedBatch]


def set_apart(decode: Decode, batch: RecordBatch, code: str, detail: str) -> DecodedBatch:
    """The batch with all of its records as failures, none counted. Raises what `decode` raises for an empty batch."""
    empty = decode(RecordBatch(batch.claim, batch.start, batch.end, [], 0))
    failures = [failure_of(record, code, detail) for record in batch.records]
    return replace(empty, stats=BatchStats(0, len(failures), batch.size_bytes), failures=failures)


def halves(batch: RecordBatch) -> tuple[RecordBatch, RecordBatch]:
    """A batch of two records or more as two batches, in offset order, without a gap between them."""
    middle = len(batch.records) // 2
    border = batch.records[middle].offset()
    first, second = batch.records[:middle], batch.records[middle:]
    return (
        RecordBatch(batch.claim, batch.start, border, first, sum(map(len, first))),
        RecordBatch(batch.claim, border, batch.end, second, sum(map(len, second))),
    )


def decode_apart(decode: Decode, batch: RecordBatch, never: tuple[type[Exception], ...] = ()) -> Iterator[DecodedBatch]:
    """Decode; where that raises, halve, down to the records that cannot be decoded, which become failures.

    In offset order. Raises what is not caused by the data: errors of the types `never`, and whatever an empty batch
    raises, too.
    """
    try:
        yield decode(batch)
    except never:
        raise
    except MemoryError:
        raise  # not the fault of a record
    except Exception as error:
        if len(batch.records) < 2:
            yield set_apart(decode, batch, HANDLER_FAILED, describe_error(error))
            return
        for half in halves(batch):
            yield from decode_apart(decode, half, never)
