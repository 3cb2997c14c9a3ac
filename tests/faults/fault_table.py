"""The fault table: each fault on the real stack, with when it was seen, when it was well, and what it cost.

A scene has a topic of its own, two workers, a recovery manager, and a producer that goes on all the time.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import NewPartitions
from django.db import connection

from offsets.kafka.admin import KafkaAdmin
from offsets.models import DeadLetter, Incident, LedgerRange, Replay, Worker
from offsets.types import TopicPartition
from tests.faults.scene import DEADLINE, FIRST, MORE, PARTITIONS, Row, Scene
from tests.support.cut_proxy import CutProxy
from tests.support.processes import manage_json, resume, stopped, wait_for

# --- A small TCP proxy ----------------------------------------------------------------------------


# --- The rows -------------------------------------------------------------------------------------


def worker_killed(scene: Scene) -> Row:
    scene.play()
    victim = scene.worker_of(scene.workers[0])
    since = scene.now()
    os.kill(victim.process_id, signal.SIGKILL)
    return scene.row("worker SIGKILL", since, scene.incident("worker_dead", victim.pk))


def worker_stopped(scene: Scene) -> Row:
    token = scene.folder / "stop"
    scene.worker(FAILPOINTS=f"before_commit=stop@{token}")
    scene.play(workers=1)
    victim = scene.worker_of(scene.workers[0])
    since = scene.now()
    token.touch()
    wait_for("it stops in its transaction", lambda: stopped(victim.process_id))
    incident = scene.closed(scene.incident("worker_dead", victim.pk))
    resume(victim.process_id)
    wait_for("its late commit is refused", lambda: scene.worker_of(scene.workers[0]).fenced_commits)
    return scene.row("worker SIGSTOP, in its transaction", since, incident, "its late commit was refused")


def handler_stuck(scene: Scene) -> Row:
    token = scene.folder / "stuck"
    scene.play(BATCH_HANDLER="tests.support.handlers.StuckOnce", STUCK_TOKEN=str(token))
    since = scene.now()
    token.touch()
    incident = scene.incident("worker_stuck")
    assert "time.sleep(3600)" in incident.evidence, "the stack trace says where it stands"
    return scene.row("handler stuck", since, incident, f"stuck after {scene.env['WORKER_STUCK_SECONDS']} s; evicted")


def record_fails(scene: Scene) -> Row:
    """The database refuses every batch that counts one record, until the replay has halved down to it."""
    at = FIRST // PARTITIONS + 1500
    bad = {"BATCH_HANDLER": "tests.support.handlers.RefusedByDatabase", "FAIL_AT": f"1:{at}"}
    scene.env |= bad
    since = scene.now()
    scene.play()
    incident = scene.incident("failed_ranges")
    since = max(since, incident.began_at)
    scene.closed(incident)
    letter = DeadLetter.objects.get(checkpoint__in=scene.rows(), error_code="refused_by_database")
    assert letter.offset == at
    scene.env["FAIL_AT"] = ""
    scene.finish()
    more = ("--group", scene.group, "--id", str(letter.pk), "--requeue", "--execute", "--reason", "mended")
    assert manage_json(scene.env, "dead_letters", *more)["changed"] == 1
    return scene.row("handler failing on one record", since, incident, "bisected by the replay; requeued")


def poison(scene: Scene) -> Row:
    since = scene.now()
    scene.play(poison=0.05)
    row = scene.row("5 % poison", since, None)
    letters = DeadLetter.objects.filter(checkpoint__in=scene.rows()).count()
    assert 0.04 * MORE < letters < 0.06 * MORE
    return Row(row.fault, None, None, row.lost, row.duplicated, f"{letters:,} dead letters, nothing paused")


def postgres_restarted(scene: Scene) -> Row:
    scene.play()
    since = scene.now()
    connection.close()
    scene.stack.restart_service("postgres", immediate=True)
    return scene.row("PostgreSQL restart (immediate)", since, scene.incident("database_unavailable"))


def commit_cut(scene: Scene) -> Row:
    base = scene.env["DATABASE_URL"]
    place = base.rpartition("@")[2].partition("/")[0]
    host, _, port = place.rpartition(":")
    proxy = CutProxy(host, int(port))
    try:
        scene.play(DATABASE_URL=base.replace(place, f"127.0.0.1:{proxy.port}"))
        since = scene.now()
        for when in ("before", "after") * 5:
            proxy.arm(when)
            wait_for("a COMMIT is cut", lambda: not proxy.armed or scene.keep_going())
        outputs = "".join(worker.output() for worker in scene.workers)
        assert "Nothing is lost; it is tried again." in outputs
        row = scene.row("connection cut around COMMIT", since, None, f"{proxy.cuts} cuts, by the worker within a retry")
        assert "had been applied; nothing is written twice" in "".join(w.output() for w in scene.workers)
        return row
    finally:
        proxy.close()


def broker_killed(scene: Scene) -> Row:
    scene.play()
    # What is produced meanwhile would be lost by the producer, not by us: the stream ends first.
    for producer in scene._producers:
        producer.process.wait(DEADLINE)
    scene.produce(MORE // 4).process.wait(DEADLINE)
    since = scene.now()
    scene.stack.kill_service("kafka")
    incident = scene.incident("kafka_unavailable")
    scene.stack.start_service("kafka")
    return scene.row("broker killed and restarted", since, incident, "recovery from when it is started again")


def valkey_stopped(scene: Scene) -> Row:
    scene.play()
    since = scene.now()
    before = scene.counted()
    scene.stack.stop_service("valkey")
    try:
        incident = scene.incident("redis_unavailable")
        wait_for("events are counted without it", lambda: scene.counted() > before + 5_000, DEADLINE)
        seconds = float(os.environ.get("VALKEY_AWAY_SECONDS", "5"))
        until = time.monotonic() + seconds
        wait_for("it was away long enough", lambda: time.monotonic() > until, seconds + 10)
    finally:
        scene.stack.start_service("valkey")
    return scene.row("Valkey stopped", since, incident, f"for {seconds:.0f} s; counting went on")


def partitions_added(scene: Scene) -> Row:
    scene.play()
    since = scene.now()
    scene.kafka.create_partitions([NewPartitions(scene.topic, PARTITIONS + 2)])[scene.topic].result(10)
    wait_for("all are claimed", lambda: scene.rows().exclude(owner=None).count() == PARTITIONS + 2, DEADLINE)
    scene.produce(2_000).process.wait(DEADLINE)
    # Workers that look just before the manager does have claimed them before anything was wrong.
    incident = Incident.objects.filter(group_id=scene.group, kind="partition_new").order_by("pk").first()
    row = scene.row("partitions added", since, incident)
    if incident is not None:
        return row
    claimed = max(scene.rows().filter(partition__gte=PARTITIONS).values_list("created_at", flat=True))
    return replace(row, detect_seconds=(claimed - since).total_seconds(), recover_seconds=0.0, note="claimed at once")


def records_deleted(scene: Scene) -> Row:
    """Retention overtakes a paused partition: what was lost is known to the offset."""
    scene.play()
    row = scene.rows().get(partition=2)
    arguments = ("--group", scene.group, "--topic", f"{scene.topic}:2", "--execute", "--reason", "a test")
    manage_json(scene.env, "pause_partitions", *arguments)
    scene.produce(2_000)  # what the stream still brings may be too little to overtake
    for producer in scene._producers:
        producer.process.wait(DEADLINE)
    row.refresh_from_db()
    tp = TopicPartition(scene.topic, 2)
    end = KafkaAdmin().log_bounds([tp])[tp].end
    wait_for("it is at rest", lambda: not Worker.objects.filter(group_id=scene.group, batch_in_hand__gt=0).exists())
    row.refresh_from_db()
    target = (row.next_offset + end) // 2
    since = scene.now()
    deleted = scene.kafka.delete_records([KafkaTopicPartition(scene.topic, 2, target)])
    next(iter(deleted.values())).result(10)
    manage_json(scene.env, "resume_partitions", *arguments)
    incident = scene.incident("halted_expired")
    assert incident.ranges == [
        {"topic": scene.topic, "partition": 2, "kind": "expired", "start": row.next_offset, "end": target}
    ]
    manage_json(scene.env, "accept_loss", *arguments)
    lost = target - row.next_offset
    result = scene.row("records deleted below the next offset", since, incident, "accepted", allowed=lost)
    expired = LedgerRange.objects.get(checkpoint=row, kind="expired")
    assert (expired.offsets.lower, expired.offsets.upper) == (row.next_offset, target)
    return result


def topic_recreated(scene: Scene) -> Row:
    scene.play()
    scene.finish()
    since = scene.now()
    admin = KafkaAdmin()
    scene.kafka.delete_topics([scene.topic])[scene.topic].result(10)
    wait_for("it is gone", lambda: not admin.describe_topics([scene.topic]))
    scene.produce(3_000, creates=True).process.wait(DEADLINE)
    incident = scene.incident("halted_recreated")
    wait_for("all of them halt", lambda: not scene.rows().filter(halt_reason="").exists(), DEADLINE)
    begin = ("--group", scene.group, "--all", "--keep-counts", "--execute", "--reason", "a test")
    manage_json(scene.env, "rebuild_partition", *begin)
    return scene.row("topic recreated", since, incident, "begun again beside its counts")


def manager_killed(scene: Scene) -> Row:
    scene.play()
    scene.manager()
    since = scene.now()
    scene.managers[0].kill()
    incident = scene.incident("manager_lost")
    return scene.row("manager leader killed", since, incident, "a standby leads")


def replay_killed(scene: Scene) -> Row:
    """A skipped stretch is replayed; the process dies at the half."""
    scene.play()
    scene.finish()
    for worker in scene.workers:
        worker.end()
    scene.produce(60_000).process.wait(DEADLINE)
    arguments = ("--group", scene.group, "--all", "--execute", "--reason", "a test")
    manage_json(scene.env, "reset_offsets", *arguments, "--to-latest")
    token = scene.folder / "kill"
    token.touch()
    env = {**scene.env, "FAILPOINTS": f"replay_chunk=kill#7@{token}"}
    since = scene.now()
    replay = scene._start(env, "replay", "replay_offsets", *arguments, "--status", "skipped")
    assert replay.process.wait(DEADLINE) == -signal.SIGKILL, replay.output()
    row = Replay.objects.get(group_id=scene.group)
    killed_at, since = row.done_offsets, scene.now()
    assert 0 < killed_at < row.total_offsets
    incident = scene.incident("replay_orphaned")
    for _ in range(2):
        scene.worker()
    wait_for("the replay is done", lambda: Replay.objects.get(pk=row.pk).status == "done", DEADLINE)
    share = killed_at / row.total_offsets
    return scene.row(f"replay worker killed at {share:.0%}", since, incident, "goes on where it was")


ROWS: Sequence[Callable[[Scene], Row]] = (
    worker_killed,
    worker_stopped,
    handler_stuck,
    record_fails,
    poison,
    postgres_restarted,
    commit_cut,
    broker_killed,
    valkey_stopped,
    partitions_added,
    records_deleted,
    topic_recreated,
    manager_killed,
    replay_killed,
)
