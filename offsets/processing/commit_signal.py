"""Sends `batch_committed` after each commit. No receiver may affect the counting."""

import logging
from collections.abc import Callable, Iterable, Mapping

from django.db import connection, connections

from offsets.processing.committer import CommittedTransaction
from offsets.signals import Committed, CommittedBatch, batch_committed
from offsets.text import describe_error
from offsets.types import Semantics

logger = logging.getLogger(__name__)


class Announcer:
    """Use it from the commit thread, after the transaction. `on_trouble(text)` is called with the receivers' errors,
    and with "" when none failed.
    """

    def __init__(
        self, group_id: str, worker_id: str, semantics: Semantics, *, on_trouble: Callable[[str], None]
    ) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._semantics = semantics
        self._on_trouble = on_trouble

    def announce(self, transactions: Iterable[CommittedTransaction], deduplicated: Mapping[int, int]) -> None:
        """One signal for each. `deduplicated` is by checkpoint id. Does not raise what receivers raise."""
        if not batch_committed.has_listeners(Announcer):
            return
        for transaction in transactions:
            batches = tuple(
                CommittedBatch(
                    commit.claim.topic_partition,
                    commit.start,
                    commit.end,
                    commit.claim.epoch,
                    commit.stats,
                    deduplicated.get(commit.claim.checkpoint_id, 0),
                )
                for commit in transaction.commits
            )
            self._send(
                Committed(
                    self._group_id,
                    self._worker_id,
                    transaction.batch_id,
                    self._semantics,
                    batches,
                    transaction.apply_seconds,
                )
            )

    def _send(self, committed: Committed) -> None:
        # Django logs what a receiver raised, with its traceback.
        answers = batch_committed.send_robust(sender=Announcer, committed=committed)
        troubles = [
            f"{_name(who)}: {describe_error(answer)}" for who, answer in answers if isinstance(answer, Exception)
        ]
        if _discard_open_transaction():
            troubles.append("a receiver left a transaction open; it was rolled back")
            logger.error("A receiver of batch_committed left a transaction open on the worker's connection.")
        self._on_trouble(f"a receiver of batch_committed failed: {'; '.join(troubles)}" if troubles else "")


def _discard_open_transaction() -> bool:
    """Discard this thread's connection if a receiver left it in a transaction.

    The next commit would be a savepoint in that transaction: it would look committed, and be lost.
    """
    if connection.connection is None or (connection.autocommit and not connection.in_atomic_block):
        return False
    connection.connection.close()
    # Not `connection.close()`, which inside an atomic block keeps the block: the thread gets a new one.
    del connections[connection.alias]
    return True


def _name(receiver: object) -> str:
    return str(getattr(receiver, "__qualname__", type(receiver).__qualname__))
