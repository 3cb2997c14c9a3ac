"""A producer that counts confirmed deliveries."""

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, Message, Producer

from offsets.errors import ServiceUnavailableError
from offsets.kafka.config import DELIVERY_TIMEOUT_SECONDS, producer_config


class EventProducer:
    """Sends records and counts confirmed deliveries. Idempotent: retries do not write duplicates."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.delivered = 0
        self.failed = 0
        self.last_failure = ""
        self._producer = Producer(producer_config())

    def send(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Queue records; block while the queue is full. Raises ServiceUnavailableError after a failed delivery."""
        for key, value in records:
            while True:
                try:
                    self._producer.produce(self.topic, value, key, on_delivery=self._on_delivery)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            if self.failed:
                break
        self._producer.poll(0)
        self._raise_failure()

    def flush(self) -> None:
        """Wait for all deliveries, as long as they make progress.

        Raises ServiceUnavailableError if one failed, or if none was confirmed for DELIVERY_TIMEOUT_SECONDS.
        """
        seen, last_delivery = self.delivered, time.monotonic()
        while (left := self._producer.flush(1.0)) and not self.failed:
            if self.delivered > seen:
                seen, last_delivery = self.delivered, time.monotonic()
            elif time.monotonic() - last_delivery > DELIVERY_TIMEOUT_SECONDS:
                raise ServiceUnavailableError(f"Kafka has not confirmed {left} events. They may have been written.")
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.failed:
            raise ServiceUnavailableError(
                f"Delivery of {self.failed} events failed ({self.last_failure}). {self.delivered} were confirmed."
            )

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self.last_failure = error.str()
