"""The commit thread: takes units from the pipeline, commits them, and records the outcome."""

from collections.abc import Callable

from offsets import journal
from offsets.clock import Backoff, monotonic
from offsets.database import WorkerSession
from offsets.errors import OffsetsError
from offsets.processing.circuit_breaker import CircuitBreakers
from offsets.processing.commit_signal import Announcer
from offsets.processing.committer import BatchCommitter, CommitOutcome
from offsets.processing.pipeline import Event, EventKind, Pending, Pipeline, Unit
from offsets.processing.semantics import WorkerStore
from offsets.processing.stuck_detector import Activities
from offsets.processing.topic_watch import TopicWatch
from offsets.types import BatchHandler, Claim, PartitionCommit, Semantics, TopicPartition


class CommitLoop:
    """Commits each unit less what was read from recreated topics, then counts it, posts an event for each partition,
    and sends `batch_committed`. One thread runs it.

    `is_current(claim)` returns whether a claim is still this process's; `on_trouble(source, text)` is called with what
    keeps a commit waiting, and with "" when that is over.
    """

    def __init__(
        self,
        group_id: str,
        worker_id: str,
        handler: BatchHandler,
        semantics: Semantics,
        store: WorkerStore,
        *,
        pipeline: Pipeline,
        topics: TopicWatch,
        breakers: CircuitBreakers,
        announcer: Announcer,
        activities: Activities,
        is_current: Callable[[Claim], bool],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._pipeline = pipeline
        self._topics = topics
        self._breakers = breakers
        self._announcer = announcer
        self._activities = activities
        self._is_current = is_current
        self._on_trouble = on_trouble
        #: Claims under which the database refused a batch as data; the partition is claimed again.
        self._refused: set[Claim] = set()
        self._committer = BatchCommitter(
            WorkerSession(worker_id),
            handler,
            is_current=lambda commit: self._wanted(commit.claim),
            wait=pipeline.wait,
            closed=lambda: pipeline.closed,
            on_trouble=lambda text: on_trouble("database", text),
            semantics=semantics,
            store=store,
        )

    def run(self) -> None:
        while not self._pipeline.closed:
            unit = self._pipeline.take_unit(1.0)
            if unit:
                try:
                    with self._activities.track(f"committing {_spans(unit)}"):
                        unit = self._of_known_topics(unit)
                        self._record_outcome(unit, self._committer.commit([commit for _, commit in unit]))
                finally:
                    self._pipeline.unit_done()

    def forget_refusal(self, claim: Claim) -> None:
        """The claim is given up: its fence keeps it out from now on. Called by the fetching thread."""
        self._refused.discard(claim)

    def _wanted(self, claim: Claim) -> bool:
        """Not after a refusal: what follows a batch that was not applied cannot be applied, and is not fenced."""
        return self._is_current(claim) and claim not in self._refused

    # --- Topics that were recreated ----------------------------------------------------------------

    def _of_known_topics(self, unit: Unit) -> Unit:
        """Leave out what was read from a topic that was recreated since its claim (docs/adr/0004).

        Kafka is asked after the fetch: so nothing of the new topic is ever counted at the old one's offsets.
        """
        recreated = self._recreated_once_known(unit)
        kept: Unit = []
        dropped: Unit = []
        for entry in unit:
            claim = entry[0].claim
            unchanged = recreated is not None and claim.topic_partition not in recreated
            (kept if unchanged and self._wanted(claim) else dropped).append(entry)
        self._pipeline.finish_all(held for held, _ in dropped)
        self._topics.post(recreated or set())
        return kept

    def _recreated_once_known(self, unit: Unit) -> set[TopicPartition] | None:
        """Waits while Kafka does not answer; None when the unit is not wanted any more."""
        backoff = Backoff()
        while not self._pipeline.closed and any(self._wanted(held.claim) for held, _ in unit):
            try:
                return self._topics.find_recreated(held.claim for held, _ in unit)
            except OffsetsError as error:
                self._on_trouble("kafka", str(error))
                self._pipeline.wait(backoff.next_seconds())
        return None

    # --- What follows a commit ---------------------------------------------------------------------

    def _record_outcome(self, unit: Unit, outcome: CommitOutcome) -> None:
        applied = {commit.claim.checkpoint_id for commit in outcome.applied}
        for held, commit in unit:
            self._count(held, commit, outcome, applied)
            self._post_event(commit, outcome, applied)
        # After the events: whoever waits until nothing is in flight reads all events then.
        self._pipeline.finish_all(held for held, _ in unit)
        if applied:
            self._pipeline.accounts.commits += 1
            self._pipeline.accounts.last_commit_at = monotonic()
        # Last: whatever receivers do, the batch is done with.
        self._announcer.announce(
            outcome.transactions, {commit.claim.checkpoint_id: held.dropped for held, commit in unit}
        )

    def _count(self, held: Pending, commit: PartitionCommit, outcome: CommitOutcome, applied: set[int]) -> None:
        checkpoint_id = commit.claim.checkpoint_id
        if checkpoint_id in outcome.refused:
            self._breakers.quarantined(commit)
        elif checkpoint_id in applied:
            self._account(commit)
            self._pipeline.accounts.deduplicated += held.dropped
            self._breakers.counted(commit)
        elif checkpoint_id in outcome.quarantined:
            self._report_quarantined(commit, outcome.quarantined[checkpoint_id])
            self._breakers.quarantined(commit)

    def _post_event(self, commit: PartitionCommit, outcome: CommitOutcome, applied: set[int]) -> None:
        checkpoint_id = commit.claim.checkpoint_id
        if checkpoint_id in outcome.fenced:
            kind = EventKind.FENCED
        elif checkpoint_id in outcome.refused:
            kind = EventKind.REFUSED
            self._refused.add(commit.claim)
        elif checkpoint_id in applied or checkpoint_id in outcome.quarantined:
            kind = EventKind.COMMITTED
        else:
            return  # cancelled
        detail = outcome.fenced.get(checkpoint_id) or outcome.refused.get(checkpoint_id, "")
        self._pipeline.events.append(Event(commit.claim, kind, commit.start, commit.end, detail))

    def _report_quarantined(self, commit: PartitionCommit, detail: str) -> None:
        self._pipeline.accounts.failed_batches += 1
        tp = commit.claim.topic_partition
        journal.record(
            self._group_id,
            "failed",
            f"{tp} [{commit.start:,}, {commit.end:,}) could not be applied and waits for its replay: {detail}",
            level="error",
            worker_id=self._worker_id,
            topic=tp.topic,
            partition=tp.partition,
        )

    def _account(self, commit: PartitionCommit) -> None:
        accounts = self._pipeline.accounts
        accounts.records += commit.stats.records
        accounts.failed_records += commit.stats.failed_records
        accounts.size_bytes += commit.stats.size_bytes
        for name, count in commit.stats.by_type.items():
            accounts.by_type[name] = accounts.by_type.get(name, 0) + count


def _spans(unit: Unit) -> str:
    return ", ".join(f"{commit.claim.topic_partition} [{commit.start}, {commit.end})" for _, commit in unit)
