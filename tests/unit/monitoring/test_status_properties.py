"""What holds of a status for any facts."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from offsets.monitoring.headline import GroupFacts, headline, worst
from offsets.monitoring.lag import LagTime
from offsets.monitoring.status import PartitionFacts, Status, assess, eta_seconds
from offsets.monitoring.window import CommitPoint
from tests.support.facts import LIMITS, STAGE, TROUBLE

OFFSETS = st.integers(min_value=0, max_value=2**63 - 1)


SECONDS = st.floats(min_value=0, max_value=1e9)


SMALL = st.integers(min_value=0, max_value=20)


#: Windows of small numbers meet each other and their borders; wild ones must at least not raise.
WINDOWS = st.lists(st.builds(CommitPoint, st.floats(0, 100), SMALL, SMALL), max_size=12).map(sorted) | st.lists(
    st.builds(CommitPoint, st.floats(allow_nan=False, allow_infinity=False), OFFSETS, OFFSETS), max_size=12
)


LAG_TIMES = st.builds(lambda known, least: LagTime(least if known else None, least), st.booleans(), SECONDS)


FACTS = st.builds(
    PartitionFacts,
    name=st.just("engagement-3"),
    next_offset=SMALL | OFFSETS,
    owner=st.none() | st.just("w-7f2"),
    owner_heartbeat_age_seconds=st.none() | SECONDS,
    owner_stopped=st.booleans(),
    desired_state=st.sampled_from(["running", "paused"]),
    halt_reason=st.sampled_from(["", "expired", "store_missing"]),
    lag=st.none() | SMALL | OFFSETS,
    lag_time=LAG_TIMES,
    lag_growth_per_second=st.none() | st.floats(allow_infinity=True, allow_nan=True),
    window=WINDOWS,
    seconds_since_commit=st.none() | SECONDS,
    stage=st.sampled_from(["", STAGE]),
    stage_seconds=st.none() | SECONDS,
    worker_trouble=st.sampled_from(["", TROUBLE]),
    failed_ranges=SMALL,
    failed_offsets=SMALL | OFFSETS,
    failed_given_up=SMALL,
)


@given(FACTS)
def test_it_has_a_verdict_and_a_headline_for_any_facts(facts):
    verdict = assess(facts, LIMITS)

    assert verdict.detail.endswith(".")
    assert "nan" not in verdict.detail
    assert Status.of_label(verdict.label) is verdict.status
    assert headline(GroupFacts([(facts.name, verdict)], lag=facts.lag))


def served(facts: PartitionFacts) -> PartitionFacts:
    return dataclasses.replace(
        facts, owner="w-7f2", owner_heartbeat_age_seconds=0.5, owner_stopped=False, halt_reason="",
        desired_state="running", failed_given_up=0,
    )  # fmt: skip


@given(FACTS)
def test_it_is_content_with_a_live_owner_that_has_nothing_to_read(facts):
    assert assess(dataclasses.replace(served(facts), lag=0), LIMITS).status == Status.OK


@given(FACTS)
def test_it_never_takes_an_unknown_lag_for_a_slow_worker(facts):
    verdict = assess(dataclasses.replace(served(facts), lag=None, stage=""), LIMITS)

    assert verdict.status == Status.OK
    assert "unknown" in verdict.detail


@given(FACTS)
def test_it_promises_no_time_that_is_negative_or_no_number(facts):
    eta = eta_seconds(facts, LIMITS)

    assert eta is None or (eta >= 0 and math.isfinite(eta))


@given(FACTS)
def test_it_never_eases_a_verdict_for_one_more_thing_that_is_wrong(facts):
    running = served(facts)
    halted = assess(dataclasses.replace(facts, halt_reason="expired"), LIMITS)
    failed = assess(dataclasses.replace(running, failed_given_up=1), LIMITS)
    dead = assess(dataclasses.replace(running, owner_stopped=True), LIMITS)

    assert halted.status == Status.HALTED
    assert (failed.status, dead.status) == (Status.FAILED, Status.OWNER_DEAD)
    for worse in (halted, failed, dead):
        assert worst([worse.status, assess(running, LIMITS).status]) == worse.status


@given(FACTS)
def test_it_lets_no_worker_that_says_why_it_waits_be_evicted(facts):
    verdict = assess(dataclasses.replace(served(facts), worker_trouble=TROUBLE), LIMITS)

    assert "vict the worker" not in verdict.detail
