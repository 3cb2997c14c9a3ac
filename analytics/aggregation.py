"""From batches of records to the rows that one commit writes. Pure; the work is per event, not per batch or partition.

Nothing here runs at import: a Celery parent imports this module, and polars must not start before a fork.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from analytics.dimensions import DIMENSIONS, EVENT_TYPES
from analytics.event_time import ImplausibleTimes, count_flaws, judge
from analytics.events import InvalidRecordError, decode_columns, decode_record
from offsets import clock
from offsets.failures import failure_of
from offsets.types import BatchStats, Claim, DecodedBatch, KafkaRecord, PartitionCommit, RecordBatch, RecordFailure

#: Batches are decoded together up to this many records.
JOINT_RECORDS = 10_000
#: Fewer records than this are decoded one by one: a call of polars costs as much.
COLUMNAR_FROM = 300

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Table = np.ndarray[tuple[int, int], np.dtype[np.int64]]

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


class EventColumns(NamedTuple):
    """Decoded events, in the order of their offsets. `type_code` indexes EVENT_TYPES, `flaw` is of its time."""

    type_code: Ints
    user_id: Ints
    content_id: Ints
    minute: Ints
    flaw: Ints


@dataclass(frozen=True, slots=True)
class EngagementWork:
    """What one commit writes for one checkpoint: encoded delta rows, counts per minute, and of implausible times.

    `minutes` is int64 of shape (n, 5): minute since the epoch, views, likes, comments, shares; sorted by minute.
    """

    delta_rows: bytes
    delta_count: int
    minutes: Table
    #: Counted events whose time cannot be right.
    implausible: tuple[ImplausibleTimes, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    max_bytes: int
    time_tolerance_seconds: int
    #: The time of arrival, in seconds since the epoch.
    now: Callable[[], float] = clock.wall


# --- Decoding -------------------------------------------------------------------------------------


def decode(batch: RecordBatch, options: DecodingOptions) -> DecodedBatch:
    """Decode a fetched batch: as a whole if that is safe, otherwise record by record, collecting the failures."""
    return _decode_together([batch], options)[0]


def decode_many(batches: Sequence[RecordBatch], options: DecodingOptions) -> list[DecodedBatch]:
    """Decode batches of any partitions together; the same result as `decode` for each, in the same order."""
    return [decoded for group in _groups(batches) for decoded in _decode_together(group, options)]


def _groups(batches: Sequence[RecordBatch]) -> Iterator[list[RecordBatch]]:
    group: list[RecordBatch] = []
    size = 0
    for batch in batches:
        if group and size + len(batch.records) > JOINT_RECORDS:
            yield group
            group, size = [], 0
        group.append(batch)
        size += len(batch.records)
    if group:
        yield group


def _decode_together(batches: Sequence[RecordBatch], options: DecodingOptions) -> list[DecodedBatch]:
    records = batches[0].records if len(batches) == 1 else list(chain.from_iterable(b.records for b in batches))
    values = [record.value() for record in records]
    frame = decode_columns(values, options.max_bytes) if len(values) >= COLUMNAR_FROM else None
    if frame is not None:
        events = [frame[name].to_numpy() for name in ("type_code", "user_id", "content_id", "occurred_at")]
        columns = _with_minute(events, records, options)
        return _apart(batches, columns, {})
    if len(batches) > 1 and len(values) >= COLUMNAR_FROM:
        # One record is not as it should be: the batches without one are still decoded as a whole.
        return [decoded for batch in batches for decoded in _decode_together([batch], options)]
    table, counted, failures = _decode_one_by_one(records, values, options.max_bytes)
    return _apart(batches, _with_minute(list(table.T), counted, options), failures)


def _decode_one_by_one(
    records: Sequence[KafkaRecord], values: Sequence[bytes | None], max_bytes: int
) -> tuple[Table, list[KafkaRecord], dict[int, RecordFailure]]:
    """The events as rows, their records, and the failures by their index in `records`."""
    events, counted, failures = [], [], {}
    for index, (record, value) in enumerate(zip(records, values, strict=True)):
        try:
            events.append(decode_record(value, max_bytes))
        except InvalidRecordError as error:
            failures[index] = failure_of(record, error.code, error.detail)
        else:
            counted.append(record)
    return np.array(events, dtype=np.int64).reshape(-1, 4), counted, failures


def _with_minute(events: Sequence[Ints], records: Sequence[KafkaRecord], options: DecodingOptions) -> EventColumns:
    """Replace `occurred_at`, the last column, by the minute in which the event counts and the flaw of its time."""
    type_code, user_id, content_id, occurred_at = events
    # One call per record is the main cost here; -1 is the client's "no timestamp".
    times = pl.Series([record.timestamp()[1] for record in records], dtype=pl.Int64)
    own = pl.Series(occurred_at, dtype=pl.Int64)
    minute, flaw = judge(own, times, options.time_tolerance_seconds, options.now())
    return EventColumns(type_code, user_id, content_id, minute.to_numpy(), flaw.to_numpy())


def _apart(
    batches: Sequence[RecordBatch], columns: EventColumns, failures: dict[int, RecordFailure]
) -> list[DecodedBatch]:
    """The decoded events and failures of each batch."""
    ends = np.cumsum([len(batch.records) for batch in batches])
    failed = np.bincount(np.searchsorted(ends, list(failures), side="right"), minlength=len(batches))
    events = np.array([len(batch.records) for batch in batches]) - failed
    of_batch = np.repeat(np.arange(len(batches)), events)
    types = np.bincount(of_batch * len(EVENT_TYPES) + columns.type_code, minlength=len(batches) * len(EVENT_TYPES))
    by_type = types.reshape(-1, len(EVENT_TYPES)).tolist()
    lengths = events.tolist()
    failures_of = failed.tolist()
    rest = iter(failures.values())
    type_code, user_id, content_id, minute, flaw = columns
    decoded, start = [], 0
    for index, batch in enumerate(batches):
        end = start + lengths[index]
        stats = BatchStats(
            lengths[index],
            failures_of[index],
            sum(map(len, batch.records)),
            dict(zip(EVENT_TYPES, by_type[index], strict=True)),
        )
        work = EventColumns(
            type_code[start:end], user_id[start:end], content_id[start:end], minute[start:end], flaw[start:end]
        )
        set_apart = [next(rest) for _ in range(stats.failed_records)] if stats.failed_records else []
        epoch = batch.records[-1].leader_epoch() if batch.records else None
        decoded.append(DecodedBatch(batch.claim, batch.start, batch.end, stats, set_apart, work, epoch))
        start = end
    return decoded


# --- Counting -------------------------------------------------------------------------------------


def combine(batches: Sequence[DecodedBatch]) -> PartitionCommit:
    """Merge consecutive batches of one claim into what one commit writes."""
    return combine_many([batches])[0]


def combine_many(groups: Sequence[Sequence[DecodedBatch]]) -> list[PartitionCommit]:
    """What one commit writes for each group of consecutive batches of one claim; all are counted together."""
    works = aggregate([[batch.work for batch in group] for group in groups], [group[0].claim for group in groups])
    return [_commit(group, work) for group, work in zip(groups, works, strict=True)]


def _commit(batches: Sequence[DecodedBatch], work: EngagementWork) -> PartitionCommit:
    leader_epochs = [batch.leader_epoch for batch in batches if batch.leader_epoch is not None]
    return PartitionCommit(
        batches[0].claim,
        batches[0].start,
        batches[-1].end,
        batches[0].stats if len(batches) == 1 else BatchStats.total(batch.stats for batch in batches),
        [failure for batch in batches for failure in batch.failures],
        work,
        leader_epochs[-1] if leader_epochs else None,
    )


def aggregate(parts: Sequence[Sequence[EventColumns]], claims: Sequence[Claim]) -> list[EngagementWork]:
    """Count the events of each claim by entity in each of its dimensions, and by minute."""
    columns = EventColumns(*(np.concatenate(column) for column in zip(*chain.from_iterable(parts), strict=True)))
    owners = np.repeat(np.arange(len(claims)), [sum(len(part.minute) for part in own) for own in parts])
    checkpoints = np.array([claim.checkpoint_id for claim in claims], dtype=np.int64)
    rows: list[list[bytes]] = [[] for _ in claims]
    for name in dict.fromkeys(name for claim in claims for name in claim.dimensions):
        number, column = DIMENSIONS[name]
        keeps = np.array([name in claim.dimensions for claim in claims])[owners]
        ids, codes = getattr(columns, column)[keeps], columns.type_code[keeps]
        of_claim, table = count_cells(owners[keeps], ids, codes)
        encoded = encode_rows(checkpoints[of_claim], number, table)
        for own, (start, end) in zip(rows, _spans(of_claim, len(claims)), strict=True):
            own.append(encoded[start * _COPY_ROW.itemsize : end * _COPY_ROW.itemsize])
    of_claim, by_minute = count_cells(owners, columns.minute, columns.type_code)
    deltas = [b"".join(own) for own in rows]
    implausible = _implausible(columns.flaw, owners, len(claims))
    return [
        EngagementWork(data, len(data) // _COPY_ROW.itemsize, by_minute[start:end], flaws)
        for data, (start, end), flaws in zip(deltas, _spans(of_claim, len(claims)), implausible, strict=True)
    ]


def _implausible(flaws: Ints, owners: Ints, count: int) -> list[tuple[ImplausibleTimes, ...]]:
    """The implausible times of owner 0, 1, …"""
    if not flaws.any():
        return [()] * count
    return [count_flaws(pl.Series(flaws[start:end])) for start, end in _spans(owners, count)]


def _spans(sorted_owners: Ints, count: int) -> list[tuple[int, int]]:
    """Where the rows of owner 0, 1, … begin and end."""
    bounds = np.searchsorted(sorted_owners, np.arange(count + 1)).tolist()
    return list(pairwise(bounds))


def count_cells(owners: Ints, ids: Ints, codes: Ints) -> tuple[Ints, Table]:
    """Rows `(id, views, likes, comments, shares)` by owner and id, and the owner of each; sorted by both.

    Owner, id and type are packed into one number, so that one sort brings equal ones together. Ids too large for
    that are ranked first.
    """
    if not len(ids):
        return owners, np.empty((0, 1 + len(EVENT_TYPES)), dtype=np.int64)
    distinct = None
    id_bits = int(ids.max()).bit_length()
    if id_bits + int(owners.max()).bit_length() + 2 > 63:
        distinct, ids = np.unique(ids, return_inverse=True)
        id_bits = len(distinct).bit_length()
    keys = (((owners.astype(np.int64) << id_bits) | ids) << 2) | codes
    keys.sort()
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    keys, lengths = keys[starts], np.diff(starts, append=len(keys))
    cells = keys >> 2
    new_cell = np.concatenate(([True], cells[1:] != cells[:-1]))
    table = np.zeros((int(new_cell.sum()), 1 + len(EVENT_TYPES)), dtype=np.int64)
    table[np.cumsum(new_cell) - 1, 1 + (keys & 3)] = lengths
    cells = cells[new_cell]
    found = cells & ((1 << id_bits) - 1)
    table[:, 0] = found if distinct is None else distinct[found]
    return cells >> id_bits, table


def encode_rows(checkpoint_ids: Ints, dimension: int, table: Table) -> bytes:
    """Rows `(entity, views, likes, comments, shares)` as binary COPY rows, without header and trailer."""
    rows = np.zeros(len(table), dtype=_COPY_ROW)
    rows["fields"] = 7
    rows["checkpoint_length"] = rows["entity_length"] = 8
    rows["checkpoint"] = checkpoint_ids
    rows["dimension_length"] = 2
    rows["dimension"] = dimension
    rows["entity"] = table[:, 0]
    for index, name in enumerate(EVENT_TYPES, start=1):
        rows[name + "_length"] = 8
        rows[name] = table[:, index]
    return rows.tobytes()
