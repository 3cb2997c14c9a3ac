"""A beat, a control worker and a slots worker of a test's own, on queues of its own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from offsets.models import PartitionCheckpoint, Worker
from offsets.tasks import slot_name
from tests.cases import Case
from tests.harness import Background, background

#: Two slots and a spare process.
POOL = 3


@dataclass(frozen=True)
class CeleryProcesses:
    slots: Background
    control: Background
    beat: Background


WORKER = ("-m", "celery", "-A", "streamsocial", "worker", "--loglevel", "INFO")


def _env(case: Case) -> dict[str, str]:
    return {**case.env, "CELERY_QUEUE_SUFFIX": f"-{case.group}", "CONSUMER_SLOTS": str(POOL - 1)}


@contextmanager
def slots_worker(case: Case, name: str = "slots", **more_env: str) -> Iterator[Background]:
    node = f"{name}-{case.group}@%h"
    arguments = ("-Q", f"slots-{case.group}", "-c", str(POOL), "--prefetch-multiplier", "1", "-n", node)
    with background({**_env(case), **more_env}, case.folder / f"{name}.log", *WORKER, *arguments) as running:
        yield running


@contextmanager
def celery(case: Case, **slots_env: str) -> Iterator[CeleryProcesses]:
    """Everything Celery runs for `case`, for the length of a with block. `slots_env` goes to the slots worker only."""
    control = ("-Q", f"control-{case.group}", "-c", "2", "-n", f"control-{case.group}@%h")
    schedule = str(case.folder / "beat-schedule")
    beat = ("-m", "celery", "-A", "streamsocial", "beat", "--schedule", schedule, "--pidfile=")
    with ExitStack() as stack:
        yield CeleryProcesses(
            stack.enter_context(slots_worker(case, **slots_env)),
            stack.enter_context(background(_env(case), case.folder / "control.log", *WORKER, *control)),
            stack.enter_context(background(_env(case), case.folder / "beat.log", *beat)),
        )


def running_slots(case: Case) -> list[Worker]:
    return list(Worker.objects.filter(group_id=case.group, state="running").exclude(slot=""))


def both_slots(case: Case) -> set[str]:
    return {slot_name(case.group, slot) for slot in range(POOL - 1)}


def committed(case: Case) -> int:
    return sum(PartitionCheckpoint.objects.filter(group_id=case.group).values_list("next_offset", flat=True))
