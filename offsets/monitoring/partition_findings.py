"""The findings about one partition that has an owner. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from offsets.monitoring.finding import Finding, FindingLimits
from offsets.monitoring.group_state import AffectedRange, GroupState, PartitionState
from offsets.monitoring.status import Status
from offsets.text import counted, duration

#: The default of the broker's transaction.max.timeout.ms.
TRANSACTION_MAX_MINUTES = 15
TRANSACTION_MAX_SECONDS = 60.0 * TRANSACTION_MAX_MINUTES


def find(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    status = partition.verdict.status
    if status is Status.HALTED:
        lost = (
            [AffectedRange(partition.topic, partition.partition, "expired", partition.next_offset, partition.log_start)]
            if partition.halt_reason == "expired"
            and partition.log_start
            and partition.log_start > partition.next_offset
            else []
        )
        yield about(
            partition,
            f"halted_{partition.halt_reason}",
            partition.verdict.detail,
            partition.halted_at or partition.since,
            ranges=lost,
        )
    if partition.paused_by == limits.breaker:
        yield about(
            partition,
            "circuit_breaker",
            f"{partition.name} was paused because {partition.paused_reason}. Check its dead letters and failed "
            "ranges, fix the cause, then resume it. Nothing was dropped.",
            partition.since,
        )
    if partition.failed:
        yield _failed(partition)
    lasts = (state.now - partition.since).total_seconds() >= limits.lasting_seconds
    if status is Status.STOPPED or (status is Status.STALLED and lasts):
        yield about(partition, "stalled", partition.verdict.detail, partition.since, critical=status is Status.STOPPED)
    if status in (Status.LAGGING, Status.SLOW) and lasts:
        yield about(partition, "lagging", partition.verdict.detail, partition.since, critical=False)
    yield from _open_transaction(partition, state, limits)
    yield from _retention(partition, state, limits)


def _open_transaction(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Records that no read_committed reader reaches, because a producer has not ended its transaction."""
    if not partition.hidden or partition.hidden_since is None:
        return
    seconds = (state.now - partition.hidden_since).total_seconds()
    if seconds <= limits.open_transaction_seconds:
        return
    hangs = seconds > TRANSACTION_MAX_SECONDS
    where = f"--topic {partition.topic} --partition {partition.partition}"
    advice = (
        f"That is longer than the broker's transaction.max.timeout.ms allows by default ({TRANSACTION_MAX_MINUTES} "
        "min), so it hangs. Abort it: kafka-transactions.sh --bootstrap-server … abort "
        f"{where} --start-offset {partition.log_end or 0}."
        if hangs
        else f"Find its producer: kafka-transactions.sh --bootstrap-server … describe-producers {where}. Kafka aborts "
        "it after the producer's transaction.timeout.ms."
    )
    yield about(
        partition,
        "open_transaction",
        f"{counted(partition.hidden, 'record')} of {partition.name} wait behind a transaction that has been open for "
        f"{duration(seconds)}. {advice}",
        partition.hidden_since,
        critical=hangs,
    )


def _failed(partition: PartitionState) -> Finding:
    given_up = [failed for failed in partition.failed if failed.retry_at is None]
    offsets, detail = sum(failed.end - failed.start for failed in partition.failed), partition.failed[0].detail
    then = "No retries left: fix the cause, then replay them." if given_up else "An automatic replay retries."
    return about(
        partition,
        "failed_ranges",
        f"{offsets:,} offsets of {partition.name} could not be applied: {detail.rstrip('.')}. {then}",
        min(failed.since for failed in partition.failed),
        critical=bool(given_up),
        ranges=[
            AffectedRange(partition.topic, partition.partition, "failed", f.start, f.end) for f in partition.failed
        ],
    )


def _retention(partition: PartitionState, state: GroupState, limits: FindingLimits) -> Iterator[Finding]:
    """Unread or failed offsets that Kafka has deleted, or deletes soon: by the rate at which the log start moves, or
    by the topic's retention. Kafka deletes whole segments, so it may be later, never sooner.
    """
    if partition.halt_reason or partition.absence.missing:
        return
    if partition.lost:
        yield _lost(partition)
        return
    left = [
        ("unread", partition.next_offset, partition.log_end or partition.next_offset, partition.unread_seconds),
        *(("failed", f.start, f.end, (state.now - f.since).total_seconds()) for f in partition.failed),
    ]
    soon = []
    for kind, start, end, age in left:
        seconds = _seconds_left(partition, start, age, limits)
        if (
            end > start
            and seconds is not None
            and seconds <= limits.retention_warn_seconds
            and _falls_behind(kind, partition)
        ):
            soon.append((seconds, AffectedRange(partition.topic, partition.partition, kind, start, end)))
    if soon:
        first = min(seconds for seconds, _ in soon)
        yield about(
            partition,
            "retention",
            f"Kafka starts deleting uncounted offsets of {partition.name} in about {duration(first)}"
            f"{_retention_limit(partition)}. Raise the topic's retention, add workers, or replay the failed ranges.",
            state.now,
            ranges=[affected for _, affected in soon],
        )


def _retention_limit(partition: PartitionState) -> str:
    """The limit by which it deletes, where it is one of time."""
    if partition.retention_seconds is None:
        return ""
    return f" (retention.ms of {partition.topic}: {duration(partition.retention_seconds)})"


def _lost(partition: PartitionState) -> Finding:
    """Nobody read it in time; it halts as expired as soon as a worker reads it."""
    end = max(partition.log_end or 0, partition.log_start or 0)
    readable = counted(end - (partition.log_start or 0), "record")
    return about(
        partition,
        "retention",
        f"{counted(partition.lost, 'offset')} of {partition.name} lost so far: Kafka deleted them before they were "
        f"read; {readable} can still be read{_retention_limit(partition)}. Start or resume its worker, then record "
        "the loss: manage.py accept_loss.",
        partition.since,
        ranges=[
            AffectedRange(
                *(partition.topic, partition.partition, "expired", partition.next_offset),
                partition.next_offset + partition.lost,
            )
        ],
    )


def _seconds_left(
    partition: PartitionState, offset: int, age_seconds: float | None, limits: FindingLimits
) -> float | None:
    """Until Kafka may delete the offset, at most; None where nothing indicates that it will."""
    found = []
    if partition.old_below is not None and offset < partition.old_below:
        found.append(limits.retention_warn_seconds)
    if partition.log_start is not None and partition.log_start_rate and offset >= partition.log_start:
        found.append((offset - partition.log_start) / partition.log_start_rate)
    if partition.retention_seconds is not None and age_seconds is not None:
        found.append(max(0.0, partition.retention_seconds - age_seconds))
    return min(found, default=None)


def _falls_behind(kind: str, partition: PartitionState) -> bool:
    """A partition that keeps up reads on before retention comes."""
    return kind == "failed" or partition.verdict.status is not Status.OK


def about(
    partition: PartitionState,
    kind: str,
    summary: str,
    began_at: datetime,
    *,
    critical: bool = True,
    ranges: Sequence[AffectedRange] = (),
) -> Finding:
    return Finding(
        kind, partition.name, summary, began_at, critical, partition.checkpoint_id, partition.owner or "", ranges
    )
