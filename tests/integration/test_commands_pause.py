import io
import json
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from offsets.models import DatabaseTime, DeadLetter, OperatorAction, PartitionCheckpoint
from streamsocial.environment import BASE_DIR
from tests.support.page_rows import GROUP, make_checkpoint, make_worker

pytestmark = pytest.mark.django_db


def run(command, *arguments, status=0):
    """The command's JSON; it must end with `status`."""
    out = io.StringIO()
    try:
        call_command(command, *arguments, "--json", stdout=out)
        ended: object = 0
    except SystemExit as end:
        ended = end.code
    assert ended == status
    return json.loads(out.getvalue())


def refused(command, *arguments):
    with pytest.raises(CommandError) as error:
        call_command(command, *arguments, stdout=io.StringIO())
    assert error.value.returncode == 2
    return str(error.value)


def states():
    live = PartitionCheckpoint.objects.filter(group_id=GROUP, retired_at__isnull=True)
    return {f"{one.topic}-{one.partition}": one.desired_state for one in live}


@pytest.fixture
def group():
    for partition in range(3):
        make_checkpoint(partition, owner=make_worker(f"w-{partition}"))
    make_checkpoint(0, topic="other")
    make_checkpoint(0, group_id="another group")
    make_checkpoint(9, retired_at=DatabaseTime(), retired_reason="rebuilt")


@pytest.mark.usefixtures("group")
def test_it_only_says_what_would_happen_unless_told_to_execute():
    data = run("pause_partitions", "--topic", "engagement:0,2")

    assert data["executed"] is False
    assert data["count"] == 2
    assert [(one["partition"], one["outcome"]) for one in data["items"]] == [(0, "would apply"), (2, "would apply")]
    assert data["items"][0]["detail"].startswith("Pause engagement-0 at offset 1,000: its worker w-0 stops")
    assert set(states().values()) == {"running"}
    assert not OperatorAction.objects.exists()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("scope", "paused"),
    [
        (["--topic", "engagement:0,2"], {"engagement-0", "engagement-2"}),
        (["--topic", "engagement:0", "--topic", "other:0"], {"engagement-0", "other-0"}),
        (["--topic", "engagement"], {"engagement-0", "engagement-1", "engagement-2"}),
        (["--all"], {"engagement-0", "engagement-1", "engagement-2", "other-0"}),
    ],
)
def test_it_pauses_and_resumes_exactly_its_scope(scope, paused):
    data = run("pause_partitions", *scope, "--execute", "--reason", "Deploying")

    assert {one["outcome"] for one in data["items"]} == {"applied"}
    assert {name for name, state in states().items() if state == "paused"} == paused
    assert PartitionCheckpoint.objects.get(group_id="another group").desired_state == "running"
    run("resume_partitions", *scope, "--execute", "--reason", "Deployed")
    assert set(states().values()) == {"running"}
    audit = set(OperatorAction.objects.values_list("source", "reason", "outcome"))
    assert audit == {("command", "Deploying", "applied"), ("command", "Deployed", "applied")}
    assert all(name.startswith("os:") for name in OperatorAction.objects.values_list("username", flat=True))


@pytest.mark.usefixtures("group")
def test_it_leaves_alone_what_is_already_as_wanted():
    run("pause_partitions", "--topic", "engagement:1", "--execute", "--reason", "r")

    data = run("pause_partitions", "--topic", "engagement", "--execute", "--reason", "r")

    assert [one["outcome"] for one in data["items"]] == ["applied", "unchanged", "applied"]
    assert data["count"] == 2
    assert OperatorAction.objects.count() == 3


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name the partitions"),
        (["--all", "--topic", "engagement"], "not both"),
        (["--topic", "engagement:0", "--execute"], "needs --reason"),
        (["--topic", "engagement:0", "--execute", "--reason", "  "], "needs --reason"),
        (["--topic", "engagement:0,9"], "has no engagement-9"),
        (["--topic", "nothing"], "has no nothing"),
        (["--topic", "engagement:"], "Invalid scope"),
        (["--topic", "engagement:a"], "Invalid scope"),
        (["--topic", "engagement:-1"], "Invalid scope"),
        (["--topic", ":0"], "Invalid scope"),
        (["--all", "--group", "unknown"], "has no partitions yet"),
    ],
)
def test_it_refuses_a_scope_that_it_cannot_meet_and_changes_nothing(arguments, message):
    assert message in refused("pause_partitions", *arguments)
    assert set(states().values()) == {"running"}


@pytest.mark.usefixtures("group")
def test_it_ends_with_2_and_goes_on_with_the_others_when_one_is_refused():
    data = run("pause_partitions", "--all", "--execute", "--reason", "x" * 501, status=2)

    assert {one["outcome"] for one in data["items"]} == {"refused"}
    assert len(data["items"]) == 4
    assert set(states().values()) == {"running"}
    assert set(OperatorAction.objects.values_list("outcome", flat=True)) == {"refused"}


@pytest.mark.usefixtures("group")
def test_it_tells_a_person_that_nothing_was_changed():
    out = io.StringIO()

    call_command("pause_partitions", "--all", stdout=out)

    assert "Dry run: nothing was changed." in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_it_runs_from_the_command_line(service_env):
    make_checkpoint()

    done = subprocess.run(
        [sys.executable, "manage.py", "pause_partitions", "--all", "--execute", "--reason", "r", "--json"],
        cwd=BASE_DIR,
        env=service_env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 1
    assert states() == {"engagement-0": "paused"}


@pytest.fixture
def letters():
    first, second = make_checkpoint(0), make_checkpoint(1)
    rows = [
        (first, 1, "pending", b'{"event_type": "poke"}'),
        (first, 2, "counted", None),
        (second, 3, "pending", b"\xff\x00" + b"x" * 5000),
        (make_checkpoint(0, group_id="another group"), 4, "pending", b"x"),
    ]
    for checkpoint, offset, status, value in rows:
        DeadLetter.objects.create(
            checkpoint=checkpoint, offset=offset, status=status, value=value, error_code="bad", error_detail="[red]No"
        )


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("arguments", "count", "offsets"),
    [
        ([], 3, [3, 2, 1]),
        (["--status", "pending"], 2, [3, 1]),
        (["--topic", "engagement", "--partition", "0"], 2, [2, 1]),
        (["--topic", "nothing"], 0, []),
        (["--limit", "1"], 3, [3]),
        (["--group", "another group"], 1, [4]),
    ],
)
def test_it_lists_dead_letters_newest_first(arguments, count, offsets):
    data = run("dead_letters", *arguments)

    assert data["count"] == count
    assert [item["offset"] for item in data["items"]] == offsets


@pytest.mark.usefixtures("letters")
def test_it_shows_what_a_dead_letter_holds():
    third, second, first = run("dead_letters")["items"]

    assert (first["topic"], first["partition"], first["status"]) == ("engagement", 0, "pending")
    assert (first["error_code"], first["error_detail"]) == ("bad", "[red]No")
    assert first["value"] == '{"event_type": "poke"}'
    assert (second["value"], second["value_bytes"]) == (None, None)
    assert third["value"].startswith("base64:")
    assert len(third["value"]) < 250
    assert third["value_bytes"] == 5002


@pytest.mark.usefixtures("letters")
def test_it_draws_dead_letters_for_a_person():
    out = io.StringIO()

    call_command("dead_letters", "--limit", "2", stdout=out)

    assert "2 of 3 shown" in out.getvalue()
    assert "(tombstone)" in out.getvalue()


def test_it_refuses_a_partition_without_its_topic():
    assert "--partition needs --topic" in refused("dead_letters", "--partition", "0")
