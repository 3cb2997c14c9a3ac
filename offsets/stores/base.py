"""The protocol of offset stores. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from offsets.types import StoreCapabilities, StoreCommit, StoredOffset, TopicPartition


def refusal(store: str, commit: StoreCommit, held: StoredOffset | None) -> str:
    """Why a store that holds `held` refuses the commit; empty when it does not."""
    if held is not None and held.epoch > commit.epoch:
        return f"epoch {commit.epoch} is over, the {store} store holds epoch {held.epoch}"
    # An epoch is one claim of one worker: no other can have stored this, so it is the first try of this commit.
    if commit.worker_id and held == StoredOffset(commit.next_offset, commit.epoch, commit.worker_id):
        return ""
    now = held.next_offset if held else None
    if now != commit.expected:
        names = ["nothing" if value is None else str(value) for value in (now, commit.expected)]
        return f"the {store} store holds {names[0]}, not {names[1]}"
    return ""


class OffsetStore(Protocol):
    """Next offsets by group and partition.

    Every method raises ServiceUnavailableError when the store does not answer in time, and RefusedError when it
    answers that it will not.
    """

    name: str
    capabilities: StoreCapabilities

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        """What is stored; partitions of which nothing is stored are left out."""
        ...

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        """Move each partition by itself. Returns those that were refused, with the reason: another offset than
        expected is stored, or a newer epoch.

        Can be repeated when the answer was lost: what this worker stored under this epoch already is not refused,
        except where a transaction shows the outcome of the first try.
        """
        ...

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        """Store without an expectation: adoption, seeks, mirrors. A newer epoch still wins. Returns the refused."""
        ...

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None: ...

    def warnings(self) -> list[str]:
        """What an operator should know of how the store is set up, in sentences."""
        ...

    def hold(self, group_id: str) -> None:
        """A worker of the group begins, until `close`. Raises RefusedError where the store serves one and has it."""
        ...

    def close(self) -> None: ...
