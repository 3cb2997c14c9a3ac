"""Two coordinators, a group that deals partitions to them, and operators, in any order, on the real database.

Kafka is played by a few lines; `tests.integration.test_coordinator` has the real one.

`COORDINATOR_EXAMPLES=500` draws that many examples from a seed of its own.
"""

import logging
import os
import uuid
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from offsets import ledger, workers
from offsets.models import JournalEntry, OperatorAction, PartitionCheckpoint, Worker
from offsets.monitoring import invariants
from offsets.processing.committer import BatchCommitter
from offsets.processing.coordinator import CONTESTED_RETRY_SECONDS
from offsets.processing.deduplication import LedgerCutter
from offsets.processing.partition_state import LocalPartition
from offsets.processing.pipeline import Pending
from offsets.types import Claim, DesiredState, RecordBatch, Semantics, TopicPartition
from tests.support.coordinator_members import LOG_END, PLACES, TOPIC, FakeAdmin, Member, Swallowed, members, places
from tests.support.ledger_model.workers import HANDLER, SESSION

pytestmark = pytest.mark.django_db(transaction=True)


class CoordinatorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.group = f"coordinators-{uuid.uuid4().hex[:12]}"
        self.admin = FakeAdmin()
        self.members: list[Member] = []
        self.now = 1000.0
        self.swallowed = Swallowed()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr("offsets.processing.coordinator.monotonic", lambda: self.now)
        log = logging.getLogger("offsets.processing.coordinator")
        self._patch.setattr(log, "handlers", [self.swallowed])
        self._patch.setattr(log, "propagate", False)

    @initialize()
    def begin(self) -> None:
        self.members = [Member(self.group, self.admin) for _ in range(2)]
        for place in PLACES:
            self.assign(0, place, noticed=False)

    def teardown(self) -> None:
        try:
            if self.members:
                self._come_to_rest()
        finally:
            self._patch.undo()
            PartitionCheckpoint.objects.filter(group_id=self.group).delete()
            for model in (Worker, JournalEntry):
                model.objects.filter(group_id=self.group).delete()
            OperatorAction.objects.filter(target=self.group).delete()

    # --- The group -----------------------------------------------------------------------------------

    @rule(to=members, place=places, noticed=st.booleans())
    def assign(self, to: int, place: TopicPartition, noticed: bool) -> None:
        """To one of them; whoever had it is gone without a word from the group, as after a session timeout."""
        member = self.members[to]
        if place in member.unheard:
            self._lose(member, place)
        other = self.members[1 - to]
        if place in other.told:
            other.unheard.add(place)
        if place not in member.told:
            member.told.add(place)
            member.coordinator.on_assign([place])
        if noticed:
            other.heartbeat()
            other.obey()
            self.retry(1 - to, 0.1)

    @rule(of=members, place=places, drains=st.booleans())
    def revoke(self, of: int, place: TopicPartition, drains: bool) -> None:
        member = self.members[of]
        member.drains = drains
        if place in member.unheard:
            return
        held = member.owned.get(place)
        member.coordinator.on_revoke([place])
        member.told.discard(place)
        member.met.discard(place)
        row = self._live(place)
        if held and row and (row.pk, row.epoch) == (held.claim.checkpoint_id, held.claim.epoch):
            # Released when nothing was left in hand; otherwise the next claim has to fence it.
            assert row.owner_id == (None if drains else member.worker_id)

    @rule(of=members, place=places)
    def lose(self, of: int, place: TopicPartition) -> None:
        self._lose(self.members[of], place)

    def _lose(self, member: Member, place: TopicPartition) -> None:
        member.coordinator.on_lost([place])
        member.told.discard(place)
        member.met.discard(place)
        member.unheard.discard(place)

    @rule(of=members, luck=st.integers(0, 3))
    def die(self, of: int, luck: int) -> None:
        """Killed; another process takes its place. The group notices, and so does the database in time."""
        if luck:
            return
        workers.mark_stopped(self.members[of].worker_id)
        self.members[of] = Member(self.group, self.admin)

    # --- The members ---------------------------------------------------------------------------------

    @rule(of=members)
    def heartbeat(self, of: int) -> None:
        self.members[of].heartbeat()

    @rule(of=members, fresh=st.booleans())
    def obey(self, of: int, fresh: bool) -> None:
        """What was read, however old."""
        if fresh:
            self.members[of].heartbeat()
        self.members[of].obey()

    @rule(of=members, seconds=st.sampled_from((0.1, 1.0, CONTESTED_RETRY_SECONDS)))
    def retry(self, of: int, seconds: float) -> None:
        self.now += seconds
        member, other = self.members[of], self.members[1 - of]
        believed = {tp for tp, local in other.owned.items() if self._is_owner(other, local)}
        member.coordinator.retry_claims()
        assert not member.met & believed & member.owned.keys(), "no ping-pong between two believers (R4)"
        member.met -= member.owned.keys()

    @rule(of=members, place=places, records=st.integers(1, 5))
    def commit(self, of: int, place: TopicPartition, records: int) -> None:
        member = self.members[of]
        member.coordinator.start_reading()
        local = member.owned.get(place)
        if local is None or not local.reading:
            return
        start, end = local.start, min(local.start + records, LOG_END)
        if end <= start or start < self.admin.starts[place]:
            return
        admitted = self._is_current(local)
        outcome = self._committer().commit([_commit(local.claim, start, end)])
        assert bool(outcome.applied) == admitted
        if admitted:
            local.start = local.committed = member.client.at[place] = end
        for reason in outcome.fenced.values():
            member.coordinator.fenced(local.claim, reason)
            member.met.add(place)

    @precondition(lambda self: not self.admin.away)
    @rule()
    def check_readable(self) -> None:
        """The client says that the log does not hold its position."""
        for member in self.members:
            member.coordinator.check_readable(self._out_of_range(member))

    # --- The scenario -------------------------------------------------------------------------------

    @rule(place=places, by=st.integers(-1, 3), noticed=st.booleans())
    def expire(self, place: TopicPartition, by: int, noticed: bool) -> None:
        """Kafka deletes up to a little before or behind the next offset."""
        row = self._live(place)
        if row is not None:
            self.admin.starts[place] = max(self.admin.starts[place], min(LOG_END, row.next_offset + by))
        if noticed and not self.admin.away:
            self.check_readable()

    @rule(luck=st.integers(0, 3))
    def kafka(self, luck: int) -> None:
        """It answers, mostly."""
        self.admin.away = not luck

    @rule(place=places, to=st.integers(0, LOG_END))
    def seek(self, place: TopicPartition, to: int) -> None:
        target = max(to, self.admin.starts[place])
        self._act(place, lambda row, action: ledger.seek(row, target, action=action))

    @rule(place=places)
    def rebuild(self, place: TopicPartition) -> None:
        start = self.admin.starts[place]
        self._act(
            place,
            lambda row, action: ledger.retire_and_restart(
                row, action=action, reason="rebuilt", baseline=start, topic_id="topic-id"
            ),
        )

    @rule(place=places, deaf=st.integers(0, 3))
    def wish(self, place: TopicPartition, deaf: int) -> None:
        """Pause what runs, run what is paused; mostly heard at once."""
        wishes = {"running": DesiredState.PAUSED, "paused": DesiredState.RUNNING}
        self._act(
            place,
            lambda row, action: ledger.set_desired_state(
                row.pk, row.desired_state, row.epoch, wishes[row.desired_state], action.pk
            ),
        )
        for member in self.members if deaf else ():
            member.heartbeat()
            member.obey()

    # --- What must hold after every step ---------------------------------------------------------------

    @invariant()
    def nothing_is_read_that_is_not_claimed(self) -> None:
        for member in self.members:
            owned = member.owned
            assert member.client.at.keys() <= owned.keys()
            assert owned.keys() & member.coordinator.unclaimed.keys() == set()
            assert owned.keys() | member.coordinator.unclaimed.keys() == member.told
            for place, at in member.client.at.items():
                assert at == owned[place].start
                assert (place in member.client.paused) == (not owned[place].reading)

    @invariant()
    def fences_are_those_of_the_claims(self) -> None:
        for member in self.members:
            held = {local.claim.checkpoint_id: local.claim.epoch for local in member.owned.values()}
            assert member.coordinator.fences._epochs == held
            for local in member.owned.values():
                row = PartitionCheckpoint.objects.get(pk=local.claim.checkpoint_id)
                assert local.claim.epoch <= row.epoch
                assert local.claim.epoch < row.epoch or row.owner_id == member.worker_id

    @invariant()
    def nothing_was_swallowed(self) -> None:
        assert not self.swallowed.errors

    # --- How ---------------------------------------------------------------------------------------

    def _committer(self) -> BatchCommitter:
        return BatchCommitter(
            SESSION, HANDLER, is_current=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
        )

    def _is_current(self, local: LocalPartition) -> bool:
        return PartitionCheckpoint.objects.filter(
            pk=local.claim.checkpoint_id, epoch=local.claim.epoch, next_offset=local.start, retired_at__isnull=True
        ).exists()

    def _out_of_range(self, member: Member) -> dict[TopicPartition, str]:
        return {place: "gone" for place, at in member.client.at.items() if at < self.admin.starts[place]}

    def _live(self, place: TopicPartition) -> PartitionCheckpoint | None:
        rows = PartitionCheckpoint.objects.filter(group_id=self.group, retired_at__isnull=True)
        return rows.filter(partition=place.partition).first()

    def _is_owner(self, member: Member, local: LocalPartition) -> bool:
        rows = PartitionCheckpoint.objects.filter(pk=local.claim.checkpoint_id, epoch=local.claim.epoch)
        return rows.filter(owner_id=member.worker_id).exists()

    def _act(self, place: TopicPartition, do: Any) -> None:
        with transaction.atomic():
            row = self._live(place)
            if row is not None and ledger.lock_checkpoint(row.pk):
                action = OperatorAction.objects.create(
                    kind="seek", username="x", target=self.group, source="test", outcome="applied"
                )
                do(row, action)

    def _come_to_rest(self) -> None:
        """The cluster answers, everybody hears everything: then each partition has one reader, at the right place."""
        self.admin.away = False
        for member in self.members:
            for place in PLACES:
                if place in member.unheard:
                    self._lose(member, place)
        for place in PLACES:
            if not any(place in member.told for member in self.members):
                self.assign(0, place, noticed=False)
        for _ in range(4):
            self.now += CONTESTED_RETRY_SECONDS + 1
            for member in self.members:
                member.heartbeat()
                member.obey()
                member.coordinator.retry_claims()
                member.coordinator.start_reading()
        self._check_rest()

    def _check_rest(self) -> None:
        for row in PartitionCheckpoint.objects.filter(group_id=self.group, retired_at__isnull=True):
            place = TopicPartition(TOPIC, row.partition)
            (reader,) = [member for member in self.members if place in member.owned]
            local = reader.owned[place]
            assert (row.owner_id, row.epoch) == (reader.worker_id, local.claim.epoch)
            assert local.operator_paused == (row.desired_state == DesiredState.PAUSED)
            assert local.halted == bool(row.halt_reason)
            assert row.next_offset >= self.admin.starts[place] or local.halted or local.start == row.next_offset
            assert local.reading != local.held
            if not local.halted:
                assert reader.client.at[place] == local.start == row.next_offset
        assert invariants.check(self.group).ok


def _commit(claim: Claim, start: int, end: int) -> Any:
    """Nothing but markers between `start` and `end`, cut by the ledger as the decoding thread does it."""
    cutter = LedgerCutter(
        SESSION, Semantics.EXACTLY_ONCE, wanted=lambda _: True, wait=lambda _: None, on_trouble=lambda _: None
    )
    batch, pending = RecordBatch(claim, start, end, [], 0), Pending(claim)
    pending.add(batch, [(HANDLER.decode(piece.batch), piece.found) for piece in cutter.pieces(batch)], 0)
    return replace(HANDLER.combine(pending.batches), segments=tuple(pending.segments))


def test_it_ends_with_one_reader_a_partition_whatever_happened() -> None:
    examples = int(os.environ.get("COORDINATOR_EXAMPLES", "0"))
    run_machine(
        CoordinatorMachine,
        settings=settings(
            max_examples=examples or 50,
            stateful_step_count=int(os.environ.get("COORDINATOR_STEPS", "30")),
            derandomize=not examples,
            database=None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
