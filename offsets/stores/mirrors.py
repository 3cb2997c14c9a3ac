"""Sends offsets to the stores that mirror the ledger: the latest only, while the claim is current (R18)."""

import threading
from collections.abc import Callable, Iterable, Mapping

from offsets.clock import Backoff, monotonic
from offsets.errors import OffsetsError
from offsets.stores.base import OffsetStore
from offsets.types import Claim, StoredOffset, TopicPartition


class Outbox:
    """What is still to be sent: one offset a partition, the latest. Any thread may post, one takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[TopicPartition, tuple[Claim, int]] = {}

    def post(self, claim: Claim, next_offset: int) -> None:
        with self._lock:
            self._waiting[claim.topic_partition] = (claim, next_offset)

    def take(self, is_current: Callable[[Claim], bool]) -> dict[TopicPartition, tuple[Claim, int]]:
        """All that waits under current claims; the rest is dropped."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return {tp: entry for tp, entry in taken.items() if is_current(entry[0])}

    def put_back(self, entries: Mapping[TopicPartition, tuple[Claim, int]]) -> None:
        """What could not be sent waits again, unless something newer does."""
        with self._lock:
            self._waiting = {**entries, **self._waiting}


class Mirrors:
    """The outboxes of one worker. `kafka` is emptied by the thread that owns the group member, the others by `run`."""

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
        """The partition is committed up to `next_offset`."""
        for outbox in [outbox for _, outbox in self._stores] + ([self._group] if self._group else []):
            outbox.post(claim, next_offset)

    # --- Kafka's own offsets: fetching thread only -------------------------------------------------

    def send_to_group(
        self, send: Callable[[Mapping[TopicPartition, StoredOffset]], None], *, every_seconds: float = 0.0
    ) -> None:
        """Send what waits as this member's commit, at most every `every_seconds`; never waits for the broker."""
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
        """The broker's answer to an earlier commit: what it did not take is sent again."""
        lost = {tp: self._sent[tp] for tp in failed if tp in self._sent}
        if lost and self._group is not None:
            self._group.put_back(lost)
        self._on_trouble("mirror kafka", "; ".join(sorted(set(failed.values()))))

    # --- Other stores: a thread of their own -------------------------------------------------------

    def run(self, stopping: threading.Event, every_seconds: float) -> None:
        """Send until `stopping`, and once more then."""
        backoff = Backoff()
        while not stopping.wait(every_seconds):
            if not self._send_to_stores():
                stopping.wait(backoff.next_seconds())
            else:
                backoff = Backoff()
        self._send_to_stores()

    def _send_to_stores(self) -> bool:
        whole = True
        for store, outbox in self._stores:
            # Also what was handed over since: the store itself refuses an epoch that is over.
            entries = outbox.take(lambda _: True)
            if not entries:
                continue
            try:
                store.put(
                    self._group_id,
                    {tp: self._stored(claim, next_offset) for tp, (claim, next_offset) in entries.items()},
                )
                self._on_trouble(f"mirror {store.name}", "")
            except OffsetsError as error:
                outbox.put_back(entries)
                self._on_trouble(f"mirror {store.name}", str(error))
                whole = False
        return whole

    def _stored(self, claim: Claim, next_offset: int) -> StoredOffset:
        return StoredOffset(next_offset, claim.epoch, self._worker_id)
