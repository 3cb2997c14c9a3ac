"""The running check of the invariants, and the check that an operator asks for."""

import json

import pytest
from django.db import connection
from pytest_django import Settings

from analytics.metrics_store import MetricsStore
from offsets import leases, ledger
from offsets.monitoring import invariant_turns
from tests.support.api import client_of, post
from tests.support.ledger import GROUP, apply, checkpoint, claimed, commit_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


@pytest.fixture(autouse=True)
def _partitions() -> None:
    baseline = ledger.Baseline("topic-id", 0, "earliest")
    ledger.insert_baselines(GROUP, "t", {0: baseline, 1: baseline}, ["content", "user"])


def break_sum(number: int, by: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_ledgerrange SET records = records + %s WHERE checkpoint_id = %s",
            [by, checkpoint(number).pk],
        )


def test_each_tick_checks_the_next_partitions_and_remembers_the_others() -> None:
    apply(commit_of(claimed(0), 0, 10), commit_of(claimed(1), 0, 10))
    break_sum(0, 1)
    first = invariant_turns.check_in_turn(GROUP, 0.0)
    assert (first.checked, first.checkpoints, first.ok) == (1, 2, False)
    assert "t-0: content: counted 10, ledger says 11" in first.result.invariants["I3"].detail
    break_sum(0, -1)
    second = invariant_turns.check_in_turn(GROUP, 0.0)
    assert not second.ok, "t-0 was not checked again"
    third = invariant_turns.check_in_turn(GROUP, 0.0)
    assert third.ok
    assert invariant_turns.check_in_turn(GROUP).checked == 2, "a small group is checked whole in each tick"


def test_counts_are_read_by_checkpoint() -> None:
    """The statement of I3 must not aggregate every checkpoint's counts to check one."""
    claim = claimed()
    apply(commit_of(claim, 0, 10))
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        counted = MetricsStore().counted_sql()
        cursor.execute(
            f"EXPLAIN (FORMAT JSON) SELECT * FROM ({counted}) AS every WHERE checkpoint_id = ANY(%s)",
            [[claim.checkpoint_id]],
        )
        (plan,) = cursor.fetchone()
        cursor.execute("SET enable_seqscan = on")
    text = plan if isinstance(plan, str) else json.dumps(plan)
    assert "engagement_total_once" in text or "checkpoint_id = ANY" in text


def test_an_operator_can_have_the_invariants_checked_now(settings: Settings) -> None:
    settings.ENGAGEMENT_GROUP = GROUP
    apply(commit_of(claimed(0), 0, 10))
    operator, viewer = client_of("olga", "operator"), client_of("victor", "viewer")
    assert post(viewer, "/api/invariants/check/", {}).status_code == 403
    answer = post(operator, "/api/invariants/check/", {})
    assert answer.status_code == 200
    assert answer.json()["detail"] == "Checked 2 of 2 partitions: all invariants hold."
    break_sum(0, 1)
    answer = post(operator, "/api/invariants/check/", {}).json()
    assert (answer["ok"], answer["invariants"]["I3"]["ok"]) == (False, False)
    token = leases.acquire(invariant_turns.lease_of(GROUP), "another", 60)
    assert token is not None
    assert post(operator, "/api/invariants/check/", {}).status_code == 409
    assert operator.get("/api/invariants/check/").status_code == 405
