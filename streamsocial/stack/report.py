"""How long work tells of itself, so that a terminal, a test and the demo can each show it their way."""

from typing import Protocol


class Reporter(Protocol):
    """Called from several threads at once."""

    def say(self, text: str) -> None:
        """One finished or beginning step, in one line."""

    def advance(self, item: str, done: int, total: int) -> None:
        """`done` of `total` items of a countable job are complete; `item` was the last."""


class Silent:
    """Tells nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def advance(self, item: str, done: int, total: int) -> None:
        """Nothing."""
