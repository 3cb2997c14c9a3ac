import json
from contextlib import closing

import pytest
from django.db import OperationalError, connection, connections
from django.http import HttpResponse
from django.test import Client

from analytics.dashboard import views
from analytics.dashboard.read_model import Dashboard
from offsets import clock
from offsets.api import system
from offsets.models import DatabaseTime, OperatorAction, PartitionCheckpoint
from tests.support.page_rows import make_checkpoint, make_user, make_worker

# WhiteNoise misses the folder of collected static files, which only a deployment has.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


def client_of(name, *groups, enforce_csrf_checks=False):
    client = Client(enforce_csrf_checks=enforce_csrf_checks)
    client.force_login(make_user(name, *groups))
    return client


@pytest.fixture
def operator():
    return client_of("olga", "operator")


@pytest.fixture
def viewer():
    return client_of("victor", "viewer")


def seen_of(checkpoint):
    return {"epoch": checkpoint.epoch, "owner": checkpoint.owner_id, "desired_state": checkpoint.desired_state}


def post(client, checkpoint, kind="pause", **body):
    body = {"reason": "Deploying", "seen": seen_of(checkpoint)} | body
    return client.post(f"/api/partitions/{checkpoint.pk}/{kind}/", json.dumps(body), content_type="application/json")


def desired_state(checkpoint):
    return PartitionCheckpoint.objects.get(pk=checkpoint.pk).desired_state


def test_it_serves_the_snapshot_to_viewers(viewer):
    make_checkpoint(2)

    response = viewer.get("/api/snapshot/")

    assert response.status_code == 200
    assert [one["partition"] for one in response.json()["partitions"]] == [2]
    assert "no-store" in response["Cache-Control"]


def test_it_pauses_and_resumes_as_previewed(operator):
    checkpoint = make_checkpoint(3, owner=make_worker("w-7f2"))

    preview = operator.get(f"/api/partitions/{checkpoint.pk}/preview/pause/").json()
    response = post(operator, checkpoint, seen=preview["seen"])

    assert preview["text"].startswith("Pause engagement-3 at offset 1,000: its worker w-7f2 stops")
    assert preview["seen"] == seen_of(checkpoint)
    assert response.status_code == 200
    assert response.json()["outcome"] == "applied"
    assert response.json()["after"] == preview["after"]
    assert desired_state(checkpoint) == "paused"
    checkpoint.refresh_from_db()
    assert post(operator, checkpoint, "resume").status_code == 200
    assert desired_state(checkpoint) == "running"
    assert set(OperatorAction.objects.values_list("username", "source", "outcome")) == {("olga", "api", "applied")}


def test_it_takes_a_form_as_well(operator):
    checkpoint = make_checkpoint()

    response = operator.post(
        f"/api/partitions/{checkpoint.pk}/pause/",
        {"reason": "Deploying", "epoch": "3", "owner": "", "desired_state": "running"},
    )

    assert response.status_code == 200
    assert desired_state(checkpoint) == "paused"


SEEN = {"epoch": 3, "owner": None, "desired_state": "running"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '"pause"',
        "{}",
        json.dumps({"reason": "r"}),
        json.dumps({"reason": "r", "seen": None}),
        json.dumps({"reason": "r", "seen": []}),
        json.dumps({"reason": "r", "seen": {**SEEN, "epoch": "3"}}),
        json.dumps({"reason": "r", "seen": {**SEEN, "epoch": True}}),
        json.dumps({"reason": "r", "seen": {**SEEN, "owner": 5}}),
        json.dumps({"reason": "r", "seen": {**SEEN, "desired_state": None}}),
        json.dumps({"reason": 5, "seen": SEEN}),
        json.dumps({"reason": ["r"], "seen": SEEN}),
        json.dumps({"seen": SEEN}),
        json.dumps({"reason": "  ", "seen": SEEN}),
        json.dumps({"reason": "x" * 501, "seen": SEEN}),
        b"\xff\xfe{}",
        "x" * 300_000,
    ],
)
def test_it_refuses_what_it_cannot_understand_and_changes_nothing(operator, body):
    checkpoint = make_checkpoint()

    response = operator.post(f"/api/partitions/{checkpoint.pk}/pause/", body, content_type="application/json")

    assert response.status_code == 400
    assert response.json()["error"]
    assert desired_state(checkpoint) == "running"


@pytest.mark.parametrize("form", [{}, {"reason": "r"}, {"reason": "r", "epoch": "²", "desired_state": "running"}])
def test_it_refuses_a_form_it_cannot_understand(operator, form):
    checkpoint = make_checkpoint()

    response = operator.post(f"/api/partitions/{checkpoint.pk}/pause/", form)

    assert response.status_code == 400
    assert "`seen` must hold" in response.json()["error"]
    assert desired_state(checkpoint) == "running"


@pytest.mark.parametrize(
    ("fields", "seen", "kind", "error"),
    [
        ({}, {**SEEN, "epoch": 2}, "pause", "has changed since you looked"),
        ({}, {**SEEN, "owner": "w-9"}, "pause", "has changed since you looked"),
        ({"desired_state": "paused"}, SEEN, "pause", "already paused"),
        ({}, SEEN, "resume", "already running"),
        ({"retired_at": DatabaseTime(), "retired_reason": "rebuilt"}, SEEN, "pause", "was retired"),
        ({}, {**SEEN, "epoch": 10**30}, "pause", "has changed since you looked"),
    ],
)
def test_it_answers_409_to_what_is_stale_or_impossible(operator, fields, seen, kind, error):
    checkpoint = make_checkpoint(**fields)
    before = desired_state(checkpoint)

    response = post(operator, checkpoint, kind, seen=seen)

    assert response.status_code == 409
    assert error in response.json()["error"]
    assert desired_state(checkpoint) == before
    assert OperatorAction.objects.get().outcome == "refused"


def test_it_lets_viewers_look_but_not_act_and_audits_the_try(viewer):
    checkpoint = make_checkpoint()

    response = post(viewer, checkpoint)

    assert response.status_code == 403
    assert response.json()["error"] == "victor may not pause partitions. Ask to join the group 'operator'."
    assert desired_state(checkpoint) == "running"
    assert OperatorAction.objects.get().outcome == "refused"
    assert viewer.get(f"/api/partitions/{checkpoint.pk}/preview/pause/").status_code == 403


PATHS = ["/api/snapshot/", "/api/partitions/1/preview/pause/", "/api/nothing/"]


@pytest.mark.parametrize("path", PATHS)
def test_it_tells_strangers_nothing(client, path):
    response = client.get(path)

    assert response.status_code == 403
    assert response.json() == {"error": "Log in first.", "login_required": True}


@pytest.mark.parametrize("path", PATHS)
def test_it_tells_users_without_permission_nothing(path):
    response = client_of("nobody").get(path)

    assert response.status_code == 403
    assert "may not see this" in response.json()["error"]


def test_it_changes_nothing_for_strangers(client):
    checkpoint = make_checkpoint()

    assert post(client, checkpoint).status_code == 403
    assert desired_state(checkpoint) == "running"


@pytest.mark.parametrize("path", ["/api/partitions/999999/pause/", f"/api/partitions/{10**30}/pause/"])
def test_it_answers_404_to_an_unknown_partition(operator, path):
    response = operator.post(path, json.dumps({"reason": "r", "seen": SEEN}), content_type="application/json")

    assert response.status_code == 404
    assert "Unknown checkpoint" in response.json()["error"]


def test_it_answers_404_in_json_to_any_other_address(operator):
    checkpoint = make_checkpoint()

    assert "Unknown action" in post(operator, checkpoint, "destroy").json()["error"]
    assert post(operator, checkpoint, "destroy").status_code == 404
    assert operator.get("/api/").status_code == operator.get("/api/x/y").status_code == 404
    assert operator.get("/api/").json() == {"error": "Not found."}


@pytest.mark.parametrize("path", ["/api/snapshot/", "/api/partitions/1/preview/pause/"])
def test_it_changes_nothing_by_other_methods(operator, path):
    response = operator.post(path)

    assert response.status_code == 405
    assert response.json()["error"] == "Use GET or HEAD here."


def test_it_refuses_to_act_by_get(operator):
    checkpoint = make_checkpoint()

    assert operator.get(f"/api/partitions/{checkpoint.pk}/pause/").status_code == 405
    assert desired_state(checkpoint) == "running"


def test_it_enforces_csrf_in_json():
    client = client_of("olga", "operator", enforce_csrf_checks=True)
    checkpoint = make_checkpoint()

    refused = post(client, checkpoint)
    client.cookies["csrftoken"] = "a" * 32
    forged = client.post(
        f"/api/partitions/{checkpoint.pk}/pause/",
        json.dumps({"reason": "r", "seen": SEEN}),
        content_type="application/json",
        headers={"X-CSRFToken": "b" * 32},
    )

    assert (refused.status_code, forged.status_code) == (403, 403)
    assert "CSRF" in refused.json()["error"]
    assert "CSRF" in forged.json()["error"]
    assert desired_state(checkpoint) == "running"
    assert not OperatorAction.objects.exists()


def test_it_accepts_the_pages_own_csrf_token():
    client = client_of("olga", "operator", enforce_csrf_checks=True)
    checkpoint = make_checkpoint()
    client.cookies["csrftoken"] = "a" * 32

    response = client.post(
        f"/api/partitions/{checkpoint.pk}/pause/",
        json.dumps({"reason": "r", "seen": SEEN}),
        content_type="application/json",
        headers={"X-CSRFToken": "a" * 32},
    )

    assert response.status_code == 200


def test_it_says_when_the_database_does_not_answer(viewer, monkeypatch):
    def away(self):
        raise OperationalError("connection refused: secret-host")

    monkeypatch.setattr(Dashboard, "snapshot", away)

    response = viewer.get("/api/snapshot/")

    assert response.status_code == 503
    assert "secret-host" not in response.content.decode()


def test_it_reports_its_health_to_anybody(client, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    system.health.forget()
    assert client.get("/healthz").json() == {"status": "ok", "database": "ok"}

    def away(*_):
        raise OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "cursor", away)
    now[0] += 0.5 * system.HEALTH_SECONDS
    assert client.get("/healthz").status_code == 200, "the database is not asked again yet"
    now[0] += system.HEALTH_SECONDS
    response = client.get("/healthz")
    assert (response.status_code, response.json()["database"]) == (503, "unavailable")


def test_its_health_costs_at_most_one_question_to_the_database_in_a_second(client, django_assert_num_queries):
    system.health.forget()

    with django_assert_num_queries(1):
        for _ in range(50):
            client.get("/healthz")
    system.health.forget()


def test_browsers_find_the_icon(client):
    response = client.get("/favicon.ico")

    assert (response.status_code, response["Location"]) == (302, "/static/favicon.svg")
    with closing(client.get(response["Location"])) as icon:
        assert icon.status_code == 200
    assert '<link rel="icon" href="/static/favicon.svg"' in client.get("/admin/login/").content.decode()


def _make_read_only():
    connection.check_constraints()  # at the end of the test nothing may be left to check, which takes locks
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")


def test_an_action_on_a_read_only_database_is_told_in_json(operator):
    checkpoint = make_checkpoint(3)
    _make_read_only()

    response = post(operator, checkpoint)

    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert response.json()["error"].startswith("The database is read-only.")
    assert desired_state(checkpoint) == "running"
    assert operator.get("/api/snapshot/").status_code == 200, "what is only read still works"


def test_a_page_that_needs_to_write_says_that_the_database_is_read_only():
    make_user("victor", "viewer", password="correct horse")
    client = Client(raise_request_exception=False)
    _make_read_only()

    response = client.post("/accounts/login/", {"username": "victor", "password": "correct horse"})

    assert response.status_code == 503
    assert "The database is read-only" in response.content.decode()
    assert "Traceback" not in response.content.decode()


def test_a_read_only_database_is_not_ready_and_the_process_lives(client):
    _make_read_only()
    system.health.forget()

    response = client.get("/healthz")
    system.health.forget()

    assert (response.status_code, response.json()) == (503, {"status": "error", "database": "read_only"})
    assert client.get("/livez").json() == {"status": "ok"}


def test_it_sends_strangers_to_the_login(client):
    response = client.get("/")

    assert response.status_code == 302
    assert response["Location"] == "/accounts/login/?next=/"


def test_it_shows_the_page_only_to_those_who_may_look(monkeypatch):
    contexts = []

    def render(request, template, context):
        contexts.append((template, context))
        return HttpResponse()

    monkeypatch.setattr(views, "render", render)

    response = client_of("olga", "operator").get("/")
    client_of("victor", "viewer").get("/")

    assert client_of("nobody").get("/").status_code == 403
    assert [template for template, _ in contexts] == ["dashboard.html"] * 2
    assert [context["can_operate"] for _, context in contexts] == [True, False]
    assert contexts[0][1]["websocket_path"] == "/ws/dashboard/"
    assert contexts[0][1]["group"] == "engagement-analytics"
    assert "csrftoken" in response.cookies
