import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from analytics import models as metrics
from offsets import models
from offsets.admin.base import COUNTED_AT_MOST, BoundedPaginator
from offsets.models import DatabaseTime, OperatorAction, PartitionCheckpoint
from tests.support.page_rows import GROUP, make_checkpoint, make_range, make_sample, make_user, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

OURS = sorted(
    (model for model in admin.site._registry if model._meta.app_label in ("offsets", "analytics")),
    key=lambda model: model._meta.label,
)
CHECKPOINTS = "/admin/offsets/partitioncheckpoint/"


def client_of(name, *groups, **fields):
    client = Client()
    client.force_login(make_user(name, *groups, is_staff=True, **fields))
    return client


@pytest.fixture
def operator():
    return client_of("olga", "operator")


@pytest.fixture
def superuser():
    return client_of("admin", is_superuser=True)


@pytest.fixture
def rows():
    """One row in every table; returns them by model."""
    worker = make_worker("w-7f2")
    checkpoint = make_checkpoint(3, owner=worker, topic="engagement")
    make_range(checkpoint, 0, 1000)
    make_sample(checkpoint, 1, 1100, 1000)
    dimension = {"checkpoint": checkpoint, "dimension": 1, "entity_id": 42}
    models.DeadLetter.objects.create(
        checkpoint=checkpoint,
        offset=7,
        error_code="not_json",
        error_detail="no JSON",
        key=b"42",
        value=b'<script>alert("x")</script>\x00\xff',
    )
    models.Lease.objects.create(name="monitor", holder="h")
    models.LoopRun.objects.create(key="fold", name="fold", last_error="<b>no</b>")
    models.StoreOffset.objects.create(checkpoint=checkpoint, store="kafka", next_offset=990, ledger_next_offset=1000)
    models.JournalEntry.objects.create(group_id=GROUP, kind="claimed", message="<b>claimed</b>")
    models.InvariantReport.objects.create(group_id=GROUP, ok=True, invariants={}, duration_ms=1)
    OperatorAction.objects.create(
        kind="pause", checkpoint=checkpoint, username="u", target="t", source="api", reason="r", outcome="applied"
    )
    models.PartitionHealth.objects.create(checkpoint=checkpoint, status="OK", detail="Keeps up.")
    replay = models.Replay.objects.create(group_id=GROUP, username="u", reason="r")
    models.ReplayRange.objects.create(replay=replay, checkpoint=checkpoint, start=0, end=5, position=2)
    incident = models.Incident.objects.create(
        group_id=GROUP, kind="worker_dead", subject="w-7f2", summary="<b>claimed</b>", began_at=timezone.now()
    )
    models.IncidentEvent.objects.create(incident=incident, text="<script>alert(1)</script>")
    models.Notification.objects.create(incident=incident, event="opened", channel="email")
    metrics.EngagementDelta.objects.create(**dimension, views=1)
    metrics.EngagementTotal.objects.create(**dimension, views=1)
    metrics.EngagementMinute.objects.create(checkpoint=checkpoint, minute=timezone.now(), views=1)
    metrics.ImplausibleTime.objects.create(checkpoint=checkpoint, source="event", unit="seconds", events=3)
    return {model: model._default_manager.get() for model in OURS}


def test_it_registers_every_model():
    from django.apps import apps

    everything = {*apps.get_app_config("offsets").get_models(), *apps.get_app_config("analytics").get_models()}

    assert set(OURS) == everything


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_it_shows_searches_and_opens_every_table(superuser, rows, model, django_assert_max_num_queries):
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"

    for query in ({}, {"q": "engagement"}, {"q": "42"}, {"q": "' \x7f %"}):
        with django_assert_max_num_queries(12):
            assert superuser.get(reverse(f"{name}_changelist"), query).status_code == 200
    page = superuser.get(reverse(f"{name}_change", args=[rows[model].pk]))

    assert page.status_code == 200
    assert b'name="_save"' not in page.content
    assert b"<script>alert" not in page.content
    assert b"<b>claimed" not in page.content


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_it_lets_nobody_add_change_or_delete(superuser, rows, model):
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    before = list(model.objects.values())

    assert superuser.get(reverse(f"{name}_add")).status_code == 403
    assert superuser.post(reverse(f"{name}_add"), {}).status_code == 403
    assert superuser.post(reverse(f"{name}_change", args=[rows[model].pk]), {"_save": "1"}).status_code == 403
    assert superuser.post(reverse(f"{name}_delete", args=[rows[model].pk]), {"post": "yes"}).status_code == 403
    superuser.post(
        reverse(f"{name}_changelist"),
        {"action": "delete_selected", "_selected_action": [rows[model].pk], "post": "yes", "index": "0"},
    )
    assert list(model.objects.values()) == before


def test_it_links_a_checkpoint_to_all_that_belongs_to_it(superuser, rows):
    checkpoint = rows[PartitionCheckpoint]

    page = superuser.get(f"{CHECKPOINTS}{checkpoint.pk}/change/").content.decode()

    assert "/admin/offsets/worker/w-7f2/change/" in page or "/admin/offsets/worker/w_2D7f2/change/" in page
    for table in ("ledgerrange", "deadletter", "operatoraction", "lagsample"):
        address = f"/admin/offsets/{table}/?checkpoint__id__exact={checkpoint.pk}"
        assert address in page
        assert "1 " in superuser.get(address).content.decode()
        assert superuser.get(address).context["cl"].result_count == 1


def test_it_shows_a_dead_letters_value_decoded(superuser, rows):
    letter = rows[models.DeadLetter]

    page = superuser.get(f"/admin/offsets/deadletter/{letter.pk}/change/").content.decode()

    assert "base64:" in page
    assert "not_json" in page
    models.DeadLetter.objects.filter(pk=letter.pk).update(value=b'{"event_id": "<e>"}')
    page = superuser.get(f"/admin/offsets/deadletter/{letter.pk}/change/").content.decode()
    assert "{&quot;event_id&quot;: &quot;&lt;e&gt;&quot;}" in page


def choose(client, kind, *checkpoints, **fields):
    data = {"action": kind, "_selected_action": [one.pk for one in checkpoints], "index": "0"} | fields
    return client.post(CHECKPOINTS, data)


def token(checkpoint, epoch=None):
    return f"{checkpoint.pk}:{epoch or checkpoint.epoch}:{checkpoint.desired_state}:{checkpoint.owner_id or ''}"


def states():
    return dict(PartitionCheckpoint.objects.values_list("partition", "desired_state"))


def test_it_asks_why_before_it_pauses(operator):
    first, second, third = make_checkpoint(0, owner=make_worker()), make_checkpoint(1), make_checkpoint(2)

    page = choose(operator, "pause", first, second)

    assert states() == {0: "running", 1: "running", 2: "running"}
    text = page.content.decode()
    assert "Pause engagement-0 at offset 1,000: its worker w-1 stops" in text
    assert "csrfmiddlewaretoken" in text
    assert f'value="{token(first)}"' in text

    confirmed = choose(
        operator, "pause", first, second, confirmed="1", reason="Deploying", seen=[token(first), token(second)]
    )

    assert confirmed.status_code == 302
    assert states() == {0: "paused", 1: "paused", 2: "running"}
    actions = OperatorAction.objects.values_list("username", "source", "reason", "outcome")
    assert list(actions) == [("olga", "admin", "Deploying", "applied")] * 2
    page = choose(operator, "resume", first, third).content.decode()
    assert "Resume engagement-0" in page
    assert "engagement-2 is already running" in page


def test_it_asks_again_when_the_reason_is_missing(operator):
    checkpoint = make_checkpoint()

    page = choose(operator, "pause", checkpoint, confirmed="1", reason="  ", seen=[token(checkpoint)])

    assert page.status_code == 200
    assert "Enter a reason" in page.content.decode()
    assert states() == {0: "running"}


def test_it_leaves_a_partition_alone_that_has_moved_since_the_page_was_shown(operator):
    moved, still = make_checkpoint(0), make_checkpoint(1)

    response = operator.post(
        CHECKPOINTS,
        {
            "action": "pause",
            "_selected_action": [moved.pk, still.pk],
            "index": "0",
            "confirmed": "1",
            "reason": "Deploying",
            "seen": [token(moved, epoch=2), token(still), "nonsense", "9" * 30 + ":1:running:", ":::"],
        },
        follow=True,
    )

    assert states() == {0: "running", 1: "paused"}
    assert "epoch was 2, is 3" in response.content.decode()
    assert sorted(OperatorAction.objects.values_list("outcome", flat=True)) == ["applied", "refused"]


def test_it_offers_and_grants_viewers_no_action():
    viewer = client_of("victor", "viewer")
    checkpoint = make_checkpoint()

    assert 'value="pause"' not in viewer.get(CHECKPOINTS).content.decode()
    choose(viewer, "pause", checkpoint, confirmed="1", reason="r", seen=[token(checkpoint)])

    assert states() == {0: "running"}


def test_it_enforces_csrf():
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("olga", "operator", is_staff=True))
    checkpoint = make_checkpoint()

    response = choose(client, "pause", checkpoint, confirmed="1", reason="r", seen=[token(checkpoint)])

    assert response.status_code == 403
    assert states() == {0: "running"}


def test_it_does_not_count_a_big_table_to_show_it(superuser, django_assert_num_queries):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO analytics_engagementdelta"
            " (checkpoint_id, dimension, entity_id, views, likes, comments, shares)"
            " SELECT %s, 1, n, 1, 0, 0, 0 FROM generate_series(1, %s) AS n",
            [make_checkpoint().pk, COUNTED_AT_MOST + 500],
        )

    page = superuser.get("/admin/analytics/engagementdelta/")

    assert page.status_code == 200
    assert page.context["cl"].result_count == COUNTED_AT_MOST
    with django_assert_num_queries(1) as queries:
        assert BoundedPaginator(metrics.EngagementDelta.objects.order_by("-id"), 50).count == COUNTED_AT_MOST
    assert f"LIMIT {COUNTED_AT_MOST}" in queries.captured_queries[0]["sql"]


def test_it_finds_live_checkpoints_among_retired_ones(superuser):
    make_checkpoint(0)
    make_checkpoint(0, retired_at=DatabaseTime(), retired_reason="rebuilt")

    assert superuser.get(CHECKPOINTS, {"retired_at__isempty": "1"}).context["cl"].result_count == 1


def test_an_operator_discards_a_dead_letter_and_reopens_it(rows):
    letter = rows[models.DeadLetter]
    letters, client = "/admin/offsets/deadletter/", client_of("omar", "operator")

    asked = client.post(letters, {"action": "discard", "_selected_action": [letter.pk]})
    assert b"Discard 1 dead letter" in asked.content
    letter.refresh_from_db()
    assert letter.status == "pending", "nothing is done before it is confirmed"
    again = {"action": "discard", "_selected_action": [letter.pk], "confirmed": "1"}
    assert b"Enter a reason" in client.post(letters, again | {"reason": " "}).content
    assert client.post(letters, again | {"reason": "a test"}).status_code == 302
    letter.refresh_from_db()
    assert (letter.status, letter.action.username, letter.action.source) == ("discarded", "omar", "admin")
    refused = client.post(letters, again | {"reason": "once more"}, follow=True)
    assert b"is already discarded" in refused.content
    assert client.post(letters, again | {"action": "reopen", "reason": "a test"}).status_code == 302
    letter.refresh_from_db()
    assert letter.status == "pending"


def test_an_operator_evicts_a_worker_and_a_viewer_may_not(rows):
    workers, token = "/admin/offsets/worker/", {"action": "evict", "_selected_action": ["w-7f2"]}
    viewer, client = client_of("vera", "viewer"), client_of("omar", "operator")

    assert b"Evict w-7f2" not in viewer.post(workers, token, follow=True).content
    assert b"Evict w-7f2: engagement-3 are fenced at once" in client.post(workers, token).content
    worker, checkpoint = rows[models.Worker], rows[PartitionCheckpoint]
    client.post(workers, token | {"confirmed": "1", "reason": "a test", "seen": f"w-7f2:{checkpoint.pk}"})
    worker.refresh_from_db()
    checkpoint.refresh_from_db()
    assert worker.evicted_at is not None
    assert worker.stop_requested
    assert checkpoint.owner is None
    assert checkpoint.epoch == 4
