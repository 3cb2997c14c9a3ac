"""Invariants I1 to I6, each read in one plain SELECT, so that ledger and metrics are read at one moment (R17)."""

import json
from dataclasses import asdict, dataclass

from django.conf import settings
from django.db import connection
from django.utils.module_loading import import_string

from offsets.clock import monotonic
from offsets.types import BatchHandler

#: How many violating partitions a detail names before it counts the rest.
NAMED = 5


@dataclass(frozen=True, slots=True)
class InvariantResult:
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Promise:
    """The semantics of the group and what they cost: the modes of its partitions at their last claim."""

    semantics: tuple[str, ...]
    #: Records counted more than once: at_least_once allows it.
    duplicates: int
    #: Offsets claimed by a worker that is gone, never counted: at_most_once allows it.
    claimed_offsets: int

    @property
    def detail(self) -> str:
        found = [f"{self.duplicates:,} records counted again"] if self.duplicates else []
        found += [f"{self.claimed_offsets:,} offsets claimed and never counted"] if self.claimed_offsets else []
        return f"{', '.join(self.semantics) or 'no partitions'}: {', '.join(found) or 'nothing lost, nothing twice'}"


@dataclass(frozen=True, slots=True)
class InvariantsResult:
    group: str
    invariants: dict[str, InvariantResult]
    promise: Promise

    @property
    def ok(self) -> bool:
        return all(result.ok for result in self.invariants.values())


#: The checkpoints to check; every statement starts from them.
_SCOPE = """
    scope AS (
        SELECT * FROM offsets_partitioncheckpoint
        WHERE group_id = %(group)s AND (%(topic)s = '' OR topic = %(topic)s) AND retired_reason <> 'rebuilt'
    )
"""

# A hole is where a range does not begin at the end of the one before it; the first must begin at the baseline and
# the last end at ledger_end. A checkpoint without any range must not have moved. At and past next_offset a hole is what
# a seek below the old baseline leaves to be counted.
_I1 = """
    , steps AS (
        SELECT s.id, s.topic, s.partition, s.next_offset, lower(r.offsets) AS start,
            coalesce(lag(upper(r.offsets)) OVER w, s.baseline_offset) AS expected
        FROM scope s JOIN offsets_ledgerrange r ON r.checkpoint_id = s.id
        WINDOW w AS (PARTITION BY s.id ORDER BY lower(r.offsets))
    ), ends AS (
        SELECT s.id, s.topic, s.partition, s.baseline_offset, s.next_offset, s.ledger_end,
            coalesce(max(upper(r.offsets)), s.baseline_offset) AS reached
        FROM scope s LEFT JOIN offsets_ledgerrange r ON r.checkpoint_id = s.id
        GROUP BY s.id, s.topic, s.partition, s.baseline_offset, s.next_offset, s.ledger_end
    )
    SELECT topic, partition, format('hole or stray range: [%%s, %%s)', least(expected, start),
        greatest(expected, start))
    FROM steps WHERE start < expected OR (start > expected AND expected < next_offset)
    UNION ALL
    SELECT topic, partition, format('ledger reaches %%s, checkpoint says %%s (next offset %%s)', reached,
        ledger_end, next_offset)
    FROM ends WHERE reached <> ledger_end OR next_offset > ledger_end OR next_offset < baseline_offset
    ORDER BY 1, 2
"""

_I2 = """
    , pairs AS (
        SELECT s.topic, s.partition, r.offsets, lag(r.offsets) OVER w AS before
        FROM scope s JOIN offsets_ledgerrange r ON r.checkpoint_id = s.id
        WINDOW w AS (PARTITION BY s.id ORDER BY lower(r.offsets), upper(r.offsets))
    )
    SELECT topic, partition, format('%%s overlaps %%s', offsets, before) FROM pairs WHERE offsets && before
    ORDER BY 1, 2
"""

_EXPECTED = """
    , expected AS (
        SELECT s.id, s.topic, s.partition, s.dimensions, s.duplicates
            + coalesce((SELECT sum(r.records) FROM offsets_ledgerrange r WHERE r.checkpoint_id = s.id), 0)
            + (SELECT count(*) FROM offsets_deadletter d WHERE d.checkpoint_id = s.id AND d.status = 'counted')
            AS events
        FROM scope s
    )
"""

_I3 = """
    , counted AS ({counted}), wanted AS (
        SELECT e.id, e.topic, e.partition, e.events, d.dimension
        FROM expected e CROSS JOIN LATERAL unnest(e.dimensions) AS d(dimension)
    )
    SELECT w.topic, w.partition, format('%%s: counted %%s, ledger says %%s', w.dimension,
        coalesce(c.events, 0), w.events)
    FROM wanted w LEFT JOIN counted c ON c.checkpoint_id = w.id AND c.dimension = w.dimension
    WHERE coalesce(c.events, 0) <> w.events
    UNION ALL
    SELECT s.topic, s.partition, format('%%s is counted but not kept by this checkpoint', c.dimension)
    FROM counted c JOIN scope s ON s.id = c.checkpoint_id WHERE c.dimension <> ALL (s.dimensions)
    ORDER BY 1, 2
"""

_I4 = """
    , counted AS ({counted})
    SELECT e.topic, e.partition, format('minutes hold %%s, ledger says %%s', coalesce(c.events, 0), e.events)
    FROM expected e LEFT JOIN counted c ON c.checkpoint_id = e.id
    WHERE coalesce(c.events, 0) <> e.events
    ORDER BY 1, 2
"""

# The trigger refuses every lowering; what can be checked afterwards is that it is there and enabled, and that no
# checkpoint lies below its baseline.
_I5 = """
    SELECT 'trigger', 0, 'offsets_checkpoint_monotonic is missing or disabled; run migrate' WHERE NOT EXISTS (
        SELECT 1 FROM pg_trigger WHERE tgname = 'offsets_checkpoint_monotonic' AND tgenabled IN ('O', 'A')
            AND tgrelid = 'offsets_partitioncheckpoint'::regclass)
    UNION ALL
    SELECT topic, partition, format('next offset %%s lies below the baseline %%s', next_offset, baseline_offset)
    FROM scope WHERE next_offset < baseline_offset
    ORDER BY 1, 2
"""

_I6 = """
    , sums AS (
        SELECT s.topic, s.partition,
            coalesce((SELECT sum(r.failed_records) FROM offsets_ledgerrange r WHERE r.checkpoint_id = s.id), 0)
                AS failed,
            (SELECT count(*) FROM offsets_deadletter d WHERE d.checkpoint_id = s.id) AS letters
        FROM scope s
    )
    SELECT topic, partition, format('%%s failed records, %%s dead letters', failed, letters)
    FROM sums WHERE failed <> letters ORDER BY 1, 2
"""

# A claim of the current epoch is still being processed; a claim of a former epoch will never be counted.
_PROMISE = """
    SELECT coalesce(array_agg(DISTINCT s.semantics), '{}'), coalesce(sum(s.duplicates), 0)::bigint,
        coalesce(sum((SELECT sum(upper(r.offsets) - lower(r.offsets)) FROM offsets_ledgerrange r
            WHERE r.checkpoint_id = s.id AND r.kind = 'claimed' AND (r.epoch <> s.epoch OR s.owner_id IS NULL))), 0)
            ::bigint
    FROM scope s
"""

_WHEN_OK = {
    "I1": "Every offset from the baseline to the next offset has a range.",
    "I2": "No offset lies in two ranges.",
    "I3": "Counted events equal the ledger's records, in every dimension.",
    "I4": "Minutes sum to the same number.",
    "I5": "No next offset falls, except by an audited action.",
    "I6": "Every failed record is a dead letter.",
}


def check(group_id: str, topic: str = "") -> InvariantsResult:
    """Check I1 to I6 for a group, or for one topic of it, also while workers run."""
    handler: BatchHandler = import_string(settings.BATCH_HANDLER)()
    statements = {
        "I1": _I1,
        "I2": _I2,
        "I3": _EXPECTED + _I3.format(counted=handler.counted_sql()),
        "I4": _EXPECTED + _I4.format(counted=handler.counted_by_time_sql()),
        "I5": _I5,
        "I6": _I6,
    }
    results = {}
    for name, statement in statements.items():
        with connection.cursor() as cursor:
            cursor.execute(f"WITH {_SCOPE} {statement}", {"group": group_id, "topic": topic})
            rows = cursor.fetchall()
        results[name] = InvariantResult(not rows, _detail(rows) if rows else _WHEN_OK[name])
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {_SCOPE} {_PROMISE}", {"group": group_id, "topic": topic})
        semantics, duplicates, claimed = cursor.fetchone()
    return InvariantsResult(group_id, results, Promise(tuple(sorted(semantics)), duplicates, claimed))


def _detail(rows: list[tuple[str, int, str]]) -> str:
    named = "; ".join(f"{topic}-{partition}: {text}" for topic, partition, text in rows[:NAMED])
    return named + (f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else "")


def check_and_store(group_id: str) -> InvariantsResult:
    """Check, and keep the result for the page. The only writer of InvariantReport."""
    started = monotonic()
    result = check(group_id)
    invariants = {name: asdict(invariant) for name, invariant in result.invariants.items()}
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO offsets_invariantreport (group_id, ok, invariants, duration_ms, checked_at)"
            " VALUES (%s, %s, %s::jsonb, %s, clock_timestamp()) ON CONFLICT (group_id) DO UPDATE SET ok = excluded.ok,"
            " invariants = excluded.invariants, duration_ms = excluded.duration_ms, checked_at = excluded.checked_at",
            [group_id, result.ok, json.dumps(invariants), round((monotonic() - started) * 1000)],
        )
    return result
