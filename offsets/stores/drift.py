"""How far other offset stores stand from the ledger. The only writer of StoreOffset rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from django.db import connection

from offsets.models import PartitionCheckpoint
from offsets.types import TopicPartition


class Stored(Protocol):
    """What a store holds of one partition."""

    @property
    def next_offset(self) -> int: ...

    @property
    def epoch(self) -> int: ...


class Readable(Protocol):
    """The part of an offset store that is needed here."""

    name: str

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Stored]: ...


@dataclass(frozen=True, slots=True)
class Drift:
    """One partition in the ledger and in another store. `stored` is None when the store holds nothing."""

    checkpoint_id: int
    topic_partition: TopicPartition
    store: str
    ledger_next_offset: int
    stored: int | None
    stored_epoch: int | None

    @property
    def offsets(self) -> int | None:
        """How far the store lies ahead; negative while it lags behind, None when it holds nothing."""
        return None if self.stored is None else self.stored - self.ledger_next_offset


def measure(group_id: str, store: Readable) -> list[Drift]:
    """Read the ledger, then the store: an offset still on its way to a mirror makes it look behind, never ahead.

    Raises ServiceUnavailableError when the store does not answer.
    """
    live = PartitionCheckpoint.objects.live(group_id).order_by("topic", "partition")
    rows = list(live.values_list("pk", "topic", "partition", "next_offset"))
    stored = store.read(group_id, [TopicPartition(topic, partition) for _, topic, partition, _ in rows])
    drifts = []
    for checkpoint_id, topic, partition, next_offset in rows:
        tp = TopicPartition(topic, partition)
        offset = stored.get(tp)
        drifts.append(
            Drift(
                *(checkpoint_id, tp, store.name, next_offset),
                *((offset.next_offset, offset.epoch) if offset else (None, None)),
            )
        )
    return drifts


def sample(group_id: str, store: Readable) -> list[Drift]:
    """Measure, and keep the result for the page."""
    drifts = measure(group_id, store)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO offsets_storeoffset (checkpoint_id, store, next_offset, epoch, ledger_next_offset, seen_at)"
            " VALUES (%s, %s, %s, %s, %s, clock_timestamp()) ON CONFLICT (checkpoint_id, store) DO UPDATE SET"
            " next_offset = excluded.next_offset, epoch = excluded.epoch,"
            " ledger_next_offset = excluded.ledger_next_offset, seen_at = excluded.seen_at",
            [(d.checkpoint_id, d.store, d.stored, d.stored_epoch, d.ledger_next_offset) for d in drifts],
        )
    return drifts
