"""Moving offsets of a group that is running: nothing is lost, nothing is counted twice, and all of it is audited."""

import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from django.core.management import CommandError, call_command

from offsets.actions import undo
from offsets.actions.guards import Actor, Request, Source
from offsets.errors import StalePreviewError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import JournalEntry, LedgerRange, OperatorAction, PartitionCheckpoint
from offsets.types import TopicPartition as Place
from tests.support.cases import Case
from tests.support.page_rows import make_checkpoint
from tests.support.processes import Background, background, manage, manage_json, wait_for
from tests.support.truth import counts_of

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


def live(case: Case) -> dict[int, PartitionCheckpoint]:
    return {r.partition: r for r in PartitionCheckpoint.objects.filter(group_id=case.group, retired_at__isnull=True)}


def caught_up(case: Case) -> bool:
    rows = live(case).values()
    ends = KafkaAdmin().log_bounds(Place(row.topic, row.partition) for row in rows)
    return bool(ends) and all(row.next_offset == ends[Place(row.topic, row.partition)].end for row in rows)


@contextmanager
def running(case: Case) -> Iterator[Background]:
    """A worker that has read everything there is."""
    with background(case.env, case.folder / "worker.log", *case.run_consumer()) as worker:
        wait_for("the backlog to be counted", lambda: caught_up(case))
        yield worker
        assert worker.end() == 0, worker.output()


@contextmanager
def producing(case: Case, events: int) -> Iterator[Path]:
    """More events, slowly enough that they arrive during what is done meanwhile."""
    truth = case.folder / "more.csv"
    arguments = ("--count", str(events), "--rate", "1500", "--topic", case.topic, "--seed", "77", "--truth", str(truth))
    with background(case.env, case.folder / "producer.log", "produce_events", *arguments) as producer:
        yield truth
        assert producer.process.wait(120) == 0, producer.output()


def counted(case: Case) -> Counter[tuple[str, str]]:
    export = case.folder / f"export-{time.monotonic_ns()}.csv"
    manage_json(case.env, "engagement_totals", "--group", case.group, "--topic", case.topic, "--export", str(export))
    return counts_of(export)


def move(case: Case, command: str, *options: str) -> Any:
    return manage_json(case.env, command, "--group", case.group, *options, "--execute", "--reason", "test")


def assert_whole(case: Case, *truths: Path) -> None:
    """The invariants hold, and every event of these truths is counted once."""
    verified = manage_json(case.env, "verify_offsets", "--group", case.group)
    assert verified["ok"], verified
    wanted: Counter[tuple[str, str]] = Counter()
    for truth in truths:
        wanted.update(counts_of(truth))
    assert counted(case) == wanted


def test_a_running_group_read_again_from_the_start_counts_nothing_twice(case: MakeCase) -> None:
    this = case(20_000, partitions=3)
    with running(this):
        before = counted(this)
        with producing(this, 6_000) as more:
            done = move(this, "reset_offsets", "--all-topics", "--to-earliest")
            assert len(done["items"]) == 3
            assert {item["after"]["next_offset"] for item in done["items"]} == {0}
            assert all(item["after"]["deduplicated"] == item["before"]["next_offset"] for item in done["items"])
            assert all(item["after"]["lost"] == 0 for item in done["items"])
            assert counted(this) >= before, "no count may fall meanwhile"
        wait_for("everything to be read", lambda: caught_up(this))
    assert_whole(this, this.truth, more)
    actions = OperatorAction.objects.filter(kind="seek", outcome="applied")
    assert {str(action.change_id) for action in actions} == {done["change_id"]}
    assert actions.count() == 3
    assert JournalEntry.objects.filter(group_id=this.group, kind="seek").count() == 3


def test_a_running_partition_is_rebuilt_and_the_rebuild_undone(case: MakeCase) -> None:
    this = case(9_000, partitions=3)
    with running(this):
        with producing(this, 3_000) as more:
            old = live(this)
            move(this, "rebuild_partition", "--topic", f"{this.topic}:1")
        wait_for("the partition to be counted again", lambda: caught_up(this))
        assert_whole(this, this.truth, more)
        new = live(this)
        assert new[1].pk != old[1].pk
        assert new[1].epoch > old[1].epoch
        assert (new[0].pk, new[2].pk) == (old[0].pk, old[2].pk)
        action = OperatorAction.objects.get(kind="rebuild")
        move(this, "reset_offsets", "--all", "--undo", str(action.pk))
        assert live(this)[1].pk == old[1].pk
        wait_for("the old one to go on where it was", lambda: caught_up(this))
        assert_whole(this, this.truth, more)
    again = manage(this.env, "reset_offsets", "--undo", str(action.pk), "--execute", "--reason", "again")
    assert again.returncode == 2
    assert "already undone" in again.stderr


def test_an_earlier_position_of_the_client_passes_no_offset(case: MakeCase) -> None:
    """A partition that is read again from 0 at once: the client still has its old position for a moment."""
    this = case(12_000, partitions=6, OFFSET_BASELINE="latest")
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("all are claimed", lambda: len(live(this)) == 6 and all(row.owner_id for row in live(this).values()))
        with producing(this, 1_500) as more:
            pass
        wait_for("the end to be counted", lambda: caught_up(this))
        assert all(row.next_offset > row.baseline_offset > 0 for row in live(this).values())
        for number in live(this):  # one action each, so that one pass of the worker claims few of them
            move(this, "reset_offsets", "--topic", f"{this.topic}:{number}", "--to-earliest")
        wait_for("everything to be counted", lambda: caught_up(this))
        assert worker.end() == 0, worker.output()
    assert_whole(this, this.truth, more)


def test_a_rebuild_stays_above_the_baseline_unless_it_is_told_otherwise(case: MakeCase) -> None:
    this = case(2_000, partitions=1, poison=0, OFFSET_BASELINE="latest")
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    manage_json(this.env, "produce_events", "--count", "500", "--topic", this.topic)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    scope = ("rebuild_partition", "--group", this.group, "--all")
    above = manage_json(this.env, *scope)["items"][0]
    assert (above["after"]["next_offset"], above["after"]["to_count"]) == (2_000, 500)
    below = manage_json(this.env, *scope, "--from-log-start")["items"][0]
    assert (below["after"]["next_offset"], below["after"]["to_count"]) == (0, 2_500)
    assert "2,000 of them lie below the baseline 2,000 and were never counted by this group" in below["detail"]


def test_the_undo_of_a_rebuild_names_what_kafka_has_deleted_meanwhile(case: MakeCase) -> None:
    this = case(1_000, partitions=1, poison=0)
    client = AdminClient({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    old = live(this)[0]
    rebuilt = move(this, "rebuild_partition", "--all")
    manage_json(this.env, "produce_events", "--count", "500", "--topic", this.topic)
    next(iter(client.delete_records([TopicPartition(this.topic, 0, 1_200)]).values())).result(10)
    undo = ("reset_offsets", "--undo", rebuilt["change_id"])
    shown = manage_json(this.env, *undo, "--group", this.group)["items"][0]["detail"]
    assert "200 uncounted offsets are lost" in shown
    move(this, *undo)
    assert OperatorAction.objects.get(kind="undo").detail == shown
    assert (live(this)[0].pk, live(this)[0].next_offset) == (old.pk, 1_000)
    assert live(this)[0].leader_epoch == old.leader_epoch
    assert manage(this.env, *this.run_consumer("--exit-when-caught-up")).returncode == 1
    assert live(this)[0].halt_reason == "expired"


def test_an_undo_of_a_rebuild_applies_to_what_was_seen_alone(case: MakeCase) -> None:
    this = case(200, partitions=1, poison=0)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    rebuilt = move(this, "rebuild_partition", "--all")
    undone = undo.find(rebuilt["change_id"])
    seen = undo.seen_of(undone)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))  # a claim begins another epoch
    request = Request(Actor("op", allowed=True), "test", Source.COMMAND)
    with pytest.raises(StalePreviewError, match="epoch was"):
        undo.undo(undone, request, seen=seen)
    assert undo.undo(undone, request, seen=undo.seen_of(undone))


def test_what_is_skipped_is_recorded_and_counted_after_an_undo(case: MakeCase) -> None:
    this = case(4_000, partitions=2, poison=0)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    truth = this.truth.read_bytes()
    manage_json(this.env, "produce_events", "--count", "2000", "--topic", this.topic, "--truth", str(this.truth))
    at = live(this)[0].next_offset
    done = move(this, "skip_offsets", "--topic", f"{this.topic}:0", "--count", "100")
    assert done["items"][0]["after"]["lost"] == 100
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["events"] == 1_900
    skipped = LedgerRange.objects.get(checkpoint__group_id=this.group, kind="skipped")
    assert (skipped.offsets.lower, skipped.offsets.upper) == (at, at + 100)
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]
    move(this, "reset_offsets", "--undo", done["change_id"])
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert (summary["events"], summary["deduplicated"] > 0) == (100, True)
    first = this.folder / "first.csv"
    first.write_bytes(truth)
    assert_whole(this, first, this.truth)


def test_a_partition_halted_by_retention_goes_on_when_the_loss_is_accepted(case: MakeCase) -> None:
    this = case(3_000, partitions=2, poison=0)
    client = AdminClient({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
    manage(this.env, *this.run_consumer("--exit-when-caught-up"))
    at = live(this)[0].next_offset
    manage_json(this.env, "produce_events", "--count", "3000", "--topic", this.topic)
    next(iter(client.delete_records([TopicPartition(this.topic, 0, at + 50)]).values())).result(10)
    assert manage(this.env, *this.run_consumer("--exit-when-caught-up")).returncode == 1
    assert live(this)[0].halt_reason == "expired"
    done = move(this, "accept_loss", "--topic", f"{this.topic}:0")
    assert done["items"][0]["after"]["lost"] == 50
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    expired = LedgerRange.objects.get(checkpoint__group_id=this.group, kind="expired")
    assert (expired.offsets.lower, expired.offsets.upper) == (at, at + 50)
    assert sum(counted(this).values()) == 6_000 - 50
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]


def test_a_topic_created_again_is_counted_beside_what_the_old_one_counted(case: MakeCase) -> None:
    this = case(2_000, partitions=2, poison=0)
    client = AdminClient({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    first = this.folder / "first.csv"
    first.write_bytes(this.truth.read_bytes())
    client.delete_topics([this.topic])[this.topic].result(10)
    wait_for("the topic to be gone", lambda: this.topic not in client.list_topics(timeout=10).topics)
    manage_json(
        this.env,
        *("produce_events", "--count", "1500", "--topic", this.topic, "--partitions", "2"),
        *("--truth", str(this.truth)),
    )
    refused = manage(this.env, "reset_offsets", "--group", this.group, "--all", "--to-earliest")
    assert refused.returncode == 2
    assert "--keep-counts" in refused.stderr
    move(this, "rebuild_partition", "--all", "--keep-counts")
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert_whole(this, first, this.truth)


def test_targets_are_exported_and_read_back(case: MakeCase) -> None:
    this = case(3_000, partitions=3)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    places = {number: row.next_offset for number, row in live(this).items()}
    plan = this.folder / "plan.csv"
    scope = ("--group", this.group, "--all")
    manage(this.env, "reset_offsets", *scope, "--to-current", "--export", str(plan))
    assert plan.read_text() == "".join(f"{this.topic},{number},{at}\n" for number, at in sorted(places.items()))
    move(this, "reset_offsets", "--all", "--shift-by", "-10")
    assert {n: row.next_offset for n, row in live(this).items()} == {n: at - 10 for n, at in places.items()}
    move(this, "reset_offsets", "--from-file", str(plan))
    assert {n: row.next_offset for n, row in live(this).items()} == places
    dry = manage_json(this.env, "reset_offsets", *scope, "--by-duration", "PT1H")
    assert not dry["executed"]
    assert {item["after"]["next_offset"] for item in dry["items"]} == {0}
    assert {n: row.next_offset for n, row in live(this).items()} == places


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("reset_offsets", ["--all", "--to-datetime", "2026-01-01T00:00:00"], "has no zone"),
        ("reset_offsets", ["--all", "--to-datetime", "2999-01-01T00:00:00Z"], "is in the future"),
        ("reset_offsets", ["--all", "--to-datetime", "yesterday"], "Invalid timestamp"),
        ("reset_offsets", ["--all", "--by-duration", "1 day"], "Invalid duration"),
        ("reset_offsets", ["--all", "--to-offset", "-1"], "at least 0"),
        ("reset_offsets", ["--all", "--to-offset", "ten"], "not a whole number"),
        ("reset_offsets", ["--topic", "t:9", "--to-earliest"], "has no t-9"),
        ("reset_offsets", ["--to-earliest"], "Select partitions"),
        ("reset_offsets", ["--all"], "one of the arguments"),
        ("reset_offsets", ["--all", "--to-earliest", "--execute"], "--execute needs --reason"),
        ("reset_offsets", ["--undo", "12345678"], "No applied action"),
        ("reset_offsets", ["--undo", "nonsense"], "neither the number of an action"),
        ("skip_offsets", ["--all", "--count", "1000000"], "outside of the log"),
        ("accept_loss", ["--all"], "has lost nothing"),
        ("rebuild_partition", ["--all", "--keep-counts"], "would count it twice"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    refusing: Case, tmp_path: Path, command: str, options: list[str], says: str
) -> None:
    before = list(PartitionCheckpoint.objects.order_by("pk").values())
    with pytest.raises(CommandError, match=re.escape(says)) as refused:
        call_command(command, "--group", refusing.group, *options)
    assert refused.value.returncode in (1, 2)  # argparse's own errors get their status where the process ends
    assert list(PartitionCheckpoint.objects.order_by("pk").values()) == before
    assert not OperatorAction.objects.filter(outcome="applied").exists()


def test_a_file_with_a_wrong_row_is_refused_whole(refusing: Case) -> None:
    file = refusing.folder / "targets.csv"
    file.write_text(f"{refusing.topic},0,1\n{refusing.topic},7,2\n")
    done = manage(
        *(refusing.env, "reset_offsets", "--group", refusing.group, "--from-file", str(file)),
        *("--execute", "--reason", "test"),
    )
    assert done.returncode == 2
    assert f"has no {refusing.topic}-7" in done.stderr
    assert "Traceback" not in done.stderr
    assert not OperatorAction.objects.filter(outcome="applied").exists()


@pytest.fixture
def refusing(service_env: dict[str, str], transactional_db: None, tmp_path: Path) -> Case:
    """A group of two partitions that has read everything; made without a worker."""
    name = f"refusing-{uuid.uuid4().hex[:8]}"
    KafkaAdmin().create_topic(name, 2)
    wait_for("the topic", lambda: name in KafkaAdmin().describe_topics([name]))
    topic_id = KafkaAdmin().describe_topic(name).topic_id
    for number in range(2):
        make_checkpoint(number, group_id=name, topic=name, topic_id=topic_id, next_offset=0)
    wait_for("its leaders", lambda: len(KafkaAdmin().log_bounds([Place(name, 0), Place(name, 1)])) == 2)
    return Case(service_env, name, name, tmp_path, tmp_path / "truth.csv", random.Random(1))
