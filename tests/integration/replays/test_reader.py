"""The reader of exactly a range."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from offsets.kafka.reader import OutOfRangeError, RangeReader
from tests.support.replay_scenario import Scenario
from tests.support.replays import numbers, read, run

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def a_reader() -> Iterator[RangeReader]:
    reader = RangeReader()
    try:
        yield reader
    finally:
        reader.close()


def test_it_reads_exactly_a_range_again_and_again_in_any_order(scenario: Scenario) -> None:
    with a_reader() as reader:
        for start, end, at_once in ((40, 60, 1000), (10, 31, 7), (0, 100, 33), (99, 100, 5), (0, 1, 5), (1, 3, 1)):
            assert read(reader, scenario, start, end, at_once) == list(range(start, end))


def test_it_ends_where_the_range_does_also_where_no_record_lies_there() -> None:
    scenario = Scenario()
    with scenario.transaction() as producer:
        scenario.produce(5, by=producer)  # 0 to 4, the marker at 5
    with scenario.transaction(abort=True) as producer:
        producer.produce(scenario.name, b"aborted", partition=0)  # at 6, its marker at 7
        producer.flush(10)
    with a_reader() as reader:
        assert read(reader, scenario, 0, 8) == [0, 1, 2, 3, 4]
        assert read(reader, scenario, 6, 8) == []
        scenario.produce(4)  # 8 to 11
        # Where the range has holes the client brings what lies behind it, too.
        assert read(reader, scenario, 3, 6) == [3, 4]
        assert read(reader, scenario, 6, 8) == []
        assert read(reader, scenario, 8, 10) == [8, 9]
        assert read(reader, scenario, 10, 12) == [10, 11]
        assert read(reader, scenario, 5, 6) == []


def test_what_was_aborted_is_replayed_as_the_nothing_that_it_is() -> None:
    scenario = Scenario()
    with scenario.transaction() as producer:
        scenario.produce(5, by=producer)
    with scenario.transaction(abort=True) as producer:
        producer.produce(scenario.name, b"aborted", partition=0)
        producer.flush(10)
    scenario.append((8, "failed"))
    ended = run(scenario.begin(scenario.wanted(0, 8)))
    assert numbers(ended) == {"done": 8, "total": 8, "counted": 5}
    assert scenario.ranges() == [(0, 8, "processed")]
    scenario.assert_counted((0, 8))


def test_it_says_when_the_log_does_not_have_the_offset(scenario: Scenario) -> None:
    scenario.delete_records(50)
    with a_reader() as reader:
        for start in (0, 49, 200):
            with pytest.raises(OutOfRangeError, match=f"Kafka no longer has offset {start}"):
                reader.read(scenario.place(), start, start + 5, 10)
        assert read(reader, scenario, 50, 60) == list(range(50, 60)), "and goes on elsewhere"


def test_nobody_joins_a_group_by_replaying(scenario: Scenario) -> None:
    scenario.append((20, "failed"))
    run(scenario.begin(scenario.wanted(0, 20)))
    admin = scenario.admin()
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    assert not [one.group_id for one in groups if one.group_id.startswith("replay-")]
