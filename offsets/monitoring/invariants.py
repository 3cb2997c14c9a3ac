"""Invariants I1 to I6, each read in one plain SELECT, so that ledger and metrics are read at one moment (R17).

Some checkpoints at a time: each invariant is a statement about one checkpoint, and a check of all in one statement
would read everything that was ever counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.utils.module_loading import import_string

from offsets.types import BatchHandler

#: How many checkpoints one statement checks at most.
CHUNK = 50
#: How many violations of an invariant one statement returns: a ledger may be broken everywhere.
LISTED = 1000
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


#: The checkpoints to check; every statement starts from them, and returns the id first.
_SCOPE = """
    scope AS (SELECT * FROM offsets_partitioncheckpoint WHERE id = ANY(%(ids)s) AND retired_reason <> 'rebuilt')
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
    SELECT id, topic, partition, format('hole or stray range: [%%s, %%s)', least(expected, start),
        greatest(expected, start))
    FROM steps WHERE start < expected OR (start > expected AND expected < next_offset)
    UNION ALL
    SELECT id, topic, partition, format('ledger reaches %%s, checkpoint says %%s (next offset %%s)', reached,
        ledger_end, next_offset)
    FROM ends WHERE reached <> ledger_end OR next_offset > ledger_end OR next_offset < baseline_offset
    ORDER BY 2, 3
"""

_I2 = """
    , pairs AS (
        SELECT s.id, s.topic, s.partition, r.offsets, lag(r.offsets) OVER w AS before
        FROM scope s JOIN offsets_ledgerrange r ON r.checkpoint_id = s.id
        WINDOW w AS (PARTITION BY s.id ORDER BY lower(r.offsets), upper(r.offsets))
    )
    SELECT id, topic, partition, format('%%s overlaps %%s', offsets, before) FROM pairs WHERE offsets && before
    ORDER BY 2, 3
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
    , counted AS (SELECT * FROM ({counted}) AS every WHERE checkpoint_id = ANY(%(ids)s)), wanted AS (
        SELECT e.id, e.topic, e.partition, e.events, d.dimension
        FROM expected e CROSS JOIN LATERAL unnest(e.dimensions) AS d(dimension)
    )
    SELECT w.id, w.topic, w.partition, format('%%s: counted %%s, ledger says %%s', w.dimension,
        coalesce(c.events, 0), w.events)
    FROM wanted w LEFT JOIN counted c ON c.checkpoint_id = w.id AND c.dimension = w.dimension
    WHERE coalesce(c.events, 0) <> w.events
    UNION ALL
    SELECT s.id, s.topic, s.partition, format('%%s is counted but not kept by this checkpoint', c.dimension)
    FROM counted c JOIN scope s ON s.id = c.checkpoint_id WHERE c.dimension <> ALL (s.dimensions)
    ORDER BY 2, 3
"""

_I4 = """
    , counted AS (SELECT * FROM ({counted}) AS every WHERE checkpoint_id = ANY(%(ids)s))
    SELECT e.id, e.topic, e.partition, format('minutes hold %%s, ledger says %%s', coalesce(c.events, 0), e.events)
    FROM expected e LEFT JOIN counted c ON c.checkpoint_id = e.id
    WHERE coalesce(c.events, 0) <> e.events
    ORDER BY 2, 3
"""

# The trigger refuses every lowering; what can be checked afterwards is that it is there and enabled, and that no
# checkpoint lies below its baseline.
_I5 = """
    SELECT 0::bigint, 'trigger', 0, 'offsets_checkpoint_monotonic is missing or disabled; run migrate'
    WHERE NOT EXISTS (
        SELECT 1 FROM pg_trigger WHERE tgname = 'offsets_checkpoint_monotonic' AND tgenabled IN ('O', 'A')
            AND tgrelid = 'offsets_partitioncheckpoint'::regclass)
    UNION ALL
    SELECT id, topic, partition, format('next offset %%s lies below the baseline %%s', next_offset, baseline_offset)
    FROM scope WHERE next_offset < baseline_offset
    ORDER BY 2, 3
"""

_I6 = """
    , sums AS (
        SELECT s.id, s.topic, s.partition,
            coalesce((SELECT sum(r.failed_records) FROM offsets_ledgerrange r WHERE r.checkpoint_id = s.id), 0)
                AS failed,
            (SELECT count(*) FROM offsets_deadletter d WHERE d.checkpoint_id = s.id) AS letters
        FROM scope s
    )
    SELECT id, topic, partition, format('%%s failed records, %%s dead letters', failed, letters)
    FROM sums WHERE failed <> letters ORDER BY 2, 3
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


@dataclass(frozen=True, slots=True)
class Violation:
    """One checkpoint that breaks an invariant. Checkpoint 0 stands for what belongs to none."""

    checkpoint_id: int
    invariant: str
    text: str


def check(group_id: str, topic: str = "") -> InvariantsResult:
    """Check I1 to I6 in full for a group, or for one topic of it, also while workers run."""
    ids = checkpoints(group_id, topic)
    found = check_running(ids)
    for start in range(0, len(ids), CHUNK):
        found += check_checkpoints(ids[start : start + CHUNK])
    return result_of(group_id, found, promise(ids))


def checkpoints(group_id: str, topic: str = "") -> list[int]:
    """The checkpoints whose events count, by id: rebuilt ones are left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM offsets_partitioncheckpoint WHERE group_id = %s AND (%s = '' OR topic = %s)"
            " AND retired_reason <> 'rebuilt' ORDER BY id",
            [group_id, topic, topic],
        )
        return [row[0] for row in cursor.fetchall()]


def check_running(ids: Sequence[int]) -> list[Violation]:
    """What the checkpoints' own columns show: the same cost however much was counted."""
    return _violations("I5", _I5, ids)


def check_checkpoints(ids: Sequence[int]) -> list[Violation]:
    """Check these checkpoints in full: reads all of their ranges, dead letters and counts."""
    handler: BatchHandler = import_string(settings.BATCH_HANDLER)()
    statements = {
        "I1": _I1,
        "I2": _I2,
        "I3": _EXPECTED + _I3.format(counted=handler.counted_sql()),
        "I4": _EXPECTED + _I4.format(counted=handler.counted_by_time_sql()),
        "I6": _I6,
    }
    return [found for name, statement in statements.items() for found in _violations(name, statement, ids)]


def _violations(name: str, statement: str, ids: Sequence[int]) -> list[Violation]:
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {_SCOPE} {statement} LIMIT {LISTED}", {"ids": list(ids)})
        return [Violation(row[0], name, f"{row[1]}-{row[2]}: {row[3]}") for row in cursor.fetchall()]


def promise(ids: Sequence[int]) -> Promise:
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {_SCOPE} {_PROMISE}", {"ids": list(ids)})
        semantics, duplicates, claimed = cursor.fetchone()
    return Promise(tuple(sorted(semantics)), duplicates, claimed)


def result_of(group_id: str, found: Iterable[Violation], kept: Promise = Promise((), 0, 0)) -> InvariantsResult:
    """What was found, by invariant."""
    texts: Mapping[str, list[str]] = {name: [] for name in _WHEN_OK}
    for violation in found:
        texts[violation.invariant].append(violation.text)
    results = {
        name: InvariantResult(not named, _detail(named) if named else _WHEN_OK[name]) for name, named in texts.items()
    }
    return InvariantsResult(group_id, results, kept)


def _detail(texts: Sequence[str]) -> str:
    return "; ".join(texts[:NAMED]) + (f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else "")
