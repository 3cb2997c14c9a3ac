"""Where a group begins in partitions that it has never read (R15)."""

from collections.abc import Iterable, Mapping

from django.conf import settings

from offsets import ledger
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.ledger import Baseline
from offsets.types import TopicPartition


class Baselines:
    """Inserts the checkpoints of new partitions, at the offset that OFFSET_BASELINE names.

    A partition without a leader gets a row, too, which remembers that it was there at the group's first claim; its
    offset is decided once its log can be read.
    """

    def __init__(self, group_id: str, admin: KafkaAdmin, dimensions: tuple[str, ...]) -> None:
        self._group_id = group_id
        self._admin = admin
        self._dimensions = dimensions

    def insert_missing(
        self, described: Mapping[str, TopicDescription], *, timeout_seconds: float
    ) -> dict[TopicPartition, LogBounds]:
        """Insert rows for the partitions without one. Returns the log bounds that it read for that.

        Raises ServiceUnavailableError.
        """
        read: dict[TopicPartition, LogBounds] = {}
        for topic, description in described.items():
            known = ledger.known_partitions(self._group_id, topic)
            if known.issuperset(description.partitions):
                continue
            if known:
                # The topic grew: its new partitions start at 0, whatever their logs hold.
                baselines = {p: Baseline(description.topic_id, 0, "grown") for p in description.partitions}
            else:
                readable = [TopicPartition(topic, p) for p in description.partitions if description.is_readable(p)]
                bounds = self._admin.log_bounds(readable, timeout_seconds=timeout_seconds)
                wanted = [TopicPartition(topic, p) for p in description.partitions]
                group = settings.OFFSET_BASELINE == "group"
                committed = self._admin.committed(self._group_id, wanted) if group else {}
                baselines = choose(description, wanted, bounds, settings.OFFSET_BASELINE, committed)
                read |= bounds
            ledger.insert_baselines(self._group_id, topic, baselines, self._dimensions)
        return read

    def decide(self, topics: Iterable[str], bounds: Mapping[TopicPartition, LogBounds]) -> dict[TopicPartition, str]:
        """Decide the baselines that waited for a leader. Returns those that still wait, with the reason."""
        waiting = {}
        for tp, kind in ledger.undecided_baselines(self._group_id, topics).items():
            bound = bounds.get(tp)
            if bound is None:
                waiting[tp] = f"it has no leader, so its baseline ({kind}) cannot be decided yet"
            else:
                ledger.decide_baseline(self._group_id, tp, kind, bound.end if kind == "latest" else bound.start)
        return waiting


def choose(
    description: TopicDescription,
    wanted: Iterable[TopicPartition],
    bounds: Mapping[TopicPartition, LogBounds],
    setting: str,
    committed: Mapping[TopicPartition, int],
) -> dict[int, Baseline]:
    """The baselines of a group's first claim of a topic; undecided where the log cannot be read. Pure."""
    kind = "latest" if setting == "latest" else "earliest"
    baselines = {}
    for tp in wanted:
        bound = bounds.get(tp)
        if tp in committed:
            baseline = Baseline(description.topic_id, committed[tp], "group")
        elif bound is None:
            baseline = Baseline.undecided(description.topic_id, kind)
        else:
            baseline = Baseline(description.topic_id, bound.end if kind == "latest" else bound.start, kind)
        baselines[tp.partition] = baseline
    return baselines
