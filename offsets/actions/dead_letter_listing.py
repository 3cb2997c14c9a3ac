"""Dead letters for readers: which ones, as a list, or one whole."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from django.db.models import BinaryField, F, QuerySet
from django.db.models.functions import Length, Substr

from offsets.models import DeadLetter
from offsets.text import PREVIEW_CHARACTERS, preview_text
from offsets.types import DeadLetterStatus

#: What a dead letter is read without, unless it is to be counted or shown whole.
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
        dead_letters = DeadLetter.objects.filter(checkpoint__group_id=self.group_id).exclude(
            checkpoint__retired_reason="rebuilt"
        )
        if self.topic:
            dead_letters = dead_letters.filter(checkpoint__topic=self.topic)
        if self.partition is not None:
            dead_letters = dead_letters.filter(checkpoint__partition=self.partition)
        if self.error_code:
            dead_letters = dead_letters.filter(error_code=self.error_code)
        if self.ids:
            return dead_letters.filter(pk__in=self.ids).order_by("checkpoint_id", "offset")
        if self.status:
            dead_letters = dead_letters.filter(status=self.status)
        return dead_letters.order_by("checkpoint_id", "offset")


class StoredRecord:
    """A dead letter as the record it was: implements `KafkaRecord`."""

    def __init__(self, dead_letter: DeadLetter) -> None:
        self._dead_letter = dead_letter

    def __len__(self) -> int:
        return len(self._dead_letter.value or b"")

    def value(self) -> bytes | None:
        return None if self._dead_letter.value is None else bytes(self._dead_letter.value)

    def key(self) -> bytes | None:
        return None if self._dead_letter.key is None else bytes(self._dead_letter.key)

    def offset(self) -> int:
        return self._dead_letter.offset

    def timestamp(self) -> tuple[int, int]:
        at = self._dead_letter.record_timestamp
        return (0, -1) if at is None else (1, round(at.timestamp() * 1000))

    def headers(self) -> list[tuple[str, bytes | None]]:
        try:
            stored = json.loads(bytes(self._dead_letter.headers))
            return [(name, None if text is None else base64.b64decode(text)) for name, text in stored]
        except (ValueError, TypeError, binascii.Error):
            return []

    def leader_epoch(self) -> int | None:
        return None


def listed(rows: "QuerySet[DeadLetter]", limit: int) -> list[dict[str, Any]]:
    """Dead letters as lists show them: the first bytes of key and value, as text. `as_json` has one whole."""
    heads = [Substr(F(name), 1, 4 * PREVIEW_CHARACTERS + 1, output_field=BinaryField()) for name in ("key", "value")]
    found = rows.select_related("checkpoint").defer(*BYTES)
    shown = found.annotate(head_key=heads[0], head_value=heads[1], kept=Length("value"))[:limit]
    return [
        _about(dead_letter)
        | {
            "key": _preview(dead_letter.head_key),
            "value": _preview(dead_letter.head_value),
            "value_bytes": dead_letter.kept if dead_letter.value_bytes is None else dead_letter.value_bytes,
        }
        for dead_letter in shown
    ]


def _preview(head: Any) -> str | None:
    return preview_text(None if head is None else bytes(head))


def as_json(dead_letter: DeadLetter) -> dict[str, Any]:
    """A dead letter whole: decoded where it is text, and raw in base64."""
    value, key = (None if part is None else bytes(part) for part in (dead_letter.value, dead_letter.key))
    return _about(dead_letter) | {
        "key": _text(key),
        "value": _text(value),
        "value_base64": None if value is None else base64.b64encode(value).decode(),
        "key_base64": None if key is None else base64.b64encode(key).decode(),
        "headers": [[name, _text(content)] for name, content in StoredRecord(dead_letter).headers()],
        "value_bytes": len(value) if value is not None and dead_letter.is_whole else dead_letter.value_bytes,
        "resolved_at": dead_letter.resolved_at,
    }


def _about(dead_letter: DeadLetter) -> dict[str, Any]:
    """All but its bytes."""
    return {
        "id": dead_letter.pk,
        "checkpoint_id": dead_letter.checkpoint_id,
        "topic": dead_letter.checkpoint.topic,
        "partition": dead_letter.checkpoint.partition,
        "offset": dead_letter.offset,
        "status": dead_letter.status,
        "error_code": dead_letter.error_code,
        "error_detail": dead_letter.error_detail,
        "record_timestamp": dead_letter.record_timestamp,
        "created_at": dead_letter.created_at,
    }


def _text(content: bytes | None) -> str | None:
    """The content as UTF-8 text; None where it is missing or not text."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
