"""The real ledger, committer, cutter and metric store against a model that keeps one word per offset.

`LEDGER_EXAMPLES=500` draws that many examples from a seed of its own, and prints how to see a failure again.
Otherwise the same few are drawn each time.
"""

import os
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from analytics.metrics_store import MetricsStore
from offsets import ledger
from offsets.ledger import Baseline, pieces
from offsets.ranges import offset_range
from offsets.types import RETIRED, RangeKind, Semantics, StoreCommit, TopicPartition
from tests.support.ledger_model.scenario import LedgerScenario
from tests.support.ledger_model.truth import GOOD, HOLE, POISON
from tests.support.ledger_model.workers import ACTS, FIRST_MINUTE, FIRST_SLOTS, TOPIC, WORKERS, breaking, pick

pytestmark = pytest.mark.django_db(transaction=True)

numbers = st.integers(0, 1_000)
few = st.integers(1, 6)
partitions = st.sampled_from((0, 1))
names = st.sampled_from(WORKERS)
promises = st.sampled_from(Semantics)
halved = st.sampled_from((Semantics.AT_LEAST_ONCE, Semantics.AT_MOST_ONCE))
acts = st.sampled_from(ACTS)


class LedgerMachine(LedgerScenario):
    """Workers and operators do anything in any order."""

    # --- The log -----------------------------------------------------------------------------------

    @precondition(lambda self: any(book.log.end - book.next < 12 for book in self.current.values()))
    @rule(number=partitions, slots=st.lists(st.sampled_from((GOOD, GOOD, GOOD, POISON, HOLE)), min_size=1, max_size=8))
    def grow(self, number: int, slots: list[str]) -> None:
        self.current[number].log.slots += slots

    @precondition(lambda self: all(book.log.start <= book.next for book in self.current.values()))
    @rule(number=partitions, by=st.integers(-4, 3))
    def expire(self, number: int, by: int) -> None:
        """Kafka deletes up to a little before or behind where the group stands."""
        book = self.current[number]
        book.log.start = max(book.log.start, min(book.log.end, book.next + by))

    @precondition(lambda self: self._lived())
    @rule(which=numbers)
    def recreate_topic(self, which: int) -> None:
        """The old counts are kept beside those of the new log."""
        number = pick(self._lived(), which)
        log = self._new_log()
        log.slots = [*FIRST_SLOTS]
        self._restart(number, self.current[number], "topic_recreated", 0, log)

    # --- Workers -----------------------------------------------------------------------------------
    # Chance alone would seldom claim, read and commit one partition in this order: most rules do all three.

    @rule(number=partitions, name=names, semantics=promises, count=few, act=acts, point=numbers)
    def claim_and_work(self, number: int, name: str, semantics: Semantics, count: int, act: str, point: int) -> None:
        self._read_and_act(self._claim(number, name, semantics), count, act, point)

    @precondition(lambda self: self._readable())
    @rule(which=numbers, count=few, act=acts, point=numbers)
    def go_on(self, which: int, count: int, act: str, point: int) -> None:
        """The zombie's too: whether what it does may be applied is the model's to say."""
        self._read_and_act(pick(self._readable(), which), count, act, point)

    @precondition(lambda self: self._committable())
    @rule(which=numbers, act=acts, point=numbers)
    def act_late(self, which: int, act: str, point: int) -> None:
        """What was in hand while anything happened."""
        self._act(pick(self._committable(), which), act, point)

    @rule(number=partitions, name=names, semantics=promises, back=few, act=acts, point=numbers)
    def read_again(self, number: int, name: str, semantics: Semantics, back: int, act: str, point: int) -> None:
        """An operator goes back, and the next owner reads what the ledger has words for already."""
        book = self.current[number]
        self._seek(book, max(0, book.next - back))
        self._read_and_act(self._claim(number, name, semantics), back + 2, act, point)

    @rule(number=partitions, name=names, first=halved, second=promises, count=few, settles_first=st.booleans())
    def overtake(
        self, number: int, name: str, first: Semantics, second: Semantics, count: int, settles_first: bool
    ) -> None:
        """Between two halves of a commit a successor gets the same offsets in hand; whoever comes first ends it."""
        slow, start = self._claim(number, name, first), self.current[number].next
        self._read_and_act(slow, count, "first half", 0)
        if slow not in self.holdings or self.current[number].next < start:
            return
        self._seek(self.current[number], start)
        successor = self._claim(number, pick(WORKERS, count), second)
        if successor not in self._readable():
            return
        self._read(successor, count)
        if settles_first:
            self._finish(slow)
        self._commit([successor], None)
        self._finish(slow)

    @rule(name=names, semantics=promises, count=few, stale=st.integers(0, 4), point=st.none() | numbers)
    def commit_both(self, name: str, semantics: Semantics, count: int, stale: int, point: int | None) -> None:
        """Two partitions in one transaction; the first may have been claimed by another meanwhile."""
        both = [self._claim(number, name, semantics) for number in self.current]
        if all(holding in self._readable() for holding in both):
            for holding in both:
                self._read(holding, count)
            if not stale:
                self._claim(0, pick(WORKERS, count), semantics)
            self._commit(both, None if point is None else breaking(both[0], point))

    @precondition(lambda self: self._pairs())
    @rule(which=numbers, point=st.none() | numbers)
    def commit_unit(self, which: int, point: int | None) -> None:
        """Two partitions in one transaction: one that misses leaves the other whole."""
        pair = pick(self._pairs(), which)
        self._commit(pair, None if point is None else breaking(pair[0], point))

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

    @precondition(lambda self: any(book.next < book.end for book in self.current.values()))
    @rule(which=numbers, ahead=st.integers(-1, 8), stale=st.integers(0, 3).map(lambda luck: not luck))
    def move_within(self, which: int, ahead: int, stale: bool) -> None:
        """The checkpoint as an offset store: forward, as far as the ledger holds every offset."""
        number, book = pick([(n, b) for n, b in self.current.items() if b.next < b.end], which)
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

    @precondition(lambda self: self.unsettled)
    @rule(which=numbers, forget=st.booleans())
    def settle(self, which: int, forget: bool) -> None:
        """At any later time, by whoever took them, once or twice; never, if the worker died."""
        one = pick(self.unsettled, which)
        self._settle(one)
        if forget:
            self.unsettled.remove(one)

    @precondition(lambda self: any(h.recorded for h in self.holdings))
    @rule(which=numbers, crashed=st.booleans())
    def follow(self, which: int, crashed: bool) -> None:
        holding = pick([h for h in self.holdings if h.recorded], which)
        if crashed:
            self.holdings.remove(holding)
        else:
            self._follow(holding)

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

    @precondition(lambda self: self._behind())
    @rule(which=numbers, count=few)
    def fail(self, which: int, count: int) -> None:
        """A batch that could not be applied is set aside, and the partition goes on behind it."""
        book = pick(self._behind(), which)
        target = min(book.log.end, book.next + count)
        holes = ledger.uncovered(book.id, offset_range(book.next, target))
        with transaction.atomic():
            assert ledger.lock_checkpoint(book.id)
            pieces.insert_uncounted(book.id, holes, RangeKind.FAILED, book.epoch, "refused")
            self._seek(book, target, passed_as=RangeKind.FAILED)

    @precondition(lambda self: self._lived())
    @rule(which=numbers, at=numbers)
    def rebuild(self, which: int, at: int) -> None:
        number = pick(self._lived(), which)
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

    @rule(number=partitions, name=names, which=numbers, act=acts, point=numbers)
    def retire_and_bring_back(self, number: int, name: str, which: int, act: str, point: int) -> None:
        """Meanwhile nobody claims it, nothing begins it again, and what was in hand is refused."""
        book = self.current[number]
        place = TopicPartition(TOPIC, number)
        with transaction.atomic():
            row = ledger.lock_checkpoint(book.id)
            assert row is not None
            ledger.retire(row, action=self._action(row))
        book.epoch, book.retired, book.owner = book.epoch + 1, RETIRED, None
        assert ledger.claim(self.group, self.workers[name], [place]) == []
        again = {number: Baseline("id-0", 0, "earliest")}
        assert ledger.insert_baselines(self.group, TOPIC, again, ["content"]) == []
        assert set(ledger.retired_partitions(self.group, [place])) == {place}
        if self._committable():
            self._act(pick(self._committable(), which), act, point)
        self.checkpoints_are_the_models()
        self.each_record_is_counted_as_often_as_the_model_says()
        with transaction.atomic():
            row = ledger.lock_checkpoint(book.id)
            assert row is not None
            ledger.bring_back(row, action=self._action(row))
        book.epoch, book.retired = book.epoch + 1, ""

    # --- Upkeep --------------------------------------------------------------------------------------

    @precondition(lambda self: self.unfolded)
    @rule(limit=st.integers(1, 20), purges=st.booleans(), merges=st.integers(0, 4))
    def keep_up(self, limit: int, purges: bool, merges: int) -> None:
        self.unfolded = False
        MetricsStore().fold(limit)
        if purges:
            age = datetime.now(UTC) - FIRST_MINUTE - timedelta(minutes=3)
            MetricsStore().purge_minutes(age / timedelta(days=1))
        for checkpoint_id in ledger.mergeable_checkpoints() if merges > 1 else []:
            ledger.merge_ranges(checkpoint_id, merges)


def test_it_says_of_every_offset_what_the_model_says() -> None:
    examples = int(os.environ.get("LEDGER_EXAMPLES", "0"))
    run_machine(
        LedgerMachine,
        settings=settings(
            max_examples=examples or 60,
            stateful_step_count=int(os.environ.get("LEDGER_STEPS", "40")),
            derandomize=not examples,
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
