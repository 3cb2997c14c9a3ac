"""The scheduler of the loops: what it does when nobody takes its ticks, and when its clock is set back."""

from datetime import timedelta
from typing import Any

import pytest
from celery.beat import PersistentScheduler, ScheduleEntry
from celery.schedules import schedule

from streamsocial import beat
from streamsocial.beat import MAX_WAITING, BoundedScheduler
from streamsocial.celery import app


class Scheduler(BoundedScheduler):
    """Without a file or a broker; remembers what it would have sent."""

    connection: Any = None
    producer: Any = None

    def __init__(self, *ahead_seconds: float) -> None:
        super().__init__(app, lazy=True)
        self.sent: list[str] = []
        now = app.now()
        self._store = {
            "entries": {
                f"loop-{number}": ScheduleEntry(
                    f"loop-{number}", "a.task", now + timedelta(seconds=seconds), schedule=schedule(1.0), app=app
                )
                for number, seconds in enumerate(ahead_seconds)
            }
        }

    def apply_async(self, entry: Any, **_: object) -> None:  # type: ignore[override]
        self.sent.append(entry.name)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ticks wait, in its only place."""
    counts = [0]
    monkeypatch.setattr(beat, "messages_in", lambda queue, broker: counts[0])
    return counts


def test_it_sends_none_while_too_many_wait_and_says_so_once(
    waiting: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = Scheduler(0)
    entry = scheduler.schedule["loop-0"]
    for count in (0, MAX_WAITING - 1, MAX_WAITING, MAX_WAITING + 1, 0, MAX_WAITING):
        waiting[0] = count
        scheduler.apply_entry(entry)
    assert len(scheduler.sent) == 3
    assert [line.partition(";")[0] for line in caplog.messages] == [f"{MAX_WAITING} ticks wait in control"] * 2


def test_it_tries_to_send_where_how_many_wait_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> int:
        raise ConnectionError("refused")

    monkeypatch.setattr(beat, "messages_in", away)
    scheduler = Scheduler(0)
    scheduler.apply_entry(scheduler.schedule["loop-0"])
    assert scheduler.sent == ["loop-0"]


def test_a_clock_that_was_set_back_delays_a_loop_by_no_more_than_its_interval(waiting: list[int]) -> None:
    """The last runs are in the future, by an hour or by a day: in memory, or in the file of the run before."""
    scheduler = Scheduler(3600, 86_400)
    assert PersistentScheduler.tick(scheduler) == scheduler.max_interval, "Celery's own would wait for an hour"
    assert scheduler.tick() <= 1.0
    assert all(entry.last_run_at and entry.last_run_at <= app.now() for entry in scheduler.schedule.values())


def test_an_ordinary_tick_plans_nothing_again(waiting: list[int]) -> None:
    scheduler = Scheduler(-0.5, -0.2)
    scheduler.tick()
    planned = scheduler._heap
    scheduler.tick()
    assert scheduler._heap is planned
