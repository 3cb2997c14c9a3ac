"""From a batch of records to the rows that one commit writes. Pure; the work is per batch, not per event.

Nothing here runs at import: a Celery parent imports this module, and polars must not start before a fork.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analytics.dimensions import DIMENSIONS, EVENT_TYPES
from analytics.event_time import ImplausibleTimes, count_flaws, judge
from analytics.events import InvalidRecordError, decode_columns, decode_record
from offsets import clock
from offsets.failures import failure_of
from offsets.types import BatchStats, DecodedBatch, KafkaRecord, PartitionCommit, RecordBatch, RecordFailure

_COLUMNS = {
    "offset": pl.Int64,
    "type_code": pl.UInt8,
    "user_id": pl.Int64,
    "content_id": pl.Int64,
    "minute": pl.Int64,
    "flaw": pl.UInt8,
}

#: One row of COPY analytics_engagementdelta (checkpoint_id, dimension, entity_id, views, likes, comments, shares) in
#: PostgreSQL's binary format: a field count, then each field's length and its big-endian value.
_COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("checkpoint_length", ">i4"),
        ("checkpoint", ">i8"),
        ("dimension_length", ">i4"),
        ("dimension", ">i2"),
        ("entity_length", ">i4"),
        ("entity", ">i8"),
        *((name + suffix, kind) for name in EVENT_TYPES for suffix, kind in (("_length", ">i4"), ("", ">i8"))),
    ]
)


@dataclass(frozen=True, slots=True)
class EngagementWork:
    """What one commit writes for one checkpoint: encoded delta rows, counts per minute, and of implausible times.

    `minutes` is int64 of shape (n, 5): minute since the epoch, views, likes, comments, shares; sorted by minute.
    """

    delta_rows: bytes
    delta_count: int
    minutes: "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
    #: Counted events whose time cannot be right.
    implausible: tuple[ImplausibleTimes, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    max_bytes: int
    time_tolerance_seconds: int
    #: The time of arrival, in seconds since the epoch.
    now: Callable[[], float] = clock.wall


def decode(batch: RecordBatch, options: DecodingOptions) -> DecodedBatch:
    """Decode a fetched batch: as a whole if that is safe, otherwise record by record, collecting the failures."""
    records = batch.records
    if not records:
        return DecodedBatch(batch.claim, batch.start, batch.end, BatchStats(), (), pl.DataFrame(schema=_COLUMNS))
    values = [record.value() for record in records]
    columns = decode_columns(values, options.max_bytes)
    failures: list[RecordFailure] = []
    counted: Sequence[KafkaRecord] = records
    if columns is None:
        columns, counted, failures = _decode_slowly(records, values, options.max_bytes)
    frame = _with_time_and_place(columns, counted, options)
    return DecodedBatch(
        batch.claim,
        batch.start,
        batch.end,
        BatchStats(frame.height, len(failures), sum(map(len, records)), _by_type(frame)),
        failures,
        frame,
        records[-1].leader_epoch(),
    )


def _decode_slowly(
    records: Sequence[KafkaRecord], values: Sequence[bytes | None], max_bytes: int
) -> tuple[pl.DataFrame, list[KafkaRecord], list[RecordFailure]]:
    events, counted, failures = [], [], []
    for record, value in zip(records, values, strict=True):
        try:
            events.append(decode_record(value, max_bytes))
        except InvalidRecordError as error:
            failures.append(failure_of(record, error.code, error.detail))
        else:
            counted.append(record)
    schema = {name: kind for name, kind in _COLUMNS.items() if name not in ("offset", "minute", "flaw")}
    columns = pl.DataFrame(
        events, schema=[*schema, "occurred_at"], orient="row", schema_overrides={**schema, "occurred_at": pl.Int64}
    )
    return columns, counted, failures


def _with_time_and_place(
    columns: pl.DataFrame, records: Sequence[KafkaRecord], options: DecodingOptions
) -> pl.DataFrame:
    """Replace `occurred_at` by the minute in which the event counts and the flaw of its time, and add its offset."""
    # One call per record is the main cost here; -1 is the client's "no timestamp".
    times = pl.Series("record", [record.timestamp()[1] for record in records], dtype=pl.Int64)
    minutes, flaws = judge(columns["occurred_at"], times, options.time_tolerance_seconds, options.now())
    return columns.select(
        _offsets(records).alias("offset"),
        "type_code",
        "user_id",
        "content_id",
        minutes.alias("minute"),
        flaws.alias("flaw"),
    )


def _offsets(records: Sequence[KafkaRecord]) -> pl.Series:
    """The records' offsets; without a hole the first and the last determine all."""
    if records and records[-1].offset() - records[0].offset() == len(records) - 1:
        return pl.int_range(records[0].offset(), records[-1].offset() + 1, eager=True)
    return pl.Series([record.offset() for record in records], dtype=pl.Int64)


def _by_type(frame: pl.DataFrame) -> dict[str, int]:
    counts = np.bincount(frame["type_code"].to_numpy(), minlength=len(EVENT_TYPES))
    return {name: int(count) for name, count in zip(EVENT_TYPES, counts, strict=True)}


def combine(batches: Sequence[DecodedBatch]) -> PartitionCommit:
    """Merge consecutive batches of one claim into what one commit writes."""
    first = batches[0]
    frame = pl.concat([batch.work for batch in batches], rechunk=True)
    stats = BatchStats()
    for batch in batches:
        stats += batch.stats
    leader_epochs = [batch.leader_epoch for batch in batches if batch.leader_epoch is not None]
    return PartitionCommit(
        first.claim,
        first.start,
        batches[-1].end,
        stats,
        [failure for batch in batches for failure in batch.failures],
        aggregate(frame, first.claim.checkpoint_id, first.claim.dimensions),
        leader_epochs[-1] if leader_epochs else None,
    )


def aggregate(frame: pl.DataFrame, checkpoint_id: int, dimensions: Sequence[str]) -> EngagementWork:
    """Count by entity in each dimension, and by minute. `frame` has the columns of `_COLUMNS`."""
    if frame.is_empty():
        return EngagementWork(b"", 0, np.empty((0, 1 + len(EVENT_TYPES)), dtype=np.int64))
    # Two types share one number, so that a group needs two sums instead of four: a batch has fewer than 2^31 records.
    packed = frame.lazy().with_columns(
        low=_packed("type_code", 0),
        high=_packed("type_code", 2),
    )
    plans = [_grouped(packed, DIMENSIONS[name][1]) for name in dimensions]
    plans.append(_grouped(packed, "minute"))
    *by_entity, by_minute = pl.collect_all(plans)
    rows = [
        encode_rows(checkpoint_id, DIMENSIONS[name][0], _table(counts))
        for name, counts in zip(dimensions, by_entity, strict=True)
    ]
    minute_table = _table(by_minute)
    return EngagementWork(
        b"".join(rows),
        sum(counts.height for counts in by_entity),
        minute_table[minute_table[:, 0].argsort()],
        count_flaws(frame["flaw"]),
    )


def _packed(column: str, code: int) -> pl.Expr:
    """1 for type `code`, 2^32 for the next one, 0 for the others."""
    kind = pl.col(column)
    return pl.when(kind == code).then(1).when(kind == code + 1).then(1 << 32).otherwise(0).cast(pl.Int64)


def _grouped(packed: pl.LazyFrame, key: str) -> pl.LazyFrame:
    mask = (1 << 32) - 1
    return (
        packed.group_by(key)
        .agg(pl.col("low").sum(), pl.col("high").sum())
        .select(
            pl.col(key).cast(pl.Int64),
            pl.col("low") & mask,
            (pl.col("low") // (1 << 32)).alias("likes"),
            pl.col("high") & mask,
            (pl.col("high") // (1 << 32)).alias("shares"),
        )
    )


def _table(counts: pl.DataFrame) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return counts.to_numpy(order="c")


def encode_rows(checkpoint_id: int, dimension: int, table: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> bytes:
    """Rows `(entity, views, likes, comments, shares)` as binary COPY rows, without header and trailer."""
    rows = np.zeros(len(table), dtype=_COPY_ROW)
    rows["fields"] = 7
    rows["checkpoint_length"] = rows["entity_length"] = 8
    rows["checkpoint"] = checkpoint_id
    rows["dimension_length"] = 2
    rows["dimension"] = dimension
    rows["entity"] = table[:, 0]
    for index, name in enumerate(EVENT_TYPES, start=1):
        rows[name + "_length"] = 8
        rows[name] = table[:, index]
    return rows.tobytes()
