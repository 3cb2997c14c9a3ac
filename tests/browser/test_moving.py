"""Moving a partition's offset on the page, in a real browser, on a real topic."""

import uuid

import pytest
from confluent_kafka import Producer
from django.conf import settings
from playwright.sync_api import expect

from offsets.kafka.admin import KafkaAdmin
from offsets.models import OperatorAction, PartitionCheckpoint
from tests.support.page_rows import make_checkpoint, make_range, make_sample, make_worker
from tests.support.processes import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def kafka_group(transactional_db, stack):
    """A partition of a real topic with 50 records, of which a worker has counted 40."""
    topic = f"moves-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin()
    admin.create_topic(topic, 1)
    wait_for("the topic", lambda: admin.describe_topics([topic]))
    producer = Producer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    for number in range(50):
        producer.produce(topic, str(number).encode())
    assert producer.flush(30) == 0
    worker = make_worker("w-7f2a91bc", silent_for=-60)
    topic_id = admin.describe_topic(topic).topic_id
    checkpoint = make_checkpoint(0, topic=topic, topic_id=topic_id, next_offset=40, owner=worker)
    make_range(checkpoint, 0, 40)
    # A little in the future, so that it stays fresh however slow the machine is.
    make_sample(checkpoint, -60, 50, 40)
    return checkpoint


def test_it_moves_a_partition_from_preview_to_outcome(kafka_group, operator, visits):
    page = operator()
    name = f"{kafka_group.topic}-0"

    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name=f"Seek {name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Next offset to read")).to_be_focused()
    dialog.get_by_label("Next offset to read").fill("900")
    expect(dialog.get_by_role("alert")).to_contain_text("offset 900 is outside of the log (0 to 50)")
    expect(dialog.get_by_role("button", name=f"Seek {name}")).to_be_disabled()
    dialog.get_by_label("Next offset to read").fill("10")
    expect(dialog).to_contain_text("30 are re-read but already counted; nothing is lost")
    dialog.get_by_label("Reason").fill("Look at them again")
    dialog.get_by_role("button", name=f"Seek {name}").click()

    expect(dialog.get_by_role("alert")).to_contain_text("Done: the ledger shows")
    kafka_group.refresh_from_db()
    assert (kafka_group.next_offset, kafka_group.epoch, kafka_group.ledger_end) == (10, 4, 40)
    action = OperatorAction.objects.get()
    assert (action.kind, action.username, action.outcome) == ("seek", "olga", "applied")
    dialog.get_by_role("button", name="Close").click()
    expect(cell_of(page, name, "next")).to_have_text("10")
    forget_refusals(visits)


def test_it_tells_that_the_partition_moved_since_the_preview(kafka_group, operator, visits):
    page = operator()
    name = f"{kafka_group.topic}-0"
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("button", name=f"Seek {name}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Next offset to read").fill("45")
    expect(dialog).to_contain_text("5 offsets are not counted and are recorded as skipped")
    PartitionCheckpoint.objects.filter(pk=kafka_group.pk).update(next_offset=48, ledger_end=48)
    make_range(kafka_group, 40, 48)

    dialog.get_by_label("Reason").fill("Poison")
    dialog.get_by_role("button", name=f"Seek {name}").click()

    expect(dialog.get_by_role("alert")).to_contain_text("it was at 40, it is at 48. Nothing was changed")
    assert OperatorAction.objects.get().outcome == "refused"
    forget_refusals(visits)


def cell_of(page, name, column):
    body = page.locator(".partitions > tbody", has=page.get_by_role("rowheader", name=name))
    return body.locator(f"td.{column}").first


def forget_refusals(visits):
    """The answer 409 is meant; the browser reports it all the same."""
    visits.complaints[:] = [text for text in visits.complaints if "409" not in text]
