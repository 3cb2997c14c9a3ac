"""Claims partitions in the database for one worker, and halts those that cannot be read."""

from collections.abc import Mapping

from django.conf import settings

from offsets import ledger
from offsets.database import WorkerSession
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.processing import halts
from offsets.processing.baselines import Baselines
from offsets.processing.halts import unreadable, with_halt
from offsets.processing.offset_store import StoreLink
from offsets.types import Claim, HaltReason, Semantics, StoredOffset, TopicPartition


class Claimer:
    """Fetching thread only."""

    def __init__(
        self,
        group_id: str,
        worker_id: str,
        admin: KafkaAdmin,
        baselines: Baselines,
        semantics: Semantics,
        store: StoreLink,
    ) -> None:
        self._group_id = group_id
        self._worker_id = worker_id
        self._admin = admin
        self._baselines = baselines
        self._semantics = semantics
        self._store = store
        self._session = WorkerSession(f"{worker_id}:claim")
        #: Why partitions of the last claims cannot be claimed yet.
        self.waiting: dict[TopicPartition, str] = {}

    def claim(self, partitions: list[TopicPartition]) -> list[Claim]:
        """Claim the partitions whose rows are free of locks, at the offsets where reading begins.

        Kafka and the offset store are asked first, outside any lock. What must wait for Kafka is in `waiting`, and the
        others are claimed. Raises OffsetsError, and what a lost database raises.
        """
        described = self._admin.describe_topics({tp.topic for tp in partitions}, timeout_seconds=self._kafka_seconds())
        bounds = self._baselines.insert_missing(described, timeout_seconds=self._kafka_seconds())
        unknown = [tp for tp in partitions if tp not in bounds and _is_readable(tp, described)]
        bounds |= self._admin.log_bounds(unknown, timeout_seconds=self._kafka_seconds())
        waiting = self._must_wait(partitions, described, bounds)
        self.waiting = {tp: why for tp, why in self.waiting.items() if tp not in partitions} | waiting
        ready = [tp for tp in partitions if tp not in waiting]
        if not ready:
            return []
        stored = self._store.read(ready)
        with self._session.transaction():
            claims = ledger.claim(self._group_id, self._worker_id, ready, semantics=self._semantics)
        return self._checked(self._aligned(claims, stored), described, bounds)

    def _must_wait(
        self,
        partitions: list[TopicPartition],
        described: Mapping[str, TopicDescription],
        bounds: dict[TopicPartition, LogBounds],
    ) -> dict[TopicPartition, str]:
        """What cannot be claimed yet, and why."""
        undecided = self._baselines.decide(described, bounds)
        waiting = {tp: undecided[tp] for tp in partitions if tp in undecided}
        waiting |= {tp: "its topic does not exist" for tp in partitions if tp.topic not in described}
        rows = ledger.partition_progress(self._group_id, described)
        ahead = {
            tp: rows[tp].next_offset
            for tp in partitions
            if tp in rows and tp in bounds and tp not in waiting and rows[tp].next_offset > bounds[tp].end
        }
        if ahead:
            # The former owner may have committed further than the log reached when it was asked.
            bounds |= self._admin.log_bounds(ahead, timeout_seconds=self._kafka_seconds())
            hidden = self._admin.uncommitted_ends(ahead, timeout_seconds=self._kafka_seconds())
            for tp, next_offset in ahead.items():
                why = halts.waits_for_transaction(next_offset, bounds.get(tp), hidden.get(tp))
                waiting |= {tp: why} if why else {}
        return waiting

    def halt(self, claim: Claim, reason: HaltReason, detail: str) -> None:
        halts.halt(claim, reason, detail, group_id=self._group_id, worker_id=self._worker_id)

    def _aligned(self, claims: list[Claim], stored: Mapping[TopicPartition, StoredOffset]) -> list[Claim]:
        """Begin where the offset store says; halt what it should know and does not (R16, R18)."""
        aligned, missing = self._store.align(self._session, claims, stored)
        for claim, resume in missing.items():
            if claim.halt_reason is HaltReason.NONE:
                self.halt(claim, resume.halt_reason, resume.detail)
        return [with_halt(c, missing[c].halt_reason) if c in missing else c for c in aligned]

    def _checked(
        self,
        claims: list[Claim],
        described: Mapping[str, TopicDescription],
        bounds: dict[TopicPartition, LogBounds],
    ) -> list[Claim]:
        """Halt what the log does not hold. Bounds that would halt are asked again: they are older than the claim."""
        doubtful = [c.topic_partition for c in claims if _found(c, described, bounds)[0] in _BY_BOUNDS]
        if doubtful:
            bounds |= self._admin.log_bounds(doubtful, timeout_seconds=self._kafka_seconds())
        checked = []
        for claim in claims:
            reason, detail = _found(claim, described, bounds)
            if reason is not HaltReason.NONE and claim.halt_reason is HaltReason.NONE:
                self.halt(claim, reason, detail)
                claim = with_halt(claim, reason)
            checked.append(claim)
        return checked

    @staticmethod
    def _kafka_seconds() -> float:
        """Claims share a third of the poll interval with the database (R3)."""
        return settings.MAX_POLL_INTERVAL_MS / 12_000


#: Reasons that log bounds give.
_BY_BOUNDS = (HaltReason.EXPIRED, HaltReason.TRUNCATED)


def _is_readable(tp: TopicPartition, described: Mapping[str, TopicDescription]) -> bool:
    return tp.topic in described and described[tp.topic].is_readable(tp.partition)


def _found(
    claim: Claim, described: Mapping[str, TopicDescription], bounds: Mapping[TopicPartition, LogBounds]
) -> tuple[HaltReason, str]:
    return unreadable(claim, described.get(claim.topic), bounds.get(claim.topic_partition))
