"""Who may ask, and how; workers, incidents and undo over the API."""

import json
from typing import Any

import pytest
from django.test import Client

from offsets.models import (
    IncidentEvent,
    Notification,
    OperatorAction,
    PartitionCheckpoint,
    Worker,
)
from tests.support.api import HUGE, client_of, make_incident, outcomes, post
from tests.support.page_rows import make_checkpoint, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


def test_a_worker_is_evicted_as_previewed(operator: Client, viewer: Client) -> None:
    checkpoint = make_checkpoint(3, owner=make_worker("w-1"))
    path = "/api/workers/w-1/evict/"
    assert viewer.get(path).status_code == 403
    shown = operator.get(path).json()
    assert shown["seen"] == {"owned": [checkpoint.pk]}
    assert shown["text"].startswith("Evict w-1: engagement-3 are fenced at once")
    assert post(viewer, path, {"reason": "r", "seen": shown["seen"]}).status_code == 403
    make_checkpoint(4, owner=Worker.objects.get())
    stale = post(operator, path, {"reason": "stuck", "seen": shown["seen"]})
    assert stale.status_code == 409
    assert Worker.objects.get().evicted_at is None

    done = post(operator, path, {"reason": "stuck", "seen": operator.get(path).json()["seen"]})

    assert done.status_code == 200
    assert Worker.objects.get().evicted_at is not None
    assert PartitionCheckpoint.objects.filter(owner=None, epoch=4).count() == 2
    assert operator.get(path).status_code == 409
    assert [(outcome, name) for _, outcome, name, _ in outcomes()] == [
        *(("refused", "victor"), ("refused", "olga"), ("applied", "olga"))
    ]


@pytest.mark.parametrize(
    "seen", [None, 5, [], {}, {"owned": None}, {"owned": "1"}, {"owned": ["1"]}, {"owned": [True]}]
)
def test_an_eviction_must_say_what_was_seen(operator: Client, seen: Any) -> None:
    make_worker("w-1")
    assert post(operator, "/api/workers/w-1/evict/", {"reason": "r", "seen": seen}).status_code == 400
    assert Worker.objects.get().evicted_at is None


def test_an_incident_is_shown_whole(viewer: Client) -> None:
    incident = make_incident(evidence="a stack", ranges=[{"topic": "t", "partition": 0, "kind": "unread", "start": 1}])
    IncidentEvent.objects.create(incident=incident, text="Detected")
    IncidentEvent.objects.create(incident=incident, text="Evicted", source="operator")
    Notification.objects.create(incident=incident, event="opened", channel="email")
    shown = viewer.get(f"/api/incidents/{incident.pk}/").json()
    assert (shown["kind"], shown["evidence"], shown["closed_at"]) == ("worker_dead", "a stack", None)
    assert [(one["source"], one["text"]) for one in shown["timeline"]] == [
        *(("manager", "Detected"), ("operator", "Evicted"))
    ]
    assert shown["notifications"][0]["status"] == "pending"
    assert shown["ranges"] == incident.ranges


READS = [
    "/api/replays/",
    "/api/replays/1/",
    "/api/replays/preview/",
    "/api/replays/1/cancel/",
    "/api/failed/accept/",
    "/api/dead-letters/",
    "/api/dead-letters/1/",
    "/api/dead-letters/requeue/",
    "/api/workers/w-1/evict/",
    "/api/incidents/1/",
    "/api/actions/1/undo/",
]


WRITES = [
    "/api/replays/",
    "/api/replays/1/cancel/",
    "/api/failed/accept/",
    "/api/dead-letters/requeue/",
    "/api/dead-letters/discard/",
    "/api/dead-letters/reopen/",
    "/api/workers/w-1/evict/",
    "/api/actions/1/undo/",
]


@pytest.mark.parametrize("path", READS)
def test_strangers_see_nothing(path: str) -> None:
    assert Client().get(path).status_code == 403
    assert client_of("nobody").get(path).status_code == 403


@pytest.mark.parametrize("path", WRITES)
def test_every_door_checks_for_csrf_and_login(path: str) -> None:
    make_worker("w-1")
    client = client_of("olga", "operator", enforce_csrf_checks=True)
    answer = post(client, path, {"reason": "r"})
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["error"]
    assert post(Client(), path, {"reason": "r"}).status_code == 403
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize("path", sorted({*READS, *WRITES}))
def test_other_methods_are_refused(operator: Client, path: str) -> None:
    for method in ("put", "patch", "delete"):
        assert getattr(operator, method)(path).status_code == 405
    if path not in WRITES:
        assert post(operator, path, {}).status_code == 405


def test_a_pause_is_undone_by_an_operator_and_not_by_a_viewer(operator: Client, viewer: Client) -> None:
    checkpoint = make_checkpoint()
    seen = {"epoch": 3, "owner": None, "desired_state": "running"}
    done = post(operator, f"/api/partitions/{checkpoint.pk}/pause/", {"reason": "r", "seen": seen}).json()
    path = f"/api/actions/{done['action_id']}/undo/"
    assert viewer.get(path).status_code == 403
    assert post(viewer, path, {"reason": "r"}).status_code == 403
    assert PartitionCheckpoint.objects.get().desired_state == "paused"
    assert operator.get(path).json()["texts"][0].startswith("Resume engagement-0")
    assert post(operator, path, {"reason": ""}).status_code == 400
    assert post(operator, path, {"reason": "done"}).json()["kind"] == "resume"
    assert PartitionCheckpoint.objects.get().desired_state == "running"
    assert OperatorAction.objects.get(kind="resume", outcome="applied").undoes_id == done["action_id"]
    assert operator.get(path).status_code == 409
    assert operator.get(f"/api/actions/{HUGE}/undo/").status_code in (404, 409)


def test_an_undo_that_is_refused_leaves_a_trace(viewer: Client) -> None:
    checkpoint = make_checkpoint(owner=make_worker())
    done = OperatorAction.objects.create(
        kind="pause", checkpoint=checkpoint, username="olga", target="t", source="api", reason="r", outcome="applied"
    )
    assert post(viewer, f"/api/actions/{done.pk}/undo/", {"reason": "r"}).status_code == 403
    assert outcomes()[-1] == ("undo", "refused", "victor", "api")


def test_a_reason_that_is_no_text_is_refused(operator: Client) -> None:
    checkpoint = make_checkpoint(owner=make_worker())
    seen = {"epoch": 3, "owner": "w-1", "desired_state": "running"}
    answer = operator.post(
        f"/api/partitions/{checkpoint.pk}/pause/",
        json.dumps({"seen": seen}).replace("{", '{"reason": "\\ud800", ', 1),
        content_type="application/json",
    )
    assert answer.status_code == 400
    assert answer.json()["error"] == "`reason` must be text."
