"""`manage.py produce_events`: produce synthetic events, and print or write their true counts."""

import argparse
import itertools
import signal
import threading
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analytics.export import write_counts
from analytics.generator import Chunk, Recipe, Truth, chunks
from offsets.errors import RefusedError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.producer import EventProducer
from offsets.management.base import OperatorCommand, non_negative, positive
from offsets.names import refuse_topic

DEFAULT_PARTITIONS = 6
#: Larger than the application's limit, so that oversized records reach it and become dead letters.
TOPIC_CONFIG = {"max.message.bytes": str(2 * 1024 * 1024)}


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return number


def bounded(maximum: int) -> Any:
    """An argparse type: a whole number from 1 to `maximum`."""

    def number(text: str) -> int:
        value = positive(text)
        if value > maximum:
            raise argparse.ArgumentTypeError(f"must be at most {maximum}")
        return value

    return number


def ensure_topic(topic: str, partitions: int | None) -> None:
    """Create the topic, or check its partitions. Raises RefusedError for an invalid name or another number of them."""
    refuse_topic(topic)
    admin = KafkaAdmin()
    if admin.create_topic(topic, partitions or DEFAULT_PARTITIONS, TOPIC_CONFIG):
        # Creation is asynchronous: a producer that starts too early would not find the topic.
        deadline = time.monotonic() + 10
        while not admin.describe_topics([topic]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return
    existing = len(admin.partitions(topic))
    if partitions is not None and partitions != existing:
        raise RefusedError(
            f"Topic {topic!r} already exists with {existing} partitions, not {partitions}. Omit --partitions."
        )


class Command(OperatorCommand):
    help = "Produce synthetic engagement events and print their true totals. With --count 0: until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--count", type=non_negative, required=True, help="Records to produce; 0: until stopped.")
        parser.add_argument("--rate", type=positive, help="Maximum records per second.")
        parser.add_argument("--seed", type=non_negative, default=1, help="Seed of the random events (default: 1).")
        parser.add_argument("--topic", default=settings.ENGAGEMENT_TOPIC, help="Topic; created if it does not exist.")
        parser.add_argument(
            "--partitions", type=bounded(10_000), help=f"Partitions of a new topic (default: {DEFAULT_PARTITIONS})."
        )
        parser.add_argument("--contents", type=bounded(20_000_000), default=100_000, help="Number of content ids.")
        parser.add_argument("--users", type=bounded(200_000_000), default=1_000_000, help="Number of user ids.")
        parser.add_argument("--poison", type=fraction, default=0.0, help="Share of invalid records, from 0 to 1.")
        parser.add_argument(
            "--truth", type=Path, help="Write the true counts to this file, as engagement_totals --export does."
        )

    def run(self, **options: Any) -> None:
        truth_file: Path | None = options["truth"]
        if truth_file is not None and not truth_file.resolve().parent.is_dir():
            raise RefusedError(f"--truth: folder {truth_file.parent} does not exist.")
        ensure_topic(options["topic"], options["partitions"])
        recipe = Recipe(options["seed"], options["contents"], options["users"], options["poison"])
        truth = Truth(recipe.contents, recipe.users)
        self._produce(recipe, truth, options)
        if truth_file is not None:
            write_counts(truth_file, truth.rows())
        data = {
            "events": sum(truth.totals().values()),
            "totals": truth.totals(),
            "poison": truth.poison,
            "contents": recipe.contents,
            "users": recipe.users,
            "seed": recipe.seed,
        }
        self.emit(data, lambda console: _show(console, data, options["topic"]), as_json=options["json"])

    def _produce(self, recipe: Recipe, truth: Truth, options: dict[str, Any]) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        count, rate = options["count"] or None, options["rate"]
        producer = EventProducer(options["topic"])
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=options["json"], transient=True) as progress:
            task = progress.add_task(f"Producing into {options['topic']}", total=count)
            started, sent = time.monotonic(), 0
            for chunk in itertools.takewhile(lambda _: not stop.is_set(), chunks(recipe, count)):
                for piece in _paced(chunk, rate, started, stop):
                    producer.send(piece.records(int(time.time() * 1000)))
                    truth.add(piece)
                    sent += len(piece.types)
                    progress.update(task, completed=sent)
            producer.flush()


def _paced(chunk: Chunk, rate: int | None, started: float, stop: threading.Event) -> Any:
    """Split a chunk so that the rate holds within a tenth of a second; without a rate, one piece."""
    if rate is None:
        yield chunk
        return
    size = max(1, min(len(chunk.types), rate // 10))
    for start in range(0, len(chunk.types), size):
        wait = started + (chunk.first + start) / rate - time.monotonic()
        if stop.wait(max(0.0, wait)):
            return
        yield chunk.cut(start, start + size)


def _show(console: Console, data: dict[str, Any], topic: str) -> None:
    totals = ", ".join(f"{count:,} {name}s" for name, count in data["totals"].items())
    console.print(f"{data['events']:,} events into {topic}: {totals}; {data['poison']:,} poisoned records.")
