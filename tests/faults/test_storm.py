"""Workers that join and leave without pause lose nothing and count nothing twice, under both group protocols."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.storm import run_storm

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]

#: `make storm` sets 60.
SECONDS = float(os.environ.get("STORM_SECONDS", "10"))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_nothing_is_lost_or_counted_twice_in_a_storm(
    service_env: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest, protocol: str
) -> None:
    seed = request.config.getoption("randomly_seed", None) or 1
    print(f"fault seed: {seed}")
    storm = run_storm(service_env, tmp_path, protocol, seconds=SECONDS, seed=int(seed) % 2**31)
    print(storm)
    assert sum(storm.leaves.values()) > 0
    assert storm.epochs > 12, "partitions must have changed hands"
