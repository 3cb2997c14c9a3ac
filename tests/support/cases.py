"""Tests of workers have a topic and a group each, and a backlog whose truth is known."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import manage_json


@dataclass(frozen=True)
class Case:
    """One fault test's scenario. `env` is that of its processes."""

    env: dict[str, str]
    topic: str
    group: str
    folder: Path
    truth: Path
    random: random.Random

    def run_consumer(self, *more: str) -> list[str]:
        return ["run_consumer", "--topic", self.topic, "--group", self.group, *more]


@pytest.fixture
def case(
    service_env: dict[str, str], transactional_db: None, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Case]:
    """Make a case with `events` produced events. Prints the seed with which the faults are drawn."""

    def make(events: int, *, partitions: int = 6, poison: float = 0.001, **settings: str) -> Case:
        seed = request.config.getoption("randomly_seed", None) or 1
        print(f"fault seed: {seed}")
        name = f"fault-{uuid.uuid4().hex[:8]}"
        env = {
            **service_env,
            "ENGAGEMENT_TOPIC": name,
            "ENGAGEMENT_GROUP": name,
            "HEARTBEAT_TIMEOUT_SECONDS": "3",
            "HEARTBEAT_INTERVAL_MS": "300",
            "COMMIT_INTERVAL_MS": "50",
            "COMMIT_MAX_RECORDS": "2000",
            "FETCH_MAX_RECORDS": "1000",
            "OFFSET_FILE_DIR": str(tmp_path / "offset-files"),
            **settings,
        }
        truth = tmp_path / f"truth-{name}.csv"
        manage_json(
            env,
            "produce_events",
            "--count",
            str(events),
            "--topic",
            name,
            "--partitions",
            str(partitions),
            "--seed",
            str(seed),
            "--poison",
            str(poison),
            "--contents",
            "1000",
            "--users",
            "5000",
            "--truth",
            str(truth),
        )
        return Case(env, name, name, tmp_path, truth, random.Random(seed))

    return make
