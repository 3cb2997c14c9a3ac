"""One meaning, two decoders: the batch decoder declines, or agrees with the reference on every record."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analytics.dimensions import EVENT_TYPES
from analytics.events import Event, InvalidRecordError, decode_columns, decode_record

LIMIT = 4096
GOOD = b'{"event_id":"e","event_type":"view","user_id":7,"content_id":8,"occurred_at":9}'

numbers = st.one_of(
    st.integers(-2, 3), st.integers(2**63 - 2, 2**63 + 1), st.integers(2**64 - 1, 2**65), st.integers(0, 2**63 - 1)
)
odd_values = st.one_of(
    numbers,
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.lists(numbers, max_size=2),
    st.just({"user_id": 1}),
)
pairs = st.one_of(
    st.tuples(st.just("event_type"), st.one_of(st.sampled_from([*EVENT_TYPES, "View", "applause"]), odd_values)),
    st.tuples(st.sampled_from(["user_id", "content_id", "occurred_at"]), st.one_of(numbers, odd_values)),
    st.tuples(st.sampled_from(["event_id", "note", "user_id2", '"user_id"']), odd_values),
)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """JSON objects near to events: keys repeated, missing or escaped, white space, values of every type."""
    items = draw(st.lists(pairs, max_size=3))
    for name in ("event_type", "user_id", "content_id", "occurred_at"):
        if draw(st.integers(0, 9)):
            items.append((name, draw(st.sampled_from(EVENT_TYPES)) if name == "event_type" else draw(numbers)))
    space = draw(st.sampled_from(["", " ", "\n", "\t", "\r"]))
    ascii_only = draw(st.booleans())
    parts = [
        f"{json.dumps(k, ensure_ascii=ascii_only)}:{space}{json.dumps(v, ensure_ascii=ascii_only)}" for k, v in items
    ]
    text = "{" + f",{space}".join(draw(st.permutations(parts))) + "}"
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("user_id", "user\\u005fid", 1)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid event with a few bytes inserted, deleted or replaced."""
    value = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value) - 1))
        noise = draw(
            st.sampled_from([b"", b"\n", b"\r", b"\\", b'"', b"{", b"}", b",", b"\x00", b"\xff", b" ", b"1", b"."])
        )
        value[at : at + draw(st.integers(0, 2))] = noise
    return bytes(value)


records = st.one_of(
    st.just(GOOD),
    st.just(GOOD),
    objects(),
    mutated(),
    st.sampled_from(
        [
            b"",
            b" ",
            b"\n",
            b"null",
            b"[]",
            b"1",
            GOOD + GOOD,
            GOOD + b"\n" + GOOD,
            GOOD[:30],
            GOOD[30:],
            b"\xef\xbb\xbf" + GOOD,
            GOOD + b"\n",
            b"\n" + GOOD,
            GOOD + b",",
            b"[" + GOOD + b"]",
            GOOD[:-1],
            GOOD[:-1] + b',"x":' + b"[" * 1040 + b"]" * 1040 + b"}",
            GOOD[:-1] + b',"x":' + b"[" * 990 + b"]" * 990 + b"}",
            GOOD[:-1] + b',"x":"' + b"y" * LIMIT + b'"}',
            GOOD[:-1] + b',"x":"\\ud800"}',
            GOOD[:-1] + b',"user_id":1}',
            GOOD[:-1] + b',"x":{"user_id":1}}',
            GOOD[:-1] + b',"x":1e400}',
            GOOD.replace(b"7", b"[" * 1023 + b"]" * 1023),
            GOOD.replace(b'"view"', b'["view"]'),
            GOOD[:-1] + b',"x":"\xff"}',
            GOOD.replace(b"7", b"-0"),
        ]
    ),
)


def reference(value: bytes | None) -> Event | None:
    try:
        return decode_record(value, LIMIT)
    except InvalidRecordError:
        return None


@settings(max_examples=1500, deadline=None)
@given(st.lists(records, min_size=1, max_size=6))
@example([GOOD + b"\n" + GOOD, b"", GOOD])
@example([GOOD[:40], GOOD[40:] + GOOD])
@example([GOOD, b"", GOOD + GOOD])
def test_it_declines_or_agrees_with_the_reference(batch: list[bytes]) -> None:
    columns = decode_columns(batch, LIMIT)
    if columns is not None:
        assert [Event(*row) for row in columns.rows()] == [reference(value) for value in batch]


@given(st.lists(st.tuples(st.sampled_from(EVENT_TYPES), *[st.integers(0, 2**63 - 1)] * 3), min_size=1, max_size=20))
def test_it_reads_plain_events_at_once(rows: list[tuple[str, int, int, int]]) -> None:
    """The fast path must not decline what producers really send, or it is no path at all."""
    batch = [
        json.dumps({"event_id": "x", "event_type": t, "user_id": u, "content_id": c, "occurred_at": o}).encode()
        for t, u, c, o in rows
    ]
    columns = decode_columns(batch, LIMIT)
    assert columns is not None
    assert columns.rows() == [(EVENT_TYPES.index(t), u, c, o) for t, u, c, o in rows]


def test_it_declines_a_batch_with_a_tombstone() -> None:
    assert decode_columns([GOOD, None], LIMIT) is None


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b"x" * (LIMIT + 1), "oversized"),
        (b"{", "malformed"),
        (GOOD + b"\x00", "malformed"),
        (GOOD[:-1] + b',"x":"\xff"}', "malformed"),
        (b"[1]", "not_an_object"),
        (b'{"event_type":"view","user_id":1,"content_id":1}', "missing_field"),
        (GOOD.replace(b'"view"', b"5"), "mistyped_field"),
        (GOOD.replace(b'"view"', b'"View"'), "unknown_type"),
        (GOOD.replace(b"7", b"1.0"), "mistyped_field"),
        (GOOD.replace(b"7", b"true"), "mistyped_field"),
        (GOOD.replace(b"7", b'"7"'), "mistyped_field"),
        (GOOD.replace(b"7", b"-1"), "out_of_range"),
        (GOOD.replace(b"7", b"9223372036854775808"), "out_of_range"),
    ],
)
def test_it_says_why_a_record_is_no_event(value: bytes | None, code: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        decode_record(value, LIMIT)
    assert caught.value.code == code
    assert caught.value.detail


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        b' \r\n{ "occurred_at" : 9, "content_id":8,"user_id":7,"event_type":"view" } ',
        GOOD.replace(b"event_type", b"event\\u005ftype"),
        GOOD.replace(b"view", b"vi\\u0065w"),
        b'{"user_id":1,' + GOOD[1:],
        GOOD[:-1] + b',"more":{"deep":[1,2]}}',
    ],
)
def test_it_takes_every_spelling_of_the_same_event(value: bytes) -> None:
    assert decode_record(value, LIMIT) == Event(0, 7, 8, 9)


@pytest.mark.parametrize("name", [b'"view"', b"7", b"8", b"9"])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_it_sets_apart_a_field_nested_as_deep_as_json_goes(name: bytes, opening: bytes, closing: bytes) -> None:
    """Such a record once ended the decoding thread, and that of every worker that came after it."""
    depth = 1023  # with the event's own braces the deepest that orjson takes
    value = GOOD.replace(name, opening * depth + (b"1" if opening != b"[" else b"") + closing * depth)
    with pytest.raises(InvalidRecordError) as caught:
        decode_record(value, 2 * LIMIT * LIMIT)
    assert caught.value.code == "mistyped_field"
