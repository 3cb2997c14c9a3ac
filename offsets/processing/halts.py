"""Why a partition's log cannot be read from where its group stands, and halting it there (R16)."""

from collections.abc import Iterable
from dataclasses import replace

from offsets import journal, ledger
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.types import Claim, HaltReason, TopicPartition


def unreadable(claim: Claim, description: TopicDescription | None, bounds: LogBounds | None) -> tuple[HaltReason, str]:
    """Whether the log can be read from `claim.next_offset`, and if not, why and since where. Pure."""
    if description is not None and description.topic_id != claim.topic_id:
        return HaltReason.RECREATED, (
            f"the topic was deleted and created again (topic id {claim.topic_id} is now {description.topic_id}); "
            f"offset {claim.next_offset} means another record now."
        )
    if bounds is None:
        return HaltReason.NONE, ""
    if claim.next_offset < bounds.start:
        return HaltReason.EXPIRED, (
            f"Kafka deleted the offsets from {claim.next_offset} to {bounds.start} before they were read "
            f"({bounds.start - claim.next_offset} offsets)."
        )
    if claim.next_offset > bounds.end:
        return HaltReason.TRUNCATED, (
            f"the log ends at {bounds.end}, before the next offset {claim.next_offset}: it was truncated."
        )
    return HaltReason.NONE, ""


def halt(claim: Claim, reason: HaltReason, detail: str, *, group_id: str, worker_id: str) -> None:
    """Halt the checkpoint and write a journal entry, unless the claim's epoch is over or it is halted already."""
    if ledger.halt(claim.checkpoint_id, claim.epoch, reason, detail):
        tp = claim.topic_partition
        journal.record(
            group_id,
            "halted",
            f"{tp} halted: {detail}",
            level="error",
            worker_id=worker_id,
            topic=tp.topic,
            partition=tp.partition,
        )


def find_unreadable(admin: KafkaAdmin, claims: Iterable[Claim]) -> dict[TopicPartition, tuple[HaltReason, str]]:
    """Ask Kafka whether each log can be read from its claim's next offset, and if not, why (HaltReason.NONE: it can).

    Raises ServiceUnavailableError.
    """
    claims = list(claims)
    described = admin.describe_topics({claim.topic for claim in claims})
    bounds = admin.log_bounds(claim.topic_partition for claim in claims)
    return {
        claim.topic_partition: unreadable(claim, described.get(claim.topic), bounds.get(claim.topic_partition))
        for claim in claims
    }


def with_halt(claim: Claim, reason: HaltReason) -> Claim:
    return replace(claim, halt_reason=reason)
