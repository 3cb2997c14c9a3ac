"""One suite on all four offset stores, on real services; it follows what each declares that it can do: fixtures."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsets.configuration import STORES
from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import PartitionCheckpoint, Worker
from offsets.stores import open_store
from offsets.stores.base import OffsetStore
from offsets.stores.file import FileStore
from offsets.stores.kafka import KafkaStore
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.stack import Stack
from tests.support.page_rows import make_checkpoint, make_range, make_worker
from tests.support.processes import wait_for

BIG = 2**62


#: How long the stores may take to say that a service is down; Kafka's client is told, the others have their own.
KAFKA_SECONDS = 3.0


PATIENCE_SECONDS = 7.0


class StoreHarness:
    """A store and a group of its own in it; makes rows where a store is not written from outside."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.store = self.open()
        self.can = self.store.capabilities
        self.group = f"contract-{uuid.uuid4().hex[:8]}"
        self.topic = self.group

    def open(self) -> OffsetStore:
        if self.name == "kafka":
            return KafkaStore(KAFKA_SECONDS)
        return FileStore(self.folder) if self.name == "file" else open_store(self.name)

    def tp(self, partition: int = 0, topic: str = "") -> TopicPartition:
        return TopicPartition(topic or self.topic, partition)

    def set(self, offset: int, epoch: int = 1, *, partition: int = 0, worker: str = "w-1", group: str = "") -> None:
        """Put an offset there by the way that the store allows."""
        if self.name == "postgres":
            self._set_row(group or self.group, partition, offset, epoch, worker)
            return
        assert self.store.put(group or self.group, {self.tp(partition): StoredOffset(offset, epoch, worker)}) == {}

    def _set_row(self, group: str, partition: int, offset: int, epoch: int, worker: str) -> None:
        owner = Worker.objects.filter(pk=worker).first()
        PartitionCheckpoint.objects.filter(group_id=group, topic=self.topic, partition=partition).delete()
        made = make_checkpoint(
            partition,
            group_id=group,
            topic=self.topic,
            next_offset=offset,
            ledger_end=BIG + 1000,
            epoch=epoch,
            owner=owner or make_worker(worker),
        )
        # The ledger lets nobody move past offsets of which it says nothing.
        make_range(made, 0, BIG + 1000)

    def get(self, partition: int = 0) -> StoredOffset | None:
        return self.store.read(self.group, [self.tp(partition)]).get(self.tp(partition))

    def commit(self, expected: int | None, offset: int, epoch: int = 1, *, partition: int = 0) -> str:
        """The reason of a refusal; empty when it was applied."""
        commit = StoreCommit(self.tp(partition), expected, offset, epoch, "w-1")
        return self.store.commit(self.group, [commit]).get(self.tp(partition), "")


#: Only what reads the ledger needs the database, which is flushed after each test.
_DATABASE = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[pytest.param(name, marks=_DATABASE if name == "postgres" else ()) for name in STORES])
def harness(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[StoreHarness]:
    made = StoreHarness(request.param, tmp_path / "offsets")
    if made.name == "kafka":
        _make_topic(made, 20)
    yield made
    made.store.close()


def _make_topic(harness: StoreHarness, partitions: int) -> None:
    """Kafka takes offsets for partitions that exist, once it has made the topic in which it keeps them."""
    admin = KafkaAdmin()
    admin.create_topic(harness.topic, partitions)
    wait_for("the topic", lambda: admin.describe_topics([harness.topic]))
    wait_for("the coordinator, which a fresh broker makes first", lambda: _answers(harness))


def _answers(harness: StoreHarness) -> bool:
    try:
        return harness.store.read(harness.group, [harness.tp()]) == {}
    except ServiceUnavailableError:
        return False


@contextlib.contextmanager
def _says_that_it_is_down() -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=r"not available|did not answer|refuses requests"):
        yield
    assert time.monotonic() - started < PATIENCE_SECONDS


GROUP = "group"


PLACE = TopicPartition("t", 0)


@pytest.fixture
def written(tmp_path: Path) -> tuple[FileStore, Path]:
    store = FileStore(tmp_path)
    assert store.put(GROUP, {PLACE: StoredOffset(12345, 3, "w-1")}) == {}
    return store, store.path(GROUP)
