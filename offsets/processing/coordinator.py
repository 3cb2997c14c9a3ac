"""OffsetCoordinator: Kafka's group protocol decides who reads, the database decides who may write.

All methods run on the fetching thread, between two `consume()` calls or inside a callback, except where they say
otherwise. Rule numbers are those of docs/explanation/architecture.md.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from django.conf import settings

from offsets import journal, ledger, workers
from offsets.clock import Deadline, monotonic
from offsets.database import DATABASE_LOST, describe_outage
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.client import KafkaClient, StartAt
from offsets.ledger import ControlState
from offsets.processing import halts
from offsets.processing.baselines import Baselines
from offsets.processing.claimer import Claimer
from offsets.processing.offset_store import POSTGRES, StoreLink
from offsets.processing.partition_state import Fences, LocalPartition
from offsets.types import Claim, DesiredState, EpochCause, HaltReason, Semantics, TopicPartition

logger = logging.getLogger(__name__)

CLAIM_RETRY_SECONDS = 0.5
#: How long a partition waits before it is claimed again while another live worker owns it (R4).
CONTESTED_RETRY_SECONDS = 5.0


class OffsetCoordinator:
    """Claims partitions as the group assigns them, fences, hands over, and applies the desired states of operators.

    `drain(claims, deadline)` finishes and commits what is in hand for these claims, and returns the ids of the
    checkpoints that have nothing left. `on_claimed(partition)` is called for each new partition,
    `on_committed(partition)` when its offset is to be sent to the mirrors again.
    """

    def __init__(
        self,
        *,
        group_id: str,
        worker_id: str,
        client: KafkaClient,
        admin: KafkaAdmin,
        dimensions: tuple[str, ...],
        drain: Callable[[list[Claim], Deadline], set[int]],
        on_claimed: Callable[[LocalPartition], None],
        on_committed: Callable[[LocalPartition], None] = lambda _: None,
        semantics: Semantics = Semantics.EXACTLY_ONCE,
        store: StoreLink | None = None,
    ) -> None:
        self.group_id = group_id
        self.worker_id = worker_id
        self.fences = Fences()
        self.partitions: dict[TopicPartition, LocalPartition] = {}
        #: Assigned by the group, not claimed yet: when to try again (monotonic seconds).
        self.unclaimed: dict[TopicPartition, float] = {}
        #: Of those, the ones in which we were fenced: claimed again only if no other live worker owns them (R4).
        self._contested: set[TopicPartition] = set()
        self._client = client
        self._admin = admin
        self._drain = drain
        self._on_claimed = on_claimed
        self._on_committed = on_committed
        self._claimer = Claimer(
            group_id,
            worker_id,
            admin,
            Baselines(group_id, admin, dimensions),
            semantics,
            store or StoreLink(group_id, worker_id, POSTGRES, None),
        )

    def readable_claims(self) -> list[Claim]:
        """The claims that are not halted. Any thread may ask: it is answered from a copy."""
        return [local.claim for local in list(self.partitions.values()) if not local.halted]

    # --- Rebalance callbacks: they never raise -----------------------------------------------------

    def on_assign(self, partitions: list[TopicPartition]) -> None:
        """Claim what the group assigned, and assign exactly what could be claimed, even if that is nothing (R2)."""
        claims: list[Claim] = []
        try:
            new = [tp for tp in partitions if tp not in self.partitions]
            self.unclaimed |= dict.fromkeys(new, 0.0)
            claims = self._claim(new)
        except Exception as error:
            _log_failure(f"Claiming {_names(partitions)} failed; it is tried again.", error)
        self._start_reading(claims)

    def on_revoke(self, partitions: list[TopicPartition]) -> None:
        """Finish and commit what is in hand, release, stop reading (R3); one deadline for all of it."""
        self.hand_over(partitions)
        self._stop_reading(partitions)

    def on_lost(self, partitions: list[TopicPartition]) -> None:
        """The group took the partitions away: drop what is in hand, commit nothing, release by compare-and-set."""
        self.abandon(partitions, "to the group")
        self._stop_reading(partitions)

    def hand_over(self, partitions: list[TopicPartition], seconds: float | None = None) -> None:
        """Finish, commit and release; the caller, or closing the client, ends the reading."""
        try:
            self._hand_over(partitions, Deadline(seconds or settings.MAX_POLL_INTERVAL_MS / 3000))
        except Exception as error:
            _log_failure(f"Handing over {_names(partitions)} failed; the next claim fences it.", error)

    def abandon(self, partitions: list[TopicPartition], why: str) -> None:
        """Drop what is in hand and release by compare-and-set, committing nothing."""
        lost = [self.partitions.pop(tp).claim for tp in partitions if tp in self.partitions]
        if not lost:
            return
        for claim in lost:
            self.fences.drop(claim)
        try:
            released = ledger.release(lost)
            self._log_event(
                "lost",
                f"{self.worker_id} lost {_names(c.topic_partition for c in lost)} {why}; uncommitted batches "
                f"were dropped, {len(released)} released.",
                level="warning",
            )
        except Exception as error:
            _log_failure("Releasing lost partitions failed; the next claim fences them.", error)

    def _hand_over(self, partitions: Iterable[TopicPartition], deadline: Deadline) -> None:
        claims = [self.partitions[tp].claim for tp in partitions if tp in self.partitions]
        # What was handed over before the group was left is revoked once more when it is left.
        claims = [claim for claim in claims if self.fences.is_current(claim)]
        if not claims:
            return
        drained = self._drain(claims, deadline)
        for claim in claims:
            self.fences.drop(claim)
        # Not released when work is left: the transaction may still be under way, and the next claim must fence it.
        released = ledger.release([c for c in claims if c.checkpoint_id in drained])
        stuck = [c.topic_partition for c in claims if c.checkpoint_id not in drained]
        self._log_event(
            "released", f"{self.worker_id} released {len(released)} of {_names(c.topic_partition for c in claims)}."
        )
        if stuck:
            logger.warning("Not finished in time: %s. Cancelled; the next claim fences them.", _names(stuck))

    def _stop_reading(self, partitions: Iterable[TopicPartition]) -> None:
        gone = list(partitions)
        for tp in gone:
            self.unclaimed.pop(tp, None)
            self._contested.discard(tp)
            local = self.partitions.pop(tp, None)
            if local is not None:
                self.fences.drop(local.claim)
        try:
            self._client.unassign(gone, in_callback=True)
        except Exception:
            logger.exception("Unassigning %s failed.", _names(gone))

    # --- Claiming ----------------------------------------------------------------------------------

    def retry_claims(self) -> None:
        """Claim again what is assigned to us and still unclaimed, when its time has come (R2, R4)."""
        now = monotonic()
        due = [tp for tp, due_at in self.unclaimed.items() if due_at <= now]
        if not due:
            return
        try:
            held = ledger.held_by_others(self.group_id, self.worker_id, self._contested.intersection(due))
            self._postpone(held, CONTESTED_RETRY_SECONDS)
            self._start_reading(self._claim([tp for tp in due if tp not in held]))
        except (OffsetsError, *DATABASE_LOST) as error:
            logger.warning("Claiming %s is tried again: %s", _names(due), error)
            self._postpone(due, CONTESTED_RETRY_SECONDS if isinstance(error, RefusedError) else CLAIM_RETRY_SECONDS)

    def _postpone(self, partitions: Iterable[TopicPartition], seconds: float) -> None:
        self.unclaimed |= dict.fromkeys(partitions, monotonic() + seconds)

    def _claim(self, partitions: list[TopicPartition]) -> list[Claim]:
        """Claim in the database. What is not claimed, or not yet, is tried again later."""
        if not partitions:
            return []
        self._postpone(partitions, CLAIM_RETRY_SECONDS)
        claims = self._claimer.claim(partitions)
        for claim in claims:
            self.unclaimed.pop(claim.topic_partition, None)
            self._contested.discard(claim.topic_partition)
        if claims:
            places = ", ".join(f"{c.topic_partition} at {c.next_offset} (epoch {c.epoch})" for c in claims)
            self._log_event("claimed", f"{self.worker_id} claimed {places}.")
        return claims

    def _start_reading(self, claims: Iterable[Claim]) -> None:
        """Assign the readable claims with explicit offsets, and set each one's pause state (R2)."""
        starts: dict[TopicPartition, StartAt] = {}
        paused = []
        for claim in claims:
            halted = claim.halt_reason is not HaltReason.NONE
            local = LocalPartition(
                claim,
                start=claim.next_offset,
                committed=claim.next_offset,
                operator_paused=claim.paused,
                halted=halted,
            )
            tp = claim.topic_partition
            self.partitions[tp] = local
            self.fences.raise_to(claim)
            if not halted:
                starts[tp] = StartAt(claim.next_offset, claim.leader_epoch)
            if claim.paused:
                paused.append(tp)
            self._on_claimed(local)
        try:
            self._client.assign(starts)
            # The paused flag survives an unassignment, so both states are set.
            self._client.resume(tp for tp in starts if tp not in paused)
            self._client.pause(paused)
        except Exception:
            logger.exception("Assigning %s failed; it is claimed again.", _names(starts))
            for tp in starts:
                self._forget(tp, CLAIM_RETRY_SECONDS)

    # --- Fences and desired states -----------------------------------------------------------------

    def fenced(self, claim: Claim, reason: str) -> None:
        """A commit of ours was refused: stop reading the partition; R4 decides whether it is claimed again."""
        local, tp = self._local(claim), claim.topic_partition
        self._log_event("fenced", f"Refused a stale commit by {self.worker_id}: {reason}.", level="warning", tp=tp)
        self._count_fenced()
        if local is not None:
            self._forget(tp, CLAIM_RETRY_SECONDS, contested=True)

    def _count_fenced(self) -> None:
        try:
            workers.count_fenced(self.worker_id)
        except DATABASE_LOST:
            logger.warning("The fenced commit of %s could not be counted.", self.worker_id)

    def apply_control(self, asked: Iterable[int], states: Mapping[int, ControlState]) -> None:
        """Compare what the database says of the checkpoints `asked` with what this process believes (R5)."""
        for tp, local in list(self.partitions.items()):
            if local.claim.checkpoint_id not in asked:
                continue  # claimed since the database was asked
            state = states.get(local.claim.checkpoint_id)
            if state is None:
                # Retired by an operator: another row has replaced it.
                logger.info("%s was rebuilt by an operator; %s claims it again.", tp, self.worker_id)
                self._forget(tp, 0.0, contested=True)
            elif state.epoch > local.claim.epoch:
                self._overtaken(tp, local, state)
            elif state.epoch == local.claim.epoch:
                self._apply_desired_state(tp, local, state)

    def _overtaken(self, tp: TopicPartition, local: LocalPartition, state: ControlState) -> None:
        """Another epoch has begun: an operator's action is applied at once, another owner is contested (R4)."""
        if state.epoch_cause is EpochCause.ACTION:
            logger.info("%s was moved by an operator; %s claims it again.", tp, self.worker_id)
        else:
            self._log_event(
                "overtaken",
                f"{tp}: epoch {local.claim.epoch} of {self.worker_id} is over; {state.owner or 'no worker'} "
                f"holds epoch {state.epoch}.",
                level="warning",
                tp=tp,
            )
        self._forget(tp, 0.0, contested=True)

    def _apply_desired_state(self, tp: TopicPartition, local: LocalPartition, state: ControlState) -> None:
        wants_pause = state.desired_state is DesiredState.PAUSED
        if wants_pause != local.operator_paused:
            local.operator_paused = wants_pause
            logger.info("%s was %s by an operator.", tp, "paused" if wants_pause else "resumed")
            # A halted partition stays paused: a resume does not make its log readable.
            if wants_pause:
                self._client.pause([tp])
            elif local.reading:
                self._client.resume([tp])
        if state.halt_reason is not HaltReason.NONE and not local.halted:
            local.halted = True
            self._client.pause([tp])
        if state.mirror_requests != local.mirror_requests:
            local.mirror_requests = state.mirror_requests
            self._on_committed(local)

    def halt(self, claim: Claim, reason: HaltReason, detail: str) -> None:
        """Stop one partition for good, with a reason; the others go on (R16)."""
        local = self._local(claim)
        if local is None or local.halted:
            return
        self._client.pause([claim.topic_partition])
        self._claimer.halt(claim, reason, detail)
        local.halted = True

    def check_readable(self, partitions: Iterable[TopicPartition]) -> None:
        """Find out why the log does not hold a partition's position, and halt it. May raise ServiceUnavailableError."""
        owned = [self.partitions[tp] for tp in partitions if tp in self.partitions]
        at_position = (replace(local.claim, next_offset=local.start) for local in owned)
        reasons = halts.find_unreadable(self._admin, at_position)
        for local in owned:
            tp = local.claim.topic_partition
            reason, detail = reasons[tp]
            if reason is HaltReason.NONE:
                # In range after all (the log moved meanwhile): read again from the committed offset.
                self._forget(tp, 0.0, contested=True)
            else:
                self.halt(local.claim, reason, detail)

    def _forget(self, tp: TopicPartition, retry_seconds: float, *, contested: bool = False) -> None:
        """Drop everything held for a partition, and claim it again later from the database's row."""
        if contested:
            self._contested.add(tp)
        local = self.partitions.pop(tp, None)
        if local is not None:
            self.fences.drop(local.claim)
        self._postpone([tp], retry_seconds)
        try:
            self._client.unassign([tp])
        except Exception:
            logger.exception("Unassigning %s failed.", tp)

    def restart(self, claim: Claim, retry_seconds: float = CLAIM_RETRY_SECONDS) -> None:
        """Claim a partition again, unless it is not ours any more."""
        if self._local(claim) is not None:
            # Contested: it may have been claimed by another since, whom a restart must not push out (R4).
            self._forget(claim.topic_partition, retry_seconds, contested=True)

    def _local(self, claim: Claim) -> LocalPartition | None:
        local = self.partitions.get(claim.topic_partition)
        return local if local is not None and local.claim.epoch == claim.epoch else None

    def _log_event(self, kind: str, message: str, *, level: str = "info", tp: TopicPartition | None = None) -> None:
        journal.record(
            self.group_id,
            kind,
            message,
            level=level,
            worker_id=self.worker_id,
            topic=tp.topic if tp else "",
            partition=tp.partition if tp else None,
        )


def _log_failure(text: str, error: Exception) -> None:
    """An unavailable service needs no traceback."""
    if isinstance(error, DATABASE_LOST):
        logger.warning("%s %s", text, describe_outage(error))
    elif isinstance(error, ServiceUnavailableError):
        logger.warning("%s %s", text, error)
    else:
        logger.error("%s", text, exc_info=error)


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(str(tp) for tp in partitions) or "nothing"
