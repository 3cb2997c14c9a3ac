"""The same actions in the admin."""

from typing import Any

import pytest
from django.test import Client

from offsets.models import (
    DeadLetter,
    IncidentEvent,
    Notification,
    OperatorAction,
    Replay,
    ReplayRange,
    Worker,
)
from tests.support.api import client_of, make_incident, outcomes
from tests.support.page_rows import GROUP, make_checkpoint, make_worker

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


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
    assert "Enter a reason" in client.post(LETTERS, chosen("requeue", *ids, confirmed="1", reason=" ")).content.decode()
    assert not OperatorAction.objects.exists()
    done = client.post(LETTERS, chosen("requeue", *ids, confirmed="1", reason="fixed"), follow=True)
    assert "2 changed, 1 unchanged." in done.content.decode()
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
    monkeypatch.setattr("offsets.admin.base.MAX_SELECTED", 2)
    client, ids = staff("omar", "operator"), [letter.pk for letter in lettered]
    page = client.post(LETTERS, chosen("discard", *ids, confirmed="1", reason="r"), follow=True)
    assert "At most 2 at once." in page.content.decode()
    assert not OperatorAction.objects.exists()


def test_the_admin_says_of_each_worker_what_became_of_it() -> None:
    make_worker("w-1")
    make_worker("w-2")
    client = staff("omar", "operator")
    page = client.post(WORKERS, chosen("evict", "w-1", "w-2"))
    assert page.content.decode().count("it owns no partitions") == 2
    Worker.objects.filter(pk="w-2").update(state="stopped")
    confirmed = chosen("evict", "w-1", "w-2", confirmed="1", reason="r")

    page = client.post(WORKERS, confirmed, follow=True)

    told = {(message.level_tag, message.message) for message in page.context["messages"]}
    assert told == {("success", "Evicted: w-1."), ("error", "w-2 has already stopped; nothing was changed.")}
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
