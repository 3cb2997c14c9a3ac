"""Counted events whose time cannot be right, in words. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from offsets.text import counted

#: A topic that had none for this long has been corrected.
QUIET_SECONDS = 600.0


class ImplausibleTimes(NamedTuple):
    topic: str
    #: event (the event's own time) or record (Kafka's timestamp).
    source: str
    #: The likely unit; unknown where none fits.
    unit: str
    events: int
    first_seen_at: datetime
    #: Seconds since the last one was counted.
    age_seconds: float

    @property
    def text(self) -> str:
        what = f"{counted(self.events, self.source)} of {self.topic}"
        if self.source == "record":
            time, minute = "timestamp", "the event's own, else that of the arrival"
        else:
            time, minute = "event time", "the record's, else that of the arrival"
        looks = f"the {time} looks like {self.unit}" if self.unit != "unknown" else f"implausible {time}"
        return f"{what}: {looks}. Minute used: {minute}."


def summary(times: Sequence[ImplausibleTimes]) -> str:
    """Of one topic, in a few sentences."""
    return (
        f"{' '.join(row.text for row in times)} Totals are exact; only the minute may be wrong. Fix the producer: "
        "times are milliseconds since the epoch."
    )
