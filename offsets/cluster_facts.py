"""What a cluster says of itself, as far as `doctor` judges it. Pure."""

from dataclasses import dataclass


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
