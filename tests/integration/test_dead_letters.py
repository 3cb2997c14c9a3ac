"""Dead letters that count after all, or never will: by the service layer and by the command."""

import base64
import io
import json
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DataError, connection, transaction
from django.test import override_settings

from analytics.metrics_store import MetricsStore
from analytics.models import EngagementMinute
from analytics.processor import EngagementProcessor
from offsets import leases, ledger
from offsets.actions import audit, dead_letters, undo
from offsets.actions.dead_letters import DeadLetterFilter, LettersOutcome
from offsets.actions.guards import Actor, ReasonError, Source
from offsets.errors import LedgerConflictError, NotAllowedError, RefusedError
from offsets.ledger import Baseline
from offsets.models import DeadLetter, JournalEntry, OperatorAction, PartitionCheckpoint
from offsets.monitoring import invariants
from offsets.recovery.manager import RecoveryManager
from offsets.types import Claim, RecordBatch
from tests.page_rows import GROUP, ago
from tests.unit.test_aggregation import HOUR, Record, event

pytestmark = pytest.mark.django_db

OPERATOR = Actor("olga", allowed=True)
VIEWER = Actor("victor", allowed=False)
LIMIT = 200
PENDING = DeadLetterFilter(GROUP)


@pytest.fixture
def _partitions(db: None) -> None:
    baselines = {number: Baseline("topic-id", 0, "earliest") for number in range(2)}
    ledger.insert_baselines(GROUP, "t", baselines, EngagementProcessor().dimensions)


partitions = pytest.mark.usefixtures("_partitions")


def big(kind: str = "share", user: int = 7, content: int = 9, at: int = 10 * HOUR) -> bytes:
    """An event that is right, and was larger than the limit when it was read."""
    return event(kind, user, content, at)[:-1] + b', "note": "' + b"x" * LIMIT + b'"}'


def live(number: int = 0) -> PartitionCheckpoint:
    return PartitionCheckpoint.objects.get(group_id=GROUP, partition=number, retired_at__isnull=True)


def read(values: Sequence[bytes | None], number: int = 0, **record: Any) -> list[int]:
    """Count a batch as a worker does, while events may not be larger than LIMIT. Returns its dead letters."""
    row = live(number)
    claim = Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset, tuple(row.dimensions), row.topic_id)
    records = [Record(row.next_offset + n, value, **record) for n, value in enumerate(values)]
    with override_settings(EVENT_MAX_BYTES=LIMIT):
        handler = EngagementProcessor()
    batch = RecordBatch(claim, row.next_offset, row.next_offset + len(values), records, 0)
    commit = handler.combine([handler.decode(batch)])
    with transaction.atomic():
        handler.insert([commit], connection)
        ledger.lock_for_commit([commit])
        handler.update([commit], connection)
        ledger.record_processed([commit], uuid.uuid4())
    found = DeadLetter.objects.filter(checkpoint=row, offset__gte=batch.start).order_by("offset")
    return list(found.values_list("pk", flat=True))


def act(
    kind: str, ids: Sequence[int], *, actor: Actor = OPERATOR, reason: str = "the limit is raised"
) -> LettersOutcome:
    return dead_letters.resolve(kind, ids, actor=actor, reason=reason, source=Source.API)


def totals() -> dict[str, int]:
    return {name: count for name, count in MetricsStore().totals(GROUP).items() if count}


def statuses() -> dict[int, str]:
    return dict(DeadLetter.objects.order_by("offset").values_list("offset", "status"))


def assert_whole(**expected: int) -> None:
    """I1 to I6 hold, and exactly so many events are counted."""
    result = invariants.check(GROUP)
    assert result.ok, result
    assert totals() == expected


# --- Requeue --------------------------------------------------------------------------------------


@partitions
def test_a_requeued_letter_is_counted_once_in_every_dimension() -> None:
    ids = read([event("view", 1, 5), big("share", 7, 9), event("view", 2, 5), big("like", 7, 5)])
    assert_whole(view=2)

    done = act(dead_letters.REQUEUE, ids)

    assert_whole(view=2, share=1, like=1)
    store = MetricsStore()
    assert store.entity_totals("content", 5, GROUP) == {"view": 2, "like": 1, "comment": 0, "share": 0}
    assert store.entity_totals("content", 9, GROUP) == {"view": 0, "like": 0, "comment": 0, "share": 1}
    assert store.entity_totals("user", 7, GROUP) == {"view": 0, "like": 1, "comment": 0, "share": 1}
    assert statuses() == {1: "counted", 3: "counted"}
    assert (done.changed, done.still_fail, done.reasons) == (2, 0, ())
    for letter in DeadLetter.objects.all():
        assert letter.action_id == done.action.pk
        assert letter.resolved_at is not None
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.username, action.source) == ("requeue", "applied", "olga", "api")
    assert (action.before, action.after) == ({"ids": ids}, {"changed": 2, "still_fail": 0})
    assert action.target == f"{GROUP} t-0: 2 dead letters"
    assert JournalEntry.objects.get().message.startswith("olga: Requeue 2 dead letters: counted now")
    assert live().next_offset == 4, "the live offset does not move"


@partitions
def test_a_letter_is_counted_and_marked_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = read([event("view", 1, 5), big()])
    monkeypatch.setattr(ledger, "settle_letters", lambda *_: 0)

    with pytest.raises(LedgerConflictError):
        act(dead_letters.REQUEUE, ids)

    assert_whole(view=1)
    assert statuses() == {1: "pending"}
    assert not OperatorAction.objects.exists()


@partitions
def test_it_counts_the_bytes_and_the_time_that_were_kept() -> None:
    wild = 10 * 365 * 24 * HOUR
    ids = read([big("share", 7, 9, at=wild)], time=20 * HOUR)
    DeadLetter.objects.update(value=event("comment", 8, 11, wild))

    act(dead_letters.REQUEUE, ids)

    assert_whole(comment=1)
    minute = EngagementMinute.objects.get().minute
    assert minute == datetime.fromtimestamp(20 * 3600, UTC), "a wild clock counts in the record's own minute"


@partitions
def test_letters_of_several_partitions_are_requeued_together() -> None:
    ids = read([big()], 1) + read([event("view", 1, 1), big(), big("like")], 0)
    done = act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=2, like=1)
    assert done.action.checkpoint_id is None
    assert done.action.target == "3 dead letters"


@partitions
def test_what_still_cannot_be_decoded_stays_pending_and_is_told() -> None:
    ids = read([big(), b"nonsense", big("like"), None])

    shown = dead_letters.preview(dead_letters.REQUEUE, PENDING, OPERATOR)

    assert (shown.ids, shown.will_change, shown.still_fail) == (tuple(ids), 2, 2)
    assert "Requeue 2 dead letters: counted now" in shown.text
    assert "2 would fail again" in shown.text
    assert len(shown.reasons) == 2
    assert shown.reasons[0].startswith(f"{DeadLetter.objects.get(pk=ids[1]).error_code}: ")
    assert not totals()
    assert not OperatorAction.objects.exists(), "a preview changes nothing"

    done = act(dead_letters.REQUEUE, shown.ids)

    assert_whole(share=1, like=1)
    assert statuses() == {0: "counted", 1: "pending", 2: "counted", 3: "pending"}
    assert (done.changed, done.still_fail, done.reasons) == (2, 2, shown.reasons)
    action = OperatorAction.objects.get()
    assert action.after == {"changed": 2, "still_fail": 2}
    assert action.detail == done.text == shown.text, "the audit tells what was done, not what was asked"


@partitions
def test_it_is_refused_where_nothing_of_it_can_be_counted() -> None:
    ids = read([b"nonsense", event("view", 1, 1)])

    with pytest.raises(RefusedError, match=r"It still cannot be counted: .* Nothing was changed"):
        act(dead_letters.REQUEUE, ids)

    assert_whole(view=1)
    assert statuses() == {0: "pending"}
    action = OperatorAction.objects.get()
    assert (action.outcome, action.target) == ("refused", f"dead letter {ids[0]}")
    assert "It still cannot be counted" in action.detail


@partitions
@pytest.mark.parametrize("unfit", [{0}, {5}, {7}, {2, 3}, {0, 4, 7}])
def test_what_the_database_refuses_is_found_by_halving(monkeypatch: pytest.MonkeyPatch, unfit: set[int]) -> None:
    ids = read([big()] * 8)
    update = EngagementProcessor.update

    def refuse(self: EngagementProcessor, commits: Any, on: Any) -> None:
        update(self, commits, on)
        if any(one.start <= offset < one.end for one in commits for offset in unfit):
            raise DataError("out of range")

    monkeypatch.setattr(EngagementProcessor, "update", refuse)

    done = act(dead_letters.REQUEUE, ids)

    assert_whole(share=8 - len(unfit))
    assert {offset for offset, status in statuses().items() if status == "pending"} == unfit
    assert done.still_fail == len(unfit)
    assert all("DataError: out of range" in reason for reason in done.reasons)


@partitions
def test_what_was_requeued_is_not_requeued_again() -> None:
    ids = read([big(), big()])
    act(dead_letters.REQUEUE, ids[:1])

    for again in (ids[:1], ids):
        with pytest.raises(RefusedError, match=r"\(t-0 offset 0\) is counted already; nothing was changed"):
            act(dead_letters.REQUEUE, again)

    assert_whole(share=1)
    assert statuses() == {0: "counted", 1: "pending"}
    assert list(OperatorAction.objects.order_by("pk").values_list("outcome", flat=True)) == [
        *("applied", "refused", "refused")
    ]


@partitions
@pytest.mark.django_db(transaction=True)
def test_of_two_operators_who_requeue_the_same_one_counts_it() -> None:
    ids = read([big(), big("like")])
    barrier = threading.Barrier(2, timeout=10)
    outcomes = []

    def requeue(name: str) -> None:
        try:
            barrier.wait()
            act(dead_letters.REQUEUE, ids, actor=Actor(name, allowed=True))
            outcomes.append("applied")
        except RefusedError:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=requeue, args=(name,)) for name in ("olga", "oskar")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["applied", "refused"]
    assert_whole(share=1, like=1)


# --- Discard, reopen, undo ------------------------------------------------------------------------


@partitions
def test_a_discarded_letter_is_never_counted_and_can_be_reopened() -> None:
    ids = read([event("view", 1, 1), big()])

    done = act(dead_letters.DISCARD, ids)

    assert_whole(view=1)
    letter = DeadLetter.objects.get()
    assert (letter.status, letter.action_id) == ("discarded", done.action.pk)
    assert letter.resolved_at is not None
    for kind in (dead_letters.REQUEUE, dead_letters.DISCARD):
        with pytest.raises(RefusedError, match="is discarded already"):
            act(kind, ids)
    act(dead_letters.REOPEN, ids)
    assert statuses() == {1: "pending"}
    assert DeadLetter.objects.filter(action=None, resolved_at=None).exists()
    with pytest.raises(RefusedError, match="is pending already"):
        act(dead_letters.REOPEN, ids)
    act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=1)


@partitions
def test_a_discard_is_undone_for_what_it_discarded_and_nothing_else() -> None:
    ids = read([big(), big("like"), big("comment")])
    mine, other = act(dead_letters.DISCARD, ids[:2]), act(dead_letters.DISCARD, ids[2:])
    undone = undo.find(str(mine.action.pk))
    assert undo.texts(undone, OPERATOR) == ["Reopen 2 discarded dead letters: pending again."]

    (action,) = undo.undo(undone, actor=OPERATOR, reason="too soon", source=Source.API)

    assert statuses() == {0: "pending", 1: "pending", 2: "discarded"}
    assert (action.kind, action.undoes_id) == ("reopen", mine.action.pk)
    assert action.reason == "too soon"
    with pytest.raises(RefusedError, match="was undone already"):
        undo.find(str(mine.action.pk))
    act(dead_letters.REOPEN, ids[2:])
    with pytest.raises(RefusedError, match="nothing is left to undo"):
        undo.texts(undo.find(str(other.action.pk)), OPERATOR)
    assert_whole()


@partitions
def test_a_requeue_cannot_be_undone() -> None:
    done = act(dead_letters.REQUEUE, read([big()]))
    with pytest.raises(RefusedError, match="cannot be undone"):
        undo.texts(undo.find(str(done.action.pk)), OPERATOR)
    with pytest.raises(RefusedError):
        undo.undo(undo.find(str(done.action.pk)), actor=OPERATOR, reason="r", source=Source.API)
    assert_whole(share=1)


# --- Which letters, by whom -----------------------------------------------------------------------


def offsets_of(chosen: DeadLetterFilter) -> list[tuple[int, int]]:
    return list(chosen.rows().values_list("checkpoint__partition", "offset"))


@partitions
def test_filters_choose_letters_in_offset_order() -> None:
    ids = read([big(), b"nonsense", big()], 0) + read([b"nonsense", big()], 1)
    ledger.insert_baselines("another", "t", {0: Baseline("topic-id", 0, "earliest")}, ("content",))
    foreign = PartitionCheckpoint.objects.get(group_id="another")
    alien = DeadLetter.objects.create(checkpoint=foreign, offset=0, error_code="not_json", error_detail="d")
    act(dead_letters.DISCARD, ids[2:3])
    codes = dict(DeadLetter.objects.filter(pk__in=ids).values_list("pk", "error_code"))

    assert offsets_of(PENDING) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert offsets_of(DeadLetterFilter(GROUP, status="")) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert offsets_of(DeadLetterFilter(GROUP, status="discarded")) == [(0, 2)]
    assert offsets_of(DeadLetterFilter(GROUP, topic="t", partition=1)) == [(1, 0), (1, 1)]
    assert offsets_of(DeadLetterFilter(GROUP, partition=0)) == [(0, 0), (0, 1)]
    assert offsets_of(DeadLetterFilter(GROUP, topic="other")) == []
    assert offsets_of(DeadLetterFilter(GROUP, error_code=codes[ids[1]])) == [(0, 1), (1, 0)]
    assert offsets_of(DeadLetterFilter(GROUP, ids=(ids[4], ids[2]))) == [(0, 2), (1, 1)]
    assert offsets_of(DeadLetterFilter(GROUP, ids=(alien.pk,))) == []


@partitions
@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (DeadLetterFilter(GROUP, topic="none"), "No dead letter matches"),
        (DeadLetterFilter(GROUP, ids=(987654,)), "There is no dead letter 987654"),
        (DeadLetterFilter("another"), "No dead letter matches"),
    ],
)
def test_it_says_where_nothing_matches(chosen: DeadLetterFilter, says: str) -> None:
    read([big()])
    with pytest.raises(RefusedError, match=says):
        dead_letters.preview(dead_letters.DISCARD, chosen, OPERATOR)


@partitions
def test_so_many_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_LETTERS", 2)
    ids = read([big(), big(), big()])
    with pytest.raises(RefusedError, match="More than 2 dead letters match"):
        dead_letters.preview(dead_letters.REQUEUE, PENDING, OPERATOR)
    with pytest.raises(RefusedError, match="At most 2 dead letters at once, not 3"):
        act(dead_letters.REQUEUE, ids)
    assert OperatorAction.objects.get().outcome == "refused"
    assert set(statuses().values()) == {"pending"}
    assert act(dead_letters.REQUEUE, ids[:2]).changed == 2


@partitions
@pytest.mark.parametrize("kind", [dead_letters.REQUEUE, dead_letters.DISCARD, dead_letters.REOPEN])
def test_a_viewer_may_not_and_the_attempt_is_audited(kind: str) -> None:
    ids = read([big()])
    with pytest.raises(NotAllowedError, match=f"victor may not {kind}"):
        dead_letters.preview(kind, PENDING, VIEWER)
    assert not OperatorAction.objects.exists()
    with pytest.raises(NotAllowedError):
        act(kind, ids, actor=VIEWER)
    action = OperatorAction.objects.get()
    assert (action.kind, action.outcome, action.username) == (kind, "refused", "victor")
    assert statuses() == {0: "pending"}


@partitions
@pytest.mark.parametrize("reason", ["", " \x00 ", "x" * 501])
def test_it_wants_to_know_why(reason: str) -> None:
    ids = read([big()])
    with pytest.raises(ReasonError):
        act(dead_letters.DISCARD, ids, reason=reason)
    assert statuses() == {0: "pending"}
    assert OperatorAction.objects.get().outcome == "refused"


# --- After a rebuild ------------------------------------------------------------------------------


def rebuild(*, reason: str = "rebuilt") -> PartitionCheckpoint:
    """Begin the partition again at 0, as the operator's action does."""
    row = live()
    action = audit.applied(
        "rebuild", row, actor=OPERATOR, reason="r", source=Source.API, before={}, after={}, detail=""
    )
    with transaction.atomic():
        return ledger.retire_and_restart(row, action=action, reason=reason, baseline=0, topic_id=row.topic_id)


@partitions
def test_letters_whose_counts_a_rebuild_has_replaced_are_left_alone() -> None:
    ids = read([big()])
    rebuild()

    assert offsets_of(DeadLetterFilter(GROUP, ids=tuple(ids))) == []
    with pytest.raises(RefusedError, match="counts that a rebuild has replaced"):
        act(dead_letters.REQUEUE, ids)

    assert statuses() == {0: "pending"}
    assert_whole()


@partitions
def test_letters_of_a_topic_that_was_there_before_can_still_be_counted() -> None:
    ids = read([event("view", 1, 1), big()])
    rebuild(reason="topic_recreated")
    assert offsets_of(PENDING) == [(0, 1)]
    act(dead_letters.REQUEUE, ids)
    assert_whole(view=1, share=1)


def tick_count_again() -> None:
    manager = RecoveryManager(GROUP, "A", dispatch=lambda _: None)
    leases.drop(f"count-again:{GROUP}")
    token = leases.acquire(manager._lease_name, "A", 5)
    assert token
    manager._count_again(token)


@partitions
def test_a_letter_that_was_counted_before_a_rebuild_counts_again_after_it() -> None:
    values = [event("view", 1, 1), big(), b"nonsense", big("like")]
    ids = read(values)
    act(dead_letters.REQUEUE, [ids[0]])
    assert_whole(view=1, share=1)
    rebuild()
    tick_count_again()
    assert_whole()
    again = read(values)
    assert_whole(view=1)
    assert dead_letters.counted_before_rebuild(GROUP) == [again[0]]

    tick_count_again()

    assert_whole(view=1, share=1)
    automatic = OperatorAction.objects.get(source="automatic")
    assert (automatic.kind, automatic.outcome, automatic.username) == ("requeue", "applied", "auto:recovery-manager")
    assert automatic.reason == "it was counted before the partition was rebuilt"
    assert dead_letters.counted_before_rebuild(GROUP) == []
    tick_count_again()
    assert_whole(view=1, share=1)
    assert OperatorAction.objects.filter(source="automatic").count() == 1


@partitions
def test_what_cannot_count_again_is_tried_once_and_told() -> None:
    ids = read([big()])
    act(dead_letters.REQUEUE, ids)
    rebuild()
    again = read([big()])
    DeadLetter.objects.filter(pk__in=again).update(value=b"nonsense")

    tick_count_again()
    tick_count_again()

    refused = OperatorAction.objects.get(source="automatic")
    assert (refused.outcome, refused.target) == ("refused", f"{GROUP} t-0")
    assert "It still cannot be counted" in refused.detail
    assert DeadLetter.objects.get(pk=again[0]).status == "pending"
    assert_whole()


@partitions
def test_what_somebody_else_counted_in_this_moment_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    act(dead_letters.REQUEUE, read([big(), big("like")]))
    rebuild()
    again = read([big(), big("like")])
    lock = ledger.lock_dead_letters
    with monkeypatch.context() as patch:

        def too_late(ids: Sequence[int]) -> list[DeadLetter]:
            patch.setattr(ledger, "lock_letters", lock)
            act(dead_letters.REQUEUE, again[:1])
            return lock(ids)

        patch.setattr(ledger, "lock_letters", too_late)
        tick_count_again()
    assert not OperatorAction.objects.filter(source="automatic").exists()
    tick_count_again()
    assert_whole(share=1, like=1)


@partitions
def test_letters_of_another_topic_id_are_not_taken_for_the_same() -> None:
    act(dead_letters.REQUEUE, read([big()]))
    PartitionCheckpoint.objects.update(topic_id="the former topic")
    rebuild()
    PartitionCheckpoint.objects.filter(retired_at__isnull=True).update(topic_id="topic-id")
    read([big()])
    assert dead_letters.counted_before_rebuild(GROUP) == []


# --- For readers ----------------------------------------------------------------------------------


@partitions
def test_a_letter_is_shown_whole() -> None:
    (pk,) = read([b"\xff\x00not text"], named=[("trace", b"abc"), ("empty", None), ("raw", b"\xff")])
    shown = dead_letters.as_json(DeadLetter.objects.get(pk=pk))
    assert (shown["topic"], shown["partition"], shown["offset"], shown["status"]) == ("t", 0, 0, "pending")
    assert shown["value"] is None, "it is no text"
    assert base64.b64decode(shown["value_base64"]) == b"\xff\x00not text"
    assert shown["value_bytes"] == 10
    assert shown["key"] == "key"
    assert shown["headers"] == [["trace", "abc"], ["empty", None], ["raw", None]]
    DeadLetter.objects.update(value=None, headers=b"{broken")
    shown = dead_letters.as_json(DeadLetter.objects.get(pk=pk))
    assert (shown["value"], shown["value_base64"], shown["value_bytes"], shown["headers"]) == (None, None, None, [])


# --- The command ----------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    out = io.StringIO()
    call_command("dead_letters", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def in_words(*arguments: str) -> str:
    out = io.StringIO()
    call_command("dead_letters", *arguments, stdout=out)
    return out.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        call_command("dead_letters", *arguments, stdout=io.StringIO())
    assert error.value.returncode == 2
    return str(error.value)


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
    assert "Done: 1 changed, 0 left as they are." in in_words(
        "--discard", "--id", str(ids[1]), "--execute", "--reason", "r"
    )
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
        (["--requeue", "--id", "987654"], "There is no dead letter 987654"),
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


@partitions
def test_more_bytes_than_the_memory_should_hold_are_not_requeued_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = read([big(), big("like")])
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 10)
    with pytest.raises(RefusedError, match="are requeued at once; choose fewer"):
        dead_letters.preview(dead_letters.REQUEUE, PENDING, OPERATOR)
    with pytest.raises(RefusedError, match="are requeued at once; choose fewer"):
        act(dead_letters.REQUEUE, ids)
    act(dead_letters.DISCARD, ids)  # needs no bytes
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"discarded"}


@partitions
def test_a_partition_whose_letters_cannot_count_again_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    act(dead_letters.REQUEUE, read([big(), big("like")]))
    rebuild()
    again = read([big(), big("like")])
    first = DeadLetter.objects.get(pk=again[0]).checkpoint_id
    other = live(1)
    OperatorAction.objects.create(
        kind=dead_letters.REQUEUE,
        checkpoint=other,
        username="auto:recovery-manager",
        target="t",
        source="automatic",
        reason="r",
        outcome="refused",
        detail="It still cannot be counted.",
    )
    assert dead_letters.counted_before_rebuild(GROUP) == again
    OperatorAction.objects.update(checkpoint_id=first)
    assert dead_letters.counted_before_rebuild(GROUP) == []
