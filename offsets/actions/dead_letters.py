"""Resolve dead letters, one or many at once: requeue (count them after all), discard, reopen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Length
from django.utils.module_loading import import_string

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.dead_letter_listing import BYTES, DeadLetterFilter, StoredRecord
from offsets.actions.guards import Actor, Preview, Request, Source, check_allowed
from offsets.database import NOT_THE_BATCH
from offsets.errors import LedgerConflictError, RefusedError, StalePreviewError
from offsets.failures import decode_apart
from offsets.models import DeadLetter, OperatorAction
from offsets.text import describe_error
from offsets.types import BatchHandler, Claim, DeadLetterStatus, DecodedBatch, RecordBatch

REQUEUE = "requeue"
DISCARD = "discard"
REOPEN = "reopen"
#: Limits of one action, whose transaction locks the rows of the partitions.
MAX_DEAD_LETTERS = 5_000
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersPreview(Preview):
    """What an action on dead letters would do. `ids` are what to give back to apply exactly that."""

    ids: tuple[int, ...]
    #: Would be counted (requeue), or change their status.
    will_change: int
    #: Would fail again, with the first reasons.
    still_fail: int = 0
    reasons: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "text": self.text,
            "ids": self.ids,
            "will_change": self.will_change,
            "still_fail": self.still_fail,
            "reasons": self.reasons,
        }


@dataclass(frozen=True, slots=True)
class DeadLettersOutcome:
    action: OperatorAction
    changed: int
    still_fail: int
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.action.detail


# --- Preview --------------------------------------------------------------------------------------


def preview(kind: str, chosen: DeadLetterFilter, actor: Actor) -> DeadLettersPreview:
    """Say what `resolve` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(kind, actor)
    dead_letters = list(chosen.rows().select_related("checkpoint").defer(*BYTES)[: MAX_DEAD_LETTERS + 1])
    _check(kind, dead_letters, chosen.ids)
    ids = tuple(dead_letter.pk for dead_letter in dead_letters)
    failing: list[str] = []
    if kind == REQUEUE:
        handler = _handler()
        for group in _by_checkpoint(_with_bytes(ids)):
            failing += _failing(handler, group).values()
    changing = len(dead_letters) - len(failing)
    return DeadLettersPreview(
        kind=kind,
        target=_target(ids),
        text=_in_words(kind, changing, len(failing)),
        ids=ids,
        will_change=changing,
        still_fail=len(failing),
        reasons=tuple(failing[:3]),
    )


def _target(ids: Sequence[int]) -> str:
    return f"dead letter {ids[0]}" if len(ids) == 1 else f"{len(ids):,} dead letters"


def _in_words(kind: str, change: int, failing: int) -> str:
    noun = "dead letter" if change == 1 else "dead letters"
    if kind == DISCARD:
        return f"Discard {change:,} {noun}: never counted, kept as discarded. Can be undone."
    if kind == REOPEN:
        return f"Reopen {change:,} discarded {noun}: pending again."
    rest = f" {failing:,} would fail again and stay as they are." if failing else ""
    return f"Requeue {change:,} {noun}: counted now, from the bytes that were kept.{rest} Cannot be undone."


def _check(kind: str, dead_letters: Sequence[DeadLetter], ids: Sequence[int]) -> None:
    missing = set(ids) - {dead_letter.pk for dead_letter in dead_letters}
    if missing:
        raise StalePreviewError(f"Unknown or replaced dead letter {min(missing)}; refresh the preview.")
    if not dead_letters:
        raise RefusedError("No dead letter matches; nothing was changed.")
    if len(dead_letters) > MAX_DEAD_LETTERS:
        raise RefusedError(f"More than {MAX_DEAD_LETTERS:,} dead letters match. Filter by partition or error code.")
    expected = DeadLetterStatus.DISCARDED if kind == REOPEN else DeadLetterStatus.PENDING
    for dead_letter in dead_letters:
        if dead_letter.status != expected:
            record = f"{dead_letter.checkpoint.name} offset {dead_letter.offset:,}"
            raise StalePreviewError(
                f"Dead letter {dead_letter.pk} ({record}) is already {dead_letter.status}; nothing was changed."
            )


# --- Apply ----------------------------------------------------------------------------------------


def resolve(
    kind: str,
    ids: Sequence[int],
    request: Request,
    *,
    undoes: OperatorAction | None = None,
    checkpoint_id: int | None = None,
) -> DeadLettersOutcome:
    """Requeue, discard or reopen exactly these. Raises RefusedError when one is not as it was seen. The refusal is
    audited under `checkpoint_id`, where the caller names the partition of them all.
    """
    with attempt(kind, request, checkpoint_id, target="" if checkpoint_id else _target(ids)) as change:
        if len(ids) > MAX_DEAD_LETTERS:
            raise RefusedError(f"At most {MAX_DEAD_LETTERS:,} dead letters at once, not {len(ids):,}.")
        with change.transaction():
            dead_letters = ledger.lock_dead_letters(ids)
            _check(kind, dead_letters, ids)
            _check_kept(dead_letters)
            if kind == REQUEUE:
                dead_letters = _with_bytes(ids)
            return _apply(dead_letters, change, undoes)


def _with_bytes(ids: Sequence[int]) -> list[DeadLetter]:
    """The dead letters whole, in offset order. Raises RefusedError where that would fill the memory."""
    rows = DeadLetter.objects.filter(pk__in=ids)
    size = rows.aggregate(size=Sum(Length("value")))["size"] or 0
    if size > MAX_BYTES:
        raise RefusedError(
            f"These dead letters hold {size / 2**20:,.0f} MiB, and at most {MAX_BYTES / 2**20:,.0f} are requeued at "
            "once. Filter by partition or error code."
        )
    return list(rows.select_related("checkpoint").order_by("checkpoint_id", "offset"))


def _check_kept(dead_letters: Sequence[DeadLetter]) -> None:
    for dead_letter in dead_letters:
        if dead_letter.checkpoint.retired_reason == "rebuilt":
            raise RefusedError(
                f"Dead letter {dead_letter.pk} belongs to counts that a rebuild has replaced. Act on the new one of "
                "the same offset."
            )


def _apply(dead_letters: Sequence[DeadLetter], change: Attempt, undoes: OperatorAction | None) -> DeadLettersOutcome:
    kind, request = change.kind, change.request
    checkpoints = {dead_letter.checkpoint_id: dead_letter.checkpoint for dead_letter in dead_letters}
    only = next(iter(checkpoints.values())) if len(checkpoints) == 1 else None
    ids = [dead_letter.pk for dead_letter in dead_letters]
    action = audit.applied(
        *(kind, only, request),
        target=f"{only}: {_target(ids)}" if only else _target(ids),
        before={"ids": ids[:1000]},
        after={},
        detail=_in_words(kind, len(ids), 0),
        change_id=change.change_id,
        undoes=undoes,
    )
    failing: dict[int, str] = {}
    if kind == REQUEUE:
        handler = _handler()
        for group in _by_checkpoint(dead_letters):
            failing |= _count(handler, group, action)
        if len(failing) == len(ids):
            raise RefusedError(f"It still cannot be counted: {next(iter(failing.values()))} Nothing was changed.")
    else:
        _settle(ids, DeadLetterStatus.DISCARDED if kind == DISCARD else DeadLetterStatus.PENDING, action)
    changed = len(ids) - len(failing)
    done = _in_words(kind, changed, len(failing))
    audit.complete(action, {"changed": changed, "still_fail": len(failing)}, detail=done)
    group_id = next(iter(checkpoints.values())).group_id
    journal.record(group_id, kind, f"{request.actor.name}: {done} {request.reason}")
    return DeadLettersOutcome(action, changed, len(failing), tuple(failing.values())[:3])


def _count(handler: BatchHandler, dead_letters: Sequence[DeadLetter], action: OperatorAction) -> dict[int, str]:
    """Count those of one checkpoint; where the database refuses, halve. Returns those that fail, with why."""
    failing = _failing(handler, dead_letters)
    good = [dead_letter for dead_letter in dead_letters if dead_letter.pk not in failing]
    if not good:
        return failing
    decoded = _decoded(handler, good)
    try:
        with transaction.atomic(), connection.wrap_database_errors:
            commit = handler.combine(decoded)
            handler.insert([commit], connection)
            handler.update([commit], connection)
            _settle([dead_letter.pk for dead_letter in good], DeadLetterStatus.COUNTED, action)
    except NOT_THE_BATCH:
        raise
    except Exception as error:
        if len(good) == 1:
            return failing | {good[0].pk: describe_error(error)}
        middle = len(good) // 2
        return failing | _count(handler, good[:middle], action) | _count(handler, good[middle:], action)
    return failing


def _settle(ids: Sequence[int], status: DeadLetterStatus, action: OperatorAction) -> None:
    if ledger.settle_dead_letters(ids, status, action) != len(ids):
        raise LedgerConflictError("dead letters changed while they were locked")


def _handler() -> BatchHandler:
    handler: BatchHandler = import_string(settings.BATCH_HANDLER)()
    return handler


def _by_checkpoint(dead_letters: Iterable[DeadLetter]) -> list[list[DeadLetter]]:
    return [list(group) for _, group in groupby(dead_letters, key=lambda dead_letter: dead_letter.checkpoint_id)]


def _decoded(handler: BatchHandler, dead_letters: Sequence[DeadLetter]) -> list[DecodedBatch]:
    """As one batch of the checkpoint that they belong to; the offsets between them are not looked at."""
    row = dead_letters[0].checkpoint
    claim = Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset, tuple(row.dimensions), row.topic_id)
    records = [StoredRecord(dead_letter) for dead_letter in dead_letters]
    batch = RecordBatch(claim, dead_letters[0].offset, dead_letters[-1].offset + 1, records, sum(map(len, records)))
    return list(decode_apart(handler.decode, batch))


def _failing(handler: BatchHandler, dead_letters: Sequence[DeadLetter]) -> dict[int, str]:
    """Those of one checkpoint that cannot be decoded now either, with the reason."""
    by_offset = {dead_letter.offset: dead_letter.pk for dead_letter in dead_letters}
    return {
        by_offset[failure.offset]: f"{failure.error_code}: {failure.error_detail}"
        for decoded in _decoded(handler, dead_letters)
        for failure in decoded.failures
    }


def counted_before_rebuild(group_id: str) -> list[int]:
    """Pending ones of one rebuilt partition whose like was requeued before the rebuild, and not refused since."""
    with connection.cursor() as cursor:
        cursor.execute(
            'WITH found AS (SELECT d.id, d.checkpoint_id, d."offset", sum(octet_length(d.value)) OVER ('
            'PARTITION BY d.checkpoint_id ORDER BY d."offset") AS size FROM offsets_partitioncheckpoint c'
            " JOIN offsets_deadletter d ON d.checkpoint_id = c.id AND d.status = 'pending'"
            " WHERE c.group_id = %s AND c.retired_at IS NULL AND c.baseline_kind = 'rebuild' AND EXISTS ("
            "SELECT 1 FROM offsets_partitioncheckpoint o JOIN offsets_deadletter b ON b.checkpoint_id = o.id"
            " WHERE o.group_id = c.group_id AND o.topic = c.topic AND o.partition = c.partition"
            ' AND o.topic_id = c.topic_id AND o.retired_reason = \'rebuilt\' AND b."offset" = d."offset"'
            " AND b.status = 'counted') AND NOT EXISTS (SELECT 1 FROM offsets_operatoraction a"
            " WHERE a.kind = %s AND a.outcome = 'refused' AND a.source = %s AND a.checkpoint_id = c.id"
            " AND a.created_at > d.created_at)) SELECT id FROM found"
            " WHERE checkpoint_id = (SELECT min(checkpoint_id) FROM found) AND coalesce(size, 0) <= %s"
            ' ORDER BY "offset" LIMIT %s',
            [group_id, REQUEUE, Source.AUTOMATIC, MAX_BYTES, MAX_DEAD_LETTERS],
        )
        return [row[0] for row in cursor.fetchall()]
