"""Which dead letters an action takes, and who may."""

import pytest

from offsets import ledger
from offsets.actions import dead_letters
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Actor, ReasonError
from offsets.errors import NotAllowedError, RefusedError
from offsets.ledger import Baseline
from offsets.models import DeadLetter, OperatorAction, PartitionCheckpoint
from tests.support.dead_letters import OPERATOR, PENDING, act, big, offsets_of, partitions, read, statuses
from tests.support.page_rows import GROUP

pytestmark = pytest.mark.django_db


VIEWER = Actor("victor", allowed=False)


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
        (DeadLetterFilter(GROUP, ids=(987654,)), "Unknown or replaced dead letter 987654"),
        (DeadLetterFilter("another"), "No dead letter matches"),
    ],
)
def test_it_says_where_nothing_matches(chosen: DeadLetterFilter, says: str) -> None:
    read([big()])
    with pytest.raises(RefusedError, match=says):
        dead_letters.preview(dead_letters.DISCARD, chosen, OPERATOR)


@partitions
def test_so_many_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DEAD_LETTERS", 2)
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


@partitions
def test_more_bytes_than_the_memory_should_hold_are_not_requeued_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = read([big(), big("like")])
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 10)
    with pytest.raises(RefusedError, match=r"are requeued at once\. Filter by"):
        dead_letters.preview(dead_letters.REQUEUE, PENDING, OPERATOR)
    with pytest.raises(RefusedError, match=r"are requeued at once\. Filter by"):
        act(dead_letters.REQUEUE, ids)
    act(dead_letters.DISCARD, ids)  # needs no bytes
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"discarded"}
