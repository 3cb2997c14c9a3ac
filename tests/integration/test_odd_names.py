"""Every command with odd names of groups and topics, and odd files: it works, or says what is wrong with status 2."""

import io
import os
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from pytest_django import Settings

from offsets import leases
from offsets.kafka.admin import KafkaAdmin
from offsets.models import PartitionCheckpoint, Worker
from offsets.tasks import recover, verify
from tests.support.command_options import OURS, options_of

GROUPS_THAT_WORK = ("g", "g" * 249, "g" * 250, "g" * 255, "a/b . # ? & % ü 组 'one' \"two\"")
GROUPS_REFUSED = ("", "g" * 256, "a\nb", " g")
TOPICS_THAT_WORK = ("t", "t" * 249)
TOPICS_REFUSED = ("", "t" * 250, "t" * 255, "t" * 256, "..", *(f"a{c}b" for c in "/#?&% ü组'\"\n"))
#: What a command needs besides the name.
ARGUMENTS = {
    "reset_offsets": ["--to-latest"],
    "skip_offsets": ["--count", "1"],
    "replay_offsets": ["--status", "failed"],
    "run_recovery_manager": ["--once"],
    "produce_events": ["--count", "1", "--contents", "1", "--users", "1"],
}
WITH_GROUP = sorted(name for name in OURS if "--group" in options_of(name) and name not in ("run_consumer", "doctor"))
WITH_TOPIC = sorted(name for name in OURS if "--topic" in options_of(name) and name != "run_consumer")


def _run(command: str, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error; any other exception than the two of a command is a failure of the test."""
    out = io.StringIO()
    try:
        call_command(command, *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, str(error)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def _scope(command: str) -> list[str]:
    return ["--all"] if "--all" in options_of(command) and command != "reconcile_stores" else []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", WITH_GROUP)
def test_a_command_takes_any_group_id_or_says_what_is_wrong(command: str) -> None:
    arguments = [*ARGUMENTS.get(command, []), *_scope(command)]
    for group in GROUPS_THAT_WORK:
        status, text = _run(command, f"--group={group}", *arguments)
        assert status in (0, 1, 2), (group, text)
        assert "must be" not in text, (group, text)
    for group in GROUPS_REFUSED:
        status, text = _run(command, f"--group={group}", *arguments)
        assert (status, text[:46]) == (2, "--group must be a consumer group id, 1 to 255 "), group


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", [name for name in WITH_TOPIC if name != "produce_events"])
def test_a_command_takes_any_topic_or_says_what_is_wrong(command: str) -> None:
    arguments = ARGUMENTS.get(command, [])
    for topic in TOPICS_THAT_WORK:
        status, text = _run(command, f"--topic={topic}", *arguments)
        assert status in (0, 1, 2), (topic, text)
        assert "must be" not in text, (topic, text)
    for topic in TOPICS_REFUSED:
        status, text = _run(command, f"--topic={topic}", *arguments)
        if topic == "" and command in ("engagement_totals", "offsets_status", "verify_offsets", "dead_letters"):
            continue  # the default: every topic
        assert status == 2, (topic, text)
        assert text.startswith("--topic must be a Kafka topic name"), (topic, text)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", ["ensure_topic", "produce_events", "run_consumer"])
def test_a_topic_is_not_created_or_read_under_a_name_that_kafka_refuses(command: str) -> None:
    for topic in TOPICS_REFUSED:
        named = [topic] if command == "ensure_topic" else [f"--topic={topic}", *ARGUMENTS.get(command, [])]
        status, text = _run(command, *named)
        assert status == 2, (topic, text)
        assert "must be a Kafka topic name" in text, (topic, text)


@pytest.fixture
def long_topic(stack: object) -> str:
    topic = "t" * 249
    KafkaAdmin().create_topic(topic, 1)
    return topic


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("group", ["g" * 255, "a/b . # ? & % ü 组 'one' \"two\""])
def test_the_longest_names_work_from_end_to_end(
    long_topic: str, group: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run("produce_events", "--topic", long_topic, "--count", "20", "--contents", "2", "--users", "2")[0] == 0
    monkeypatch.setattr("signal.signal", lambda *_: None)
    status, text = _run("run_consumer", "--topic", long_topic, "--group", group, "--exit-when-caught-up", "--json")
    assert status == 0, text
    checkpoint = PartitionCheckpoint.objects.get(group_id=group)
    assert (checkpoint.topic, checkpoint.next_offset >= 20) == (long_topic, True)
    settings.ENGAGEMENT_GROUP = group
    recover()
    verify()
    for command in ("offsets_status", "verify_offsets", "engagement_totals", "incidents"):
        assert _run(command, "--group", group)[0] in (0, 1)
    scope = ["--group", group, "--topic", f"{long_topic}:0", "--execute", "--reason", "a test"]
    assert _run("pause_partitions", *scope)[0] == 0
    assert _run("reset_offsets", *scope, "--to-earliest")[0] == 0
    name = f"start:slot:{group}:1000"
    assert leases.acquire(name, "holder", 5) is not None
    Worker.objects.create(worker_id="w-long", group_id=group, slot=f"slot:{group}:1000", hostname="h", process_id=1)


@pytest.mark.parametrize("command", sorted(OURS))
def test_every_command_with_names_is_among_those_tested(command: str) -> None:
    assert {"--group", "--topic"} & options_of(command) <= {
        *(["--group"] if command in (*WITH_GROUP, "run_consumer", "doctor") else []),
        *(["--topic"] if command in (*WITH_TOPIC, "run_consumer") else []),
    }
    assert load_command_class(get_commands()[command], command).help


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names no partitions"),
        (b"t,0,1\rt,1,2\r", "has no partitions yet"),
        (b"\xef\xbb\xbft,0,1\r\nt,1,2\r\n", "has no partitions yet"),
        (b't,0,1\n"t,1,2\n', "Line 2: a quote is not closed"),
        (b"t,0,1\nt,\0,2\n", "line 2: a NUL character"),
        (b"t,0,1\n\xff,1,2\n", "line 2: not UTF-8 text"),
        (None, "is larger than 16 MiB"),
    ],
)
def test_a_file_of_targets_is_read_or_refused_with_its_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "targets.csv"
    if content is None:
        with path.open("wb") as file:
            os.truncate(file.fileno(), 100 * 1024 * 1024)
    else:
        path.write_bytes(content)
    status, text = _run("reset_offsets", "--from-file", str(path))
    assert status == 2
    assert says in text


@pytest.mark.django_db(transaction=True)
def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    for command in (["engagement_totals", "--export"], ["reset_offsets", "--from-file"]):
        status, text = _run(*command, str(tmp_path))
        assert status == 2, text
        assert str(tmp_path) in text
        assert "directory" in text.lower()


@pytest.mark.django_db(transaction=True)
def test_a_path_that_is_not_text_is_refused(tmp_path: Path) -> None:
    status, text = _run("reset_offsets", "--from-file", f"{tmp_path}/\udcff")
    assert (status, text) == (2, "--from-file is not UTF-8 text.")
