"""A beat, a control worker and a slots worker of a test's own, on queues of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from offsets.models import PartitionCheckpoint, Worker
from offsets.processing.slots import slot_name
from tests.support.cases import Case
from tests.support.processes import Background, background

#: Two slots and a spare process.
POOL = 3


@dataclass(frozen=True)
class CeleryProcesses:
    slots: Background
    control: Background
    beat: Background


WORKER = ("-A", "streamsocial", "worker", "--loglevel", "INFO")


def environment(case: Case) -> dict[str, str]:
    return {**case.env, "CELERY_QUEUE_SUFFIX": f"-{case.group}", "CONSUMER_SLOTS": str(POOL - 1)}


def slots_arguments(case: Case, name: str = "slots") -> list[str]:
    """The arguments of `celery` for a slots worker."""
    queue, node = f"slots-{case.group}", f"{name}-{case.group}@%h"
    return [*WORKER, "-Q", queue, "-c", str(POOL), "--prefetch-multiplier", "1", "-n", node]


@contextmanager
def slots_worker(case: Case, name: str = "slots", **more_env: str) -> Iterator[Background]:
    env = {**environment(case), **more_env}
    with background(env, case.folder / f"{name}.log", "-m", "celery", *slots_arguments(case, name)) as running:
        yield running


@contextmanager
def supervision(case: Case) -> Iterator[tuple[Background, Background]]:
    """A control worker and a beat."""
    control = ("-Q", f"control-{case.group}", "-c", "2", "-n", f"control-{case.group}@%h")
    beat = ("-A", "streamsocial", "beat", "--schedule", str(case.folder / "beat-schedule"), "--pidfile=")
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> Background:
            log = case.folder / f"{name}.log"
            return stack.enter_context(background(environment(case), log, "-m", "celery", *arguments))

        yield start("control", *WORKER, *control), start("beat", *beat)


@contextmanager
def celery(case: Case, **slots_env: str) -> Iterator[CeleryProcesses]:
    """Everything Celery runs for `case`, for the length of a with block. `slots_env` goes to the slots worker only."""
    with slots_worker(case, **slots_env) as slots, supervision(case) as (control, beat):
        yield CeleryProcesses(slots, control, beat)


def running_slots(case: Case) -> list[Worker]:
    return list(Worker.objects.filter(group_id=case.group, state="running").exclude(slot=""))


def both_slots(case: Case) -> set[str]:
    return {slot_name(case.group, slot) for slot in range(POOL - 1)}


def committed(case: Case) -> int:
    return sum(PartitionCheckpoint.objects.filter(group_id=case.group).values_list("next_offset", flat=True))
