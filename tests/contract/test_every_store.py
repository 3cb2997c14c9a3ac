"""One suite on every offset store."""

import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection, transaction

from offsets.configuration import STORES, capabilities_of
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.stores import open_store
from offsets.stores.base import OffsetStore
from offsets.stores.file import FileStore
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.stack import Stack
from tests.contract.conftest import _DATABASE, BIG, GROUP, PLACE, StoreHarness, _make_topic, _says_that_it_is_down
from tests.support.processes import wait_for


def test_what_was_never_stored_is_missing(harness: StoreHarness) -> None:
    assert harness.store.read(harness.group, [harness.tp(0), harness.tp(1)]) == {}
    assert harness.store.read(harness.group, []) == {}


@pytest.mark.parametrize("offset", [0, 1, 2**31, BIG])
def test_what_is_stored_is_read_with_its_epoch_and_worker(harness: StoreHarness, offset: int) -> None:
    harness.set(offset, 7, worker="w-7f2a")
    assert harness.get() == StoredOffset(offset, 7, "w-7f2a")


def test_a_commit_moves_from_what_is_expected(harness: StoreHarness) -> None:
    if harness.name == "postgres":
        harness.set(0)
    else:
        assert harness.commit(None, 0) == ""
    assert harness.commit(0, 10) == ""
    assert harness.commit(10, 25) == ""
    stored = harness.get()
    assert stored is not None
    assert (stored.next_offset, stored.epoch) == (25, 1)


@pytest.mark.parametrize("expected", [None, 9, 11])
def test_a_commit_that_expects_something_else_changes_nothing(harness: StoreHarness, expected: int | None) -> None:
    harness.set(10, 3)
    reason = harness.commit(expected, 20, 3)
    assert "10" in reason
    assert str(expected if expected is not None else "no offset") in reason
    assert harness.get() == StoredOffset(10, 3, "w-1")


def test_an_older_epoch_is_refused_and_a_newer_one_wins(harness: StoreHarness) -> None:
    harness.set(10, 5)
    assert "epoch 4 is stale" in harness.commit(10, 20, 4)
    assert harness.get() == StoredOffset(10, 5, "w-1")
    if harness.name == "postgres":
        assert "epoch 6 is stale" in harness.commit(10, 20, 6), "the ledger's epochs begin with a claim alone"
        return
    assert harness.commit(10, 20, 6) == ""
    assert harness.store.put(harness.group, {harness.tp(): StoredOffset(5, 5)}).keys() == {harness.tp()}
    assert harness.store.put(harness.group, {harness.tp(): StoredOffset(5, 6)}) == {}
    assert harness.get() == StoredOffset(5, 6, "")


def test_a_commit_whose_answer_was_lost_can_be_repeated(harness: StoreHarness) -> None:
    """What at_least_once and at_most_once rest on: a refusal would be read as another owner's."""
    harness.set(10, 3, worker="w-0")
    assert harness.commit(10, 20, 3) == ""
    if harness.can.transactional:
        assert "20" in harness.commit(10, 20, 3), "here the transaction says what became of the first try"
        return
    assert harness.commit(10, 20, 3) == ""
    assert harness.get() == StoredOffset(20, 3, "w-1")
    for other in (
        StoreCommit(harness.tp(), 10, 20, 3, "w-2"),  # another worker
        StoreCommit(harness.tp(), 10, 20, 4, "w-1"),  # another claim
        StoreCommit(harness.tp(), 10, 20, 3),  # nobody in particular
        StoreCommit(harness.tp(), 10, 21, 3, "w-1"),  # another offset
    ):
        assert harness.store.commit(harness.group, [other]).keys() == {harness.tp()}, other
        assert harness.get() == StoredOffset(20, 3, "w-1")
    assert harness.commit(20, 30, 3) == ""
    assert "30, expected 10" in harness.commit(10, 20, 3), "it has moved on since"


def test_huge_epochs_and_offsets_are_compared_as_whole_numbers(harness: StoreHarness) -> None:
    """2^53 and 2^53 + 1 are one number to anything that counts in doubles."""
    odd = 2**53 + 1
    harness.set(odd, odd)
    assert "is stale" in harness.commit(odd, odd + 5, odd - 1)
    assert str(odd) in harness.commit(odd - 1, odd + 5, odd)
    assert harness.get() == StoredOffset(odd, odd, "w-1")
    assert harness.commit(odd, odd + 1, odd) == ""
    assert harness.get() == StoredOffset(odd + 1, odd, "w-1")


def test_topics_of_one_group_do_not_mix(harness: StoreHarness) -> None:
    """Names that look alike once a partition is appended to them."""
    group, other = harness.group, f"{harness.topic}-1"
    harness.set(10)
    harness.topic = other
    if harness.name == "kafka":
        _make_topic(harness, 2)
    harness.set(77, 2)
    found = harness.store.read(group, [TopicPartition(group, 0), harness.tp(), TopicPartition(group, 1)])
    assert found == {TopicPartition(group, 0): StoredOffset(10, 1, "w-1"), harness.tp(): StoredOffset(77, 2, "w-1")}


def test_each_partition_of_a_commit_is_moved_or_refused_by_itself(harness: StoreHarness) -> None:
    for partition in range(4):
        harness.set(10, 1, partition=partition)
    commits = [StoreCommit(harness.tp(p), 10 if p != 2 else 11, 20, 1, "w-1") for p in range(4)]
    assert harness.store.commit(harness.group, commits).keys() == {harness.tp(2)}
    found = harness.store.read(harness.group, [harness.tp(p) for p in range(4)])
    assert [found[harness.tp(p)].next_offset for p in range(4)] == [20, 20, 10, 20]


def test_groups_and_topics_do_not_mix(harness: StoreHarness) -> None:
    other = f"{harness.group}-other"
    harness.set(10)
    harness.set(99, group=other)
    assert harness.store.read(harness.group, [harness.tp(), harness.tp(0, "another-topic")]) == {
        harness.tp(): StoredOffset(10, 1, "w-1")
    }
    assert harness.store.read(other, [harness.tp()])[harness.tp()].next_offset == 99


@pytest.mark.parametrize(
    "name",
    ["Gruppe ü", "a/b/../c", "x:{y}", "}{", 'quo"te', "it's", "back\\slash", "g" * 200, "a  b ", "%s", "*", "日本"],
)
def test_any_text_may_be_a_groups_name(harness: StoreHarness, name: str) -> None:
    harness.group, other = f"{name}-{uuid.uuid4().hex[:6]}", f"{name}-{uuid.uuid4().hex[:6]}"
    harness.set(10)
    assert harness.get() == StoredOffset(10, 1, "w-1")
    assert harness.store.read(other, [harness.tp()]) == {}


def test_500_partitions_go_in_one_call(harness: StoreHarness) -> None:
    many = 500
    expected = None
    if harness.name == "postgres":
        expected = 0
        with transaction.atomic():
            for partition in range(many):
                harness.set(0, partition=partition)
    elif harness.name == "kafka":
        harness.topic += "-wide"
        _make_topic(harness, many)
    commits = [StoreCommit(harness.tp(p), expected, p + 1, 1, "w-1") for p in range(many)]
    assert harness.store.commit(harness.group, commits) == {}
    found = harness.store.read(harness.group, [harness.tp(p) for p in range(many)])
    assert {tp.partition: one.next_offset for tp, one in found.items()} == {p: p + 1 for p in range(many)}


def test_of_several_writers_one_wins_each_step(harness: StoreHarness) -> None:
    if not harness.can.compare_and_set:
        pytest.skip(f"{harness.name} declares no compare-and-set")
    harness.set(0)
    wins: list[int] = []
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        store = harness.open()
        try:
            for step in range(10):
                barrier.wait(30)
                commit = StoreCommit(harness.tp(), step, step + 1, 1, f"w-{number}")
                if not store.commit(harness.group, [commit]):
                    wins.append(step)
                barrier.wait(30)
        finally:
            store.close()
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, number) for number in range(4)]:
            future.result(60)
    assert sorted(wins) == list(range(10))
    stored = harness.get()
    assert stored is not None
    assert stored.next_offset == 10


def test_what_is_forgotten_is_missing(harness: StoreHarness) -> None:
    harness.set(10)
    harness.set(11, partition=1)
    if harness.name in ("postgres", "kafka"):
        with pytest.raises(RefusedError):
            harness.store.forget(harness.group, [harness.tp()])
        return
    harness.store.forget(harness.group, [harness.tp()])
    assert harness.get() is None
    assert harness.get(1) == StoredOffset(11, 1, "w-1")


def test_the_ledger_takes_nothing_from_outside(harness: StoreHarness) -> None:
    if harness.can.writable_from_outside or harness.name == "kafka":
        pytest.skip("it may be written from outside")
    harness.set(10)
    with pytest.raises(RefusedError, match="reset_offsets"):
        harness.store.put(harness.group, {harness.tp(): StoredOffset(5, 9)})
    assert "outside the ledger" in harness.commit(10, BIG + 2000)
    assert "outside the ledger" in harness.commit(10, 9)


SERVICES = {"postgres": "postgres", "kafka": "kafka", "redis": "valkey"}


@pytest.mark.parametrize(
    "name", [pytest.param("postgres", marks=_DATABASE), pytest.param("kafka"), pytest.param("redis")]
)
def test_it_survives_a_restart_and_says_so_while_it_is_down(name: str, stack: Stack, tmp_path: Path) -> None:
    harness = StoreHarness(name, tmp_path)
    if name == "kafka":
        _make_topic(harness, 1)
    harness.set(1234, 5)
    commit = StoreCommit(harness.tp(), 1234, 1235, 5, "w-1")
    stack.stop_service(SERVICES[name])
    try:
        # The one that was connected, and one that never was.
        for store in (harness.store, harness.open()):
            with _says_that_it_is_down():
                store.read(harness.group, [harness.tp()])
            with _says_that_it_is_down():
                store.commit(harness.group, [commit])
        if name == "redis":
            with _says_that_it_is_down():
                harness.store.put(harness.group, {harness.tp(): StoredOffset(1)})
            with _says_that_it_is_down():
                harness.store.forget(harness.group, [harness.tp()])
        if name != "kafka":
            with _says_that_it_is_down():
                harness.store.warnings()
    finally:
        stack.start_service(SERVICES[name])
    for store in (harness.store, harness.open()):
        found = wait_for("it to answer", lambda store=store: _read(store, harness))  # type: ignore[misc]
        assert found == {harness.tp(): StoredOffset(1234, 5, "w-1")}
    # It may answer a read before it takes a write; a commit may be repeated.
    assert wait_for("it to take offsets", lambda: _taken(harness, commit)) == [{}]
    assert harness.get() == StoredOffset(1235, 5, "w-1")
    harness.store.close()


def test_a_file_is_read_by_the_next_process(tmp_path: Path) -> None:
    FileStore(tmp_path).put(GROUP, {PLACE: StoredOffset(1234, 5, "w-1")})
    assert FileStore(tmp_path).read(GROUP, [PLACE]) == {PLACE: StoredOffset(1234, 5, "w-1")}


def _taken(harness: StoreHarness, commit: StoreCommit) -> list[dict[TopicPartition, str]]:
    """What was refused, in a list; an empty one while nothing answers."""
    with contextlib.suppress(ServiceUnavailableError):
        return [dict(harness.store.commit(harness.group, [commit]))]
    return []


def _read(store: OffsetStore, harness: StoreHarness) -> dict[TopicPartition, StoredOffset]:
    try:
        return store.read(harness.group, [harness.tp()])
    except ServiceUnavailableError:
        return {}


def test_what_each_store_declares_is_what_the_modes_build_on() -> None:
    assert {name for name in STORES if capabilities_of(name).transactional} == {"postgres"}
    assert {name for name in STORES if not capabilities_of(name).several_workers} == {"file"}
    with pytest.raises(RefusedError, match="postgres, kafka, redis, file"):
        open_store("stone")
