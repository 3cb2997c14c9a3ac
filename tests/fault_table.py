"""The fault table: each fault on the real stack, with when it was seen, when it was well, and what it cost.

A scene has a topic of its own, two workers, a recovery manager, and a producer that goes on all the time.
"""

import csv
import os
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from django.db import InterfaceError, OperationalError, connection

from offsets.kafka.admin import KafkaAdmin
from offsets.models import DeadLetter, Incident, LedgerRange, PartitionCheckpoint, Replay, Worker
from offsets.types import TopicPartition
from streamsocial.stack import Stack
from tests.harness import Background, background, manage_json, resume, stopped, wait_for

T = TypeVar("T")

PARTITIONS = 4
FIRST = 2_000
RATE = 2_000
#: Produced while the fault happens; `make fault-table` has more of it.
MORE = RATE * int(os.environ.get("FAULT_SECONDS", "6"))
HEARTBEAT_TIMEOUT_SECONDS = 3
DEADLINE = 90.0


@dataclass(frozen=True)
class Row:
    """One line of the table. Seconds from the fault to its incident, and from that to when it was closed."""

    fault: str
    detect_seconds: float | None
    recover_seconds: float | None
    lost: int
    duplicated: int
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        detect = "–" if self.detect_seconds is None else f"{self.detect_seconds:.1f} s"
        recover = "–" if self.recover_seconds is None else f"{self.recover_seconds:.1f} s"
        return f"{self.fault:<44} {detect:>8} {recover:>9} {self.lost:>7,} {self.duplicated:>7,}  {self.note}"


HEAD = f"{'Fault':<44} {'Detect':>8} {'Recover':>9} {'Lost':>7} {'Twice':>7}"


class Scene:
    """Everything of one row. `now()` and the incidents' times are of one machine's clock."""

    def __init__(self, services: Mapping[str, str], folder: Path, stack: Stack, seed: int) -> None:
        name = f"row-{uuid.uuid4().hex[:8]}"
        self.group = self.topic = name
        self.folder = folder
        self.stack = stack
        self.seed = seed
        self.env = {
            **services,
            "ENGAGEMENT_TOPIC": name,
            "ENGAGEMENT_GROUP": name,
            "HEARTBEAT_TIMEOUT_SECONDS": str(HEARTBEAT_TIMEOUT_SECONDS),
            "HEARTBEAT_INTERVAL_MS": "300",
            "SESSION_TIMEOUT_MS": "3000",
            "COMMIT_INTERVAL_MS": "50",
            "COMMIT_MAX_RECORDS": "1000",
            "WORKER_STUCK_SECONDS": "3",
        }
        self.truths: list[Path] = []
        self.workers: list[Background] = []
        self.managers: list[Background] = []
        #: For what only a test does to a topic; kept, or its answers would go with it.
        self.kafka = AdminClient({"bootstrap.servers": services["KAFKA_BOOTSTRAP_SERVERS"]})
        self._exits = ExitStack()
        self._producers: list[Background] = []

    def __enter__(self) -> "Scene":
        self.produce(FIRST, creates=True).process.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    # --- Actors --------------------------------------------------------------------------------

    def _start(self, env: Mapping[str, str], name: str, *arguments: str) -> Background:
        return self._exits.enter_context(background(env, self.folder / f"{name}.log", *arguments))

    def produce(self, count: int, rate: int = 0, poison: float = 0.0, *, creates: bool = False) -> Background:
        truth = self.folder / f"truth-{len(self.truths)}.csv"
        self.truths.append(truth)
        arguments = ["--count", str(count), "--topic", self.topic]
        arguments += ["--partitions", str(PARTITIONS)] if creates else []
        arguments += ["--seed", str(self.seed + len(self.truths)), "--poison", str(poison), "--truth", str(truth)]
        arguments += ["--contents", "500", "--users", "1000", *(["--rate", str(rate)] if rate else [])]
        running = self._start(self.env, f"producer-{len(self.truths)}", "produce_events", *arguments)
        self._producers.append(running)
        return running

    def keep_going(self) -> bool:
        """Produce more if nobody does; always False, for a wait that needs it."""
        if all(producer.process.poll() is not None for producer in self._producers):
            self.produce(RATE, RATE)
        return False

    def worker(self, **env: str) -> Background:
        command = ("run_consumer", "--topic", self.topic, "--group", self.group)
        running = self._start({**self.env, **env}, f"worker-{len(self.workers)}", *command)
        self.workers.append(running)
        return running

    def manager(self) -> Background:
        command = ("run_recovery_manager", "--group", self.group, "--run-replays")
        running = self._start(self.env, f"manager-{len(self.managers)}", *command)
        self.managers.append(running)
        return running

    def play(self, workers: int = 2, poison: float = 0.0, **env: str) -> None:
        """Workers, a manager and a stream of events; returns when all of them are at work."""
        for _ in range(workers):
            self.worker(**env)
        self.manager()
        count = len(self.workers)
        wait_for(f"{count} workers own partitions", lambda: len(self.owners()) == count, DEADLINE)
        self.produce(MORE, RATE, poison)
        before = self.counted()
        wait_for("events are counted", lambda: self.counted() > before + 1000, DEADLINE)
        wait_for("the manager watches", lambda: self.rows().filter(health__isnull=False).count() == PARTITIONS)

    # --- What is seen --------------------------------------------------------------------------

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)

    def rows(self) -> Any:
        return PartitionCheckpoint.objects.filter(group_id=self.group, retired_at__isnull=True)

    def owners(self) -> set[str]:
        return set(self.rows().exclude(owner=None).values_list("owner_id", flat=True))

    def counted(self) -> int:
        return sum(self.rows().values_list("next_offset", flat=True))

    def worker_of(self, process: Background) -> Worker:
        return Worker.objects.get(group_id=self.group, process_id=process.pid)

    def incident(self, kind: str, subject: str = "", seconds: float = DEADLINE) -> Incident:
        """Of this kind, as soon as there is one."""

        def look() -> Incident | None:
            rows = Incident.objects.filter(group_id=self.group, kind=kind)
            return (rows.filter(subject=subject) if subject else rows).order_by("pk").first()

        found = wait_for(f"an incident {kind}", lambda: unless_lost(look, None), seconds)
        assert found is not None
        return found

    def closed(self, incident: Incident, seconds: float = DEADLINE) -> Incident:
        """The same, once it is well."""

        def look() -> bool:
            incident.refresh_from_db()
            return incident.closed_at is not None

        wait_for(f"{incident} is closed ({incident.summary})", look, seconds)
        return incident

    # --- The end -------------------------------------------------------------------------------

    def row(self, fault: str, since: datetime, incident: Incident | None, note: str = "", *, allowed: int = 0) -> Row:
        """Let everything be counted, hold it against the truth. `allowed` events may be lost, as the ledger says."""
        detect = recover = None
        if incident is not None:
            incident = self.closed(incident)
            assert incident.closed_at is not None
            detect = max(0.0, (incident.opened_at - since).total_seconds())
            recover = (incident.closed_at - incident.opened_at).total_seconds()
        self.finish()
        lost, duplicated = self.differences()
        assert lost == allowed, f"{lost} events lost, {allowed} allowed"
        assert duplicated == 0
        return Row(fault, detect, recover, lost, duplicated, note)

    def finish(self) -> None:
        for producer in self._producers:
            assert producer.process.wait(DEADLINE) == 0, producer.output()
        admin = KafkaAdmin()

        def lag() -> int:
            bounds = admin.log_bounds(TopicPartition(row.topic, row.partition) for row in self.rows())
            nexts = {TopicPartition(row.topic, row.partition): row.next_offset for row in self.rows()}
            # A partition without a leader yet, after a restart, is not told of.
            return sum(bounds[tp].end - offset if tp in bounds else 1 for tp, offset in nexts.items())

        wait_for("everything is read", lambda: lag() == 0, DEADLINE)
        failed = LedgerRange.objects.filter(checkpoint__in=self.rows(), kind="failed")
        wait_for("what failed is replayed", lambda: not failed.exists(), DEADLINE)
        verified = manage_json(self.env, "verify_offsets", "--group", self.group)
        assert verified["ok"], verified

    def differences(self) -> tuple[int, int]:
        """Events that the truth has and the export lacks, and those that it has too many of; by content."""
        export = self.folder / "export.csv"
        manage_json(self.env, "engagement_totals", "--group", self.group, "--export", str(export))
        truth: Counter[tuple[str, str, int]] = Counter()
        for path in self.truths:
            truth.update(_counts(path))
        counted = _counts(export)
        return (truth - counted).total(), (counted - truth).total()


def _counts(path: Path) -> Counter[tuple[str, str, int]]:
    """Events by (dimension, id, column), of the dimension content."""
    found: Counter[tuple[str, str, int]] = Counter()
    with path.open(newline="") as lines:
        for row in list(csv.reader(lines))[1:]:
            if row[0] == "content":
                found.update({(row[0], row[1], column): int(value) for column, value in enumerate(row[2:])})
    return +found


def unless_lost(look: Callable[[], T], otherwise: T) -> T:
    """While the database is away there is nothing to see."""
    try:
        return look()
    except (OperationalError, InterfaceError):
        connection.close()
        return otherwise


# --- A small TCP proxy ----------------------------------------------------------------------------


class CutProxy:
    """Passes PostgreSQL's traffic on; armed, it cuts the connection around the next COMMIT of a worker.

    `before` the server hears of it, or after: then the answer is lost, and nobody knows what became of it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._armed: str | None = None
        self.cuts = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: str) -> None:
        with self._lock:
            self._armed = when

    @property
    def armed(self) -> bool:
        with self._lock:
            return self._armed is not None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                swallow = threading.Event()
                threading.Thread(target=self._up, args=(client, server, swallow), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, swallow), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """From the client; a worker's transaction is known by the copy of deltas that it began with."""
        counts = False
        with suppress(OSError):
            while data := client.recv(65536):
                counts = counts or b"COPY analytics_engagementdelta" in data
                when = self._cut_now() if counts and b"COMMIT" in data else None
                if when == "before":
                    break
                if when == "after":
                    swallow.set()
                server.sendall(data)
                if when == "after":
                    return  # it answers, and nobody hears it: the other thread ends both
                if b"COMMIT" in data:
                    counts = False
        _close(client, server)

    def _cut_now(self) -> str | None:
        with self._lock:
            when, self._armed = self._armed, None
            self.cuts += when is not None
            return when

    def _pass(self, source: socket.socket, target: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not swallow.is_set():
                target.sendall(data)
        _close(source, target)

    def close(self) -> None:
        self._listener.close()


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            one.close()


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
    scene.play(BATCH_HANDLER="tests.failing_handlers.StuckOnce", STUCK_TOKEN=str(token))
    since = scene.now()
    token.touch()
    incident = scene.incident("worker_stuck")
    assert "time.sleep(3600)" in incident.evidence, "the stack trace says where it stands"
    return scene.row("handler stuck", since, incident, f"stuck after {scene.env['WORKER_STUCK_SECONDS']} s; evicted")


def record_fails(scene: Scene) -> Row:
    """The database refuses every batch that counts one record, until the replay has halved down to it."""
    at = FIRST // PARTITIONS + 1500
    bad = {"BATCH_HANDLER": "tests.failing_handlers.RefusedByDatabase", "FAIL_AT": f"1:{at}"}
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
