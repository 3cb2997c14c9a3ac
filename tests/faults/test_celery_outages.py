"""Celery while Redis, PostgreSQL or Celery's own parent process is away: slots count on, and stop when they must."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import psutil
import pytest
import redis
from django.db import connection

from offsets import leases
from offsets.models import Incident, Lease
from streamsocial.stack import Stack
from tests.support.cases import Case
from tests.support.celery_workers import both_slots, celery, committed, running_slots, slots_worker
from tests.support.processes import assert_exactly_once, manage_json, wait_for
from tests.support.read_only import read_only

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]
EVENTS = 20_000
MORE = 5_000


def test_it_counts_on_while_redis_is_away_and_supervises_again_when_it_is_back(case: MakeCase, stack: Stack) -> None:
    this = case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")
    with celery(this) as processes:
        wait_for("both slots run and commit", lambda: len(running_slots(this)) == 2 and committed(this))
        stack.stop_service("valkey")
        try:
            wait_for("Celery notices", lambda: "connection to broker" in processes.slots.output().lower())
            manage_json(this.env, "produce_events", "--count", str(MORE), "--topic", this.topic, "--seed", "77")
            wait_for("events are counted without Redis", lambda: committed(this) == EVENTS + MORE, 90)
        finally:
            stack.start_service("valkey")
        victim = this.random.choice(running_slots(this))
        psutil.Process(victim.process_id).kill()
        wait_for(
            "the slot runs again", lambda: {w.slot for w in running_slots(this) if w != victim} == both_slots(this)
        )
        for process in (processes.slots, processes.control):
            assert process.end() == 0, process.output()
        assert processes.beat.end() == 0, processes.beat.output()
    verified = manage_json(this.env, "verify_offsets", "--group", this.group, "--topic", this.topic)
    assert verified["ok"], verified


def test_it_shuts_down_warm_while_postgresql_is_away(case: MakeCase, stack: Stack) -> None:
    this = case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")
    with celery(this) as processes:
        wait_for("both slots run and commit", lambda: len(running_slots(this)) == 2 and committed(this))
        pool = psutil.Process(processes.slots.pid).children(recursive=True)
        connection.close()
        stack.stop_service("postgres")
        try:
            assert processes.slots.end(45) == 0, processes.slots.output()
            assert not [child for child in pool if child.is_running()]
        finally:
            stack.start_service("postgres")
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_waits_while_postgresql_is_read_only_and_tells_it_once(case: MakeCase) -> None:
    this = case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")
    with celery(this) as processes:
        wait_for("both slots run and commit", lambda: len(running_slots(this)) == 2 and committed(this))
        began = time.monotonic()
        with read_only(this.env["DATABASE_URL"]):
            for process in (processes.slots, processes.control):
                wait_for("it says why it waits", lambda p=process: "read-only transaction" in p.output())  # type: ignore[misc]
            wait_for("it lasts a while", lambda: time.monotonic() > began + 16)  # each process misses it
        manage_json(this.env, "produce_events", "--count", str(MORE), "--topic", this.topic, "--seed", "77")
        wait_for("it goes on by itself", lambda: committed(this) == EVENTS + MORE, 90)
        told = Incident.objects.filter(group_id=this.group, kind="database_unavailable")
        incident = wait_for("the outage is told", told.first)
        assert incident is not None
        assert incident.closed_at is not None
        assert (incident.closed_at - incident.began_at).total_seconds() > 4
        for process in (processes.beat, processes.control, processes.slots):
            assert process.end() == 0, process.output()
            assert "Traceback" not in process.output(), process.output()
        assert told.count() == 1, "by whichever process of the control worker"
    verified = manage_json(this.env, "verify_offsets", "--group", this.group, "--topic", this.topic)
    assert verified["ok"], verified


def test_it_shuts_down_warm_while_redis_is_away(case: MakeCase, stack: Stack) -> None:
    this = case(EVENTS, COMMIT_INTERVAL_MS="60000", COMMIT_MAX_RECORDS="100000000")
    with celery(this) as processes:
        wait_for("batches are in hand", lambda: [w for w in running_slots(this) if w.batch_in_hand])
        stack.stop_service("valkey")
        try:
            wait_for("Celery notices", lambda: "connection to broker" in processes.slots.output().lower())
            for process in (processes.beat, processes.control, processes.slots):
                assert process.end() == 0, process.output()
        finally:
            stack.start_service("valkey")
    assert committed(this) > 0
    assert not leases.live(sorted(both_slots(this)))


def test_it_queues_few_starts_without_a_slots_worker_and_takes_over_with_the_next(case: MakeCase) -> None:
    this = case(EVENTS, COMMIT_MAX_RECORDS="300", COMMIT_INTERVAL_MS="10")
    with celery(this) as processes:
        wait_for("both slots run and commit", lambda: len(running_slots(this)) == 2 and committed(this))
        starts = [f"start:{slot}" for slot in sorted(both_slots(this))]
        pool = psutil.Process(processes.slots.pid).children(recursive=True)
        psutil.Process(processes.slots.pid).kill()
        wait_for("its pool ends with it", lambda: not [child for child in pool if child.is_running()])
        wait_for("starts were sent", lambda: leases.live(starts) == set(starts))
        wait_for("they have expired", lambda: not leases.live(starts))
        tick = _supervised_until(this)
        wait_for("two more ticks", lambda: _supervised_until(this) > tick + timedelta(seconds=3))
        with redis.Redis.from_url(this.env["REDIS_URL"]) as client:
            assert client.llen(f"slots-{this.group}") == 2, "one start a slot, however long nobody takes them"
        with slots_worker(this, "successor"):
            wait_for("everything is counted", lambda: committed(this) == EVENTS, 90)
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def _supervised_until(case: Case) -> datetime:
    """Moves on with every tick of supervision."""
    return Lease.objects.get(pk=f"supervision:{case.group}").expires_at
