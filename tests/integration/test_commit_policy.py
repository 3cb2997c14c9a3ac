"""A commit policy of one's own in a real worker, and what the application hears of its commits."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from offsets.models import Worker
from tests.support.cases import Case
from tests.support.documented import install
from tests.support.processes import assert_exactly_once, background, manage, manage_json

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
    summary, commits = run(this, "tests.support.policies.by_count")
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
    this = case(3_000, partitions=2, FETCH_MAX_RECORDS="100")
    summary, _ = run(this, "tests.support.policies.Raising")
    assert "commit policy" not in str(summary)
    assert "out of ideas" in Worker.objects.get(pk=summary["worker_id"]).last_error
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_a_path_that_leads_nowhere_is_refused_at_the_start(case: MakeCase) -> None:
    this = case(1, partitions=1)
    done = manage({**this.env, "COMMIT_POLICY": "no.such.policy"}, *this.run_consumer())
    assert done.returncode == 2
    assert "COMMIT_POLICY 'no.such.policy' cannot be loaded" in done.stderr


def test_a_worker_that_is_to_catch_up_does_not_wait_for_more_than_there_is(case: MakeCase) -> None:
    this = case(1_000, partitions=2, COMMIT_MAX_RECORDS="100000", COMMIT_MAX_SECONDS="3600")
    summary = manage_json(
        {**this.env, "COMMIT_POLICY": "tests.support.policies.by_too_many"},
        *this.run_consumer("--exit-when-caught-up"),
        seconds=60,
    )
    assert summary["caught_up"]
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_a_receiver_cannot_swallow_the_commits_that_follow(case: MakeCase) -> None:
    this = case(3_000, partitions=3, FETCH_MAX_RECORDS="100")
    env = {**this.env, "COMMIT_POLICY": "tests.support.receivers.by_count"}
    summary = manage_json(env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["commits"] > 2
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)
    assert "left a transaction open" in Worker.objects.get(pk=summary["worker_id"]).last_error


def as_documented(case: Case) -> dict[str, str]:
    """The environment of workers that run the document's policy and receiver."""
    install(case.folder)
    return {
        **case.env,
        "PYTHONPATH": str(case.folder),
        "DJANGO_SETTINGS_MODULE": "engagement_settings",
        "COMMIT_POLICY": "engagement_hooks.policies.policy",
        "FETCH_MAX_RECORDS": "100",
    }


def published(case: Case) -> list[dict[str, str]]:
    with redis.Redis.from_url(case.env["REDIS_URL"], decode_responses=True) as client:
        entries: Any = client.xrange(f"commits:{case.group}")
    return [entry for _, entry in entries]


@pytest.mark.parametrize("semantics", ["exactly_once", "at_least_once", "at_most_once"])
def test_the_documents_receiver_hears_of_each_offset_once(case: MakeCase, semantics: str) -> None:
    this = case(5_000, partitions=3, PROCESSING_SEMANTICS=semantics)
    summary = manage_json(as_documented(this), *this.run_consumer("--exit-when-caught-up"))
    by_type: Counter[str] = Counter()
    ends: dict[str, int] = {}
    for entry in published(this):
        assert ends.get(entry["partition"], 0) == int(entry["start"]), "batches join"
        ends[entry["partition"]] = int(entry["end"])
        by_type.update(json.loads(entry["by_type"]))
    assert sum(ends.values()) == 5_000
    assert by_type == summary["by_type"]
    assert len({entry["batch_id"] for entry in published(this)}) == summary["commits"]
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_a_worker_killed_after_its_commit_leaves_a_gap_and_no_double(case: MakeCase) -> None:
    this = case(5_000, partitions=3)
    token = this.folder / "token"
    token.touch()
    env = as_documented(this)
    with background(
        {**env, "FAILPOINTS": f"after_commit=kill#3@{token}"}, this.folder / "1.log", *this.run_consumer()
    ) as worker:
        assert worker.process.wait(60) == -signal.SIGKILL, worker.output()
    manage_json(env, *this.run_consumer("--exit-when-caught-up"))
    heard: Counter[tuple[str, int]] = Counter()
    for entry in published(this):
        heard.update((entry["partition"], offset) for offset in range(int(entry["start"]), int(entry["end"])))
    assert set(heard.values()) == {1}
    assert 0 < len(heard) < 5_000, "what the killed worker committed last was never told"
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)
