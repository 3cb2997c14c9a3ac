"""Celery's housekeeping ticks: fold, monitor, check; one of each at a time, and all of them survive an outage."""

import logging

import pytest
from django.db import OperationalError, connection

from analytics import tasks as control
from analytics.models import EngagementTotal
from offsets import tasks, ticks
from offsets.errors import ServiceUnavailableError
from offsets.models import Lease, LoopRun, StoreOffset
from offsets.monitoring import invariants, lag_samples
from offsets.monitoring.late_loops import late_loops
from offsets.stores import open_store
from offsets.types import StoredOffset, TopicPartition
from tests.support.page_rows import GROUP, ago, make_checkpoint

PROMISE = invariants.Promise((), 0, 0)

pytestmark = pytest.mark.django_db


def fail_with(error):
    def fail(*_):
        raise error

    return fail


def run_elsewhere(name, group_id=""):
    """Another process runs this loop now."""
    key = f"{name}:{group_id}" if group_id else name
    LoopRun.objects.create(
        key=key, name=name, group_id=group_id, holder="another", started_at=ago(5), busy_until=ago(-60)
    )


class Folds:
    """A store with `chunks` left to fold."""

    def __init__(self, *chunks):
        self.left = list(chunks)

    def fold(self, limit):
        return self.left.pop(0)


def test_a_fold_goes_on_until_a_chunk_is_not_full(monkeypatch):
    store = Folds(control.FOLD_CHUNK, control.FOLD_CHUNK, 7, 1)
    monkeypatch.setattr(control, "MetricsStore", lambda: store)

    control.fold()

    assert store.left == [1]
    assert LoopRun.objects.get(name="fold").busy_until is None


def test_a_fold_ends_in_time_and_leaves_the_rest_to_the_next(monkeypatch):
    store = Folds(*[control.FOLD_CHUNK] * 3)
    monkeypatch.setattr(control, "MetricsStore", lambda: store)
    monkeypatch.setattr(control, "FOLD_SECONDS", 0.0)

    control.fold()

    assert len(store.left) == 3


def test_one_fold_runs_at_a_time(monkeypatch):
    run_elsewhere("fold")
    store = Folds(1)
    monkeypatch.setattr(control, "MetricsStore", lambda: store)

    control.fold()

    assert store.left == [1]


def test_the_real_fold_has_nothing_to_do_without_deltas():
    control.fold()

    assert not EngagementTotal.objects.exists()


def test_the_monitor_sends_a_snapshot_even_while_kafka_is_away(monkeypatch, caplog):
    monkeypatch.setattr(lag_samples, "sample_group", fail_with(ServiceUnavailableError("no Kafka")))
    told: list[str] = []
    monkeypatch.setattr(control, "send_snapshot", told.append)

    control.monitor()

    assert told == [GROUP]
    assert "Cannot sample the log ends: no Kafka" in caplog.messages


def test_one_monitor_ticks_at_a_time(monkeypatch):
    run_elsewhere("monitor", GROUP)
    told: list[str] = []
    monkeypatch.setattr(control, "send_snapshot", told.append)

    control.monitor()

    assert told == []


def test_a_check_that_took_long_is_followed_by_a_rest(monkeypatch):
    checks = []

    def check(group):
        checks.append(group)
        return invariants.InvariantsResult(group, {}, PROMISE)

    monkeypatch.setattr(invariants, "check_and_store", check)
    moments = iter([0.0, 20.0])
    monkeypatch.setattr(tasks, "monotonic", lambda: next(moments))

    tasks.verify()
    LoopRun.objects.update(started_at=ago(60), finished_at=ago(60))
    tasks.verify()
    assert checks == [GROUP]
    assert not late_loops(ticks.last_runs(GROUP)), "a rest is no delay"
    rest = Lease.objects.get(pk=f"verify-rest:{GROUP}")
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM %s - clock_timestamp())", [rest.expires_at])
        assert 170 < cursor.fetchone()[0] <= 180


def test_invariants_that_do_not_hold_are_logged_as_an_error(monkeypatch, caplog):
    broken = invariants.InvariantsResult(GROUP, {"I1": invariants.InvariantResult(ok=False, detail="a hole")}, PROMISE)
    monkeypatch.setattr(invariants, "check_and_store", lambda group: broken)

    tasks.verify()

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "a hole" in record.getMessage()


@pytest.mark.parametrize(
    "tick", [tasks.supervise, tasks.verify, tasks.thin, control.monitor, control.fold, control.purge]
)
def test_every_tick_meets_a_lost_database_with_one_line(tick, monkeypatch, caplog):
    monkeypatch.setattr(connection, "cursor", fail_with(OperationalError("connection\n  refused")))
    monkeypatch.setattr(connection, "close", lambda: None)

    tick()

    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["connection refused"]


def test_stores_are_compared_for_the_page(settings, stack, caplog):
    settings.OFFSET_MIRRORS = ["redis"]
    checkpoint = make_checkpoint(0, group_id=GROUP, next_offset=1000)
    store = open_store("redis")
    store.put(GROUP, {TopicPartition(checkpoint.topic, 0): StoredOffset(990, 3)})

    tasks.compare_stores()

    seen = StoreOffset.objects.get(checkpoint=checkpoint)
    assert (seen.store, seen.next_offset, seen.ledger_next_offset, seen.epoch) == ("redis", 990, 1000, 3)
    store.forget(GROUP, [TopicPartition(checkpoint.topic, 0)])
    store.close()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    LoopRun.objects.update(started_at=ago(60))
    tasks.compare_stores()
    assert "The redis store could not be compared" in caplog.text
