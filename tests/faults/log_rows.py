"""Faults of the logs themselves: cut off, damaged, without a leader. Rows of the fault table.

The files of a partition are changed while the broker is down, so each row has the stack to itself.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import NewPartitions, OffsetSpec

from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import LedgerRange, PartitionCheckpoint, Worker
from offsets.types import TopicPartition
from tests.faults.scene import DEADLINE, FIRST, PARTITIONS, Row, Scene
from tests.support.log_segments import cut_log, flip_byte, log_folder
from tests.support.processes import manage, manage_json, wait_for
from tests.support.second_broker import NODE_ID, second_broker, start

T = TypeVar("T")

#: Kafka's records of partition 1 that are produced again after its end was cut off.
SHARE = FIRST // PARTITIONS


def _batches_of(scene: Scene, count: int) -> None:
    """Produce in several runs, so that the log has several batches to cut between."""
    for _ in range(count):
        scene.produce(FIRST // 2).process.wait(DEADLINE)


def _cut(scene: Scene, fault: str, *, running: bool, grows: bool) -> Row:
    """The end of a log is lost with an unclean restart. Its counts stay, and what replaces them is counted, too."""
    tp = TopicPartition(scene.topic, 1)
    _batches_of(scene, 2)
    scene.worker()
    scene.manager()
    wait_for("all partitions are claimed", lambda: scene.rows().exclude(owner=None).count() == PARTITIONS, DEADLINE)
    scene.finish()
    if not running:
        scene.workers[0].end()
    row = scene.rows().get(partition=tp.partition)
    old_next = row.next_offset
    scene.stack.kill_service("kafka")
    diverges = cut_log(log_folder(scene.stack, tp), old_next - SHARE // 2)
    assert diverges < old_next
    since = scene.now()
    scene.stack.start_service("kafka")
    if grows:
        _produce_until(scene, tp, old_next + 1)
    if not running:
        scene.worker()
    incident = scene.incident("halted_truncated")
    assert _next(row) == old_next
    assert f"offset {diverges}," in row.halt_detail or f"ends at {diverges}," in row.halt_detail
    others = scene.rows().exclude(pk=row.pk)
    wait_for("the others go on", lambda: all(_read(other) for other in others), DEADLINE)
    restart = ("rebuild_partition", *_of(scene, tp), "--keep-counts")
    shown = manage_json(scene.env, *restart)["items"][0]
    assert shown["after"]["next_offset"] == diverges, shown
    manage_json(scene.env, *restart, "--execute", "--reason", "a test")
    fresh = scene.rows().get(partition=tp.partition)
    assert (fresh.baseline_offset, fresh.halt_reason) == (diverges, "")
    scene.produce(FIRST).process.wait(DEADLINE)
    return scene.row(fault, since, incident, "restarted where the logs diverge")


def log_cut_and_grown(scene: Scene) -> Row:
    """New records have taken the offsets of lost ones before a worker claims the partition."""
    return _cut(scene, "log cut off and grown again", running=False, grows=True)


def log_cut_under_a_worker(scene: Scene) -> Row:
    return _cut(scene, "log cut off and grown under a worker", running=True, grows=True)


def log_cut_short(scene: Scene) -> Row:
    return _cut(scene, "log cut off", running=False, grows=False)


def batch_corrupt(scene: Scene) -> Row:
    """A byte of one batch changes on the disk: the partition halts there, and the operator skips that batch."""
    tp = TopicPartition(scene.topic, 2)
    _batches_of(scene, 2)
    scene.stack.stop_service("kafka")
    bad = flip_byte(log_folder(scene.stack, tp), SHARE + SHARE // 4)
    scene.stack.start_service("kafka")
    since = scene.now()
    for _ in range(2):
        scene.worker()
    scene.manager()
    incident = scene.incident("halted_unreadable")
    row = scene.rows().get(topic=tp.topic, partition=tp.partition)
    wait_for("what came before is counted", lambda: _next(row) == bad.start, DEADLINE)
    assert "CRC" in row.halt_detail
    manage_json(scene.env, "skip_offsets", *_of(scene, tp), "--to", str(bad.end), "--execute", "--reason", "a test")
    lost = bad.end - bad.start
    result = scene.row("batch corrupt on the disk", since, incident, "skipped by an operator", allowed=lost)
    skipped = LedgerRange.objects.get(checkpoint=row, kind="skipped")
    assert (skipped.offsets.lower, skipped.offsets.upper) == (bad.start, bad.end)
    replay = manage(
        scene.env, "replay_offsets", *_of(scene, tp), "--status", "skipped", "--execute", "--reason", "a test"
    )
    assert "CRC" in replay.stdout + replay.stderr, "a replay names what it cannot read"
    skipped.refresh_from_db()
    assert skipped.kind == "skipped", "and passes over nothing"
    return result


def leader_missing(scene: Scene) -> Row:
    """At the group's first claim one partition has no leader: the others are counted, and it begins where it should."""
    tp = TopicPartition(scene.topic, PARTITIONS)
    admin = KafkaAdmin()
    with second_broker(scene.stack) as broker:
        start(broker)
        wait_for("it is in the cluster", lambda: len(scene.kafka.list_topics(timeout=5).brokers) == 2, DEADLINE)
        grown = NewPartitions(scene.topic, PARTITIONS + 1, replica_assignment=[[NODE_ID]])
        scene.kafka.create_partitions([grown])[scene.topic].result(10)
        wait_for("it has a leader", lambda: _answered(lambda: admin.log_bounds([tp])), DEADLINE)
        broker.stop()
        described = wait_for(
            "it has none",
            lambda: _answered(lambda: admin.describe_topic(scene.topic).leaderless),
            DEADLINE,
        )
        assert described == frozenset({PARTITIONS})
        since = scene.now()
        for _ in range(2):
            scene.worker()
        wait_for("the others are counted", lambda: scene.counted() == FIRST, DEADLINE)
        others = (scene.now() - since).total_seconds()
        wait_for("a worker says why", lambda: _waits(scene, f"{tp} waits: it has no leader"), DEADLINE)
        row = scene.rows().get(partition=PARTITIONS)
        assert (row.owner_id, row.epoch, row.halt_reason) == (None, 0, "")
        start(broker)
        wait_for("it is claimed", lambda: scene.rows().filter(partition=PARTITIONS).exclude(owner=None), DEADLINE)
        row.refresh_from_db()
        assert (row.baseline_kind, row.baseline_offset) == ("earliest", 0)
        scene.produce(FIRST).process.wait(DEADLINE)
        result = scene.row("partition without a leader", since, None, f"the others counted after {others:.0f} s")
        for worker in scene.workers:
            worker.end()
        scene.kafka.delete_topics([scene.topic])[scene.topic].result(10)
    # Until then new topics may have partitions there.
    wait_for("it has left", lambda: len(scene.kafka.list_topics(timeout=5).brokers) == 1, DEADLINE)
    return result


def _answered(ask: Callable[[], T]) -> T | None:
    """What Kafka answers; None while it does not: a cluster whose brokers come and go is looked for again."""
    with contextlib.suppress(ServiceUnavailableError):
        return ask()
    return None


def _waits(scene: Scene, words: str) -> bool:
    return any(words in worker.last_error for worker in Worker.objects.filter(group_id=scene.group))


def _of(scene: Scene, tp: TopicPartition) -> tuple[str, ...]:
    return "--group", scene.group, "--topic", f"{tp.topic}:{tp.partition}"


def _next(row: PartitionCheckpoint) -> int:
    row.refresh_from_db()
    return row.next_offset


def _read(row: PartitionCheckpoint) -> bool:
    tp = TopicPartition(row.topic, row.partition)
    bounds = _answered(lambda: KafkaAdmin().log_bounds([tp])) or {}
    return tp in bounds and _next(row) == bounds[tp].end


def _end(scene: Scene, tp: TopicPartition) -> int:
    """The log's end; a broker that was restarted may not know its own epoch yet."""
    place = KafkaTopicPartition(tp.topic, tp.partition)

    def ask() -> list[int]:
        (answer,) = scene.kafka.list_offsets({place: OffsetSpec.latest()}).values()
        with contextlib.suppress(KafkaException):
            return [int(answer.result(10).offset)]
        return []

    return wait_for("the log's end is known", ask, DEADLINE)[0]


def _produce_until(scene: Scene, tp: TopicPartition, end: int) -> None:
    while _end(scene, tp) < end:
        scene.produce(2 * FIRST).process.wait(DEADLINE)


ROWS: Sequence[Callable[[Scene], Row]] = (
    log_cut_and_grown,
    log_cut_under_a_worker,
    log_cut_short,
    batch_corrupt,
    leader_missing,
)
