"""One fault on a stack of its own: workers, events, and when it was detected and recovered."""

import csv
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka.admin import AdminClient
from django.db import InterfaceError, OperationalError, connection

from offsets.kafka.admin import KafkaAdmin
from offsets.models import Incident, LedgerRange, PartitionCheckpoint, Worker
from offsets.types import TopicPartition
from streamsocial.stack.supervisor import Stack
from tests.support.processes import Background, background, manage_json, wait_for

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
