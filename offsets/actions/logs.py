"""What Kafka says of the logs that an action concerns. Asked outside of any lock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from offsets.actions.move_plans import Bounds
from offsets.errors import ServiceUnavailableError
from offsets.kafka import divergence
from offsets.kafka.admin import KafkaAdmin, LogBounds
from offsets.kafka.divergence import Comparison
from offsets.models import PartitionCheckpoint
from offsets.types import Position, TopicPartition


@dataclass(frozen=True, slots=True)
class Log:
    """What Kafka said of a partition's log."""

    bounds: Bounds
    topic_id: str
    #: Whether it reached as far as the ledger did then. A log that did not was truncated.
    complete: bool
    #: Whether records that the ledger covers are gone from its end, also where it has grown since; None: unknown.
    truncated: bool | None = None
    #: The first offset whose record is not the one that was read, if it is known.
    diverges: int | None = None

    def grown_to(self, ledger_end: int) -> "Log":
        """The log as it must be by now: what the ledger has come to since, a complete log has, too."""
        if not self.complete:
            return self
        return replace(self, bounds=Bounds(self.bounds.start, max(self.bounds.end, ledger_end)))


def logs_of(checkpoints: Iterable[PartitionCheckpoint]) -> dict[int, Log]:
    """The log of each checkpoint, in a few requests for all. Raises ServiceUnavailableError."""
    rows = list(checkpoints)
    admin = KafkaAdmin()
    described = admin.describe_topics({row.topic for row in rows})
    bounds = admin.log_bounds(_tp(row) for row in rows)
    known = {row.pk: bounds[_tp(row)] for row in rows if _tp(row) in bounds and row.topic in described}
    same = [row for row in rows if row.pk in known and described[row.topic].topic_id == row.topic_id]
    compared = divergence.compare(
        {
            _tp(row): Position(row.next_offset, row.leader_epoch)
            for row in same
            if may_have_lost(row.leader_epoch, row.ledger_end, known[row.pk])
        }
    )
    return {
        row.pk: _log(row, described[row.topic].topic_id, known[row.pk], compared.get(_tp(row)))
        for row in rows
        if row.pk in known
    }


def may_have_lost(leader_epoch: int | None, ledger_end: int, bounds: LogBounds) -> bool:
    """Whether a broker must compare: a log loses its end only when its leader changes, and grows in a new epoch."""
    if leader_epoch is None:
        return False
    return bounds.end < ledger_end or bounds.leader_epoch != leader_epoch


def _log(row: PartitionCheckpoint, topic_id: str, bounds: LogBounds, compared: Comparison | None) -> Log:
    complete = bounds.end >= row.ledger_end
    truncated: bool | None = None
    if topic_id != row.topic_id:
        pass  # it is another log altogether
    elif not complete or (compared is not None and compared.truncated):
        truncated = True
    elif compared is not None or bounds.leader_epoch == row.leader_epoch is not None:
        truncated = False
    diverges = compared.diverges if compared is not None else None
    return Log(Bounds(bounds.start, bounds.end), topic_id, complete, truncated, diverges)


def log_of(row: PartitionCheckpoint, logs: Mapping[int, Log]) -> Log:
    """The row's log, as of now. Raises ServiceUnavailableError where Kafka said nothing of it."""
    if row.pk not in logs:
        raise ServiceUnavailableError(
            f"Cannot read the log bounds of {row.name}: the topic was deleted, or the partition has no leader."
        )
    return logs[row.pk].grown_to(row.ledger_end)


def _tp(row: PartitionCheckpoint) -> TopicPartition:
    return TopicPartition(row.topic, row.partition)
