"""Fixtures of the tests of replays."""

from collections.abc import Callable
from typing import Any

import pytest

from offsets.replays import runner
from tests.support.replay_scenario import Scenario


@pytest.fixture
def scenario() -> Scenario:
    """A partition of 100 events, of which nothing is read."""
    made = Scenario()
    made.produce(100)
    return made


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK_RECORDS", 10)


@pytest.fixture
def fails_at(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the handler of this name (tests.support.handlers) fail at these offsets of partition 0."""

    def set_(handler: str, *offsets: int) -> None:
        settings.BATCH_HANDLER = f"tests.support.handlers.{handler}"
        monkeypatch.setenv("FAIL_AT", ",".join(f"0:{n}" for n in offsets))

    return set_
