"""Progress reports of long work, which a terminal, a test and the demo each show in their own way."""

from typing import Protocol


class Reporter(Protocol):
    """Called from several threads at once."""

    def say(self, text: str) -> None:
        """One step that starts or has finished, in one line."""

    def advance(self, item: str, done: int, total: int) -> None:
        """`done` of `total` items of a countable job are complete; `item` was the last."""


class Silent:
    """Reports nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def advance(self, item: str, done: int, total: int) -> None:
        """Nothing."""
