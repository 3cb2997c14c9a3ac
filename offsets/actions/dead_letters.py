"""Dead letters that count after all, or never will: requeued, discarded, reopened, one or many at once."""

import base64
import binascii
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import BinaryField, F, QuerySet, Sum
from django.db.models.functions import Length, Substr
from django.utils.module_loading import import_string

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason
from offsets.database import DATA_ERRORS
from offsets.errors import LedgerConflictError, RefusedError, StalePreviewError
from offsets.failures import decode_apart
from offsets.models import DeadLetter, OperatorAction
from offsets.text import PREVIEW_CHARACTERS, describe_error, preview_text
from offsets.types import BatchHandler, Claim, DeadLetterStatus, DecodedBatch, RecordBatch

REQUEUE = "requeue"
DISCARD = "discard"
REOPEN = "reopen"
#: Letters in one action, and the bytes of those that are requeued; its transaction holds their partitions' rows.
MAX_LETTERS = 5_000
MAX_BYTES = 64 * 1024 * 1024


#: What a letter is read without, unless it is to be counted or shown whole.
BYTES = ("key", "value", "headers")


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters; empty fields match all. `ids` names them one by one."""

    group_id: str
    topic: str = ""
    partition: int | None = None
    error_code: str = ""
    status: str = DeadLetterStatus.PENDING
    ids: tuple[int, ...] = ()

    def rows(self) -> "QuerySet[DeadLetter]":
        """Of partitions whose counts are still read; in offset order."""
        letters = DeadLetter.objects.filter(checkpoint__group_id=self.group_id).exclude(
            checkpoint__retired_reason="rebuilt"
        )
        if self.topic:
            letters = letters.filter(checkpoint__topic=self.topic)
        if self.partition is not None:
            letters = letters.filter(checkpoint__partition=self.partition)
        if self.error_code:
            letters = letters.filter(error_code=self.error_code)
        if self.ids:
            return letters.filter(pk__in=self.ids).order_by("checkpoint_id", "offset")
        if self.status:
            letters = letters.filter(status=self.status)
        return letters.order_by("checkpoint_id", "offset")


@dataclass(frozen=True, slots=True)
class LettersPreview:
    """What an action on dead letters would do. `ids` are what to give back to apply exactly that."""

    kind: str
    ids: tuple[int, ...]
    text: str
    #: Would be counted (requeue), or change their status.
    will_change: int
    #: Would fail again, with the first reasons.
    still_fail: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LettersOutcome:
    action: OperatorAction
    changed: int
    still_fail: int
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.action.detail


class StoredRecord:
    """A dead letter as the record it was: implements `KafkaRecord`."""

    def __init__(self, letter: DeadLetter) -> None:
        self._letter = letter

    def __len__(self) -> int:
        return len(self._letter.value or b"")

    def value(self) -> bytes | None:
        return None if self._letter.value is None else bytes(self._letter.value)

    def key(self) -> bytes | None:
        return None if self._letter.key is None else bytes(self._letter.key)

    def offset(self) -> int:
        return self._letter.offset

    def timestamp(self) -> tuple[int, int]:
        at = self._letter.record_timestamp
        return (0, -1) if at is None else (1, round(at.timestamp() * 1000))

    def headers(self) -> list[tuple[str, bytes | None]]:
        try:
            stored = json.loads(bytes(self._letter.headers))
            return [(name, None if text is None else base64.b64decode(text)) for name, text in stored]
        except (ValueError, TypeError, binascii.Error):
            return []

    def leader_epoch(self) -> int | None:
        return None


# --- Preview --------------------------------------------------------------------------------------


def preview(kind: str, chosen: DeadLetterFilter, actor: Actor) -> LettersPreview:
    """Say what `apply` would do now. Raises RefusedError where it would refuse; changes nothing."""
    check_allowed(kind, actor)
    letters = list(chosen.rows().select_related("checkpoint").defer(*BYTES)[: MAX_LETTERS + 1])
    _check(kind, letters, chosen.ids)
    ids = tuple(letter.pk for letter in letters)
    if kind != REQUEUE:
        return LettersPreview(kind, ids, _in_words(kind, len(letters), 0), len(letters))
    letters = _with_bytes(ids)
    handler = _handler()
    failing = [reason for group in _by_checkpoint(letters) for reason in _failing(handler, group).values()]
    good = len(letters) - len(failing)
    return LettersPreview(kind, ids, _in_words(kind, good, len(failing)), good, len(failing), tuple(failing[:3]))


def _in_words(kind: str, change: int, failing: int) -> str:
    noun = "dead letter" if change == 1 else "dead letters"
    if kind == DISCARD:
        return f"Discard {change:,} {noun}: never counted, kept and told as discarded. It can be undone."
    if kind == REOPEN:
        return f"Reopen {change:,} discarded {noun}: pending again."
    rest = f" {failing:,} would fail again and stay as they are." if failing else ""
    return f"Requeue {change:,} {noun}: counted now, from the bytes that were kept.{rest} This cannot be undone."


def _check(kind: str, letters: Sequence[DeadLetter], ids: Sequence[int]) -> None:
    missing = set(ids) - {letter.pk for letter in letters}
    if missing:
        raise StalePreviewError(f"There is no dead letter {min(missing)} that could be acted on; look again.")
    if not letters:
        raise RefusedError("No dead letter matches; nothing was changed.")
    if len(letters) > MAX_LETTERS:
        raise RefusedError(f"More than {MAX_LETTERS:,} dead letters match; choose fewer, by partition or error code.")
    expected = DeadLetterStatus.DISCARDED if kind == REOPEN else DeadLetterStatus.PENDING
    for letter in letters:
        if letter.status != expected:
            raise StalePreviewError(
                f"Dead letter {letter.pk} ({letter.checkpoint.topic}-{letter.checkpoint.partition} offset "
                f"{letter.offset:,}) is {letter.status} already; nothing was changed."
            )


# --- Apply ----------------------------------------------------------------------------------------


def resolve(
    kind: str,
    ids: Sequence[int],
    *,
    actor: Actor,
    reason: str,
    source: Source,
    undoes: OperatorAction | None = None,
) -> LettersOutcome:
    """Do it to exactly these. Raises RefusedError, having audited the refusal, when one is not as it was seen."""
    reason = reason.replace("\x00", "").strip()
    target = f"dead letter {ids[0]}" if len(ids) == 1 else f"{len(ids):,} dead letters"
    try:
        check_allowed(kind, actor)
        check_reason(reason)
        if len(ids) > MAX_LETTERS:
            raise RefusedError(f"At most {MAX_LETTERS:,} dead letters at once, not {len(ids):,}.")
        with transaction.atomic(), bounded_wait():
            letters = ledger.lock_dead_letters(ids)
            _check(kind, letters, ids)
            _check_kept(letters)
            if kind == REQUEUE:
                letters = _with_bytes(ids)
            return _apply(kind, letters, actor, reason, source, target, undoes)
    except RefusedError as error:
        audit.refused(kind, None, target=target, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _with_bytes(ids: Sequence[int]) -> list[DeadLetter]:
    """The letters whole, in offset order. Raises RefusedError where that would fill the memory."""
    rows = DeadLetter.objects.filter(pk__in=ids)
    size = rows.aggregate(size=Sum(Length("value")))["size"] or 0
    if size > MAX_BYTES:
        raise RefusedError(
            f"These dead letters hold {size / 2**20:,.0f} MiB, and at most {MAX_BYTES / 2**20:,.0f} are requeued at "
            "once; choose fewer, by partition or error code."
        )
    return list(rows.select_related("checkpoint").order_by("checkpoint_id", "offset"))


def _check_kept(letters: Sequence[DeadLetter]) -> None:
    for letter in letters:
        if letter.checkpoint.retired_reason == "rebuilt":
            raise RefusedError(
                f"Dead letter {letter.pk} belongs to counts that a rebuild has replaced; act on the one that it made "
                "of the same offset."
            )


def _apply(
    kind: str,
    letters: Sequence[DeadLetter],
    actor: Actor,
    reason: str,
    source: Source,
    target: str,
    undoes: OperatorAction | None,
) -> LettersOutcome:
    checkpoints = {letter.checkpoint_id: letter.checkpoint for letter in letters}
    only = next(iter(checkpoints.values())) if len(checkpoints) == 1 else None
    action = audit.applied(
        kind,
        only,
        target=f"{only}: {target}" if only else target,
        actor=actor,
        reason=reason,
        source=source,
        before={"ids": [letter.pk for letter in letters[:1000]]},
        after={},
        detail=_in_words(kind, len(letters), 0),
        change_id=uuid.uuid4(),
        undoes=undoes,
    )
    failing: dict[int, str] = {}
    if kind == REQUEUE:
        handler = _handler()
        for group in _by_checkpoint(letters):
            failing |= _count(handler, group, action)
        if len(failing) == len(letters):
            raise RefusedError(f"It still cannot be counted: {next(iter(failing.values()))} Nothing was changed.")
    else:
        status = DeadLetterStatus.DISCARDED if kind == DISCARD else DeadLetterStatus.PENDING
        _settle([letter.pk for letter in letters], status, action)
    changed = len(letters) - len(failing)
    done = _in_words(kind, changed, len(failing))
    audit.complete(action, {"changed": changed, "still_fail": len(failing)}, detail=done)
    journal.record(next(iter(checkpoints.values())).group_id, kind, f"{actor.name}: {done} {reason}")
    return LettersOutcome(action, changed, len(failing), tuple(failing.values())[:3])


def _count(handler: BatchHandler, letters: Sequence[DeadLetter], action: OperatorAction) -> dict[int, str]:
    """Count the letters of one checkpoint; where the database refuses, halve. Returns those that fail, with why."""
    failing = _failing(handler, letters)
    good = [letter for letter in letters if letter.pk not in failing]
    if not good:
        return failing
    decoded = _decoded(handler, good)
    try:
        with transaction.atomic(), connection.wrap_database_errors:
            commit = handler.combine(decoded)
            handler.insert([commit], connection)
            handler.update([commit], connection)
            _settle([letter.pk for letter in good], DeadLetterStatus.COUNTED, action)
    except DATA_ERRORS as error:
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


def _by_checkpoint(letters: Iterable[DeadLetter]) -> list[list[DeadLetter]]:
    return [list(group) for _, group in groupby(letters, key=lambda letter: letter.checkpoint_id)]


def _decoded(handler: BatchHandler, letters: Sequence[DeadLetter]) -> list[DecodedBatch]:
    """As one batch of the checkpoint that they belong to; the offsets between them are not looked at."""
    row = letters[0].checkpoint
    claim = Claim(row.pk, row.topic, row.partition, row.epoch, row.next_offset, tuple(row.dimensions), row.topic_id)
    records = [StoredRecord(letter) for letter in letters]
    batch = RecordBatch(claim, letters[0].offset, letters[-1].offset + 1, records, sum(map(len, records)))
    return list(decode_apart(handler.decode, batch))


def _failing(handler: BatchHandler, letters: Sequence[DeadLetter]) -> dict[int, str]:
    """Those of one checkpoint that cannot be decoded now either, with the reason."""
    by_offset = {letter.offset: letter.pk for letter in letters}
    return {
        by_offset[failure.offset]: f"{failure.error_code}: {failure.error_detail}"
        for decoded in _decoded(handler, letters)
        for failure in decoded.failures
    }


def counted_before_rebuild(group_id: str) -> list[int]:
    """Pending letters of one rebuilt partition whose like was requeued before the rebuild, and not refused since."""
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
            [group_id, REQUEUE, Source.AUTOMATIC, MAX_BYTES, MAX_LETTERS],
        )
        return [row[0] for row in cursor.fetchall()]


# --- For readers ----------------------------------------------------------------------------------


def listed(rows: "QuerySet[DeadLetter]", limit: int) -> list[dict[str, Any]]:
    """Dead letters as lists show them: the first bytes of key and value, as text. `as_json` has one whole."""
    heads = [Substr(F(name), 1, 4 * PREVIEW_CHARACTERS + 1, output_field=BinaryField()) for name in ("key", "value")]
    found = rows.select_related("checkpoint").defer(*BYTES)
    shown = found.annotate(head_key=heads[0], head_value=heads[1], value_bytes=Length("value"))[:limit]
    return [
        _about(letter)
        | {
            "key": _preview(letter.head_key),
            "value": _preview(letter.head_value),
            "value_bytes": letter.value_bytes,
        }
        for letter in shown
    ]


def _preview(head: Any) -> str | None:
    return preview_text(None if head is None else bytes(head))


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter whole: decoded where it is text, and raw in base64."""
    value, key = (None if part is None else bytes(part) for part in (letter.value, letter.key))
    return _about(letter) | {
        "key": _text(key),
        "value": _text(value),
        "value_base64": None if value is None else base64.b64encode(value).decode(),
        "key_base64": None if key is None else base64.b64encode(key).decode(),
        "headers": [[name, _text(content)] for name, content in StoredRecord(letter).headers()],
        "value_bytes": None if value is None else len(value),
        "resolved_at": letter.resolved_at,
    }


def _about(letter: DeadLetter) -> dict[str, Any]:
    """All but its bytes."""
    return {
        "id": letter.pk,
        "checkpoint_id": letter.checkpoint_id,
        "topic": letter.checkpoint.topic,
        "partition": letter.checkpoint.partition,
        "offset": letter.offset,
        "status": letter.status,
        "error_code": letter.error_code,
        "error_detail": letter.error_detail,
        "record_timestamp": letter.record_timestamp,
        "created_at": letter.created_at,
    }


def _text(content: bytes | None) -> str | None:
    """UTF-8 text; None for what is none, or is no text."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
