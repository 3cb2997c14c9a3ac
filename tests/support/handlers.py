"""Batch handlers that fail on purpose, for workers in processes of their own (`BATCH_HANDLER`).

`FAIL_AT="0:17,3:250"` names partition and offset of the records on which they fail.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analytics.processor import EngagementProcessor
from offsets.types import DecodedBatch, PartitionCommit, RecordBatch


def _named() -> set[tuple[int, int]]:
    places = filter(None, os.environ.get("FAIL_AT", "").split(","))
    return {(int(partition), int(offset)) for partition, _, offset in (place.partition(":") for place in places)}


class ChokesInDecode(EngagementProcessor):
    """Raises on every batch that holds one of the records."""

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        named = _named()
        if any((batch.claim.partition, record.offset()) in named for record in batch.records):
            raise ZeroDivisionError("a record that the decoder cannot bear")
        return super().decode(batch)


class RefusedByDatabase(EngagementProcessor):
    """Makes the database refuse every commit that counts one of the records; set apart, it does not count."""

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        super().update(commits, connection)
        for commit in commits:
            apart = {failure.offset for failure in commit.failures}
            counted = {(commit.claim.partition, n) for n in range(commit.start, commit.end) if n not in apart}
            if commit.stats.records and counted & _named():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 / 0")


class RaisesInCombine(EngagementProcessor):
    """Raises on everything that counts one of the records."""

    def combine(self, batches: Sequence[DecodedBatch]) -> PartitionCommit:
        for batch in batches:
            if batch.stats.records and _counts_a_named(batch):
                raise KeyError("a record that cannot be combined")
        return super().combine(batches)


class RaisesInUpdate(EngagementProcessor):
    """Raises on everything that counts one of the records, inside the transaction."""

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        super().update(commits, connection)
        if any(commit.stats.records and _counts_a_named(commit) for commit in commits):
            raise AttributeError("'NoneType' object has no attribute 'minute'")


def _counts_a_named(batch: DecodedBatch) -> bool:
    apart = {failure.offset for failure in batch.failures}
    return any(
        partition == batch.claim.partition and batch.start <= offset < batch.end and offset not in apart
        for partition, offset in _named()
    )


class StuckOnce(EngagementProcessor):
    """Never comes back from the first batch that it decodes after `STUCK_TOKEN` was laid; whoever deletes it, hangs."""

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        if batch.records:
            try:
                Path(os.environ["STUCK_TOKEN"]).unlink()
            except FileNotFoundError:
                return super().decode(batch)
            time.sleep(3600)
        return super().decode(batch)
