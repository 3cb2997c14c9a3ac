"""Retiring a topic by the API: the preview, exactly what it gave, and who may."""

from typing import Any

import pytest
from django.test import Client

from offsets.models import PartitionCheckpoint
from tests.support.api import client_of, outcomes, post
from tests.support.page_rows import make_checkpoint, make_worker

pytestmark = pytest.mark.django_db

PATH = "/api/retire/"


@pytest.fixture
def operator() -> Client:
    return client_of("olga", "operator")


def retired() -> set[str]:
    return {row.name for row in PartitionCheckpoint.objects.filter(retired_reason="retired")}


def test_it_retires_what_the_preview_gave(operator: Client) -> None:
    first, second = make_checkpoint(0), make_checkpoint(1)
    make_checkpoint(0, topic="other")
    make_checkpoint(2, group_id="another")

    shown = operator.get(PATH, {"topic": "engagement"}).json()
    answer = post(operator, PATH, {"reason": "deleted", "seen": shown["seen"]}).json()

    assert shown["target"] == "engagement"
    assert set(shown["seen"]) == {str(first.pk), str(second.pk)}
    assert [item["partition"] for item in shown["items"]] == [0, 1]
    assert answer["outcome"] == "applied"
    assert retired() == {"engagement-0", "engagement-1"}
    assert outcomes() == [("retire", "applied", "olga", "api")] * 2
    undone = post(operator, f"/api/actions/{answer['action_id']}/undo/", {"reason": "needed"})
    assert undone.status_code == 200
    assert retired() == set()


def test_without_a_topic_it_is_the_whole_group(operator: Client) -> None:
    make_checkpoint(0)
    make_checkpoint(0, topic="other")

    shown = operator.get(PATH).json()

    assert len(shown["seen"]) == 2
    assert shown["text"].startswith("Retire 2 partitions of engagement, other: ")


def test_it_changes_nothing_that_has_changed_or_is_read(operator: Client) -> None:
    row = make_checkpoint(0)
    seen = operator.get(PATH).json()["seen"]
    PartitionCheckpoint.objects.filter(pk=row.pk).update(epoch=9)
    assert post(operator, PATH, {"reason": "r", "seen": seen}).status_code == 409
    PartitionCheckpoint.objects.filter(pk=row.pk).update(owner=make_worker("w-1"))
    assert "is read by the running worker w-1" in operator.get(PATH).json()["error"]
    assert retired() == set()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": "r"}, 400),
        ({"reason": "r", "seen": {}}, 400),
        ({"reason": "r", "seen": {"x": {"epoch": 3, "owner": None, "desired_state": "running"}}}, 400),
        ({"reason": "r", "seen": {"1": {"epoch": "3"}}}, 400),
        ({"reason": "", "seen": {"1": {"epoch": 3, "owner": None, "desired_state": "running"}}}, 400),
        ({"reason": "r", "seen": {"999999": {"epoch": 3, "owner": None, "desired_state": "running"}}}, 404),
    ],
)
def test_it_refuses_bad_input(operator: Client, body: dict[str, Any], status: int) -> None:
    make_checkpoint(0)

    assert post(operator, PATH, body).status_code == status
    assert operator.get(PATH, {"topic": "nope"}).status_code == 404
    assert operator.get(PATH, {"topic": "a\x00"}).status_code == 400
    assert retired() == set()


def test_viewers_may_not() -> None:
    row = make_checkpoint(0)
    viewer = client_of("victor", "viewer")
    seen = {str(row.pk): {"epoch": 3, "owner": None, "desired_state": "running"}}

    assert viewer.get(PATH).status_code == 403
    assert viewer.get(PATH, {"topic": "nope"}).status_code == 403
    assert post(viewer, PATH, {"reason": "r", "seen": seen}).status_code == 403
    assert retired() == set()
