"""What an offset store is, and what each of them can do. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from offsets.types import TopicPartition


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """The next offset to read, and who stored it under which epoch. Epoch 0 and no worker: somebody else's tool."""

    next_offset: int
    epoch: int = 0
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class StoreCommit:
    """Move one partition from `expected` (None: nothing is stored yet) to `next_offset`."""

    topic_partition: TopicPartition
    expected: int | None
    next_offset: int
    epoch: int
    worker_id: str = ""


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What may be built on a store; semantics and the contract suite go by these."""

    #: Offsets move in the transaction that writes the metrics.
    transactional: bool
    #: A commit is refused unless the store holds what its writer expects.
    compare_and_set: bool
    #: Others may write to it while workers run.
    writable_from_outside: bool
    several_workers: bool


def refusal(store: str, commit: StoreCommit, held: StoredOffset | None) -> str:
    """Why a store that holds `held` refuses the commit; empty when it does not."""
    if held is not None and held.epoch > commit.epoch:
        return f"epoch {commit.epoch} is over, the {store} store holds epoch {held.epoch}"
    # An epoch is one claim of one worker: nobody else can have stored this, so it is the first try of this commit.
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

        Can be repeated when the answer was lost: what this worker stored under this epoch already is no refusal,
        except where a transaction says what became of the first try.
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
