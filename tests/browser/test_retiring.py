"""Retiring a topic on the page: from its incident to its outcome, and back."""

import re

import pytest
from playwright.sync_api import expect

from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.monitoring import incidents
from offsets.monitoring.finding import Finding
from tests.support.page_rows import GROUP, make_checkpoint, make_range, make_sample, make_user, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def topic(transactional_db):
    """A deleted topic of two partitions, and one that a worker reads."""
    for partition in range(2):
        make_range(make_checkpoint(partition, topic="old", next_offset=40), 0, 40)
    kept = make_checkpoint(0, owner=make_worker("w-7f2a91bc", silent_for=-60))
    make_range(kept, 0, 1000)
    make_sample(kept, -60, 1000, 1000)
    kept.refresh_from_db()
    since = kept.created_at
    incidents.reconcile(GROUP, [Finding("topic_missing", "old", "Kafka does not have old-0 any more.", since)])
    return "old"


def partition_row(page, name):
    return page.get_by_role("button", name=name, exact=True)


def test_it_retires_a_topic_from_its_incident_and_brings_it_back(topic, operator):
    page = operator()
    expect(partition_row(page, "old-1")).to_be_visible()
    page.get_by_role("button", name="Retire to resolve Topic missing: old").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Retire 2 partitions of old: the counts stay in all totals")
    button = dialog.locator("#action-apply")
    expect(button).to_be_enabled()
    dialog.get_by_label("Reason").fill("Deleted on purpose")
    button.click()

    expect(dialog.get_by_role("alert")).to_contain_text("the page no longer shows old")
    dialog.get_by_role("button", name="Close").click()
    expect(partition_row(page, "old-0")).to_have_count(0)
    expect(partition_row(page, "engagement-0")).to_be_visible()
    expect(page.locator("#partitions-sum")).to_have_text("1 partition · 1 OK · 2 retired")
    assert set(PartitionCheckpoint.objects.filter(topic="old").values_list("retired_reason", flat=True)) == {"retired"}

    undo = page.locator("#actions tbody tr").filter(has_text="old-0").get_by_role("button", name=re.compile("^Undo"))
    undo.click()
    expect(dialog).to_contain_text("Undo the retirement of old-0: it is watched again, and goes on at 40")
    dialog.get_by_label("Reason").fill("Needed again")
    dialog.locator("#action-apply").click()
    expect(dialog.get_by_role("alert")).to_contain_text("is undone by action")
    dialog.get_by_role("button", name="Close").click()
    expect(partition_row(page, "old-1")).to_be_visible()
    kinds = OperatorAction.objects.order_by("pk").values_list("kind", "username")
    assert list(kinds) == [("retire", "olga")] * 2 + [("undo", "olga")] * 2


def test_it_offers_it_to_operators_for_partitions_without_an_owner(topic, operator, visits):
    page = operator()
    partition_row(page, "old-0").click()
    page.get_by_role("button", name="Retire the topic of old-0").click()
    expect(page.get_by_role("dialog")).to_contain_text("Not counted: unread records (number unknown).")
    page.keyboard.press("Escape")
    partition_row(page, "engagement-0").click()
    expect(page.get_by_role("button", name="Retire the topic of engagement-0")).to_have_count(0)

    viewer = visits.log_in(visits.page(), make_user("victor", "viewer"))
    expect(viewer.get_by_role("button", name=re.compile("^Retire"))).to_have_count(0)
