"""Periodic loops: who may run, what is recorded, and that only the database's clock counts."""

import threading
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from analytics.dashboard.read_model import Dashboard
from offsets import ticks
from offsets.loops import FOLD, MONITOR, NOTIFY, RECOVER, VERIFY
from offsets.models import Incident, LoopRun
from offsets.monitoring.late_loops import late_loops
from offsets.recovery.manager import RecoveryManager
from tests.support.operators import in_words, run
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_worker
from tests.support.recovery_manager import Cluster, supervised

pytestmark = pytest.mark.django_db


def went(loop: Any = FOLD, group_id: str = "") -> bool:
    with ticks.tick(loop, group_id) as current:
        return bool(current)


def row(name: str = "fold") -> LoopRun:
    return LoopRun.objects.get(name=name)


def test_a_run_records_its_start_its_end_and_how_long_it_took() -> None:
    with ticks.tick(FOLD) as current:
        assert current
        during = row()
        assert during.holder
        assert during.busy_until is not None
        assert ticks.last_runs(GROUP)[0].running

    after = row()
    assert (after.holder, after.busy_until, after.last_error) == ("", None, "")
    assert after.started_at <= after.finished_at
    assert after.duration_seconds is not None
    assert 0 <= after.duration_seconds < 10
    (last,) = ticks.last_runs(GROUP)
    assert (last.name, last.running) == ("fold", False)
    assert 0 <= last.age_seconds < 10


def test_ticks_that_waited_in_a_queue_do_not_run_again_at_once() -> None:
    assert [went() for _ in range(3)] == [True, False, False]
    LoopRun.objects.update(started_at=ago(FOLD.interval_seconds))
    assert went()


def test_a_loop_of_each_group_and_one_of_all() -> None:
    assert went(MONITOR, GROUP)
    assert went(MONITOR, "another")
    assert went(FOLD)
    assert [last.name for last in ticks.last_runs(GROUP)] == ["fold", "monitor"]


def test_a_loop_that_another_process_runs_is_left_to_it_and_is_not_late() -> None:
    assert went()
    LoopRun.objects.update(holder="another", started_at=ago(20), finished_at=ago(600), busy_until=ago(-10))
    assert not went()
    assert not late_loops(ticks.last_runs(GROUP))
    LoopRun.objects.update(busy_until=ago(1))
    assert [late.name for late in late_loops(ticks.last_runs(GROUP))] == ["fold"], "it died, or it hangs"
    assert went()
    assert not late_loops(ticks.last_runs(GROUP))


def test_a_process_that_was_taken_over_ends_nothing_of_its_successor() -> None:
    with ticks.tick(FOLD) as current:
        assert current
        LoopRun.objects.update(holder="successor")
    assert row().holder == "successor"
    assert row().busy_until is not None


def test_an_error_is_recorded_and_raised_and_does_not_count_as_a_run() -> None:
    assert went()
    LoopRun.objects.update(started_at=ago(40), finished_at=ago(40))
    with pytest.raises(KeyError), ticks.tick(FOLD):
        raise KeyError("x")
    (late,) = late_loops(ticks.last_runs(GROUP))
    assert late.remedy == "It fails: KeyError: 'x'"
    LoopRun.objects.update(started_at=ago(40))
    assert went()
    assert row().last_error == ""
    assert not late_loops(ticks.last_runs(GROUP))


def test_an_error_that_the_body_handled_is_recorded_and_an_idle_run_has_no_duration() -> None:
    with ticks.tick(RECOVER, GROUP) as current:
        assert current
        current.error = "deadlock detected"
    assert row("recover").last_error == "deadlock detected"
    assert went(VERIFY, GROUP)
    LoopRun.objects.filter(name="verify").update(started_at=ago(60), finished_at=ago(60), duration_seconds=7.5)
    with ticks.tick(VERIFY, GROUP) as current:
        assert current
        current.idle = True
    assert row("verify").duration_seconds == 7.5
    assert not late_loops(ticks.last_runs(GROUP))


def test_a_clock_that_was_set_back_stops_no_loop() -> None:
    assert went()
    LoopRun.objects.update(holder="another", started_at=ago(-3600), finished_at=ago(-3600), busy_until=ago(-3630))
    assert went()
    assert not late_loops(ticks.last_runs(GROUP))


def test_a_process_that_ticks_by_itself_is_recorded_and_keeps_no_other_from_running() -> None:
    ticks.record(RECOVER, GROUP, 0.25)
    assert row("recover").duration_seconds == 0.25
    assert went(RECOVER, GROUP)
    ticks.record(RECOVER, GROUP, 0.5)
    assert row("recover").duration_seconds == 0.5


def test_a_lost_database_ends_the_tick_with_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    def lose(*_: object) -> bool:
        raise OperationalError("terminating\nconnection")

    monkeypatch.setattr(connection, "close", lambda: None)
    with ticks.tick(FOLD):
        lose()
    assert caplog.messages == ["Fold skipped. PostgreSQL is not available: terminating connection"]


def test_a_run_that_lost_the_database_is_ended_by_the_next_tick_of_its_process(monkeypatch: Any) -> None:
    """Otherwise nobody would run it until its time was up: five minutes for a check of the invariants."""

    def lose(*_: object) -> bool:
        raise OperationalError("terminating connection")

    monkeypatch.setattr(connection, "close", lambda: None)
    with ticks.tick(VERIFY, GROUP):
        lose()
    assert row("verify").busy_until is not None

    assert went(FOLD)

    assert row("verify").busy_until is None
    assert "terminating connection" in row("verify").last_error
    LoopRun.objects.filter(name="verify").update(started_at=ago(10))
    assert went(VERIFY, GROUP)


def test_a_tick_that_finds_no_database_is_no_run(monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    def away(*_: object) -> bool:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "close", lambda: None)
    monkeypatch.setattr(connection, "cursor", away)
    assert not went()
    assert caplog.messages == ["Fold skipped. PostgreSQL is not available: connection refused"]


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_was_lost_between_two_ticks_costs_none() -> None:
    assert went()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    finally:
        other.close()
    assert went(NOTIFY)


@pytest.mark.django_db(transaction=True)
def test_of_many_ticks_at_once_one_runs() -> None:
    ran, start = [], threading.Barrier(8)

    def once() -> None:
        start.wait(30)
        try:
            ran.append(went())
        finally:
            connection.close()

    threads = [threading.Thread(target=once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ran) == [False] * 7 + [True]


# --- Who tells ----------------------------------------------------------------------------------------------------


def stop_loops(*names: str) -> None:
    for name in names:
        group = "" if name == "fold" else GROUP
        key = f"{name}:{group}" if group else name
        LoopRun.objects.create(key=key, name=name, group_id=group, started_at=ago(40), finished_at=ago(40))


def test_the_page_and_the_command_tell_of_late_loops_by_themselves(stack: object) -> None:
    """At the time they read: the loops that would tell them are those that do not run."""
    make_checkpoint(owner=make_worker())
    stop_loops("recover", "monitor", "fold")

    snapshot = Dashboard(GROUP).snapshot()

    assert "Late loops: fold (40 s), monitor (40 s), recover (40 s). Start a control worker" in snapshot["headline"]
    assert snapshot["worst_status"] != "OK"
    assert [(loop["name"], loop["late"]) for loop in snapshot["loops"]] == [
        ("fold", True),
        ("monitor", True),
        ("recover", True),
    ]
    assert "Dead workers are not fenced" in snapshot["loops"][2]["detail"]
    words = in_words("offsets_status")
    assert "The recover loop has not run for 4" in words
    assert [loop["name"] for loop in run("offsets_status")["loops"] if loop["late"]] == ["fold", "monitor", "recover"]


@supervised
def test_the_manager_opens_an_incident_for_each_other_loop_until_it_runs(cluster: Cluster) -> None:
    make_checkpoint(owner=make_worker())
    stop_loops("recover", "monitor", "fold")
    manager = RecoveryManager(GROUP, "A", dispatch=lambda _: None)

    assert sorted(manager.tick().opened) == ["loop_late fold", "loop_late monitor"]

    assert "Start a control worker" in Incident.objects.get(subject="fold").summary
    assert went()
    assert manager.tick().closed == ["loop_late fold"]


def test_the_manager_does_not_tell_of_others_just_after_it_was_away_itself(cluster: Cluster) -> None:
    """What kept it from running has kept the others, too: they get one heartbeat timeout."""
    stop_loops("monitor")
    assert not RecoveryManager(GROUP, "A", dispatch=lambda _: None).tick().opened


def test_the_manager_in_the_foreground_records_the_same_loop(cluster: Cluster) -> None:
    call_command("run_recovery_manager", "--once", "--json")
    assert [last.name for last in ticks.last_runs(GROUP)] == ["recover"]
    assert row("recover").group_id == GROUP
