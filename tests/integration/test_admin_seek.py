"""The checkpoint's form in the admin: a seek, and nothing but a seek."""

import uuid

import pytest
from confluent_kafka import Producer
from django.conf import settings
from django.test import Client

from offsets.kafka.admin import KafkaAdmin
from offsets.models import OperatorAction, PartitionCheckpoint
from tests.support.page_rows import make_checkpoint, make_range, make_user, make_worker
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoint(stack):
    """A partition of a real topic with 50 records, of which 40 are counted."""
    topic = f"form-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(topic, 1)
    wait_for("the topic", lambda: admin.describe_topics([topic]))
    producer = Producer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(50):
        producer.produce(topic, str(number).encode())
    assert producer.flush(30) == 0
    topic_id = admin.describe_topic(topic).topic_id
    made = make_checkpoint(0, topic=topic, topic_id=topic_id, next_offset=40, owner=make_worker("w-7f2"))
    make_range(made, 0, 40)
    return made


def client_of(*groups):
    client = Client()
    client.force_login(make_user("olga", *groups, is_staff=True))
    return client


def place(checkpoint):
    return f"/admin/offsets/partitioncheckpoint/{checkpoint.pk}/seek/"


def tokens(page):
    """What a browser would send back: the hidden fields and the shown ones."""
    preview = page.context["preview"]
    return {
        "confirmed": "1",
        "next_offset": preview.plan.target,
        "seen_epoch": preview.seen.epoch,
        "seen_offset": preview.seen.next_offset,
        "seen_state": preview.seen.desired_state,
        "seen_owner": preview.seen.owner or "",
        "seen_target": preview.plan.target,
    }


def test_it_shows_what_a_change_does_before_it_is_made(checkpoint):
    client = client_of("operator")
    assert b"Seek to an offset" in client.get(f"/admin/offsets/partitioncheckpoint/{checkpoint.pk}/change/").content
    assert b"Next offset: <strong>40</strong>" in client.get(place(checkpoint)).content
    page = client.post(place(checkpoint), {"next_offset": "10"})
    assert b"30 are re-read but already counted" in page.content
    assert PartitionCheckpoint.objects.get(pk=checkpoint.pk).next_offset == 40
    assert not OperatorAction.objects.exists()

    done = client.post(place(checkpoint), {**tokens(page), "reason": "Look again"}, follow=True)

    assert b"reset_offsets --undo" in done.content
    checkpoint.refresh_from_db()
    assert (checkpoint.next_offset, checkpoint.epoch) == (10, 4)
    action = OperatorAction.objects.get()
    assert (action.source, action.outcome, action.username, action.reason) == ("admin", "applied", "olga", "Look again")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"next_offset": 41, "ledger_end": 41}, "it was at 40, it is at 41"),
        ({"epoch": 9}, "epoch was 3, is 9"),
        ({"desired_state": "paused"}, "desired_state was running, is paused"),
    ],
)
def test_it_refuses_when_the_partition_is_not_as_it_was_shown(checkpoint, change, says):
    client = client_of("operator")
    page = client.post(place(checkpoint), {"next_offset": "10"})
    PartitionCheckpoint.objects.filter(pk=checkpoint.pk).update(**change)
    before = PartitionCheckpoint.objects.values().get(pk=checkpoint.pk)

    answer = client.post(place(checkpoint), {**tokens(page), "reason": "Too late"})

    assert says in answer.content.decode()
    assert PartitionCheckpoint.objects.values().get(pk=checkpoint.pk) == before
    assert OperatorAction.objects.get().outcome == "refused"


def test_another_target_asks_for_another_look(checkpoint):
    client = client_of("operator")
    page = client.post(place(checkpoint), {"next_offset": "10"})
    answer = client.post(place(checkpoint), {**tokens(page), "next_offset": "45", "reason": "Changed my mind"})
    assert b"5 offsets are not counted" in answer.content
    assert PartitionCheckpoint.objects.get(pk=checkpoint.pk).next_offset == 40


@pytest.mark.parametrize("text", ["-1", "ten", "", "99999999999999999999", "51"])
def test_it_refuses_what_is_no_place(checkpoint, text):
    answer = client_of("operator").post(place(checkpoint), {"next_offset": text})
    assert answer.status_code == 200
    assert b"errorlist" in answer.content
    assert PartitionCheckpoint.objects.get(pk=checkpoint.pk).next_offset == 40


def test_only_operators_may_move(checkpoint):
    viewer = client_of("viewer")
    assert viewer.get(place(checkpoint)).status_code == 403
    assert viewer.post(place(checkpoint), {"next_offset": "1"}).status_code == 403
    assert Client().get(place(checkpoint)).status_code == 302
    page = viewer.get(f"/admin/offsets/partitioncheckpoint/{checkpoint.pk}/change/")
    assert b"Seek to an offset" not in page.content
