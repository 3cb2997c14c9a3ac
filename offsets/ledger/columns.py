"""Rows as columns, for statements that write many rows at once."""

from collections.abc import Iterable
from typing import Any


def columns(rows: Iterable[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    """Rows, at least one, as parallel lists, as `unnest` wants them."""
    return tuple(map(list, zip(*rows, strict=True)))
