"""The producer's patience: deliveries that keep coming are waited for, silence is not."""

from collections.abc import Callable
from typing import Any

import pytest

from offsets.errors import ServiceUnavailableError
from offsets.kafka import producer
from offsets.kafka.config import DELIVERY_TIMEOUT_SECONDS
from offsets.kafka.producer import EventProducer


class SlowBroker:
    """Stands for the client: each `flush` takes ten seconds of a clock of its own and confirms what `confirms` says."""

    def __init__(self, confirms: Callable[[int], int], queued: int) -> None:
        self.now, self.calls, self.queued, self.confirms = 0.0, 0, queued, confirms
        self.owner: EventProducer | None = None

    def flush(self, seconds: float) -> int:
        assert self.owner is not None
        self.now += 10
        self.calls += 1
        for _ in range(min(self.confirms(self.calls), self.queued)):
            self.queued -= 1
            self.owner._on_delivery(None, None)
        return self.queued

    def monotonic(self) -> float:
        return self.now


def sending_to(broker: SlowBroker, monkeypatch: pytest.MonkeyPatch) -> EventProducer:
    def client(config: dict[str, Any]) -> SlowBroker:
        return broker

    monkeypatch.setattr(producer, "Producer", client)
    monkeypatch.setattr(producer, "time", broker)
    broker.owner = EventProducer("t")
    return broker.owner


def test_it_waits_as_long_as_deliveries_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = SlowBroker(lambda call: 1, queued=20)
    sender = sending_to(broker, monkeypatch)
    sender.flush()
    assert sender.delivered == 20
    assert broker.now > 3 * DELIVERY_TIMEOUT_SECONDS


def test_it_gives_up_after_a_silence_and_says_how_many_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = sending_to(SlowBroker(lambda call: 1 if call <= 2 else 0, queued=20), monkeypatch)
    with pytest.raises(ServiceUnavailableError, match="18 events"):
        sender.flush()
