"""What the page says is true: of one snapshot, with one number, and of the clock of now."""

from typing import Any

import pytest

from analytics.dashboard.read_model import Dashboard
from analytics.dashboard.snapshot import PartitionSnapshot, Snapshot
from offsets.models import PartitionCheckpoint, PartitionHealth
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_sample, make_worker

pytestmark = pytest.mark.django_db


def take() -> Snapshot:
    return Dashboard(GROUP).snapshot()


def only_partition() -> PartitionSnapshot:
    (partition,) = take()["partitions"]
    return partition


def make_health(checkpoint: PartitionCheckpoint, **fields: Any) -> None:
    PartitionHealth.objects.create(checkpoint=checkpoint, **fields)


def test_what_lies_ahead_of_a_clock_that_was_set_back_is_not_taken_for_just_seen() -> None:
    checkpoint = make_checkpoint(0, owner=make_worker(silent_for=-3600))
    make_sample(checkpoint, -3600, 367, 1000)
    make_health(checkpoint, status="OK", detail="Old.", assessed_at=ago(-3600))

    assert take()["log_sampled_age_seconds"] is None
    partition = only_partition()
    assert partition["owner_heartbeat_age_seconds"] == pytest.approx(3600, abs=5)
    assert (partition["status"], partition["log_end_offset"]) == ("OWNER DEAD", None)

    make_sample(checkpoint, 0, 2311, 1000)
    assert (only_partition()["log_end_offset"], only_partition()["lag"]) == (2311, 1311)
