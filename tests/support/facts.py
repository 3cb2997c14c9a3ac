"""What the tests of statuses share."""

import dataclasses
from typing import Any

from offsets.monitoring.lag import LagTime
from offsets.monitoring.status import Limits, PartitionFacts, Verdict, assess
from offsets.monitoring.window import CommitPoint

LIMITS = Limits(heartbeat_timeout_seconds=10, allowed_lag_seconds=10)


DEAD: dict[str, Any] = {"owner_heartbeat_age_seconds": 12.0}


STAGE = "decoding engagement-3 [790000, 800000)"


STUCK: dict[str, Any] = {"stage": STAGE, "stage_seconds": 42.0}


TROUBLE = "database: connection refused"
FINE = PartitionFacts(
    name="engagement-3",
    next_offset=790_000,
    owner="w-7f2",
    owner_heartbeat_age_seconds=0.5,
    lag=211,
    lag_time=LagTime(0.1, 0.1),
    lag_growth_per_second=0.0,
)


BEHIND: dict[str, Any] = {"lag": 11_118, "lag_time": LagTime(38.0, 38.0)}


def window(seconds: int, *, reads: float, arrives: float, lag: int = 11_118) -> tuple[CommitPoint, ...]:
    """One sample a second until now, where FINE stands at `lag`; both ends move evenly."""
    return tuple(
        CommitPoint(1000.0 + at, 790_000 + round(reads * at), 790_000 + lag + round(arrives * at))
        for at in range(-seconds, 1)
    )


def still(seconds: int) -> tuple[CommitPoint, ...]:
    return window(seconds, reads=0, arrives=50)


def judged(**changes: Any) -> Verdict:
    return assess(dataclasses.replace(FINE, **changes), LIMITS)
