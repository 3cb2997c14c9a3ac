"""When a worker that was asked to exit once it has caught up may exit (R19, docs/adr/0008)."""

import logging
from collections.abc import Callable, Iterable, Mapping

from offsets import ledger
from offsets.clock import monotonic
from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.ledger import PartitionProgress
from offsets.processing.coordinator import OffsetCoordinator
from offsets.types import TopicPartition

logger = logging.getLogger(__name__)

#: How long the partitions of other members may stand still before a worker gives up waiting for them. Longer than
#: any group session: a dead member's come to us when its session ends.
PATIENCE_SECONDS = 30.0
ASK_SECONDS = 0.2


class CatchUp:
    """Compares the ledger with the read_committed ends that the topics had at the first look. Fetching thread only.

    All partitions count, not only those that the group has assigned to this worker: a member that was just killed still
    holds its own, and they are not read. `drain()` commits what is fetched.
    """

    def __init__(
        self,
        group_id: str,
        topics: Iterable[str],
        coordinator: OffsetCoordinator,
        admin: KafkaAdmin,
        drain: Callable[[], None],
    ) -> None:
        self._group_id = group_id
        self._topics = tuple(topics)
        self._coordinator = coordinator
        self._admin = admin
        self._drain = drain
        self._targets: dict[TopicPartition, int] = {}
        self._began = monotonic()
        self._asked = 0.0
        self._unchanged: tuple[float, Mapping[TopicPartition, int]] = (self._began, {})

    def verdict(self) -> bool | None:
        """True when all of it is committed, False when it will not be, None while it goes on."""
        owned, retired = self._coordinator.partitions, self._coordinator.retired.partitions
        unclaimed = self._coordinator.unclaimed.keys() - retired
        if not owned and not retired and (unclaimed or monotonic() - self._began < PATIENCE_SECONDS):
            return None
        if not self._know_targets(owned) or unclaimed:
            return None
        reading = [(local, self._targets[tp]) for tp, local in owned.items() if not local.held]
        if any(local.committed < target or not local.started for local, target in reading):
            if all(local.start >= target for local, target in reading):
                self._drain()
            return None
        held = {tp: "halted" if local.halted else "paused" for tp, local in owned.items() if local.held}
        held |= dict.fromkeys(retired, "retired")
        for tp, why in held.items():
            logger.error("%s is %s.", tp, why)
        return False if held else self._others_verdict(owned)

    def _know_targets(self, owned: Iterable[TopicPartition]) -> bool:
        """The ends at the first look; of a partition by which a topic grew since, when it is first owned."""
        try:
            if not self._targets:
                described = self._admin.describe_topics(self._topics)
                partitions = [
                    TopicPartition(topic, number) for topic in described for number in described[topic].partitions
                ]
                self._ask_ends(partitions)
            self._ask_ends(tp for tp in owned if tp not in self._targets)
        except OffsetsError as error:
            logger.warning("The log ends are not known yet: %s", error)
        return bool(self._targets) and all(tp in self._targets for tp in owned)

    def _ask_ends(self, partitions: Iterable[TopicPartition]) -> None:
        self._targets |= {tp: bounds.end for tp, bounds in self._admin.log_bounds(partitions).items()}

    def _others_verdict(self, owned: Iterable[TopicPartition]) -> bool | None:
        """The partitions of other members must be read, too: by them, or by us when the group assigns them to us."""
        if (now := monotonic()) - self._asked < ASK_SECONDS:
            return None
        self._asked = now
        try:
            known = ledger.partition_progress(self._group_id, self._topics)
        except DATABASE_LOST as error:
            logger.warning("The progress of the other members is not known: %s", error)
            return None
        unread = PartitionProgress(-1, "")
        others = {tp: known.get(tp, unread) for tp in self._targets.keys() - set(owned)}
        behind = {tp: progress for tp, progress in others.items() if progress.next_offset < self._targets[tp]}
        if not behind:
            return True
        held = sorted(f"{tp} is {progress.held}" for tp, progress in behind.items() if progress.held)
        since, before = self._unchanged
        positions = {tp: progress.next_offset for tp, progress in behind.items()}
        if positions != before:
            self._unchanged = now, positions
            return None
        if not held and now - since < PATIENCE_SECONDS:
            return None
        names = ", ".join(str(tp) for tp in sorted(behind))
        logger.error("Not caught up: other members own %s. %s", names, "; ".join(held) or "They make no progress.")
        return False
