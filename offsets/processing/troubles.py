"""What keeps a worker from its work now, in words, for its Worker row and the log."""

import logging
from collections.abc import Container, Iterable

from offsets.types import TopicPartition

logger = logging.getLogger(__name__)

#: Sources that explain why nothing moves.
_SERVICES = ("database", "ledger", "kafka")


class Troubles:
    """Troubles by source, and the refused batches by partition. Any thread writes, the heartbeat reads.

    A source has one text, empty while all is well. A partition's refusal ends with its next commit.
    """

    def __init__(self) -> None:
        self._by_source: dict[str, str] = {}
        #: What was logged since the trouble of a source began.
        self._logged: dict[str, set[str]] = {}
        self._refusals: dict[TopicPartition, str] = {}

    def show(self, source: str, text: str) -> None:
        """Set a trouble for the Worker row only: it was logged where it happened, and nothing is retried."""
        self._by_source[source] = text

    def report(self, source: str, text: str) -> None:
        """Set a trouble that is retried. Logs each text once, and once when it is over."""
        before = self._by_source.get(source, "")
        self._by_source[source] = text
        logged = self._logged.setdefault(source, set())
        if text and text not in logged:
            logged.add(text)
            logger.warning("%s: %s. Nothing is lost; it is tried again.", source, text)
        elif before and not text:
            logged.clear()
            logger.info("%s is back.", source)

    def refused(self, tp: TopicPartition, reason: str) -> None:
        """The last batch of a partition was refused."""
        self._refusals[tp] = reason

    def committed(self, tp: TopicPartition) -> None:
        self._refusals.pop(tp, None)

    def waits_for_service(self) -> bool:
        return any(self._by_source.get(source) for source in _SERVICES)

    def describe(self, owned: Container[TopicPartition]) -> str:
        """All troubles in one line; of the refusals, those of `owned` partitions. Empty when there are none."""
        # Copies: other threads write meanwhile.
        texts: Iterable[str] = [text for text in list(self._by_source.values()) if text]
        refusals = [f"{tp}: {reason}" for tp, reason in list(self._refusals.items()) if tp in owned]
        return "; ".join([*texts, *refusals])
