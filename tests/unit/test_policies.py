"""When to commit: each rule, their algebra, and what the document promises."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsets import strategy
from offsets.policies import AllOf, AnyOf, ByBytes, ByCount, ByTime, ByType, CommitPolicy, Progress
from offsets.types import BatchStats, TopicPartition
from streamsocial.environment import BASE_DIR

DOCUMENT = BASE_DIR / "docs" / "commit-strategies.md"
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


@given(policies, progresses, progresses)
def test_more_never_makes_a_commit_less_due(policy: CommitPolicy, one: Progress, other: Progress) -> None:
    more = Progress(one.stats + other.stats, one.seconds + other.seconds, one.fetched_records + other.fetched_records)
    assert policy.due(more) or not policy.due(one)


@pytest.mark.parametrize("make", [lambda: ByTime(0), lambda: ByCount(-1), lambda: ByBytes(0), lambda: ByType({"x": 0})])
def test_it_refuses_limits_that_are_none(make: object) -> None:
    with pytest.raises(ValueError, match="above 0, not"):
        make()  # type: ignore[operator]


def test_a_combination_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AllOf()
    with pytest.raises(ValueError, match="at least one"):
        AnyOf()


class Raising:
    def due(self, progress: Progress) -> bool:
        raise RuntimeError("out of ideas")


class Never:
    def due(self, progress: Progress) -> bool:
        return False


def test_a_policy_that_fails_is_replaced_and_one_that_never_wants_is_overruled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles: list[str] = []
    guarded = strategy.GuardedPolicy(Raising(), troubles.append)
    assert not guarded.due(NOTHING)
    assert guarded.due(replace(NOTHING, seconds=10))
    assert troubles == ["the commit policy failed, the default one is used: RuntimeError: out of ideas"]
    assert "default one is used" in caplog.text
    patient = strategy.GuardedPolicy(Never(), troubles.append)
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
    ],
)
def test_it_says_why_a_path_leads_to_no_policy(settings: pytest.FixtureRequest, path: str, says: str) -> None:
    settings.COMMIT_POLICY = path  # type: ignore[attr-defined]
    assert says in strategy.refused_policy()


def test_it_loads_a_policy_a_class_and_a_function(settings: pytest.FixtureRequest) -> None:
    for path in ("tests.unit.test_policies.Never", "offsets.strategy.default_policy"):
        settings.COMMIT_POLICY = path  # type: ignore[attr-defined]
        assert strategy.refused_policy() == ""


def test_the_documents_examples_do_what_it_says() -> None:
    one, another, receiver = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(one, names)
    exec(another, names)
    policy, careful = names["policy"], names["Careful"]()  # type: ignore[operator]
    assert isinstance(policy, CommitPolicy)
    assert policy.due(replace(NOTHING, stats=BatchStats(by_type={"share": 1})))
    assert not policy.due(replace(NOTHING, stats=BatchStats(by_type={"view": 1})))
    assert careful.due(replace(NOTHING, seconds=0.3, stats=BatchStats(failed_records=1)))
    assert not careful.due(replace(NOTHING, seconds=0.3))
    assert "batch_committed" in receiver


def test_stats_add_up() -> None:
    one = BatchStats(1, 2, 3, {"view": 1}, 0.5)
    assert one + BatchStats(10, 20, 30, {"view": 1, "like": 2}, 0.25) == BatchStats(
        11, 22, 33, {"view": 2, "like": 2}, 0.75
    )
    assert TopicPartition("t", 1) == TopicPartition("t", 1)
