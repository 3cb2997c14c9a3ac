"""What the ledger must say, kept offset by offset in plain Python: the other side of the stateful tests.

Nothing here is clever: no intervals, no SQL, one dictionary entry per offset.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from offsets.types import RangeKind

GOOD, POISON, HOLE = "good", "poison", "hole"

#: A piece of a batch and what lies there, as `Segment.bounds`.
Bounds = tuple[int, int, RangeKind | None]


def runs(words: Mapping[int, RangeKind | None]) -> list[Bounds]:
    """Consecutive offsets of one word each; the keys have no gap."""
    found = []
    for word, run in groupby(sorted(words), key=words.__getitem__):
        offsets = list(run)
        found.append((offsets[0], offsets[-1] + 1, word))
    return found


@dataclass
class Log:
    """A partition's log in one life of its topic. `number` makes the content ids of each log its own."""

    number: int
    slots: list[str] = field(default_factory=list)
    start: int = 0

    @property
    def end(self) -> int:
        return len(self.slots)

    def content(self, offset: int) -> int:
        """One content id per record: so the counts by content say which offsets were counted, and how often."""
        return self.number * 1_000_000 + offset

    def good(self, start: int, end: int) -> list[int]:
        return [n for n in range(start, end) if self.slots[n] == GOOD]

    def poison(self, start: int, end: int) -> list[int]:
        return [n for n in range(start, end) if self.slots[n] == POISON]


@dataclass
class Book:
    """One checkpoint and all that hangs on it."""

    id: int
    log: Log
    baseline: int
    next: int
    epoch: int
    owner: str | None = None
    retired: str = ""
    #: The book that a rebuild put aside for this one.
    before: "Book | None" = None
    words: dict[int, RangeKind] = field(default_factory=dict)
    #: Which batch holds a `claimed` offset.
    batches: dict[int, uuid.UUID] = field(default_factory=dict)
    counted: Counter[int] = field(default_factory=Counter)
    dead: set[int] = field(default_factory=set)
    duplicates: int = 0

    @property
    def end(self) -> int:
        """`ledger_end`: where the ledger's last word ends."""
        return max(self.words, default=self.baseline - 1) + 1

    def cut(self, start: int, end: int) -> list[Bounds]:
        """What the ledger says of these offsets, in runs."""
        return runs({n: self.words.get(n) for n in range(start, end)})

    def covered_from_next(self) -> int:
        """As far as a reader could jump without leaving a hole behind."""
        at = self.next
        while at in self.words:
            at += 1
        return at

    # --- What may happen to it ---------------------------------------------------------------------

    def admits(self, epoch: int, start: int, end: int, believed: list[Bounds]) -> bool:
        """The fence: is this batch exactly the one that may be applied now?"""
        return not self.retired and self.epoch == epoch and self.next == start and self.cut(start, end) == believed

    def process(self, start: int, end: int, *, again: bool = False) -> None:
        """Count `[start, end)`. What is processed already is left alone, or with `again` counted once more."""
        seen = {n for n in range(start, end) if self.words.get(n) is RangeKind.PROCESSED}
        for offset in self.log.good(start, end):
            if offset not in seen or again:
                self.counted[offset] += 1
                self.duplicates += offset in seen
        self.dead |= set(self.log.poison(start, end)) - seen
        self.words |= dict.fromkeys(range(start, end), RangeKind.PROCESSED)
        for offset in range(start, end):
            self.batches.pop(offset, None)

    def take(self, start: int, end: int, batch: uuid.UUID) -> None:
        """At most once, first half."""
        for offset in range(start, end):
            if self.words.get(offset) is not RangeKind.PROCESSED:
                self.words[offset] = RangeKind.CLAIMED
                self.batches[offset] = batch
        self.next = end

    def still_holds(self, batch: uuid.UUID, believed: list[Bounds]) -> bool:
        """Whether all that the batch took is still its own."""
        taken = [n for start, end, word in believed if word is not RangeKind.PROCESSED for n in range(start, end)]
        return all(self.batches.get(n) == batch for n in taken)

    def seek(self, target: int, passed_as: RangeKind, baseline: int | None = None) -> None:
        self.epoch += 1
        self.baseline = min(self.baseline, target) if baseline is None else baseline
        for offset in range(max(self.next, self.baseline), target):
            self.words.setdefault(offset, passed_as)
        self.next = target
