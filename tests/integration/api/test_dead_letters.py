"""Dead letters over the API."""

from typing import Any

import pytest
from django.test import Client

from offsets.actions import dead_letters
from offsets.api import dead_letters as api_dead_letters
from offsets.models import (
    DeadLetter,
    OperatorAction,
)
from tests.support.api import HUGE, make_letter, outcomes, post
from tests.support.page_rows import make_checkpoint

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


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
    monkeypatch.setattr(api_dead_letters, "MAX_LISTED", 3)
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
    assert "is already counted" in again.json()["error"]
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
    monkeypatch.setattr(dead_letters, "MAX_DEAD_LETTERS", 3)
    answer = post(operator, "/api/dead-letters/discard/", {"ids": [1, 2, 3, 4], "reason": "r"})
    assert answer.status_code == 409
    assert "At most 3" in answer.json()["error"]
