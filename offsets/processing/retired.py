"""Partitions that the group assigns to this worker although an operator retired them."""

from collections.abc import Callable, Iterable

from offsets import ledger
from offsets.types import TopicPartition


class RetiredPartitions:
    """They are not claimed until the action is undone: then they go on where they stood. Fetching thread only.

    `on_trouble(source, text)` is told which they are, and "" once there are none.
    """

    def __init__(self, group_id: str, on_trouble: Callable[[str, str], None]) -> None:
        self._group_id = group_id
        self._on_trouble = on_trouble
        #: With the action that retired each.
        self._actions: dict[TopicPartition, str] = {}

    @property
    def partitions(self) -> set[TopicPartition]:
        return set(self._actions)

    def find(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Those of `partitions`, which are to be claimed now, that are retired."""
        wanted = set(partitions)
        found = ledger.retired_partitions(self._group_id, wanted)
        self._set({tp: action for tp, action in self._actions.items() if tp not in wanted} | found)
        return set(found)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """The group took them away."""
        gone = set(partitions)
        self._set({tp: action for tp, action in self._actions.items() if tp not in gone})

    def _set(self, actions: dict[TopicPartition, str]) -> None:
        if actions == self._actions:
            return
        self._actions = actions
        self._on_trouble("retired", describe(actions) if actions else "")


def describe(actions: dict[TopicPartition, str]) -> str:
    """What the Worker row says, without the final stop."""
    names = ", ".join(str(tp) for tp in sorted(actions))
    by = ", ".join(sorted(set(actions.values())))
    return (
        f"{names} {'is' if len(actions) == 1 else 'are'} retired ({by}) and not read. Undo the action to continue "
        "there, or remove the topic from this worker"
    )
