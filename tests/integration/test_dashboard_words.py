"""What the page says is true: of one snapshot, with one number, and of the clock of now."""

from typing import Any

import pytest

from analytics.dashboard.read_model import Dashboard
from analytics.dashboard.snapshot import PartitionSnapshot, Snapshot
from offsets.models import Incident, LagSample, OperatorAction, PartitionCheckpoint, PartitionHealth
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_worker

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


# --- One snapshot, one number ---------------------------------------------------------------------


def test_the_sentence_the_row_and_the_headline_show_the_same_lag() -> None:
    """The recovery manager judged a second ago, when the lag was another."""
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=1000)
    for seconds_ago, log_end in ((60, 900), (20, 1100), (1, 3000)):
        make_sample(checkpoint, seconds_ago, log_end, 1000)
    make_health(checkpoint, status="LAGGING", detail="{lag} and {behind} behind, not catching up.")

    snapshot = take()

    (partition,) = snapshot["partitions"]
    assert partition["lag"] == 2000
    assert partition["lag_seconds"] == pytest.approx(39, abs=2)
    behind = f"{partition['lag_seconds']:.0f} s"
    assert partition["status_detail"] == f"2,000 records and {behind} behind, not catching up."
    assert snapshot["headline"].startswith(f"engagement-0 is lagging. Lag 2,000 ({behind}).")
    assert snapshot["advice"] == f"engagement-0: {partition['status_detail']}"


def test_a_partition_that_has_read_everything_since_it_was_judged_is_not_shown_as_late() -> None:
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=3000)
    make_sample(checkpoint, 20, 1100, 1000)
    make_sample(checkpoint, 0, 3000, 1000)
    make_health(checkpoint, status="LAGGING", detail="{lag} and {behind} behind.", eta_seconds=14.0)

    partition = only_partition()

    assert (partition["status"], partition["lag"], partition["eta_seconds"]) == ("OK", 0, 0.0)
    assert partition["status_since"] is None, "the verdict that began then is not the one that is shown"


def test_an_open_transaction_is_since_the_log_end_is_held() -> None:
    """A quiet topic at first; then others write behind the transaction."""
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=1000)
    for seconds_ago, high in ((100, None), (90, 1000), (80, 1010), (60, None), (40, 1500), (0, 2000)):
        LagSample.objects.create(
            checkpoint=checkpoint,
            sampled_at=ago(seconds_ago),
            log_start_offset=0,
            log_end_offset=1000,
            high_watermark=high,
            next_offset=1000,
        )

    partition = only_partition()

    assert (partition["status"], partition["lag"]) == ("OPEN TRANSACTION", 0)
    assert (partition["open_transaction_records"], partition["high_watermark"]) == (1000, 2000)
    since = LagSample.objects.get(high_watermark=1010).sampled_at
    assert partition["open_transaction_since"] == since.isoformat()
    assert f"1,000 records since {since:%H:%M:%S} UTC." in partition["status_detail"]


def test_a_failed_range_shows_what_failed() -> None:
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=1000)
    make_range(checkpoint, 0, 900)
    make_range(checkpoint, 900, 1000, "failed", retry_at=ago(-60))

    snapshot = take()

    (partition,) = snapshot["partitions"]
    assert [(piece["kind"], piece["failed_records"]) for piece in partition["ranges"]] == [
        ("processed", 0),
        ("failed", 100),
    ]
    assert snapshot["worst_status"] == "ATTENTION"
    assert snapshot["advice"] == "100 offsets could not be applied yet; an automatic replay retries."


def test_an_open_incident_is_never_green() -> None:
    make_sample(make_checkpoint(0, owner=make_worker()), 0, 1000, 1000)
    assert (take()["worst_status"], take()["advice"]) == ("OK", "No action needed.")
    Incident.objects.create(
        group_id=GROUP,
        kind="kafka_unavailable",
        subject="kafka",
        severity="critical",
        summary="Kafka does not respond.",
        began_at=ago(1),
    )

    snapshot = take()

    assert (snapshot["worst_status"], snapshot["advice"]) == ("INCIDENT", "Kafka does not respond.")
    assert "1 open incident." in snapshot["headline"]


def test_right_after_a_resume_the_lag_of_the_pause_is_no_verdict_on_the_worker() -> None:
    """Without a recovery manager the page judges by itself."""
    checkpoint = make_checkpoint(0, owner=make_worker(), next_offset=1000, claimed_at=ago(600))
    for seconds_ago in range(60, -1, -1):
        make_sample(checkpoint, seconds_ago, 7000 - 100 * seconds_ago, 1000)
    assert only_partition()["status"] == "LAGGING"
    action = OperatorAction.objects.create(
        kind="resume", target="engagement-0", outcome="applied", checkpoint=checkpoint, created_at=ago(0.5)
    )
    PartitionCheckpoint.objects.update(last_action=action)

    partition = only_partition()

    assert (partition["status"], partition["lag"], partition["eta_seconds"]) == ("CATCHING UP", 6000, None)
