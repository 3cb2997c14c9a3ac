"""What the threads of a worker are busy with: the oldest stage is told, and nothing is left behind."""

import threading

import pytest

from offsets.processing import stuck_detector
from offsets.processing.stuck_detector import MAX_FRAMES, Activities, stack_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    now = [100.0]
    monkeypatch.setattr(stuck_detector, "monotonic", lambda: now[0])
    return now


class Busy:
    """Another thread, in a stage until it is let go."""

    def __init__(self, shared: Activities, text: str) -> None:
        self._let_go, entered = threading.Event(), threading.Event()

        def stay() -> None:
            with shared.track(text):
                entered.set()
                self._let_go.wait(30)

        self.thread = threading.Thread(target=stay)
        self.thread.start()
        assert entered.wait(30)

    @property
    def ident(self) -> int:
        assert self.thread.ident is not None
        return self.thread.ident

    def let_go(self) -> None:
        self._let_go.set()
        self.thread.join(30)


def test_it_tells_nothing_while_every_thread_waits(clock: list[float]) -> None:
    shared = Activities()
    assert shared.longest() is None
    with shared.track("decoding t-0 [0, 5)"):
        pass
    assert shared.longest() is None


def test_it_tells_the_stage_that_takes_longest(clock: list[float]) -> None:
    shared = Activities()
    older = Busy(shared, "decoding")
    clock[0] += 5
    younger = Busy(shared, "committing")
    clock[0] += 2
    try:
        assert shared.longest() == ("decoding", 7.0, older.ident)
        older.let_go()
        assert shared.longest() == ("committing", 2.0, younger.ident)
    finally:
        older.let_go()
        younger.let_go()
    assert shared.longest() is None


def test_each_stage_of_a_thread_begins_at_nought(clock: list[float]) -> None:
    shared = Activities()
    with shared.track("first"):
        clock[0] += 50
    with shared.track("second"):
        clock[0] += 1
        assert shared.longest() == ("second", 1.0, threading.get_ident())


def test_a_stage_that_fails_is_over(clock: list[float]) -> None:
    shared = Activities()
    with pytest.raises(ZeroDivisionError), shared.track("dividing"):
        raise ZeroDivisionError
    assert shared.longest() is None


def test_it_shows_where_a_thread_stands_outermost_call_first() -> None:
    busy = Busy(Activities(), "waiting")
    try:
        stack = stack_of(busy.ident)
    finally:
        busy.let_go()
    assert stack.index("in stay") < stack.index("in wait")
    assert "self._let_go.wait(30)" in stack
    assert stack_of(busy.ident) == "", "it has ended"


def test_a_deep_stack_keeps_its_innermost_calls() -> None:
    def dig(depth: int) -> str:
        return stack_of(threading.get_ident()) if depth == 0 else dig(depth - 1)

    stack = dig(3 * MAX_FRAMES)
    assert stack.count("  File ") <= MAX_FRAMES
    assert "in stack_of" in stack
    assert "in test_a_deep_stack" not in stack
