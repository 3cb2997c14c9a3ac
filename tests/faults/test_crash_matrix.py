"""What each promise is worth when workers are killed at the worst moments (design §6)."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.crash_matrix import POINTS, Cell, run_cell, table

pytestmark = [pytest.mark.faults, pytest.mark.django_db(transaction=True)]

#: Kills of exactly_once; `make crash-matrix` sets 200. The other modes are sampled once a square.
KILLS = int(os.environ.get("CRASH_KILLS", "11"))
AT_ONCE = 4
ROUND = 4  # kills of one backlog

OTHERS = [
    ("at_least_once", "postgres", "after_commit"),
    ("at_least_once", "redis", "after_commit"),
    ("at_least_once", "redis", "after_store"),
    ("at_least_once", "kafka", "after_commit"),
    ("at_least_once", "file", "before_commit"),
    ("at_most_once", "postgres", "after_commit"),
    ("at_most_once", "redis", "after_store"),
    ("at_most_once", "kafka", "before_settle"),
    ("at_most_once", "file", "after_commit"),
]


def squares() -> list[tuple[str, str, str, int]]:
    """Semantics, store, failpoint, kills: the kills of exactly_once dealt out over its failpoints."""
    exactly = []
    left, at = KILLS, 0
    points = POINTS["exactly_once"]
    while left > 0:
        kills = min(left, ROUND if KILLS > 20 else 2)
        exactly.append(("exactly_once", "postgres", points[at % len(points)], kills))
        left, at = left - kills, at + 1
    return exactly + [(*other, 2 if KILLS > 20 else 1) for other in OTHERS]


def test_each_mode_keeps_exactly_what_it_promises(
    service_env: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = request.config.getoption("randomly_seed", None) or 1
    print(f"fault seed: {seed}")
    todo = squares()
    # Squares share nothing but the services: side by side they wait for their sessions to expire together.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [
            pool.submit(run_cell, service_env, tmp_path, mode, store, point, kills=kills, seed=int(seed) % 2**31 + at)
            for at, (mode, store, point, kills) in enumerate(todo)
        ]
        cells: list[Cell] = [future.result() for future in futures]
    print(table(cells))
    assert all(cell.as_promised for cell in cells), table(cells)
    assert sum(cell.kills for cell in cells) == sum(square[3] for square in todo)
    weak = [c for c in cells if c.semantics != "exactly_once" and c.point in ("after_commit", "before_settle")]
    assert any(c.duplicated for c in weak if c.semantics == "at_least_once"), "the weak moment was not hit"
    assert any(c.lost for c in weak if c.semantics == "at_most_once"), "the weak moment was not hit"
