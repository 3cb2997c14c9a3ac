"""A partition of the page: its verdict, lag and ledger strip, from one row of the read model."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from analytics.dashboard.ledger_strip import Piece, fit, offsets_by_kind
from analytics.dashboard.queries import PartitionRow
from analytics.dashboard.snapshot import PartitionSnapshot, RangeSnapshot
from offsets.monitoring import status
from offsets.monitoring.absence import Reader, absence_of
from offsets.monitoring.facts import FailedTotals, LogSamples, facts_of, hidden_of, lag_of, limits
from offsets.monitoring.lag import LogEnd, lag_records, lost_records, per_second
from offsets.monitoring.numbers import Numbers
from offsets.monitoring.status import Status, Verdict
from offsets.types import RangeKind, TopicPartition

MAX_PIECES = 200
MIN_PIECES = 20
#: Pieces in one snapshot: keeps the payload of 500 partitions with irregular histories near a megabyte.
PIECES_BUDGET = 10_000
#: An older verdict of the recovery manager is not used.
HEALTH_FRESH_SECONDS = 5.0


#: What a partition cannot be that has read everything since it was judged.
_OF_A_LAG = frozenset({Status.CATCHING_UP, Status.LAGGING, Status.SLOW, Status.REWOUND, Status.STALLED, Status.STOPPED})


def verdict_of(row: PartitionRow, readers: Sequence[Reader] = ()) -> Verdict:
    """The recovery manager's while it is recent: it knows the last minute. Otherwise the same rules without it.
    `readers` are the running workers.
    """
    failed = FailedTotals(row.failed_ranges, row.failed_offsets, row.failed_given_up)
    absence = absence_of(TopicPartition(row.topic, row.partition), readers)
    facts = facts_of(row, _log_samples(row), failed, absence)
    if not _watched(row):
        return status.assess(facts, limits())
    if facts.lag == 0 and row.health_status in _OF_A_LAG:
        # The recovery manager holds its owner for alive, also where heartbeats cannot be judged yet.
        return status.assess(facts, replace(limits(), heartbeat_timeout_seconds=math.inf))
    # With the numbers of this snapshot, so that the sentence and the row show the same.
    numbers = Numbers(facts.lag, facts.lag_time, facts.hidden, row.next_offset)
    template = row.health_detail or ""
    return Verdict(
        Status(row.health_status or ""), numbers.fill(template), row.next_offset, row.failed_offsets, template
    )


def _watched(row: PartitionRow) -> bool:
    return row.health_age is not None and row.health_age <= HEALTH_FRESH_SECONDS


def _confirms(row: PartitionRow, verdict: Verdict) -> bool:
    """Whether the recovery manager's verdict is the one that is shown."""
    return _watched(row) and row.health_status == verdict.status


def partition_of(
    row: PartitionRow, verdict: Verdict, pieces: Sequence[Piece], dead_letters: dict[int, int], count: int
) -> PartitionSnapshot:
    samples = _log_samples(row)
    lag, lag_time = lag_of(row.next_offset, samples)
    hidden = hidden_of(samples)
    drawn = fit(
        [_all_failed(piece) for piece in pieces], max(MIN_PIECES, min(MAX_PIECES, PIECES_BUDGET // max(1, count)))
    )
    return PartitionSnapshot(
        checkpoint_id=row.checkpoint_id,
        topic=row.topic,
        partition=row.partition,
        status=verdict.label,
        status_detail=verdict.detail,
        owner=row.owner,
        owner_heartbeat_age_seconds=rounded(row.heartbeat_age),
        epoch=row.epoch,
        next_offset=row.next_offset,
        log_start_offset=row.log_start,
        log_end_offset=row.log_end,
        lag=lag,
        lag_seconds=rounded(lag_time.seconds),
        events_per_second=rounded(_progress(row)),
        desired_state=row.desired_state,
        halt_reason=row.halt_reason,
        ranges=[_range(piece) for piece in drawn],
        range_offsets=offsets_by_kind(pieces),
        dead_letters=dead_letters.get(row.checkpoint_id, 0),
        committed_at=row.committed_at.isoformat() if row.committed_at else None,
        semantics=row.semantics,
        duplicates=row.duplicates,
        drift=json.loads(row.drift) if row.drift else {},
        status_since=row.health_since.isoformat() if row.health_since and _confirms(row, verdict) else None,
        eta_seconds=0.0 if lag == 0 else rounded(row.health_eta) if _confirms(row, verdict) else None,
        high_watermark=row.high_watermark,
        open_transaction_records=hidden,
        open_transaction_since=row.hidden_since.isoformat() if row.hidden_since and hidden else None,
        lost_offsets=lost_records(row.next_offset, row.log_start),
    )


def _all_failed(piece: Piece) -> Piece:
    """A failed range is of refused batches: all of its offsets failed."""
    return piece._replace(failed_records=piece.end - piece.start) if piece.kind == RangeKind.FAILED else piece


def _range(piece: Piece) -> RangeSnapshot:
    return RangeSnapshot(
        start=piece.start,
        end=piece.end,
        kind=piece.kind,
        records=piece.records,
        failed_records=piece.failed_records,
    )


def _log_samples(row: PartitionRow) -> LogSamples:
    return LogSamples(
        age_seconds=row.sample_age,
        ends=known_ends(row),
        lag_growth_per_second=per_second(
            _sample(row.before_at, lag_records(row.before_end, row.before_next or 0, row.before_start)),
            _sample(row.sampled_at, lag_records(row.log_end, row.sampled_next or 0, row.log_start)),
        ),
        log_start=row.log_start,
        high_watermark=row.high_watermark,
        hidden_since=row.hidden_since,
        hidden_seconds=row.hidden_seconds,
    )


def _sample(at: float | None, value: int | None) -> tuple[float, int] | None:
    return None if at is None or value is None else (at, value)


def known_ends(row: PartitionRow) -> list[LogEnd]:
    """The samples that determine the lag in seconds, oldest first, each moment once."""
    points = {
        at: end
        for at, end in (
            (row.oldest_at, row.oldest_end),
            (row.below_at, row.below_end),
            (row.above_at, row.above_end),
            (row.sampled_at, row.log_end),
        )
        if at is not None and end is not None
    }
    return [LogEnd(at, points[at]) for at in sorted(points)]


def _progress(row: PartitionRow) -> float | None:
    """Recent offsets per second of the partition; unknown across a backward seek."""
    if not _log_samples(row).fresh:
        return None
    rate = per_second(_sample(row.before_at, row.before_next), _sample(row.sampled_at, row.sampled_next))
    return rate if rate is not None and rate >= 0 else None


def rounded(value: float | None) -> float | None:
    """Three digits are precise enough, and keep the payload small."""
    return None if value is None else round(value, 3)
