"""Records, batches and ledgers for tests that need no service."""

import json
from dataclasses import dataclass, field

from hypothesis import strategies as st

from offsets.ranges import KnownRange
from offsets.types import Claim, RangeKind, RecordBatch

HOUR = 3_600_000
#: An hour of November 2023, from which the records' times are counted: the first hours of 1970 are implausible.
START = 1_699_920_000_000
START_MINUTE = START // 60_000


CLAIM = Claim(42, "t", 0, 1, 0, ("content", "user"))


@dataclass
class Record:
    """A consumed message, as far as handlers look at it."""

    at: int
    data: bytes | None
    time: int = START + 10 * HOUR
    named: list[tuple[str, bytes | None]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.data or b"")

    def value(self) -> bytes | None:
        return self.data

    def key(self) -> bytes | None:
        return b"key"

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, self.time)

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.named

    def leader_epoch(self) -> int | None:
        return 0


def event(kind: str, user: int, content: int, at: int = START + 10 * HOUR) -> bytes:
    return json.dumps({"event_type": kind, "user_id": user, "content_id": content, "occurred_at": at}).encode()


@st.composite
def ledgers(draw: st.DrawFn) -> list[KnownRange]:
    """Disjoint ranges, some of which touch."""
    at, known = 0, []
    for gap, size, kind in draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.sampled_from(RangeKind)), max_size=8)
    ):
        known.append(KnownRange(at + gap, at + gap + size, kind))
        at += gap + size
    return known


@st.composite
def batches(draw: st.DrawFn) -> RecordBatch:
    """A batch with holes anywhere, and perhaps nothing but holes."""
    start = draw(st.integers(0, 20))
    end = draw(st.integers(start + 1, 40))
    offsets = sorted(draw(st.sets(st.integers(start, end - 1))))
    records = [Record(n, bytes(n % 5)) for n in offsets]
    return RecordBatch(Claim(1, "t", 0, 1, 0), start, end, records, sum(map(len, records)))
