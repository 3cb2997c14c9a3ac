"""The order in which metrics, ledger, store and next offset are written: what each promise rests on (design §6).

* exactly_once: one transaction for all of it.
* at_least_once: metrics and ledger in one transaction → store → `next_offset`.
* at_most_once: offsets `claimed` and `next_offset` in one transaction → store → metrics, `claimed` becoming
  `processed`.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from django.conf import settings
from django.db import connection

from offsets import ledger
from offsets.database import WorkerSession
from offsets.errors import OffsetsError
from offsets.failpoints import failpoint
from offsets.types import BatchHandler, Claim, HaltReason, PartitionCommit, Semantics


class WorkerStore(Protocol):
    """Where a worker keeps its offsets beside the ledger."""

    def commit(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        """Move the stored offsets to the commits' ends. Returns the refused ones by checkpoint id, with the reason.

        Raises ServiceUnavailableError while the store does not answer: it is tried again.
        """
        ...


class LedgerOnly:
    """The postgres store: the checkpoint is the stored offset, so nothing else is written."""

    def commit(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        return {}


class Steps(Protocol):
    """One promise, as the steps that the committer repeats until each has happened once."""

    #: Whether metrics are written by the last step, rather than by `apply`.
    counts_last: bool

    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        """The transaction that makes the commits this worker's; it is probed for when its outcome is unknown."""
        ...

    def quarantine(self, commit: PartitionCommit, batch_id: uuid.UUID, detail: str) -> None:
        """In place of `apply`, for a commit whose counts were refused: its offsets become a failed range.

        Raises QuarantineError where the promise has no room for that.
        """
        ...

    def after(self, batch_id: uuid.UUID) -> Sequence["Step"]:
        """What is left to do for those that were applied, in order."""
        ...


#: Returns what was refused, by checkpoint id. Can be repeated: a second time changes nothing.
Step = Callable[[Sequence[PartitionCommit]], dict[int, str]]


class QuarantineError(OffsetsError):
    """Under at_most_once nothing is set apart to be tried again: it is claimed already, and stays so."""


class _Steps:
    counts_last = False
    #: Whether the transaction moves `next_offset` itself.
    moves = True

    def __init__(self, session: WorkerSession, handler: BatchHandler, store: WorkerStore) -> None:
        self._session = session
        self._handler = handler
        self._store = store

    def _count(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        failpoint("before_sql")
        with self._session.transaction():
            # COPY first: it takes no row lock, so a slow one makes nobody wait.
            self._handler.insert(commits, connection)
            ledger.lock_for_commit(commits)
            self._handler.update(commits, connection)
            ledger.record_processed(commits, batch_id, move=self.moves)
            failpoint("before_commit")
        failpoint("after_commit")

    def quarantine(self, commit: PartitionCommit, batch_id: uuid.UUID, detail: str) -> None:
        with self._session.transaction():
            ledger.lock_for_commit([commit])
            ledger.record_failed(commit, batch_id, detail, retry_seconds=settings.REPLAY_FIRST_SECONDS, move=self.moves)

    def _to_store(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        refused = self._store.commit(commits)
        failpoint("after_store")
        return refused


class ExactlyOnce(_Steps):
    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        self._count(commits, batch_id)

    def after(self, batch_id: uuid.UUID) -> Sequence[Step]:
        return ()


class AtLeastOnce(_Steps):
    moves = False

    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        self._count(commits, batch_id)

    def after(self, batch_id: uuid.UUID) -> Sequence[Step]:
        return self._to_store, self._follow

    def _follow(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        with self._session.transaction():
            return ledger.follow_store(commits)


class AtMostOnce(_Steps):
    counts_last = True

    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        failpoint("before_sql")
        with self._session.transaction():
            ledger.lock_for_commit(commits)
            ledger.claim_offsets(commits, batch_id)
            failpoint("before_commit")
        failpoint("after_commit")

    def quarantine(self, commit: PartitionCommit, batch_id: uuid.UUID, detail: str) -> None:
        raise QuarantineError(detail)

    def after(self, batch_id: uuid.UUID) -> Sequence[Step]:
        return self._to_store, lambda commits: self._settle(commits, batch_id)

    def _settle(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> dict[int, str]:
        """Count what is still claimed by this batch. Repeated after a COMMIT of unknown outcome, it finds nothing."""
        with self._session.transaction():
            kept = ledger.settle_claimed(commits, batch_id)
            if kept:
                self._handler.insert(kept, connection)
                self._handler.update(kept, connection)
            failpoint("before_settle")
        return {}


_STEPS: dict[Semantics, type[_Steps]] = {
    Semantics.EXACTLY_ONCE: ExactlyOnce,
    Semantics.AT_LEAST_ONCE: AtLeastOnce,
    Semantics.AT_MOST_ONCE: AtMostOnce,
}


def steps_of(semantics: Semantics, session: WorkerSession, handler: BatchHandler, store: WorkerStore) -> Steps:
    steps: Steps = _STEPS[semantics](session, handler, store)  # type: ignore[assignment]
    return steps


# --- Where to begin -------------------------------------------------------------------------------


class Stored(Protocol):
    """What a store holds of one partition."""

    @property
    def next_offset(self) -> int: ...

    @property
    def epoch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a claim begins to read, or why it may not."""

    next_offset: int
    halt_reason: HaltReason = HaltReason.NONE
    detail: str = ""


def resume_at(claim: Claim, stored: Stored | None, store: str) -> Resume:
    """Where to go on when the offsets are kept in `store`. Pure (design R16, R18).

    The later of the store and the checkpoint: both are written only after what they cover was counted (at least once)
    or claimed (at most once), so nothing is passed over. Never past the ledger's end: what somebody else wrote to the
    store is no seek; `reconcile_stores` makes one of it. An action that moved the checkpoint after the store was last
    written wins.
    """
    if claim.store != store or not claim.committed:
        return Resume(claim.next_offset)
    if stored is None:
        return Resume(
            claim.next_offset,
            HaltReason.STORE_MISSING,
            f"the {store} store holds no offset of a partition that was committed to it up to {claim.next_offset}.",
        )
    if stored.epoch < claim.moved_epoch:
        return Resume(claim.next_offset)
    return Resume(min(max(stored.next_offset, claim.next_offset), max(claim.ledger_end, claim.next_offset)))
