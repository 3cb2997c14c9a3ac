"""Every transaction locks checkpoints before workers: two that meet wait for each other once, and never both."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction

from offsets import ledger, workers
from offsets.actions import eviction
from offsets.actions.guards import Request, Source
from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError
from offsets.models import PartitionCheckpoint, Worker
from offsets.types import Claim
from tests.support.operators import OPERATOR
from tests.support.page_rows import ago, make_checkpoint, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


class Meeting:
    """After its first lock each side waits until the other has its first, or waits for it."""

    def __init__(self) -> None:
        self._came = {name: threading.Event() for name in ("operator", "manager")}

    def after_first(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            answer = call(*arguments, **options)
            mine = threading.current_thread().name
            if not self._came[mine].is_set():
                self._came[mine].set()
                (other,) = self._came.keys() - {mine}
                self._came[other].wait(1.0)  # where it waits for our lock it cannot come
            return answer

        return wrapped


def test_an_eviction_and_the_fencing_of_the_same_dead_worker_do_not_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = settings.HEARTBEAT_TIMEOUT_SECONDS
    make_checkpoint(0, owner=make_worker("w-1", heartbeat_at=ago(10 * silent)))
    meeting, errors = Meeting(), []
    for module, name in ((workers, "evict"), (workers, "reap"), (ledger, "fence")):
        monkeypatch.setattr(module, name, meeting.after_first(getattr(module, name)))

    def evict() -> None:
        eviction.evict("w-1", Request(OPERATOR, "stuck", Source.API))

    def fence() -> None:  # as the recovery manager does
        with transaction.atomic():
            ledger.fence("w-1", silent_seconds=silent)
            workers.reap(silent, "w-1")

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except (OffsetsError, *DATABASE_LOST) as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=run, args=(work,), name=n) for n, work in (("operator", evict), ("manager", fence))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    # The later one may be refused, in words: the worker is evicted or stopped by then.
    assert [error for error in errors if isinstance(error, DATABASE_LOST)] == []
    checkpoint = PartitionCheckpoint.objects.get()
    assert checkpoint.owner_id is None
    assert checkpoint.epoch > 3
    worker = Worker.objects.get()
    assert worker.evicted_at is not None or worker.state == Worker.State.STOPPED


def test_releases_lock_checkpoints_by_id_as_everything_else_does() -> None:
    """In whatever order the claims are given: a release that began at the end met a commit that began at the start."""
    owner = make_worker("w-1")
    rows = [make_checkpoint(number, owner=owner) for number in range(2)]
    claims = [Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset) for row in reversed(rows)]
    errors: list[BaseException] = []
    first_locked, released = threading.Event(), threading.Event()

    def release() -> None:
        assert first_locked.wait(10)
        try:
            with transaction.atomic():
                ledger.release(claims)
        except DATABASE_LOST as error:
            errors.append(error)
        finally:
            released.set()
            connection.close()

    thread = threading.Thread(target=release)
    thread.start()
    with transaction.atomic():
        ledger.lock_checkpoints([rows[0].pk])
        first_locked.set()
        assert not released.wait(0.5), "it waits for the first row"
        ledger.lock_checkpoints([rows[1].pk])
    thread.join(20)

    assert errors == []
    assert not PartitionCheckpoint.objects.exclude(owner=None).exists()
