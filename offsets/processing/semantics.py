"""The order in which each processing mode writes metrics, ledger, store and next offset (design §6).

* exactly_once: one transaction for all of it.
* at_least_once: metrics and ledger in one transaction → store → `next_offset`.
* at_most_once: offsets `claimed` and `next_offset` in one transaction → store → metrics, `claimed` becoming
  `processed`.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from django.conf import settings
from django.db import connection

from offsets import ledger
from offsets.database import WorkerSession
from offsets.errors import OffsetsError
from offsets.failpoints import failpoint
from offsets.types import BatchHandler, PartitionCommit, Semantics


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


class CommitProtocol(Protocol):
    """One processing mode, as the steps that the committer repeats until each has happened once."""

    #: Whether metrics are written by the last step, rather than by `apply`.
    counts_last: bool

    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        """The transaction that makes the commits this worker's; it is probed when its outcome is unknown."""
        ...

    def quarantine(self, commit: PartitionCommit, batch_id: uuid.UUID, detail: str) -> None:
        """In place of `apply`, for a commit whose counts were refused: its offsets become a failed range.

        Raises QuarantineError where the mode does not allow that.
        """
        ...

    def after(self, batch_id: uuid.UUID) -> Sequence["FollowUp"]:
        """What is left to do for those that were applied, in order."""
        ...


#: Returns what was refused, by checkpoint id. Can be repeated: a second time changes nothing.
FollowUp = Callable[[Sequence[PartitionCommit]], dict[int, str]]


class QuarantineError(OffsetsError):
    """Under at_most_once a refused batch cannot be quarantined and retried: its offsets stay claimed."""


class _LedgerProtocol:
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
            # COPY first: it takes no row lock, so a slow one blocks no other transaction.
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


class ExactlyOnce(_LedgerProtocol):
    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        self._count(commits, batch_id)

    def after(self, batch_id: uuid.UUID) -> Sequence[FollowUp]:
        return ()


class AtLeastOnce(_LedgerProtocol):
    moves = False

    def apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID) -> None:
        self._count(commits, batch_id)

    def after(self, batch_id: uuid.UUID) -> Sequence[FollowUp]:
        return self._to_store, self._follow

    def _follow(self, commits: Sequence[PartitionCommit]) -> dict[int, str]:
        with self._session.transaction():
            return ledger.follow_store(commits)


class AtMostOnce(_LedgerProtocol):
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

    def after(self, batch_id: uuid.UUID) -> Sequence[FollowUp]:
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


_PROTOCOLS: dict[Semantics, type[_LedgerProtocol]] = {
    Semantics.EXACTLY_ONCE: ExactlyOnce,
    Semantics.AT_LEAST_ONCE: AtLeastOnce,
    Semantics.AT_MOST_ONCE: AtMostOnce,
}


def protocol_of(
    semantics: Semantics, session: WorkerSession, handler: BatchHandler, store: WorkerStore
) -> CommitProtocol:
    protocol: CommitProtocol = _PROTOCOLS[semantics](session, handler, store)  # type: ignore[assignment]
    return protocol
