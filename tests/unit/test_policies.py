"""When to commit: each rule, their algebra, and what the document promises."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets.policies import AllOf, AnyOf, ByBytes, ByCount, ByTime, ByType, CommitPolicy, Progress
from offsets.processing import commit_policy
from offsets.types import BatchStats, OffsetSpan, TopicPartition
from tests.support.documented import documented

NOTHING = Progress(BatchStats(), 0.0, 0)

progresses = st.builds(
    Progress,
    st.builds(
        BatchStats,
        st.integers(0, 1000),
        st.integers(0, 10),
        st.integers(0, 10_000),
        st.dictionaries(st.sampled_from(["view", "share"]), st.integers(0, 500)),
    ),
    st.floats(0, 10),
    st.integers(0, 1000),
)
policies = st.one_of(
    st.builds(ByTime, st.floats(0.1, 10)),
    st.builds(ByCount, st.integers(1, 1000)),
    st.builds(ByBytes, st.integers(1, 10_000)),
    st.builds(lambda count: ByType({"share": count}), st.integers(1, 500)),
)


@pytest.mark.parametrize(
    ("policy", "less", "enough"),
    [
        (ByTime(2), {"seconds": 1.9}, {"seconds": 2.0}),
        (ByCount(10), {"fetched_records": 9}, {"fetched_records": 10}),
        (ByBytes(100), {"stats": BatchStats(size_bytes=99)}, {"stats": BatchStats(size_bytes=100)}),
        (
            ByType({"share": 2}),
            {"stats": BatchStats(by_type={"share": 1})},
            {"stats": BatchStats(by_type={"share": 2})},
        ),
    ],
)
def test_each_rule_has_its_limit(policy: CommitPolicy, less: dict[str, object], enough: dict[str, object]) -> None:
    assert not policy.due(NOTHING)
    assert not policy.due(replace(NOTHING, **less))  # type: ignore[arg-type]
    assert policy.due(replace(NOTHING, **enough))  # type: ignore[arg-type]


@given(policies, policies, progresses)
def test_they_combine_like_or_and_and(a: ByTime, b: ByTime, progress: Progress) -> None:
    assert (a | b).due(progress) == (a.due(progress) or b.due(progress))
    assert (a & b).due(progress) == (a.due(progress) and b.due(progress))
    assert ((a | b) & a).due(progress) == a.due(progress)
    assert isinstance(a | b, AnyOf)
    assert isinstance(a & b, AllOf)


@given(policies, policies, policies, progresses)
def test_grouping_and_order_do_not_matter(a: ByTime, b: ByTime, c: ByTime, progress: Progress) -> None:
    assert (a | b) | c == a | (b | c) == AnyOf(a, b, c)
    assert (a & b) & c == a & (b & c) == AllOf(a, b, c)
    assert (a & (b | c)).due(progress) == ((a & b) | (a & c)).due(progress)
    assert (a | b).due(progress) == (b | a).due(progress)


def test_a_policy_of_ones_own_combines_on_either_side() -> None:
    own, late = Never(), replace(NOTHING, seconds=5.0)
    assert (own | ByTime(2)).due(late)
    assert (ByTime(2) | own).due(late)
    assert not (own & ByTime(2)).due(late)
    with pytest.raises(TypeError, match="True or False, not None"):
        (ByTime(2) & Forgetful()).due(late)  # type: ignore[operator]


@given(policies, progresses, progresses)
def test_more_never_makes_a_commit_less_due(policy: CommitPolicy, one: Progress, other: Progress) -> None:
    more = Progress(one.stats + other.stats, one.seconds + other.seconds, one.fetched_records + other.fetched_records)
    assert policy.due(more) or not policy.due(one)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ByTime(0), "seconds above 0, not 0"),
        (lambda: ByTime(float("nan")), "not nan"),
        (lambda: ByTime(float("inf")), "not inf"),
        (lambda: ByTime("2"), "not '2'"),  # type: ignore[arg-type]
        (lambda: ByCount(-1), "records above 0, not -1"),
        (lambda: ByCount(True), "not True"),
        (lambda: ByCount(2.5), "not 2.5"),  # type: ignore[arg-type]
        (lambda: ByBytes(0), "bytes above 0, not 0"),
        (lambda: ByType({}), "at least one type"),
        (lambda: ByType("share"), "at least one type"),  # type: ignore[arg-type]
        (lambda: ByType({"x": 0}), "'x' events above 0, not 0"),
        (lambda: AnyOf(), "AnyOf needs at least one"),
        (lambda: AllOf(), "AllOf needs at least one"),
        (lambda: AnyOf((ByTime(1), ByTime(2))), "method due"),  # type: ignore[arg-type]
        (lambda: ByTime(1) | 5, "not 5"),  # type: ignore[operator]
        (lambda: Never & ByTime(1), "method due"),  # type: ignore[operator]
    ],
)
def test_it_refuses_limits_that_are_none(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


class Raising:
    def due(self, progress: Progress) -> bool:
        raise RuntimeError("out of ideas")


class Forgetful:
    def due(self, progress: Progress) -> None:
        pass


class Asynchronous:
    async def due(self, progress: Progress) -> bool:
        return True


class Curious:
    def due(self, progress: Progress, more: int) -> bool:
        return True


def a_class() -> type:
    return Never


class Never:
    def due(self, progress: Progress) -> bool:
        return False


def test_a_policy_that_fails_is_replaced_and_one_that_never_wants_is_overruled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles: list[str] = []
    guarded = commit_policy.GuardedPolicy(Raising(), troubles.append)
    assert not guarded.due(NOTHING)
    assert guarded.due(replace(NOTHING, seconds=10))
    assert troubles == ["the commit policy failed, the default one is used: RuntimeError: out of ideas"]
    assert "default one is used" in caplog.text
    patient = commit_policy.GuardedPolicy(Never(), troubles.append)
    assert not patient.due(replace(NOTHING, seconds=29))
    assert patient.due(replace(NOTHING, seconds=30))
    assert patient.due(replace(NOTHING, fetched_records=400_000))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no.such.module", "cannot be loaded"),
        ("tests.unit.test_policies.NOTHING", "no method due"),
        ("offsets.policies.ByTime", "cannot be loaded"),
        ("", "cannot be loaded"),
        ("offsets.strategy.default_policy", "Set it to 'offsets.processing.commit_policy.default_policy'."),
        ("tests.unit.test_policies.Asynchronous", "asynchronous"),
        ("tests.unit.test_policies.Curious", "missing a required argument: 'more'"),
        ("tests.unit.test_policies.a_class", "no method due"),
    ],
)
def test_it_says_why_a_path_leads_to_no_policy(settings: pytest.FixtureRequest, path: str, says: str) -> None:
    settings.COMMIT_POLICY = path  # type: ignore[attr-defined]
    assert says in commit_policy.refused_policy()


def test_it_loads_a_policy_a_class_and_a_function(settings: pytest.FixtureRequest) -> None:
    for path in ("tests.unit.test_policies.Never", "offsets.processing.commit_policy.default_policy"):
        settings.COMMIT_POLICY = path  # type: ignore[attr-defined]
        assert commit_policy.refused_policy() == ""


def test_the_documents_policies_do_what_it_says() -> None:
    names: dict[str, Any] = {}
    exec(documented()["engagement_hooks/policies.py"], names)
    policy, careful = names["policy"], names["Careful"]()
    assert policy.due(replace(NOTHING, stats=BatchStats(by_type={"share": 1})))
    assert not policy.due(replace(NOTHING, stats=BatchStats(by_type={"view": 1})))
    assert careful.due(replace(NOTHING, seconds=0.3, stats=BatchStats(failed_records=1)))
    assert not careful.due(replace(NOTHING, seconds=0.3))


spans = st.builds(lambda start, size: OffsetSpan(start, start + size), st.integers(0, 100), st.integers(0, 50))
seconds = st.none() | st.integers(0, 8).map(float)  # whole, so that sums do not depend on their order
all_stats = st.builds(
    BatchStats,
    *[st.integers(0, 100)] * 3,
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    *[seconds] * 3,
    st.dictionaries(st.sampled_from([TopicPartition("t", n) for n in range(3)]), spans),
)


@given(all_stats, all_stats, all_stats)
def test_stats_add_up_in_any_order(a: BatchStats, b: BatchStats, c: BatchStats) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + BatchStats() == a
    assert (a + b).all_records == a.all_records + b.all_records


def test_unknown_durations_stay_unknown_and_offsets_keep_their_hull() -> None:
    place = TopicPartition("t", 1)
    one = BatchStats(1, decode_seconds=0.5, offsets={place: OffsetSpan(5, 9)})
    both = one + BatchStats(2, decode_seconds=0.25, offsets={place: OffsetSpan(9, 12)})
    assert both.decode_seconds == 0.75
    assert both.apply_seconds is None
    assert both.offsets == {place: (5, 12)}
