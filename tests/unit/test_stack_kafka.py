"""The small parts of Kafka's side that need no Kafka."""

import socket
import struct
import threading
import uuid

import pytest

from streamsocial.stack import ports
from streamsocial.stack.kafka import knows_a_broker, random_id


def test_a_cluster_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [uuid.UUID(bytes=b"\xfb" * 16), uuid.UUID(bytes=b"\x01" * 16)]
    monkeypatch.setattr(uuid, "uuid4", lambda: drawn.pop(0))
    assert random_id() == "AQEBAQEBAQEBAQEBAQEBAQ"
    assert drawn == []


def _serve(answer: bytes) -> int:
    """A server for one request."""
    server = socket.create_server((ports.LOOPBACK, 0))

    def run() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(1024)
            connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (struct.pack(">iii", 8, 1, 1), True),
        (struct.pack(">iii", 8, 1, 0), False),  # it listens, but serves nobody yet
        (struct.pack(">iii", 8, 2, 1), False),
        (b"HTTP", False),
        (b"", False),
    ],
)
def test_a_broker_is_ready_once_it_names_a_broker(answer: bytes, ready: bool) -> None:
    assert knows_a_broker(_serve(answer)) is ready


def test_a_closed_port_is_not_ready() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    assert not knows_a_broker(port)
