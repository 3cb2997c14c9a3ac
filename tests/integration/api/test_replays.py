"""Replays and accepted losses over the API."""

from typing import Any

import pytest
from django.test import Client

from offsets.api import replays
from offsets.models import (
    LedgerRange,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
)
from tests.support.api import HUGE, outcomes, post
from tests.support.page_rows import GROUP

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replays that were sent to a worker, instead of sending them."""
    found: list[int] = []
    monkeypatch.setattr(replays, "dispatch_replay", found.append)
    return found


def kinds_of(checkpoint: PartitionCheckpoint) -> list[tuple[int, int, str]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint).order_by("offsets")
    return [(row.offsets.lower, row.offsets.upper, row.kind) for row in rows]


def test_a_replay_is_previewed_begun_followed_and_cancelled(
    operator: Client, failed: PartitionCheckpoint, sent: list[int]
) -> None:
    place = {"checkpoint_id": failed.pk, "start": 5, "end": 33}
    shown = operator.get("/api/replays/preview/", place).json()
    assert (shown["to_count"], shown["by_kind"], shown["deduplicated"]) == (13, {"failed": 10, "skipped": 3}, 15)
    assert "13 offsets are counted" in shown["text"]
    assert not Replay.objects.exists()

    begun = post(
        operator,
        "/api/replays/",
        {
            "ranges": [{**place, "to_count": shown["to_count"]}],
            "reason": "the cause is gone",
            "records_per_second": 100,
        },
    )

    assert begun.status_code == 200
    replay = Replay.objects.get()
    assert begun.json()["replay_id"] == replay.pk
    assert (replay.username, replay.reason, replay.records_per_second) == ("olga", "the cause is gone", 100)
    assert sent == [replay.pk]
    detail = operator.get(f"/api/replays/{replay.pk}/").json()
    assert (detail["status"], detail["total_offsets"]) == ("queued", 28)
    assert [(one["start"], one["end"], one["state"]) for one in detail["ranges"]] == [(5, 33, "waiting")]
    assert [one["id"] for one in operator.get("/api/replays/").json()["items"]] == [replay.pk]
    asked = operator.get(f"/api/replays/{replay.pk}/cancel/").json()
    assert "28 of 28 offsets" in asked["text"]
    ended = post(operator, f"/api/replays/{replay.pk}/cancel/", {"reason": "not now"})
    assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")
    again = post(operator, f"/api/replays/{replay.pk}/cancel/", {"reason": "not now"})
    assert again.status_code == 409
    assert operator.get(f"/api/replays/{replay.pk}/cancel/").status_code == 409, "a preview refuses what apply would"
    assert [(kind, outcome) for kind, outcome, _, _ in outcomes()] == [
        *(("replay", "applied"), ("cancel_replay", "applied"), ("cancel_replay", "refused"))
    ]


def test_a_replay_of_what_has_changed_meanwhile_is_refused_and_audited(
    operator: Client, failed: PartitionCheckpoint, sent: list[int]
) -> None:
    wanted = {"checkpoint_id": failed.pk, "start": 10, "end": 20, "to_count": 9}
    answer = post(operator, "/api/replays/", {"ranges": [wanted], "reason": "r"})
    assert answer.status_code == 409
    assert "has changed since you looked" in answer.json()["error"]
    assert outcomes() == [("replay", "refused", "olga", "api")]
    assert sent == []
    assert not Replay.objects.exists()


def test_a_viewer_may_follow_replays_and_not_begin_one(
    viewer: Client, failed: PartitionCheckpoint, sent: list[int]
) -> None:
    wanted = {"checkpoint_id": failed.pk, "start": 10, "end": 20, "to_count": 10}
    replay = Replay.objects.create(group_id=GROUP, username="u", reason="r", total_offsets=10)

    assert viewer.get("/api/replays/").status_code == 200
    assert viewer.get(f"/api/replays/{replay.pk}/").status_code == 200
    assert viewer.get("/api/replays/preview/", wanted).status_code == 403
    assert viewer.get(f"/api/replays/{replay.pk}/cancel/").status_code == 403
    assert not OperatorAction.objects.exists()
    assert post(viewer, "/api/replays/", {"ranges": [wanted], "reason": "r"}).status_code == 403
    assert post(viewer, f"/api/replays/{replay.pk}/cancel/", {"reason": "r"}).status_code == 403
    assert outcomes() == [("replay", "refused", "victor", "api"), ("cancel_replay", "refused", "victor", "api")]
    replay.refresh_from_db()
    assert (replay.status, replay.cancel_requested) == ("queued", False)
    assert sent == []


RANGE = {"checkpoint_id": 1, "start": 0, "end": 5, "to_count": 5}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        {},
        {"reason": "r"},
        {"ranges": None, "reason": "r"},
        {"ranges": {"start": 1}, "reason": "r"},
        {"ranges": [5], "reason": "r"},
        {"ranges": [{**RANGE, "start": -1}], "reason": "r"},
        {"ranges": [{**RANGE, "start": 1.0}], "reason": "r"},
        {"ranges": [{**RANGE, "start": True}], "reason": "r"},
        {"ranges": [{**RANGE, "start": "²"}], "reason": "r"},
        {"ranges": [{**RANGE, "end": HUGE}], "reason": "r"},
        {"ranges": [{**RANGE, "end": 0}], "reason": "r"},
        {"ranges": [{"checkpoint_id": 1, "start": 0, "end": 5}], "reason": "r"},
        {"ranges": [RANGE], "reason": 5},
        {"ranges": [RANGE], "reason": " "},
        {"ranges": [RANGE], "reason": "x" * 501},
        {"ranges": [RANGE], "reason": "r", "records_per_second": 0},
        {"ranges": [RANGE], "reason": "r", "records_per_second": HUGE},
        {"ranges": [RANGE], "reason": "r", "records_per_second": "fast"},
        {"ranges": [RANGE], "reason": "r", "records_per_second": True},
        "x" * 300_000,
    ],
)
def test_a_replay_that_makes_no_sense_is_not_begun(operator: Client, sent: list[int], body: Any) -> None:
    answer = post(operator, "/api/replays/", body)
    assert answer.status_code == 400, answer.json()
    assert answer.json()["error"]
    assert not Replay.objects.exists()
    assert sent == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"checkpoint_id": "1", "start": "0"}, 400),
        ({"checkpoint_id": "x", "start": "0", "end": "5"}, 400),
        ({"checkpoint_id": "1", "start": "5", "end": "5"}, 400),
        ({"checkpoint_id": "1", "start": "0", "end": "9" * 30}, 400),
        ({"checkpoint_id": "9223372036854775807", "start": "0", "end": "5"}, 404),
        ({"checkpoint_id": "9" * 19, "start": "0", "end": "5"}, 404),
    ],
)
def test_a_replay_that_makes_no_sense_is_not_previewed(operator: Client, query: dict[str, str], status: int) -> None:
    assert operator.get("/api/replays/preview/", query).status_code == status


def test_what_there_is_not_is_not_found(operator: Client) -> None:
    for path in (
        f"/api/replays/{HUGE}/",
        "/api/replays/987654/",
        f"/api/replays/{HUGE}/cancel/",
        f"/api/dead-letters/{HUGE}/",
        "/api/dead-letters/explode/",
        f"/api/incidents/{HUGE}/",
        "/api/workers/nobody/evict/",
        "/api/workers/no%00body/evict/",
        "/api/workers/" + "w" * 5000 + "/evict/",
        "/api/recovery/",
    ):
        answer = operator.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]
    for path in (f"/api/replays/{HUGE}/cancel/", "/api/dead-letters/explode/"):
        assert post(operator, path, {"reason": "r"}).status_code == 404
    for worker in ("nobody", "no%00body"):
        answer = post(operator, f"/api/workers/{worker}/evict/", {"reason": "r", "seen": {"owned": []}})
        assert answer.status_code == 404


def test_failed_offsets_are_accepted_as_previewed(
    operator: Client, viewer: Client, failed: PartitionCheckpoint
) -> None:
    place = {"checkpoint_id": failed.pk, "start": 0, "end": 15}
    assert viewer.get("/api/failed/accept/", place).status_code == 403
    shown = operator.get("/api/failed/accept/", place).json()
    assert (shown["failed"], shown["target"]) == (5, f"{failed.topic}-0")
    body = {**place, "failed": 5, "reason": "worthless"}
    assert post(viewer, "/api/failed/accept/", body).status_code == 403
    assert post(operator, "/api/failed/accept/", {**body, "failed": 6}).status_code == 409
    assert (10, 20, "failed") in kinds_of(failed)

    done = post(operator, "/api/failed/accept/", body)

    assert done.status_code == 200
    assert kinds_of(failed)[:3] == [(0, 10, "processed"), (10, 15, "skipped"), (15, 20, "failed")]
    assert done.json()["action_id"] == OperatorAction.objects.get(outcome="applied").pk
    assert [(outcome, name) for _, outcome, name, _ in outcomes()] == [
        *(("refused", "victor"), ("refused", "olga"), ("applied", "olga"))
    ]
    assert post(operator, "/api/failed/accept/", body).status_code == 409


@pytest.mark.parametrize(
    "body",
    [{}, {"checkpoint_id": 1, "start": 0, "end": 5}, {**RANGE, "failed": -1}, {**RANGE, "end": 0, "failed": 1}, "[1]"],
)
def test_nonsense_is_not_accepted_as_lost(operator: Client, body: Any) -> None:
    answer = post(operator, "/api/failed/accept/", {**body, "reason": "r"} if isinstance(body, dict) else body)
    assert answer.status_code == 400
    assert not OperatorAction.objects.exists()
