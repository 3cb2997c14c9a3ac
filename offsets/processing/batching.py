"""Calls a batch handler once for many batches, where it offers that. On any failure the caller goes batch by batch."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from offsets.clock import monotonic
from offsets.types import BatchHandler, DecodedBatch, OffsetSpan, PartitionCommit, RecordBatch

logger = logging.getLogger(__name__)


def joint_method(handler: object, many: str, single: str) -> Callable[..., Any] | None:
    """The handler's method `many`; None where it has none, or where a subclass has replaced only `single`."""
    if single in getattr(handler, "__dict__", {}):
        return None
    for owner in type(handler).__mro__:
        if many in vars(owner):
            return cast("Callable[..., Any]", getattr(handler, many))
        if single in vars(owner):
            return None
    return None


class JointCalls:
    """`decode_many` and `combine_many` of a handler. Each returns None when there is nothing to gain, or on a failure.

    A failure is logged once only: what fails is called again batch by batch, and its error is handled there.
    """

    def __init__(self, handler: BatchHandler) -> None:
        self._decode_many = joint_method(handler, "decode_many", "decode")
        self._combine_many = joint_method(handler, "combine_many", "combine")
        self._warned: set[str] = set()

    def decode(self, batches: Sequence[RecordBatch]) -> list[DecodedBatch] | None:
        """The decoded batches, each with its share of the time by its records."""
        if self._decode_many is None or len(batches) < 2:
            return None
        started = monotonic()
        decoded = self._try("decode_many", self._decode_many, batches)
        if decoded is None or [_place(batch) for batch in decoded] != [_place(batch) for batch in batches]:
            return None
        seconds = (monotonic() - started) / max(1, sum(len(batch.records) for batch in batches))
        return [measured(result, seconds * len(batch.records)) for batch, result in zip(batches, decoded, strict=True)]

    def combine(self, groups: Sequence[Sequence[DecodedBatch]]) -> list[tuple[PartitionCommit, float]] | None:
        """The combined commits, each with its share of the seconds by its records."""
        if self._combine_many is None or len(groups) < 2:
            return None
        started = monotonic()
        commits = self._try("combine_many", self._combine_many, groups)
        if commits is None or [_place(commit) for commit in commits] != [
            (group[0].claim, group[0].start, group[-1].end) for group in groups
        ]:
            return None
        seconds = (monotonic() - started) / max(1, sum(commit.stats.all_records for commit in commits))
        return [(commit, seconds * commit.stats.all_records) for commit in commits]

    def _try(self, name: str, method: Callable[..., Any], argument: Sequence[Any]) -> list[Any] | None:
        try:
            return list(method(argument))
        except Exception:
            if name not in self._warned:
                self._warned.add(name)
                logger.warning("%s failed; its batches are handled one by one.", name, exc_info=True)
            return None


def measured(decoded: DecodedBatch, seconds: float) -> DecodedBatch:
    """With the seconds that its decoding took, and its offsets."""
    offsets = {decoded.claim.topic_partition: OffsetSpan(decoded.start, decoded.end)}
    stats = decoded.stats.measured(seconds, offsets)
    if type(decoded) is not DecodedBatch:
        return replace(decoded, stats=stats)
    # What `replace` does, in a third of the time.
    return DecodedBatch(
        decoded.claim, decoded.start, decoded.end, stats, decoded.failures, decoded.work, decoded.leader_epoch
    )


def _place(batch: RecordBatch | DecodedBatch) -> tuple[Any, int, int]:
    return batch.claim, batch.start, batch.end
