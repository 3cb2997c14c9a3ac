"""Why a partition's log cannot be read from where its group stands, and halting it there (R16)."""

from collections.abc import Mapping
from dataclasses import replace

from offsets import journal, ledger
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.kafka.fetch_errors import divergence_in, tells_truncation
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


def waits_for_transaction(next_offset: int, bounds: LogBounds | None, uncommitted_end: int | None) -> str:
    """Why a partition cannot be read from `next_offset` yet although its log holds it; empty if not for this. Pure."""
    if bounds is None or uncommitted_end is None or not bounds.end < next_offset <= uncommitted_end:
        return ""
    return (
        f"its next offset {next_offset} lies behind an open transaction; the log can be read up to {bounds.end}. It is "
        "claimed when the transaction ends"
    )


def out_of_range(
    claim: Claim, description: TopicDescription | None, bounds: LogBounds | None, text: str
) -> tuple[HaltReason, str]:
    """Why the client found `claim.next_offset` outside of the log, in its own words `text`. Pure.

    `claim.leader_epoch` is that of the record before it. HaltReason.NONE: the log holds the offset, and the client did
    not object (no `text`) or has read nothing before it.
    """
    reason, detail = unreadable(claim, description, bounds)
    at = claim.next_offset
    if not text:
        return reason, detail
    if reason is HaltReason.RECREATED or (reason is not HaltReason.NONE and not tells_truncation(text)):
        return reason, detail
    if tells_truncation(text):
        diverges = divergence_in(text)
        if diverges is None:
            return HaltReason.TRUNCATED, f"the log lost records before offset {at}; it is not known from which offset."
        return HaltReason.TRUNCATED, (
            f"the log was cut off at offset {diverges}, before the next offset {at}: {at - diverges} offsets that were "
            "read are gone, and new records may have taken their place."
        )
    if claim.leader_epoch is not None:
        # It was read up to here, so the log did hold it: it was cut off, and has grown again before it was asked.
        return HaltReason.TRUNCATED, (
            f"Kafka did not hold the next offset {at}, although it was read up to there, and holds it again: the log "
            "was cut off and grew. It is not known from which offset."
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


def why_out_of_range(
    admin: KafkaAdmin, claims: Mapping[TopicPartition, Claim], texts: Mapping[TopicPartition, str]
) -> dict[TopicPartition, tuple[HaltReason, str]]:
    """Ask Kafka why each log does not hold its claim's next offset (HaltReason.NONE: it does). `texts`: the client's.

    Raises ServiceUnavailableError.
    """
    described = admin.describe_topics({tp.topic for tp in claims})
    bounds = admin.log_bounds(claims)
    return {
        tp: out_of_range(claim, described.get(tp.topic), bounds.get(tp), texts.get(tp, ""))
        for tp, claim in claims.items()
    }


def with_halt(claim: Claim, reason: HaltReason) -> Claim:
    return replace(claim, halt_reason=reason)
