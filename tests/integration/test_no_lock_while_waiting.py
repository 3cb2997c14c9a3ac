"""While Kafka or another store keeps its answer back, no row of ours is locked by the one who waits for it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction

from offsets import leases
from offsets.actions import reconcile
from offsets.actions.guards import Request, Source
from offsets.errors import StalePreviewError
from offsets.kafka.admin import KafkaAdmin, LogBounds
from offsets.models import LagSample, OperatorAction, PartitionCheckpoint
from offsets.processing.topic_watch import TopicWatch
from offsets.stores import drift
from offsets.stores.redis import RedisStore
from offsets.types import StoredOffset, TopicPartition
from tests.support.operators import OPERATOR
from tests.support.page_rows import GROUP, make_checkpoint
from tests.support.processes import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]
REQUEST = Request(OPERATOR, "drifted", Source.API)


class Held:
    """Stands in for a call that gets no answer until it is let go."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.asked, self.answered = threading.Event(), threading.Event()
        self._answer = answer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.asked.set()
        assert self.answered.wait(30)
        return self._answer(*arguments, **options)


@contextmanager
def in_thread(work: Callable[[], object], held: Held) -> Iterator[list[BaseException]]:
    """Run `work` until it waits; what it raised after it was let go."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert held.asked.wait(20)
        yield errors
    finally:
        held.answered.set()
        thread.join(20)
        assert not thread.is_alive()


def lock_all_rows() -> None:
    """Fails at once where another transaction holds a row."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table in ("offsets_lease", "offsets_partitioncheckpoint", "offsets_storeoffset"):
            cursor.execute(f"SELECT 1 FROM {table} FOR UPDATE NOWAIT")


def test_a_worker_that_waits_for_the_log_ends_locks_nothing() -> None:
    checkpoint = make_checkpoint(0)
    place = TopicPartition(checkpoint.topic, 0)
    held = Held(lambda *_, **__: {place: LogBounds(0, 1500)})

    class Admin(KafkaAdmin):
        describe_topics = staticmethod(lambda *_, **__: {})
        log_bounds = held

    watch = TopicWatch(GROUP, "w-1", [checkpoint.topic], Admin(), claims=list, on_trouble=lambda *_: None)
    stopping = threading.Event()
    with in_thread(lambda: watch.run(stopping), held):
        try:
            assert leases.live([f"sampler:{GROUP}"]), "the lease is taken, in a statement of its own"
            lock_all_rows()
            held.answered.set()
            wait_for("the sample", LagSample.objects.exists, 20)
        finally:
            stopping.set()


def test_a_store_that_is_written_to_locks_nothing(monkeypatch: pytest.MonkeyPatch, stack: object) -> None:
    checkpoint = make_checkpoint(0, next_offset=1000)
    place, store = TopicPartition(checkpoint.topic, 0), RedisStore()
    store.put(GROUP, {place: StoredOffset(990, 3)})
    held = Held(RedisStore.put)
    monkeypatch.setattr(RedisStore, "put", lambda *arguments: held(*arguments))
    seen = drift.measure(GROUP, store)

    with in_thread(lambda: reconcile.write_to_store("redis", seen, REQUEST), held) as errors:
        lock_all_rows()

    assert errors == []
    assert store.read(GROUP, [place])[place].next_offset == 1000
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.after["next_offset"]) == ("reconcile", "applied", 1000)
    store.forget(GROUP, [place])
    store.close()


def test_an_offset_that_moved_on_while_the_store_was_written_wins(stack: object) -> None:
    """The store compares epochs: what a later owner wrote is not overwritten, and the refusal is audited."""
    checkpoint = make_checkpoint(0, next_offset=1000)
    place, store = TopicPartition(checkpoint.topic, 0), RedisStore()
    seen = drift.measure(GROUP, store)
    store.put(GROUP, {place: StoredOffset(1500, checkpoint.epoch + 1)})

    with pytest.raises(Exception, match="epoch"):
        reconcile.write_to_store("redis", seen, REQUEST)

    assert store.read(GROUP, [place])[place].next_offset == 1500
    assert OperatorAction.objects.get().outcome == "refused"
    store.forget(GROUP, [place])
    store.close()


def test_a_partition_that_is_owned_is_written_by_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only members of the group may commit to Kafka: the request is a row, and nothing is sent from here."""
    monkeypatch.setattr(settings, "OFFSET_MIRRORS", ["kafka"])
    from tests.support.page_rows import make_worker

    checkpoint = make_checkpoint(0, owner=make_worker("w-1"))
    place = TopicPartition(checkpoint.topic, 0)
    seen = [drift.Drift(checkpoint.pk, place, "kafka", 1000, 900, 3)]

    reconcile.write_to_store("kafka", seen, REQUEST)

    assert PartitionCheckpoint.objects.get().mirror_requests == checkpoint.mirror_requests + 1
    assert OperatorAction.objects.get().outcome == "applied"
    with pytest.raises(StalePreviewError):
        reconcile.check_stored(seen[0], 901)
