"""Where the stateful ledger tests happen: a group of two partitions, its model, and what must hold after every step.

The rules, which say what may happen, are in `tests.integration.test_ledger_stateful`.
"""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable

from django.db import connection, transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from analytics.metrics_store import MetricsStore
from analytics.models import EngagementDelta, EngagementMinute, EngagementTotal
from offsets import failpoints, ledger, workers
from offsets.errors import FencedError
from offsets.ledger import Baseline
from offsets.models import DeadLetter, LedgerRange, OperatorAction, PartitionCheckpoint, Worker
from offsets.monitoring import invariants
from offsets.processing.committer import BatchCommitter, CommitOutcome
from offsets.processing.deduplication import LedgerCutter
from offsets.processing.pipeline import Pending
from offsets.types import RangeKind, RecordBatch, Semantics, TopicPartition
from tests.support.ledger_model.truth import GOOD, HOLE, Book, Log
from tests.support.ledger_model.workers import (
    FIRST_SLOTS,
    HANDLER,
    SESSION,
    TOPIC,
    WORKERS,
    AcceptingStore,
    Holding,
    Unsettled,
    breaking,
    failing,
    record_of,
)


class LedgerScenario(RuleBasedStateMachine):
    """Two partitions of a group of its own, and the workers that act on them."""

    def __init__(self) -> None:
        super().__init__()
        self.group = f"stateful-{uuid.uuid4().hex[:12]}"
        self.workers = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in WORKERS}
        self.current: dict[int, Book] = {}
        self.books: list[Book] = []
        self.holdings: list[Holding] = []
        self.unsettled: list[Unsettled] = []
        #: Before the last seek of a book: (next offset, baseline).
        self.undo: dict[int, tuple[int, int]] = {}
        self.logs = 0
        #: Whether something was read since the last fold.
        self.unfolded = False

    @initialize(first=st.integers(0, 8), second=st.integers(0, 8))
    def begin(self, first: int, second: int) -> None:
        for name in self.workers.values():
            workers.register(name, self.group)
        starts = {0: first, 1: second}
        baselines = {number: Baseline("id-0", start, "latest") for number, start in starts.items()}
        ledger.insert_baselines(self.group, TOPIC, baselines, HANDLER.dimensions)
        for row in PartitionCheckpoint.objects.filter(group_id=self.group):
            start = starts[row.partition]
            log = self._new_log()
            log.slots = [GOOD] * start + [*FIRST_SLOTS]
            self._open(row.partition, Book(row.pk, log, start, start, 0))

    def teardown(self) -> None:
        failpoints._points = {}
        ids = [book.id for book in self.books]
        for model in (EngagementDelta, EngagementTotal, EngagementMinute, LedgerRange, DeadLetter):
            model.objects.filter(checkpoint_id__in=ids).delete()
        PartitionCheckpoint.objects.filter(pk__in=ids).delete()
        OperatorAction.objects.filter(target=self.group).delete()
        Worker.objects.filter(group_id=self.group).delete()

    # --- What must hold after every step ---------------------------------------------------------------

    @invariant()
    def invariants_hold(self) -> None:
        result = invariants.check(self.group)
        assert result.ok, result

    @invariant()
    def checkpoints_are_the_models(self) -> None:
        rows = PartitionCheckpoint.objects.filter(group_id=self.group)
        stand = {
            r.pk: (r.baseline_offset, r.next_offset, r.ledger_end, r.epoch, r.owner_id, r.retired_reason, r.duplicates)
            for r in rows
        }
        assert stand == {
            b.id: (b.baseline, b.next, b.end, b.epoch, b.owner, b.retired, b.duplicates) for b in self.books
        }

    @invariant()
    def every_offset_has_the_models_word(self) -> None:
        words: dict[int, dict[int, str]] = {book.id: {} for book in self.books}
        failed: Counter[int] = Counter()
        for one in LedgerRange.objects.filter(checkpoint__group_id=self.group):
            words[one.checkpoint_id] |= dict.fromkeys(range(one.offsets.lower, one.offsets.upper), one.kind)
            failed[one.checkpoint_id] += one.failed_records
        assert words == {book.id: book.words for book in self.books}
        assert failed == Counter({book.id: len(book.dead) for book in self.books})

    @invariant()
    def each_record_is_counted_as_often_as_the_model_says(self) -> None:
        expected: Counter[int] = Counter()
        for book in self.books:
            if book.retired != "rebuilt":
                expected.update({book.log.content(n): count for n, count in book.counted.items()})
        rows = MetricsStore().export(self.group)
        assert {row[1]: sum(row[2:]) for row in rows if row[0] == "content"} == +expected
        assert sum(MetricsStore().totals(self.group).values()) == expected.total()

    # --- How ---------------------------------------------------------------------------------------

    def _new_log(self) -> Log:
        self.logs += 1
        return Log(self.logs)

    def _open(self, number: int, book: Book) -> None:
        self.current[number] = book
        self.books.append(book)

    def _readable(self) -> list[Holding]:
        """Those whose worker can fetch: the log is still there, holds the position, and goes on behind it."""
        logs = [book.log for book in self.current.values()]
        return [h for h in self.holdings if h.book.log in logs and h.book.log.start <= h.at < h.book.log.end]

    def _behind(self) -> list[Book]:
        """Those with something left to read."""
        return [book for book in self.current.values() if book.next < book.log.end]

    def _lived(self) -> list[int]:
        """Partitions of which the ledger has something to say."""
        return [number for number, book in self.current.items() if len(book.words) > 3]

    def _committable(self) -> list[Holding]:
        return [h for h in self.holdings if h.in_hand]

    def _pairs(self) -> list[list[Holding]]:
        """Batches of two partitions that one worker could commit together."""
        return [
            [a, b]
            for a, b in itertools.combinations(self._committable(), 2)
            if a.book.id != b.book.id and a.semantics is b.semantics
        ]

    def _fresh(self) -> list[Holding]:
        """Claimed, and nothing read yet."""
        return [h for h in self.holdings if h.at == h.claim.next_offset and not h.in_hand and not h.recorded]

    def _undoable(self) -> list[Book]:
        return [book for book in self.current.values() if book.id in self.undo]

    def _claim(self, number: int, name: str, semantics: Semantics) -> Holding:
        book = self.current[number]
        (claim,) = ledger.claim(self.group, self.workers[name], [TopicPartition(TOPIC, number)], semantics=semantics)
        book.epoch += 1
        book.owner = self.workers[name]
        assert (claim.checkpoint_id, claim.epoch, claim.next_offset) == (book.id, book.epoch, book.next)
        assert claim.ledger_end == book.end
        self.holdings.append(Holding(claim, book, semantics, book.next))
        return self.holdings[-1]

    def _read_and_act(self, holding: Holding, count: int, act: str, point: int) -> None:
        if holding in self._readable():
            self._read(holding, count)
            self._act(holding, act, point)

    def _act(self, holding: Holding, act: str, point: int) -> None:
        if act == "first half" and holding.semantics is Semantics.AT_MOST_ONCE:
            self._take(holding)
        elif act == "first half" and holding.semantics is Semantics.AT_LEAST_ONCE:
            self._record(holding)
        elif act == "die":
            self._die(holding, breaking(holding, point))
        elif act != "keep":
            self._commit([holding], breaking(holding, point) if act == "break" else None)

    def _die(self, holding: Holding, point: str) -> None:
        """The connection is lost and the worker is gone before it could ask what became of its commit."""
        admitted = self._admitted(holding)
        outcome = self._run([holding], point, dies=True)
        assert bool(outcome.applied) == (admitted and point in ("after_store", "before_settle"))
        if admitted:
            # Exactly once everything happens in the one transaction: after it nothing is missing.
            whole = holding.semantics is Semantics.EXACTLY_ONCE and point == "after_commit"
            self._applied(holding, None if whole else point)
        self.holdings.remove(holding)

    def _take(self, holding: Holding) -> None:
        """At most once: the offsets are claimed, and nothing is counted yet."""
        commit, batch, bounds = holding.commit(), uuid.uuid4(), holding.bounds
        if self._fenced(holding, lambda: ledger.claim_offsets([commit], batch)):
            return
        holding.book.take(commit.start, commit.end, batch)
        holding.drop()
        self.unsettled.append(Unsettled(holding, commit, batch, bounds))

    def _record(self, holding: Holding) -> None:
        """At least once: counted; `next_offset` waits for the store."""
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

    def _finish(self, holding: Holding) -> None:
        """The second half, if it is still to come."""
        for one in self.unsettled:
            if one.holding is holding:
                self._settle(one)
        if holding.recorded:
            self._follow(holding)

    def _follow(self, holding: Holding) -> None:
        assert holding.recorded is not None
        book, commit, holding.recorded = holding.book, holding.recorded, None
        missed = ledger.follow_store([commit])
        if book.retired or book.epoch != holding.claim.epoch:
            assert set(missed) == {book.id}
            self.holdings.remove(holding)
        else:
            assert not missed
            book.next = commit.end

    def _settle(self, one: Unsettled) -> None:
        book = one.holding.book
        with SESSION.transaction():
            kept = ledger.settle_claimed([one.commit], one.batch)
            HANDLER.insert(kept, connection)
            HANDLER.update(kept, connection)
        assert bool(kept) == book.still_holds(one.batch, one.bounds)
        if kept:
            book.process(one.commit.start, one.commit.end)

    def _read(self, holding: Holding, count: int) -> None:
        """Fetch, ask the ledger, decode, and merge with what is in hand, as the threads of a processor do."""
        log, claim = holding.book.log, holding.claim
        start, end = holding.at, min(holding.at + count, log.end)
        records = [record_of(log, n) for n in range(start, end) if log.slots[n] != HOLE]
        batch = RecordBatch(claim, start, end, records, sum(map(len, records)))
        cutter = LedgerCutter(
            SESSION, holding.semantics, wanted=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
        )
        cut = cutter.pieces(batch)
        self.unfolded = True
        holding.in_hand = holding.in_hand or Pending(claim)
        holding.in_hand.add(
            batch, [(HANDLER.decode(p.batch), p.found) for p in cut], sum(piece.dropped for piece in cut)
        )
        known = holding.book.words if start < claim.ledger_end else {}
        holding.believed |= {n: known.get(n) for n in range(start, end)}
        assert [s.bounds for s in holding.in_hand.segments] == holding.bounds
        holding.at = end

    def _admitted(self, holding: Holding) -> bool:
        start, end = min(holding.believed), max(holding.believed) + 1
        return holding.book.admits(holding.claim.epoch, start, end, holding.bounds)

    def _commit(self, holdings: list[Holding], point: str | None) -> None:
        admitted = [holding for holding in holdings if self._admitted(holding)]
        outcome = self._run(holdings, point)
        assert {c.claim for c in outcome.applied} == {h.claim for h in admitted}
        assert set(outcome.fenced) == {h.book.id for h in holdings if h not in admitted}
        assert not outcome.refused
        for holding in holdings:
            if holding in admitted:
                self._applied(holding)
            else:
                self.holdings.remove(holding)

    def _run(self, holdings: list[Holding], point: str | None, *, dies: bool = False) -> CommitOutcome:
        """The committer's steps for the promise of these claims. With `dies` the worker ends where it breaks off."""
        dead: list[str] = []
        with failing(point) as wait:
            committer = BatchCommitter(
                SESSION,
                HANDLER,
                is_current=lambda _: True,
                wait=wait,
                closed=lambda: bool(dead),
                on_trouble=lambda text: dead.append(text) if dies and text else None,
                semantics=holdings[0].semantics,
                store=AcceptingStore(),
            )
            return committer.commit([holding.commit() for holding in holdings])

    def _applied(self, holding: Holding, point: str | None = None) -> None:
        """What a commit leaves behind; with `point`, what one leaves that broke off there for good."""
        book, start, end = holding.book, min(holding.believed), max(holding.believed) + 1
        if point in ("before_sql", "before_commit"):
            return
        if holding.semantics is Semantics.AT_MOST_ONCE and point:
            book.take(start, end, uuid.uuid4())
            return
        book.process(start, end, again=holding.semantics is Semantics.AT_LEAST_ONCE)
        if not (holding.semantics is Semantics.AT_LEAST_ONCE and point):
            book.next = end
        holding.drop()

    def _fenced(self, holding: Holding, write: Callable[[], None]) -> bool:
        """Lock and compare, then write; whether it was refused, which must be when the model says so."""
        admitted = self._admitted(holding)
        try:
            with SESSION.transaction():
                ledger.lock_for_commit([holding.commit()])
                write()
        except FencedError:
            assert not admitted
            self.holdings.remove(holding)
            return True
        assert admitted
        return False

    def _action(self, checkpoint: PartitionCheckpoint) -> OperatorAction:
        return OperatorAction.objects.create(
            kind="seek", checkpoint=checkpoint, username="x", target=self.group, source="test", outcome="applied"
        )

    def _seek(
        self, book: Book, target: int, *, passed_as: RangeKind = RangeKind.SKIPPED, baseline: int | None = None
    ) -> None:
        before = (book.next, book.baseline)
        with transaction.atomic():
            row = ledger.lock_checkpoint(book.id)
            assert row is not None
            ledger.seek(row, target, action=self._action(row), passed_as=passed_as, baseline=baseline)
        book.seek(target, passed_as, baseline)
        self.undo[book.id] = before

    def _restart(self, number: int, book: Book, reason: str, baseline: int, log: Log) -> None:
        with transaction.atomic():
            row = ledger.lock_checkpoint(book.id)
            assert row is not None
            new = ledger.retire_and_restart(
                row, action=self._action(row), reason=reason, baseline=baseline, topic_id=f"id-{log.number}"
            )
        book.epoch += 1
        book.retired, book.owner = reason, None
        before = book if reason == "rebuilt" else None
        self._open(number, Book(new.pk, log, baseline, baseline, book.epoch + 1, before=before))
