"""A Redis that accepts connections and never answers: each call of ours to Celery's broker has a deadline."""

import socket
import time
from collections.abc import Iterator

import pytest
from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from offsets import tasks
from offsets.processing import slots
from streamsocial.celery import REDIS_SECONDS

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(120)]


@pytest.fixture
def _silent_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        monkeypatch.setattr(current_app.conf, "broker_write_url", url)
        yield


@pytest.mark.usefixtures("_silent_broker")
def test_counting_what_waits_ends() -> None:
    began = time.monotonic()
    with pytest.raises(BrokerError):
        slots.waiting_messages("slots")
    assert time.monotonic() - began < 6 * REDIS_SECONDS


@pytest.mark.usefixtures("_silent_broker")
def test_a_replay_is_sent_later_and_a_tick_of_supervision_ends(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    assert not tasks.dispatch_replay(1)
    tasks.supervise()
    assert time.monotonic() - began < 12 * REDIS_SECONDS
    assert "Replay 1 is not sent yet" in caplog.text
    assert "Slots cannot be started" in caplog.text
