"""A rebalance storm: workers join and leave all the time while events arrive, and everything is measured."""

import os
import random
import signal
import statistics
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.models import Sum

from offsets.kafka.admin import KafkaAdmin
from offsets.models import PartitionCheckpoint, Worker
from offsets.types import TopicPartition
from tests.support.processes import Background, assert_exactly_once, background, manage_json, resume, stopped, wait_for

PARTITIONS = 12
WORKERS = 3
RATE = 3000
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Storm:
    """What a storm was, and how long partitions stood still: unread records, and no next offset that moved."""

    protocol: str
    seconds: float
    leaves: dict[str, int]
    epochs: int
    refused_commits: int
    events: int
    #: Stretches without progress, of one partition each, in seconds.
    median_still_seconds: float
    p95_still_seconds: float
    longest_still_seconds: float
    #: Of all partitions' time.
    share_still: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        left = ", ".join(f"{count} {name}" for name, count in sorted(self.leaves.items()))
        return (
            f"{self.protocol}: {self.seconds:.0f} s, {self.events:,} events, left by {left}; {self.epochs} claims, "
            f"{self.refused_commits} refused commits; stood still: median {self.median_still_seconds:.1f} s, p95 "
            f"{self.p95_still_seconds:.1f} s, longest {self.longest_still_seconds:.1f} s, "
            f"{self.share_still:.0%} of the time"
        )


class Stillness(threading.Thread):
    """Looks at all partitions a few times a second."""

    def __init__(self, group: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._group = group
        self._places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._ended = threading.Event()
        self.stretches: list[float] = []
        self.still = self.total = 0.0

    def run(self) -> None:
        admin = KafkaAdmin()
        since: dict[int, float] = {}
        before: dict[int, int] = {}
        last = time.monotonic()
        try:
            while not self._ended.wait(LOOK_SECONDS):
                ends = admin.log_bounds(self._places)
                rows = PartitionCheckpoint.objects.filter(group_id=self._group, retired_at__isnull=True)
                places = dict(rows.values_list("partition", "next_offset"))
                now = time.monotonic()
                for tp, bounds in ends.items():
                    self._look(tp.partition, places.get(tp.partition, 0), bounds.end, before, since, last, now)
                last = now
        finally:
            connection.close()

    def _look(
        self, number: int, at: int, end: int, before: dict[int, int], since: dict[int, float], last: float, now: float
    ) -> None:
        self.total += now - last
        if at >= end or at != before.get(number, -1):
            started = since.pop(number, None)
            if started is not None:
                self.stretches.append(now - started)
        else:
            since.setdefault(number, last)
            self.still += now - last
        before[number] = at

    def end(self) -> None:
        self._ended.set()
        self.join(30)


def run_storm(services: Mapping[str, str], folder: Path, protocol: str, *, seconds: float, seed: int) -> Storm:
    """Blow for `seconds`, let one worker finish, and hold the counts against the truth."""
    name = f"storm-{uuid.uuid4().hex[:8]}"
    env = {
        **services,
        "ENGAGEMENT_TOPIC": name,
        "ENGAGEMENT_GROUP": name,
        "GROUP_PROTOCOL": protocol,
        "COMMIT_INTERVAL_MS": "100",
        "SESSION_TIMEOUT_MS": "3000",
        "HEARTBEAT_TIMEOUT_SECONDS": "3",
        "HEARTBEAT_INTERVAL_MS": "300",
    }
    truth = folder / f"{name}.csv"
    events = int(RATE * seconds)
    KafkaAdmin().create_topic(name, PARTITIONS)
    wait_for("the topic", lambda: KafkaAdmin().describe_topics([name]))
    produce = ("--count", str(events), "--rate", str(RATE), "--topic", name, "--seed", str(seed), "--truth", str(truth))
    stillness = Stillness(name, name)
    with background(env, folder / f"{name}-producer.log", "produce_events", *produce) as producer:
        leaves = _blow(env, folder, name, seconds, random.Random(seed), stillness)
        assert producer.process.wait(240) == 0, producer.output()
    manage_json(env, "run_consumer", "--exit-when-caught-up", seconds=240)
    assert_exactly_once(env, name, name, truth, folder)
    rows = PartitionCheckpoint.objects.filter(group_id=name)
    stretches = sorted(stillness.stretches) or [0.0]
    return Storm(
        protocol,
        seconds,
        dict(leaves),
        epochs=rows.aggregate(Sum("epoch"))["epoch__sum"],
        refused_commits=Worker.objects.filter(group_id=name).aggregate(Sum("fenced_commits"))["fenced_commits__sum"],
        events=events,
        median_still_seconds=statistics.median(stretches),
        p95_still_seconds=stretches[int(len(stretches) * 0.95)],
        longest_still_seconds=stretches[-1],
        share_still=stillness.still / max(stillness.total, 0.001),
    )


def _blow(
    env: Mapping[str, str], folder: Path, name: str, seconds: float, draw: random.Random, stillness: Stillness
) -> Counter[str]:
    """Keep three workers, of which one after another leaves in some way; returns how they left."""
    leaves: Counter[str] = Counter()
    started: list[Background] = []
    frozen: list[Background] = []

    def start() -> Background:
        worker = Background.manage(["run_consumer"], env, folder / f"{name}-{len(started)}.log")
        started.append(worker)
        return worker

    try:
        workers = [start() for _ in range(WORKERS)]
        wait_for("the first claim", lambda: PartitionCheckpoint.objects.filter(group_id=name, epoch__gt=0).exists())
        stillness.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            place = draw.randrange(WORKERS)
            how = draw.choice(["SIGTERM", "SIGKILL", "SIGSTOP"])
            leaves[how] += 1
            os.kill(workers[place].pid, getattr(signal, how))
            if how == "SIGSTOP":
                _wait_until_frozen(workers[place])
                frozen.append(workers[place])
            workers[place] = start()
            # What the others do meanwhile is the point: the next one leaves when some have gone on, or soon anyway.
            _let_pass(draw.uniform(1.0, 4.0), deadline)
            while len(frozen) > 1:
                resume(frozen.pop(0).pid)
        stillness.end()
        for zombie in frozen:
            resume(zombie.pid)
        for worker in started:
            worker.end(60)
        return leaves
    finally:
        for worker in started:
            worker.kill()


def _wait_until_frozen(worker: Background) -> None:
    wait_for("it to stand still", lambda: stopped(worker.pid) or worker.process.poll() is not None)


def _let_pass(seconds: float, deadline: float) -> None:
    """Weather takes its time; nothing is synchronised by this."""
    threading.Event().wait(max(0.0, min(seconds, deadline - time.monotonic())))
