"""Which offsets a replay is to read: by range, by time, by what became of them."""

from collections.abc import Collection, Mapping, Sequence

from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import LedgerRange, PartitionCheckpoint
from offsets.ranges import OffsetRange, intersect, normalise
from offsets.replays.plans import Wanted
from offsets.types import RangeKind, TopicPartition

#: What was passed without being counted; expired offsets cannot be read again.
UNCOUNTED = (RangeKind.FAILED, RangeKind.SKIPPED, RangeKind.CLAIMED)


def of_window(
    rows: Sequence[PartitionCheckpoint], since_ms: int | None, until_ms: int | None
) -> dict[int, list[OffsetRange]]:
    """What each partition holds of `[since, until)` by the records' timestamps, as far as its ledger reaches.

    Raises ServiceUnavailableError, also where Kafka tells nothing of one partition: that may not stand for all of it.
    """
    admin = KafkaAdmin()
    places = {TopicPartition(row.topic, row.partition): row for row in rows}
    first = admin.offsets_for_time(places, since_ms) if since_ms is not None else {}
    last = admin.offsets_for_time(places, until_ms) if until_ms is not None else {}
    found = {}
    for tp, row in places.items():
        start = row.baseline_offset if since_ms is None else max(row.baseline_offset, _told(first, tp))
        end = row.ledger_end if until_ms is None else min(row.ledger_end, _told(last, tp))
        found[row.pk] = [OffsetRange(start, end)] if start < end else []
    return found


def _told(offsets: Mapping[TopicPartition, int], tp: TopicPartition) -> int:
    if tp not in offsets:
        raise ServiceUnavailableError(f"Kafka does not tell which offsets of {tp} are of that time; try again.")
    return offsets[tp]


def of_kinds(
    rows: Sequence[PartitionCheckpoint], kinds: Collection[RangeKind], within: dict[int, list[OffsetRange]] | None
) -> list[Wanted]:
    """The offsets that the ledger holds as one of `kinds`, within those given; ranges that touch are one."""
    found: dict[int, list[OffsetRange]] = {}
    ranges = LedgerRange.objects.filter(checkpoint__in=rows, kind__in=kinds)
    for checkpoint_id, offsets in ranges.values_list("checkpoint_id", "offsets"):
        found.setdefault(checkpoint_id, []).append(OffsetRange(offsets.lower, offsets.upper))
    wanted = []
    for row in rows:
        chosen = normalise(found.get(row.pk, []))
        if within is not None:
            chosen = intersect(chosen, within.get(row.pk, []))
        wanted += [Wanted(row.pk, one) for one in chosen]
    return wanted
