"""One suite on all four offset stores, on real services; it follows what each declares that it can do."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from django.conf import settings
from django.db import connection, transaction
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from offsets.configuration import STORES, capabilities_of
from offsets.errors import CorruptStoreError, RefusedError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import PartitionCheckpoint, Worker
from offsets.stores import file as file_module
from offsets.stores import open_store
from offsets.stores import redis as redis_module
from offsets.stores.base import OffsetStore
from offsets.stores.file import FileStore
from offsets.stores.kafka import KafkaStore
from offsets.stores.redis import RedisStore
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.environment import BASE_DIR
from streamsocial.stack import Stack
from tests.harness import wait_for
from tests.page_rows import make_checkpoint, make_range, make_worker

BIG = 2**62
#: How long the stores may take to say that a service is down; Kafka's client is told, the others have their own.
KAFKA_SECONDS = 3.0
PATIENCE_SECONDS = 7.0


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
def shelf(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(request.param, tmp_path / "offsets")
    if made.name == "kafka":
        _make_topic(made, 20)
    yield made
    made.store.close()


def _make_topic(shelf: Shelf, partitions: int) -> None:
    """Kafka takes offsets for partitions that exist, once it has made the topic in which it keeps them."""
    admin = KafkaAdmin()
    admin.create_topic(shelf.topic, partitions)
    wait_for("the topic", lambda: admin.describe_topics([shelf.topic]))
    wait_for("the coordinator, which a fresh broker makes first", lambda: _answers(shelf))


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


def test_a_commit_whose_answer_was_lost_can_be_repeated(shelf: Shelf) -> None:
    """What at_least_once and at_most_once rest on: a refusal would be read as another owner's."""
    shelf.set(10, 3, worker="w-0")
    assert shelf.commit(10, 20, 3) == ""
    if shelf.can.transactional:
        assert "20" in shelf.commit(10, 20, 3), "here the transaction says what became of the first try"
        return
    assert shelf.commit(10, 20, 3) == ""
    assert shelf.get() == StoredOffset(20, 3, "w-1")
    for other in (
        StoreCommit(shelf.tp(), 10, 20, 3, "w-2"),  # another worker
        StoreCommit(shelf.tp(), 10, 20, 4, "w-1"),  # another claim
        StoreCommit(shelf.tp(), 10, 20, 3),  # nobody in particular
        StoreCommit(shelf.tp(), 10, 21, 3, "w-1"),  # another offset
    ):
        assert shelf.store.commit(shelf.group, [other]).keys() == {shelf.tp()}, other
        assert shelf.get() == StoredOffset(20, 3, "w-1")
    assert shelf.commit(20, 30, 3) == ""
    assert "holds 30, not 10" in shelf.commit(10, 20, 3), "it has moved on since"


def test_huge_epochs_and_offsets_are_compared_as_whole_numbers(shelf: Shelf) -> None:
    """2^53 and 2^53 + 1 are one number to anything that counts in doubles."""
    odd = 2**53 + 1
    shelf.set(odd, odd)
    assert "is over" in shelf.commit(odd, odd + 5, odd - 1)
    assert str(odd) in shelf.commit(odd - 1, odd + 5, odd)
    assert shelf.get() == StoredOffset(odd, odd, "w-1")
    assert shelf.commit(odd, odd + 1, odd) == ""
    assert shelf.get() == StoredOffset(odd + 1, odd, "w-1")


def test_topics_of_one_group_do_not_mix(shelf: Shelf) -> None:
    """Names that look alike once a partition is appended to them."""
    group, other = shelf.group, f"{shelf.topic}-1"
    shelf.set(10)
    shelf.topic = other
    if shelf.name == "kafka":
        _make_topic(shelf, 2)
    shelf.set(77, 2)
    found = shelf.store.read(group, [TopicPartition(group, 0), shelf.tp(), TopicPartition(group, 1)])
    assert found == {TopicPartition(group, 0): StoredOffset(10, 1, "w-1"), shelf.tp(): StoredOffset(77, 2, "w-1")}


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


@pytest.mark.parametrize(
    "name",
    ["Gruppe ü", "a/b/../c", "x:{y}", "}{", 'quo"te', "it's", "back\\slash", "g" * 200, "a  b ", "%s", "*", "日本"],
)
def test_any_text_may_be_a_groups_name(shelf: Shelf, name: str) -> None:
    shelf.group, other = f"{name}-{uuid.uuid4().hex[:6]}", f"{name}-{uuid.uuid4().hex[:6]}"
    shelf.set(10)
    assert shelf.get() == StoredOffset(10, 1, "w-1")
    assert shelf.store.read(other, [shelf.tp()]) == {}


def test_500_partitions_go_in_one_call(shelf: Shelf) -> None:
    many = 500
    expected = None
    if shelf.name == "postgres":
        expected = 0
        with transaction.atomic():
            for partition in range(many):
                shelf.set(0, partition=partition)
    elif shelf.name == "kafka":
        shelf.topic += "-wide"
        _make_topic(shelf, many)
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


@pytest.mark.parametrize(
    "name", [pytest.param("postgres", marks=_DATABASE), pytest.param("kafka"), pytest.param("redis")]
)
def test_it_survives_a_restart_and_says_so_while_it_is_down(name: str, stack: Stack, tmp_path: Path) -> None:
    shelf = Shelf(name, tmp_path)
    if name == "kafka":
        _make_topic(shelf, 1)
    shelf.set(1234, 5)
    commit = StoreCommit(shelf.tp(), 1234, 1235, 5, "w-1")
    stack.stop_service(SERVICES[name])
    try:
        # The one that was connected, and one that never was.
        for store in (shelf.store, shelf.open()):
            with _says_that_it_is_down():
                store.read(shelf.group, [shelf.tp()])
            with _says_that_it_is_down():
                store.commit(shelf.group, [commit])
        if name == "redis":
            with _says_that_it_is_down():
                shelf.store.put(shelf.group, {shelf.tp(): StoredOffset(1)})
            with _says_that_it_is_down():
                shelf.store.forget(shelf.group, [shelf.tp()])
        if name != "kafka":
            with _says_that_it_is_down():
                shelf.store.warnings()
    finally:
        stack.start_service(SERVICES[name])
    for store in (shelf.store, shelf.open()):
        found = wait_for("it to answer", lambda store=store: _read(store, shelf))  # type: ignore[misc]
        assert found == {shelf.tp(): StoredOffset(1234, 5, "w-1")}
    # It may answer a read before it takes a write; a commit may be repeated.
    assert wait_for("it to take offsets", lambda: _taken(shelf, commit)) == [{}]
    assert shelf.get() == StoredOffset(1235, 5, "w-1")
    shelf.store.close()


@contextlib.contextmanager
def _says_that_it_is_down() -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=r"not available|did not answer"):
        yield
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_a_file_is_read_by_the_next_process(tmp_path: Path) -> None:
    FileStore(tmp_path).put(GROUP, {PLACE: StoredOffset(1234, 5, "w-1")})
    assert FileStore(tmp_path).read(GROUP, [PLACE]) == {PLACE: StoredOffset(1234, 5, "w-1")}


def _taken(shelf: Shelf, commit: StoreCommit) -> list[dict[TopicPartition, str]]:
    """What was refused, in a list; an empty one while nothing answers."""
    with contextlib.suppress(ServiceUnavailableError):
        return [dict(shelf.store.commit(shelf.group, [commit]))]
    return []


def _read(store: OffsetStore, shelf: Shelf) -> dict[TopicPartition, StoredOffset]:
    try:
        return store.read(shelf.group, [shelf.tp()])
    except ServiceUnavailableError:
        return {}


def test_what_each_store_declares_is_what_the_modes_build_on() -> None:
    assert {name for name in STORES if capabilities_of(name).transactional} == {"postgres"}
    assert {name for name in STORES if not capabilities_of(name).several_workers} == {"file"}
    with pytest.raises(RefusedError, match="postgres, kafka, redis, file"):
        open_store("stone")


# --- Kafka ----------------------------------------------------------------------------------------


@pytest.fixture
def kafka_shelf(stack: Stack, tmp_path: Path) -> Shelf:
    made = Shelf("kafka", tmp_path)
    _make_topic(made, 2)
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


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n"])
def test_a_group_that_kafkas_client_would_call_by_another_name_is_refused(kafka_shelf: Shelf, blank: str) -> None:
    kafka_shelf.set(5)
    group = f"{blank}{kafka_shelf.group}" if blank else ""
    commit = StoreCommit(kafka_shelf.tp(), 5, 6, 1, "w-1")
    with pytest.raises(RefusedError, match="cannot name the group"):
        kafka_shelf.store.read(group, [kafka_shelf.tp()])
    with pytest.raises(RefusedError, match="cannot name the group"):
        kafka_shelf.store.commit(group, [commit])
    with pytest.raises(RefusedError, match="cannot name the group"):
        kafka_shelf.store.put(group, {kafka_shelf.tp(): StoredOffset(6)})
    assert kafka_shelf.get() == StoredOffset(5, 1, "w-1")


def test_what_kafka_will_not_take_is_refused_with_its_words(kafka_shelf: Shelf) -> None:
    with pytest.raises(RefusedError, match=r"(?i)unknown topic|partition"):
        kafka_shelf.store.put(kafka_shelf.group, {TopicPartition("no-such-topic", 0): StoredOffset(1)})
    with pytest.raises(RefusedError, match=r"(?i)metadata"):
        kafka_shelf.store.put(kafka_shelf.group, {kafka_shelf.tp(): StoredOffset(1, 1, "w" * 5000)})
    assert kafka_shelf.get() is None


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


@pytest.fixture
def redis_shelf(stack: Stack, tmp_path: Path) -> Iterator[tuple[Shelf, "redis.Redis"]]:
    made = Shelf("redis", tmp_path)
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    yield made, client
    client.close()
    made.store.close()


def _keys(shelf: Shelf, client: "redis.Redis") -> list[str]:
    return [key for key in client.scan_iter(f"{redis_module.PREFIX}*") if shelf.group in key]


def test_something_else_under_a_key_of_redis_is_named_and_left_alone(
    redis_shelf: tuple[Shelf, "redis.Redis"],
) -> None:
    shelf, client = redis_shelf
    shelf.set(1, partition=1)
    [key] = _keys(shelf, client)
    client.delete(key)
    client.set(key, "a string")
    refused = shelf.store.commit(shelf.group, [StoreCommit(shelf.tp(p), None, 5, 1, "w-1") for p in range(3)])
    assert refused.keys() == {shelf.tp(1)}
    assert key in refused[shelf.tp(1)]
    assert client.get(key) == "a string"
    assert shelf.store.read(shelf.group, [shelf.tp(0), shelf.tp(2)]).keys() == {shelf.tp(0), shelf.tp(2)}
    with pytest.raises(CorruptStoreError, match="WRONGTYPE"):
        shelf.store.read(shelf.group, [shelf.tp(0), shelf.tp(1)])


@pytest.mark.parametrize(
    "fields", [{"offset": "many"}, {"offset": "-1"}, {"offset": str(2**63)}, {"offset": "5", "epoch": "first"}]
)
def test_what_is_no_offset_in_redis_is_not_believed(
    redis_shelf: tuple[Shelf, "redis.Redis"], fields: dict[str, str]
) -> None:
    shelf, client = redis_shelf
    shelf.set(1)
    [key] = _keys(shelf, client)
    client.hset(key, items=[part for field in fields.items() for part in field])
    with pytest.raises(CorruptStoreError, match=re.escape(key)):
        shelf.get()


def test_an_offset_that_another_tool_wrote_to_redis_has_no_epoch(redis_shelf: tuple[Shelf, "redis.Redis"]) -> None:
    shelf, client = redis_shelf
    shelf.set(1)
    [key] = _keys(shelf, client)
    client.delete(key)
    client.hset(key, "offset", "7")
    assert shelf.get() == StoredOffset(7, 0, "")
    assert shelf.commit(7, 9) == ""


def test_a_redis_that_is_full_is_tried_again(redis_shelf: tuple[Shelf, "redis.Redis"]) -> None:
    shelf, client = redis_shelf
    shelf.set(10)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(ServiceUnavailableError, match="maxmemory"):
            shelf.commit(10, 20)
        assert shelf.get() == StoredOffset(10, 1, "w-1")
    finally:
        client.config_set("maxmemory", "0")
    assert shelf.commit(10, 20) == ""


def test_a_redis_that_forbids_is_a_refusal(redis_shelf: tuple[Shelf, "redis.Redis"]) -> None:
    shelf, client = redis_shelf
    name = f"reader-{uuid.uuid4().hex[:6]}"
    client.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "+@all", "-hset", "-config")
    host, _, port = str(settings.REDIS_URL).rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
    reader = RedisStore(f"redis://{name}:secret@{host}:{port}/0")
    try:
        with pytest.raises(RefusedError, match=r"(?i)permission|ACL"):
            reader.put(shelf.group, {shelf.tp(): StoredOffset(1)})
        assert reader.read(shelf.group, [shelf.tp()]) == {}
        assert "unknown" in reader.warnings()[0]
    finally:
        reader.close()
        client.execute_command("ACL", "DELUSER", name)


def test_a_redis_that_never_answers_is_one_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with _says_that_it_is_down():
            store.read("group", [TopicPartition("t", 0)])
        store.close()


def test_redis_says_how_it_may_lose_offsets(redis_shelf: tuple[Shelf, "redis.Redis"]) -> None:
    shelf, client = redis_shelf
    names = ("maxmemory", "maxmemory-policy", "appendfsync")
    before = {name: str(client.config_get(name)[name]) for name in names}
    try:
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "1gb")
        said = " ".join(shelf.store.warnings())
        assert "last second" in said
        assert "allkeys-lru" in said
    finally:
        for name, value in before.items():
            client.config_set(name, value)


# --- The file -------------------------------------------------------------------------------------

GROUP = "group"
PLACE = TopicPartition("t", 0)


@pytest.fixture
def written(tmp_path: Path) -> tuple[FileStore, Path]:
    store = FileStore(tmp_path)
    assert store.put(GROUP, {PLACE: StoredOffset(12345, 3, "w-1")}) == {}
    return store, store.path(GROUP)


def test_every_cut_and_every_changed_byte_is_noticed(written: tuple[FileStore, Path]) -> None:
    _, path = written
    whole = path.read_bytes()
    truth = {PLACE: StoredOffset(12345, 3, "w-1")}
    cut = [whole[:length] for length in range(len(whole))]
    changed = [
        whole[:at] + bytes([byte]) + whole[at + 1 :]
        for at in range(len(whole))
        for byte in range(256)
        if byte != whole[at]
    ]
    believed = 0
    for text in cut + changed:
        try:
            assert file_module._parse(text, path, GROUP) == truth, text
            believed += 1
        except CorruptStoreError:
            continue
    # White space may be another white space; nothing else may be anything else.
    assert believed < 4 * whole.count(b" ") + 4 * whole.count(b"\n")


def test_nothing_overwrites_a_file_that_cannot_be_trusted(written: tuple[FileStore, Path]) -> None:
    store, path = written
    whole = path.read_bytes()
    for text in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole.replace(b"12345", b"12346"),
        b"\xff" * 9,
        b"[" * 9999,
    ):
        path.write_bytes(text)
        calls = (
            lambda: store.read(GROUP, [PLACE]),
            lambda: store.put(GROUP, {PLACE: StoredOffset(1, 9)}),
            lambda: store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 9)]),
            lambda: store.forget(GROUP, [PLACE]),
        )
        for call in calls:
            with pytest.raises(CorruptStoreError, match=re.escape(path.name)):
                call()
        assert path.read_bytes() == text


@pytest.mark.parametrize(
    "stored", [StoredOffset(2**63), StoredOffset(-1), StoredOffset(1, 2**63), StoredOffset(1, -1)], ids=str
)
def test_a_file_never_takes_what_it_could_not_read_again(written: tuple[FileStore, Path], stored: StoredOffset) -> None:
    store, path = written
    whole = path.read_bytes()
    with pytest.raises(RefusedError, match="no such offset"):
        store.put(GROUP, {TopicPartition("t", 1): stored})
    assert path.read_bytes() == whole


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


_CRASHING = """
import os, sys
from pathlib import Path
from offsets.stores.base import StoredOffset
from offsets.stores.file import FileStore
from offsets.types import TopicPartition
os.replace = lambda *paths: os._exit(9)
FileStore(Path(sys.argv[1])).put(sys.argv[2], {TopicPartition("t", 0): StoredOffset(99999, 9)})
"""


def test_a_crash_before_the_rename_leaves_what_was(written: tuple[FileStore, Path]) -> None:
    store, path = written
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING, str(path.parent), GROUP], cwd=BASE_DIR, timeout=30, check=False
    )
    assert done.returncode == 9
    assert list(path.parent.glob("*.tmp")) or list(path.parent.glob(".*.tmp")), "it did get as far as that"
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}
    assert store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 3)]) == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_leaves_what_was(
    written: tuple[FileStore, Path], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store, path = written

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ServiceUnavailableError, match="No space left"):
            store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 3)])
    assert not list(path.parent.glob(".*.tmp"))
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}


def test_a_lock_that_is_never_given_back_is_a_store_that_is_down(
    written: tuple[FileStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that was stopped in the middle: a worker must not hang with it."""
    store, path = written
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT_SECONDS", 0.2)
    with path.with_suffix(".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ServiceUnavailableError, match="holds its lock"):
            store.read(GROUP, [PLACE])
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}


_STEPPING = """
import sys
from pathlib import Path
from offsets.stores.base import StoreCommit
from offsets.stores.file import FileStore
from offsets.types import TopicPartition
store, place, wins = FileStore(Path(sys.argv[1])), TopicPartition("t", 0), []
print("ready", flush=True)
sys.stdin.readline()
for step in range(50):
    if not store.commit(sys.argv[2], [StoreCommit(place, step, step + 1, 1, sys.argv[3])]):
        wins.append(step)
print(*wins)
"""


def test_of_two_processes_one_wins_each_step(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put(GROUP, {PLACE: StoredOffset(0, 1)})
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _STEPPING, str(tmp_path), GROUP, f"w-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=BASE_DIR,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        wins = [int(step) for process in processes for step in process.communicate(timeout=30)[0].split()]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=30)
    assert len(wins) == len(set(wins)), "a step was won twice"
    # A process that has fallen behind wins nothing more; the steps of the other go on to the end.
    assert sorted(wins) == list(range(len(wins)))
    stored = store.read(GROUP, [PLACE])[PLACE]
    assert stored.next_offset == len(wins) > 0


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
    before = FileStore(tmp_path)
    before.hold(GROUP)
    before.close()
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
            stale = stale or (held != new and (held.next_offset if held else None) != (offset or None))
        assert bool(refused) == stale
        if not stale:
            model[tp] = new
    assert store.read(GROUP, [TopicPartition("t", number) for number in range(3)]) == model
