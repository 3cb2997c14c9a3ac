"""The command dead_letters."""

import base64
import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from offsets.actions import dead_letter_listing, dead_letters
from offsets.models import DeadLetter, OperatorAction
from tests.support.dead_letters import act, assert_whole, big, partitions, read, refused, statuses
from tests.support.page_rows import ago

pytestmark = pytest.mark.django_db


@partitions
def test_a_letter_is_shown_whole() -> None:
    (pk,) = read([b"\xff\x00not text"], named=[("trace", b"abc"), ("empty", None), ("raw", b"\xff")])
    shown = dead_letter_listing.as_json(DeadLetter.objects.get(pk=pk))
    assert (shown["topic"], shown["partition"], shown["offset"], shown["status"]) == ("t", 0, 0, "pending")
    assert shown["value"] is None, "it is no text"
    assert base64.b64decode(shown["value_base64"]) == b"\xff\x00not text"
    assert shown["value_bytes"] == 10
    assert shown["key"] == "key"
    assert shown["headers"] == [["trace", "abc"], ["empty", None], ["raw", None]]
    DeadLetter.objects.update(value=None, headers=b"{broken")
    shown = dead_letter_listing.as_json(DeadLetter.objects.get(pk=pk))
    assert (shown["value"], shown["value_base64"], shown["value_bytes"], shown["headers"]) == (None, None, None, [])


def run(*arguments: str) -> Any:
    out = io.StringIO()
    call_command("dead_letters", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def in_words(*arguments: str) -> str:
    out = io.StringIO()
    call_command("dead_letters", *arguments, stdout=out)
    return out.getvalue()


@partitions
def test_the_command_lists_newest_first_and_says_how_many_there_are() -> None:
    ids = read([big(), b"nonsense", big("like")])
    DeadLetter.objects.filter(pk=ids[0]).update(created_at=ago(-5))
    act(dead_letters.DISCARD, ids[2:])

    data = run("--limit", "2")

    assert data["count"] == 3
    assert [item["id"] for item in data["items"]] == [ids[0], ids[2]]
    assert data["items"][1]["status"] == "discarded"
    assert run("--status", "pending", "--topic", "t", "--partition", "0")["count"] == 2
    assert run("--group", "another") == {"count": 0, "items": []}
    assert "2 of 3 shown; raise --limit for more." in in_words("--limit", "2")
    assert run("--show", str(ids[1]))["value"] == "nonsense"
    assert "nonsense" in in_words("--show", str(ids[1]))


@partitions
def test_the_command_only_says_what_would_happen_unless_told_to_execute() -> None:
    ids = read([big(), b"nonsense"])

    data = run("--requeue")

    assert data["executed"] is False
    assert (data["matched"], data["changed"], data["still_fail"]) == (2, 0, 1)
    assert set(statuses().values()) == {"pending"}
    assert not OperatorAction.objects.exists()
    assert "Dry run: nothing was changed" in in_words("--requeue")
    assert "Still fails: " in in_words("--requeue")

    data = run("--requeue", "--execute", "--reason", "the limit is raised")

    assert (data["executed"], data["changed"], data["still_fail"]) == (True, 1, 1)
    assert statuses() == {0: "counted", 1: "pending"}
    action = OperatorAction.objects.get()
    assert (action.pk, action.source, action.reason) == (data["action_id"], "command", "the limit is raised")
    assert action.username.startswith("os:")
    assert_whole(share=1)
    assert "Done: 1 changed, 0 unchanged." in in_words("--discard", "--id", str(ids[1]), "--execute", "--reason", "r")
    assert statuses()[1] == "discarded"
    assert run("--reopen", "--execute", "--reason", "r")["changed"] == 1
    assert statuses()[1] == "pending"


@partitions
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--requeue", "--execute"], "--execute needs --reason"),
        (["--requeue", "--execute", "--reason", "  "], "--execute needs --reason"),
        (["--execute", "--reason", "r"], "--execute needs --requeue, --discard or --reopen"),
        (["--partition", "0"], "--partition needs --topic"),
        (["--show", "987654"], "has no dead letter 987654"),
        (["--requeue", "--topic", "none"], "No dead letter matches"),
        (["--requeue", "--id", "987654"], "Unknown or replaced dead letter 987654"),
        (["--reopen"], "No dead letter matches"),
        (["--requeue", "--status", "discarded"], "--requeue acts on pending dead letters, not on discarded ones"),
        (["--reopen", "--status", "pending"], "--reopen acts on discarded dead letters, not on pending ones"),
        (["--discard", "--execute", "--reason", "x" * 501], "501 characters"),
    ],
)
def test_the_command_refuses_nonsense_and_changes_nothing(arguments: list[str], says: str) -> None:
    read([big()])
    assert says in refused(*arguments)
    assert statuses() == {0: "pending"}


@pytest.mark.parametrize(
    "arguments",
    [["--id", "0"], ["--id=-1"], ["--id", "x"], ["--partition", "1.5", "--topic", "t"], ["--limit", "0"]],
)
def test_the_command_refuses_what_is_no_number(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("dead_letters", *arguments)


def test_the_command_acts_in_one_way_at_a_time() -> None:
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("dead_letters", "--requeue", "--discard")
