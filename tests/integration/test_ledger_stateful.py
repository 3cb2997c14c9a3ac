"""The real ledger, committer, cutter and metric store against a model that keeps one word per offset.

`LEDGER_EXAMPLES=500` draws that many examples from a seed of its own, and prints how to see a failure again.
Otherwise the same few are drawn each time.
"""

import os
import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from analytics.metrics_store import MetricsStore
from offsets import ledger
from offsets.ledger import pieces
from offsets.ranges import offset_range
from offsets.stores.base import StoreCommit
from offsets.types import RangeKind, Semantics, TopicPartition
from tests.ledger_truth import GOOD, HOLE, POISON
from tests.ledger_world import (
    BREAKS,
    FIRST_MINUTE,
    HANDLER,
    SESSION,
    TOPIC,
    WORKERS,
    Holding,
    LedgerWorld,
    Unsettled,
    pick,
)

pytestmark = pytest.mark.django_db(transaction=True)

numbers = st.integers(0, 1_000)
few = st.integers(1, 6)
partitions = st.sampled_from((0, 1))


class LedgerMachine(LedgerWorld):
    """Workers and operators do anything in any order."""

    # --- The log -----------------------------------------------------------------------------------

    @rule(number=partitions, slots=st.lists(st.sampled_from((GOOD, GOOD, GOOD, POISON, HOLE)), min_size=1, max_size=8))
    def grow(self, number: int, slots: list[str]) -> None:
        self.current[number].log.slots += slots

    @rule(number=partitions, by=few)
    def expire(self, number: int, by: int) -> None:
        log = self.current[number].log
        log.start = min(log.end, log.start + by)

    @rule(number=partitions)
    def recreate_topic(self, number: int) -> None:
        """The old counts are kept beside those of the new log."""
        book = self.current[number]
        log = self._new_log()
        self._restart(number, book, "topic_recreated", 0, log)

    # --- Workers -----------------------------------------------------------------------------------

    @rule(number=partitions, name=st.sampled_from(WORKERS), semantics=st.sampled_from(Semantics))
    def claim(self, number: int, name: str, semantics: Semantics) -> None:
        book = self.current[number]
        (claim,) = ledger.claim(self.group, self.workers[name], [TopicPartition(TOPIC, number)], semantics=semantics)
        book.epoch += 1
        book.owner = self.workers[name]
        assert (claim.checkpoint_id, claim.epoch, claim.next_offset) == (book.id, book.epoch, book.next)
        assert claim.ledger_end == book.end
        self.holdings.append(Holding(claim, book, semantics, book.next))

    @precondition(lambda self: self._readable())
    @rule(which=numbers, count=few)
    def read(self, which: int, count: int) -> None:
        self._read(pick(self._readable(), which), count)

    @precondition(lambda self: self._committable())
    @rule(which=numbers, point=st.none() | numbers)
    def commit(self, which: int, point: int | None) -> None:
        """The zombie's too: whether it may be applied is the model's to say."""
        holding = pick(self._committable(), which)
        self._commit([holding], _point(holding, point))

    @precondition(lambda self: self._readable())
    @rule(which=numbers, count=few)
    def read_and_commit(self, which: int, count: int) -> None:
        holding = pick(self._readable(), which)
        self._read(holding, count)
        self._commit([holding], None)

    @precondition(lambda self: self._pairs())
    @rule(which=numbers, point=st.none() | numbers)
    def commit_unit(self, which: int, point: int | None) -> None:
        """Two partitions in one transaction: one that misses leaves the other whole."""
        pair = pick(self._pairs(), which)
        self._commit(pair, _point(pair[0], point))

    @precondition(lambda self: self._committable())
    @rule(which=numbers, point=numbers)
    def crash(self, which: int, point: int) -> None:
        """The connection is lost and the worker is gone before it could ask what became of its commit."""
        holding = pick(self._committable(), which)
        admitted, where = self._admitted(holding), _point(holding, point)
        outcome = self._run([holding], where, dies=True)
        assert bool(outcome.applied) == (admitted and where in ("after_store", "before_settle"))
        if admitted:
            # Exactly once everything happens in the one transaction: after it nothing is missing.
            whole = holding.semantics is Semantics.EXACTLY_ONCE and where == "after_commit"
            self._applied(holding, None if whole else where)
        self.holdings.remove(holding)

    @precondition(lambda self: self.holdings)
    @rule(which=numbers)
    def release(self, which: int) -> None:
        """After a hand-over, or with the batch in hand dropped (lost)."""
        holding = pick(self.holdings, which)
        ours = holding.claim.epoch == holding.book.epoch
        assert ledger.release([holding.claim]) == ([holding.book.id] if ours else [])
        if ours:
            holding.book.owner = None
        self.holdings.remove(holding)

    @precondition(lambda self: self._fresh())
    @rule(which=numbers, how_far=numbers)
    def align(self, which: int, how_far: int) -> None:
        """The store of a mode that keeps its offsets elsewhere is ahead of the checkpoint."""
        holding = pick(self._fresh(), which)
        book = holding.book
        stored = book.next + how_far % (book.covered_from_next() - book.next + 1)
        current = not book.retired and holding.claim.epoch == book.epoch
        if not current:
            stored = holding.claim.next_offset
        assert ledger.align_with_store(holding.claim, stored, "other") == current
        if current:
            book.next = holding.at = stored

    @rule(number=partitions, ahead=st.integers(-2, 12), stale=st.booleans())
    def move_within(self, number: int, ahead: int, stale: bool) -> None:
        """The checkpoint as an offset store: forward, as far as the ledger holds every offset."""
        book = self.current[number]
        place = TopicPartition(TOPIC, number)
        target, epoch = max(0, book.next + ahead), book.epoch - stale
        with transaction.atomic():
            refused = ledger.move_within(self.group, [StoreCommit(place, book.next, target, epoch)])
        if stale or not book.next <= target <= book.covered_from_next():
            assert place in refused
        else:
            assert not refused
            book.next = target

    # --- At most once, at least once -----------------------------------------------------------------

    @precondition(lambda self: self._in_hand(Semantics.AT_MOST_ONCE))
    @rule(which=numbers)
    def take_offsets(self, which: int) -> None:
        holding = pick(self._in_hand(Semantics.AT_MOST_ONCE), which)
        commit, batch, bounds = holding.commit(), uuid.uuid4(), holding.bounds
        if self._fenced(holding, lambda: ledger.claim_offsets([commit], batch)):
            return
        holding.book.take(commit.start, commit.end, batch)
        holding.drop()
        self.unsettled.append(Unsettled(holding, commit, batch, bounds))

    @precondition(lambda self: self.unsettled)
    @rule(which=numbers, forget=st.booleans())
    def settle(self, which: int, forget: bool) -> None:
        """At any later time, by whoever took them, once or twice; never, if the worker died."""
        one = pick(self.unsettled, which)
        book = one.holding.book
        with SESSION.transaction():
            kept = ledger.settle_claimed([one.commit], one.batch)
            HANDLER.insert(kept, connection)
            HANDLER.update(kept, connection)
        assert bool(kept) == book.still_holds(one.batch, one.bounds)
        if kept:
            book.process(one.commit.start, one.commit.end)
        if forget:
            self.unsettled.remove(one)

    @precondition(lambda self: self._in_hand(Semantics.AT_LEAST_ONCE))
    @rule(which=numbers)
    def record(self, which: int) -> None:
        """Counted; `next_offset` waits for the store."""
        holding = pick(self._in_hand(Semantics.AT_LEAST_ONCE), which)
        commit = holding.commit()

        def write() -> None:
            HANDLER.insert([commit], connection)
            HANDLER.update([commit], connection)
            ledger.record_processed([commit], uuid.uuid4(), move=False)

        if self._fenced(holding, write):
            return
        holding.book.process(commit.start, commit.end, again=True)
        holding.recorded = commit
        holding.drop()

    @precondition(lambda self: any(h.recorded for h in self.holdings))
    @rule(which=numbers, crashed=st.booleans())
    def follow(self, which: int, crashed: bool) -> None:
        holding = pick([h for h in self.holdings if h.recorded], which)
        assert holding.recorded is not None
        if crashed:
            self.holdings.remove(holding)
            return
        book = holding.book
        missed = ledger.follow_store([holding.recorded])
        if book.retired or book.epoch != holding.claim.epoch:
            assert set(missed) == {book.id}
            self.holdings.remove(holding)
        else:
            assert not missed
            book.next = holding.recorded.end
            holding.recorded = None

    # --- Operators -----------------------------------------------------------------------------------

    @rule(number=partitions, to=numbers)
    def seek(self, number: int, to: int) -> None:
        """Forward, backward, in place, or below the baseline."""
        book = self.current[number]
        self._seek(book, to % (book.log.end + 1))

    @precondition(lambda self: self._undoable())
    @rule(which=numbers)
    def undo_seek(self, which: int) -> None:
        """The baseline comes back too, unless something was counted below it since."""
        book = pick(self._undoable(), which)
        target, baseline = self.undo[book.id]
        below = any(offset < baseline for offset in book.words)
        assert ledger.anything_below(book.id, baseline) == below
        self._seek(book, target, baseline=None if below else baseline)

    @precondition(lambda self: any(b.next < b.log.start for b in self.current.values()))
    @rule(which=numbers)
    def accept_loss(self, which: int) -> None:
        book = pick([b for b in self.current.values() if b.next < b.log.start], which)
        self._seek(book, book.log.start, passed_as=RangeKind.EXPIRED)

    @rule(number=partitions, count=few)
    def fail(self, number: int, count: int) -> None:
        """A batch that could not be applied is set aside, and the partition goes on behind it."""
        book = self.current[number]
        target = min(book.log.end, book.next + count)
        if target > book.next:
            holes = ledger.uncovered(book.id, offset_range(book.next, target))
            with transaction.atomic():
                assert ledger.lock_checkpoint(book.id)
                pieces.insert_uncounted(book.id, holes, RangeKind.FAILED, book.epoch, "refused")
                self._seek(book, target, passed_as=RangeKind.FAILED)

    @rule(number=partitions, at=numbers)
    def rebuild(self, number: int, at: int) -> None:
        book = self.current[number]
        self._restart(number, book, "rebuilt", at % (book.log.end + 1), book.log)

    @precondition(lambda self: any(b.before for b in self.current.values()))
    @rule(which=numbers)
    def swap_back(self, which: int) -> None:
        number, book, old = pick([(n, b, b.before) for n, b in self.current.items() if b.before], which)
        with transaction.atomic():
            rows = ledger.lock_checkpoints([old.id, book.id])
            ledger.swap_back(rows[old.id], rows[book.id], action=self._action(rows[old.id]))
        book.epoch += 1
        book.retired, book.owner = "rebuilt", None
        old.epoch, old.retired, old.owner = book.epoch + 1, "", None
        self.current[number] = old

    # --- Upkeep --------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 20))
    def fold(self, limit: int) -> None:
        MetricsStore().fold(limit)

    @rule()
    def purge(self) -> None:
        MetricsStore().purge_minutes(FIRST_MINUTE + timedelta(minutes=3))


def _point(holding: Holding, which: int | None) -> str | None:
    return None if which is None else pick(BREAKS[holding.semantics], which)


def test_it_says_of_every_offset_what_the_model_says() -> None:
    examples = int(os.environ.get("LEDGER_EXAMPLES", "0"))
    run_machine(
        LedgerMachine,
        settings=settings(
            max_examples=examples or 80,
            stateful_step_count=int(os.environ.get("LEDGER_STEPS", "40")),
            derandomize=not examples,
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
