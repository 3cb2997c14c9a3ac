"""Celery tasks, called as functions: what they start, what they leave alone, and how they take an outage."""

import mmap
import os
import signal
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import OperationalError, connection
from kombu.exceptions import OperationalError as BrokerError

from offsets import leases, tasks, workers
from offsets.errors import LedgerConflictError, ServiceUnavailableError, TopicNotFoundError
from offsets.models import JournalEntry, Lease, Worker
from offsets.processing import slots
from offsets.processing.worker import WorkerOptions
from tests.support.page_rows import GROUP, make_worker

pytestmark = pytest.mark.django_db

SLOT = slots.slot_name(GROUP, 0)
START = f"start:{SLOT}"


@pytest.fixture(autouse=True)
def _own_flag(monkeypatch):
    """The flag is the process's, and this process goes on after the test."""
    monkeypatch.setattr(slots, "_shutting_down", mmap.mmap(-1, 1))


@pytest.fixture
def sent(monkeypatch):
    """The slots whose start was sent, instead of sending it."""
    calls = []
    monkeypatch.setattr(tasks.run_slot, "apply_async", lambda args, **options: calls.append((*args, options)))
    monkeypatch.setattr(slots, "waiting_starts", lambda _: 0)
    return calls


@pytest.fixture
def worker(monkeypatch):
    """Stands in for the worker: remembers how it was run, and does what `behaves` says."""

    class Stub:
        runs: tuple[WorkerOptions, ...] = ()
        behaves = staticmethod(lambda should_stop, on_heartbeat: None)

        def __call__(self, options, *, should_stop, on_heartbeat):
            self.runs = (*self.runs, options)
            return self.behaves(should_stop, on_heartbeat)

    stub = Stub()
    monkeypatch.setattr(slots, "run_worker", stub)
    return stub


def fail_with(error):
    def behave(should_stop, on_heartbeat):
        raise error

    return behave


# --- Slots ----------------------------------------------------------------------------------------------------


def test_a_slot_runs_a_worker_under_its_lease_and_frees_it_afterwards(worker):
    held = []
    worker.behaves = lambda should_stop, on_heartbeat: held.append((leases.live([SLOT]), on_heartbeat(), should_stop()))

    tasks.run_slot.apply((GROUP, 0), task_id="task-1")

    assert held == [({SLOT}, True, False)]
    assert [(run.group_id, run.topics, run.slot) for run in worker.runs] == [
        (GROUP, (settings.ENGAGEMENT_TOPIC,), SLOT)
    ]
    assert not leases.live([SLOT])


def test_a_second_task_for_a_live_slot_ends_at_once(worker):
    leases.acquire(SLOT, "the first", 60)

    tasks.run_slot.apply((GROUP, 0))

    assert worker.runs == ()
    assert Lease.objects.get(pk=SLOT).holder == "the first"


def test_a_worker_hears_that_its_slot_was_taken(worker):
    answers = []

    def behave(should_stop, on_heartbeat):
        answers.append(on_heartbeat())
        leases.drop(SLOT)
        leases.acquire(SLOT, "another", 60)
        answers.append(on_heartbeat())

    worker.behaves = behave
    tasks.run_slot.apply((GROUP, 0))

    assert answers == [True, False]
    assert Lease.objects.get(pk=SLOT).holder == "another", "it must not free what is another's"


def test_a_database_that_is_away_does_not_cost_a_worker_its_slot(worker, monkeypatch):
    answers = []

    def behave(should_stop, on_heartbeat):
        with monkeypatch.context() as patch:
            patch.setattr(leases, "renew", lambda *_: fail_with(OperationalError("away"))(None, None))
            patch.setattr(connection, "close", lambda: None)
            answers.append(on_heartbeat())

    worker.behaves = behave
    tasks.run_slot.apply((GROUP, 0))

    assert answers == [True]


def test_its_start_is_no_longer_pending_once_a_slot_runs(worker):
    leases.acquire(START, "supervise", 60)
    worker.behaves = lambda *_: None

    tasks.run_slot.apply((GROUP, 0))

    assert not leases.live([START])


@pytest.mark.parametrize(
    ("error", "raises"),
    [
        (TopicNotFoundError("Topic 'engagement' does not exist."), False),
        (ServiceUnavailableError("Kafka did not answer."), False),
        (LedgerConflictError("A row was not as it must be."), False),
        (RuntimeError("a bug"), True),
    ],
)
def test_a_slot_that_fails_says_why_and_is_not_started_again_at_once(worker, sent, error, raises):
    worker.behaves = fail_with(error)

    result = tasks.run_slot.apply((GROUP, 0))

    assert result.failed() == raises
    assert not leases.live([SLOT])
    assert JournalEntry.objects.get().message == f"{SLOT} ended: {error}"
    tasks.supervise()
    assert 0 not in [slot for _, slot, _ in sent]


def test_a_slot_that_fails_again_and_again_fills_no_journal(worker):
    worker.behaves = fail_with(TopicNotFoundError("missing"))
    for _ in range(3):
        tasks.run_slot.apply((GROUP, 0))
    worker.behaves = fail_with(TopicNotFoundError("something else"))
    tasks.run_slot.apply((GROUP, 0))

    assert JournalEntry.objects.filter(kind=slots.SLOT_FAILED).count() == 2


def test_a_slot_that_starts_without_a_database_ends_with_one_line(monkeypatch, worker, caplog):
    monkeypatch.setattr(leases, "acquire", lambda *_: fail_with(OperationalError("connection\nrefused"))(None, None))
    monkeypatch.setattr(connection, "close", lambda: None)

    assert tasks.run_slot.apply((GROUP, 0)).successful()
    assert f"{SLOT} skipped. PostgreSQL is not available: connection refused" in caplog.messages
    assert worker.runs == ()


# --- Shutdown -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_shutdown_stops_the_slots_of_its_node_and_no_others():
    mine, other = make_worker("w-1", node="slots@here"), make_worker("w-2", node="slots@there")
    should_stop = slots.stop_flag()
    assert not should_stop()

    slots.stop_node("slots@here").join(10)

    assert Worker.objects.get(pk=mine.pk).stop_requested
    assert not Worker.objects.get(pk=other.pk).stop_requested
    assert should_stop()


def test_a_shutdown_reaches_the_slots_without_a_database(monkeypatch, caplog):
    monkeypatch.setattr(connection, "close", lambda: None)
    monkeypatch.setattr(workers, "request_stop", lambda **_: fail_with(OperationalError("away"))(None, None))
    should_stop = slots.stop_flag()

    slots.stop_node("slots@here").join(10)

    assert should_stop()
    assert "slots@here" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(60)
def test_a_signal_in_the_middle_of_a_statement_stops_the_slots_all_the_same():
    """Two signals at once, as from an impatient operator: the second came while the first used the connection."""
    mine = make_worker("w-1", node="slots@here")
    telling = []
    before = signal.signal(signal.SIGALRM, lambda *_: telling.append(slots.stop_node("slots@here")))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for thread in telling:
        thread.join(10)
    assert len(telling) > 1
    assert Worker.objects.get(pk=mine.pk).stop_requested


def test_a_slot_whose_celery_parent_is_gone_stops(monkeypatch):
    should_stop = slots.stop_flag()
    assert not should_stop()

    monkeypatch.setattr(os, "getppid", lambda: 1)

    assert should_stop()


# --- Supervision ----------------------------------------------------------------------------------------------


def test_each_slot_that_nobody_holds_is_started_once(sent, settings):
    settings.CONSUMER_SLOTS = 3
    leases.acquire(slots.slot_name(GROUP, 1), "somebody", 60)

    tasks.supervise()
    tasks.supervise()

    assert [(group, slot) for group, slot, _ in sent] == [(GROUP, 0), (GROUP, 2)]
    assert all(options["expires"] == slots.START_SECONDS for _, _, options in sent)


def test_a_start_that_came_to_nothing_is_sent_again(sent, settings):
    settings.CONSUMER_SLOTS = 1
    tasks.supervise()
    leases.drop(START)

    tasks.supervise()

    assert len(sent) == 2


def test_no_start_is_sent_while_nobody_takes_those_that_wait(sent, settings, monkeypatch):
    settings.CONSUMER_SLOTS = 2
    monkeypatch.setattr(slots, "waiting_starts", lambda _: 2)

    tasks.supervise()

    assert sent == []


def test_a_start_that_could_not_be_sent_is_tried_at_the_next_tick(sent, settings, monkeypatch, caplog):
    settings.CONSUMER_SLOTS = 1
    with monkeypatch.context() as patch:
        patch.setattr(tasks.run_slot, "apply_async", lambda *_, **__: fail_with(BrokerError("refused"))(None, None))
        tasks.supervise()
    assert "Redis does not answer" in caplog.text

    tasks.supervise()

    assert len(sent) == 1


def test_starts_that_wait_are_counted_and_an_empty_queue_holds_none():
    assert slots.waiting_starts("slots") == 0

    tasks.run_slot.apply_async((GROUP, 0), expires=60)
    try:
        assert slots.waiting_starts("slots") == 1
    finally:
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            client.delete("slots")


def test_a_lost_connection_closes_in_peace_although_messages_are_held():
    """To hand them back over the lost connection ended the whole worker with an AttributeError (kombu 5.7)."""
    tasks.run_slot.apply_async((GROUP, 0), expires=60)
    broker = current_app.connection_for_read()
    channel: Any = broker.default_channel
    assert channel.basic_get("slots") is not None, "held, and not acknowledged"

    def lose(one: Any) -> None:
        def lost():
            one._in_poll = None
            raise redis.ConnectionError("gone while the next message was waited for")

        one._in_poll, one._brpop_read = True, lost

    lose(channel)
    lose(broker.channel())

    broker.collect()  # as Celery does when it has lost its broker: first this, then close
    broker.close()


def test_a_broker_that_is_away_is_reported_and_not_waited_for(settings, monkeypatch):
    monkeypatch.setattr(current_app.conf, "broker_write_url", "redis://127.0.0.1:1/0")

    with pytest.raises(BrokerError):
        slots.waiting_starts("slots")


# --- Dead workers ---------------------------------------------------------------------------------------------


@pytest.fixture
def _supervised(sent):
    """Supervision has ticked for longer than a heartbeat timeout."""
    leases.acquire(f"supervision:{GROUP}", "supervise", 60)


# --- Wiring ---------------------------------------------------------------------------------------------------


def test_every_scheduled_task_exists_and_expires():
    current_app.loader.import_default_modules()  # as a worker does when it starts
    schedule = current_app.conf.beat_schedule

    assert {entry["task"] for entry in schedule.values()} <= set(current_app.tasks)
    assert all(entry["options"]["expires"] >= entry["schedule"] for entry in schedule.values())


def test_slots_have_a_queue_of_their_own():
    routes = {name: current_app.amqp.router.route({}, name)["queue"].name for name in current_app.tasks}
    ours = {name: queue for name, queue in routes.items() if not name.startswith("celery.")}

    assert ours.pop("offsets.tasks.run_slot") == "slots"
    assert ours.pop("offsets.tasks.run_replay") == "replays", "a replay of hours must not starve anything"
    assert set(ours.values()) == {"control"}


def test_slots_are_acknowledged_early_and_never_timed_out():
    task = tasks.run_slot

    assert not task.acks_late
    assert task.ignore_result
    assert task.time_limit is None
    assert task.soft_time_limit is None
