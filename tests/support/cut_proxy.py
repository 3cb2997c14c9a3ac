"""A TCP proxy that cuts a connection at a chosen moment."""

import socket
import threading
from contextlib import suppress


class CutProxy:
    """Passes PostgreSQL's traffic on; armed, it cuts the connection around the next COMMIT of a worker.

    `before` the server hears of it, or after: then the answer is lost, and nobody knows what became of it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._armed: str | None = None
        self.cuts = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: str) -> None:
        with self._lock:
            self._armed = when

    @property
    def armed(self) -> bool:
        with self._lock:
            return self._armed is not None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                swallow = threading.Event()
                threading.Thread(target=self._up, args=(client, server, swallow), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, swallow), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """From the client; a worker's transaction is known by the copy of deltas that it began with."""
        counts = False
        with suppress(OSError):
            while data := client.recv(65536):
                counts = counts or b"COPY analytics_engagementdelta" in data
                when = self._cut_now() if counts and b"COMMIT" in data else None
                if when == "before":
                    break
                if when == "after":
                    swallow.set()
                server.sendall(data)
                if when == "after":
                    return  # it answers, and nobody hears it: the other thread ends both
                if b"COMMIT" in data:
                    counts = False
        _close(client, server)

    def _cut_now(self) -> str | None:
        with self._lock:
            when, self._armed = self._armed, None
            self.cuts += when is not None
            return when

    def _pass(self, source: socket.socket, target: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not swallow.is_set():
                target.sendall(data)
        _close(source, target)

    def close(self) -> None:
        self._listener.close()


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            one.close()
