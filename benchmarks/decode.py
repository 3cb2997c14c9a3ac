"""`python -m benchmarks.decode`: decoding and counting of one partition's batches, without services, as JSON.

*batch* is the decoder for batches of valid records; *one_by_one* is the reference, the fallback for a batch with an
invalid record; *mixed* has one invalid record in `--poison-every`; *raw* only joins the values. Rates are events per
second on one thread of Python (polars uses POLARS_MAX_THREADS). Machines are noisy: compare the ratios.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from analytics.aggregation import DecodingOptions, combine, decode
from analytics.events import decode_columns, decode_record
from analytics.generator import Recipe, chunks
from offsets.types import Claim, RecordBatch

NOW = 1_700_000_000_000
OPTIONS = DecodingOptions(max_bytes=1024 * 1024, time_tolerance_seconds=7 * 24 * 3600)
CLAIM = Claim(1, "bench", 0, 1, 0, ("content", "user"))


class Record:
    """A consumed message, as handlers use it. A Python object: slower to read than the client's own."""

    __slots__ = ("_offset", "_value")

    def __init__(self, offset: int, value: bytes | None) -> None:
        self._offset, self._value = offset, value

    def __len__(self) -> int:
        return len(self._value or b"")

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return None

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, NOW)

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def leader_epoch(self) -> int | None:
        return 0


def batches_of(values: Sequence[bytes | None], size: int) -> list[RecordBatch]:
    batches = []
    for start in range(0, len(values), size):
        records = [Record(start + index, value) for index, value in enumerate(values[start : start + size])]
        batches.append(RecordBatch(CLAIM, start, start + len(records), records, sum(map(len, records))))
    return batches


def rate(events: int, runs: int, work: Callable[[], object]) -> int:
    """The median of `runs` runs, after a warm-up run."""
    work()
    seconds = []
    for _ in range(runs):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return round(events / statistics.median(seconds))


def measure(events: int, size: int, runs: int, poison_every: int) -> dict[str, Any]:
    values = [value for chunk in chunks(Recipe(1), events) for _, value in chunk.records(NOW)]
    spoilt = [b"not json" if index % poison_every == 0 else value for index, value in enumerate(values)]
    cuts = [values[start : start + size] for start in range(0, events, size)]
    sound, mixed = batches_of(values, size), batches_of(spoilt, size)
    assert all(decode_columns(cut, OPTIONS.max_bytes) is not None for cut in cuts), "valid batches were declined"
    rates = {
        "raw": rate(events, runs, lambda: [b"\n".join(cut) for cut in cuts]),  # type: ignore[arg-type]
        "batch": rate(events, runs, lambda: [decode_columns(cut, OPTIONS.max_bytes) for cut in cuts]),
        "one_by_one": rate(events, runs, lambda: [decode_record(value, OPTIONS.max_bytes) for value in values]),
        "decode_and_combine": rate(events, runs, lambda: combine([decode(batch, OPTIONS) for batch in sound])),
        "mixed_decode_and_combine": rate(events, runs, lambda: combine([decode(batch, OPTIONS) for batch in mixed])),
    }
    return {
        "events": events,
        "batch_records": size,
        "poison_every": poison_every,
        "events_per_second": rates,
        "batch_to_one_by_one": round(rates["batch"] / rates["one_by_one"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--batch-records", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--poison-every", type=int, default=1000)
    arguments = parser.parse_args()
    print(
        json.dumps(measure(arguments.events, arguments.batch_records, arguments.runs, arguments.poison_every), indent=2)
    )


if __name__ == "__main__":
    main()
