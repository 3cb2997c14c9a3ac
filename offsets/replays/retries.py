"""When an attempt to replay failed offsets has failed: the ledger counts it and schedules the next one."""

from random import random

from django.conf import settings

from offsets import ledger
from offsets.models import LedgerRange
from offsets.ranges import OffsetRange
from offsets.replays.plans import retry_seconds
from offsets.types import RangeKind


def postpone(checkpoint_id: int, offsets: OffsetRange, detail: str) -> None:
    """Count a failed attempt and say why; the delay until the next one doubles. In the caller's transaction."""
    failed = LedgerRange.objects.filter(checkpoint_id=checkpoint_id, kind=RangeKind.FAILED)
    row = failed.filter(offsets__overlap=(offsets.start, offsets.end)).first()
    spread = random()  # noqa: S311 - no secret
    attempts = (row.attempts if row else 0) + 1
    seconds = retry_seconds(attempts, settings.REPLAY_FIRST_SECONDS, settings.REPLAY_ATTEMPTS, spread)
    ledger.retry_failed_later(checkpoint_id, offsets, seconds, detail)
