"""Rows for tests of the page, the actions and the admin: a group as workers would have left it."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Value

from offsets.models import DatabaseTime, LagSample, LedgerRange, PartitionCheckpoint, Worker

GROUP = "engagement-analytics"


def ago(seconds: float) -> Any:
    """A moment by the database's clock."""
    return DatabaseTime() - Value(timedelta(seconds=seconds))


def make_worker(worker_id: str = "w-1", *, silent_for: float = 0.0, **fields: Any) -> Worker:
    defaults = {"group_id": GROUP, "hostname": "host", "process_id": 1234, "heartbeat_at": ago(silent_for)}
    return Worker.objects.create(worker_id=worker_id, **(defaults | fields))


def make_checkpoint(partition: int = 0, *, next_offset: int = 1000, **fields: Any) -> PartitionCheckpoint:
    defaults = {
        "group_id": GROUP,
        "topic": "engagement",
        "partition": partition,
        "topic_id": "topic-id",
        "baseline_offset": 0,
        "baseline_kind": "earliest",
        "next_offset": next_offset,
        "ledger_end": next_offset,
        "epoch": 3,
    }
    return PartitionCheckpoint.objects.create(**(defaults | fields))


def make_range(checkpoint: PartitionCheckpoint, start: int, end: int, kind: str = "processed", **fields: Any) -> None:
    defaults = {"records": end - start if kind == "processed" else 0, "epoch": checkpoint.epoch}
    LedgerRange.objects.create(checkpoint=checkpoint, offsets=(start, end), kind=kind, **(defaults | fields))


def make_sample(checkpoint: PartitionCheckpoint, seconds_ago: float, log_end: int, next_offset: int) -> None:
    LagSample.objects.create(
        checkpoint=checkpoint,
        sampled_at=ago(seconds_ago),
        log_start_offset=0,
        log_end_offset=log_end,
        next_offset=next_offset,
    )


def make_user(name: str, *groups: str, **fields: Any) -> User:
    # No password: hashing one takes longer than most tests, and force_login needs none.
    user = User.objects.create_user(name, **fields)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user
