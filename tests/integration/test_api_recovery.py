"""Recovery over HTTP and in the admin: a GET previews, a POST does exactly that, and nothing else gets through."""

import json
import uuid
from typing import Any

import pytest
from confluent_kafka import Producer
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from analytics.dashboard import lists
from analytics.processor import EngagementProcessor
from offsets.actions import dead_letters
from offsets.api import replays
from offsets.kafka.admin import KafkaAdmin
from offsets.models import (
    DeadLetter,
    Incident,
    IncidentEvent,
    LedgerRange,
    Notification,
    OperatorAction,
    PartitionCheckpoint,
    Replay,
    ReplayRange,
    Worker,
)
from tests.harness import wait_for
from tests.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_user, make_worker
from tests.unit.test_aggregation import event

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

HUGE = 10**30


def client_of(name: str, *groups: str, enforce_csrf_checks: bool = False, **fields: Any) -> Client:
    client = Client(enforce_csrf_checks=enforce_csrf_checks)
    client.force_login(make_user(name, *groups, **fields))
    return client


@pytest.fixture
def operator() -> Client:
    return client_of("olga", "operator")


@pytest.fixture
def viewer() -> Client:
    return client_of("victor", "viewer")


def post(client: Client, path: str, body: Any) -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return client.post(path, data, content_type="application/json")


def make_letter(checkpoint: PartitionCheckpoint, offset: int, **fields: Any) -> DeadLetter:
    defaults = {"error_code": "too_large", "error_detail": "d", "value": event("view", 1, 2), "key": b"2"}
    return DeadLetter.objects.create(checkpoint=checkpoint, offset=offset, **(defaults | fields))


@pytest.fixture
def topic(stack: Any) -> str:
    """A real topic with 50 records."""
    name = f"api-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(name, 1)
    wait_for("the topic", lambda: admin.describe_topics([name]))
    producer = Producer({"bootstrap.servers": django_settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(50):
        producer.produce(name, str(number).encode())
    assert producer.flush(30) == 0
    return name


@pytest.fixture
def failed(topic: str) -> PartitionCheckpoint:
    """Of 40 offsets, [10, 20) failed and [30, 35) were skipped."""
    topic_id = KafkaAdmin().describe_topic(topic).topic_id
    checkpoint = make_checkpoint(topic=topic, topic_id=topic_id, next_offset=40)
    for start, end, kind in ((0, 10, "processed"), (10, 20, "failed"), (20, 30, "processed"), (30, 35, "skipped")):
        make_range(checkpoint, start, end, kind)
    make_range(checkpoint, 35, 40)
    return checkpoint


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replays that were sent to a worker, instead of sending them."""
    found: list[int] = []
    monkeypatch.setattr(replays, "dispatch_replay", found.append)
    return found


def kinds_of(checkpoint: PartitionCheckpoint) -> list[tuple[int, int, str]]:
    rows = LedgerRange.objects.filter(checkpoint=checkpoint).order_by("offsets")
    return [(row.offsets.lower, row.offsets.upper, row.kind) for row in rows]


def outcomes() -> list[tuple[str, str, str, str]]:
    rows = OperatorAction.objects.order_by("pk")
    return list(rows.values_list("kind", "outcome", "username", "source"))


# --- Replays --------------------------------------------------------------------------------------


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


# --- Failed ranges --------------------------------------------------------------------------------


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


# --- Dead letters ---------------------------------------------------------------------------------


@pytest.fixture
def lettered() -> list[DeadLetter]:
    """Two letters that could be counted now, and one that could not."""
    dimensions = list(EngagementProcessor().dimensions)
    checkpoint = make_checkpoint(3, dimensions=dimensions)
    make_range(checkpoint, 0, 1000, records=997, failed_records=3)
    return [
        make_letter(checkpoint, 5),
        make_letter(checkpoint, 6, value=b"<b>nonsense", error_code="not_json"),
        make_letter(checkpoint, 7),
    ]


def test_letters_are_listed_in_pages_and_by_filter(viewer: Client, lettered: list[DeadLetter]) -> None:
    other = make_checkpoint(4)
    extra = make_letter(other, 1, status="discarded")
    ids = [letter.pk for letter in lettered]

    def listed(**query: Any) -> list[int]:
        answer = viewer.get("/api/dead-letters/", query)
        assert answer.status_code == 200
        return [item["id"] for item in answer.json()["items"]]

    assert listed() == ids[::-1]
    assert listed(before=ids[2]) == [ids[1], ids[0]]
    assert listed(status="all") == [extra.pk, *ids[::-1]]
    assert listed(status="discarded") == [extra.pk]
    assert listed(error_code="not_json") == [ids[1]]
    assert listed(topic="engagement", partition="3") == ids[::-1]
    assert listed(partition=str(HUGE)[:19]) == []
    assert listed(ids=f"{ids[0]},{ids[2]}") == [ids[2], ids[0]]
    whole = viewer.get(f"/api/dead-letters/{ids[1]}/").json()
    assert (whole["value"], whole["offset"], whole["topic"]) == ("<b>nonsense", 6, "engagement")


def test_a_list_of_letters_is_bounded(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_LISTED", 3)
    checkpoint = make_checkpoint()
    ids = [make_letter(checkpoint, offset).pk for offset in range(5)]
    data = viewer.get("/api/dead-letters/").json()
    assert data["count"] == 5
    assert [item["id"] for item in data["items"]] == ids[:1:-1]
    rest = viewer.get("/api/dead-letters/", {"before": data["items"][-1]["id"]}).json()
    assert [item["id"] for item in rest["items"]] == [ids[1], ids[0]]


@pytest.mark.parametrize(
    "query",
    [
        {"status": "lost"},
        {"partition": "x"},
        {"partition": "-1"},
        {"ids": "1,x"},
        {"before": "x"},
        {"topic": "a\x00b"},
        {"error_code": "\x00"},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(operator: Client, query: dict[str, str]) -> None:
    answer = operator.get("/api/dead-letters/", query)
    assert answer.status_code == 400
    assert answer.json()["error"]
    if "before" not in query:
        assert operator.get("/api/dead-letters/requeue/", query).status_code == 400


def test_letters_are_requeued_exactly_as_previewed(operator: Client, lettered: list[DeadLetter]) -> None:
    shown = operator.get("/api/dead-letters/requeue/", {"topic": "engagement"}).json()
    assert (shown["will_change"], shown["still_fail"]) == (2, 1)
    assert shown["ids"] == [letter.pk for letter in lettered]
    late = make_letter(lettered[0].checkpoint, 9)

    done = post(operator, "/api/dead-letters/requeue/", {"ids": shown["ids"], "reason": "the limit is raised"})

    assert done.status_code == 200
    assert (done.json()["changed"], done.json()["still_fail"]) == (2, 1)
    assert done.json()["reasons"] == shown["reasons"]
    statuses = dict(DeadLetter.objects.values_list("offset", "status"))
    assert statuses == {5: "counted", 6: "pending", 7: "counted", late.offset: "pending"}
    again = post(operator, "/api/dead-letters/requeue/", {"ids": shown["ids"], "reason": "again"})
    assert again.status_code == 409
    assert "is counted already" in again.json()["error"]
    assert outcomes() == [("requeue", "applied", "olga", "api"), ("requeue", "refused", "olga", "api")]


def test_letters_are_discarded_reopened_and_the_discard_undone(operator: Client, lettered: list[DeadLetter]) -> None:
    ids = [letter.pk for letter in lettered]
    done = post(operator, "/api/dead-letters/discard/", {"ids": ids, "reason": "worthless"}).json()
    assert done["changed"] == 3
    assert operator.get("/api/dead-letters/reopen/").json()["ids"] == ids, "it looks for discarded ones by itself"
    asked = operator.get(f"/api/actions/{done['action_id']}/undo/").json()
    assert asked["texts"] == ["Reopen 3 discarded dead letters: pending again."]
    undone = post(operator, f"/api/actions/{done['action_id']}/undo/", {"reason": "not worthless"})
    assert undone.status_code == 200
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"pending"}
    assert post(operator, f"/api/actions/{done['action_id']}/undo/", {"reason": "again"}).status_code == 409
    post(operator, "/api/dead-letters/discard/", {"ids": ids[:1], "reason": "worthless"})
    assert post(operator, "/api/dead-letters/reopen/", {"ids": ids[:1], "reason": "r"}).status_code == 200


def test_a_viewer_reads_letters_and_acts_on_none(viewer: Client, lettered: list[DeadLetter]) -> None:
    ids = [letter.pk for letter in lettered]
    for kind in ("requeue", "discard", "reopen"):
        assert viewer.get(f"/api/dead-letters/{kind}/").status_code == 403
        answer = post(viewer, f"/api/dead-letters/{kind}/", {"ids": ids, "reason": "r"})
        assert answer.status_code == 403
        assert "victor may not" in answer.json()["error"]
    assert [(kind, outcome) for kind, outcome, _, _ in outcomes()] == [
        *(("requeue", "refused"), ("discard", "refused"), ("reopen", "refused"))
    ]
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"pending"}


@pytest.mark.parametrize(
    "ids", [None, [], "all", {"1": 1}, ["1"], [True], [0], [-1], [1.5], [HUGE], [None], [[1]]], ids=repr
)
def test_letters_that_are_no_letters_are_refused(operator: Client, ids: Any) -> None:
    assert post(operator, "/api/dead-letters/discard/", {"ids": ids, "reason": "r"}).status_code == 400
    assert not OperatorAction.objects.exists()


def test_too_many_letters_at_once_are_refused(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_LETTERS", 3)
    answer = post(operator, "/api/dead-letters/discard/", {"ids": [1, 2, 3, 4], "reason": "r"})
    assert answer.status_code == 409
    assert "At most 3" in answer.json()["error"]


# --- Workers and incidents ------------------------------------------------------------------------


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


def make_incident(**fields: Any) -> Incident:
    defaults = {"kind": "worker_dead", "subject": "w-1", "summary": "w-1 is dead.", "began_at": timezone.now()}
    return Incident.objects.create(group_id=GROUP, **(defaults | fields))


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


# --- The doors ------------------------------------------------------------------------------------

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


# --- The page's lists -----------------------------------------------------------------------------


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


# --- The admin ------------------------------------------------------------------------------------

LETTERS = "/admin/offsets/deadletter/"
WORKERS = "/admin/offsets/worker/"


def staff(name: str, *groups: str) -> Client:
    return client_of(name, *groups, is_staff=True)


def chosen(kind: str, *ids: Any, **fields: Any) -> dict[str, Any]:
    return {"action": kind, "_selected_action": list(ids), "index": "0"} | fields


def test_the_admin_requeues_with_a_reason_and_tells_what_fails(lettered: list[DeadLetter]) -> None:
    client, ids = staff("omar", "operator"), [letter.pk for letter in lettered]
    page = client.post(LETTERS, chosen("requeue", *ids)).content.decode()
    assert "Requeue 2 dead letters: counted now" in page
    assert "Fails again: " in page
    assert "<b>nonsense" not in page
    assert "Say why" in client.post(LETTERS, chosen("requeue", *ids, confirmed="1", reason=" ")).content.decode()
    assert not OperatorAction.objects.exists()
    done = client.post(LETTERS, chosen("requeue", *ids, confirmed="1", reason="fixed"), follow=True)
    assert "2 changed, 1 left as they are." in done.content.decode()
    assert outcomes() == [("requeue", "applied", "omar", "admin")]


def test_the_admin_acts_for_operators_alone(lettered: list[DeadLetter]) -> None:
    viewer = staff("vera", "viewer")
    make_worker("w-1")
    page = viewer.get(LETTERS).content.decode()
    for kind in ("requeue", "discard", "reopen"):
        assert f'value="{kind}"' not in page
        viewer.post(LETTERS, chosen(kind, lettered[0].pk, confirmed="1", reason="r"))
    viewer.post(WORKERS, chosen("evict", "w-1", confirmed="1", reason="r"))
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"pending"}
    assert Worker.objects.get().evicted_at is None
    assert not OperatorAction.objects.filter(outcome="applied").exists()


def test_the_admin_checks_for_csrf(lettered: list[DeadLetter]) -> None:
    client = client_of("omar", "operator", enforce_csrf_checks=True, is_staff=True)
    answer = client.post(LETTERS, chosen("discard", lettered[0].pk, confirmed="1", reason="r"))
    assert answer.status_code == 403
    assert not OperatorAction.objects.exists()


def test_the_admin_takes_so_many_rows_at_once(lettered: list[DeadLetter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsets.admin.recovery.MAX_SELECTED", 2)
    client, ids = staff("omar", "operator"), [letter.pk for letter in lettered]
    page = client.post(LETTERS, chosen("discard", *ids, confirmed="1", reason="r"), follow=True)
    assert "At most 2 at once." in page.content.decode()
    assert not OperatorAction.objects.exists()


def test_the_admin_says_of_each_worker_what_became_of_it() -> None:
    make_worker("w-1")
    make_worker("w-2")
    client = staff("omar", "operator")
    page = client.post(WORKERS, chosen("evict", "w-1", "w-2"))
    assert page.content.decode().count("it owns nothing") == 2
    Worker.objects.filter(pk="w-2").update(state="stopped")
    confirmed = chosen("evict", "w-1", "w-2", confirmed="1", reason="r")

    page = client.post(WORKERS, confirmed, follow=True)

    told = {(message.level_tag, message.message) for message in page.context["messages"]}
    assert told == {("success", "Evicted: w-1."), ("error", "w-2 has stopped already; nothing was changed.")}
    assert [(outcome, source) for _, outcome, _, source in outcomes()] == [("applied", "admin"), ("refused", "admin")]
    page = client.post(WORKERS, confirmed, follow=True)
    assert {message.level_tag for message in page.context["messages"]} == {"error"}, "none of it is a success"


def test_the_admin_opens_a_replay_and_an_incident_with_all_that_belongs_to_them() -> None:
    client = staff("vera", "viewer")
    incident = make_incident(evidence="<i>a stack</i>")
    IncidentEvent.objects.create(incident=incident, text="<i>Detected</i>")
    Notification.objects.create(incident=incident, event="opened", channel="email", last_error="no route")
    replay = Replay.objects.create(group_id=GROUP, username="u", reason="r")
    ReplayRange.objects.create(replay=replay, checkpoint=make_checkpoint(), start=12, end=34, position=23)
    page = client.get(f"/admin/offsets/incident/{incident.pk}/change/").content.decode()
    assert "&lt;i&gt;Detected" in page
    assert "<i>" not in page
    assert "no route" in page
    page = client.get(f"/admin/offsets/replay/{replay.pk}/change/").content.decode()
    for number in ("12", "34", "23"):
        assert number in page
    for query in ({}, {"closed_at__isempty": "1"}, {"kind__exact": "worker_dead"}, {"q": "w-1"}):
        assert client.get("/admin/offsets/incident/", query).context["cl"].result_count == 1


def test_the_admin_evicts_no_worker_that_owns_other_partitions_than_were_shown() -> None:
    worker = make_worker("w-1")
    client = staff("omar", "operator")
    page = client.post(WORKERS, chosen("evict", "w-1")).content.decode()
    assert 'name="seen" value="w-1:"' in page
    checkpoint = make_checkpoint(owner=worker)
    client.post(WORKERS, chosen("evict", "w-1", confirmed="1", reason="r", seen=["w-1:", "nonsense", ":x"]))
    assert outcomes() == [("evict", "refused", "omar", "admin")]
    token = f"w-1:{checkpoint.pk}"
    assert token in client.post(WORKERS, chosen("evict", "w-1")).content.decode()
    client.post(WORKERS, chosen("evict", "w-1", confirmed="1", reason="r", seen=[token]))
    assert Worker.objects.get().evicted_at is not None


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
