"""Select the offsets to replay: by time, by outcome."""

from collections.abc import Collection, Mapping, Sequence

from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import LedgerRange, PartitionCheckpoint
from offsets.ranges import OffsetRange, intersect, normalise
from offsets.replays.plans import Wanted
from offsets.types import RangeKind, TopicPartition

#: Outcomes of offsets that were passed without being counted; expired offsets cannot be read again.
UNCOUNTED = (RangeKind.FAILED, RangeKind.SKIPPED, RangeKind.CLAIMED)


def of_window(
    rows: Sequence[PartitionCheckpoint], since_ms: int | None, until_ms: int | None
) -> dict[int, list[OffsetRange]]:
    """The offsets of each partition whose records are in `[since, until)`, up to the end of its ledger.

    Raises ServiceUnavailableError, also where Kafka answers for only some of the partitions.
    """
    admin = KafkaAdmin()
    places = {TopicPartition(row.topic, row.partition): row for row in rows}
    first = admin.offsets_for_time(places, since_ms) if since_ms is not None else {}
    last = admin.offsets_for_time(places, until_ms) if until_ms is not None else {}
    windows = {}
    for tp, row in places.items():
        start = row.baseline_offset if since_ms is None else max(row.baseline_offset, _offset_of(first, tp))
        end = row.ledger_end if until_ms is None else min(row.ledger_end, _offset_of(last, tp))
        windows[row.pk] = [OffsetRange(start, end)] if start < end else []
    return windows


def _offset_of(offsets: Mapping[TopicPartition, int], tp: TopicPartition) -> int:
    if tp not in offsets:
        raise ServiceUnavailableError(f"Cannot look up offsets of {tp} by time; try again.")
    return offsets[tp]


def of_kinds(
    rows: Sequence[PartitionCheckpoint], kinds: Collection[RangeKind], within: dict[int, list[OffsetRange]] | None
) -> list[Wanted]:
    """The offsets with one of these outcomes, within those given; adjacent ranges are merged."""
    by_checkpoint: dict[int, list[OffsetRange]] = {}
    ranges = LedgerRange.objects.filter(checkpoint__in=rows, kind__in=kinds)
    for checkpoint_id, offsets in ranges.values_list("checkpoint_id", "offsets"):
        by_checkpoint.setdefault(checkpoint_id, []).append(OffsetRange(offsets.lower, offsets.upper))
    wanted = []
    for row in rows:
        chosen = normalise(by_checkpoint.get(row.pk, []))
        if within is not None:
            chosen = intersect(chosen, within.get(row.pk, []))
        wanted += [Wanted(row.pk, offsets) for offsets in chosen]
    return wanted
