"""Synthetic events: the same for the same seed, and told apart from poison by the decoder exactly as the truth says."""

from collections import Counter

import numpy as np

from analytics.dimensions import EVENT_TYPES
from analytics.events import InvalidRecordError, decode_record
from analytics.generator import CHUNK, OVERSIZED_EVERY, Recipe, Truth, chunks

NOW = 1_700_000_000_000
LIMIT = 1024 * 1024
POISONED = Recipe(seed=3, contents=50, users=80, poison=0.3)


def records(recipe: Recipe, count: int) -> list[tuple[bytes, bytes | None]]:
    return [record for chunk in chunks(recipe, count) for record in chunk.records(NOW)]


def test_it_makes_the_same_records_from_the_same_seed() -> None:
    assert records(POISONED, 3000) == records(POISONED, 3000)
    assert records(Recipe(4, 50, 80, 0.3), 3000) != records(POISONED, 3000)


def test_it_makes_as_many_records_as_asked_for() -> None:
    sizes = [len(chunk.types) for chunk in chunks(Recipe(1), CHUNK * 2 + 7)]
    assert sizes == [CHUNK, CHUNK, 7]


def test_it_goes_on_without_a_count() -> None:
    endless = chunks(Recipe(1), None)
    assert [next(endless).first for _ in range(3)] == [0, CHUNK, 2 * CHUNK]


def test_its_truth_is_what_the_decoder_finds() -> None:
    """Counted twice: from the drawn fields by the truth, and from the produced bytes here."""
    truth = Truth(POISONED.contents, POISONED.users)
    seen: Counter[tuple[str, int, str]] = Counter()
    codes: Counter[str] = Counter()
    for chunk in chunks(POISONED, 4000):
        truth.add(chunk)
        for key, value in chunk.records(NOW):
            try:
                event = decode_record(value, LIMIT)
            except InvalidRecordError as error:
                codes[error.code] += 1
                continue
            assert key == b"%d" % event.content_id
            seen[("content", event.content_id, EVENT_TYPES[event.type_code])] += 1
            seen[("user", event.user_id, EVENT_TYPES[event.type_code])] += 1
    told = Counter(
        {
            (dimension, identifier, name): count
            for dimension, identifier, *counts in truth.rows()
            for name, count in zip(EVENT_TYPES, counts, strict=True)
        }
    )
    assert +told == seen
    assert truth.poison == codes.total()
    assert truth.poison + sum(truth.totals().values()) == 4000
    assert set(codes) == {
        "tombstone",
        "empty",
        "oversized",
        "malformed",
        "not_an_object",
        "missing_field",
        "mistyped_field",
        "out_of_range",
        "unknown_type",
    }


def test_its_truth_is_in_the_order_of_the_export() -> None:
    truth = Truth(POISONED.contents, POISONED.users)
    for chunk in chunks(POISONED, 2000):
        truth.add(chunk)
    keys = [row[:2] for row in truth.rows()]
    assert keys == sorted(set(keys))


def test_it_keeps_records_of_a_megabyte_rare() -> None:
    (chunk,) = chunks(Recipe(1, poison=1.0), OVERSIZED_EVERY * 3)
    large = [value for _, value in chunk.records(NOW) if value is not None and len(value) > LIMIT]
    assert len(large) == 3


def test_some_contents_are_far_more_popular_than_others() -> None:
    (chunk,) = chunks(Recipe(1, contents=1000, users=1000), CHUNK)
    contents, users = np.bincount(chunk.contents), np.bincount(chunk.users)
    assert contents.max() > 20 * np.median(contents)
    assert users.max() < 5 * np.median(users)
    assert np.bincount(chunk.types).argmax() == EVENT_TYPES.index("view")


def test_a_cut_chunk_makes_the_records_of_the_whole() -> None:
    (chunk,) = chunks(POISONED, 1000)
    parts = [*chunk.cut(0, 300).records(NOW), *chunk.cut(300, 1000).records(NOW)]
    assert parts == list(chunk.records(NOW))
