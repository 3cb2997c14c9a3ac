"""`manage.py replay_offsets`: a dry run unless told otherwise, exact in what it takes, plain in what it refuses."""

import io
import json
import re
import signal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from offsets.errors import OffsetsError, ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.management.commands import replay_offsets
from offsets.models import DeadLetter, LedgerRange, OperatorAction, Replay
from offsets.replays import requests, runner
from tests.support.processes import manage_json
from tests.support.replay_scenario import Scenario, once

pytestmark = pytest.mark.django_db(transaction=True)

#: When the first and the second half of each partition's records were written.
EARLY_MS, LATE_MS = 1_700_000_000_000, 1_700_000_600_000
BETWEEN = "2023-11-14T22:20:00Z"


@pytest.fixture
def scenario() -> Scenario:
    """Two partitions: 30 processed, 10 failed; and later 10 skipped, 10 claimed, 20 processed."""
    made = Scenario(2)
    for partition in (0, 1):
        made.produce(40, partition, at_ms=EARLY_MS)
        made.produce(40, partition, at_ms=LATE_MS)
        made.append(
            (30, "processed"), (10, "failed"), (10, "skipped"), (10, "claimed"), (20, "processed"), partition=partition
        )
    return made


def run(scenario: Scenario, *arguments: str, status: int = 0) -> Any:
    """The command's JSON; it must end with `status`."""
    out = io.StringIO()
    try:
        call_command("replay_offsets", "--group", scenario.name, *arguments, "--json", stdout=out, stderr=io.StringIO())
        ended: object = 0
    except SystemExit as end:
        ended = end.code
    assert ended == status
    return json.loads(out.getvalue())


def said(scenario: Scenario, *arguments: str, status: int = 0) -> str:
    """What it tells a person, on both streams."""
    out = io.StringIO()
    try:
        call_command("replay_offsets", "--group", scenario.name, *arguments, stdout=out, stderr=out)
        ended: object = 0
    except SystemExit as end:
        ended = end.code
    assert ended == status
    return out.getvalue()


def first(scenario: Scenario) -> str:
    return f"{scenario.name}:0"


BEFORE = ((0, 30), (60, 80), (0, 30, 1), (60, 80, 1))


def assert_untouched(scenario: Scenario) -> None:
    scenario.assert_counted(*BEFORE)
    assert not Replay.objects.exists()
    assert not OperatorAction.objects.filter(kind__in=("replay", "requeue")).exists()


# --- Dry runs and choices -------------------------------------------------------------------------


def test_it_only_says_what_would_happen_unless_told_to_execute(scenario: Scenario) -> None:
    data = run(scenario, "--all")
    assert (data["executed"], data["to_count"]) == (False, 20)
    assert data["items"][0] == {
        "partition": f"{scenario.name}-0",
        "start": 30,
        "end": 40,
        "to_count": 10,
        "by_kind": {"failed": 10},
        "deduplicated": 0,
        "expired": 0,
        "not_read_yet": 0,
        "outside": 0,
        "detail": f"Replay {scenario.name}-0 [30, 40): 10 offsets are counted (10 failed). "
        "The live offset does not move.",
    }
    told = said(scenario, "--all", "--reason", "a reason alone does nothing")
    assert "10 offsets are counted (10 failed)" in told
    assert "Dry run: nothing was changed. Add --execute --reason 'why' to do it." in told
    assert_untouched(scenario)


def test_it_takes_what_is_named_and_nothing_else(scenario: Scenario) -> None:
    choices: list[tuple[list[str], set[tuple[int, int, int]]]] = [
        ([], {(0, 30, 40), (1, 30, 40)}),
        (["--status", "skipped"], {(0, 40, 50), (1, 40, 50)}),
        (["--status", "skipped", "--status", "claimed"], {(0, 40, 60), (1, 40, 60)}),
        (["--since", BETWEEN], {(0, 40, 80), (1, 40, 80)}),
        (["--until", BETWEEN], {(0, 0, 40), (1, 0, 40)}),
        (["--since", "2023-11-14T22:00:00+00:00", "--until", BETWEEN], {(0, 0, 40), (1, 0, 40)}),
        (["--since", BETWEEN, "--status", "claimed"], {(0, 50, 60), (1, 50, 60)}),
        (["--until", BETWEEN, "--status", "failed", "--status", "claimed"], {(0, 30, 40), (1, 30, 40)}),
    ]
    for options, ranges in choices:
        assert taken(run(scenario, "--all", *options)) == ranges, options
        assert taken(run(scenario, "--topic", first(scenario), *options)) == {one for one in ranges if one[0] == 0}, (
            options
        )
    assert_untouched(scenario)


def taken(data: Any) -> set[tuple[int, int, int]]:
    return {(int(item["partition"][-1]), item["start"], item["end"]) for item in data["items"]}


def test_it_takes_ranges_of_one_partition(scenario: Scenario) -> None:
    data = run(scenario, "--topic", first(scenario), "--offsets", "25-35", "--offsets", "45-55", "--offsets", "70-90")
    assert [(i["start"], i["end"], i["by_kind"], i["deduplicated"], i["not_read_yet"]) for i in data["items"]] == [
        (25, 35, {"failed": 5}, 5, 0),
        (45, 55, {"claimed": 5, "skipped": 5}, 0, 0),
        (70, 90, {}, 10, 10),
    ]


def test_many_ranges_are_not_all_drawn(scenario: Scenario) -> None:
    options = [text for n in range(0, 60, 2) for text in ("--offsets", f"{n}-{n + 1}")]
    assert "… and 10 more ranges." in said(scenario, "--topic", first(scenario), *options)


# --- Doing it -------------------------------------------------------------------------------------


def test_it_counts_what_failed_and_tells_how_it_ended(scenario: Scenario) -> None:
    data = run(scenario, "--all", "--execute", "--reason", "mended")
    keys = ("executed", "status", "counted", "deduplicated", "dead_letters", "total_offsets", "done_offsets", "starts")
    assert [data[key] for key in keys] == [True, "done", 20, 0, 0, 20, 20, 1]
    assert data["username"].startswith("os:")
    assert (data["reason"], data["group"], data["automatic"]) == ("mended", scenario.name, False)
    assert data["finished_at"] is not None
    scenario.assert_counted(*BEFORE, (30, 40), (30, 40, 1))
    action = OperatorAction.objects.get(kind="replay")
    assert (action.source, action.outcome, action.reason) == ("command", "applied", "mended")
    told = said(scenario, "--topic", first(scenario), "--offsets", "0-80", "--execute", "--reason", "the rest")
    assert re.search(
        r"Replay \d+ done: 80 of 80 offsets, [\d,]+ per second\. 20 events counted, 60 already counted", told
    )
    scenario.assert_counted((0, 80), (0, 40, 1), (60, 80, 1))


def test_a_replay_that_is_refused_midway_is_an_aim_that_was_not_met(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsets.ledger.replay_miss", lambda commit: "the ledger has changed")
    data = run(scenario, "--all", "--execute", "--reason", "mended", status=1)
    assert data["status"] == "failed"
    assert "the ledger keeps changing there" in data["detail"]


def test_it_is_left_to_the_workers_when_it_shall_run_in_the_background(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(replay_offsets, "dispatch_replay", sent.append)
    data = run(scenario, "--all", "--execute", "--reason", "mended", "--background", "--rate", "500")
    replay = Replay.objects.get()
    assert (sent, data["id"], data["status"]) == ([replay.pk], replay.pk, "queued")
    assert replay.records_per_second == 500
    scenario.assert_counted(*BEFORE)


def test_one_that_was_interrupted_is_resumed(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHUNK_RECORDS", 5)
    before = signal.getsignal(signal.SIGTERM)
    interrupt = once(lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(runner, "failpoint", lambda name: interrupt() if name == "replay_chunk" else None)
    told = said(scenario, "--all", "--execute", "--reason", "mended", status=1)
    replay = Replay.objects.get()
    assert f"Replay {replay.pk} running: 5 of 20 offsets" in told
    assert f"Resume it with --resume {replay.pk}" in told
    assert signal.getsignal(signal.SIGTERM) == before, "whoever called it has its own answer back"
    data = run(scenario, "--resume", str(replay.pk))
    assert (data["status"], data["starts"], data["counted"]) == ("done", 2, 20)
    scenario.assert_counted(*BEFORE, (30, 40), (30, 40, 1))
    with pytest.raises(CommandError, match=f"Replay {replay.pk} has ended, or another process runs it") as refused:
        run(scenario, "--resume", str(replay.pk))
    assert refused.value.returncode == 2


def test_it_lists_and_cancels(scenario: Scenario) -> None:
    assert run(scenario, "--list") == {"items": []}
    old = scenario.begin(scenario.wanted(30, 40))
    new = scenario.begin(scenario.wanted(40, 50))
    other = Scenario()
    other.produce(5)
    other.append((5, "failed"))
    other.begin(other.wanted(0, 5))
    assert [item["id"] for item in run(scenario, "--list")["items"]] == [new.pk, old.pk]
    dry = run(scenario, "--cancel", str(old.pk))
    assert (dry["executed"], dry["id"]) == (False, old.pk)
    assert "10 of 10 offsets are not replayed" in dry["detail"]
    with pytest.raises(CommandError, match="reason") as refused:
        run(scenario, "--cancel", str(old.pk), "--execute")
    assert refused.value.returncode == 2
    assert run(scenario, "--list")["items"][1]["status"] == "queued"
    data = run(scenario, "--cancel", str(old.pk), "--execute", "--reason", "not now")
    assert (data["id"], data["status"]) == (old.pk, "cancelled")
    told = said(scenario, "--list")
    assert f"Replay {old.pk} cancelled: 0 of 10 offsets. Cancelled before it began." in told
    assert f"Replay {new.pk} queued: 0 of 10 offsets." in told
    scenario.assert_counted(*BEFORE)


# --- Dead letters ---------------------------------------------------------------------------------


@pytest.fixture
def letters() -> Scenario:
    """Good records that were set apart by a handler that has been mended since, and one, 1:9, that is truly bad."""
    scenario = Scenario(2)
    codes = {(0, 2): "handler_failed", (0, 5): "refused_by_database", (1, 8): "handler_failed", (1, 9): "malformed"}
    for partition in (0, 1):
        scenario.produce(20, partition)
    whole = dict(scenario.values)
    scenario.values |= dict.fromkeys(codes, b"poison")
    for partition in (0, 1):
        scenario.append((20, "processed"), partition=partition)
    for (partition, offset), code in codes.items():
        value = b"poison" if code == "malformed" else whole[partition, offset]
        rows = DeadLetter.objects.filter(checkpoint=scenario.checkpoint(partition), offset=offset)
        assert rows.update(value=value, error_code=code) == 1
        scenario.values[partition, offset] = value
    return scenario


LETTERS_BEFORE = ((0, 2), (3, 5), (6, 20), (0, 8, 1), (9, 20, 1))


def test_dead_letters_are_only_shown_unless_told_to_execute(letters: Scenario) -> None:
    data = run(letters, "--all", "--dead-letters")
    assert data["executed"] is False
    assert [(i["partition"][-1], i["changed"], i["matched"], i["still_fail"]) for i in data["items"]] == [
        ("0", 0, 2, 0),
        ("1", 0, 2, 1),
    ]
    assert "Dry run: nothing was changed" in said(letters, "--all", "--dead-letters")
    letters.assert_counted(*LETTERS_BEFORE)
    assert not OperatorAction.objects.filter(kind="requeue").exists()


def test_dead_letters_are_counted_from_the_bytes_that_were_kept(letters: Scenario) -> None:
    data = run(letters, "--all", "--dead-letters", "--execute", "--reason", "mended")
    assert [(i["changed"], i["still_fail"]) for i in data["items"]] == [(2, 0), (1, 1)]
    letters.assert_counted((0, 20), (0, 20, 1))
    assert letters.letters(1) == [(8, "handler_failed"), (9, "malformed")]
    assert set(DeadLetter.objects.filter(status="pending").values_list("offset", flat=True)) == {9}


def test_dead_letters_are_chosen_by_error_code_and_partition(letters: Scenario) -> None:
    options = ("--topic", first(letters), "--dead-letters", "handler_failed", "--execute", "--reason", "mended")
    (item,) = run(letters, *options)["items"]
    assert (item["matched"], item["changed"]) == (1, 1)
    letters.assert_counted((0, 5), (6, 20), (0, 8, 1), (9, 20, 1))
    with pytest.raises(CommandError, match="No pending dead letter matches") as refused:
        run(letters, *options)
    assert refused.value.returncode == 2


# --- Nonsense -------------------------------------------------------------------------------------


#: `TOPIC` stands for the topic's name.
NONSENSE = [
    ([], "Select partitions with --topic TOPIC:0,1, or the whole group with --all"),
    (["--all", "--topic", "x"], "not both"),
    (["--topic", "TOPIC:7"], "has no TOPIC-7"),
    (["--topic", "TOPIC:x"], "Invalid scope"),
    (["--all", "--execute"], "--execute needs --reason"),
    (["--all", "--execute", "--reason", "  "], "--execute needs --reason"),
    (["--all", "--execute", "--reason", "x" * 501], "the maximum is 500"),
    (["--all", "--offsets", "1-2"], "--offsets needs one partition, not 2. Use --topic TOPIC:0"),
    (["--topic", "TOPIC:0", "--offsets", "30"], "Use START-END"),
    (["--topic", "TOPIC:0", "--offsets", "40-30"], "must start at 0 or later, and not be empty"),
    (["--topic", "TOPIC:0", "--offsets=-5-3"], "Use START-END"),
    (["--topic", "TOPIC:0", "--offsets", "30-40", "--offsets", "35-36"], "name each offset once"),
    (["--topic", "TOPIC:0", "--offsets", "100-200"], "nothing to replay"),
    (["--topic", "TOPIC:0", "--offsets", "1-2", "--status", "failed"], "not both"),
    (["--topic", "TOPIC:0", "--offsets", "1-2", "--since", BETWEEN], "not both"),
    (["--all", "--since", "yesterday"], "Invalid timestamp"),
    (["--all", "--since", "2026-01-01T00:00:00"], "has no zone"),
    (["--all", "--since", "2999-01-01T00:00:00Z"], "is in the future. Use a time in the past"),
    (["--all", "--until", "2999-01-01T00:00:00Z"], "--until '2999-01-01T00:00:00Z' is in the future"),
    (["--all", "--since", BETWEEN, "--until", BETWEEN], "--since must be before --until"),
    (["--all", "--until", "1999-01-01T00:00:00Z"], "no range matches"),
    (["--all", "--status", "failed", "--since", BETWEEN], "No failed offsets in this scope"),
    (["--all", "--status", "expired"], "invalid choice"),
    (["--all", "--rate", "0"], "at least 1"),
    (["--all", "--rate", "fast"], "not a whole number"),
    (["--all", "--rate", "3000000000", "--execute", "--reason", "r"], "from 1 to 2,147,483,647 records a second"),
    (["--resume", "12345678"], "See --list"),
    (["--resume", "x"], "not a whole number"),
    (["--cancel", "12345678", "--reason", "r"], "Unknown replay"),
    (["--cancel", "1", "--resume", "1"], "not allowed with"),
    (["--list", "--resume", "1"], "not allowed with"),
    (["--all", "--dead-letters"], "No pending dead letter matches"),
    (["--all", "--dead-letters", "--execute"], "--execute needs --reason"),
    (
        ["--all", "--dead-letters", "x", "--offsets", "1-2"],
        "cannot be combined with --offsets: it requeues all pending ones",
    ),
    (
        ["--all", "--dead-letters", "--since", BETWEEN, "--status", "failed"],
        "cannot be combined with --since, --status",
    ),
    (["--all", "--dead-letters", "--rate", "5", "--background"], "cannot be combined with --rate, --background"),
]


def test_nonsense_is_refused_with_what_to_do_and_changes_nothing(scenario: Scenario) -> None:
    for options, says in NONSENSE:
        arguments = [option.replace("TOPIC:", f"{scenario.name}:") for option in options]
        with pytest.raises(CommandError, match=re.escape(says.replace("TOPIC-", f"{scenario.name}-"))) as refused:
            call_command("replay_offsets", "--group", scenario.name, *arguments, stdout=io.StringIO())
        # argparse's own errors get their status where the process ends.
        assert refused.value.returncode == (2 if isinstance(refused.value.__cause__, OffsetsError) else 1), options
    scenario.assert_counted(*BEFORE)
    assert not Replay.objects.exists()
    assert not OperatorAction.objects.filter(outcome="applied", kind__in=("replay", "requeue")).exists()


def test_a_partition_of_which_kafka_tells_nothing_is_not_taken_whole(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KafkaAdmin, "offsets_for_time", lambda *_: {scenario.place(0): 40})
    with pytest.raises(CommandError, match=f"offsets of {scenario.name}-1 by time; try again") as away:
        run(scenario, "--all", "--since", BETWEEN)
    assert away.value.returncode == 3


def test_what_was_shown_and_is_not_true_any_more_is_not_done(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = requests.preview

    def and_then(*arguments: Any) -> Any:
        plans = preview(*arguments)
        scenario.seek(30)
        scenario.append((5, "processed"))
        return plans

    monkeypatch.setattr(requests, "preview", and_then)
    with pytest.raises(CommandError, match="10 offsets were to be counted, now 5") as refused:
        run(scenario, "--topic", first(scenario), "--execute", "--reason", "mended")
    assert refused.value.returncode == 2
    assert OperatorAction.objects.get(kind="replay").outcome == "refused"


def test_it_ends_with_3_while_kafka_does_not_answer(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: object) -> None:
        raise ServiceUnavailableError("Kafka does not answer. Check KAFKA_BOOTSTRAP_SERVERS.")

    monkeypatch.setattr("offsets.replays.requests.logs_of", away)
    with pytest.raises(CommandError, match="Kafka does not answer") as refused:
        run(scenario, "--all", "--execute", "--reason", "mended")
    assert refused.value.returncode == 3
    assert_untouched(scenario)


def test_it_runs_from_the_command_line(scenario: Scenario, service_env: dict[str, str]) -> None:
    data = manage_json(
        service_env, "replay_offsets", "--group", scenario.name, "--all", "--execute", "--reason", "mended"
    )
    assert (data["status"], data["counted"]) == ("done", 20)
    assert not LedgerRange.objects.filter(kind="failed").exists()
