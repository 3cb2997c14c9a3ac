"""Ticks that wait while no control worker runs: bounded, and gone at once when one returns; the rows about loops."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from django.db import connection

from offsets import tasks
from offsets.models import LoopRun
from streamsocial.beat import MAX_WAITING
from streamsocial.stack import Stack
from tests.faults.loop_rows import QUICK, ROWS, ControlProcesses, ran_since
from tests.faults.scene import Row, Scene
from tests.support.cases import Case
from tests.support.processes import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]

QUEUED = 10_000


@pytest.fixture
def this(case: Callable[..., Case]) -> Case:
    return case(100)


@pytest.fixture
def celery(this: Case, tmp_path: Path) -> ControlProcesses:
    return ControlProcesses(this.env, tmp_path, this.group)


def test_ten_thousand_ticks_that_wait_are_gone_at_once(this: Case, celery: ControlProcesses) -> None:
    from analytics import tasks as control

    waiting = (control.fold, control.monitor, tasks.recover, tasks.supervise)
    for number in range(QUEUED):
        waiting[number % len(waiting)].apply_async(queue=celery.queue)
    assert celery.waiting() == QUEUED

    with celery.control() as worker:
        wait_for("the control worker takes the first", lambda: celery.waiting() < QUEUED)
        began = time.monotonic()
        wait_for("none waits", lambda: not celery.waiting(), 120)
        seconds = time.monotonic() - began
        print(f"{QUEUED:,} ticks gone in {seconds:.1f} s")
        wait_for("the last of them has run", lambda: not LoopRun.objects.filter(busy_until__isnull=False).exists())
        assert ran_since(this.group, 30, ["fold", "monitor", "recover", "supervise"])
        assert worker.end() == 0, worker.output()
    assert seconds < 90, "one at a time through the pool it took minutes"


def test_beat_sends_no_more_than_a_few_ticks_that_nobody_takes(this: Case, celery: ControlProcesses) -> None:
    with celery.beat() as beat:
        wait_for("beat says so", lambda: "no more are sent until a control worker takes them" in beat.output(), 90)
        assert MAX_WAITING <= celery.waiting() <= MAX_WAITING + len(QUICK)
        sent = celery.waiting()
        began = time.monotonic()
        wait_for("a few intervals pass", lambda: time.monotonic() - began > 4)
        assert celery.waiting() == sent
        assert beat.output().count("no more are sent") == 1
        with celery.control():
            wait_for("every loop runs", lambda: ran_since(this.group, 15), 60)
            assert celery.waiting() < MAX_WAITING
        assert beat.end() == 0, beat.output()


def sessions() -> int:
    """How many sessions of this database have ever been opened."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def ended_at(name: str) -> object:
    return LoopRun.objects.filter(name=name).values_list("finished_at", flat=True).first()


def test_ticks_do_not_open_a_connection_each(this: Case, celery: ControlProcesses) -> None:
    with celery.beat(), celery.control():
        wait_for("every loop runs", lambda: ran_since(this.group, 15), 60)
        before, began = sessions(), time.monotonic()
        ends: set[object] = set()

        def ten_runs() -> bool:
            ends.add(ended_at("fold"))
            return len(ends) > 10

        wait_for("ten folds", ten_runs)
        # Each of two processes may open one for the first time, and the statistics come late.
        print(f"{sessions() - before} sessions in {time.monotonic() - began:.0f} s")
        assert sessions() - before <= 4


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.__name__)
def test_fault_of_the_loops(
    fault: Callable[[Scene], Row],
    service_env: Mapping[str, str],
    tmp_path: Path,
    stack: Stack,
    request: pytest.FixtureRequest,
) -> None:
    seed = int(request.config.getoption("randomly_seed", None) or 1) % 2**31
    with Scene(service_env, tmp_path, stack, seed) as scene:
        print(fault(scene))
