"""The engagement event, and the decoding of whole batches. Pure.

An event is one JSON object: `event_type` one of four strings, `user_id`, `content_id` and `occurred_at` (ms since the
epoch) integers in [0, 2^63). Unknown keys are ignored, on a repeated key the last counts.

Two decoders with the same result. `decode_record` is the reference: strict JSON by orjson, one record at a time.
`decode_columns` reads a whole batch with polars, and declines it whenever the two could differ; each check names what
polars 2.1 accepts that orjson rejects or reads differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import polars as pl

from analytics.dimensions import EVENT_TYPES

_TYPE_CODES = {name: code for code, name in enumerate(EVENT_TYPES)}
_NUMBERS = ("user_id", "content_id", "occurred_at")
_KEYS = ("event_type", *_NUMBERS)
_SCHEMA = {"event_type": pl.String, "user_id": pl.Int64, "content_id": pl.Int64, "occurred_at": pl.Int64}
_MAX_NUMBER = 2**63
#: orjson rejects JSON nested deeper than 1,024 levels; polars accepts a little more.
_SAFE_DEPTH = 1000


class Event(NamedTuple):
    """One valid event. `type_code` indexes EVENT_TYPES."""

    type_code: int
    user_id: int
    content_id: int
    occurred_at: int


@dataclass(frozen=True, slots=True)
class InvalidRecordError(Exception):
    """Why a record is not a valid event: a stable `code`, and a `detail` for people."""

    code: str
    detail: str


def decode_record(value: bytes | None, max_bytes: int) -> Event:
    """The reference decoder. Raises InvalidRecordError."""
    if value is None:
        raise InvalidRecordError("tombstone", "The record has no value.")
    if not value:
        raise InvalidRecordError("empty", "The value is empty.")
    if len(value) > max_bytes:
        raise InvalidRecordError("oversized", f"The value has {len(value)} bytes; the maximum is {max_bytes}.")
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRecordError("malformed", f"The value is not JSON: {error}.") from None
    if type(data) is not dict:
        raise InvalidRecordError("not_an_object", f"The value is a JSON {type(data).__name__}, not an object.")
    return Event(_type_code(data), *(_number(data, name) for name in _NUMBERS))


def _type_code(data: dict[str, object]) -> int:
    if "event_type" not in data:
        raise InvalidRecordError("missing_field", "event_type is missing.")
    name = data["event_type"]
    if type(name) is not str:
        raise InvalidRecordError("mistyped_field", f"event_type is {_shown(name)}, not a string.")
    if name not in _TYPE_CODES:
        raise InvalidRecordError("unknown_type", f"event_type is {_shown(name)}, not one of {', '.join(EVENT_TYPES)}.")
    return _TYPE_CODES[name]


def _number(data: dict[str, object], name: str) -> int:
    if name not in data:
        raise InvalidRecordError("missing_field", f"{name} is missing.")
    number = data[name]
    if type(number) is not int:
        raise InvalidRecordError("mistyped_field", f"{name} is {_shown(number)}, not an integer.")
    if not 0 <= number < _MAX_NUMBER:
        raise InvalidRecordError("out_of_range", f"{name} is {number}, outside [0, 2^63).")
    return number


#: JSON's names of containers. Their `repr` is not used: for one nested a thousand deep, which is valid JSON, it would
#: exceed Python's recursion limit.
_CONTAINERS: dict[type, str] = {dict: "an object", list: "an array"}


def _shown(value: object) -> str:
    if type(value) in _CONTAINERS:
        return _CONTAINERS[type(value)]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def decode_columns(values: Sequence[bytes | None], max_bytes: int) -> pl.DataFrame | None:
    """A batch as columns `type_code u8, user_id, content_id, occurred_at i64`, in the order of `values`.

    None when a record may not be a valid event, or when this decoder might read it differently from `decode_record`:
    then the batch must be decoded record by record.
    """
    try:
        payload = b"\n".join(values)  # type: ignore[arg-type]
    except TypeError:
        return None  # a tombstone
    count = len(values)
    longest = max(map(len, values))  # type: ignore[arg-type]
    if longest > max_bytes or not _surely_one_object_a_line(payload, count):
        return None
    if longest > _SAFE_DEPTH and payload.count(b"{") + payload.count(b"[") > count + _SAFE_DEPTH:
        return None  # possibly nested deeper than orjson accepts
    try:
        frame = pl.read_ndjson(payload, schema=_SCHEMA)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    return _checked(frame, count)


def _surely_one_object_a_line(payload: bytes, count: int) -> bool:
    """Each required key exactly once in each record, no raw newline in a record, and no escape.

    polars takes the first of repeated keys, skips blank lines, and accepts lone surrogates in escapes.
    """
    return (
        payload.count(b"\n") == count - 1
        and b"\\" not in payload
        and all(payload.count(b'"%s"' % key.encode()) == count for key in _KEYS)
    )


def _checked(frame: pl.DataFrame, count: int) -> pl.DataFrame | None:
    """The columns, if every row is a valid event. A number given as event_type reads as text and is no known type."""
    if frame.height != count:
        return None
    codes = frame["event_type"].replace_strict(_TYPE_CODES, default=None, return_dtype=pl.UInt8)
    numbers = [frame[name] for name in _NUMBERS]
    if codes.null_count() or any(column.null_count() for column in numbers):
        return None
    if any(column.min() < 0 for column in numbers):  # type: ignore[operator]
        return None
    return frame.select(codes.alias("type_code"), *_NUMBERS)
