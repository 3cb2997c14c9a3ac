"""`make bench`: one worker over a backlog, compared with the raw consume rate of the same topic, in one run.

Machines are noisy: compare the ratio. It starts the embedded stack if needed, and stops it afterwards.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import uuid
from typing import Any

from streamsocial.environment import BASE_DIR, stack_dir
from streamsocial.stack import Stack

RAW = """
import json, sys, time, uuid, django; django.setup()
from confluent_kafka import Consumer
from offsets.kafka.config import consumer_config
topic, count = sys.argv[1], int(sys.argv[2])
consumer = Consumer(consumer_config(f"raw-{uuid.uuid4().hex[:8]}", "raw") | {"auto.offset.reset": "earliest"})
consumer.subscribe([topic])
seen, started = 0, None
while seen < count:
    batch = consumer.consume(10_000, 1.0)
    if batch and started is None:
        started = time.monotonic()
    seen += len(batch)
print(json.dumps(seen / (time.monotonic() - started)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    stack = Stack(stack_dir(), environ=os.environ)
    started = stack.up().started
    try:
        print(json.dumps(measure(stack, arguments.events, arguments.runs), indent=2))
    finally:
        if started:
            stack.down(only=started)


def measure(stack: Stack, events: int, runs: int) -> dict[str, Any]:
    env = {**os.environ, **stack.plan(), "DJANGO_SETTINGS_MODULE": "streamsocial.settings", "LOG_LEVEL": "WARNING"}
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    run(env, "manage.py", "migrate", "--verbosity", "0")
    # The defaults of produce_events: 100 k contents, 1 M users; both dimensions are kept.
    run(env, "manage.py", "produce_events", "--count", str(events), "--topic", topic, "--json")
    raw, counted = [], []
    for number in range(runs):
        raw.append(json.loads(run(env, "-c", RAW, topic, str(events))))
        summary = json.loads(
            run(
                env,
                "manage.py",
                "run_consumer",
                "--topic",
                topic,
                "--group",
                f"{topic}-{number}",
                "--exit-when-caught-up",
                "--json",
            )
        )
        assert summary["events"] == events, summary
        counted.append(summary["events_per_second"])
        print(f"run {number + 1}: {counted[-1]:,.0f} events/s of {raw[-1]:,.0f} raw", file=sys.stderr)
    ratio = statistics.median(worker / client for worker, client in zip(counted, raw, strict=True))
    return {
        "events": events,
        "events_per_second": statistics.median(counted),
        "raw_records_per_second": round(statistics.median(raw)),
        "ratio": round(ratio, 3),
    }


def run(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], env=env, cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments} exited with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
