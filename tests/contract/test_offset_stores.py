"""One suite on all four offset stores, on real services; it follows what each declares that it can do."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from offsets.errors import CorruptStoreError, RefusedError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.metadata import metadata_of, stored_offset
from offsets.models import PartitionCheckpoint, Worker
from offsets.stores import NAMES, OffsetStore, StoreCommit, StoredOffset, capabilities_of, open_store
from offsets.stores.file import FileStore
from offsets.stores.redis import RedisStore
from offsets.types import TopicPartition
from streamsocial.environment import BASE_DIR
from streamsocial.stack import Stack
from tests.harness import wait_for
from tests.page_rows import make_checkpoint, make_range, make_worker

pytestmark = pytest.mark.django_db(transaction=True)

BIG = 2**62


class Shelf:
    """A store and a group of its own in it; makes rows where a store is not written from outside."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.store = self.open()
        self.can = self.store.capabilities
        self.group = f"contract-{uuid.uuid4().hex[:8]}"
        self.topic = self.group

    def open(self) -> OffsetStore:
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


@pytest.fixture(params=NAMES)
def shelf(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(request.param, tmp_path / "offsets")
    if made.name == "kafka":
        # Kafka takes offsets for partitions that exist.
        admin = KafkaAdmin()
        admin.create_topic(made.topic, 20)
        wait_for("the topic", lambda: admin.describe_topics([made.topic]))
        wait_for("the coordinator, which a fresh broker makes first", lambda: _answers(made))
    yield made
    made.store.close()


def _answers(shelf: Shelf) -> bool:
    try:
        return shelf.store.read(shelf.group, [shelf.tp()]) == {}
    except ServiceUnavailableError:
        return False


def test_what_was_never_stored_is_missing(shelf: Shelf) -> None:
    assert shelf.store.read(shelf.group, [shelf.tp(0), shelf.tp(1)]) == {}
    assert shelf.store.read(shelf.group, []) == {}


@pytest.mark.parametrize("offset", [0, 1, 2**31, BIG])
def test_what_is_stored_is_read_with_its_epoch_and_worker(shelf: Shelf, offset: int) -> None:
    shelf.set(offset, 7, worker="w-7f2a")
    assert shelf.get() == StoredOffset(offset, 7, "w-7f2a")


def test_a_commit_moves_from_what_is_expected(shelf: Shelf) -> None:
    if shelf.name == "postgres":
        shelf.set(0)
    else:
        assert shelf.commit(None, 0) == ""
    assert shelf.commit(0, 10) == ""
    assert shelf.commit(10, 25) == ""
    stored = shelf.get()
    assert stored is not None
    assert (stored.next_offset, stored.epoch) == (25, 1)


@pytest.mark.parametrize("expected", [None, 9, 11])
def test_a_commit_that_expects_something_else_changes_nothing(shelf: Shelf, expected: int | None) -> None:
    shelf.set(10, 3)
    reason = shelf.commit(expected, 20, 3)
    assert "10" in reason
    assert str(expected if expected is not None else "nothing").lower() in reason.lower().replace("none", "nothing")
    assert shelf.get() == StoredOffset(10, 3, "w-1")


def test_an_older_epoch_is_refused_and_a_newer_one_wins(shelf: Shelf) -> None:
    shelf.set(10, 5)
    assert "epoch 4 is over" in shelf.commit(10, 20, 4)
    assert shelf.get() == StoredOffset(10, 5, "w-1")
    if shelf.name == "postgres":
        assert "epoch 6 is over" in shelf.commit(10, 20, 6), "the ledger's epochs begin with a claim alone"
        return
    assert shelf.commit(10, 20, 6) == ""
    assert shelf.store.put(shelf.group, {shelf.tp(): StoredOffset(5, 5)}).keys() == {shelf.tp()}
    assert shelf.store.put(shelf.group, {shelf.tp(): StoredOffset(5, 6)}) == {}
    assert shelf.get() == StoredOffset(5, 6, "")


def test_each_partition_of_a_commit_is_moved_or_refused_by_itself(shelf: Shelf) -> None:
    for partition in range(4):
        shelf.set(10, 1, partition=partition)
    commits = [StoreCommit(shelf.tp(p), 10 if p != 2 else 11, 20, 1, "w-1") for p in range(4)]
    assert shelf.store.commit(shelf.group, commits).keys() == {shelf.tp(2)}
    found = shelf.store.read(shelf.group, [shelf.tp(p) for p in range(4)])
    assert [found[shelf.tp(p)].next_offset for p in range(4)] == [20, 20, 10, 20]


def test_groups_and_topics_do_not_mix(shelf: Shelf) -> None:
    other = f"{shelf.group}-other"
    shelf.set(10)
    shelf.set(99, group=other)
    assert shelf.store.read(shelf.group, [shelf.tp(), shelf.tp(0, "another-topic")]) == {
        shelf.tp(): StoredOffset(10, 1, "w-1")
    }
    assert shelf.store.read(other, [shelf.tp()])[shelf.tp()].next_offset == 99


@pytest.mark.parametrize("name", ["Gruppe ü", "a/b/../c", "x:{y}", 'quo"te', "g" * 200, "a b", "%s", "日本"])
def test_any_text_may_be_a_groups_name(shelf: Shelf, name: str) -> None:
    shelf.group, other = f"{name}-{uuid.uuid4().hex[:6]}", f"{name}-{uuid.uuid4().hex[:6]}"
    shelf.set(10)
    assert shelf.get() == StoredOffset(10, 1, "w-1")
    assert shelf.store.read(other, [shelf.tp()]) == {}


def test_many_partitions_go_in_one_call(shelf: Shelf) -> None:
    many = 20 if shelf.name == "kafka" else 400
    if shelf.name == "postgres":
        for partition in range(many):
            shelf.set(0, partition=partition)
    expected = 0 if shelf.name == "postgres" else None
    commits = [StoreCommit(shelf.tp(p), expected, p + 1, 1, "w-1") for p in range(many)]
    assert shelf.store.commit(shelf.group, commits) == {}
    found = shelf.store.read(shelf.group, [shelf.tp(p) for p in range(many)])
    assert {tp.partition: one.next_offset for tp, one in found.items()} == {p: p + 1 for p in range(many)}


def test_of_several_writers_one_wins_each_step(shelf: Shelf) -> None:
    if not shelf.can.compare_and_set:
        pytest.skip(f"{shelf.name} declares no compare-and-set")
    shelf.set(0)
    wins: list[int] = []
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        from django.db import connection

        store = shelf.open()
        try:
            for step in range(10):
                barrier.wait(30)
                commit = StoreCommit(shelf.tp(), step, step + 1, 1, f"w-{number}")
                if not store.commit(shelf.group, [commit]):
                    wins.append(step)
                barrier.wait(30)
        finally:
            store.close()
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, number) for number in range(4)]:
            future.result(60)
    assert sorted(wins) == list(range(10))
    stored = shelf.get()
    assert stored is not None
    assert stored.next_offset == 10


def test_what_is_forgotten_is_missing(shelf: Shelf) -> None:
    shelf.set(10)
    shelf.set(11, partition=1)
    if shelf.name in ("postgres", "kafka"):
        with pytest.raises(RefusedError):
            shelf.store.forget(shelf.group, [shelf.tp()])
        return
    shelf.store.forget(shelf.group, [shelf.tp()])
    assert shelf.get() is None
    assert shelf.get(1) == StoredOffset(11, 1, "w-1")


def test_the_ledger_takes_nothing_from_outside(shelf: Shelf) -> None:
    if shelf.can.writable_from_outside or shelf.name == "kafka":
        pytest.skip("it may be written from outside")
    shelf.set(10)
    with pytest.raises(RefusedError, match="reset_offsets"):
        shelf.store.put(shelf.group, {shelf.tp(): StoredOffset(5, 9)})
    assert "reaches" in shelf.commit(10, BIG + 2000)
    assert "reaches" in shelf.commit(10, 9)


SERVICES = {"postgres": "postgres", "kafka": "kafka", "redis": "valkey"}


@pytest.mark.parametrize("name", ["redis", "kafka"])
def test_it_survives_a_restart_and_says_so_while_it_is_down(name: str, stack: Stack, tmp_path: Path) -> None:
    shelf = Shelf(name, tmp_path)
    if name == "kafka":
        KafkaAdmin().create_topic(shelf.topic, 1)
        wait_for("the topic", lambda: KafkaAdmin().describe_topics([shelf.topic]))
    shelf.set(1234, 5)
    stack.stop_service(SERVICES[name])
    try:
        with pytest.raises(ServiceUnavailableError, match=r"not available|did not answer"):
            shelf.open().read(shelf.group, [shelf.tp()])
    finally:
        stack.start_service(SERVICES[name])
    again = shelf.open()
    found = wait_for("it to answer", lambda: _read(again, shelf))
    assert found == {shelf.tp(): StoredOffset(1234, 5, "w-1")}


def _read(store: OffsetStore, shelf: Shelf) -> dict[TopicPartition, StoredOffset]:
    try:
        return store.read(shelf.group, [shelf.tp()])
    except ServiceUnavailableError:
        return {}


def test_what_each_store_declares_is_what_the_modes_build_on() -> None:
    assert {name for name in NAMES if capabilities_of(name).transactional} == {"postgres"}
    assert {name for name in NAMES if not capabilities_of(name).several_workers} == {"file"}
    with pytest.raises(RefusedError, match="postgres, kafka, redis, file"):
        open_store("stone")


# --- Kafka ----------------------------------------------------------------------------------------


@pytest.fixture
def kafka_shelf(stack: Stack, tmp_path: Path) -> Shelf:
    made = Shelf("kafka", tmp_path)
    KafkaAdmin().create_topic(made.topic, 2)
    wait_for("the topic", lambda: KafkaAdmin().describe_topics([made.topic]))
    wait_for("the coordinator", lambda: _answers(made))
    return made


def test_an_active_group_is_written_by_its_members_alone(kafka_shelf: Shelf) -> None:
    kafka_shelf.set(5)
    config = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": kafka_shelf.group}
    member = Consumer({**config, "enable.auto.commit": False})
    member.subscribe([kafka_shelf.topic])
    try:
        wait_for("the member to join", lambda: member.poll(0.1) or member.assignment())
        with pytest.raises(RefusedError, match="group is active"):
            kafka_shelf.store.put(kafka_shelf.group, {kafka_shelf.tp(): StoredOffset(9, 2)})
        assert kafka_shelf.get() == StoredOffset(5, 1, "w-1")
    finally:
        member.close()


@pytest.mark.parametrize(
    "metadata", ["", "not ours", "[1, 2]", '{"epoch": "x"}', '{"epoch": -1, "worker": "w"}', "{" * 900]
)
def test_what_other_tools_wrote_is_read_with_no_epoch(kafka_shelf: Shelf, metadata: str) -> None:
    other = Consumer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": kafka_shelf.group})
    other.commit(offsets=[KafkaTopicPartition(kafka_shelf.topic, 0, 7, metadata=metadata)], asynchronous=False)
    other.close()
    assert kafka_shelf.get() == StoredOffset(7, 0, "")
    assert kafka_shelf.commit(7, 9) == ""


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.text(max_size=40))
def test_metadata_is_read_as_it_was_written(offset: int, epoch: int, worker: str) -> None:
    stored = StoredOffset(offset, epoch, worker)
    assert stored_offset(offset, metadata_of(stored)) == stored


# --- Redis ----------------------------------------------------------------------------------------


def test_redis_says_when_it_would_forget(stack: Stack) -> None:
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    store = RedisStore()
    assert not any("persistence is off" in text for text in store.warnings())
    client.config_set("appendonly", "no")
    try:
        assert any("persistence is off" in text for text in store.warnings())
    finally:
        client.config_set("appendonly", "yes")
        client.close()
        store.close()


# --- The file -------------------------------------------------------------------------------------

GROUP = "group"
PLACE = TopicPartition("t", 0)


@pytest.fixture
def written(tmp_path: Path) -> tuple[FileStore, Path]:
    store = FileStore(tmp_path)
    assert store.put(GROUP, {PLACE: StoredOffset(12345, 3, "w-1")}) == {}
    return store, store.path(GROUP)


def test_every_cut_and_every_changed_byte_is_noticed(written: tuple[FileStore, Path]) -> None:
    store, path = written
    whole = path.read_bytes()
    broken = [whole[:length] for length in range(len(whole))]
    broken += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for text in broken:
        path.write_bytes(text)
        with contextlib.suppress(CorruptStoreError):
            assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}
            continue
        with pytest.raises(CorruptStoreError, match=re.escape(path.name)):
            store.put(GROUP, {PLACE: StoredOffset(1, 9)})
        assert path.read_bytes() == text, "nothing overwrites it"


def test_a_file_of_another_format_or_group_is_not_believed(written: tuple[FileStore, Path]) -> None:
    store, path = written
    other = store.path("other")
    other.write_bytes(path.read_bytes())
    with pytest.raises(CorruptStoreError, match="belongs to group 'group'"):
        store.read("other", [PLACE])
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "format": "streamsocial-offsets-2"}))
    with pytest.raises(CorruptStoreError, match="format"):
        store.read(GROUP, [PLACE])


def test_what_a_crash_leaves_beside_it_does_not_matter(written: tuple[FileStore, Path]) -> None:
    store, path = written
    (path.parent / f".{path.stem}-half.tmp").write_text('{"format":')
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}
    assert store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 3)]) == {}


_HOLDER = """
import sys, django
django.setup()
from pathlib import Path
from offsets.stores.file import FileStore
store = FileStore(Path(sys.argv[1]))
store.hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_worker_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path), GROUP],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "streamsocial.settings"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=BASE_DIR,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError, match=f"Process {holder.pid} already works"):
            FileStore(tmp_path).hold(GROUP)
        FileStore(tmp_path).hold("another group")
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    FileStore(tmp_path).hold(GROUP)


def test_a_folder_that_is_none_is_a_store_that_is_down(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServiceUnavailableError, match="offset file store fails"):
        FileStore(file / "folder").read(GROUP, [PLACE])


@hypothesis_settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["commit", "put"]), st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
        max_size=20,
    )
)
def test_the_file_behaves_like_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    store = FileStore(tmp_path_factory.mktemp("model"))
    model: dict[TopicPartition, StoredOffset] = {}
    for what, partition, offset, epoch in steps:
        tp = TopicPartition("t", partition)
        held = model.get(tp)
        stale = held is not None and held.epoch > epoch
        new = StoredOffset(offset + 1, epoch, "w")
        if what == "put":
            refused = store.put(GROUP, {tp: new})
        else:
            refused = store.commit(GROUP, [StoreCommit(tp, offset or None, offset + 1, epoch, "w")])
            stale = stale or (held.next_offset if held else None) != (offset or None)
        assert bool(refused) == stale
        if not stale:
            model[tp] = new
    assert store.read(GROUP, [TopicPartition("t", number) for number in range(3)]) == model
