"""Ports on the loopback interface: the usual one if it is free, else another that is remembered."""

import random
import socket
from collections.abc import Collection, Iterable

LOOPBACK = "127.0.0.1"

#: Below the system's ephemeral ports, so that no outgoing connection can take a port of ours while the stack is down.
FALLBACK_PORTS = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a service could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port whose last connections are still in TIME_WAIT is free for a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether something takes connections on this port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def choose(preferred: Iterable[int], taken: Collection[int]) -> int:
    """The first preferred port that is free, else any free one; never one of `taken`."""
    others = random.sample(FALLBACK_PORTS, k=200)
    for port in (*preferred, *others):
        if port not in taken and is_free(port):
            return port
    raise OSError("No free port on the loopback interface.")
