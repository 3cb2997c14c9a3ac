"""Workers that die, stop and come back: nothing is lost, nothing is counted twice."""

import signal
from collections.abc import Callable

import pytest

from offsets.models import JournalEntry, PartitionCheckpoint, Worker
from tests.support.cases import Case
from tests.support.processes import assert_exactly_once, background, manage, manage_json, resume, stopped, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


@pytest.mark.parametrize("point", ["before_sql", "before_commit", "after_commit"])
def test_it_counts_exactly_once_after_sigkill(case: MakeCase, point: str) -> None:
    this = case(20_000)
    token = this.folder / "token"
    token.touch()
    passage = this.random.randint(2, 4)  # partitions are uneven: small ones share a commit
    env = {**this.env, "FAILPOINTS": f"{point}=kill#{passage}@{token}"}
    with background(env, this.folder / "worker.log", *this.run_consumer()) as worker:
        assert worker.process.wait(60) == -signal.SIGKILL, worker.output()
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["caught_up"]
    assert 0 < summary["events"] < 20_000, "the killed worker must have committed some, and not all"
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_it_refuses_the_commit_of_a_zombie(case: MakeCase, protocol: str) -> None:
    """Stopped in its transaction, with row locks held, until another worker has its partitions; then continued."""
    this = case(20_000, GROUP_PROTOCOL=protocol, SESSION_TIMEOUT_MS="6000")
    token = this.folder / "token"
    token.touch()
    env = {**this.env, "FAILPOINTS": f"before_commit=stop#2@{token}"}
    with background(env, this.folder / "zombie.log", *this.run_consumer()) as zombie:
        wait_for("the worker stops before its commit", lambda: stopped(zombie.pid))
        zombie_id = Worker.objects.get(group_id=this.group).pk
        summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
        assert summary["caught_up"]
        resume(zombie.pid)
        wait_for("the refused commit is counted", lambda: Worker.objects.get(pk=zombie_id).fenced_commits)
        assert JournalEntry.objects.filter(group_id=this.group, kind="fenced", worker_id=zombie_id).exists()
        assert "Refused a stale commit" in zombie.output()
        assert zombie.end() == 0, zombie.output()
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_shares_partitions_among_workers_that_join_and_leave(case: MakeCase) -> None:
    this = case(60_000, COMMIT_MAX_RECORDS="500")
    arguments = this.run_consumer()
    with background(this.env, this.folder / "1.log", *arguments) as first:
        wait_for("the first worker commits", lambda: _committed(this.group))
        with background(this.env, this.folder / "2.log", *arguments) as second:
            wait_for("the second owns partitions", lambda: len(_owners(this.group)) == 2)
            assert first.end() == 0, first.output()
            wait_for("the second owns all", lambda: len(_owned(this.group)) == 6 and len(_owners(this.group)) == 1)
            assert second.end() == 0, second.output()
    manage_json(this.env, *arguments, "--exit-when-caught-up")
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_finishes_and_commits_the_batch_in_hand_on_sigterm(case: MakeCase) -> None:
    this = case(20_000, COMMIT_INTERVAL_MS="60000", COMMIT_MAX_RECORDS="100000000")
    with background(this.env, this.folder / "worker.log", *this.run_consumer()) as worker:
        wait_for("batches are in hand", lambda: Worker.objects.filter(group_id=this.group, batch_in_hand__gt=0))
        assert not _committed(this.group), "the commit interval is a minute: nothing can be committed yet"
        assert worker.end() == 0, worker.output()
    assert _committed(this.group)
    assert not _owned(this.group)
    manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_is_not_caught_up_while_a_killed_member_still_holds_unread_partitions(case: MakeCase) -> None:
    """Until the dead member's session ends the group gives us the others only: reading those is not all there is."""
    slow = {"COMMIT_INTERVAL_MS": "60000", "COMMIT_MAX_RECORDS": "100000000"}
    this = case(20_000, partitions=4, GROUP_PROTOCOL="consumer")
    env = {**this.env, **slow}
    with background(env, this.folder / "1.log", *this.run_consumer()) as leaves:
        with background(env, this.folder / "2.log", *this.run_consumer()) as dies:
            wait_for("both own partitions", lambda: len(_owned(this.group)) == 4 and len(_owners(this.group)) == 2)
            dies.kill()
        assert leaves.end() == 0, leaves.output()
    summary = manage_json(this.env, *this.run_consumer("--exit-when-caught-up"))
    assert summary["caught_up"]
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_it_gives_up_where_another_member_holds_what_is_paused(case: MakeCase) -> None:
    this = case(2_000, partitions=2)
    scope = ("--group", this.group, "--topic", f"{this.topic}:1", "--execute", "--reason", "a test")
    with background(this.env, this.folder / "1.log", *this.run_consumer()) as first:
        wait_for("all is counted", lambda: _read(this.group) == 2_000)
        manage_json(this.env, "pause_partitions", *scope)
        more = ("--count", "500", "--topic", this.topic, "--seed", "77")
        manage_json(this.env, "produce_events", *more)
        done = manage(this.env, *this.run_consumer("--exit-when-caught-up"))
        assert done.returncode == 1, done.stderr
        assert f"{this.topic}-1 is paused" in done.stderr
        assert first.end() == 0, first.output()


def _read(group: str) -> int:
    return sum(PartitionCheckpoint.objects.filter(group_id=group).values_list("next_offset", flat=True))


def _committed(group: str) -> bool:
    return PartitionCheckpoint.objects.filter(group_id=group, committed_at__isnull=False).exists()


def _owned(group: str) -> list[str]:
    owners = PartitionCheckpoint.objects.filter(group_id=group, owner__isnull=False)
    return [str(owner) for owner in owners.values_list("owner_id", flat=True)]


def _owners(group: str) -> set[str]:
    return set(_owned(group))
