"""`python -m benchmarks.caught_up`: what one worker that keeps up costs, by its number of partitions, as JSON.

The same rate of events goes into a topic of 6 partitions and into one of 100, one after the other in one run.
`cpu_seconds_per_second` is the worker process alone, all of its threads. Machines are noisy: compare the ratio of the
CPU seconds per 1,000 events counted. It starts the embedded stack if needed, and stops it afterwards.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg

from benchmarks.end_to_end import run
from streamsocial.environment import BASE_DIR, stack_dir
from streamsocial.stack import Stack

START_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="Events per second.")
    parser.add_argument("--partitions", type=int, nargs="+", default=[6, 100])
    parser.add_argument("--warm-up-seconds", type=float, default=8.0, help="Not measured: the start and the claims.")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    stack = Stack(stack_dir(), environ=os.environ)
    started = stack.up().started
    try:
        print(json.dumps(compare(stack, arguments), indent=2))
    finally:
        if started:
            stack.down(only=started)


def compare(stack: Stack, arguments: argparse.Namespace) -> dict[str, Any]:
    env = {**os.environ, **stack.plan(), "DJANGO_SETTINGS_MODULE": "streamsocial.settings", "LOG_LEVEL": "WARNING"}
    run(env, "manage.py", "migrate", "--verbosity", "0")
    figures = [
        measure(env, partitions, arguments.rate, arguments.warm_up_seconds, arguments.seconds)
        for partitions in arguments.partitions
    ]
    first, last = figures[0], figures[-1]
    return {
        "rate": arguments.rate,
        "workers": figures,
        "ratio": round(last["cpu_seconds_per_1000_events"] / first["cpu_seconds_per_1000_events"], 2),
    }


def measure(env: dict[str, str], partitions: int, rate: int, warm_up: float, seconds: float) -> dict[str, Any]:
    """The cost of one worker in a window of `seconds`, while the events come at `rate`."""
    topic = f"caught-up-{partitions}-{uuid.uuid4().hex[:8]}"
    count = round(rate * (START_SECONDS + warm_up + seconds))
    produce = ["produce_events", "--topic", topic, "--partitions", str(partitions), "--rate", str(rate)]
    with (
        psycopg.connect(env["DATABASE_URL"], autocommit=True) as database,
        _running(env, *produce, "--count", str(count), "--json"),
        _worker_of(env, topic, database) as worker,
    ):
        time.sleep(warm_up)
        process = psutil.Process(worker.pid)
        started, cpu, counted = time.monotonic(), _cpu_seconds(process), _counted(database, topic)
        time.sleep(seconds)
        elapsed = time.monotonic() - started
        cpu, counted = _cpu_seconds(process) - cpu, _counted(database, topic) - counted
    if counted <= 0:
        raise SystemExit(f"The worker on {partitions} partitions counted nothing in {elapsed:.0f} s.")
    figures = {
        "partitions": partitions,
        "cpu_seconds_per_second": round(cpu / elapsed, 3),
        "events_per_second": round(counted / elapsed),
        "cpu_seconds_per_1000_events": round(1000 * cpu / counted, 4),
    }
    print(json.dumps(figures), file=sys.stderr)
    return figures


@contextmanager
def _worker_of(env: dict[str, str], topic: str, database: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker that has counted its first events."""
    deadline = time.monotonic() + START_SECONDS
    # The producer creates the topic.
    run(env, "-c", "import django; django.setup()\n" + _WAIT_FOR_TOPIC, topic)
    with _running(env, "run_consumer", "--topic", topic, "--group", topic, "--json") as worker:
        while not _counted(database, topic):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The worker of {topic} did not begin to count.")
            time.sleep(0.1)
        yield worker


_WAIT_FOR_TOPIC = """
import sys, time
from offsets.kafka.admin import KafkaAdmin
admin = KafkaAdmin()
while not admin.describe_topics([sys.argv[1]]):
    time.sleep(0.1)
"""


def _counted(database: Any, group: str) -> int:
    row = database.execute(
        "SELECT sum(next_offset - baseline_offset) FROM offsets_partitioncheckpoint WHERE group_id = %s", [group]
    ).fetchone()
    return int(row[0] or 0)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _running(env: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of `manage.py`, ended with SIGTERM."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "manage.py", *arguments],
        env=env,
        cwd=BASE_DIR,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()


if __name__ == "__main__":
    main()
