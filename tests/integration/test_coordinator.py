"""What the coordinator does with logs that change under it, on a real broker."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from django.db.models import Min

from analytics.models import EngagementMinute
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.divergence import Comparison, compare
from offsets.models import LedgerRange, PartitionCheckpoint, Worker
from offsets.types import Position
from offsets.types import TopicPartition as Place
from tests.support.cases import Case
from tests.support.processes import assert_exactly_once, background, manage, manage_json, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


@cache
def _client(servers: str) -> AdminClient:
    """Kept: the futures of a client that is collected fail."""
    return AdminClient({"bootstrap.servers": servers})


def _admin(case: Case) -> AdminClient:
    return _client(case.env["KAFKA_BOOTSTRAP_SERVERS"])


def _checkpoints(case: Case) -> dict[int, PartitionCheckpoint]:
    return {row.partition: row for row in PartitionCheckpoint.objects.filter(group_id=case.group)}


def test_it_halts_only_the_partition_whose_unread_records_were_deleted(case: MakeCase) -> None:
    this = case(3_000, partitions=3)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    truth = this.truth.read_bytes()
    manage_json(this.env, "produce_events", "--count", "3000", "--topic", this.topic)
    # Kafka's own deletion, as retention does it, but now: everything before the end of partition 0.
    next(iter(_admin(this).delete_records([TopicPartition(this.topic, 0, -1)]).values())).result(10)
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        halted = wait_for("partition 0 halts", lambda: _halted(this))
        assert halted is not None
        assert halted.halt_reason == "expired"
        assert str(halted.next_offset) in halted.halt_detail
        counted = wait_for("the others go on", lambda: _all_read(this, {1, 2}))
        assert counted
        assert worker.end() == 0, worker.output()
    done = manage(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert done.returncode == 1, "a halted partition cannot be caught up"
    assert "is halted" in done.stderr
    assert truth
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]


def _halted(case: Case) -> PartitionCheckpoint | None:
    return PartitionCheckpoint.objects.filter(group_id=case.group, partition=0).exclude(halt_reason="").first()


def _all_read(case: Case, partitions: set[int]) -> bool:
    status = manage_json(case.env, "offsets_status", "--group", case.group)
    return all(row["lag"] == 0 for row in status["partitions"] if row["partition"] in partitions)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_it_halts_when_the_topic_is_recreated_while_it_runs(case: MakeCase, protocol: str) -> None:
    this = case(1_000, partitions=2, GROUP_PROTOCOL=protocol)
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("all is counted", lambda: _checkpoints(this) and _all_read(this, {0, 1}))
        _admin(this).delete_topics([this.topic])[this.topic].result(10)
        wait_for("the topic is gone", lambda: this.topic not in _admin(this).list_topics(timeout=5).topics)
        manage_json(this.env, "produce_events", "--count", "1000", "--topic", this.topic, "--partitions", "2")
        wait_for(
            "both partitions halt",
            lambda: {row.halt_reason for row in _checkpoints(this).values()} == {"recreated"},
        )
        assert worker.end() == 0, worker.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_counts_from_the_start_of_partitions_by_which_the_topic_grew(case: MakeCase) -> None:
    this = case(1_000, partitions=1, poison=0.0, OFFSET_BASELINE="latest")
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("the partition is claimed", lambda: _checkpoints(this))
        assert _checkpoints(this)[0].next_offset == 1_000
        _admin(this).create_partitions([NewPartitions(this.topic, 2)])[this.topic].result(10)
        wait_for("Kafka knows it", lambda: len(_admin(this).list_topics(timeout=5).topics[this.topic].partitions) == 2)
        producer = Producer({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
        event = b'{"event_type":"like","user_id":1,"content_id":1,"occurred_at":1}'
        for _ in range(7):
            producer.produce(this.topic, event, partition=1)
        producer.flush(10)
        wait_for(
            "the new partition is counted", lambda: 1 in _checkpoints(this) and _checkpoints(this)[1].next_offset == 7
        )
        assert _checkpoints(this)[1].baseline_kind == "grown"
        assert worker.end() == 0, worker.output()


def test_it_counts_events_with_wrong_units_of_time_exactly_and_says_so(case: MakeCase) -> None:
    this = case(100, partitions=1, poison=0.0)
    producer = Producer({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
    now = int(time.time())

    def event(at: int) -> bytes:
        return b'{"event_type":"like","user_id":1,"content_id":1,"occurred_at":%d}' % at

    for _ in range(300):
        producer.produce(this.topic, event(now), partition=0)
        producer.produce(this.topic, event(now * 1_000_000), partition=0)
        # The record's timestamp in seconds: Kafka takes it for one of January 1970.
        producer.produce(this.topic, event(now * 1000), partition=0, timestamp=now)
    producer.flush(10)

    assert manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))["events"] == 1000

    status = manage_json(this.env, "offsets_status", "--group", this.group)
    assert [(row["source"], row["unit"], row["events"]) for row in status["implausible_times"]] == [
        ("event", "microseconds", 300),
        ("event", "seconds", 300),
        ("record", "seconds", 300),
    ]
    minutes = EngagementMinute.objects.filter(checkpoint__group_id=this.group)
    assert minutes.aggregate(oldest=Min("minute"))["oldest"] > datetime.fromtimestamp(now - 3600, UTC)
    assert sum(row.views + row.likes + row.comments + row.shares for row in minutes) == 1000
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]


def test_it_covers_transaction_markers_and_leaves_out_aborted_records(case: MakeCase) -> None:
    """Markers take offsets that are never delivered: they lie inside the range, and lag still reaches zero."""
    this = case(100, partitions=1, poison=0.0)
    producer = Producer(
        {"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"], "transactional.id": f"tx-{this.topic}"}
    )
    producer.init_transactions(10)
    event = b'{"event_type":"share","user_id":1,"content_id":1,"occurred_at":1}'
    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for _ in range(3):
            producer.produce(this.topic, event, partition=0)
        producer.flush(10)  # an abort purges what was not sent yet
        end()
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["events"] == 106
    row = manage_json(this.env, "offsets_status", "--group", this.group)["partitions"][0]
    assert (row["next_offset"], row["lag"]) == (112, 0)
    only = LedgerRange.objects.get(checkpoint__group_id=this.group)
    assert (only.offsets.lower, only.offsets.upper, only.records) == (0, 112, 106)
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]


def test_it_adopts_the_commits_of_an_existing_group(case: MakeCase) -> None:
    this = case(300, partitions=1, poison=0.0, OFFSET_BASELINE="group")
    consumer = Consumer({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"], "group.id": this.group})
    consumer.commit(offsets=[TopicPartition(this.topic, 0, 120)], asynchronous=False)
    consumer.close()
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["events"] == 180
    assert _checkpoints(this)[0].baseline_kind == "group"


def test_an_adopted_commit_behind_an_open_transaction_is_waited_for(case: MakeCase) -> None:
    this = case(100, partitions=1, poison=0.0, OFFSET_BASELINE="group")
    servers = this.env["KAFKA_BOOTSTRAP_SERVERS"]
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"tx-{this.topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    event = b'{"event_type":"share","user_id":1,"content_id":1,"occurred_at":1}'
    for _ in range(50):
        producer.produce(this.topic, event, partition=0)
    producer.flush(10)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": this.group})
    consumer.commit(offsets=[TopicPartition(this.topic, 0, 120)], asynchronous=False)
    consumer.close()
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        said = wait_for("the worker says why it waits", lambda: _last_error(this))
        assert f"{this.topic}-0 waits: its next offset 120 lies behind an open transaction" in said
        assert (_checkpoints(this)[0].halt_reason, _checkpoints(this)[0].owner_id) == ("", None)
        producer.commit_transaction(30)
        wait_for("the rest is counted", lambda: _checkpoints(this)[0].next_offset == 151)
        wait_for("the worker waits no longer", lambda: not _last_error(this))
        assert worker.end() == 0, worker.output()
    only = LedgerRange.objects.get(checkpoint__group_id=this.group)
    assert (only.offsets.lower, only.offsets.upper, only.records) == (120, 151, 30)


def _last_error(case: Case) -> str:
    return "".join(Worker.objects.filter(group_id=case.group).values_list("last_error", flat=True))


def test_it_keeps_the_leader_epoch_of_its_last_offset(case: MakeCase) -> None:
    """Of the marker, where one is last: a broker compares the epoch with the offset after it."""
    this = case(100, partitions=1, poison=0.0)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    row = _checkpoints(this)[0]
    bounds = KafkaAdmin().log_bounds([Place(this.topic, 0)])[Place(this.topic, 0)]
    assert row.leader_epoch is not None
    assert row.leader_epoch == bounds.leader_epoch
    at_the_end = Position(row.next_offset, row.leader_epoch)
    assert compare({Place(this.topic, 0): at_the_end}) == {Place(this.topic, 0): Comparison(truncated=False)}
    manage_json(this.env, "produce_events", "--count", "10", "--topic", this.topic)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert (_checkpoints(this)[0].next_offset, _checkpoints(this)[0].halt_reason) == (110, "")


def test_it_exits_with_one_when_a_partition_is_paused(case: MakeCase) -> None:
    this = case(300, partitions=2, poison=0.0)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    paused = manage(
        this.env,
        "pause_partitions",
        "--group",
        this.group,
        "--topic",
        f"{this.topic}:0",
        "--reason",
        "a test",
        "--execute",
    )
    assert paused.returncode == 0, paused.stderr
    manage_json(this.env, "produce_events", "--count", "300", "--topic", this.topic)
    done = manage(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert done.returncode == 1
    assert f"{this.topic}-0 is paused" in done.stderr
    assert _all_read(this, {1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--topic", "no-such-topic"], "does not exist"),
        (["--semantics", "mostly"], "Unknown processing semantics"),
        (["--store", "redis"], "cannot keep"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_it_refuses_what_it_cannot_do(case: MakeCase, options: list[str], says: str) -> None:
    this = case(1, partitions=1)
    done = manage(this.env, "run_consumer", "--group", this.group, *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not _checkpoints(this)


def test_a_static_member_that_comes_back_moves_nobodys_partitions(case: MakeCase) -> None:
    this = case(3_000, partitions=4, SESSION_TIMEOUT_MS="30000")
    first, second = ({**this.env, "GROUP_INSTANCE_ID": f"{this.group}-{name}"} for name in "ab")

    def held() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for number, row in _checkpoints(this).items():
            found.setdefault(row.owner_id or "", set()).add(number)
        return found

    with background(first, this.folder / "first.log", *this.run_consumer()):
        with background(second, this.folder / "second.log", *this.run_consumer()) as leaving:
            owners = wait_for("both to own some", lambda: _both(held()))
            stays = {row.owner_id: row.epoch for row in _checkpoints(this).values()}
            leaving.kill()
        with background(second, this.folder / "again.log", *this.run_consumer()):
            again = wait_for("the successor to own them", lambda: _both(held(), set(owners)))
            (new,) = set(again) - set(owners)
            (gone,) = set(owners) - set(again)
            assert again[new] == owners[gone], "it has exactly what its predecessor had"
            (kept,) = set(again) & set(owners)
            assert {r.epoch for r in _checkpoints(this).values() if r.owner_id == kept} == {stays[kept]}


def _both(held: dict[str, set[int]], before: set[str] = frozenset()) -> dict[str, set[int]]:  # type: ignore[assignment]
    """What each owns, once there are two, one of them new since `before`."""
    return held if len(held) == 2 and "" not in held and set(held) != before else {}


def test_groups_and_topics_side_by_side_do_not_disturb_each_other(case: MakeCase) -> None:
    this, other = case(3_000, partitions=2), case(2_000, partitions=3)
    both = ["run_consumer", "--topic", this.topic, "--topic", other.topic, "--exit-when-caught-up"]
    first = manage_json(this.env, *both, "--group", this.group)
    second = manage_json(this.env, *both, "--group", other.group)
    assert first["events"] == second["events"] > 4_900
    for group in (this.group, other.group):
        assert_exactly_once(this.env, group, this.topic, this.truth, this.folder)
        assert_exactly_once(this.env, group, other.topic, other.truth, this.folder)
