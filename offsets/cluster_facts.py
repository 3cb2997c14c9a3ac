"""What a cluster says of itself, its topics and its groups. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from offsets.types import TopicPartition


class GroupMember(NamedTuple):
    """A member of a consumer group, as the broker describes it."""

    client_id: str
    host: str
    partitions: frozenset[TopicPartition] = frozenset()


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """Limits of a broker; None: it did not say."""

    group_min_session_ms: int | None = None
    group_max_session_ms: int | None = None
    rebalance_protocols: str | None = None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the cluster describes it; no partitions: it does not exist."""

    name: str
    partitions: int = 0
    without_leader: tuple[int, ...] = ()
    under_replicated: tuple[int, ...] = ()
    max_message_bytes: int | None = None
    retention_seconds: float | None = None
