"""A TCP proxy that cuts a connection at a chosen moment, changes an answer, or goes silent."""

import socket
import threading
from contextlib import suppress

#: PostgreSQL's answer to a COMMIT.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


class CutProxy:
    """Passes PostgreSQL's traffic on; armed, it cuts the connection around the next COMMIT of a worker.

    `before` the server hears of it, or `after`: then the answer is lost, and nobody knows what became of it.
    `doubled`, it sends the answer to a COMMIT twice, as poolers do that mix up their sessions.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._armed: str | None = None
        self.cuts = 0
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: str) -> None:
        with self._lock:
            self._armed = when

    def go_silent(self) -> None:
        """Pass nothing on and close nothing, as when a host vanishes: what was sent is still acknowledged."""
        self._open.clear()

    def come_back(self) -> None:
        """Pass new connections on, and end those that had something to say meanwhile."""
        self._open.set()

    @property
    def armed(self) -> bool:
        with self._lock:
            return self._armed is not None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        if not self._open.is_set():
            self._open.wait()
            _close(client)
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _close(client)
            return
        swallow = threading.Event()
        threading.Thread(target=self._up, args=(client, server, swallow), daemon=True).start()
        threading.Thread(target=self._pass, args=(server, client, swallow), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """From the client; a worker's transaction is known by the copy of deltas that it began with."""
        counts = False
        with suppress(OSError):
            while (data := client.recv(65536)) and self._passes():
                counts = counts or b"COPY analytics_engagementdelta" in data
                when = self._cut_now("before", "after") if counts and b"COMMIT" in data else None
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

    def _passes(self) -> bool:
        """Whether a connection goes on; waits while the proxy is silent, and then it does not."""
        if self._open.is_set():
            return True
        self._open.wait()
        return False

    def _cut_now(self, *wanted: str) -> str | None:
        with self._lock:
            if self._armed not in wanted:
                return None
            when, self._armed = self._armed, None
            self.cuts += when is not None
            return when

    def _pass(self, source: socket.socket, target: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not swallow.is_set() and self._passes():
                if COMMITTED in data and self._cut_now("doubled"):
                    data = data.replace(COMMITTED, 2 * COMMITTED, 1)
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
