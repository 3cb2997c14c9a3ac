"""Faults of the logs themselves: cut off, damaged, without a leader. Rows of the fault table.

The files of a partition are changed while the broker is down, so each row has the stack to itself.
"""

from collections.abc import Callable, Sequence

from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import OffsetSpec

from offsets.kafka.admin import KafkaAdmin
from offsets.models import LedgerRange, PartitionCheckpoint
from offsets.types import TopicPartition
from tests.faults.scene import DEADLINE, FIRST, PARTITIONS, Row, Scene
from tests.support.log_segments import cut_log, flip_byte, log_folder
from tests.support.processes import manage_json, wait_for

#: Kafka's records of partition 1 that are produced again after its end was cut off.
SHARE = FIRST // PARTITIONS


def _batches_of(scene: Scene, count: int) -> None:
    """Produce in several runs, so that the log has several batches to cut between."""
    for _ in range(count):
        scene.produce(FIRST // 2).process.wait(DEADLINE)


def _at_rest(scene: Scene, tp: TopicPartition) -> PartitionCheckpoint:
    """The row of a partition once all of it is counted, and all workers have ended."""
    scene.finish()
    for worker in scene.workers:
        worker.end()
    return PartitionCheckpoint.objects.get(group_id=scene.group, partition=tp.partition, retired_at=None)


def log_cut_and_grown(scene: Scene) -> Row:
    """The end of a log is lost with an unclean restart; new records take its offsets. Counts stay, and are added to."""
    tp = TopicPartition(scene.topic, 1)
    _batches_of(scene, 2)
    scene.play()
    row = _at_rest(scene, tp)
    old_next = row.next_offset
    scene.stack.kill_service("kafka")
    diverges = cut_log(log_folder(scene.stack, tp), old_next - SHARE // 2)
    assert diverges < old_next
    since = scene.now()
    scene.stack.start_service("kafka")
    _produce_until(scene, tp, old_next + 1)
    scene.worker()
    incident = scene.incident("halted_truncated")
    row.refresh_from_db()
    assert row.halt_reason == "truncated"
    assert row.next_offset == old_next
    assert f"offset {diverges}," in row.halt_detail
    others = scene.rows().exclude(pk=row.pk)
    wait_for("the others go on", lambda: all(_read(other) for other in others), DEADLINE)
    shown = manage_json(scene.env, "rebuild_partition", *_of(scene, tp), "--keep-counts")["items"][0]
    assert shown["after"]["next_offset"] == diverges
    manage_json(scene.env, "rebuild_partition", *_of(scene, tp), "--keep-counts", "--execute", "--reason", "a test")
    fresh = scene.rows().get(topic=tp.topic, partition=tp.partition)
    assert (fresh.baseline_offset, fresh.halt_reason) == (diverges, "")
    return scene.row("log cut off and grown again", since, incident, "restarted where the logs diverge")


def batch_corrupt(scene: Scene) -> Row:
    """A byte of one batch changes on the disk: the partition halts there, and the operator skips that batch."""
    tp = TopicPartition(scene.topic, 2)
    _batches_of(scene, 2)
    scene.stack.stop_service("kafka")
    bad = flip_byte(log_folder(scene.stack, tp), SHARE + SHARE // 4)
    since = scene.now()
    scene.stack.start_service("kafka")
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
    return result


def _of(scene: Scene, tp: TopicPartition) -> tuple[str, ...]:
    return "--group", scene.group, "--topic", f"{tp.topic}:{tp.partition}"


def _next(row: PartitionCheckpoint) -> int:
    row.refresh_from_db()
    return row.next_offset


def _read(row: PartitionCheckpoint) -> bool:
    tp = TopicPartition(row.topic, row.partition)
    return _next(row) == KafkaAdmin().log_bounds([tp])[tp].end


def _end(scene: Scene, tp: TopicPartition) -> int:
    (answer,) = scene.kafka.list_offsets({KafkaTopicPartition(tp.topic, tp.partition): OffsetSpec.latest()}).values()
    return int(answer.result(10).offset)


def _produce_until(scene: Scene, tp: TopicPartition, end: int) -> None:
    while _end(scene, tp) < end:
        scene.produce(FIRST // 2).process.wait(DEADLINE)


LOG_ROWS: Sequence[Callable[[Scene], Row]] = (log_cut_and_grown, batch_corrupt)
