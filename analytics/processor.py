"""EngagementProcessor: the batch handler of engagement events."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from analytics import aggregation
from analytics.aggregation import DecodingOptions
from analytics.dimensions import refused_dimensions
from analytics.metrics_store import MetricsStore
from offsets.errors import RefusedError
from offsets.types import DecodedBatch, PartitionCommit, RecordBatch


class EngagementProcessor:
    """Counts engagement by the dimensions of the setting ENGAGEMENT_DIMENSIONS; implements `BatchHandler` and
    its optional methods.

    Raises RefusedError for an unknown dimension.
    """

    def __init__(self) -> None:
        self.dimensions = tuple(settings.ENGAGEMENT_DIMENSIONS)
        reason = refused_dimensions(self.dimensions)
        if reason:
            raise RefusedError(reason)
        self._options = DecodingOptions(settings.EVENT_MAX_BYTES, settings.EVENT_TIME_TOLERANCE_SECONDS)
        self._store = MetricsStore()

    def decode(self, batch: RecordBatch) -> DecodedBatch:
        return aggregation.decode(batch, self._options)

    def combine(self, batches: Sequence[DecodedBatch]) -> PartitionCommit:
        return aggregation.combine(batches)

    def decode_many(self, batches: Sequence[RecordBatch]) -> Sequence[DecodedBatch]:
        return aggregation.decode_many(batches, self._options)

    def combine_many(self, groups: Sequence[Sequence[DecodedBatch]]) -> Sequence[PartitionCommit]:
        return aggregation.combine_many(groups)

    def insert(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        self._store.insert(commits, connection)

    def update(self, commits: Sequence[PartitionCommit], connection: Any) -> None:
        self._store.update(commits, connection)

    def counted_sql(self) -> str:
        return self._store.counted_sql()

    def counted_by_time_sql(self) -> str:
        return self._store.counted_by_time_sql()

    def implausible_times_sql(self) -> str:
        return self._store.implausible_times_sql()
