"""A Celery parent that fails, as it should not, must not leave its slots running without one."""

import sys
from collections.abc import Callable

import pytest

from offsets import leases
from streamsocial.stack import Stack
from tests.support.cases import Case
from tests.support.celery_workers import both_slots, committed, environment, running_slots, slots_arguments, supervision
from tests.support.processes import Background, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]
EVENTS = 5_000

#: A Celery whose parent process fails when it loses its broker, as bugs of its libraries have made it fail.
FAILING_CELERY = """
from celery.worker.consumer import Consumer
def fail(self, error):
    raise AttributeError("a bug")
Consumer.on_connection_error_after_connected = fail
from celery.__main__ import main
main()
"""


def test_a_slots_worker_whose_parent_fails_ends_whole(case: MakeCase, stack: Stack) -> None:
    """Its slots would run on unsupervised for ever; whoever runs it restarts it instead."""
    this = case(EVENTS, COMMIT_INTERVAL_MS="60000", COMMIT_MAX_RECORDS="100000000")
    command = [sys.executable, "-c", FAILING_CELERY, *slots_arguments(this)]
    with supervision(this):
        slots = Background.program(command, environment(this), this.folder / "slots.log")
        try:
            wait_for("batches are in hand", lambda: [w for w in running_slots(this) if w.batch_in_hand])
            stack.restart_service("valkey")
            assert slots.process.wait(45) == 1, slots.output()
            assert "a bug" in slots.output()
        finally:
            slots.kill()
    assert committed(this) > 0
    assert not leases.live(sorted(both_slots(this)))
