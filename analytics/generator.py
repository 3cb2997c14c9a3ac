"""Synthetic engagement events, determined by their seed. Pure.

Content popularity follows Zipf's law (exponent 1), users are uniform; most events are views. Poison is a share of
records that must become dead letters, of every kind that the decoder distinguishes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from analytics.dimensions import EVENT_TYPES

#: How often each type of EVENT_TYPES occurs.
TYPE_SHARES = (0.80, 0.13, 0.04, 0.03)
CHUNK = 10_000

_POISON = (
    None,  # a tombstone
    b"",
    b"not json",
    b'{"event_type": "view", "user_id": 1',
    b'[{"event_type": "view", "user_id": 1, "content_id": 1, "occurred_at": 1}]',
    b'{"event_type": "applause", "user_id": 1, "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "user_id": -1, "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "user_id": 9223372036854775808, "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "user_id": 1.0, "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "user_id": "1", "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "content_id": 1, "occurred_at": 1}',
    b'{"event_type": "view", "user_id": 1, "content_id": 1, "occurred_at": 1}\x00',
    b'{"event_type": "view", "user_id": 1, "content_id": 1, "occurred_at": 1}\n' * 2,
    b'{"event_type": "view", "user_id": 1, "content_id": 1, "occurred_at": 1, "note": "\xff"}',
)


#: Valid except for its length, just over the default limit of 1 MiB; rare, because each has a megabyte.
_OVERSIZED = b'{"event_type":"view","user_id":1,"content_id":1,"occurred_at":1,"note":"%s"}' % (b"x" * 1024 * 1024)
OVERSIZED_EVERY = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int
    contents: int = 100_000
    users: int = 1_000_000
    poison: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Up to CHUNK records: parallel arrays of the drawn fields. `poisoned` marks the invalid ones.

    All arrays have shape (n,); `types` indexes EVENT_TYPES.
    """

    first: int
    types: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    users: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    contents: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    poisoned: "np.ndarray[tuple[int], np.dtype[np.bool_]]"

    def cut(self, start: int, end: int) -> "Chunk":
        """The records from `start` to `end` of this chunk."""
        return Chunk(
            self.first + start,
            self.types[start:end],
            self.users[start:end],
            self.contents[start:end],
            self.poisoned[start:end],
        )

    def records(self, now_ms: int) -> Iterator[tuple[bytes, bytes | None]]:
        """(key, value) of each record; events occur at `now_ms`."""
        rows = zip(
            self.types.tolist(), self.users.tolist(), self.contents.tolist(), self.poisoned.tolist(), strict=True
        )
        for number, (kind, user, content, poisoned) in enumerate(rows, start=self.first):
            key = b"%d" % content
            if poisoned:
                yield key, _OVERSIZED if number % OVERSIZED_EVERY == 0 else _POISON[number % len(_POISON)]
            else:
                yield (
                    key,
                    (
                        b'{"event_id":"e%d","event_type":"%s","user_id":%d,"content_id":%d,"occurred_at":%d}'
                        % (number, _TYPE_BYTES[kind], user, content, now_ms)
                    ),
                )


_TYPE_BYTES = [name.encode() for name in EVENT_TYPES]


def chunks(recipe: Recipe, count: int | None) -> Iterator[Chunk]:
    """`count` records in chunks, or without end for None. The same recipe gives the same records."""
    random = np.random.default_rng(recipe.seed)
    # The inverse of the cumulative popularity turns a uniform draw into a Zipf one.
    popularity = np.cumsum(1.0 / np.arange(1, recipe.contents + 1))
    popularity /= popularity[-1]
    first = 0
    while count is None or first < count:
        size = CHUNK if count is None else min(CHUNK, count - first)
        yield Chunk(
            first,
            random.choice(len(EVENT_TYPES), size=size, p=TYPE_SHARES),
            random.integers(1, recipe.users + 1, size=size),
            np.searchsorted(popularity, random.random(size)) + 1,
            random.random(size) < recipe.poison,
        )
        first += size


@dataclass(slots=True)
class Truth:
    """The produced events, counted independently of the pipeline. Users and contents are numbered from 1."""

    contents: int
    users: int
    poison: int = 0
    by_content: "np.ndarray[tuple[int, int], np.dtype[np.int64]]" = field(init=False)
    by_user: "np.ndarray[tuple[int, int], np.dtype[np.int64]]" = field(init=False)

    def __post_init__(self) -> None:
        self.by_content = np.zeros((self.contents + 1, len(EVENT_TYPES)), dtype=np.int64)
        self.by_user = np.zeros((self.users + 1, len(EVENT_TYPES)), dtype=np.int64)

    def add(self, chunk: Chunk) -> None:
        good = ~chunk.poisoned
        self.poison += int(chunk.poisoned.sum())
        np.add.at(self.by_content, (chunk.contents[good], chunk.types[good]), 1)
        np.add.at(self.by_user, (chunk.users[good], chunk.types[good]), 1)

    def totals(self) -> dict[str, int]:
        return {name: int(count) for name, count in zip(EVENT_TYPES, self.by_content.sum(axis=0), strict=True)}

    def rows(self) -> Iterator[tuple[str, int, int, int, int, int]]:
        """In the format and order of `engagement_totals --export`."""
        for dimension, table in (("content", self.by_content), ("user", self.by_user)):
            for identifier in np.flatnonzero(table.any(axis=1)).tolist():
                yield (dimension, identifier, *table[identifier].tolist())
