"""Other tools see the group where we do: our own mirror, read back, and by Kafka's own tool."""

import subprocess
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition

from offsets.models import PartitionCheckpoint
from offsets.stores import open_store
from offsets.types import TopicPartition
from streamsocial.stack import Stack
from streamsocial.stack.kafka import Kafka
from tests.support.cases import Case
from tests.support.processes import background, manage, manage_json, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


def checkpoints(case: Case) -> dict[int, PartitionCheckpoint]:
    rows = PartitionCheckpoint.objects.filter(group_id=case.group, retired_at__isnull=True)
    return {row.partition: row for row in rows}


def mirrored(case: Case, store: str = "kafka") -> dict[int, tuple[int, int, str]]:
    places = [TopicPartition(case.topic, number) for number in checkpoints(case)]
    found = open_store(store).read(case.group, places)
    return {tp.partition: (one.next_offset, one.epoch, one.worker_id) for tp, one in found.items()}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_that_ends_leaves_its_last_offsets_in_kafka(case: MakeCase, protocol: str) -> None:
    this = case(5_000, partitions=3, GROUP_PROTOCOL=protocol, OFFSET_MIRRORS="kafka,redis,file")
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    rows = checkpoints(this)
    assert sum(row.next_offset for row in rows.values()) > 0
    expected = {number: (row.next_offset, row.epoch, summary["worker_id"]) for number, row in rows.items()}
    assert mirrored(this) == expected
    assert mirrored(this, "redis") == expected


def test_kafkas_own_tool_describes_the_running_group_as_we_do(case: MakeCase, stack: Stack) -> None:
    this = case(5_000, partitions=3)
    with background(this.env, this.folder / "worker.log", *this.run_consumer()):
        wait_for("everything to be mirrored", lambda: _mirrored_to_the_end(this))
        tool = Kafka(stack.directory, stack.directory.load()).consumer_groups_command(
            "--describe", "--group", this.group
        )
        said = subprocess.run(tool, capture_output=True, text=True, timeout=60, check=True).stdout
        status = manage_json(this.env, "offsets_status", "--group", this.group)
    described = {}
    for line in said.splitlines():
        words = line.split()
        if len(words) > 5 and words[0] == this.group:
            described[int(words[2])] = tuple(map(int, words[3:6]))
    ours = {one["partition"]: (one["next_offset"], one["log_end_offset"], one["lag"]) for one in status["partitions"]}
    assert described == ours, said


def _mirrored_to_the_end(case: Case) -> bool:
    status = manage(case.env, "offsets_status", "--group", case.group, "--json")
    if status.returncode or '"lag": 0' not in status.stdout:
        return False
    rows = checkpoints(case)
    done = sum(row.next_offset for row in rows.values()) >= 5_000
    return done and {n: at for n, (at, _, _) in mirrored(case).items()} == {n: r.next_offset for n, r in rows.items()}


def test_what_somebody_else_committed_is_no_seek_and_is_shown_as_drift(case: MakeCase) -> None:
    this = case(3_000, partitions=2)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    ends = {number: row.next_offset for number, row in checkpoints(this).items()}
    foreign = Consumer({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"], "group.id": this.group})
    foreign.commit(offsets=[KafkaTopicPartition(this.topic, 0, 7, metadata="not ours {")], asynchronous=False)
    foreign.close()
    assert mirrored(this)[0] == (7, 0, "")
    shown = manage_json(this.env, "reconcile_stores", "--group", this.group, "--store", "kafka")
    drift = {item["partition"]: item["drift"] for item in shown["items"]}
    assert drift == {0: 7 - ends[0], 1: 0}
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["events"] == 0
    assert {n: row.next_offset for n, row in checkpoints(this).items()} == ends
    assert mirrored(this)[0][0] == ends[0], "the next owner puts it right"
