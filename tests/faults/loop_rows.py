"""Rows of the fault table about the application's own periodic loops, on real Celery processes."""

import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import redis

from offsets import ticks
from offsets.loops import LOOPS, THIN, LastRun
from offsets.models import LoopRun
from offsets.monitoring.late_loops import late_loops
from tests.faults.scene import DEADLINE, Row, Scene, unless_lost
from tests.support.processes import Background, background, manage_json, wait_for

#: Those that come round within a test.
QUICK = sorted(name for name, loop in LOOPS.items() if loop.interval_seconds < THIN.interval_seconds)


class ControlProcesses:
    """A control worker and a beat of a scene, beat with a clock of its own."""

    def __init__(self, env: dict[str, str], folder: Path, suffix: str) -> None:
        self.env = {**env, "CELERY_QUEUE_SUFFIX": f"-{suffix}", "CONSUMER_SLOTS": "1"}
        self.queue = f"control-{suffix}"
        self.clock = folder / "clock"
        self._folder = folder
        self.set_clock(0)

    def set_clock(self, seconds: float) -> None:
        """How far the clock of beat's machine is ahead of the others'."""
        written = self.clock.with_suffix(".new")
        written.write_text(str(seconds))
        written.replace(self.clock)

    def beat(self) -> AbstractContextManager[Background]:
        schedule = ("--schedule", str(self._folder / "beat-schedule"), "--pidfile=")
        module = ("-m", "tests.support.shifted_celery", str(self.clock), "beat")
        return background(self.env, self._folder / "beat.log", *module, *schedule)

    def control(self, processes: int = 2) -> AbstractContextManager[Background]:
        worker = ("-A", "streamsocial", "worker", "--loglevel", "INFO", "-Q", self.queue, "-c", str(processes))
        return background(
            self.env,
            self._folder / "control.log",
            "-m",
            "celery",
            *worker,
            "-n",
            f"{self.queue}@%h",
            "--prefetch-multiplier",
            "1",
        )

    def waiting(self) -> int:
        with redis.Redis.from_url(self.env["REDIS_URL"]) as client:
            return int(client.llen(self.queue))


def _runs(group: str) -> list[LastRun]:
    nothing: list[LastRun] = []
    return unless_lost(lambda: ticks.last_runs(group), nothing)


def ran_since(group: str, seconds: float, names: list[str] = QUICK) -> bool:
    """Whether each of the loops has run within the last `seconds`."""
    runs = {run.name: run.age_seconds for run in _runs(group)}
    return all(name in runs and runs[name] < seconds for name in names)


def late_names(group: str) -> set[str]:
    return {late.name for late in late_loops(_runs(group))}


def beat_clock_behind(scene: Scene) -> Row:
    """Beat's clock is five minutes behind, then jumps an hour back: the ticks go on all the same."""
    scene.play(workers=1)
    celery = ControlProcesses(scene.env, scene.folder, scene.group)
    celery.set_clock(-300)
    since = scene.now()
    with celery.control(), celery.beat() as beat:
        wait_for("every loop runs", lambda: ran_since(scene.group, 30), DEADLINE)
        celery.set_clock(-3900)
        LoopRun.objects.filter(name__in=QUICK).delete()
        wait_for("every loop runs again", lambda: ran_since(scene.group, 30), DEADLINE)
        assert not late_names(scene.group)
        assert beat.process.poll() is None, beat.output()
        return scene.row("beat's clock behind", since, None, "300 s, then 3,900 s: every loop goes on")


def control_worker_stopped(scene: Scene) -> Row:
    """The control worker is stopped, children and all: its loops are told as late, until it goes on."""
    scene.play(workers=1)
    celery = ControlProcesses(scene.env, scene.folder, scene.group)
    with celery.beat(), celery.control() as control:
        wait_for("every loop runs", lambda: ran_since(scene.group, 30), DEADLINE)
        family = [*psutil.Process(control.pid).children(recursive=True), psutil.Process(control.pid)]
        since = scene.now()
        for process in family:
            os.kill(process.pid, signal.SIGSTOP)
        incident = scene.incident("loop_late", "fold")
        assert "Counts stay exact" in incident.summary
        # Each of the two processes may be stopped within a run, which is given its time.
        stopped = {"monitor", "supervise", "verify", "compare-stores"}
        wait_for("most of them are late", lambda: len(stopped & late_names(scene.group)) >= 2, DEADLINE)
        shown = manage_json(scene.env, "offsets_status", "--group", scene.group)
        late = {loop["name"] for loop in shown["loops"] if loop["late"]}
        assert "fold" in late
        assert len(late & stopped) >= 2
        assert "recover" not in late, "the manager in the foreground runs it"
        for process in family:
            os.kill(process.pid, signal.SIGCONT)
        return scene.row("control worker SIGSTOP", since, incident, "loops told as late; counting went on")


ROWS = (beat_clock_behind, control_worker_stopped)
