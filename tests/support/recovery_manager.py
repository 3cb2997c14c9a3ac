"""What the tests of the recovery manager share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection

from offsets.cluster_facts import GroupMember
from offsets.kafka.admin import LogBounds, TopicDescription
from offsets.models import (
    Incident,
    Lease,
    LedgerRange,
    PartitionCheckpoint,
)
from offsets.types import TopicPartition
from tests.support.page_rows import GROUP, ago

LEADS = f"recovery-manager:{GROUP}"


STACK = '  File "handler.py", line 7, in decode\n    while True: pass\n'


class Cluster:
    """What Kafka answers, or that it does not."""

    def __init__(self) -> None:
        self.bounds: dict[TopicPartition, LogBounds] = {}
        self.partitions: dict[str, tuple[int, ...]] = {}
        self.retention: dict[str, float] = {}
        self.members: list[GroupMember] = []
        self.error: Exception | None = None

    def log_bounds(self, partitions: Any) -> dict[TopicPartition, LogBounds]:
        if self.error:
            raise self.error
        return {tp: self.bounds[tp] for tp in partitions if tp in self.bounds}

    log_bounds_and_watermarks = log_bounds

    def describe_topics(self, topics: Any) -> dict[str, TopicDescription]:
        if self.error:
            raise self.error
        return {name: TopicDescription("topic-id", self.partitions[name]) for name in topics if name in self.partitions}

    def retention_seconds(self, topics: Any) -> dict[str, float]:
        return {name: self.retention[name] for name in topics if name in self.retention}

    def group_members(self, group_id: str) -> list[GroupMember]:
        return self.members

    def offsets_for_time(self, partitions: Any, timestamp_ms: int) -> dict[TopicPartition, int]:
        return {}

    def holds(self, start: int, end: int, partition: int = 0) -> None:
        self.bounds[TopicPartition("engagement", partition)] = LogBounds(start, end)


supervised = pytest.mark.usefixtures("_supervised")


@contextmanager
def other_session(application_name: str = "other") -> Iterator[psycopg.Connection]:
    """A second connection, outside Django's."""
    values = connection.get_connection_params()
    values.pop("cursor_factory", None)
    values.pop("context", None)
    with psycopg.connect(**values, application_name=application_name) as other:
        yield other
        if not other.closed:
            other.rollback()


def expire(name: str) -> None:
    assert Lease.objects.filter(pk=name).update(expires_at=ago(1))


def open_kinds() -> dict[str, str]:
    rows = Incident.objects.filter(closed_at__isnull=True).order_by("kind", "subject")
    return {row.kind: row.subject for row in rows}


def timeline(incident: Incident) -> list[tuple[str, str]]:
    return list(incident.events.order_by("pk").values_list("source", "text"))


def ranges_of(checkpoint: PartitionCheckpoint) -> list[tuple[int, int, str]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint).order_by("offsets")
    return [(row.offsets.lower, row.offsets.upper, row.kind) for row in rows]
