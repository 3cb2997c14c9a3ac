"""Services that go away and come back while a worker runs: it keeps its place, and goes on by itself."""

from collections.abc import Callable

import pytest
from django.db import connection

from offsets.models import PartitionCheckpoint, Worker
from streamsocial.stack import Stack
from tests.support.cases import Case
from tests.support.processes import assert_exactly_once, background, manage, manage_json, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


@pytest.fixture
def slow(case: MakeCase) -> Case:
    """A case whose backlog takes many commits, so that the fault falls between them."""
    return case(60_000, COMMIT_MAX_RECORDS="200", COMMIT_INTERVAL_MS="10")


def test_it_goes_on_after_postgresql_restarts(slow: Case, stack: Stack) -> None:
    with background(slow.env, slow.folder / "worker.log", *slow.run_consumer()) as worker:
        wait_for("commits", lambda: _progress(slow.group))
        connection.close()
        stack.restart_service("postgres", immediate=True)
        before = wait_for("the database answers", lambda: _progress(slow.group))
        wait_for("it goes on by itself", lambda: _progress(slow.group) > before)
        _wait_until_caught_up(slow, 60_000)
        assert worker.end() == 0, worker.output()
        assert "Nothing is lost; it is tried again." in worker.output()
    assert_exactly_once(slow.env, slow.group, slow.topic, slow.truth, slow.folder)


def test_it_goes_on_after_its_sessions_are_cut_again_and_again(slow: Case) -> None:
    with background(slow.env, slow.folder / "worker.log", *slow.run_consumer()) as worker:
        for _ in range(20):
            _wait_for_progress(slow, 60_000)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'w-%%'"
                    " AND application_name NOT LIKE '%%:%%'"
                )
        _wait_until_caught_up(slow, 60_000)
        assert worker.end() == 0, worker.output()
    assert_exactly_once(slow.env, slow.group, slow.topic, slow.truth, slow.folder)


def test_it_goes_on_after_the_broker_was_killed(slow: Case, stack: Stack) -> None:
    with background(slow.env, slow.folder / "worker.log", *slow.run_consumer()) as worker:
        wait_for("commits", lambda: _progress(slow.group))
        stack.kill_service("kafka")
        wait_for(
            "the worker shows that Kafka is away",
            lambda: Worker.objects.filter(group_id=slow.group, last_error__contains="Kafka").exists(),
        )
        stack.start_service("kafka")
        _wait_until_caught_up(slow, 60_000)
        assert worker.end() == 0, worker.output()
    assert_exactly_once(slow.env, slow.group, slow.topic, slow.truth, slow.folder)


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", "Kafka"),
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing", "PostgreSQL"),
    ],
)
def test_it_says_which_service_is_down_at_the_start(case: MakeCase, variable: str, value: str, names: str) -> None:
    this = case(10)
    done = manage({**this.env, variable: value}, *this.run_consumer("--exit-when-caught-up"))
    assert done.returncode == 3, done.stderr
    assert names in done.stderr
    assert "Traceback" not in done.stderr
    assert not PartitionCheckpoint.objects.filter(group_id=this.group).exists()


def _progress(group: str) -> int:
    try:
        return sum(PartitionCheckpoint.objects.filter(group_id=group).values_list("next_offset", flat=True))
    except Exception:
        connection.close()
        return 0


def _wait_for_progress(case: Case, events: int) -> None:
    before = _progress(case.group)
    wait_for("it goes on", lambda: _progress(case.group) > before or _done(case, events))


def _done(case: Case, events: int) -> bool:
    return _progress(case.group) >= events


def _wait_until_caught_up(case: Case, events: int) -> None:
    wait_for("everything is committed", lambda: _done(case, events), 90)
    manage_json(case.env, "offsets_status", "--group", case.group)
