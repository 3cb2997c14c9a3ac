"""Rows to columns, for statements that write many rows at once."""

from collections.abc import Iterable
from typing import Any


def columns(rows: Iterable[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    """Transpose rows, at least one, to the parallel lists that `unnest` takes."""
    return tuple(map(list, zip(*rows, strict=True)))
