"""When an event happened, and times that cannot be right: most are in another unit than milliseconds. Pure.

Works on whole columns. Where all times of a batch are plausible, which is the rule, it costs a few passes over them.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

_Times = np.ndarray[tuple[int], np.dtype[np.int64]]
_MINUTE_MS = 60_000
#: No event is older: 2000-01-01. Seconds, microseconds and nanoseconds of today are far outside of what is plausible.
EARLIEST_MS = 946_684_800_000
#: The likely unit of an implausible time, by how far a value of that unit is from milliseconds.
_UNITS = ("seconds", "microseconds", "nanoseconds")
UNKNOWN_UNIT = "unknown"
_NAMES = ("", *_UNITS, UNKNOWN_UNIT)
#: A flaw is the unit of the event's time and that of its record's, in one small number; 0 is none.
_BASE = len(_NAMES)
FLAWS = _BASE * _BASE

EVENT = "event"
RECORD = "record"


class ImplausibleTimes(NamedTuple):
    """Counted events whose time, or whose record's time, cannot be right."""

    source: str
    unit: str
    events: int


def judge(
    occurred_at: pl.Series, record_times: pl.Series, tolerance_seconds: int, now_seconds: float
) -> tuple[pl.Series, pl.Series]:
    """The minute (since the epoch) in which each event counts, and its flaw.

    Its own minute, unless its time is implausible, or further than the tolerance from its record's: a wrong clock must
    not create millions of minute rows. Then its record's; and if that is implausible as well, the minute of arrival.
    Times are milliseconds since the epoch; a record without one has a negative one, which is no flaw.
    """
    now, tolerance = int(now_seconds * 1000), tolerance_seconds * 1000
    latest = max(EARLIEST_MS, now + tolerance)
    own, record = occurred_at.to_numpy(), record_times.to_numpy()
    if _all_plausible(own, record, latest, tolerance):
        return pl.Series(own // _MINUTE_MS), pl.Series(np.zeros(len(own), dtype=np.uint8))
    frame = pl.DataFrame({"own": occurred_at, "record": record_times})
    own_right, record_right = (_plausible(name, latest) for name in ("own", "record"))
    near = (pl.col("own") - pl.col("record")).abs() <= tolerance
    chosen = (
        pl.when(own_right & (~record_right | near))
        .then("own")
        .when(record_right)
        .then("record")
        .otherwise(pl.lit(now, pl.Int64))
    )
    own_flaw = pl.when(own_right & (~record_right | near)).then(0).otherwise(_unit("own", latest))
    record_flaw = pl.when(record_right | (pl.col("record") < 0)).then(0).otherwise(_unit("record", latest))
    judged = frame.select(
        (chosen // _MINUTE_MS).alias("minute"), (own_flaw * _BASE + record_flaw).cast(pl.UInt8).alias("flaw")
    )
    return judged["minute"], judged["flaw"]


def _all_plausible(own: "_Times", record: "_Times", latest: int, tolerance: int) -> bool:
    """In numpy: for a few events a polars query costs more than the rest of their decoding."""
    if not len(own):
        return True
    if min(own.min(), record.min()) < EARLIEST_MS or max(own.max(), record.max()) > latest:
        return False
    return bool(np.abs(own - record).max() <= tolerance)


def _plausible(name: str, latest: int) -> pl.Expr:
    return pl.col(name).is_between(EARLIEST_MS, latest)


def _unit(name: str, latest: int) -> pl.Expr:
    """The number of the unit in which the value would be plausible."""
    column = pl.col(name)
    return (
        pl.when(column.is_between(EARLIEST_MS // 1000, latest // 1000))
        .then(1)
        .when(column.is_between(EARLIEST_MS * 1000, latest * 1000))
        .then(2)
        .when(column.is_between(EARLIEST_MS * 1_000_000, min(latest * 1_000_000, 2**63 - 1)))
        .then(3)
        .otherwise(4)
    )


def count_flaws(flaws: pl.Series) -> tuple[ImplausibleTimes, ...]:
    """How many events have which flaw. One pass where none has any."""
    if flaws.is_empty() or not flaws.max():
        return ()
    totals: dict[tuple[str, str], int] = {}
    for flaw, events in flaws.value_counts().iter_rows():
        own, record = divmod(flaw, _BASE)
        for source, number in ((EVENT, own), (RECORD, record)):
            if number:
                key = source, _NAMES[number]
                totals[key] = totals.get(key, 0) + events
    return tuple(ImplausibleTimes(*key, events) for key, events in sorted(totals.items()))
