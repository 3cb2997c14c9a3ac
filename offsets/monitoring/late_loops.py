"""Periodic loops of the application that have not run for too long, in words. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from offsets.loops import LOOPS, NOTIFY, RECOVER, LastRun
from offsets.text import duration

#: `run_recovery_manager` runs these, too: that they run says nothing of a control worker.
_OF_THE_MANAGER = frozenset({RECOVER.name, NOTIFY.name})
_START = "Start a control worker and celery beat"


@dataclass(frozen=True, slots=True)
class LateLoop:
    """One late loop. `detail` says what does not happen meanwhile, and the likely cause."""

    name: str
    age_seconds: float
    detail: str
    #: What to do, in a few words.
    remedy: str


def late_loops(runs: Sequence[LastRun]) -> list[LateLoop]:
    """The loops whose last run is too long ago. One that runs now, in any process, is not late, nor is one that never
    ran: nothing says that it should.
    """
    late = [run for run in runs if run.name in LOOPS and _is_late(run)]
    names = {run.name for run in late}
    ticking = any(run.name not in names | _OF_THE_MANAGER for run in runs if run.name in LOOPS)
    return [_in_words(run, ticking=ticking) for run in late]


def _is_late(run: LastRun) -> bool:
    return not run.running and run.age_seconds > LOOPS[run.name].late_seconds


def _in_words(run: LastRun, *, ticking: bool) -> LateLoop:
    loop = LOOPS[run.name]
    if run.last_error:
        remedy = f"It fails: {run.last_error.rstrip('.')}"
    elif ticking:
        remedy = "Other loops run: see the log of the control worker"
    else:
        remedy = _START
    detail = (
        f"The {run.name} loop has not run for {duration(run.age_seconds)}; it is due every "
        f"{loop.interval_seconds:,.0f} s. {loop.without} {remedy}."
    )
    return LateLoop(run.name, run.age_seconds, detail, remedy)


def late_in_words(late: Sequence[LateLoop]) -> str:
    """All late loops in one sentence, and what to do about the first."""
    names = ", ".join(f"{loop.name} ({duration(loop.age_seconds)})" for loop in late)
    return f"Late loops: {names}. {late[0].remedy}."
