"""Reading what an operator asks for, and nothing else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.errors import RefusedError
from offsets.management.reset_targets import MAX_OFFSET, duration_ms, read_csv, timestamp_ms, write_csv
from offsets.types import TopicPartition

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = 1000


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), st.integers(0, MAX_OFFSET), min_size=1))
def test_what_is_written_is_read_back(rows: dict[tuple[str, int], int]) -> None:
    places = {TopicPartition(*key): offset for key, offset in rows.items()}
    assert read_csv(write_csv(places), "group") == places


@pytest.mark.parametrize(
    "text",
    [
        "t,0,5",
        '"t",0,5\r\n',
        "topic,partition,offset\nt,0,5\n",
        "g,t,0,5\n",
        "group,topic,partition,offset\ng,t,0,5\n\n",
        "topic,partition,offset\rt,0,5\r",
        "\r\r\n\nt,0,5",
    ],
)
def test_it_reads_what_kafkas_own_tool_writes(text: str) -> None:
    assert read_csv(text, "g") == {TopicPartition("t", 0): 5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no partition"),
        ("topic,partition,offset\n", "names no partition"),
        ("topic,offset\nt,1\n", "Line 1 has 2 columns"),
        ("t,0,ten\n", "Line 1: invalid offset 'ten'"),
        ("t,0,1\n\nt,0,2\n", "Line 3: duplicate partition t-0"),
        ("t,first,1\n", "invalid partition 'first'"),
        ("other,t,0,1\n", "is for group 'other'"),
        ("t,0,-5\n", "invalid offset '-5'"),
        ("t,0,99999999999999999999\n", "invalid offset"),
        ("t,0," + "9" * 5000 + "\n", "invalid offset"),
        ("t,0,٣\n", "invalid offset"),
        (",0,1\n", "names no topic"),
        ('t,0,1\n"t,1,1\nt,2,1\n', "Line 2: a quote is not closed"),
        ('t,0,1\r"t"x,1,1\r', "Line 2: "),
        ("t,0,1\n" + "x" * 200_000 + ",1,1\n", "Line 2: a value is too long"),
        ('t,0,1\n"t\nu",1,1\nt,x,1\n', "Line 2: the topic must be a Kafka topic name"),
        ("t,0,1\nü,1,1\n", "Line 2: the topic must be a Kafka topic name"),
        ("t,0,1\n" * 100_001, "duplicate partition"),
    ],
)
def test_it_names_the_row_and_the_reason(text: str, says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_csv(text, "g")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1S", 1), ("PT1.5S", 1.5), ("P1D", 86_400), ("P1DT2H3M4S", 93_784), ("P99999999999D", None)],
)
def test_a_duration_leads_back_from_now(text: str, seconds: float | None) -> None:
    expected = 0 if seconds is None else round((NOW.timestamp() - seconds) * SECOND)
    assert duration_ms(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "PD", "P1H", "P-1D", "one day"])
def test_it_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(RefusedError, match="Invalid duration"):
        duration_ms(text, NOW)


def test_a_moment_needs_its_zone_and_may_not_be_in_the_future() -> None:
    assert timestamp_ms("2026-11-23T13:00:00+01:00", NOW) == NOW.timestamp() * SECOND
    assert timestamp_ms("1900-01-01T00:00:00Z", NOW) == 0
    for text, says in (("2026-11-23T11:00:00", "zone"), ("2026-11-23T12:00:01Z", "future"), ("soon", "Invalid")):
        with pytest.raises(RefusedError, match=says):
            timestamp_ms(text, NOW)
