"""A worker's side of the offset store: where a claim begins, and how commits reach it (R18)."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from offsets import ledger
from offsets.database import WorkerSession
from offsets.stores.base import OffsetStore
from offsets.types import Claim, HaltReason, PartitionCommit, StoreCommit, StoredOffset, TopicPartition

#: The checkpoint itself; everything else is a store beside it.
POSTGRES = "postgres"
#: Only members of the group can commit to it while it is active, so it is written through the mirror's outbox.
KAFKA = "kafka"


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a claim begins to read, or why it halts."""

    next_offset: int
    halt_reason: HaltReason = HaltReason.NONE
    detail: str = ""


def resume_at(claim: Claim, stored: StoredOffset | None, store: str) -> Resume:
    """Where to go on when the offsets are kept in `store`. Pure (design R16, R18).

    The later of the store and the checkpoint: both are written only after what they cover was counted (at least once)
    or claimed (at most once), so nothing is passed over. Never past the ledger's end: an offset that another tool
    wrote to the store is not a seek; `reconcile_stores` turns it into one. An action that moved the checkpoint after
    the store was last written wins.
    """
    if claim.store != store or not claim.committed:
        return Resume(claim.next_offset)
    if stored is None:
        return Resume(
            claim.next_offset,
            HaltReason.STORE_MISSING,
            f"the {store} store holds no offset for a partition that was committed to it up to {claim.next_offset}.",
        )
    if stored.epoch < claim.moved_epoch:
        return Resume(claim.next_offset)
    return Resume(min(max(stored.next_offset, claim.next_offset), max(claim.ledger_end, claim.next_offset)))


class StoreLink:
    """Reads the store before a claim, decides where it begins, and commits to it. `store` None is the ledger."""

    def __init__(self, group_id: str, worker_id: str, name: str, store: OffsetStore | None) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._name = name
        self._store = store
        if store is not None:
            store.hold(group_id)
            for text in store.warnings():
                logger.warning("%s", text)

    def read(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        """Asked before the claim, outside of any lock. Raises ServiceUnavailableError: then nothing is claimed."""
        return self._store.read(self._group_id, list(partitions)) if self._store else {}

    def align(
        self, session: WorkerSession, claims: Sequence[Claim], stored: Mapping[TopicPartition, StoredOffset]
    ) -> tuple[list[Claim], dict[Claim, Resume]]:
        """Move fresh claims to where the store says, and the store to their epoch.

        Returns the claims as they are now, and those that must halt, with the reason.
        """
        aligned, halted = [], {}
        for claim in claims:
            resume = Resume(claim.next_offset)
            if self._store is not None:
                resume = resume_at(claim, stored.get(claim.topic_partition), self._name)
            if resume.halt_reason is not HaltReason.NONE:
                halted[claim] = resume
            elif resume.next_offset != claim.next_offset or claim.store != self._name:
                claim = self._begin_at(session, claim, resume.next_offset)
            aligned.append(claim)
        if self._store is not None and self._name != KAFKA:
            self._store.put(
                self._group_id,
                {
                    claim.topic_partition: StoredOffset(claim.next_offset, claim.epoch, self._worker_id)
                    for claim in aligned
                    if claim not in halted
                },
            )
        return aligned, halted

    def _begin_at(self, session: WorkerSession, claim: Claim, next_offset: int) -> Claim:
        """Move the checkpoint to what the store holds, unless offsets lie between that were never read."""
        with session.transaction():
            for start in (next_offset, claim.next_offset):
                if ledger.align_with_store(claim, start, self._name):
                    return replace(claim, next_offset=start, store=self._name)
        return claim

    def commit(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        """Implements `semantics.WorkerStore`. Offsets kept in Kafka leave with the mirror, from the member's thread."""
        if self._store is None or self._name == KAFKA:
            return {}
        refused = self._store.commit(
            self._group_id,
            [StoreCommit(c.claim.topic_partition, c.start, c.end, c.claim.epoch, self._worker_id) for c in commits],
        )
        return {
            c.claim.checkpoint_id: f"{c.claim.topic_partition}: {refused[c.claim.topic_partition]}"
            for c in commits
            if c.claim.topic_partition in refused
        }

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
