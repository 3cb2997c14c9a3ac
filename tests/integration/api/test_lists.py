"""The page's lists: bounded, in order, of one group."""

import pytest

from analytics.dashboard import lists
from offsets.models import (
    DeadLetter,
    IncidentEvent,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
)
from tests.support.api import make_incident, make_letter
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


def test_the_pages_lists_are_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "SHOWN", 4)
    monkeypatch.setattr(lists, "TIMELINE_SHOWN", 2)
    checkpoint, other = make_checkpoint(0, next_offset=100), make_checkpoint(0, group_id="another")
    closed = [make_incident(subject=f"c{n}", closed_at=ago(n)) for n in range(5)]
    warned = make_incident(subject="warned", severity="warning")
    critical = make_incident(subject="critical", evidence="seen")
    for number in range(3):
        IncidentEvent.objects.create(incident=critical, text=f"step {number}")
    for number, kind in enumerate(["expired", "skipped", "failed", "skipped", "expired", "failed"]):
        make_range(checkpoint, number * 10, number * 10 + 10, kind, detail=f"d{number}", epoch=3)
    make_range(checkpoint, 60, 100)
    make_range(other, 0, 10, "failed")
    make_sample(checkpoint, 1, 100, 100)
    created = [make_letter(checkpoint, offset, created_at=ago(offset)) for offset in range(6)]
    DeadLetter.objects.filter(pk=created[0].pk).update(status="counted")
    done = [Replay.objects.create(group_id=GROUP, username="u", reason="r", status="done") for _ in range(4)]
    running = Replay.objects.create(group_id=GROUP, username="u", reason="r", status="running", started_at=ago(10))
    Replay.objects.create(group_id=GROUP, username="u", reason="r", status="cancelled", pk=running.pk + 9)
    for number in range(6):
        OperatorAction.objects.create(
            kind="pause", username="u", target="t", source="api", reason=str(number), outcome="applied"
        )
    last = OperatorAction.objects.order_by("-pk")[0]
    OperatorAction.objects.create(
        kind="resume", username="u", target="t", source="api", reason="back", outcome="applied", undoes=last
    )

    found = lists.recovery(GROUP, [checkpoint.pk])

    assert [one["subject"] for one in found["incidents"]] == ["critical", "warned", "c4", "c3"]
    assert found["incidents"][0]["has_evidence"]
    assert [one["text"] for one in found["incidents"][0]["timeline"]] == ["step 1", "step 2"]
    assert found["incidents"][2]["recover_seconds"] is not None
    assert (found["incidents"][1]["id"], found["incidents"][1]["recover_seconds"]) == (warned.pk, None)
    assert closed[0].subject not in [one["subject"] for one in found["incidents"]]
    assert [(one["kind"], one["start"]) for one in found["uncounted"]] == [
        *(("failed", 50), ("failed", 20), ("skipped", 30), ("skipped", 10))
    ]
    assert {one["gone"] for one in found["uncounted"]} == {False}
    assert [one["offset"] for one in found["dead_letters"]] == [1, 2, 3, 4]
    assert [one["status"] for one in found["replays"]] == ["running", "cancelled", "done", "done"]
    assert found["replays"][2]["id"] == done[-1].pk
    assert [one["reason"] for one in found["actions"]] == ["back", "5", "4", "3"]
    assert [(one["undone"], one["undoable"]) for one in found["actions"][:3]] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_the_actions_of_another_group_are_on_its_own_page() -> None:
    mine, theirs = make_checkpoint(), make_checkpoint(group_id="another")
    for reason, checkpoint in (("mine", mine), ("theirs", theirs), ("of no partition", None)):
        OperatorAction.objects.create(
            kind="pause",
            checkpoint=checkpoint,
            username="u",
            target="t",
            source="api",
            reason=reason,
            outcome="applied",
        )
    shown = [one["reason"] for one in lists.recovery(GROUP, [mine.pk])["actions"]]
    assert shown == ["of no partition", "mine"]


def test_what_kafka_has_deleted_cannot_be_replayed_any_more() -> None:
    checkpoint = make_checkpoint(next_offset=40)
    make_range(checkpoint, 0, 20, "failed")
    make_range(checkpoint, 20, 40, "skipped")
    (first, second) = lists.recovery(GROUP, [checkpoint.pk])["uncounted"]
    assert (first["gone"], second["gone"]) == (None, None), "nobody has looked"
    checkpoint.lag_samples.create(log_start_offset=20, log_end_offset=50, next_offset=40)
    (first, second) = lists.recovery(GROUP, [checkpoint.pk])["uncounted"]
    assert (first["gone"], second["gone"]) == (True, False)


def test_what_a_live_worker_has_claimed_is_no_loss() -> None:
    checkpoint = make_checkpoint(next_offset=40, owner=make_worker("w-1"))
    make_range(checkpoint, 0, 20, "claimed", epoch=2)
    make_range(checkpoint, 20, 40, "claimed", epoch=3)
    assert [one["start"] for one in lists.recovery(GROUP, [checkpoint.pk])["uncounted"]] == [0]
    PartitionCheckpoint.objects.update(owner=None)
    assert [one["start"] for one in lists.recovery(GROUP, [checkpoint.pk])["uncounted"]] == [20, 0]
