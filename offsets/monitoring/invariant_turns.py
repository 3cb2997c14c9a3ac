"""The running check of the invariants: a few checkpoints at a time, in turn, so that a tick costs the same however much
was counted. The only writer of InvariantReport.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from django.db import connection

from offsets.clock import Deadline, monotonic
from offsets.monitoring import invariants
from offsets.monitoring.invariants import InvariantsResult, Violation

#: After this time a tick begins no further statement.
TURN_SECONDS = 1.0
#: While a chunk takes less, the next one is twice as large: part of the cost is the same for one and for many.
QUICK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Turn:
    """How far the round has come: the last checkpoint checked, and what each one last broke."""

    after: int = 0
    #: When the present round began.
    began: datetime | None = None
    #: Every checkpoint was checked after this moment; None before the first round is complete.
    complete_since: datetime | None = None
    violations: Mapping[int, Sequence[Violation]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The state of all checkpoints after a tick that checked `checked` of `checkpoints` in full."""

    result: InvariantsResult
    checked: int
    checkpoints: int

    @property
    def ok(self) -> bool:
        return self.result.ok

    @property
    def detail(self) -> str:
        found = "all invariants hold" if self.ok else "an invariant does not hold"
        rest = "" if self.checked == self.checkpoints else " The others follow in turn."
        return f"Checked {self.checked:,} of {self.checkpoints:,} partitions: {found}.{rest}"


def lease_of(group_id: str) -> str:
    """The lease of whoever checks a group: two checks never overlap."""
    return f"verify:{group_id}"


def in_turn(ids: Sequence[int], after: int) -> list[int]:
    """Sorted ids, beginning behind `after`: those up to it come last. Pure."""
    return [one for one in ids if one > after] + [one for one in ids if one <= after]


def next_size(size: int, seconds: float) -> int:
    """How many checkpoints are checked together next. Pure."""
    if seconds < QUICK_SECONDS:
        return min(2 * size, invariants.CHUNK)
    return max(1, size // 2) if seconds > TURN_SECONDS else size


def advanced(turn: Turn, ids: Sequence[int], checked: Sequence[int], found: Sequence[Violation], now: datetime) -> Turn:
    """The turn after `checked`, the next ones of `ids` in turn, were checked, beginning at `now`. Pure."""
    violations = {one: turn.violations[one] for one in ids if one in turn.violations and one not in checked}
    for violation in found:
        before = violations.get(violation.checkpoint_id, ())
        if sum(one.invariant == violation.invariant for one in before) < invariants.NAMED:
            violations[violation.checkpoint_id] = [*before, violation]
    began, complete_since = turn.began or now, turn.complete_since
    if len(checked) == len(ids):
        began = complete_since = now
    elif checked and (checked[-1] == ids[-1] or checked[-1] <= turn.after):
        # The end was passed: the round is complete, and the next one began with this tick at the earliest.
        began, complete_since = now, began
    return Turn(checked[-1] if checked else turn.after, began, complete_since, violations)


def check_in_turn(group_id: str, seconds: float = TURN_SECONDS) -> TurnResult:
    """Check the columns of all checkpoints, and for `seconds`, at least one, the next ones in full; keep the result."""
    started = monotonic()
    turn, now = _load(group_id)
    ids = invariants.checkpoints(group_id)
    running = invariants.check_running(ids)
    waiting = in_turn(ids, turn.after)
    checked, found = _check_for(waiting, seconds)
    turn = advanced(turn, ids, checked, found, now)
    kept = [violation for each in turn.violations.values() for violation in each]
    result = invariants.result_of(group_id, running + kept)
    _store(result, turn, round((monotonic() - started) * 1000))
    return TurnResult(result, len(checked), len(ids))


def _check_for(waiting: Sequence[int], seconds: float) -> tuple[list[int], list[Violation]]:
    deadline = Deadline(seconds)
    checked: list[int] = []
    found: list[Violation] = []
    size = 1
    while len(checked) < len(waiting) and not (checked and deadline.expired):
        chunk = waiting[len(checked) : len(checked) + size]
        started = monotonic()
        found += invariants.check_checkpoints(chunk)
        checked += chunk
        size = next_size(size, monotonic() - started)
    return checked, found


def _load(group_id: str) -> tuple[Turn, datetime]:
    """The stored turn, and the moment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT statement_timestamp(), r.progress::text, r.complete_since FROM (SELECT 1) AS one"
            " LEFT JOIN offsets_invariantreport r ON r.group_id = %s",
            [group_id],
        )
        now, progress, complete_since = cursor.fetchone()
    stored = json.loads(progress or "{}")
    violations = {
        int(one): [Violation(int(one), name, text) for name, text in texts]
        for one, texts in stored.get("violations", {}).items()
    }
    began = datetime.fromisoformat(stored["began"]) if stored.get("began") else None
    return Turn(stored.get("after", 0), began, complete_since, violations), now


def _store(result: InvariantsResult, turn: Turn, duration_ms: int) -> None:
    progress = {
        "after": turn.after,
        "began": turn.began.isoformat() if turn.began else None,
        "violations": {one: [(each.invariant, each.text) for each in found] for one, found in turn.violations.items()},
    }
    details = {name: asdict(invariant) for name, invariant in result.invariants.items()}
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_invariantreport"
            " (group_id, ok, invariants, duration_ms, checked_at, progress, complete_since)"
            " VALUES (%s, %s, %s::jsonb, %s, clock_timestamp(), %s::jsonb, %s) ON CONFLICT (group_id) DO UPDATE"
            " SET ok = excluded.ok, invariants = excluded.invariants, duration_ms = excluded.duration_ms,"
            " checked_at = excluded.checked_at, progress = excluded.progress, complete_since = excluded.complete_since",
            [result.group, result.ok, json.dumps(details), duration_ms, json.dumps(progress), turn.complete_since],
        )
