"""What the tests of replays share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from offsets.errors import RefusedError
from offsets.kafka.reader import RangeReader
from offsets.models import (
    OperatorAction,
    PartitionCheckpoint,
    Replay,
)
from offsets.replays import runner
from offsets.replays.plans import Wanted
from tests.support.replay_scenario import Scenario


def run(replay: Replay) -> Replay:
    """Run it to its end in this process."""
    ended = runner.run(replay.pk)
    assert ended is not None
    return ended


def numbers(replay: Replay) -> dict[str, int]:
    names = ("done_offsets", "total_offsets", "counted", "deduplicated", "dead_letters", "expired_offsets")
    return {name.removesuffix("_offsets"): getattr(replay, name) for name in names if getattr(replay, name)}


def assert_refused(
    scenario: Scenario, says: str, *wanted: Wanted, error: type[RefusedError] = RefusedError, **more: Any
) -> None:
    """It is refused in these words, audited, and nothing is changed."""
    before = list(PartitionCheckpoint.objects.order_by("pk").values()), scenario.counted(), Replay.objects.count()
    audited = OperatorAction.objects.filter(kind="replay", outcome="applied").count()
    with pytest.raises(error, match=says):
        scenario.begin(*wanted, **more)
    assert (
        list(PartitionCheckpoint.objects.order_by("pk").values()),
        scenario.counted(),
        Replay.objects.count(),
    ) == before
    assert OperatorAction.objects.filter(kind="replay", outcome="applied").count() == audited
    action = OperatorAction.objects.latest("pk")
    assert (action.kind, action.outcome, action.source) == ("replay", "refused", "command")
    assert action.before == action.after


@contextmanager
def database_back_after(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What a replay sleeps for, without sleeping; `act` happens meanwhile."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        act()

    with monkeypatch.context() as patched:
        patched.setattr(runner, "time", SimpleNamespace(sleep=sleep))
        yield slept


def read(reader: RangeReader, scenario: Scenario, start: int, end: int, at_once: int = 1000) -> list[int]:
    """All offsets that it brings of `[start, end)`, in as many reads as it takes."""
    found: list[int] = []
    while start < end:
        records, upto = reader.read(scenario.place(), start, end, at_once)
        assert start < upto <= end
        assert all(start <= record.offset() < upto for record in records)
        assert len(records) <= at_once
        found += [record.offset() for record in records]
        start = upto
    return found
