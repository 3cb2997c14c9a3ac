"""Where a claim begins when its offsets are kept in a store, and what is written beside an offset in Kafka."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offsets.kafka.metadata import metadata_of, stored_offset
from offsets.processing.offset_store import resume_at
from offsets.stores.base import refusal
from offsets.types import Claim, HaltReason, StoreCommit, StoredOffset, TopicPartition

NUMBERS = st.integers(0, 2**63 - 1)


def _claim(**fields: object) -> Claim:
    """Committed to Redis up to 100, under epoch 5; no action moved it."""
    values: dict[str, object] = {
        "checkpoint_id": 1,
        "topic": "t",
        "partition": 0,
        "epoch": 5,
        "next_offset": 100,
        "ledger_end": 100,
        "store": "redis",
        "committed": True,
        **fields,
    }
    return Claim(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("claim", "stored", "begins_at"),
    [
        pytest.param(_claim(), StoredOffset(100, 4), 100, id="they agree"),
        pytest.param(_claim(), StoredOffset(80, 4), 100, id="store behind: its last write was lost"),
        pytest.param(_claim(ledger_end=150), StoredOffset(150, 4), 150, id="killed between the store and next_offset"),
        pytest.param(_claim(ledger_end=150), StoredOffset(120, 4), 120, id="the store stands within the ledger"),
        pytest.param(_claim(ledger_end=150), StoredOffset(80, 4), 100, id="a seek back, and a store behind even that"),
        pytest.param(_claim(), StoredOffset(500, 4), 100, id="store ahead of the ledger: nobody seeks by that"),
        pytest.param(_claim(ledger_end=150), StoredOffset(2**62, 9), 150, id="far ahead, whatever its epoch"),
        pytest.param(_claim(ledger_end=0), StoredOffset(50, 4), 100, id="a ledger that begins below is no limit"),
        pytest.param(_claim(ledger_end=150), StoredOffset(150), 150, id="another tool's, where no action moved it"),
        pytest.param(
            _claim(ledger_end=150, moved_epoch=5), StoredOffset(150, 4), 100, id="an action newer than the store wins"
        ),
        pytest.param(_claim(ledger_end=150, moved_epoch=5), StoredOffset(150), 100, id="also over another tool's"),
        pytest.param(
            _claim(ledger_end=150, moved_epoch=5),
            StoredOffset(150, 5),
            150,
            id="the store was written since the action",
        ),
        pytest.param(_claim(store="file"), StoredOffset(70, 4), 100, id="switched from the file to Redis"),
        pytest.param(_claim(store="file", ledger_end=150), StoredOffset(150, 9), 100, id="switched to one left ahead"),
        pytest.param(_claim(store="file"), None, 100, id="switched to an empty one"),
        pytest.param(_claim(store=""), None, 100, id="claimed for the first time"),
        pytest.param(_claim(committed=False), None, 100, id="nothing was ever committed to it"),
        pytest.param(
            _claim(committed=False, ledger_end=150),
            StoredOffset(150, 4),
            100,
            id="what is there is not of this group's",
        ),
    ],
)
def test_a_claim_begins(claim: Claim, stored: StoredOffset | None, begins_at: int) -> None:
    resume = resume_at(claim, stored, "redis")
    assert (resume.next_offset, resume.halt_reason, resume.detail) == (begins_at, HaltReason.NONE, "")


@pytest.mark.parametrize("moved_epoch", [0, 5])
def test_it_halts_where_the_store_has_lost_what_it_held(moved_epoch: int) -> None:
    resume = resume_at(_claim(moved_epoch=moved_epoch, ledger_end=150), None, "redis")
    assert resume.halt_reason is HaltReason.STORE_MISSING
    assert resume.next_offset == 100
    assert "redis" in resume.detail
    assert "100" in resume.detail


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 9), st.booleans(), st.integers(0, 99), st.integers(0, 9))
def test_it_never_goes_back_and_never_past_the_ledger(
    next_offset: int, more: int, moved_epoch: int, committed: bool, at: int, epoch: int
) -> None:
    end = next_offset + more
    claim = _claim(next_offset=next_offset, ledger_end=end, moved_epoch=moved_epoch, committed=committed)
    assert next_offset <= resume_at(claim, StoredOffset(at, epoch), "redis").next_offset <= end


# --- Metadata in Kafka ----------------------------------------------------------------------------


@given(NUMBERS, NUMBERS, st.text(max_size=60))
def test_metadata_is_read_as_it_was_written(offset: int, epoch: int, worker: str) -> None:
    stored = StoredOffset(offset, epoch, worker)
    assert stored_offset(offset, metadata_of(stored)) == stored


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["epoch", "worker", "x"]), inner),
    max_leaves=6,
)


@given(st.text())
@example("")
@example("null")
@example('"epoch"')
@example('{"epoch":1}')
@example('{"worker":"w"}')
@example('{"epoch":true,"worker":"w"}')
@example('{"epoch":1.0,"worker":"w"}')
@example('{"epoch":NaN,"worker":"w"}')
@example('{"epoch":-1,"worker":"w"}')
@example('{"epoch":9223372036854775808,"worker":"w"}')
@example('{"epoch":1,"worker":null}')
@example('{"epoch":' + "9" * 5000 + ',"worker":"w"}')
@example("[" * 100_000)
@example("\ufeff{}")
@example("\x00")
def test_any_text_of_another_tool_is_read_with_no_epoch(text: str) -> None:
    assert stored_offset(7, text) == StoredOffset(7, 0, "")


@given(JSON)
def test_any_json_of_another_tool_is_read(value: object) -> None:
    found = stored_offset(7, json.dumps(value))
    assert found.next_offset == 7
    assert 0 <= found.epoch < 2**63
    assert isinstance(found.worker_id, str)


def test_no_metadata_is_no_epoch() -> None:
    assert stored_offset(7, None) == StoredOffset(7, 0, "")


# --- Why a store refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (None, "the redis store has no offset, expected 10"),
        (StoredOffset(10, 3, "w-0"), ""),
        (StoredOffset(10, 0), ""),
        (StoredOffset(11, 3, "w-1"), "the redis store has 11, expected 10"),
        (StoredOffset(10, 4, "w-1"), "epoch 3 is stale, the redis store has epoch 4"),
        (StoredOffset(20, 4, "w-1"), "epoch 3 is stale, the redis store has epoch 4"),
        (StoredOffset(20, 3, "w-1"), ""),  # its own first try
        (StoredOffset(20, 3, "w-2"), "the redis store has 20, expected 10"),
        (StoredOffset(20, 2, "w-1"), "the redis store has 20, expected 10"),
        (StoredOffset(20, 3), "the redis store has 20, expected 10"),
    ],
)
def test_a_store_refuses(held: StoredOffset | None, says: str) -> None:
    assert refusal("redis", StoreCommit(TopicPartition("t", 0), 10, 20, 3, "w-1"), held) == says


def test_nobody_in_particular_repeats_nothing() -> None:
    commit = StoreCommit(TopicPartition("t", 0), 10, 20, 3)
    assert refusal("redis", commit, StoredOffset(20, 3)) == "the redis store has 20, expected 10"
    assert refusal("redis", StoreCommit(TopicPartition("t", 0), None, 20, 3), None) == ""
