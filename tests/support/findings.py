"""A group's state as the tests of findings put it together, by a clock that stands still."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from offsets.monitoring.finding import Finding, FindingLimits
from offsets.monitoring.findings import find
from offsets.monitoring.group_state import FailedRange, GroupState, PartitionState
from offsets.monitoring.status import Status, Verdict

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LIMITS = FindingLimits(heartbeat_timeout_seconds=10, stuck_seconds=30, retention_warn_seconds=3600)
STACK = "File x, line 1"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def partition(status: Status = Status.OK, number: int = 0, *, for_seconds: float = 60, **fields: Any) -> PartitionState:
    defaults: dict[str, Any] = {
        "checkpoint_id": 100 + number,
        "topic": "t",
        "partition": number,
        "next_offset": 1000,
        "verdict": Verdict(status, f"What {status} means."),
        "since": ago(for_seconds),
        "owner": None if status is Status.UNOWNED else "w-1",
    }
    return PartitionState(**(defaults | fields))


def failed(start: int, end: int, *, retried: bool = True, since: float = 100) -> FailedRange:
    return FailedRange(start, end, 1, ago(-60) if retried else None, "DataError: no.", ago(since))


def found(*partitions: PartitionState, **state: Any) -> list[Finding]:
    return find(GroupState(NOW, partitions, **state), LIMITS)


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, [finding.key for finding in findings]
    return findings[0]


def keys(findings: Sequence[Finding]) -> set[tuple[str, str]]:
    return {finding.key for finding in findings}
