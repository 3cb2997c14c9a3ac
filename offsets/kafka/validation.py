"""Check the Kafka clients' configuration without a connection: build each client and drop it."""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from django.conf import settings

from offsets.kafka.config import client_config, consumer_config, producer_config

#: Our own settings behind librdkafka's properties.
_VARIABLES = {
    "session.timeout.ms": "SESSION_TIMEOUT_MS",
    "heartbeat.interval.ms": "SESSION_TIMEOUT_MS",
    "max.poll.interval.ms": "MAX_POLL_INTERVAL_MS",
    "queued.max.messages.kbytes": "PIPELINE_MAX_BYTES",
    "group.protocol": "GROUP_PROTOCOL",
    "group.instance.id": "GROUP_INSTANCE_ID",
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
}
_SECRET = re.compile(r"password|secret|token|jaas|pem|\.key$")
_PROPERTY = re.compile(r"[a-z][a-z0-9]*(?:\.[a-z0-9_]+)+")

Build = Callable[[dict[str, Any]], object]


def refused_client_config() -> str:
    """Why librdkafka rejects the configuration of a client, naming the variable; empty when it accepts all of them."""
    consumer = consumer_config("check", "check", settings.GROUP_INSTANCE_ID)
    for build, config in (
        (_build_consumer, consumer),
        (Producer, producer_config()),
        (AdminClient, client_config()),
    ):
        if error := _error_of(build, config):
            return f"{_culprits(build, config, error)}: Kafka's client rejects it: {_without_secrets(error)}."
    return ""


def variable_of(name: str) -> str:
    """The variable that sets a property of librdkafka."""
    return _VARIABLES.get(name) or f"KAFKA_CONFIG_{name.upper().replace('.', '_')}"


def _build_consumer(config: dict[str, Any]) -> None:
    Consumer(config).close()


def _error_of(build: Build, config: Mapping[str, Any]) -> str:
    """What the client says about `config`; empty when it accepts it. Without brokers nothing is connected."""
    silent = logging.getLogger("offsets.kafka.validation")
    silent.disabled = True
    offline = {name: value for name, value in config.items() if name != "bootstrap.servers"}
    try:
        build(offline | {"logger": silent})
    except KafkaException as error:
        return " ".join(error.args[0].str().split()).rstrip(".")
    except (TypeError, ValueError, AttributeError) as error:
        return " ".join(str(error).split())
    return ""


def _culprits(build: Build, config: Mapping[str, Any], error: str) -> str:
    """The variables behind an error: those whose property it names, else those without which it changes."""
    user = {name for name in settings.KAFKA_CONFIG if name in config}
    named = [name for name in _PROPERTY.findall(error) if name in user or name in _VARIABLES]
    if not named:
        named = [
            name for name in sorted(user) if _error_of(build, {k: v for k, v in config.items() if k != name}) != error
        ]
    if not named:
        named = sorted(user)
    return ", ".join(dict.fromkeys(variable_of(name) for name in named)) or "KAFKA_CONFIG_*"


def _without_secrets(error: str) -> str:
    for name, value in settings.KAFKA_CONFIG.items():
        if value and _SECRET.search(name):
            error = error.replace(value, "***")
    return error
