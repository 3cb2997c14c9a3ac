"""Five minutes of lag and throughput for the sparklines, from whole sweeps."""

from collections.abc import Sequence

from analytics.dashboard import queries
from analytics.dashboard.partitions import known_ends, rounded
from analytics.dashboard.queries import PartitionRow, SweepRow
from analytics.dashboard.snapshot import SeriesSnapshot
from offsets.monitoring.lag import LogEnd, lag_time, longest_or_none, per_second


def _older_ends(row: PartitionRow, before: float) -> list[LogEnd]:
    """The samples around next_offset that are older than the sweeps: a partition paused for an hour needs them."""
    around = known_ends(row._replace(oldest_at=None))
    return [point for point in around if point.at_seconds < before]


def series_of(rows: Sequence[PartitionRow]) -> SeriesSnapshot:
    """Sparklines from whole sweeps. A sweep that lacks a partition has no total: a gap, not a dip."""
    moments: dict[float, list[SweepRow]] = {}
    for sample in queries.sweeps([row.checkpoint_id for row in rows]):
        moments.setdefault(sample.at, []).append(sample)
    ends = {row.checkpoint_id: _older_ends(row, min(moments, default=0.0)) for row in rows}
    series = SeriesSnapshot(at=[], lag=[], lag_seconds=[], events_per_second=[])
    before: tuple[float, int] | None = None
    for at, samples in sorted(moments.items()):
        behind = []
        for sample in samples:
            ends[sample.checkpoint_id].append(LogEnd(at, sample.log_end))
            behind.append(lag_time(ends[sample.checkpoint_id], max(sample.next_offset, sample.log_start)).seconds)
        whole = len(samples) == len(rows)
        progress = (at, sum(sample.next_offset for sample in samples)) if whole else None
        rate = per_second(before, progress)
        before = progress
        series["at"].append(int(at))
        series["lag"].append(
            sum(max(0, s.log_end - max(s.next_offset, s.log_start)) for s in samples) if whole else None
        )
        series["lag_seconds"].append(rounded(longest_or_none(behind)) if whole else None)
        series["events_per_second"].append(rounded(rate) if rate is not None and rate >= 0 else None)
    return series
