"""The protocol of offset stores. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from offsets.types import StoreCapabilities, StoreCommit, StoredOffset, TopicPartition


def refusal(store: str, commit: StoreCommit, held: StoredOffset | None) -> str:
    """Why a store whose current offset is `held` refuses the commit; empty if it accepts it."""
    if held is not None and held.epoch > commit.epoch:
        return stale_epoch(store, commit.epoch, held.epoch)
    # An epoch belongs to one claim of one worker, so this is an earlier attempt of the same commit.
    if commit.worker_id and held == StoredOffset(commit.next_offset, commit.epoch, commit.worker_id):
        return ""
    now = held.next_offset if held else None
    if now != commit.expected:
        return unexpected_offset(store, now, commit.expected)
    return ""


def stale_epoch(store: str, epoch: int, current: int | str) -> str:
    return f"epoch {epoch} is stale, the {store} store has epoch {current}"


def unexpected_offset(store: str, held: int | str | None, expected: int | str | None) -> str:
    names = ["no offset" if value in (None, "") else str(value) for value in (held, expected)]
    return f"the {store} store has {names[0]}, expected {names[1]}"


class OffsetStore(Protocol):
    """Next offsets by group and partition.

    Every method raises ServiceUnavailableError if the store does not answer in time, and RefusedError if it rejects the
    request.
    """

    name: str
    capabilities: StoreCapabilities

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        """The stored offsets. Partitions without one are omitted."""
        ...

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        """Commit partition by partition. Returns the refused ones: an unexpected offset or a newer epoch is stored.

        Safe to repeat if the answer was lost: an offset that this worker stored under this epoch is not refused, except
        by a store whose transactions tell the outcome of the first attempt.
        """
        ...

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        """Store offsets unconditionally: adoption, seeks, mirrors. Returns the partitions with a newer epoch."""
        ...

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None: ...

    def warnings(self) -> list[str]:
        """Risks of the store's configuration, as sentences for operators."""
        ...

    def hold(self, group_id: str) -> None:
        """Register a worker of the group until `close`. Raises RefusedError if the store serves only one and has it."""
        ...

    def close(self) -> None: ...
