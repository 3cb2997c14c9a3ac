"""Faults of the table: seen, named, mended; nothing lost but what Kafka deleted, nothing counted twice.

All of them in `make fault-table`; a run of the whole suite has some, drawn by its seed, since each takes half a minute.
"""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from streamsocial.stack import Stack
from tests.faults import database_rows, fault_table, group_rows, log_rows, loop_rows, words_rows
from tests.faults.scene import HEAD, Row, Scene

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]


ROWS = [
    row for table in (fault_table, log_rows, database_rows, loop_rows, words_rows, group_rows) for row in table.ROWS
]
DRAWN = 4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rows = ROWS
    if os.environ.get("FAULT_ROWS") != "all":
        seed = metafunc.config.getoption("randomly_seed", None)
        rows = random.Random(seed if isinstance(seed, int) else 1).sample(rows, DRAWN)
    metafunc.parametrize("fault", rows, ids=lambda fault: fault.__name__)


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """Collects the rows; `make fault-table` prints them, and keeps them as JSON where FAULT_TABLE_FILE says."""
    rows: list[Row] = []
    yield rows
    print("\n".join(["", HEAD, *map(str, rows)]))
    if path := os.environ.get("FAULT_TABLE_FILE"):
        Path(path).write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n", encoding="utf-8")


def test_fault(
    fault: Callable[[Scene], Row],
    service_env: Mapping[str, str],
    tmp_path: Path,
    stack: Stack,
    request: pytest.FixtureRequest,
    table: list[Row],
) -> None:
    seed = int(request.config.getoption("randomly_seed", None) or 1) % 2**31
    print(f"fault seed: {seed}")
    with Scene(service_env, tmp_path, stack, seed) as scene:
        row = fault(scene)
    print(row)
    table.append(row)
