"""The API is about one group: what belongs to another is unknown to it. And refusals without number fill no table."""

import json
from typing import Any

import pytest
from django.test import Client

from offsets import ledger
from offsets.actions import audit, dead_letters, reconcile
from offsets.actions.guards import Actor, Request, Source
from offsets.kafka.admin import KafkaAdmin
from offsets.models import OperatorAction, PartitionCheckpoint, Replay, Worker
from offsets.types import DeadLetterStatus
from tests.support.api import client_of, make_incident, make_letter, post
from tests.support.page_rows import make_checkpoint, make_range, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

OTHER = "another-group"
SEEN = {"epoch": 3, "owner": None, "desired_state": "running", "next_offset": 1000}


def no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Kafka nor a store may be asked, and no row be locked."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("A service was asked, or a row locked.")

    for target, name in (
        (KafkaAdmin, "describe_topics"),
        (KafkaAdmin, "log_bounds"),
        (reconcile, "open_store"),
        (ledger, "lock_checkpoint"),
        (ledger, "lock_checkpoints"),
        (ledger, "lock_dead_letters"),
    ):
        monkeypatch.setattr(target, name, asked)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Rows of another group, and no Kafka: whatever asks it fails."""

    no_services(monkeypatch)
    checkpoint = make_checkpoint(group_id=OTHER)
    make_range(checkpoint, 0, 10, "failed")
    worker = make_worker("w-other", group_id=OTHER)
    letter = make_letter(checkpoint, 5)
    replay = Replay.objects.create(group_id=OTHER, username="olga", reason="r", total_offsets=1)
    return {
        "checkpoint": checkpoint.pk,
        "letter": letter.pk,
        "worker": worker.pk,
        "incident": _incident(),
        "replay": replay.pk,
        "pause": _applied("pause", checkpoint),
        "discard": _discarded(checkpoint),
    }


def _incident() -> int:
    incident = make_incident()
    type(incident).objects.filter(pk=incident.pk).update(group_id=OTHER)
    return incident.pk


def _applied(kind: str, checkpoint: PartitionCheckpoint | None) -> int:
    request = Request(Actor("olga", allowed=True), "r", Source.API)
    return audit.applied(kind, checkpoint, request, before={}, after={}, detail="", target="t").pk


def _discarded(checkpoint: PartitionCheckpoint) -> int:
    """As of several partitions: the row of the action names none."""
    action = OperatorAction.objects.get(pk=_applied(dead_letters.DISCARD, None))
    make_letter(checkpoint, 6, status=DeadLetterStatus.DISCARDED, action=action)
    return action.pk


READS = [
    "/api/partitions/{checkpoint}/preview/pause/",
    "/api/partitions/{checkpoint}/preview/seek/?to=latest",
    "/api/partitions/{checkpoint}/preview/rebuild/",
    "/api/partitions/{checkpoint}/reconcile/redis/",
    "/api/replays/{replay}/",
    "/api/replays/{replay}/cancel/",
    "/api/replays/preview/?checkpoint_id={checkpoint}&start=0&end=10",
    "/api/failed/accept/?checkpoint_id={checkpoint}&start=0&end=10",
    "/api/dead-letters/{letter}/",
    "/api/workers/{worker}/evict/",
    "/api/incidents/{incident}/",
]
WRITES: list[tuple[str, dict[str, Any]]] = [
    ("/api/partitions/{checkpoint}/pause/", {"seen": SEEN}),
    ("/api/partitions/{checkpoint}/seek/", {"seen": SEEN, "to": "latest"}),
    ("/api/partitions/{checkpoint}/rebuild/", {"seen": SEEN}),
    ("/api/partitions/{checkpoint}/reconcile/redis/", {"stored": None}),
    ("/api/replays/", {"ranges": [{"checkpoint_id": "checkpoint", "start": 0, "end": 10, "to_count": 10}]}),
    ("/api/replays/{replay}/cancel/", {}),
    ("/api/failed/accept/", {"checkpoint_id": "checkpoint", "start": 0, "end": 10, "failed": 10}),
    ("/api/dead-letters/discard/", {"ids": ["letter"]}),
    ("/api/workers/{worker}/evict/", {"seen": {"owned": []}}),
]


@pytest.mark.parametrize("path", READS)
def test_nothing_of_another_group_is_read(operator: Client, foreign: dict[str, Any], path: str) -> None:
    answer = operator.get(path.format(**foreign))

    assert answer.status_code == 404
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize(("path", "body"), WRITES, ids=[path for path, _ in WRITES])
def test_nothing_of_another_group_is_changed(
    operator: Client, foreign: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    actions = OperatorAction.objects.count()
    text = json.dumps({"reason": "r", **body})
    for name in ("checkpoint", "letter"):
        text = text.replace(f'"{name}"', str(foreign[name]))

    assert post(operator, path.format(**foreign), text).status_code == 404

    assert OperatorAction.objects.count() == actions
    assert PartitionCheckpoint.objects.get().desired_state == "running"
    assert Worker.objects.get().evicted_at is None
    assert not Replay.objects.get().cancel_requested


@pytest.mark.parametrize("name", ["pause", "discard"])
def test_no_action_on_another_group_is_undone(operator: Client, foreign: dict[str, Any], name: str) -> None:
    path = f"/api/actions/{foreign[name]}/undo/"

    assert operator.get(path).status_code == 409
    answer = post(operator, path, {"reason": "r"})

    assert answer.status_code == 409
    assert "No applied action" in answer.json()["error"]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    no_services(monkeypatch)
    checkpoint = make_checkpoint()
    make_range(checkpoint, 0, 10, "failed")
    return {
        "checkpoint": checkpoint.pk,
        "letter": make_letter(checkpoint, 5).pk,
        "worker": make_worker("w-1").pk,
        "replay": Replay.objects.create(group_id=checkpoint.group_id, username="olga", reason="r").pk,
        "incident": make_incident().pk,
    }


@pytest.mark.parametrize(
    "path", [path for path in READS if not path.endswith(("{replay}/", "{letter}/", "{incident}/"))]
)
def test_no_preview_asks_anything_for_a_viewer(viewer: Client, own: dict[str, Any], path: str) -> None:
    assert viewer.get(path.format(**own)).status_code == 403


@pytest.mark.parametrize(("path", "body"), WRITES, ids=[path for path, _ in WRITES])
def test_no_action_asks_or_locks_anything_for_a_viewer(
    viewer: Client, own: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    text = json.dumps({"reason": "r", **body})
    for name in ("checkpoint", "letter"):
        text = text.replace(f'"{name}"', str(own[name]))

    assert post(viewer, path.format(**own), text).status_code == 403


def test_refusals_without_number_are_counted_not_written(viewer: Client) -> None:
    checkpoint = make_checkpoint()
    limit, more = audit.MAX_REFUSALS_PER_MINUTE, 7
    for _ in range(limit + more):
        refused = post(viewer, f"/api/partitions/{checkpoint.pk}/pause/", {"reason": "r", "seen": SEEN})
        assert refused.status_code == 403
    post(client_of("vera", "viewer"), f"/api/partitions/{checkpoint.pk}/pause/", {"reason": "r", "seen": SEEN})

    rows = list(OperatorAction.objects.order_by("pk"))
    assert [row.username for row in rows] == ["victor"] * limit + ["vera"], "others are recorded as before"
    assert rows[-2].after[audit.MORE_REFUSED] == more
    assert rows[-2].detail.endswith(f"Not recorded one by one: {more} more refused within a minute.")
    assert "may not pause partitions" in rows[-2].detail


def test_after_a_minute_refusals_are_recorded_again(viewer: Client) -> None:
    checkpoint = make_checkpoint()
    path, body = f"/api/partitions/{checkpoint.pk}/pause/", {"reason": "r", "seen": SEEN}
    for _ in range(audit.MAX_REFUSALS_PER_MINUTE):
        post(viewer, path, body)
    OperatorAction.objects.update(created_at="2020-01-01T00:00:00Z")

    post(viewer, path, body)

    assert OperatorAction.objects.count() == audit.MAX_REFUSALS_PER_MINUTE + 1
    assert audit.MORE_REFUSED not in OperatorAction.objects.latest("pk").after
