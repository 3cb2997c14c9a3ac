"""A commit policy of one's own in a real worker, and what the application hears of its commits."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from offsets.models import Worker
from tests.cases import Case
from tests.harness import assert_exactly_once, manage, manage_json

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


def run(case: Case, policy: str) -> tuple[dict[str, Any], list[list[list[Any]]]]:
    """What the worker says of itself, and what the receiver heard, commit by commit."""
    file = case.folder / "commits.jsonl"
    env = {**case.env, "COMMIT_POLICY": policy, "COMMITS_FILE": str(file)}
    summary = manage_json(env, *case.run_consumer("--exit-when-caught-up"))
    return summary, [json.loads(line) for line in file.read_text().splitlines()]


def test_a_policy_of_ones_own_decides_and_every_commit_is_heard_of(case: MakeCase) -> None:
    # COMMIT_INTERVAL_MS would commit after 50 ms; this policy wants 1,500 records, whatever the time.
    this = case(9_000, partitions=3, FETCH_MAX_RECORDS="100", COMMIT_MAX_RECORDS="100000", COMMIT_MAX_SECONDS="3")
    summary, commits = run(this, "tests.own_policies.by_count")
    assert summary["commits"] == len(commits)
    sizes = [sum(row[3] for row in rows) for rows in commits]
    assert sum(sizes) == 9_000
    assert all(size >= 1500 for size in sizes[:-1]), sizes
    by_type: Counter[str] = Counter()
    spans: dict[str, int] = {}
    for rows in commits:
        for place, start, end, _, types in rows:
            assert spans.get(place, 0) == start, "each offset in one commit, in order"
            spans[place] = end
            by_type.update(types)
    assert by_type == summary["by_type"]
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)
    assert "a receiver fails" in Worker.objects.get(pk=summary["worker_id"]).last_error


def test_a_policy_that_raises_costs_nothing_but_itself(case: MakeCase) -> None:
    this = case(3_000, partitions=2)
    summary, _ = run(this, "tests.own_policies.Raising")
    assert "commit policy" not in str(summary)
    assert "out of ideas" in Worker.objects.get(pk=summary["worker_id"]).last_error
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_a_path_that_leads_nowhere_is_refused_at_the_start(case: MakeCase) -> None:
    this = case(1, partitions=1)
    done = manage({**this.env, "COMMIT_POLICY": "no.such.policy"}, *this.run_consumer())
    assert done.returncode == 2
    assert "COMMIT_POLICY 'no.such.policy' cannot be loaded" in done.stderr
