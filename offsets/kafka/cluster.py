"""What `doctor` asks the cluster: brokers, their limits, and the state of topics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource

from offsets.cluster_facts import BrokerLimits, TopicFacts
from offsets.errors import RefusedError, TopicNotFoundError
from offsets.kafka.config import client_config
from offsets.kafka.errors import result_of


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    brokers: int
    has_controller: bool
    limits: BrokerLimits


class ClusterQueries:
    """Queries with one timeout each. Raises ServiceUnavailableError, RefusedError."""

    def __init__(self, timeout_seconds: float) -> None:
        self._client = AdminClient(client_config())
        self._timeout = timeout_seconds

    def cluster(self) -> ClusterFacts:
        answer = result_of(self._client.describe_cluster(request_timeout=self._timeout), self._timeout)
        brokers = [ConfigResource(ConfigResource.Type.BROKER, str(node.id)) for node in answer.nodes[:1]]
        config = next(iter(self._configs(brokers).values()), {})
        limits = BrokerLimits(
            _number(config, "group.min.session.timeout.ms"),
            _number(config, "group.max.session.timeout.ms"),
            config.get("group.coordinator.rebalance.protocols"),
        )
        return ClusterFacts(len(answer.nodes), answer.controller is not None, limits)

    def topics(self, names: Iterable[str]) -> list[TopicFacts]:
        wanted = sorted(set(names))
        configs = self._configs([ConfigResource(ConfigResource.Type.TOPIC, name) for name in wanted])
        answers = self._client.describe_topics(TopicCollection(wanted), request_timeout=self._timeout)
        return [self._topic(name, answers[name], configs.get(name, {})) for name in wanted]

    def _topic(self, name: str, answer: Any, config: Mapping[str, str]) -> TopicFacts:
        try:
            partitions = result_of(answer, self._timeout).partitions
        except TopicNotFoundError:
            return TopicFacts(name)
        retention = _number(config, "retention.ms")
        keeps = retention is not None and retention >= 0 and "delete" in config.get("cleanup.policy", "")
        return TopicFacts(
            name,
            len(partitions),
            tuple(sorted(p.id for p in partitions if p.leader is None or p.leader.id < 0)),
            tuple(sorted(p.id for p in partitions if len(p.isr) < len(p.replicas))),
            _number(config, "max.message.bytes"),
            retention / 1000 if retention is not None and keeps else None,
        )

    def _configs(self, resources: list[ConfigResource]) -> dict[str, dict[str, str]]:
        """The configuration of each resource, without those that cannot be read."""
        if not resources:
            return {}
        if not resources:
            return {}
        configs = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=self._timeout).items():
            try:
                entries = result_of(future, self._timeout)
            except (TopicNotFoundError, RefusedError):
                continue
            configs[str(resource.name)] = {name: entry.value for name, entry in entries.items() if entry.value}
        return configs


def _number(config: Mapping[str, str], name: str) -> int | None:
    return int(config[name]) if name in config else None
