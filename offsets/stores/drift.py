"""The drift between other offset stores and the ledger. The only writer of StoreOffset rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from django.db import connection

from offsets.models import PartitionCheckpoint
from offsets.types import TopicPartition


class Stored(Protocol):
    """A stored offset of one partition."""

    @property
    def next_offset(self) -> int: ...

    @property
    def epoch(self) -> int: ...


class Readable(Protocol):
    """An offset store that can be read."""

    name: str

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Stored]: ...


@dataclass(frozen=True, slots=True)
class Drift:
    """One partition in the ledger and in another store. `stored` is None if the store has no offset."""

    checkpoint_id: int
    topic_partition: TopicPartition
    store: str
    ledger_next_offset: int
    stored: int | None
    stored_epoch: int | None

    @property
    def offsets(self) -> int | None:
        """How far the store is ahead of the ledger, negative if it is behind. None if it has no offset."""
        return None if self.stored is None else self.stored - self.ledger_next_offset


def measure(group_id: str, store: Readable) -> list[Drift]:
    """Compare the ledger with the store. A mirror that is not sent yet makes the store look behind.

    Raises ServiceUnavailableError if the store does not answer.
    """
    live = PartitionCheckpoint.objects.live(group_id).order_by("topic", "partition")
    rows = list(live.values_list("pk", "topic", "partition", "next_offset"))
    stored = store.read(group_id, [TopicPartition(topic, partition) for _, topic, partition, _ in rows])
    drifts = []
    for checkpoint_id, topic, partition, next_offset in rows:
        tp = TopicPartition(topic, partition)
        held = stored.get(tp)
        drifts.append(
            Drift(
                *(checkpoint_id, tp, store.name, next_offset),
                *((held.next_offset, held.epoch) if held else (None, None)),
            )
        )
    return drifts


def sample(group_id: str, store: Readable) -> list[Drift]:
    """Measure the drift and save it for the dashboard."""
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
