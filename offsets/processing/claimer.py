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

    def claim(self, partitions: list[TopicPartition]) -> list[Claim]:
        """Claim the partitions whose rows are free of locks, at the offsets where reading begins.

        Kafka and the offset store are asked first, outside any lock. Raises OffsetsError, and what a lost database
        raises.
        """
        topics = sorted({tp.topic for tp in partitions})
        described = self._admin.describe_topics(topics, timeout_seconds=self._kafka_seconds())
        bounds = self._baselines.insert_missing(topics, described, timeout_seconds=self._kafka_seconds())
        bounds |= self._admin.log_bounds(
            [tp for tp in partitions if tp not in bounds], timeout_seconds=self._kafka_seconds()
        )
        stored = self._store.read(partitions)
        with self._session.transaction():
            claims = ledger.claim(self._group_id, self._worker_id, partitions, semantics=self._semantics)
        claims = self._aligned(claims, stored)
        return [self._halted_if_unreadable(claim, described, bounds) for claim in claims]

    def halt(self, claim: Claim, reason: HaltReason, detail: str) -> None:
        halts.halt(claim, reason, detail, group_id=self._group_id, worker_id=self._worker_id)

    def _aligned(self, claims: list[Claim], stored: Mapping[TopicPartition, StoredOffset]) -> list[Claim]:
        """Begin where the offset store says; halt what it should know and does not (R16, R18)."""
        aligned, missing = self._store.align(self._session, claims, stored)
        for claim, resume in missing.items():
            if claim.halt_reason is HaltReason.NONE:
                self.halt(claim, resume.halt_reason, resume.detail)
        return [with_halt(c, missing[c].halt_reason) if c in missing else c for c in aligned]

    def _halted_if_unreadable(
        self,
        claim: Claim,
        described: Mapping[str, TopicDescription],
        bounds: Mapping[TopicPartition, LogBounds],
    ) -> Claim:
        reason, detail = unreadable(claim, described.get(claim.topic), bounds.get(claim.topic_partition))
        if reason is HaltReason.NONE or claim.halt_reason is not HaltReason.NONE:
            return claim
        self.halt(claim, reason, detail)
        return with_halt(claim, reason)

    @staticmethod
    def _kafka_seconds() -> float:
        """Claims share a third of the poll interval with the database (R3)."""
        return settings.MAX_POLL_INTERVAL_MS / 12_000
