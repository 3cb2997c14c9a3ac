"""Mirrors: send the latest offset of each partition to other stores while its claim is current (R18)."""

import threading
from collections.abc import Callable, Iterable, Mapping

from offsets.clock import Backoff, monotonic
from offsets.errors import OffsetsError
from offsets.stores.base import OffsetStore
from offsets.types import Claim, StoredOffset, TopicPartition


class Outbox:
    """The latest unsent offset of each partition. Any thread may post; one thread takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[TopicPartition, tuple[Claim, int]] = {}

    def post(self, claim: Claim, next_offset: int) -> None:
        with self._lock:
            self._waiting[claim.topic_partition] = (claim, next_offset)

    def take(self, is_current: Callable[[Claim], bool]) -> dict[TopicPartition, tuple[Claim, int]]:
        """Take all entries whose claim is current, and drop the others."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return {tp: entry for tp, entry in taken.items() if is_current(entry[0])}

    def put_back(self, entries: Mapping[TopicPartition, tuple[Claim, int]]) -> None:
        """Put back entries that could not be sent, except where newer ones are queued."""
        with self._lock:
            self._waiting = {**entries, **self._waiting}


class Mirrors:
    """The outboxes of one worker. The owner of the Kafka client sends those to Kafka; `run` sends the others."""

    def __init__(
        self,
        group_id: str,
        worker_id: str,
        stores: Iterable[OffsetStore],
        *,
        to_group: bool,
        is_current: Callable[[Claim], bool],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._is_current = is_current
        self._on_trouble = on_trouble
        self._stores = [(store, Outbox()) for store in stores]
        self._group = Outbox() if to_group else None
        self._sent: dict[TopicPartition, tuple[Claim, int]] = {}
        self._sent_at = 0.0

    def post(self, claim: Claim, next_offset: int) -> None:
        """Queue a partition's committed `next_offset` for all mirrors."""
        for outbox in [outbox for _, outbox in self._stores] + ([self._group] if self._group else []):
            outbox.post(claim, next_offset)

    # --- Kafka: fetching thread only ---------------------------------------------------------------

    def send_to_group(
        self, send: Callable[[Mapping[TopicPartition, StoredOffset]], None], *, every_seconds: float = 0.0
    ) -> None:
        """Commit queued offsets as this member, at most every `every_seconds`. Does not wait for the broker."""
        if self._group is None or monotonic() - self._sent_at < every_seconds:
            return
        entries = self._group.take(self._is_current)
        if not entries:
            return
        self._sent_at = monotonic()
        try:
            send({tp: self._stored(claim, next_offset) for tp, (claim, next_offset) in entries.items()})
            self._sent |= entries
        except OffsetsError as error:
            self._group.put_back(entries)
            self._on_trouble("mirror kafka", str(error))

    def group_answered(self, failed: Mapping[TopicPartition, str]) -> None:
        """Handle the broker's answer to an earlier commit: queue the failed partitions again."""
        entries = {tp: self._sent[tp] for tp in failed if tp in self._sent}
        if entries and self._group is not None:
            self._group.put_back(entries)
        self._on_trouble("mirror kafka", "; ".join(sorted(set(failed.values()))))

    # --- Other stores: their own thread ------------------------------------------------------------

    def run(self, stopping: threading.Event, every_seconds: float) -> None:
        """Send until `stopping` is set, and then once more."""
        backoff = Backoff()
        while not stopping.wait(every_seconds):
            if not self._send_to_stores():
                stopping.wait(backoff.next_seconds())
            else:
                backoff = Backoff()
        self._send_to_stores()

    def _send_to_stores(self) -> bool:
        complete = True
        for store, outbox in self._stores:
            # Includes partitions that were handed over since: the store itself refuses a stale epoch.
            entries = outbox.take(lambda _: True)
            if not entries:
                continue
            try:
                offsets = {tp: self._stored(claim, next_offset) for tp, (claim, next_offset) in entries.items()}
                store.put(self._group_id, offsets)
                self._on_trouble(f"mirror {store.name}", "")
            except OffsetsError as error:
                outbox.put_back(entries)
                self._on_trouble(f"mirror {store.name}", str(error))
                complete = False
        return complete

    def _stored(self, claim: Claim, next_offset: int) -> StoredOffset:
        return StoredOffset(next_offset, claim.epoch, self._worker_id)
