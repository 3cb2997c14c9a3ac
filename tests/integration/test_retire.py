"""Retired partitions: no longer watched, counted in all totals, and back where they stood after an undo."""

import time
from collections import Counter
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from django.db import IntegrityError

from offsets import ledger
from offsets.actions import pause, retire, undo
from offsets.actions.guards import Request, Seen, Source
from offsets.actions.pause import ActionKind
from offsets.errors import NotAllowedError, RefusedError, StalePreviewError
from offsets.kafka.admin import KafkaAdmin, LogBounds
from offsets.ledger import Baseline
from offsets.models import DeadLetter, OperatorAction, PartitionCheckpoint, Worker
from offsets.monitoring import invariants, lag_samples
from offsets.types import RETIRED, TopicPartition
from tests.support.cases import Case
from tests.support.operators import OPERATOR, VIEWER, audit, in_words, refused, run
from tests.support.page_rows import GROUP, make_checkpoint, make_range, make_sample, make_worker
from tests.support.processes import background, manage, manage_json, wait_for
from tests.support.truth import counts_of

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = Request(OPERATOR, "gone", Source.API)
EXECUTE = ("--execute", "--reason", "gone")


def retire_now(*rows: PartitionCheckpoint) -> list[OperatorAction]:
    return retire.retire(GROUP, {row.pk: Seen.of(row) for row in rows}, ASKED)


def states() -> dict[str, str]:
    rows = PartitionCheckpoint.objects.filter(group_id=GROUP)
    return {row.name: row.retired_reason if row.retired_at else "live" for row in rows}


# --- The action -----------------------------------------------------------------------------------


def test_it_retires_a_topic_and_brings_it_back() -> None:
    for partition in range(2):
        make_checkpoint(partition)
    make_checkpoint(0, topic="other")

    dry = run("retire_partitions", "--topic", "engagement")
    assert not dry["executed"]
    assert not OperatorAction.objects.exists()
    done = run("retire_partitions", "--topic", "engagement", *EXECUTE)
    assert states() == {"engagement-0": RETIRED, "engagement-1": RETIRED, "other-0": "live"}
    assert len({OperatorAction.objects.get(pk=item["action_id"]).change_id for item in done["items"]}) == 1

    before = PartitionCheckpoint.objects.get(topic="engagement", partition=1)
    # Named by one of its actions, the whole topic comes back.
    undone = run("retire_partitions", "--undo", str(done["items"][0]["action_id"]), *EXECUTE)
    assert [item["detail"] for item in undone["items"]] == [
        f"Undo the retirement of engagement-{n}: it is watched again, and goes on at 1,000 once claimed."
        for n in (0, 1)
    ]
    assert set(states().values()) == {"live"}
    after = PartitionCheckpoint.objects.get(topic="engagement", partition=1)
    assert (after.next_offset, after.baseline_offset) == (before.next_offset, before.baseline_offset)
    assert after.epoch == before.epoch + 1
    assert {kind for kind, *_ in audit()} == {"retire", "undo"}
    assert "already undone" in refused("retire_partitions", "--undo", done["change_id"], *EXECUTE)


def test_it_retires_a_whole_group() -> None:
    make_checkpoint(0)
    make_checkpoint(0, topic="other")

    run("retire_partitions", "--all", *EXECUTE)

    assert set(states().values()) == {RETIRED}
    assert "has no partitions yet" in refused("retire_partitions", "--all", *EXECUTE)


def test_it_says_what_stays_uncounted() -> None:
    row = make_checkpoint(0)
    make_range(row, 0, 990)
    make_range(row, 990, 1000, "failed", detail="DataError")
    make_sample(row, 7200, 1200, 1000)
    DeadLetter.objects.create(checkpoint=row, offset=3, error_code="malformed", error_detail="It failed.")
    make_checkpoint(1)

    [first, second] = retire.preview(list(PartitionCheckpoint.objects.order_by("partition")), OPERATOR)

    assert first.text == (
        "Retire engagement-0 at offset 1,000: its counts stay. Not counted: 200 unread records, 10 failed offsets, "
        "1 pending dead letter."
    )
    assert "Not counted: unread records (number unknown)." in second.text
    assert "Retire 2 partitions of engagement: the counts stay in all totals" in in_words("retire_partitions", "--all")


def test_it_refuses_a_partition_that_a_live_worker_reads() -> None:
    row = make_checkpoint(0, owner=make_worker("w-live"))

    message = refused("retire_partitions", "--all", *EXECUTE)
    with pytest.raises(RefusedError, match="is read by the running worker w-live"):
        retire_now(row)

    assert "Stop the worker, or start it without this topic" in message
    assert states() == {"engagement-0": "live"}
    assert audit() == [("retire", "refused", "olga")]


@pytest.mark.parametrize("fields", [{"silent_for": 3600.0}, {"state": Worker.State.STOPPED}])
def test_it_retires_a_partition_of_a_worker_that_is_gone(fields: dict[str, object]) -> None:
    row = make_checkpoint(0, owner=make_worker("w-gone", **fields))  # type: ignore[arg-type]

    retire_now(row)

    row.refresh_from_db()
    assert (row.retired_reason, row.owner_id, row.epoch) == (RETIRED, None, 4)


def test_no_other_action_touches_it() -> None:
    row = make_checkpoint(0)
    [action] = retire_now(row)

    with pytest.raises(RefusedError, match=f"engagement-0 is retired. Undo action {action.pk} first."):
        retire_now(row)
    with pytest.raises(RefusedError, match="is retired"):
        pause.preview(ActionKind.PAUSE, row.pk, OPERATOR)


def test_all_or_none_as_they_were_seen() -> None:
    first, second = make_checkpoint(0), make_checkpoint(1)
    PartitionCheckpoint.objects.filter(pk=second.pk).update(epoch=9)

    with pytest.raises(StalePreviewError, match="epoch was 3, is 9"):
        retire_now(first, second)
    with pytest.raises(RefusedError, match="Unknown checkpoint"):
        retire.retire("another group", {first.pk: Seen.of(first)}, ASKED)
    with pytest.raises(NotAllowedError):
        retire.preview([first], VIEWER)

    assert set(states().values()) == {"live"}


def test_an_undo_is_refused_once_something_else_happened() -> None:
    row = make_checkpoint(0)
    [action] = retire_now(row)
    undo.undo(undo.find(str(action.pk)), ASKED)
    row.refresh_from_db()
    [again] = retire_now(row)

    with pytest.raises(RefusedError, match="already undone"):
        undo.find(str(action.pk))
    with pytest.raises(RefusedError, match="is not retired by it"):
        undo.undo([action], ASKED)
    assert undo.texts(undo.find(str(again.pk)), OPERATOR)


def test_the_database_refuses_to_begin_a_retired_partition_again() -> None:
    retire_now(make_checkpoint(0))

    with pytest.raises(IntegrityError, match="checkpoint_one_live"):
        make_checkpoint(0, baseline_offset=0, next_offset=0)


# --- What no longer sees it -----------------------------------------------------------------------


def test_it_is_not_sampled_claimed_or_begun_again() -> None:
    rows = [make_checkpoint(number) for number in range(2)]
    place = TopicPartition("engagement", 0)
    [action] = retire_now(rows[0])
    worker = make_worker("w-1")

    inserted = ledger.insert_baselines(
        GROUP, "engagement", {n: Baseline("topic-id", 5_000, "latest") for n in range(3)}, ["content"]
    )
    claims = ledger.claim(GROUP, worker.pk, [place, TopicPartition("engagement", 1)])

    assert inserted == [2], "only the partition that was never begun"
    assert [claim.partition for claim in claims] == [1]
    assert ledger.retired_partitions(GROUP, [place, TopicPartition("engagement", 1)]) == {
        place: f"action {action.pk} by olga"
    }
    assert ledger.partition_progress(GROUP, ["engagement"])[place].held == "retired"
    watermarks = {TopicPartition("engagement", number): LogBounds(0, 2_000) for number in range(3)}
    assert lag_samples.sample(GROUP, watermarks) == 2
    undo.undo(undo.find(str(action.pk)), ASKED)
    [claim] = ledger.claim(GROUP, worker.pk, [place])
    assert (claim.checkpoint_id, claim.next_offset) == (rows[0].pk, 1000)


# --- On a real topic ------------------------------------------------------------------------------


def totals(case: Case) -> Counter[tuple[str, str]]:
    export = case.folder / f"export-{time.monotonic_ns()}.csv"
    manage_json(case.env, "engagement_totals", "--group", case.group, "--export", str(export))
    return counts_of(export)


def all_retired(case: Case) -> bool:
    rows = PartitionCheckpoint.objects.filter(group_id=case.group)
    return rows.exists() and not rows.exclude(retired_reason=RETIRED).exists()


def test_a_worker_that_still_subscribes_waits_and_counts_nothing_twice(case: Callable[..., Case]) -> None:
    this = case(6_000, partitions=2)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    counts = totals(this)
    scope = ("--group", this.group, *EXECUTE)
    done = manage_json(this.env, "retire_partitions", "--topic", this.topic, *scope)
    more = this.folder / "more.csv"
    manage_json(
        *(this.env, "produce_events", "--count", "1000", "--topic", this.topic, "--seed", "9", "--truth", str(more)),
    )

    caught_up = manage(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert caught_up.returncode == 1
    assert f"{this.topic}-0 is retired." in caught_up.stderr
    assert all_retired(this)
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        says = f"{this.topic}-0, {this.topic}-1 are retired (action"
        running = Worker.objects.filter(group_id=this.group, process_id=worker.pid)
        wait_for("the worker says so", lambda: running.filter(last_error__contains=says).exists())
        assert totals(this) == counts

        manage_json(this.env, "retire_partitions", "--undo", done["change_id"], *scope)
        wanted = counts_of(this.truth) + counts_of(more)
        wait_for("it goes on where it stood", lambda: totals(this) == wanted)
        wait_for("the trouble is over", lambda: running.filter(last_error="").exists())
    verified = manage_json(this.env, "verify_offsets", "--group", this.group)
    assert verified["ok"], verified


def test_a_deleted_topic_keeps_its_counts_and_its_invariants(case: Callable[..., Case]) -> None:
    this = case(3_000, partitions=2)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    counts, admin = totals(this), KafkaAdmin()
    kafka = AdminClient({"bootstrap.servers": this.env["KAFKA_BOOTSTRAP_SERVERS"]})
    kafka.delete_topics([this.topic])[this.topic].result(10)
    wait_for("the topic is gone", lambda: not admin.describe_topics([this.topic]))

    manage_json(this.env, "retire_partitions", "--topic", this.topic, "--group", this.group, *EXECUTE)

    assert all_retired(this)
    assert totals(this) == counts
    assert invariants.check(this.group).ok
    assert manage_json(this.env, "run_recovery_manager", "--group", this.group, "--once")["statuses"] == {}
