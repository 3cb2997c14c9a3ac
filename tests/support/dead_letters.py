"""What the tests of dead letters share."""

import io
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.test import override_settings

from analytics.metrics_store import MetricsStore
from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.actions import dead_letters
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.dead_letters import DeadLettersOutcome
from offsets.actions.guards import Actor, Request, Source
from offsets.models import DeadLetter, PartitionCheckpoint
from offsets.monitoring import invariants
from offsets.types import Claim, RecordBatch
from tests.support.page_rows import GROUP
from tests.support.records import HOUR, START, Record, event

OPERATOR = Actor("olga", allowed=True)


LIMIT = 200


PENDING = DeadLetterFilter(GROUP)


partitions = pytest.mark.usefixtures("_partitions")


def big(kind: str = "share", user: int = 7, content: int = 9, at: int = START + 10 * HOUR) -> bytes:
    """An event that is right, and was larger than the limit when it was read."""
    return event(kind, user, content, at)[:-1] + b', "note": "' + b"x" * LIMIT + b'"}'


def live(number: int = 0) -> PartitionCheckpoint:
    return PartitionCheckpoint.objects.get(group_id=GROUP, partition=number, retired_at__isnull=True)


def read(values: Sequence[bytes | None], number: int = 0, **record: Any) -> list[int]:
    """Count a batch as a worker does, while events may not be larger than LIMIT. Returns its dead letters."""
    row = live(number)
    claim = Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset, tuple(row.dimensions), row.topic_id)
    records = [Record(row.next_offset + n, value, **record) for n, value in enumerate(values)]
    with override_settings(EVENT_MAX_BYTES=LIMIT):
        handler = EngagementProcessor()
    batch = RecordBatch(claim, row.next_offset, row.next_offset + len(values), records, 0)
    commit = handler.combine([handler.decode(batch)])
    with transaction.atomic():
        handler.insert([commit], connection)
        ledger.lock_for_commit([commit])
        handler.update([commit], connection)
        ledger.record_processed([commit], uuid.uuid4())
    found = DeadLetter.objects.filter(checkpoint=row, offset__gte=batch.start).order_by("offset")
    return list(found.values_list("pk", flat=True))


def act(
    kind: str, ids: Sequence[int], *, actor: Actor = OPERATOR, reason: str = "the limit is raised"
) -> DeadLettersOutcome:
    return dead_letters.resolve(kind, ids, Request(actor, reason, Source.API))


def totals() -> dict[str, int]:
    return {name: count for name, count in MetricsStore().totals(GROUP).items() if count}


def statuses() -> dict[int, str]:
    return dict(DeadLetter.objects.order_by("offset").values_list("offset", "status"))


def assert_whole(**expected: int) -> None:
    """I1 to I6 hold, and exactly so many events are counted."""
    result = invariants.check(GROUP)
    assert result.ok, result
    assert totals() == expected


def offsets_of(chosen: DeadLetterFilter) -> list[tuple[int, int]]:
    return list(chosen.rows().values_list("checkpoint__partition", "offset"))


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        call_command("dead_letters", *arguments, stdout=io.StringIO())
    assert error.value.returncode == 2
    return str(error.value)
