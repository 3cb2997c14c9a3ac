"""A small HTTP proxy before the web server: it can strip a path prefix, and block websockets."""

import re
import socket
import threading
from contextlib import suppress

_HEAD_END = b"\r\n\r\n"
#: Headers of one connection, which a proxy that knows nothing of websockets does not pass on.
_OWN_HEADERS = re.compile(rb"(?im)^(?:connection|upgrade|keep-alive):[^\r\n]*\r\n")
_CONNECTION = re.compile(rb"(?im)^connection:[^\r\n]*\r\n")


class FrontProxy:
    """Passes each request on to `port`. `strip` is removed from the path; `websockets` can be changed at any time."""

    def __init__(self, port: int, *, strip: str = "", websockets: bool = True) -> None:
        self._target = ("127.0.0.1", port)
        self._strip = strip.encode()
        self.websockets = websockets
        #: The paths that were asked for.
        self.paths: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            # Wakes the thread that waits for a connection; closing alone does not.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head, rest = _read_head(client)
            if not head:
                return
            with socket.create_connection(self._target) as server:
                server.sendall(self._rewritten(head) + rest)
                up = threading.Thread(target=_pass, args=(client, server), daemon=True)
                up.start()
                _pass(server, client)

    def _rewritten(self, head: bytes) -> bytes:
        method, path, version = head.split(b"\r\n", 1)[0].split(b" ")
        self.paths.append(path.decode())
        first = b" ".join((method, path.removeprefix(self._strip) or b"/", version))
        headers = head.split(b"\r\n", 1)[1]
        upgrade = re.search(rb"(?im)^upgrade:", headers) is not None
        if upgrade and self.websockets:
            return first + b"\r\n" + headers
        # One request a connection, so that the rest of it can be passed on unread.
        headers = (_OWN_HEADERS if upgrade else _CONNECTION).sub(b"", headers)
        return first + b"\r\nConnection: close\r\n" + headers


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while _HEAD_END not in data:
        received = client.recv(65536)
        if not received:
            return b"", b""
        data += received
    head, _, rest = data.partition(_HEAD_END)
    return head + _HEAD_END, rest


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
