"""Applies commits, retrying until database and store answer (rules R9 and R10)."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError

from offsets import ledger
from offsets.clock import Backoff, monotonic
from offsets.database import DATABASE_LOST, WorkerSession
from offsets.errors import FencedError, LedgerConflictError, OffsetsError, ServiceUnavailableError
from offsets.processing.semantics import FollowUp, LedgerOnly, WorkerStore, protocol_of
from offsets.text import describe_error
from offsets.types import BatchHandler, PartitionCommit, Semantics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """What one transaction counted, under the id that it wrote to the checkpoints.

    `apply_seconds` run from its first try to the answer to its COMMIT.
    """

    batch_id: uuid.UUID
    commits: Sequence[PartitionCommit]
    apply_seconds: float


@dataclass(slots=True)
class CommitOutcome:
    """The outcome of each commit of a unit, by checkpoint id; those in none of the four were cancelled.

    One may be both applied and fenced: it was counted, and then the store or `next_offset` belonged to another.
    """

    applied: list[PartitionCommit] = field(default_factory=list)
    fenced: dict[int, str] = field(default_factory=dict)
    #: The handler or the database refused the data itself, and it became a failed range: counting goes on behind it.
    quarantined: dict[int, str] = field(default_factory=dict)
    #: Refused likewise, and nothing could be written instead.
    refused: dict[int, str] = field(default_factory=dict)
    #: The applied commits by transaction, less those that at_most_once claimed and did not count.
    transactions: list[CommittedTransaction] = field(default_factory=list)


class BatchCommitter:
    """Applies commits for several partitions at once; a partition that misses the fence leaves the others whole.

    Use it from one thread. `is_current(commit)` returns whether this process still wants the commit (asked
    between tries, so that a lost partition does not keep a healthy one waiting); `wait(seconds)` sleeps between
    tries, which end when `closed()`; `on_trouble(text)` is called when the database is unavailable, and with "" when it
    is back.
    """

    def __init__(
        self,
        session: WorkerSession,
        handler: BatchHandler,
        *,
        is_current: Callable[[PartitionCommit], bool],
        wait: Callable[[float], None],
        closed: Callable[[], bool] = lambda: False,
        on_trouble: Callable[[str], None],
        semantics: Semantics = Semantics.EXACTLY_ONCE,
        store: WorkerStore | None = None,
    ) -> None:
        self._session = session
        self._protocol = protocol_of(semantics, session, handler, store or LedgerOnly())
        self._is_current = is_current
        self._wait = wait
        self._closed = closed
        self._on_trouble = on_trouble

    def commit(self, unit: Sequence[PartitionCommit]) -> CommitOutcome:
        """Apply a unit, retrying until the database answers. Never raises for a lost database."""
        outcome = CommitOutcome()
        if len(unit) > 1:
            self._each_alone([commit for commit in unit if commit.refusal], outcome)
            unit = [commit for commit in unit if not commit.refusal]
        batch_id = uuid.uuid4()
        backoff = Backoff()
        started = monotonic()
        in_doubt: list[PartitionCommit] = []
        unfit = unit[0].refusal if len(unit) == 1 else ""
        while remaining := in_doubt or self._remaining(unit, outcome):
            try:
                if in_doubt:
                    # Asked even for claims that are not ours any more: a refusal is counted, not guessed.
                    applied = self._probe(in_doubt, batch_id, outcome)
                    in_doubt = []
                else:
                    applied = self._apply(remaining, batch_id, unfit)
                seconds = monotonic() - started
                counted = self._complete(applied, batch_id, outcome, unfit)
                if counted:
                    outcome.transactions.append(CommittedTransaction(batch_id, counted, seconds))
            except FencedError as error:
                outcome.fenced |= error.misses
            except (ServiceUnavailableError, *DATABASE_LOST) as error:
                in_doubt = remaining
                self._on_trouble(f"database: {' '.join(str(error).split())}")
                if self._closed():
                    break
                self._wait(backoff.next_seconds())
            except (LedgerConflictError, MemoryError):
                raise
            except Exception as error:
                if len(remaining) > 1:
                    self._each_alone(remaining, outcome)
                elif unfit:
                    outcome.refused[remaining[0].claim.checkpoint_id] = unfit
                else:
                    logger.warning("%s is not applied.", _span(remaining[0]), exc_info=_unexpected(error))
                    unfit = describe_error(error)
        self._on_trouble("")
        return outcome

    def _apply(self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID, unfit: str) -> Sequence[PartitionCommit]:
        """One transaction; with `unfit`, the reason, it quarantines the one commit that is left."""
        if unfit:
            self._protocol.quarantine(commits[0], batch_id, unfit)
        else:
            self._protocol.apply(commits, batch_id)
        return commits

    def _remaining(self, unit: Sequence[PartitionCommit], outcome: CommitOutcome) -> list[PartitionCommit]:
        applied = {commit.claim.checkpoint_id for commit in outcome.applied}
        done = applied | outcome.fenced.keys() | outcome.quarantined.keys() | outcome.refused.keys()
        return [c for c in unit if c.claim.checkpoint_id not in done and self._is_current(c)]

    def _complete(
        self, applied: Sequence[PartitionCommit], batch_id: uuid.UUID, outcome: CommitOutcome, unfit: str
    ) -> Sequence[PartitionCommit]:
        """What follows the transaction, step by step, until the process ends or the commit is not wanted any more.

        Returns those that are counted. With `unfit` none is: their offsets were quarantined.
        """
        if unfit:
            outcome.quarantined |= {commit.claim.checkpoint_id: unfit for commit in applied}
        else:
            outcome.applied.extend(applied)
        left = applied
        for step in self._protocol.after(batch_id):
            left = self._do(step, left, outcome)
        if unfit:
            return []
        return left if self._protocol.counts_last else applied

    def _do(self, step: FollowUp, commits: Sequence[PartitionCommit], outcome: CommitOutcome) -> list[PartitionCommit]:
        """One step, repeated while a service is away. Returns the commits that go on to the next one."""
        backoff = Backoff()
        while commits and not self._closed():
            try:
                refused = step(commits)
            except (ServiceUnavailableError, *DATABASE_LOST) as error:
                self._on_trouble(f"database or store: {' '.join(str(error).split())}")
                self._wait(backoff.next_seconds())
                commits = [commit for commit in commits if self._is_current(commit)]
                continue
            except (LedgerConflictError, MemoryError):
                raise
            except Exception as error:
                if len(commits) > 1:
                    return [done for commit in commits for done in self._do(step, [commit], outcome)]
                logger.warning("%s is not completed.", _span(commits[0]), exc_info=_unexpected(error))
                refused = {}
                outcome.refused[commits[0].claim.checkpoint_id] = describe_error(error)
                commits = []
            outcome.fenced |= refused
            return [commit for commit in commits if commit.claim.checkpoint_id not in refused]
        return []

    def _probe(
        self, commits: Sequence[PartitionCommit], batch_id: uuid.UUID, outcome: CommitOutcome
    ) -> Sequence[PartitionCommit]:
        with self._session.transaction():
            probed = ledger.probe_commit(commits, batch_id)
        if probed.applied:
            logger.info("The transaction whose COMMIT broke off had been applied; nothing is written twice.")
        outcome.fenced |= probed.misses
        return commits if probed.applied else []

    def _each_alone(self, commits: Sequence[PartitionCommit], outcome: CommitOutcome) -> None:
        """Find which partitions' data is refused by committing each alone; the others must not suffer."""
        for commit in commits:
            alone = self.commit([commit])
            outcome.applied.extend(alone.applied)
            outcome.fenced |= alone.fenced
            outcome.quarantined |= alone.quarantined
            outcome.refused |= alone.refused
            outcome.transactions.extend(alone.transactions)


def _span(commit: PartitionCommit) -> str:
    return f"{commit.claim.topic_partition} [{commit.start}, {commit.end})"


def _unexpected(error: Exception) -> Exception | None:
    """The handler's own failure, whose traceback is logged; a refusal in words needs none."""
    return None if isinstance(error, (OffsetsError, DatabaseError)) else error
